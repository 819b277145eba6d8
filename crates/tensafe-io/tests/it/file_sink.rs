//! The atomic writer: all or nothing, and the mode, the links and the neighbours of the target.

use std::{fs, path::Path};

use tensafe_format::{Dtype, LayoutOptions, Rule, TensorSpec};
use tensafe_io::{ErrorKind, FileSink, FileSource, ReplaceOptions, Sink, TensorFile, copy_range, write_file};

use crate::{directory, names_in};

fn keeps_the_contract(sink: &mut dyn Sink) {
    sink.write_at(3, b"def").unwrap();
    sink.write_at(0, b"abc").unwrap();
    sink.write_at(6, b"").unwrap();
    for (offset, bytes) in [(4, &b"xyz"[..]), (7, b""), (u64::MAX, b"x")] {
        assert_eq!(sink.write_at(offset, bytes).unwrap_err().kind(), ErrorKind::Usage, "{offset}");
    }
    sink.commit().unwrap();
}

#[test]
fn a_sink_keeps_the_contract() {
    let directory = directory();
    let path = directory.path().join("file");
    for durable in [false, true] {
        let options = ReplaceOptions::default().with_durable(durable);
        keeps_the_contract(&mut FileSink::create(&path, 6, options).unwrap());
        assert_eq!(fs::read(&path).unwrap(), b"abcdef");
    }
    assert_eq!(names_in(directory.path()), ["file"]);
}

#[test]
fn nothing_is_visible_before_the_commit() {
    let directory = directory();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();
    let sink = FileSink::create(&path, 3, Default::default()).unwrap();
    sink.write_at(0, b"new").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"old");
    drop(sink);
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(names_in(directory.path()), ["file"], "no temporary file is left");
}

