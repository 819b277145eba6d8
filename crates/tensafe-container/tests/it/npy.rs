//! Headers of arrays.

use tensafe_container::{ByteOrder, Descr, ErrorKind, Limits, Npy};

use crate::memory;

fn file(version: u8, literal: &str, data: &[u8]) -> Vec<u8> {
    let mut out = [b"\x93NUMPY".as_slice(), &[version, 0]].concat();
    match version {
        1 => out.extend(u16::try_from(literal.len()).unwrap().to_le_bytes()),
        _ => out.extend(u32::try_from(literal.len()).unwrap().to_le_bytes()),
    }
    [&*out, literal.as_bytes(), data].concat()
}

fn read(bytes: &[u8]) -> Result<Npy, (ErrorKind, String)> {
    Npy::read(&memory(bytes), 0, &Limits::default()).map_err(|e| (e.kind(), e.to_string()))
}

#[test]
fn reads_what_numpy_writes() {
    let literal = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }          \n";
    for version in [1, 2, 3] {
        let npy = read(&file(version, literal, &[0; 24])).unwrap();
        let start = if version == 1 { 10 } else { 12 } + literal.len() as u64;
        let descr = Descr::Simple { order: ByteOrder::Little, kind: 'f', bytes: 4, unit: String::new() };
        assert_eq!((npy.descr.clone(), npy.fortran_order), (descr, false));
        assert_eq!((&*npy.shape, npy.data.clone(), npy.elements()), (&[2, 3][..], start..start + 24, 6));
    }
}

#[test]
fn reads_every_kind_of_element() {
    let descr = |text: &str| {
        let literal = format!("{{'descr': {text}, 'fortran_order': True, 'shape': (0,), }}\n");
        read(&file(1, &literal, b"")).unwrap().descr
    };
    let simple = |order, kind, bytes, unit: &str| Descr::Simple { order, kind, bytes, unit: unit.into() };
    assert_eq!(descr("'|b1'"), simple(ByteOrder::None, 'b', 1, ""));
    assert_eq!(descr("'>c16'"), simple(ByteOrder::Big, 'c', 16, ""));
    assert_eq!(descr("\"<U7\""), simple(ByteOrder::Little, 'U', 28, ""));
    assert_eq!(descr("'|S0'"), simple(ByteOrder::None, 'S', 0, ""));
    assert_eq!(descr("'<M8[ns]'"), simple(ByteOrder::Little, 'M', 8, "[ns]"));
    assert_eq!(descr("'f8'"), simple(ByteOrder::Native, 'f', 8, ""));
    assert_eq!(descr("'|O'"), Descr::Object);
    let fields = "[('a', '<f4'), ('b', '<i8', (2, 3)), ('', '|V4'), (('title', 'c'), [('d', '|b1')])]";
    assert_eq!(descr(fields), Descr::Structured(fields.into()));
}

#[test]
fn the_data_of_objects_is_all_that_follows() {
    let literal = "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}";
    let npy = read(&file(1, literal, b"\x80\x02N.")).unwrap();
    assert_eq!(npy.data.end - npy.data.start, 4);
}

#[test]
fn reads_at_an_offset() {
    let literal = "{'descr': '|u1', 'fortran_order': False, 'shape': ()}";
    let bytes = [b"before".as_slice(), &file(1, literal, b"x")].concat();
    let npy = Npy::read(&memory(&bytes), 6, &Limits::default()).unwrap();
    assert_eq!(
        (npy.data.start, npy.data.end, npy.elements()),
        (bytes.len() as u64 - 1, bytes.len() as u64, 1)
    );
}

#[test]
fn python_2_wrote_longs() {
    let literal = "{'descr': '|u1', 'fortran_order': False, 'shape': (2L, 1L)}";
    assert_eq!(read(&file(1, literal, b"xx")).unwrap().shape, [2, 1]);
}

