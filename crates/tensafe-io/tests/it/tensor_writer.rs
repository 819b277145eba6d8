//! A file written tensor by tensor: any order, any threads, several processes, and never a hole.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    thread,
};

use tensafe_format::{Dtype, LayoutOptions, Metadata, TensorSpec};
use tensafe_io::{DirectWrites, ErrorKind, ReplaceOptions, TensorWriter, write_file};

use crate::{counting, directory, names_in};

const A: usize = (9 << 20) + 8;
const B: usize = 3 << 20;
const C: usize = 5;

fn specs() -> [TensorSpec; 4] {
    [
        TensorSpec::new("a", Dtype::F32, [A as u64 / 4]),
        TensorSpec::new("b", Dtype::BF16, [2, B as u64 / 4]),
        TensorSpec::new("c", Dtype::U8, [C as u64]),
        TensorSpec::new("none", Dtype::F32, [0, 7]),
    ]
}

fn metadata() -> Metadata {
    Metadata::from([("key".into(), "value".into())])
}

fn data() -> [Vec<u8>; 4] {
    let all = counting(A + B + C);
    [all[..A].to_vec(), all[A..A + B].to_vec(), all[A + B..].to_vec(), Vec::new()]
}

fn create(path: &Path, options: ReplaceOptions) -> TensorWriter {
    TensorWriter::create(path, specs(), Some(&metadata()), &LayoutOptions::default(), options).unwrap()
}

/// What the writer of whole files makes of the same tensors.
fn whole(directory: &Path) -> Vec<u8> {
    let path = directory.join("whole");
    let data = data();
    let tensors = specs().into_iter().zip(data.iter().map(Vec::as_slice));
    write_file(&path, tensors, Some(&metadata()), &Default::default(), Default::default()).unwrap();
    let bytes = fs::read(&path).unwrap();
    fs::remove_file(path).unwrap();
    bytes
}

#[test]
fn tensors_in_any_order_and_parts_by_many_threads_are_the_same_file() {
    let directory = directory();
    let path = directory.path().join("file");
    let (expected, [a, b, c, _]) = (whole(directory.path()), data());
    for direct in [DirectWrites::Never, DirectWrites::Always] {
        fs::write(&path, "old").unwrap();
        let writer = create(&path, ReplaceOptions::default().with_direct(direct));
        writer.write("c", &c).unwrap();
        thread::scope(|scope| {
            for (i, part) in a.chunks(777_777).enumerate() {
                let writer = &writer;
                scope.spawn(move || writer.write_part("a", i as u64 * 777_777, part).unwrap());
            }
        });
        writer.write_part("b", 1000, &b[1000..]).unwrap();
        writer.write_part("b", 0, &b[..1000]).unwrap();
        writer.write("none", &[]).unwrap();
        assert!(writer.written().into_iter().eq(std::iter::once(0..expected.len() as u64)));
        assert_eq!(fs::read(&path).unwrap(), b"old");
        writer.finish().unwrap();
        assert!(fs::read(&path).unwrap() == expected);
        assert_eq!(names_in(directory.path()), ["file"]);
    }
}

#[test]
fn a_file_with_a_hole_is_not_finished() {
    let directory = directory();
    let path = directory.path().join("file");
    fs::write(&path, "old").unwrap();
    let [a, b, c, _] = data();
    let writer = create(&path, ReplaceOptions::default());
    writer.write("a", &a).unwrap();
    writer.write("c", &c).unwrap();
    writer.write_part("b", 0, &b[..100]).unwrap();
    let start = writer.layout().file_range(1).unwrap().start + 100;
    let error = writer.finish().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage);
    let text = format!(
        "{}: {} bytes were not written, the first at {start}, of tensor `b`",
        path.display(),
        B - 100
    );
    assert_eq!(error.to_string(), text);
    drop(create(&path, ReplaceOptions::default()));
    assert_eq!(
        (fs::read(&path).unwrap(), names_in(directory.path())),
        (b"old".to_vec(), vec!["file".into()])
    );
}

