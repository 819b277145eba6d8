//! What is left behind where a conversion fails: what was there before, and nothing else.

use std::{
    fs,
    ops::ControlFlow,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use tensafe_io::{Identity, Latency, Source, SourceInfo};
use tensafe_model::{Conversion, ConvertOptions, ErrorKind, Pickled, PickledOptions, load};

use crate::build::{
    Member, counting, dict, floats, go_on, gzip, legacy, listing, memory, npy, open, refusal, stop, storage,
    tar, torch, walk, zip,
};

/// Fails to read what lies at one byte.
#[derive(Debug)]
struct Damaged {
    bytes: Vec<u8>,
    at: AtomicU64,
}

impl Damaged {
    fn new(bytes: &[u8], at: u64) -> Arc<Self> {
        Arc::new(Self { bytes: bytes.to_vec(), at: AtomicU64::new(at) })
    }
}

impl Source for Damaged {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<(), tensafe_io::Error> {
        let range = offset..offset + out.len() as u64;
        if range.contains(&self.at.load(Ordering::Relaxed)) {
            let error = std::io::Error::other("the disk is broken");
            return Err(tensafe_io::Error::from_source("read", error));
        }
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        out.copy_from_slice(&self.bytes[range]);
        Ok(())
    }

    fn identity(&self) -> Result<Option<Identity>, tensafe_io::Error> {
        Ok(None)
    }

    fn info(&self) -> SourceInfo {
        SourceInfo::new(Latency::Local)
    }

    fn path(&self) -> Option<&Path> {
        None
    }
}

/// Floats at the end of a file: whoever looks there for the directory of a zip meets these alone.
const COUNT: u16 = 20_000;

/// Checkpoints of every layout, each with what is small before what is large.
fn layouts() -> Vec<(&'static str, Vec<u8>)> {
    let count = u64::from(COUNT);
    let value = dict(&[("w", &floats("0", i64::from(COUNT)))]);
    let data = counting(1, COUNT);
    let array = npy("'<f4'", false, &format!("({COUNT},)"), &data);
    let small = npy("'<f4'", false, "(1,)", &data[..4]);
    let wide = stop(format!("({}t", "N".repeat(2000)));
    let mut storages = b"I1\n.(I7\nVcpu\nctorch\nFloatStorage\nt.".to_vec();
    storages.extend(count.to_le_bytes());
    storages.extend(&data);
    let mut tensors = b"I1\n.(I9\nI7\nctorch\nFloatTensor\nt.".to_vec();
    for number in [1u64, count, 1, 0] {
        tensors.extend(number.to_le_bytes());
    }
    let named = stop(dict(&[("w", "I9\nQ")]));
    let old = tar(&[("sys_info", &wide), ("pickle", &named), ("tensors", &tensors), ("storages", &storages)]);
    let members = [
        Member::stored("m/data.pkl", &stop(&value)),
        Member::stored("m/byteorder", b"little"),
        Member::stored("m/extra.pkl", &wide),
        Member::stored("m/data/0", &data),
    ];
    let length = u32::try_from(data.len()).unwrap().to_le_bytes();
    vec![
        ("zip", zip(members)),
        ("gzip", gzip(&torch(&value, &[("0", &data)]))),
        ("legacy", legacy(&value, &[("0", count, &data)])),
        ("npy", array.clone()),
        ("npz", zip([Member::deflated("b.npy", &small), Member::stored("a.npy", &array)])),
        ("tar", tar(&[("b.npy", &small), ("a.npy", &array)])),
        ("old tar", old),
        ("pickle", [b"(I7\n", &b"N".repeat(2000)[..], b"B", &length, &data, b"l."].concat()),
        ("gzipped pickle", gzip(&[b"(", &b"N".repeat(2000)[..], b"l."].concat())),
    ]
}

#[test]
fn a_byte_that_cannot_be_read_is_an_error_of_reading() {
    for (layout, bytes) in layouts() {
        let (mut failed, mut unread) = (0, 0);
        let length = bytes.len() as u64;
        for at in (0..length.min(4000)).step_by(11).chain((4000..length).step_by(4001)) {
            let opened = Pickled::from_source(Damaged::new(&bytes, at), &PickledOptions::default());
            let done = opened.and_then(|pickled| load(pickled, &ConvertOptions::default(), &mut go_on()));
            let Err(error) = done else {
                unread += 1;
                continue;
            };
            failed += 1;
            let text = error.chain().to_string();
            assert_eq!(error.kind(), ErrorKind::Io, "{layout} at {at}: {text}");
            assert!(text.contains("the disk is broken"), "{layout} at {at}: {text}");
        }
        assert!(failed > unread, "{layout}: {failed} bytes were needed, {unread} not");
    }
}

#[test]
fn a_pickle_beside_the_checkpoint_that_cannot_be_read_is_not_taken_for_harmless() {
    for (layout, bytes) in layouts() {
        let wide = [b"(", &b"N".repeat(2000)[..]].concat();
        let Some(start) = bytes.windows(wide.len()).position(|window| window == wide) else { continue };
        let source = Damaged::new(&bytes, start as u64 + 1500);
        let opened = Pickled::from_source(source, &PickledOptions::default());
        assert_eq!(refusal(opened).0, ErrorKind::Io, "{layout}");
    }
}

#[test]
fn bytes_that_cannot_be_read_while_writing_leave_nothing() {
    let value = dict(&[
        ("run", &floats("0", 4)),
        ("turned", &walk(&storage("FloatStorage", "1", 4), 0, &[2, 2], &[1, 2])),
    ]);
    let bytes = legacy(value, &[("0", 4, &counting(0, 4)), ("1", 4, &counting(4, 4))]);
    for back in [1, 30] {
        let directory = tempfile::tempdir().unwrap();
        let output = directory.path().join("out.safetensors");
        fs::write(&output, "old").unwrap();
        let source = Damaged::new(&bytes, u64::MAX);
        let opened =
            Pickled::from_source(Arc::<Damaged>::clone(&source), &PickledOptions::default()).unwrap();
        let mut options = ConvertOptions::default();
        options.overwrite = true;
        let conversion = Conversion::plan(opened, &output, &options).unwrap();
        source.at.store(bytes.len() as u64 - back, Ordering::Relaxed);
        assert_eq!(refusal(conversion.write(&mut go_on())).0, ErrorKind::Io);
        assert_eq!(
            (listing(directory.path()), fs::read(&output).unwrap()),
            (vec!["out.safetensors".into()], b"old".to_vec())
        );
        // The disk is better: the same plan is written.
        source.at.store(u64::MAX, Ordering::Relaxed);
        conversion.write(&mut go_on()).unwrap();
        assert_eq!(listing(directory.path()), ["out.safetensors"]);
    }
}

fn several() -> Vec<u8> {
    let names = ["a", "b", "c", "d"];
    let turned = |key: &str| walk(&storage("FloatStorage", key, 4), 0, &[2, 2], &[1, 2]);
    let values: Vec<String> = names.iter().map(|name| turned(name)).collect();
    let entries: Vec<(&str, &str)> =
        names.iter().zip(&values).map(|(name, value)| (*name, value.as_str())).collect();
    let data = counting(0, 4);
    torch(dict(&entries), &names.map(|name| (name, data.as_slice())))
}

#[test]
fn a_conversion_that_is_cancelled_leaves_what_was_there() {
    for shard in [None, Some(20)] {
        let mut calls = 0;
        loop {
            let directory = tempfile::tempdir().unwrap();
            fs::write(directory.path().join("out.safetensors"), "old").unwrap();
            let mut options = ConvertOptions::default();
            (options.max_shard_bytes, options.overwrite, options.durable) = (shard, true, false);
            let output = directory.path().join("out.safetensors");
            let conversion = Conversion::plan(open(several()).unwrap(), &output, &options).unwrap();
            let mut left = calls;
            let done = conversion.write(&mut |_| {
                left -= 1;
                if left < 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            if done.is_ok() {
                break;
            }
            let needed = (ErrorKind::Cancelled, "cancelled; nothing was written".to_owned());
            assert_eq!(refusal(done), needed, "call {calls}");
            assert_eq!(listing(directory.path()), ["out.safetensors"]);
            assert_eq!(fs::read(&output).unwrap(), b"old");
            calls += 1;
        }
        assert!(calls > 4, "it was cancelled {calls} times");
    }
}

#[test]
fn directories_that_were_made_for_nothing_are_removed() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("there")).unwrap();
    let output = directory.path().join("there/new/deep/out.safetensors");
    let plan = || Conversion::plan(open(several()).unwrap(), &output, &ConvertOptions::default()).unwrap();
    let cancelled = plan().write(&mut |_| ControlFlow::Break(()));
    assert_eq!(refusal(cancelled).0, ErrorKind::Cancelled);
    assert_eq!(listing(&directory.path().join("there")), [""; 0]);
    plan().write(&mut go_on()).unwrap();
    assert!(output.is_file());
}

#[test]
fn loading_can_be_cancelled() {
    let mut calls = 0;
    let pickled = open(several()).unwrap();
    let done = load(pickled, &ConvertOptions::default(), &mut |_| {
        calls += 1;
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert_eq!((refusal(done.map(drop)).0, calls), (ErrorKind::Cancelled, 3));
}

#[test]
fn files_that_are_there_stay_unless_they_may_be_replaced() {
    for shard in [None, Some(20)] {
        let mut options = ConvertOptions::default();
        options.max_shard_bytes = shard;
        // Any of the files that would be written.
        let taken = match shard {
            None => vec!["out.safetensors"],
            Some(_) => vec![
                "out-00001-of-00004.safetensors",
                "out-00004-of-00004.safetensors",
                "out.safetensors.index.json",
            ],
        };
        for name in taken {
            let directory = tempfile::tempdir().unwrap();
            let path = directory.path().join(name);
            fs::write(&path, "old").unwrap();
            let output = directory.path().join("out.safetensors");
            let conversion = Conversion::plan(open(several()).unwrap(), &output, &options).unwrap();
            let (kind, text) = refusal(conversion.write(&mut go_on()));
            assert_eq!(kind, ErrorKind::Io);
            assert!(text.starts_with(&format!("{}: cannot write: ", path.display())), "{text}");
            assert_eq!(
                (listing(directory.path()), fs::read(&path).unwrap()),
                (vec![name.to_owned()], b"old".to_vec())
            );
            options.overwrite = true;
            let conversion = Conversion::plan(open(several()).unwrap(), &output, &options).unwrap();
            conversion.write(&mut go_on()).unwrap();
            assert_ne!(fs::read(&path).unwrap(), b"old");
            options.overwrite = false;
        }
    }
}

#[test]
fn an_output_that_cannot_be_is_an_error_of_writing() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    fs::write(&file, "x").unwrap();
    let plan = |output: &Path| Conversion::plan(open(several()).unwrap(), output, &ConvertOptions::default());
    let refused = plan(&file.join("out.safetensors")).and_then(|conversion| conversion.write(&mut go_on()));
    assert_eq!(refusal(refused).0, ErrorKind::Io);
    assert_eq!(listing(directory.path()), ["file"]);
}

#[test]
fn what_a_source_holds_beyond_the_checkpoint_is_not_read_as_part_of_it() {
    // A storage of 4 floats in a file that has more behind it.
    let whole = legacy(dict(&[("a", &floats("0", 1))]), &[("0", 1, &counting(1, 1))]);
    let source = memory([&whole[..], b"secret"].concat());
    assert_eq!(refusal(Pickled::from_source(source, &PickledOptions::default())).0, ErrorKind::Format);
}

#[test]
fn a_checkpoint_that_changes_in_place_while_it_is_converted_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("in.pt");
    let output = directory.path().join("out.safetensors");
    fs::write(&input, several()).unwrap();
    fs::write(&output, "old").unwrap();
    let mut options = ConvertOptions::default();
    options.overwrite = true;
    let opened = Pickled::open(&input, &PickledOptions::default()).unwrap();
    let conversion = Conversion::plan(opened, &output, &options).unwrap();
    let file = fs::File::options().write(true).open(&input).unwrap();
    let mut changed = false;
    let done = conversion.write(&mut |_| {
        if !changed {
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
            changed = true;
        }
        ControlFlow::Continue(())
    });
    let (kind, text) = refusal(done);
    assert_eq!(kind, ErrorKind::Io);
    assert!(text.contains("in.pt") && text.contains("was changed since"), "{text}");
    assert_eq!(fs::read(&output).unwrap(), b"old");
    assert_eq!(listing(directory.path()), ["in.pt", "out.safetensors"]);
    // As it is now, it is converted.
    let opened = Pickled::open(&input, &PickledOptions::default()).unwrap();
    Conversion::plan(opened, &output, &options).unwrap().write(&mut go_on()).unwrap();
}
