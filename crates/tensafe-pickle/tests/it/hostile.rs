//! Pickles that mean harm, or nonsense. They are bytes: nothing of them is ever run.

use proptest::prelude::*;
use tensafe_pickle::{ErrorKind, Limits, Made, Value, evaluate};

use crate::shown;

/// The names that a pickle would import, with the byte of each.
fn names(bytes: &[u8]) -> Vec<(u64, String)> {
    let pickle = evaluate(bytes, &Limits::default());
    let name = |value| pickle.symbol(value).map(|s| format!("{}.{}", s.module, s.name)).unwrap();
    pickle.symbols().iter().map(|used| (used.offset, name(used.value))).collect()
}

#[test]
fn calls_are_records() {
    assert_eq!(shown(b"cos\nsystem\n(S'id'\ntR."), "object(os.system tuple(str:6964 ) )");
    assert_eq!(shown(b"(S'id'\nios\nsystem\n."), "object(os.system tuple(str:6964 ) )");
    assert_eq!(shown(b"(cos\nsystem\nS'id'\no."), "object(os.system tuple(str:6964 ) )");
    assert_eq!(shown(b"\x80\x04\x8c\x02os\x8c\x06system\x93)\x81."), "object(os.system tuple() )");
    assert_eq!(shown(b"\x80\x04\x8c\x02os\x8c\x06system\x93)}\x92."), "object(os.system tuple() dict() )");
    let pickle = evaluate(b"(cos\nsystem\no.", &Limits::default());
    assert!(matches!(pickle.root(), Some(Value::Object(o)) if o.made == Made::Instance));
}

#[test]
fn names_of_python_2_are_told_as_python_3_imports_them() {
    assert_eq!(names(b"c__builtin__\neval\n."), [(0, "builtins.eval".into())]);
    assert_eq!(names(b"\x80\x02c__builtin__\neval\n."), [(2, "builtins.eval".into())]);
    assert_eq!(names(b"\x80\x03c__builtin__\neval\n."), [(2, "__builtin__.eval".into())]);
}

#[test]
fn a_payload_before_a_broken_end_is_seen() {
    for end in [&b""[..], b"\xff", b"R", b"h\x07.", b"X\xff\xff\xff\xff"] {
        let bytes = [b"cos\nsystem\n(S'id'\ntR", end].concat();
        let pickle = evaluate(&bytes, &Limits::default());
        assert!(pickle.error().is_some() && pickle.root().is_none());
        assert_eq!(names(&bytes), [(0, "os.system".into())]);
    }
}

#[test]
fn names_that_deceive_are_told_apart() {
    let plain = |bytes| {
        let pickle = evaluate(bytes, &Limits::default());
        pickle.symbol(pickle.symbols()[0].value).unwrap().is_plain()
    };
    assert!(plain(b"ctorch._utils\n_rebuild_tensor_v2\n."));
    for bytes in [
        &b"cos\nsystem.__call__\n."[..],
        b"c\nx\n.",
        b"cos\n\n.",
        b"co s\nx\n.",
        b"co..s\nx\n.",
        b"c\xc3\xa9\nx\n.",
    ] {
        assert!(!plain(bytes));
    }
    // Not UTF-8, not text: no name.
    assert!(shown(b"c\xff\nx\n.").starts_with("error: GLOBAL at byte 0: the text is not"));
    assert!(shown(b"\x80\x04K\x01K\x02\x93.").starts_with("error: STACK_GLOBAL at byte 6: found an integer"));
}

#[test]
fn what_is_refused_says_why() {
    for (bytes, opcode) in [
        (&b"Pname\n."[..], "PERSID"),
        (b"\x82\x01.", "EXT1"),
        (b"\x83\x01\x01.", "EXT2"),
        (b"\x84\x01\x01\x01\x01.", "EXT4"),
        (b"\x97.", "NEXT_BUFFER"),
        (b"\x98.", "READONLY_BUFFER"),
    ] {
        let pickle = evaluate(bytes, &Limits::default());
        let error = pickle.error().unwrap();
        assert_eq!((error.kind(), error.opcode().unwrap().name()), (ErrorKind::Unsupported, opcode));
    }
}

#[test]
fn symbols_and_values_of_others_are_never_changed() {
    for (bytes, text) in [
        (&b"cos\nenviron\n}b."[..], "BUILD at byte 13: found a symbol, needed an object"),
        (b"cos\nenviron\nK\x01K\x02s.", "SETITEM at byte 16: found a symbol, needed a dict"),
        (b"]K\x01K\x02s.", "SETITEM at byte 5: found a list, needed a dict"),
        (b"}K\x01a.", "APPEND at byte 3: found a dict, needed a list"),
        (b"](K\x01\x90.", "ADDITEMS at byte 4: found a list, needed a set"),
        (b"\x8f(K\x01e.", "APPENDS at byte 4: found a set, needed a list"),
        (b"}}b.", "BUILD at byte 2: found a dict, needed an object"),
    ] {
        assert_eq!(shown(bytes), format!("error: {text}"));
    }
}

#[test]
fn pop_takes_a_mark_where_nothing_stands_above_it() {
    assert_eq!(shown(b"K\x01(0."), "1");
    assert_eq!(shown(b"K\x01(K\x02K\x031."), "1");
}

