//! Any bytes are followed to their end or to an error, within the limits, every place that a value
//! names is a place of the arena, and a stream that is read in pieces tells the same as a slice.
#![no_main]

use std::{borrow::Cow, io};

use libfuzzer_sys::fuzz_target;
use tensafe_pickle::{
    Behind, Dialect, Id, LegacyStream, Limits, Pickle, Stream, Value, evaluate, evaluate_stream, numbered_storages,
    numbered_tensors,
};

/// Bytes that are lent out in pieces, and owned where they are kept.
struct Pieces<'b> {
    bytes: &'b [u8],
    near: u64,
}

impl Stream<'static> for Pieces<'_> {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        let rest = usize::try_from(at).ok().and_then(|at| self.bytes.get(at..)).unwrap_or_default();
        Ok(rest.get(..most).unwrap_or(rest))
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'static, [u8]>> {
        let bytes = self.peek(at, length)?;
        assert_eq!(bytes.len(), length);
        Ok(Cow::Owned(bytes.to_vec()))
    }

    fn near_bytes(&self) -> u64 {
        self.near
    }
}

fn check(pickle: &Pickle<'_>, bytes: &[u8]) {
    assert!(pickle.range().end <= bytes.len() as u64);
    assert_eq!(pickle.root().is_some(), pickle.error().is_none());
    let there = |id: &Id| assert!(pickle.value(*id).is_some());
    let within = |range: &std::ops::Range<u64>| assert!(range.start <= range.end && range.end <= bytes.len() as u64);
    for value in pickle.values() {
        match value {
            Value::Tuple(items) | Value::List(items) | Value::Set(items) | Value::FrozenSet(items) => {
                items.iter().for_each(there);
            }
            Value::Dict(entries) => entries.iter().for_each(|(key, value)| {
                there(key);
                there(value);
            }),
            Value::Persistent(id) => there(id),
            Value::Far(range) => within(range),
            Value::Object(object) => {
                there(&object.callable);
                there(&object.arguments);
                object.keywords.iter().chain(&object.states).chain(&object.items).for_each(there);
                match &object.behind {
                    Behind::Bytes(range) => within(range),
                    Behind::Pickle(root) => there(root),
                    Behind::Nothing => {}
                }
            }
            _ => {}
        }
    }
    for used in pickle.symbols() {
        assert!(pickle.symbol(used.value).is_some() && used.offset < bytes.len() as u64);
    }
    // Every place, also those that nothing refers to.
    if let Some(root) = pickle.root_id() {
        let _ = pickle.meaning(root);
    }
    for value in pickle.values().iter().take(1 << 12) {
        let mut each = |id: &Id| {
            if let Err(error) = pickle.meaning(*id) {
                assert!(!error.to_string().is_empty());
            }
        };
        match value {
            Value::Tuple(items) | Value::List(items) => items.iter().take(1 << 8).for_each(&mut each),
            Value::Dict(entries) => entries.iter().take(1 << 8).for_each(|(_, value)| each(value)),
            _ => {}
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default().with_operations(1 << 20).with_value_bytes(64 << 20);
    let pickle = evaluate(bytes, &limits);
    check(&pickle, bytes);
    let pieces = evaluate_stream(Pieces { bytes, near: u64::MAX }, 0, Dialect::Plain, &limits);
    assert_eq!(pieces.range(), pickle.range());
    assert_eq!(pieces.symbols(), pickle.symbols());
    // What is owned is paid for, so that limits may end the one before the other.
    if pieces.error().is_none() && pickle.error().is_none() {
        assert_eq!(pieces.values().len(), pickle.values().len());
    }
    check(&evaluate_stream(Pieces { bytes, near: 8 }, 0, Dialect::Joblib, &limits), bytes);
    check(&evaluate_stream(bytes, 0, Dialect::Joblib, &limits), bytes);
    let legacy = LegacyStream::read(bytes, &limits);
    assert!(legacy.end() <= bytes.len() as u64);
    legacy.pickles().iter().for_each(|pickle| check(pickle, bytes));
    for storage in legacy.storages() {
        assert!(storage.range.end <= bytes.len() as u64 && legacy.storage(&storage.key) == Some(storage));
    }
    let _ = numbered_storages(bytes, &limits);
    let _ = numbered_tensors(bytes, &limits);
});
