//! What every source promises, asked of each of them.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex},
};

use proptest::prelude::*;
use tensafe_io::{
    Buffer, Error, ErrorKind, FileSource, Identity, Latency, MemorySource, Source, SourceInfo, read_parallel,
};

/// A source as a stranger may write one: it waits like a network and counts what it is asked for.
struct Slow {
    bytes: Vec<u8>,
    requests: Mutex<Vec<(u64, usize)>>,
    fails_at: Option<u64>,
}

impl fmt::Debug for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slow")
    }
}

impl Source for Slow {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        self.requests.lock().unwrap().push((offset, out.len()));
        let end = offset.saturating_add(out.len() as u64);
        if self.fails_at.is_some_and(|at| (offset..end).contains(&at)) {
            return Err(Error::from_source("read", std::io::Error::other("the server is gone")));
        }
        if end > self.len() {
            return Err(Error::short(None, offset, 0, out.len() as u64));
        }
        out.copy_from_slice(&self.bytes[offset as usize..end as usize]);
        Ok(())
    }
    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(None)
    }
    fn info(&self) -> SourceInfo {
        let mut info = SourceInfo::new(Latency::Network);
        info.request_bytes = 1 << 20;
        info
    }
    fn path(&self) -> Option<&Path> {
        None
    }
}

fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i % 253) as u8).collect()
}

/// Each source over the same bytes, also behind the pointers that forward to one.
fn sources(bytes: &[u8]) -> (tempfile::TempDir, Vec<Box<dyn Source>>) {
    let directory = crate::directory();
    let path = directory.path().join("bytes");
    std::fs::write(&path, bytes).unwrap();
    let slow = |_| Slow { bytes: bytes.to_vec(), requests: Mutex::default(), fails_at: None };
    let sources: Vec<Box<dyn Source>> = vec![
        Box::new(FileSource::open(&path).unwrap()),
        Box::new(MemorySource::new(Buffer::from_owner(bytes.to_vec()))),
        Box::new(Arc::new(FileSource::open(&path).unwrap())),
        Box::new(Box::new(slow(()))),
    ];
    (directory, sources)
}

#[test]
fn every_source_reads_exactly_what_is_asked() {
    let expected = bytes(10_000);
    let (_directory, sources) = sources(&expected);
    for source in &sources {
        assert_eq!(source.len(), 10_000, "{source:?}");
        assert!(!source.is_empty());
        for (offset, len) in [(0, 10_000), (0, 0), (10_000, 0), (9_999, 1), (17, 4_096)] {
            let mut out = vec![0xff; len];
            source.read_at(offset as u64, &mut out).unwrap();
            assert_eq!(out, expected[offset..offset + len], "{source:?}");
        }
    }
}

#[test]
fn every_source_refuses_to_read_beyond_its_end() {
    let (_directory, sources) = sources(&bytes(100));
    for source in &sources {
        for (offset, len) in [(0u64, 101), (100, 1), (99, 2), (u64::MAX - 1, 1), (1 << 40, 8)] {
            let error = source.read_at(offset, &mut vec![0; len]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Io, "{source:?}: {error}");
        }
    }
}

#[test]
fn every_source_has_the_same_identity_while_nothing_changes() {
    let (_directory, sources) = sources(&bytes(100));
    for source in &sources {
        assert_eq!(source.identity().unwrap(), source.identity().unwrap(), "{source:?}");
    }
}

#[test]
fn parallel_reads_are_cut_into_requests_that_cover_the_range_once() {
    let source = Slow { bytes: bytes(9 << 20), requests: Mutex::default(), fails_at: None };
    let mut out = vec![0; (8 << 20) + 5];
    read_parallel(&source, 7, &mut out).unwrap();
    assert_eq!(out, source.bytes[7..7 + out.len()]);
    let mut requests = source.requests.into_inner().unwrap();
    requests.sort_unstable();
    assert_eq!(requests.len(), 9);
    let mut at = 7;
    for (offset, len) in requests {
        assert!(offset == at && len <= 1 << 20);
        at += len as u64;
    }
}

#[test]
fn a_request_that_fails_ends_a_parallel_read() {
    let source = Slow { bytes: bytes(64 << 20), requests: Mutex::default(), fails_at: Some(1 << 20) };
    let error = read_parallel(&source, 0, &mut vec![0; 64 << 20]).unwrap_err();
    assert_eq!(error.chain().to_string(), "cannot read: the server is gone");
    assert!(source.requests.into_inner().unwrap().len() < 64, "the other requests are not begun");
}

proptest! {
    #[test]
    fn sources_agree(len in 0usize..5_000, offset in 0usize..6_000, asked in 0usize..6_000) {
        let expected = bytes(len);
        let (_directory, sources) = sources(&expected);
        for source in &sources {
            let mut out = vec![0; asked];
            let read = source.read_at(offset as u64, &mut out);
            match expected.get(offset..offset + asked) {
                Some(bytes) => { read.unwrap(); prop_assert_eq!(&out, bytes); }
                None => prop_assert!(read.is_err() || asked == 0),
            }
        }
    }
}

#[test]
fn a_directory_is_no_source() {
    let directory = crate::directory();
    let error = FileSource::open(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let missing = FileSource::open(directory.path().join("missing")).unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
    assert!(missing.to_string().starts_with("No such file or directory: "));
}

#[cfg(unix)]
#[test]
fn what_is_no_regular_file_is_refused_at_once() {
    let directory = crate::directory();
    let pipe = directory.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let socket = directory.path().join("socket");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    for path in [&pipe, &socket, Path::new("/dev/zero"), Path::new("/dev/null")] {
        let error = FileSource::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
        assert_eq!(error.to_string(), format!("{}: not a regular file", path.display()));
        assert_eq!(error.path(), Some(path));
    }
}

#[test]
fn a_path_with_a_nul_byte_is_a_mistake_of_the_caller() {
    let error = FileSource::open("a\0b").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    let error = tensafe_io::FileSink::create("a\0b", 1, Default::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
}
