//! Archives beyond 4 GiB and with many members.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Instant};

use tensafe_container::{Limits, Tar, Zip};
use tensafe_io::{Error, Identity, Latency, Source, SourceInfo};

use crate::{
    memory,
    zips::{Part, archive, extra},
};

/// Zeros, but for a few pieces.
#[derive(Debug)]
struct Sparse {
    len: u64,
    pieces: BTreeMap<u64, Vec<u8>>,
}

impl Source for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), Error> {
        let needed = out.len() as u64;
        if offset + needed > self.len {
            return Err(Error::short(None, offset, self.len.saturating_sub(offset), needed));
        }
        out.fill(0);
        for (start, piece) in &self.pieces {
            for (at, byte) in (*start..).zip(piece) {
                if let Some(slot) =
                    at.checked_sub(offset).and_then(|at| out.get_mut(usize::try_from(at).ok()?))
                {
                    *slot = *byte;
                }
            }
        }
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Memory)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

const HUGE: u64 = 5 << 30;

fn huge_zip(directory_says: u64) -> Sparse {
    let header = |signature: &[u8], rest: &[&[u8]]| [&[signature], rest].concat().concat();
    let sizes = |bytes: u64| extra(1, &[bytes.to_le_bytes(), bytes.to_le_bytes()].concat());
    // Version 45, no flags, stored, no time, no checksum, saturated sizes, a name of one letter.
    let fixed: &[u8] = b"\x2d\0\0\0\0\0\0\0\x21\0\0\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff\x01\0";
    let local = header(b"PK\x03\x04", &[fixed, &20_u16.to_le_bytes(), b"a", &sizes(HUGE)]);
    let second = local.len() as u64 + HUGE;
    // As `fixed`, with its size and checksum.
    let small: &[u8] = b"\x2d\0\0\0\0\0\0\0\x21\0\x83\xdc\xef\xb7\x01\0\0\0\x01\0\0\0\x01\0";
    let local_b = header(b"PK\x03\x04", &[small, &[0, 0], b"b1"]);
    let directory = second + local_b.len() as u64;
    let tail = |extra_len: u16| [&extra_len.to_le_bytes()[..], &[0; 10]].concat();
    let mut end =
        header(b"PK\x01\x02\0\0", &[fixed, &tail(20), &0_u32.to_le_bytes(), b"a", &sizes(directory_says)]);
    let offset = extra(1, &second.to_le_bytes());
    end.extend(header(b"PK\x01\x02\0\0", &[small, &tail(12), &u32::MAX.to_le_bytes(), b"b", &offset]));
    let bytes = end.len() as u64;
    end.extend(b"PK\x06\x06\x2c\0\0\0\0\0\0\0\x2d\0\x2d\0\0\0\0\0\0\0\0\0");
    for number in [2, 2, bytes, directory] {
        end.extend(number.to_le_bytes());
    }
    end.extend(b"PK\x06\x07\0\0\0\0");
    end.extend((directory + bytes).to_le_bytes());
    end.extend(b"\x01\0\0\0PK\x05\x06\0\0\0\0\x02\0\x02\0");
    end.extend([u32::try_from(bytes).unwrap().to_le_bytes(), u32::MAX.to_le_bytes()].concat());
    end.extend([0, 0]);
    let len = directory + end.len() as u64;
    Sparse { len, pieces: [(0, local), (second, local_b), (directory, end)].into() }
}

#[test]
fn zip64_members_and_offsets_beyond_4_gib() {
    let zip = Zip::open(Arc::new(huge_zip(HUGE)), &Limits::default()).unwrap();
    assert_eq!(zip.flaws(), []);
    let (a, b) = (zip.find("a").unwrap(), zip.find("b").unwrap());
    assert_eq!((a.bytes(), a.range()), (HUGE, 51..HUGE + 51));
    assert_eq!((b.header_offset(), b.bytes()), (HUGE + 51, 1));
    assert_eq!(crate::all(&zip.read(b).unwrap()), b"1");
    let mut out = [1; 4];
    zip.read(a).unwrap().read_at(HUGE - 4, &mut out).unwrap();
    assert_eq!(out, [0; 4]);
}

#[test]
fn zip64_sizes_have_to_agree() {
    let error = Zip::open(Arc::new(huge_zip(HUGE - 1)), &Limits::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "zip member `a` at byte 0: local header and directory differ in the sizes: found 5368709120 bytes, \
         5368709120 compressed, needed 5368709119, 5368709119 compressed"
    );
}

#[test]
fn tar_entries_beyond_8_gib() {
    let mut header = vec![0; 512];
    header[..1].copy_from_slice(b"a");
    let size = 9_u64 << 30;
    header[124] = 0x80;
    header[128..136].copy_from_slice(&size.to_be_bytes());
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    let source = Sparse { len: 512 + size + 1024, pieces: [(0, header)].into() };
    let tar = Tar::open(Arc::new(source), &Limits::default()).unwrap();
    assert_eq!(tar.flaws(), []);
    assert_eq!(tar.entries()[0].range(), 512..512 + size);
}

#[test]
fn many_members_stay_fast() {
    let parts = (0..30_000).map(|n| Part::stored(&format!("archive/data/{n}"), b"x"));
    let source = memory(archive(parts).bytes());
    let start = Instant::now();
    let zip = Zip::open(source, &Limits::default()).unwrap();
    for n in 0..30_000 {
        assert_eq!(zip.find(&format!("archive/data/{n}")).unwrap().bytes(), 1);
    }
    // Both are a matter of 0.1 s; what is quadratic takes minutes.
    assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
}
