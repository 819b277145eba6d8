//! One open file: the same bytes by every access, and errors instead of crashes where it changes.

use std::{
    fs::{self, OpenOptions as FsOptions},
    io::Write as _,
    sync::Arc,
};

use proptest::prelude::*;
use tensafe_format::{Bounds, Dtype, Index, ParseOptions, SafeTensors, TensorSpec};
use tensafe_io::{
    Access, Buffer, Cache, ErrorKind, FileSource, OpenOptions, ReplaceOptions, Source, TensorFile, write_file,
};

use crate::{accesses, directory, disk::Disk, file_of};

fn index() -> impl Strategy<Value = Index> {
    prop_oneof![
        (-4i64..4).prop_map(Index::At),
        (prop::option::of(-5i64..6), prop::option::of(-5i64..6), 1u64..4)
            .prop_map(|(start, stop, step)| Index::Range { start, stop, step }),
        Just(Index::Ellipsis),
    ]
}

proptest! {
    /// S-19, S-40: a part is the same bytes by every access, and those of the bytes in memory.
    #[test]
    fn parts_are_the_same_by_every_access(
        shape in prop::collection::vec(0u64..6, 0..4),
        index in prop::collection::vec(index(), 0..4),
    ) {
        let directory = directory();
        let (path, _) = file_of(&directory, &shape);
        let whole = fs::read(&path).unwrap();
        let memory = SafeTensors::parse(&whole).unwrap();
        for options in accesses() {
            let file = TensorFile::open(&path, &options).unwrap();
            let part = file.region("t", &index, Bounds::Refuse);
            match memory.tensor("t").unwrap().slice(&index) {
                Err(expected) => {
                    let error = part.unwrap_err();
                    prop_assert_eq!(error.as_format(), Some(&expected));
                }
                Ok((region, runs)) => {
                    let (found, bytes) = part.unwrap();
                    prop_assert_eq!(&found[..], region.shape());
                    prop_assert_eq!(&*bytes, runs.flatten().copied().collect::<Vec<u8>>());
                }
            }
        }
    }
}

#[test]
fn tensors_are_the_same_by_every_access() {
    let directory = directory();
    let (path, bytes) = file_of(&directory, &[3000, 4000]);
    for options in accesses() {
        let file = TensorFile::open(&path, &options).unwrap();
        assert_eq!(*file.tensor("t").unwrap(), bytes[..]);
        assert_eq!(*file.data().unwrap(), bytes[..]);
        assert_eq!(file.path(), Some(&*path));
        let mapped = matches!(options.access, Access::Map(_) | Access::Auto(_));
        assert_eq!(file.tensor("t").unwrap().is_mapped(), mapped);
    }
}

#[test]
fn a_column_is_gathered_from_a_file_without_reading_all_of_it() {
    let directory = directory();
    // Rows of 64 KiB: the column's runs are far apart.
    let (path, bytes) = file_of(&directory, &[64, 65_536]);
    let file = TensorFile::open(&path, &Default::default()).unwrap();
    let (region, column) = file.region("t", &[Index::FULL, Index::range(5..7)], Bounds::Refuse).unwrap();
    assert_eq!(region, [64, 2]);
    let expected: Vec<u8> = bytes.chunks(65_536).flat_map(|row| row[5..7].to_vec()).collect();
    assert_eq!(*column, expected[..]);
}

#[test]
fn a_tensor_that_is_not_there_is_named_with_its_file() {
    let directory = directory();
    let (path, _) = file_of(&directory, &[4]);
    let error = TensorFile::open(&path, &Default::default()).unwrap().tensor("u").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.chain().to_string(), format!("{}: tensor `u` not found", path.display()));
}

/// Case 50 of the corpus: the file shrinks between its header and its data.
#[test]
fn a_file_that_shrinks_while_it_is_open_is_an_error() {
    let directory = directory();
    let (path, _) = file_of(&directory, &[5_000_000]);
    let file = TensorFile::open(&path, &Default::default()).unwrap();
    FsOptions::new().write(true).open(&path).unwrap().set_len(4_000_000).unwrap();
    let error = file.tensor("t").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("the file ends early: at offset"), "{error}");
    // What is still there and was read whole is refused too: it may belong to another content.
    let error = file.region("t", &[Index::range(0..10)], Bounds::Refuse).unwrap_err();
    assert!(error.to_string().contains("changed while it was open: another length"), "{error}");
}

