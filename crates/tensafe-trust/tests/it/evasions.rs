//! Bytes that were found to scan clean and to run code when they are loaded, or to be followed by nobody.
//! What would be run stands here as bytes, and is never loaded.

use tensafe_trust::{Rule, ScanOptions, Verdict, scan_bytes};

use crate::{archive::zip, found};

/// Text as protocol 0 to 4 write it, a name, and a name's two texts.
fn text(text: &str) -> Vec<u8> {
    [b"X", &u32::try_from(text.len()).unwrap().to_le_bytes()[..], text.as_bytes()].concat()
}

fn name(module: &str, name: &str) -> Vec<u8> {
    [text(module), text(name), b"\x93".to_vec()].concat()
}

fn pickle(parts: &[&[u8]]) -> Vec<u8> {
    [b"\x80\x04", &parts.concat()[..], b"."].concat()
}

/// Integers in place of bytes, in which a payload would not be seen.
fn numbers() -> Vec<u8> {
    [name("array", "array"), text("B"), b"](K\x80K\x02K.e\x86R".to_vec()].concat()
}

#[test]
fn a_function_that_loads_bytes_is_nobody_elses_to_call() {
    let loads = name("torch.storage", "_load_from_bytes");
    let generator = name("numpy.random._pickle", "__generator_ctor");
    for bytes in [
        pickle(&[&generator, &numbers(), &loads, b"\x86R"]),
        pickle(&[&name("numpy.random._pickle", "__randomstate_ctor"), &numbers(), &loads, b"\x86R"]),
        pickle(&[
            &name("argparse", "Namespace"),
            b")R}",
            &text("__setstate__"),
            &loads,
            b"sb",
            &numbers(),
            b"b",
        ]),
        pickle(&[
            &name("types", "SimpleNamespace"),
            b")R}",
            &text("append"),
            &loads,
            b"sb",
            &numbers(),
            b"a",
        ]),
        // In a list, from where anyone may have it.
        pickle(&[b"](", &loads, b"e"]),
    ] {
        let found = found("m.pkl", &bytes);
        assert!(found.iter().any(|one| one.starts_with("error TS-101")), "{found:?}");
    }
    // As torch writes it.
    let called = pickle(&[&loads, b"C\x04\x80\x02N.\x85R"]);
    let found = found("m.pkl", &called);
    assert!(!found.iter().any(|one| one.starts_with("error")), "{found:?}");
}

#[test]
fn what_numpys_constructors_are_given_to_call_is_numpys() {
    let generator = name("numpy.random._pickle", "__generator_ctor");
    let own = name("numpy.random._pickle", "__bit_generator_ctor");
    let plain = pickle(&[&generator, &text("PCG64"), &own, b"\x86R"]);
    assert_eq!(scan_bytes("m.pkl", &plain, &ScanOptions::default()).verdict(), Verdict::Clean);
    let other = pickle(&[&generator, &text("file"), &name("numpy", "memmap"), b"\x86R"]);
    assert_eq!(found("m.pkl", &other), ["error TS-109 numpy.random._pickle.__generator_ctor"]);
}

#[test]
fn states_set_no_attribute_that_instructions_call() {
    for attribute in ["append", "extend", "add", "__setstate__", "__class__"] {
        let value = name("collections", "OrderedDict");
        let state = [b"}".to_vec(), text(attribute), value, b"s".to_vec()].concat();
        let object = name("types", "SimpleNamespace");
        let bytes = pickle(&[&object, b")R", &state, b"b"]);
        assert_eq!(found("m.pkl", &bytes), ["error TS-109"], "{attribute}");
        let in_slots = pickle(&[&object, b")RN", &state, b"\x86b"]);
        assert_eq!(found("m.pkl", &in_slots), ["error TS-109"], "{attribute}");
    }
}

#[test]
fn what_the_program_has_already_gets_no_state() {
    let logger = name("logging", "getLogger");
    let state = [b"}".to_vec(), text("disabled"), b"\x88s".to_vec()].concat();
    assert_eq!(found("m.pkl", &pickle(&[&logger, b")R"])), [""; 0]);
    assert_eq!(found("m.pkl", &pickle(&[&logger, b")R", &state, b"b"])), ["error TS-110 logging.getLogger"]);
    let tag = name("torch.jit._pickle", "restore_type_tag");
    let class = name("collections", "Counter");
    let bytes = pickle(&[&tag, &class, &text("x"), b"\x86R", &state, b"b"]);
    assert!(found("m.pkl", &bytes).contains(&"error TS-110 torch.jit._pickle.restore_type_tag".to_owned()));
    let rebuild = name("torch._tensor", "_rebuild_from_type_v2");
    let kind = name("builtins", "type");
    let bytes = pickle(&[&rebuild, b"(", &tag, &kind, &class, &text("x"), b"\x86", &state, b"tR"]);
    assert!(found("m.pkl", &bytes).contains(&"error TS-110 torch._tensor._rebuild_from_type_v2".to_owned()));
}

#[test]
fn arrays_over_bytes_are_no_data() {
    let array = name("numpy", "ndarray");
    let bytes = pickle(&[&array, b"K\x01\x85", &text("O"), b"C\x08AAAAAAAA\x87R"]);
    assert_eq!(found("m.pkl", &bytes), ["error TS-109 numpy.ndarray"]);
}