#[test]
fn nonsense_is_described() {
    for (bytes, text) in [
        (&b""[..], "at byte 0: the pickle ends, needed an instruction"),
        (b"\xff", "at byte 0: 0xff is no opcode"),
        (b".", "STOP at byte 0: the stack is empty above the last mark"),
        (b"t.", "TUPLE at byte 0: there is no mark on the stack"),
        (b"K\x01(\x85.", "TUPLE1 at byte 3: the stack is empty above the last mark"),
        (b"(K\x01d.", "DICT at byte 3: an odd number of keys and values"),
        (b"h\x05.", "BINGET at byte 0: nothing was stored as number 5"),
        (b"g-1\n.", "GET at byte 0: the text is no number, needed the number of a memo entry"),
        (b"Ix\n.", "INT at byte 0: the text is no number, needed an integer"),
        (b"Sx\n.", "STRING at byte 0: the text is not what its encoding allows"),
        (b"S'\\q'\n.", "STRING at byte 0: the text is not what its encoding allows"),
        (b"X\x02\0\0\0\xff\xff.", "BINUNICODE at byte 0: the text is not what its encoding allows"),
        (b"X\xff\xff\xff\xff.", "BINUNICODE at byte 0: 4294967295 bytes announced, 1 are left"),
        (b"T\xff\xff\xff\xff.", "BINSTRING at byte 0: a length of -1 bytes"),
        (
            b"\x8e\xff\xff\xff\xff\xff\xff\xff\xff.",
            "BINBYTES8 at byte 0: 18446744073709551615 bytes announced, 1 are left",
        ),
        (b"\x80\x06.", "PROTO at byte 0: protocol 6, known are 0 to 5"),
        (b"\x95\x09\0\0\0\0\0\0\0N.", "FRAME at byte 0: a frame of 9 bytes, 2 are left"),
        (
            b"\x95\x01\0\0\0\0\0\0\0K\x01.",
            "BININT1 at byte 9: the instruction crosses the frame's end at byte 10",
        ),
        (
            b"\x95\x03\0\0\0\0\0\0\0N.NN",
            "STOP at byte 10: the instruction crosses the frame's end at byte 12",
        ),
        (b"\x95\x0b\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N.", "FRAME at byte 9: a frame begins within another"),
    ] {
        assert_eq!(shown(bytes), format!("error: {text}"));
    }
}

#[test]
fn each_limit_is_met_before_memory_is_taken() {
    let met = |bytes: &[u8], limits: Limits| {
        let pickle = evaluate(bytes, &limits);
        let error = pickle.error().unwrap();
        assert_eq!(error.kind(), ErrorKind::Limit, "{error}");
        error.to_string()
    };
    let limits = Limits::default();
    assert_eq!(
        met(b"NNNN.", limits.with_operations(3)),
        "NONE at byte 3: more than 3 instructions; `Limits` can raise it"
    );
    assert_eq!(
        met(b"NNN.", limits.with_stack(2)),
        "NONE at byte 2: more than 2 values on the stack; `Limits` can raise it"
    );
    assert_eq!(
        met(b"(((.", limits.with_stack(2)),
        "MARK at byte 2: more than 2 marks on the stack; `Limits` can raise it"
    );
    assert_eq!(
        met(b"Nr\xff\xff\xff\xff.", limits),
        "LONG_BINPUT at byte 1: more than 10000000 entries of the memo; `Limits` can raise it"
    );
    assert_eq!(
        met(b"Nr\xff\xff\x0f\0.", limits.with_value_bytes(1 << 20)),
        "LONG_BINPUT at byte 1: more than 1048576 bytes of values; `Limits` can raise it"
    );
    let long = [&b"\x8b\x01\x04\0\0"[..], &[1; 1025], b"."].concat();
    assert_eq!(
        met(&long, limits),
        "LONG4 at byte 0: more than 1024 bytes of an integer; `Limits` can raise it"
    );
}

#[test]
fn a_memo_bomb_stays_small() {
    // Each list holds the one before it twice: 2^64 elements for who walks them, 64 values here.
    let mut bytes = b"]q\0".to_vec();
    for level in 0..64u8 {
        bytes.extend([b']', b'q', level + 1, b'(', b'h', level, b'h', level, b'e']);
    }
    bytes.push(b'.');
    let pickle = evaluate(&bytes, &Limits::default());
    assert!(pickle.error().is_none());
    assert_eq!(pickle.values().len(), 65);
}

#[test]
fn deep_nesting_and_values_that_hold_themselves_are_read_and_dropped() {
    let mut bytes = vec![b']'; 300_000];
    bytes.extend(vec![b'a'; 299_999]);
    bytes.push(b'.');
    assert!(evaluate(&bytes, &Limits::default()).error().is_none());
    let itself = evaluate(b"]q\0h\0a.", &Limits::default());
    assert!(matches!(itself.root(), Some(Value::List(items)) if items.len() == 1));
}

proptest! {
    #[test]
    fn any_bytes_are_followed_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let pickle = evaluate(&bytes, &Limits::default());
        prop_assert!(pickle.bytes_read() <= bytes.len() as u64);
        prop_assert_eq!(pickle.root().is_some(), pickle.error().is_none());
    }

    #[test]
    fn any_instructions_are_followed_without_a_panic(
        opcodes in prop::collection::vec(prop::sample::select(b"(.02NRabdltst)1Q]eoh\0q\0u}\x81\x85\x86\x87\x88\x8f\x90\x91\x92\x93\x94K\x01".to_vec()), 0..200),
    ) {
        let pickle = evaluate(&opcodes, &Limits::default());
        prop_assert!(pickle.bytes_read() <= opcodes.len() as u64);
        for value in pickle.values() {
            prop_assert!(!value.kind().is_empty());
        }
    }
}