#[test]
fn a_file_that_is_changed_in_place_is_an_error() {
    let directory = directory();
    let (path, _) = file_of(&directory, &[100]);
    let file = TensorFile::open(&path, &Default::default()).unwrap();
    let changed = FsOptions::new().write(true).open(&path).unwrap();
    changed.set_modified(std::time::SystemTime::now() + std::time::Duration::from_secs(2)).unwrap();
    let error = file.tensor("t").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(error.to_string().contains("another time of modification"), "{error}");
}

/// Headers that are one in memory were read once.
#[test]
fn a_file_that_is_opened_again_shares_its_header_until_it_changes() {
    let directory = directory();
    let (path, _) = file_of(&directory, &[100]);
    // Nobody vouches for a file that was changed a moment ago.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let files = accesses().map(|options| TensorFile::open(&path, &options).unwrap());
    assert_eq!(files.iter().all(|file| std::ptr::eq(files[0].header(), file.header())), cfg!(unix));

    let (_, bytes) = file_of(&directory, &[10, 11]);
    let third = TensorFile::open(&path, &Default::default()).unwrap();
    assert_eq!((third.info("t").unwrap().shape(), &*third.tensor("t").unwrap()), (&[10, 11][..], &bytes[..]));
}

#[test]
fn a_file_that_is_replaced_goes_on_being_read() {
    let directory = directory();
    let (path, bytes) = file_of(&directory, &[100]);
    for options in accesses() {
        let file = TensorFile::open(&path, &options).unwrap();
        let spec = TensorSpec::new("other", Dtype::U8, [1]);
        write_file(&path, [(spec, &[9][..])], None, &Default::default(), Default::default()).unwrap();
        assert_eq!(*file.tensor("t").unwrap(), bytes[..]);
        file_of(&directory, &[100]);
    }
}

#[test]
fn a_file_that_is_cut_short_is_refused_by_every_access() {
    let directory = directory();
    let (path, _) = file_of(&directory, &[100]);
    let whole = fs::read(&path).unwrap();
    for end in [0, 7, 8, 30, whole.len() - 1] {
        fs::write(&path, &whole[..end]).unwrap();
        for options in accesses() {
            let error = TensorFile::open(&path, &options).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Format, "{end}: {error}");
        }
    }
    let mut grown = FsOptions::new().append(true).open(&path).unwrap();
    grown.write_all(&[0, 0]).unwrap();
    for options in accesses() {
        let error = TensorFile::open(&path, &options).unwrap_err();
        assert!(error.chain().to_string().ends_with("(S-16)"), "{}", error.chain());
    }
}

#[test]
fn a_lie_about_the_header_reserves_no_memory() {
    let directory = directory();
    let path = directory.path().join("lie");
    fs::write(&path, (99_999_999u64).to_le_bytes()).unwrap();
    let error = TensorFile::open(&path, &Default::default()).unwrap_err();
    assert!(error.chain().to_string().ends_with("(S-03)"), "{}", error.chain());
}

#[test]
fn a_long_header_is_read_in_two_requests() {
    let directory = directory();
    let path = directory.path().join("long");
    let specs: Vec<_> =
        (0..5_000u32).map(|i| TensorSpec::new(format!("tensor.{i}"), Dtype::U8, [1])).collect();
    let tensors = specs.into_iter().map(|spec| (spec, &[7u8][..]));
    write_file(&path, tensors, None, &Default::default(), ReplaceOptions::default().with_durable(false))
        .unwrap();
    let file = TensorFile::open(&path, &Default::default()).unwrap();
    assert_eq!(file.header().len(), 5_000);
    assert_eq!(*file.tensor("tensor.4999").unwrap(), [7]);
}

#[test]
fn any_source_and_bytes_in_memory_open_as_a_file() {
    let directory = directory();
    let (path, bytes) = file_of(&directory, &[100]);
    let whole = fs::read(&path).unwrap();
    let memory = TensorFile::from_memory(Buffer::from_owner(whole), &ParseOptions::default()).unwrap();
    assert_eq!(*memory.tensor("t").unwrap(), bytes[..]);
    assert!(memory.path().is_none() && memory.memory().is_some());
    let source: Arc<dyn Source> = Arc::new(FileSource::open(&path).unwrap());
    let file = TensorFile::from_source(source, &ParseOptions::default()).unwrap();
    assert_eq!(*file.tensor("t").unwrap(), bytes[..]);
}