#[test]
fn bytes_that_are_written_already_and_bytes_beyond_a_tensor_are_refused() {
    let directory = directory();
    let path = directory.path().join("file");
    let writer = create(&path, ReplaceOptions::default());
    let [a, ..] = data();
    let start = writer.layout().file_range(0).unwrap().start;
    writer.write_part("a", 100, &a[..100]).unwrap();
    for (offset, len, twice) in [(0, 101, (100, 101)), (199, 5, (199, 200)), (50, 300, (100, 200))] {
        let error = writer.write_part("a", offset, &a[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        let (from, to) = (start + twice.0, start + twice.1);
        assert_eq!(error.to_string(), format!("{}: bytes {from}..{to} are written already", path.display()));
    }
    for (offset, len) in [(A as u64 - 3, 4), (u64::MAX, 1), (A as u64 + 1, 0)] {
        let error = writer.write_part("a", offset, &a[..len]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
    assert_eq!(writer.write("a", &a[1..]).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!(writer.write("d", &a).unwrap_err().kind(), ErrorKind::NotFound);
    // What was refused is not taken for written.
    assert!(writer.written().into_iter().skip(1).eq(std::iter::once(start + 100..start + 200)));
}

fn join(path: &Path, token: &str) -> Result<TensorWriter, tensafe_io::Error> {
    let (layout, options) = (LayoutOptions::default(), ReplaceOptions::default());
    TensorWriter::join(path, specs(), Some(&metadata()), &layout, options, token)
}

fn share(path: &Path, token: &str) -> Result<TensorWriter, tensafe_io::Error> {
    let (layout, options) = (LayoutOptions::default(), ReplaceOptions::default());
    TensorWriter::share(path, specs(), Some(&metadata()), &layout, options, token)
}

#[test]
fn who_takes_part_needs_the_same_token_and_the_same_tensors() {
    let directory = directory();
    let path = directory.path().join("file");
    assert_eq!(join(&path, "token").unwrap_err().kind(), ErrorKind::NotFound);
    for token in ["", "a/b", "a b", "..\0", &"x".repeat(65)] {
        assert_eq!(share(&path, token).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(join(&path, token).unwrap_err().kind(), ErrorKind::Usage);
    }
    assert_eq!(
        share(&path, "a/b").unwrap_err().to_string(),
        "token `a/b`: needed 1 to 64 ASCII letters, digits, dots, dashes or underscores"
    );
    let leader = share(&path, "token").unwrap();
    assert_eq!(names_in(directory.path()), [".file.token.part"]);
    assert_eq!(share(&path, "token").unwrap_err().os_kind(), Some(std::io::ErrorKind::AlreadyExists));
    let other = |specs: &[TensorSpec], metadata: Option<&Metadata>| {
        let (layout, options) = (LayoutOptions::default(), ReplaceOptions::default());
        TensorWriter::join(&path, specs.to_vec(), metadata, &layout, options, "token").unwrap_err()
    };
    let part = directory.path().join(".file.token.part");
    let text = |what| {
        format!(
            "{}: the file in the making has another {what}: needed the tensors, metadata and alignment of who \
             began it",
            part.display()
        )
    };
    assert_eq!(other(&specs()[1..], Some(&metadata())).to_string(), text("length"));
    let mut renamed = specs();
    renamed[0].name = "A".into();
    assert_eq!(other(&renamed, Some(&metadata())).to_string(), text("header"));
    // A participant that goes leaves the file to the leader; a leader that goes leaves nothing.
    drop(join(&path, "token").unwrap());
    assert_eq!(names_in(directory.path()), [".file.token.part"]);
    drop(leader);
    assert!(names_in(directory.path()).is_empty());
}

#[test]
fn absorbing_refuses_what_is_written_twice_and_what_is_beyond_the_end() {
    let directory = directory();
    let leader = share(&directory.path().join("file"), "token").unwrap();
    let end = leader.layout().file_bytes();
    let start = leader.layout().file_range(0).unwrap().start;
    let before = leader.written();
    for ranges in [&[(0, 1)][..], &[(start, start + 2), (start + 1, start + 3)], &[(end - 1, end + 1)]] {
        let ranges = ranges.iter().map(|(start, end)| *start..*end);
        assert_eq!(leader.absorb(ranges).unwrap_err().kind(), ErrorKind::Usage);
        assert_eq!(leader.written(), before);
    }
    leader.absorb(std::iter::once(start..start + 8)).unwrap();
    assert_eq!(leader.write_part("a", 0, &[0; 8]).unwrap_err().kind(), ErrorKind::Usage);
}

const PARTICIPANT: &str = "TENSAFE_TEST_PARTICIPANT";

/// The other process of the test below; by itself it tests nothing.
#[test]
fn participant() {
    let Some(path) = env::var_os(PARTICIPANT) else { return };
    let [a, b, ..] = data();
    let writer = join(&PathBuf::from(path), "two").unwrap();
    writer.write_part("a", A as u64 / 2, &a[A / 2..]).unwrap();
    writer.write("b", &b).unwrap();
    writer.flush().unwrap();
    let ranges = writer.written();
    println!("ranges {ranges:?}");
    writer.finish().unwrap();
}

#[test]
fn two_processes_write_one_file() {
    let directory = directory();
    let expected = whole(directory.path());
    let path = directory.path().join("file");
    let leader = share(&path, "two").unwrap();
    let other = Command::new(env::current_exe().unwrap())
        .args(["--exact", "tensor_writer::participant", "--nocapture"])
        .env(PARTICIPANT, &path)
        .output()
        .unwrap();
    let printed = String::from_utf8(other.stdout).unwrap();
    assert!(other.status.success(), "{printed}{}", String::from_utf8_lossy(&other.stderr));
    let told = printed.lines().find_map(|line| line.split_once("ranges [")).unwrap().1;
    let ranges = told.trim_end_matches(']').split(", ").map(|range| {
        let (start, end) = range.split_once("..").unwrap();
        start.parse().unwrap()..end.parse().unwrap()
    });
    let [a, _, c, _] = data();
    leader.write_part("a", 0, &a[..A / 2]).unwrap();
    leader.write("c", &c).unwrap();
    leader.absorb(ranges).unwrap();
    leader.finish().unwrap();
    assert!(fs::read(&path).unwrap() == expected);
    assert_eq!(names_in(directory.path()), ["file"]);
}
