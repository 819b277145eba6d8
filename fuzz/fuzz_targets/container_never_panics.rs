//! Any bytes are told apart, surveyed, and decompressed up to three layers deep, or refused, within
//! the limits; what a reader names is a part of the file.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use tensafe_container::{Kind, Limits, Npy, Tar, Zip, decompress, detect};
use tensafe_io::{Buffer, MemorySource, Source};

fn read(source: Arc<dyn Source>, limits: &Limits, depth: u32) {
    let kind = detect(&source).expect("memory can be read");
    let _ = Npy::read(&source, 0, limits);
    if let Ok(tar) = Tar::open(Arc::clone(&source), limits) {
        assert!(tar.entries().iter().all(|entry| entry.range().end <= source.len()));
    }
    if let Ok(zip) = Zip::survey(Arc::clone(&source), limits) {
        for member in zip.members() {
            assert!(member.range().end <= source.len());
            let _ = zip.check_crc(member);
        }
        let opened = Zip::open(Arc::clone(&source), limits);
        assert_eq!(opened.is_ok(), !zip.flaws().iter().any(|flaw| flaw.grave()));
    }
    if kind.is_compressed() && depth > 0 {
        if let Ok(inner) = decompress(source, kind, limits) {
            assert!(inner.len() <= limits.decompressed_bytes);
            read(inner, limits, depth - 1);
        }
    } else if kind == Kind::Empty {
        assert!(source.is_empty());
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default().with_decompressed_bytes(1 << 20).with_window_bytes(8 << 20);
    read(Arc::new(MemorySource::new(Buffer::from_owner(bytes.to_vec()))), &limits, 3);
});