#[test]
fn threads_share_one_file() {
    let directory = directory();
    let (path, bytes) = file_of(&directory, &[256, 1024]);
    let file = TensorFile::open(&path, &Default::default()).unwrap();
    std::thread::scope(|scope| {
        for thread in 0u64..8 {
            let (file, bytes) = (&file, &bytes);
            scope.spawn(move || {
                for row in 0..32u64 {
                    let row = thread * 32 + row;
                    let at = i64::try_from(row).unwrap();
                    let (_, part) = file.region("t", &[Index::At(at)], Bounds::Refuse).unwrap();
                    let start = row as usize * 1024;
                    assert_eq!(*part, bytes[start..start + 1024]);
                }
            });
        }
    });
}

#[test]
fn all_tensors_are_the_same_by_every_access_and_aligned() {
    let directory = directory();
    let path = directory.path().join("many");
    let large = vec![3u8; 70_000];
    let specs = (0..3_000u32).map(|i| (TensorSpec::new(format!("s{i}"), Dtype::U16, [2]), &[1, 2, 3, 4][..]));
    let tensors = specs.chain([(TensorSpec::new("large", Dtype::U8, [70_000]), &large[..])]);
    write_file(&path, tensors, None, &Default::default(), ReplaceOptions::default().with_durable(false))
        .unwrap();
    for options in accesses() {
        let file = TensorFile::open(&path, &options).unwrap();
        let groups = file.groups().unwrap();
        assert_eq!(groups.len() > 1, !matches!(options.access, Access::Map(_) | Access::Auto(_)));
        let mut tensors = file.header().tensors();
        for group in &groups {
            for info in tensors.by_ref().take(group.tensors.len()) {
                let range = file.header().file_range(&info);
                let start = (range.start - group.offset) as usize;
                let bytes = group.bytes.slice(start..start + (range.end - range.start) as usize);
                assert_eq!(*bytes, *file.tensor(info.name()).unwrap());
                let alignment = info.dtype().alignment_bytes() as usize;
                assert!(
                    bytes.as_mut_ptr().addr().is_multiple_of(alignment)
                        || matches!(options.access, Access::Map(_) | Access::Auto(_))
                );
            }
        }
        assert!(tensors.next().is_none());
    }
}

#[test]
fn what_is_read_leaves_the_cache_where_that_is_asked_for() {
    let directory = directory();
    let (path, bytes) = file_of(&directory, &[3 << 20]);
    let file = fs::read(&path).unwrap();
    let start = (file.len() - bytes.len()) as u64;
    for (access, refuses_direct) in [
        (Access::Read, false),
        (Access::Direct, true),
        (Access::Direct, false),
        (Access::Owned, true),
        (Access::Owned, false),
    ] {
        for (cache, drops) in [(Cache::Keep, false), (Cache::Drop, true)] {
            let disk = Arc::new(Disk { refuses_direct, ..Disk::new(file.clone()) });
            let options = OpenOptions::default().with_access(access).with_cache(cache);
            let source = Arc::clone(&disk) as Arc<dyn Source>;
            let opened = TensorFile::from_source_with(source, &options).unwrap();
            disk.arm(None);
            assert!(*opened.tensor("t").unwrap() == bytes[..]);
            let buffered = disk.log.lock().unwrap().iter().any(|(direct, _)| !direct);
            assert_eq!(buffered, access == Access::Read || refuses_direct, "{access:?}");
            let forgotten = disk.forgotten.lock().unwrap().clone();
            let forgotten = forgotten.iter().map(|range| range.end - range.start).sum::<u64>();
            assert_eq!(forgotten, if drops && buffered { 3 << 20 } else { 0 }, "{access:?}");
            disk.arm(None);
            opened.read(start..start + 10).unwrap();
            assert_eq!(disk.forgotten.lock().unwrap().len(), usize::from(drops));
        }
    }
}

#[test]
fn a_file_that_is_cut_short_between_open_and_header_is_refused_by_every_access() {
    let directory = directory();
    for options in accesses() {
        let (path, _) = file_of(&directory, &[3 << 20]);
        let source = FileSource::open(&path).unwrap();
        FsOptions::new().write(true).open(&path).unwrap().set_len(2 << 20).unwrap();
        let error = TensorFile::from_file(source, &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.to_string().contains("length"), "{error}");
    }
}