#[test]
fn refuses_everything_else() {
    let text = |literal: &str| read(&file(1, literal, b"")).unwrap_err();
    let format = |text: &str| (ErrorKind::Format, text.to_owned());
    let any = "a text, a number, True, False, a tuple, a list or a dictionary";
    let cases = [
        ("", format!("npy header at byte 10: found ``, needed {any}")),
        ("__import__('os')", format!("npy header at byte 10: found `__import__(\\'os\\')`, needed {any}")),
        ("[]", "npy header at byte 10: found another literal, needed a dictionary".into()),
        ("{} {}", "npy header at byte 13: found `{}`, needed the end of the header".into()),
        ("{'a' 1}", "npy header at byte 15: found `1}`, needed :".into()),
        ("{'descr': '<f4'", "npy header at byte 25: found ``, needed }".into()),
        (
            "{'descr': 'f\\x34'}",
            "npy header at byte 20: found `\\'f\\\\x34\\'}`, needed a text in quotes, without backslashes".into(),
        ),
        ("{'x': 1}", "npy header at byte 10: found an entry `x` of this kind, needed `descr`, `fortran_order` and `shape`".into()),
        ("{'shape': (1)}", "npy header at byte 23: found `}`, needed a comma in a tuple of one".into()),
        ("{'shape': (-1,)}", format!("npy header at byte 21: found `-1,)}}`, needed {any}")),
        ("{'shape': (007,)}", "npy header at byte 21: found `007,)}`, needed a number below 2^64 without leading zeros".into()),
        (
            "{'shape': (18446744073709551616,)}",
            "npy header at byte 21: found `1844674407370955`, needed a number below 2^64 without leading zeros".into(),
        ),
        ("{'shape': (True,)}", "npy header at byte 10: found a shape of other things, needed numbers".into()),
        ("{'shape': (), 'shape': ()}", "npy header at byte 10: found the entry `shape` twice, needed once".into()),
        ("{'shape': ()}", "npy header at byte 10: found an entry missing, needed `descr`, `fortran_order` and `shape`".into()),
        ("{'descr': 3}", "npy header at byte 10: found a descr of another kind, needed a text or a list".into()),
        (
            "{'descr': '<q8'}",
            "npy header at byte 10: found descr `<q8`, needed byte order, letter and size, such as `<f4`".into(),
        ),
        (
            "{'descr': '<f4294967296'}",
            "npy header at byte 10: found descr `<f4294967296`, needed byte order, letter and size, such as `<f4`".into(),
        ),
    ];
    for (literal, needed) in cases {
        assert_eq!(text(literal), format(&needed), "{literal}");
    }
    let deep = format!("{{'descr': {}", "[".repeat(40));
    assert_eq!(
        text(&deep),
        format("npy header at byte 52: found `[[[[[[[[`, needed values within values 32 deep at most")
    );
    let many = format!("{{'shape': ({})}}", "1, ".repeat(65));
    assert_eq!(text(&many), format("npy header at byte 10: found 65 dimensions, needed at most 64"));
}

#[test]
fn refuses_sizes_that_do_not_fit() {
    let shaped = |shape: &str| {
        let literal = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}");
        read(&file(1, &literal, &[0; 8])).map(|npy| npy.data.end - npy.data.start)
    };
    assert_eq!(shaped("(2,)"), Ok(8));
    assert_eq!(shaped("(1,)"), Ok(4));
    assert_eq!(shaped("(0, 7)"), Ok(0));
    assert_eq!(
        shaped("(3,)"),
        Err((ErrorKind::Format, "npy array at byte 65 ends early: found 8 bytes, needed 12".into()))
    );
    assert_eq!(
        shaped("(4294967296, 4294967296)"),
        Err((
            ErrorKind::Format,
            "npy array at byte 85: found shape [4294967296, 4294967296], needed bytes below 2^64".into()
        ))
    );
    assert!(shaped("(0, 4294967296, 4294967296)").is_err(), "a zero does not excuse the others");
}

#[test]
fn refuses_other_heads() {
    let text = |bytes: &[u8]| read(bytes).unwrap_err();
    assert_eq!(
        text(b"\x93NUMPY\x01"),
        (ErrorKind::Format, "npy header at byte 0 ends early: found 7 bytes, needed 10".into())
    );
    assert_eq!(
        text(b"\x93NUMPZ\x01\0\0\0"),
        (ErrorKind::Format, "npy header at byte 0: found other bytes, needed `\\x93NUMPY`".into())
    );
    assert_eq!(
        text(b"\x93NUMPY\x04\0\0\0\0\0"),
        (ErrorKind::Unsupported, "npy header at byte 0: found version 4.0, which is not read here".into())
    );
    assert_eq!(
        text(b"\x93NUMPY\x01\0\x40\0{}"),
        (ErrorKind::Format, "npy header at byte 10 ends early: found 2 bytes, needed 64".into())
    );
    assert_eq!(
        text(b"\x93NUMPY\x02\0\xff\xff\xff\xff"),
        (
            ErrorKind::Limit,
            "bytes of the npy header at byte 0: found 4294967295, the limit is 268435456; `Limits::header_bytes` can \
             raise it"
                .into()
        )
    );
    assert_eq!(
        text(b"\x93NUMPY\x03\0\x02\0\0\0{\xff"),
        (ErrorKind::Format, "npy header at byte 13: found bytes that are not UTF-8, needed UTF-8".into())
    );
}