#[test]
fn a_refused_overwrite_touches_nothing() {
    let directory = directory();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();
    let error = FileSink::create(&path, 3, ReplaceOptions::default().with_overwrite(false)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(
        (fs::read(&path).unwrap(), names_in(directory.path())),
        (b"old".to_vec(), vec!["file".into()])
    );
}

#[test]
fn a_target_that_cannot_be_written_is_an_error_with_its_path() {
    let directory = directory();
    let missing = directory.path().join("missing").join("file");
    let error = FileSink::create(&missing, 1, Default::default()).unwrap_err();
    assert!(error.to_string().contains("missing"), "{error}");
    let error = FileSink::create(directory.path(), 1, Default::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
}

#[test]
fn a_file_beyond_the_disk_is_refused_before_it_is_written() {
    let directory = directory();
    let path = directory.path().join("file");
    let error = FileSink::create(&path, 1 << 60, Default::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert!(names_in(directory.path()).is_empty());
}

#[cfg(unix)]
mod unix {
    use std::{
        ffi::OsStr,
        io::Read as _,
        os::unix::{
            ffi::OsStrExt as _,
            fs::{PermissionsExt as _, symlink},
        },
        process::Command,
    };

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn write(path: &Path, bytes: &[u8]) {
        let mut sink = FileSink::create(path, bytes.len() as u64, Default::default()).unwrap();
        sink.write_at(0, bytes).unwrap();
        sink.commit().unwrap();
    }

    #[test]
    fn a_new_file_has_the_mode_that_the_umask_leaves() {
        let directory = directory();
        // What a plain write makes is what the umask leaves.
        fs::write(directory.path().join("plain"), "").unwrap();
        write(&directory.path().join("file"), b"x");
        assert_eq!(mode(&directory.path().join("file")), mode(&directory.path().join("plain")));
    }

    #[test]
    fn a_file_that_is_replaced_keeps_its_mode() {
        let directory = directory();
        let path = directory.path().join("file");
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        write(&path, b"new");
        assert_eq!((mode(&path), fs::read(&path).unwrap()), (0o640, b"new".to_vec()));
    }

    #[test]
    fn symbolic_links_are_written_through() {
        let directory = directory();
        fs::create_dir(directory.path().join("elsewhere")).unwrap();
        let target = directory.path().join("elsewhere/target");
        for (link, to) in [("a", "b"), ("b", "elsewhere/target")] {
            symlink(to, directory.path().join(link)).unwrap();
        }
        for content in [&b"one"[..], b"two"] {
            write(&directory.path().join("a"), content);
            assert_eq!(fs::read(&target).unwrap(), content);
            assert!(fs::symlink_metadata(directory.path().join("a")).unwrap().is_symlink());
        }
        symlink("loop", directory.path().join("loop")).unwrap();
        FileSink::create(directory.path().join("loop"), 1, Default::default()).unwrap_err();
    }

    #[test]
    fn refusals_of_our_own_carry_the_number_that_the_system_has_for_them() {
        use rustix::io::Errno;
        let directory = directory();
        let file = directory.path().join("file");
        fs::write(&file, "old").unwrap();
        symlink("loop", directory.path().join("loop")).unwrap();
        let keep = ReplaceOptions::default().with_overwrite(false);
        for (path, options, errno, kind) in [
            (directory.path().to_owned(), keep, Errno::ISDIR, std::io::ErrorKind::IsADirectory),
            (file, keep, Errno::EXIST, std::io::ErrorKind::AlreadyExists),
            (directory.path().join("loop"), Default::default(), Errno::LOOP, Errno::LOOP.kind()),
        ] {
            let error = FileSink::create(&path, 1, options).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(errno.raw_os_error()), "{error}");
            assert_eq!(error.os_kind(), Some(kind), "{error}");
        }
        let error = FileSource::open(directory.path()).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(Errno::ISDIR.raw_os_error()));
    }

    #[test]
    fn names_that_are_not_unicode_are_written() {
        let directory = directory();
        let path = directory.path().join(OsStr::from_bytes(b"\xff\xfe"));
        write(&path, b"x");
        assert_eq!(fs::read(&path).unwrap(), b"x");
    }

    #[test]
    fn a_pipe_gets_the_bytes_from_start_to_end() {
        let directory = directory();
        let path = directory.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let reader = std::thread::spawn({
            let path = path.clone();
            move || {
                let mut bytes = Vec::new();
                fs::File::open(path).unwrap().read_to_end(&mut bytes).unwrap();
                bytes
            }
        });
        let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 255) as u8).collect();
        write(&path, &bytes);
        assert_eq!(reader.join().unwrap(), bytes);
        assert_eq!(names_in(directory.path()), ["pipe"]);
    }

    #[test]
    fn what_waits_to_be_streamed_is_private() {
        let directory = directory();
        let path = directory.path().join("private-pipe");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        let _sink = FileSink::create(&path, 3, Default::default()).unwrap();
        let name = format!(".private-pipe.{:x}-", std::process::id());
        let names = fs::read_dir(std::env::temp_dir()).unwrap().map(|entry| entry.unwrap().file_name());
        let copy = names.into_iter().find(|found| found.to_string_lossy().starts_with(&name)).unwrap();
        assert_eq!(mode(&std::env::temp_dir().join(copy)), 0o600);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn an_open_pipe_gets_the_bytes_by_its_number() {
        use std::os::fd::AsRawFd as _;
        let (mut reader, writer) = std::io::pipe().unwrap();
        write(Path::new(&format!("/proc/self/fd/{}", writer.as_raw_fd())), b"abc");
        drop(writer);
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, b"abc");
    }
}

#[test]
fn a_failed_save_leaves_the_old_file_and_nothing_else() {
    let directory = directory();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();
    let save = |spec: TensorSpec, bytes: &[u8]| {
        write_file(&path, [(spec, bytes)], None, &LayoutOptions::default(), Default::default()).unwrap_err()
    };
    let reserved = save(TensorSpec::new("__metadata__", Dtype::U8, [1]), &[0]);
    assert_eq!(reserved.as_format().unwrap().rule(), Some(Rule::RESERVED_NAME));
    let size = save(TensorSpec::new("t", Dtype::F32, [2]), &[0; 7]);
    assert_eq!(
        size.chain().to_string(),
        format!("{}: tensor `t`: buffer of 7 bytes, needed 8", path.display())
    );
    assert_eq!(
        (fs::read(&path).unwrap(), names_in(directory.path())),
        (b"old".to_vec(), vec!["file".into()])
    );
}

