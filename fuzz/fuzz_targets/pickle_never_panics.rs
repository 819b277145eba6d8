//! Any bytes are followed to their end or to an error, within the limits, and every place that a
//! value names is a place of the arena.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tensafe_pickle::{Id, Limits, Value, evaluate};

fuzz_target!(|bytes: &[u8]| {
    let limits = Limits::default().with_operations(1 << 20).with_value_bytes(64 << 20);
    let pickle = evaluate(bytes, &limits);
    assert!(pickle.bytes_read() <= bytes.len());
    assert_eq!(pickle.root().is_some(), pickle.error().is_none());
    let there = |id: &Id| assert!(pickle.value(*id).is_some());
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
            Value::Object(object) => {
                there(&object.callable);
                there(&object.arguments);
                object.keywords.iter().chain(&object.states).chain(&object.items).for_each(there);
            }
            _ => {}
        }
    }
    for used in pickle.symbols() {
        assert!(pickle.symbol(used.value).is_some() && used.offset < bytes.len());
    }
});