/// An array of numpy with this dtype, and what stands in the place of its bytes.
fn npy(descr: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n");
    let length = u16::try_from(header.len()).unwrap().to_le_bytes();
    [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
}

#[test]
fn objects_in_fields_of_arrays_are_objects_by_any_name() {
    let payload = b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.";
    let scanned = |descr: &str| scan_bytes("a.npy", &npy(descr, payload), &ScanOptions::default());
    for descr in ["[('a', 'O')]", "[('a', 'object')]", "[('a', 'o8')]", "[('a', '<f8,O')]"] {
        assert_eq!(scanned(descr).verdict(), Verdict::Findings, "{descr}");
    }
    let plain = npy("[('Object', '<f4'), ('b', '|S4')]", &[0; 8]);
    assert_eq!(scan_bytes("a.npy", &plain, &ScanOptions::default()).verdict(), Verdict::Clean);
    // What is not understood is not clean, whatever stands there.
    let odd = npy("[('a', 'f8, f8')]", &[0; 16]);
    assert_eq!(scan_bytes("a.npy", &odd, &ScanOptions::default()).verdict(), Verdict::Inconclusive);
}

#[test]
fn memory_of_tensors_lies_beside_its_pickle() {
    let payload = npy("'|O'", b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.");
    let plain = b"\x80\x02}q\0.";
    let bytes = zip(&[("a/data.pkl", plain), ("a/version", b"3\n"), ("data/0", &payload)]);
    let found = found("m.npz", &bytes);
    assert!(found.iter().any(|one| one.starts_with("error TS-101 data/0")), "{found:?}");
}

#[test]
fn a_name_that_is_called_counts_in_bytes_of_any_kind() {
    let call: &[u8] = b"cmyflask.cli\nrun_shell\n(S'id'\ntR";
    for (file, bytes) in [
        ("notes", [call, b"e\xff"].concat()),
        ("notes.txt", [call, b"\ntext"].concat()),
        ("a.gif", [b"G\0\0\0\0\0\0\0\0", call].concat()),
    ] {
        let report = scan_bytes(file, &bytes, &ScanOptions::default());
        let named = report.findings.iter().any(|finding| finding.rule == Rule::CallsUnknown);
        assert!(named, "{file}: {:?}", report.findings);
    }
}

/// A stream of LZMA with these properties, of literals alone.
fn lzma(properties: u8, bytes: &[u8]) -> Vec<u8> {
    let (mut low, mut range, mut cache, mut waiting) = (0u64, u32::MAX, 0u8, 1u64);
    let mut out = Vec::new();
    let (literal_bits, position_bits) = (properties % 9, properties / 45);
    let mut is_match = [1024u32; 16];
    let mut literals = vec![[1024u32; 256]; 1 << literal_bits];
    let mut shift = |low: &mut u64, cache: &mut u8, waiting: &mut u64| {
        if *low < 0xff00_0000 || *low > 0xffff_ffff {
            let carry = u8::try_from(*low >> 32).unwrap();
            out.push(cache.wrapping_add(carry));
            (1..*waiting).for_each(|_| out.push(0xff_u8.wrapping_add(carry)));
            (*waiting, *cache) = (0, u8::try_from(*low >> 24 & 0xff).unwrap());
        }
        *waiting += 1;
        *low = (*low & 0x00ff_ffff) << 8;
    };
    let mut bit = |chance: &mut u32, bit: u32, shift: &mut dyn FnMut(&mut u64, &mut u8, &mut u64)| {
        let bound = (range >> 11) * *chance;
        if bit == 0 {
            range = bound;
            *chance += (2048 - *chance) >> 5;
        } else {
            low += u64::from(bound);
            range -= bound;
            *chance -= *chance >> 5;
        }
        while range < 1 << 24 {
            range <<= 8;
            shift(&mut low, &mut cache, &mut waiting);
        }
    };
    let mut before = 0u8;
    for (at, byte) in bytes.iter().enumerate() {
        bit(&mut is_match[at & ((1 << position_bits) - 1)], 0, &mut shift);
        let chances = &mut literals[usize::from(before >> (8 - literal_bits))];
        let mut place = 1usize;
        for shifted in (0..8).rev() {
            let one = u32::from(*byte >> shifted & 1);
            bit(&mut chances[place], one, &mut shift);
            place = place << 1 | one as usize;
        }
        before = *byte;
    }
    for _ in 0..5 {
        shift(&mut low, &mut cache, &mut waiting);
    }
    let length = (bytes.len() as u64).to_le_bytes();
    [&[properties][..], &4096u32.to_le_bytes(), &length, &out].concat()
}

#[test]
fn a_compressed_stream_that_may_be_a_pickle_is_not_clean() {
    // Bytes that no compressor makes shorter.
    let mut state = 7u32;
    let noise: Vec<u8> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    let inner = pickle(&[b"B", &5000u32.to_le_bytes(), &noise]);
    // As others compress.
    let usual = scan_bytes("m.pkl", &lzma(93, &inner), &ScanOptions::default());
    assert_eq!((usual.kind, usual.verdict()), ("lzma", Verdict::Clean), "{:?}", usual.findings);
    // The properties are the instruction LONG4, and the size of the dictionary its length.
    let both = scan_bytes("m.pkl", &lzma(0x8b, &inner), &ScanOptions::default());
    assert_eq!((both.kind, both.verdict()), ("lzma", Verdict::Inconclusive), "{:?}", both.findings);
}