#[test]
fn the_data_section_starts_where_it_is_asked_to() {
    let directory = directory();
    let path = directory.path().join("file");
    for align in [8, 64, 4096] {
        let spec = TensorSpec::new("t", Dtype::U8, [3]);
        let options = LayoutOptions::with_align(align);
        write_file(&path, [(spec, &[1, 2, 3][..])], None, &options, Default::default()).unwrap();
        let file = TensorFile::open(&path, &Default::default()).unwrap();
        assert_eq!(file.header().data_start() % align, 0);
        assert_eq!(*file.tensor("t").unwrap(), [1, 2, 3]);
    }
}

#[test]
fn large_files_that_are_not_flushed_hold_what_was_written() {
    const MIB: usize = 1 << 20;
    let directory = directory();
    let path = directory.path().join("file");
    let data: Vec<u8> = (0..50 * MIB).map(|i| (i % 251) as u8).collect();
    // Pieces that touch, with odd borders, a gap, a piece across windows, and one at the very end.
    let cuts =
        [0..3, 3..5 * MIB + 1, 5 * MIB + 1..9 * MIB + 10, 9 * MIB + 77..42 * MIB + 5, 50 * MIB - 2..50 * MIB];
    let mut expected = vec![0; data.len()];
    let mut pieces = Vec::new();
    for cut in cuts.iter().rev() {
        expected[cut.clone()].copy_from_slice(&data[cut.clone()]);
        pieces.push((cut.start as u64, &data[cut.clone()]));
    }
    let options = ReplaceOptions::default().with_durable(false);
    let mut sink = FileSink::create(&path, data.len() as u64, options).unwrap();
    sink.write_pieces(&pieces, &Default::default()).unwrap();
    sink.commit().unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    assert_eq!(names_in(directory.path()), ["file"]);
}

#[test]
fn pieces_that_overlap_are_refused_before_a_byte_is_written() {
    let directory = directory();
    let path = directory.path().join("file");
    let sink = FileSink::create(&path, 10, Default::default()).unwrap();
    let error = sink.write_pieces(&[(4, b"cde"), (0, b"abcde")], &Default::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    assert!(error.to_string().ends_with("bytes 4..5 are in two pieces"), "{error}");
    // The longer of two, which comes first, ends beyond the file.
    let error = sink.write_pieces(&[(8, b"i"), (0, b"abcdefghijk")], &Default::default()).unwrap_err();
    assert!(error.to_string().contains("0..11"), "{error}");
    let mut sink = sink;
    sink.commit().unwrap();
    assert_eq!(fs::read(&path).unwrap(), [0; 10]);
}

#[test]
fn a_name_that_was_taken_meanwhile_is_not_replaced() {
    let directory = directory();
    let path = directory.path().join("file");
    for durable in [false, true] {
        let options = ReplaceOptions::default().with_overwrite(false).with_durable(durable);
        let mut sink = FileSink::create(&path, 3, options).unwrap();
        sink.write_at(0, b"new").unwrap();
        fs::write(&path, "old").unwrap();
        let error = sink.commit().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("rename to"), "{error}");
        drop(sink);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        fs::remove_file(&path).unwrap();
        let mut sink = FileSink::create(&path, 3, options).unwrap();
        sink.write_at(0, b"new").unwrap();
        sink.commit().unwrap();
        assert_eq!(
            (fs::read(&path).unwrap(), names_in(directory.path())),
            (b"new".to_vec(), vec!["file".into()])
        );
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn nothing_is_copied_beyond_the_end_of_a_sink() {
    let directory = directory();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    fs::write(&from, vec![1; 32 << 10]).unwrap();
    let mut sink = FileSink::create(&to, 100, Default::default()).unwrap();
    let error = copy_range(&FileSource::open(&from).unwrap(), 0, &sink, 90, 32 << 10).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    sink.commit().unwrap();
    assert_eq!(fs::metadata(&to).unwrap().len(), 100);
}
