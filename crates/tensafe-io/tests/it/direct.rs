//! Direct and buffered writes: the same bytes, whole or not at all, followed and ended.

use std::{
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use proptest::prelude::*;
use tensafe_format::{Dtype, Layout, LayoutOptions, TensorSpec};
use tensafe_io::{
    DirectWrites, ErrorKind, FileSink, ReplaceOptions, Sink as _, WriteControl, write_file, write_file_with,
};

use crate::{counting, directory, names_in};

const EVERY_WAY: [DirectWrites; 3] = [DirectWrites::Never, DirectWrites::Auto, DirectWrites::Always];

/// The file of these tensors, put together by hand.
fn expected(tensors: &[(TensorSpec, &[u8])], layout: &LayoutOptions) -> Vec<u8> {
    let plan = Layout::new(tensors.iter().map(|(spec, _)| spec.clone()), None, layout).unwrap();
    let mut file = plan.header_bytes().to_vec();
    plan.order().iter().for_each(|place| file.extend_from_slice(tensors[*place].1));
    file
}

fn saved(path: &Path, tensors: &[(TensorSpec, &[u8])], layout: &LayoutOptions, options: ReplaceOptions) {
    write_file(path, tensors.iter().cloned(), None, layout, options).unwrap();
    assert!(fs::read(path).unwrap() == expected(tensors, layout), "{options:?} {layout:?}");
    assert_eq!(names_in(path.parent().unwrap()), [path.file_name().unwrap().to_str().unwrap()]);
}

/// Sizes around every border: none, one byte, a page, a block of a direct write, a slab, the size from
/// which on files are written directly.
fn save_all_sizes(directory: &Path) {
    let data = counting(72 << 20);
    let path = directory.join("file");
    let sizes: [&[usize]; 7] = [
        &[],
        &[0, 1, 0],
        &[4095, 4097, 3],
        &[(64 << 10) + 1, 700 << 10, 5],
        &[(4 << 20) - 1, 1, (8 << 20) + 13, 0, 600 << 10],
        &[31 << 20, (1 << 20) + 7, 1],
        &[(66 << 20) + 11, 3, 2 << 20],
    ];
    for sizes in sizes {
        let mut at = 0;
        let mut tensors = Vec::new();
        for (i, size) in sizes.iter().enumerate() {
            let spec = TensorSpec::new(format!("t{i}"), Dtype::U8, [*size as u64]);
            tensors.push((spec, &data[at..at + size]));
            at += size;
        }
        for direct in EVERY_WAY {
            for (align, durable) in [(8, true), (4096, false), (64, true)] {
                let options = ReplaceOptions::default().with_direct(direct).with_durable(durable);
                saved(&path, &tensors, &LayoutOptions::with_align(align), options);
            }
        }
    }
}

#[test]
fn files_of_every_size_are_the_same_bytes_by_every_way() {
    save_all_sizes(directory().path());
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_system_in_memory_takes_what_it_would_not_take_directly() {
    let Ok(directory) = tempfile::tempdir_in("/dev/shm") else { return };
    save_all_sizes(directory.path());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]

    #[test]
    fn pieces_at_any_place_are_written_to_it(
        pieces in prop::collection::vec((0usize..200_000, 0usize..1_500_000), 1..6),
        turned in any::<bool>(),
    ) {
        let data = counting(1_500_000);
        let directory = directory();
        let path = directory.path().join("file");
        let (mut at, mut placed) = (0, Vec::new());
        for (gap, len) in pieces {
            at += gap;
            placed.push((at as u64, &data[..len]));
            at += len;
        }
        let mut expected = vec![0; at];
        for (offset, bytes) in &placed {
            let start = usize::try_from(*offset).unwrap();
            expected[start..start + bytes.len()].copy_from_slice(bytes);
        }
        if turned {
            placed.reverse();
        }
        for direct in [DirectWrites::Never, DirectWrites::Always] {
            let options = ReplaceOptions::default().with_durable(false).with_direct(direct);
            let mut sink = FileSink::create(&path, at as u64, options).unwrap();
            let done = AtomicU64::new(0);
            let told = |bytes| {
                done.fetch_add(bytes, Ordering::Relaxed);
            };
            sink.write_pieces(&placed, &WriteControl::default().with_progress(&told)).unwrap();
            sink.commit().unwrap();
            prop_assert!(fs::read(&path).unwrap() == expected);
            prop_assert_eq!(
                done.into_inner(),
                placed.iter().map(|(_, bytes)| bytes.len() as u64).sum::<u64>()
            );
        }
    }
}

#[test]
fn pieces_beyond_the_end_are_refused_before_any_is_written() {
    let directory = directory();
    let path = directory.path().join("file");
    let sink = FileSink::create(&path, 4, ReplaceOptions::default()).unwrap();
    for pieces in [&[(0, &b"abc"[..]), (3, b"de")][..], &[(u64::MAX, b"x")]] {
        let error = sink.write_pieces(pieces, &WriteControl::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage, "{error}");
    }
}

#[test]
fn a_cancelled_save_leaves_the_old_file_and_nothing_else() {
    let directory = directory();
    let path = directory.path().join("file");
    // Large enough for a mapping.
    let data = counting(40 << 20);
    fs::write(&path, "old").unwrap();
    let spec = || TensorSpec::new("t", Dtype::U8, [data.len() as u64]);
    // After none of the blocks, after each, and after the last: 4 MiB of a direct write, else 8 MiB.
    for (direct, blocks) in EVERY_WAY.into_iter().flat_map(|direct| (0..=7).map(move |n| (direct, n))) {
        let cancel = AtomicBool::new(blocks == 0);
        let written = Mutex::new((0, 0));
        let told = |bytes| {
            let mut written = written.lock().unwrap();
            *written = (written.0 + 1, written.1 + bytes);
            if written.0 == blocks || written.1 > data.len() as u64 {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let control = WriteControl::default().with_cancel(&cancel).with_progress(&told);
        let options = ReplaceOptions::default().with_direct(direct).with_durable(blocks == 1);
        let done =
            write_file_with(&path, [(spec(), &data[..])], None, &Default::default(), options, &control);
        let error = done.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
        assert_eq!(error.to_string(), format!("{}: cancelled before it was written", path.display()));
        let (made, bytes) = written.into_inner().unwrap();
        let all = bytes > data.len() as u64;
        // Some are under way when one of them is told of.
        assert!(if blocks == 0 { made == 0 } else { all || (blocks..blocks + 4).contains(&made) }, "{made}");
        assert_eq!(
            (fs::read(&path).unwrap(), names_in(directory.path())),
            (b"old".to_vec(), vec!["file".into()])
        );
    }
}
