//! Files of torch before 1.6, by hand: five pickles and a storage of two floats.

use std::sync::Arc;

use tensafe_io::{Buffer, MemorySource};
use tensafe_pickle::Limits;

use super::{StructurePart as Part, StructureTensor, TensorKind};
use crate::{Error, ErrorKind, Pickled, PickledOptions};

const MAGIC: &[u8] = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.";
const VERSION: &[u8] = b"\x80\x02M\xe9\x03.";
const ORDERED: &[u8] = b"ccollections\nOrderedDict\n)R";

fn text(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_le_bytes();
    [&b"X"[..], &length, text.as_bytes()].concat()
}

fn system() -> Vec<u8> {
    let sizes =
        [text("short"), b"K\x02".to_vec(), text("int"), b"K\x04".to_vec(), text("long"), b"K\x08".to_vec()];
    let parts = [
        b"\x80\x02}(".to_vec(),
        text("protocol_version"),
        b"M\xe9\x03".to_vec(),
        text("little_endian"),
        b"\x88".to_vec(),
        text("type_sizes"),
        b"}(".to_vec(),
        sizes.concat(),
        b"uu.".to_vec(),
    ];
    parts.concat()
}

/// The instructions of a tensor of two floats that was on the second GPU.
fn tensor(requires_grad: bool) -> Vec<u8> {
    hooked(requires_grad, ORDERED)
}

/// The same, with hooks.
fn hooked(requires_grad: bool, hooks: &[u8]) -> Vec<u8> {
    let parts = [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text("0"),
        text("cuda:1"),
        b"K\x02NtQK\x00K\x02\x85K\x01\x85".to_vec(),
        if requires_grad { b"\x88".to_vec() } else { b"\x89".to_vec() },
        hooks.to_vec(),
        b"tR".to_vec(),
    ];
    parts.concat()
}

/// What the file holds whose value these instructions make; with a tensor, its storage.
fn read(value: &[u8], has_tensor: bool) -> Result<Vec<Part>, Error> {
    read_within(value, has_tensor, Limits::default())
}

fn read_within(value: &[u8], has_tensor: bool, limits: Limits) -> Result<Vec<Part>, Error> {
    let keys =
        if has_tensor { [b"\x80\x02]", &text("0")[..], b"a."].concat() } else { b"\x80\x02].".to_vec() };
    let object = [b"\x80\x02", value, b"."].concat();
    let mut file = [MAGIC, VERSION, &system(), &object, &keys].concat();
    if has_tensor {
        file.extend(2u64.to_le_bytes());
        file.extend([1.0f32, 2.0].iter().flat_map(|value| value.to_le_bytes()));
    }
    let source = Arc::new(MemorySource::new(Buffer::from_owner(file)));
    let mut options = PickledOptions::default().with_structure(true);
    options.limits = limits;
    let opened = Pickled::from_source(source, &options)?;
    Ok(opened.structure().expect("it is a file of torch").parts().to_vec())
}

fn refused(value: &[u8]) -> (ErrorKind, String) {
    let error = read(value, false).unwrap_err();
    (error.kind(), error.to_string())
}

#[test]
fn containers_are_kept_and_what_is_shared_is_one_part() {
    // {"a": (1, None), "b": [True], "c": the same list}
    let value =
        [&b"}("[..], &text("a"), b"K\x01N\x86", &text("b"), b"]q\x01\x88a", &text("c"), b"h\x01u"].concat();
    let parts = read(&value, false).unwrap();
    let Some(Part::Dict { entries, ordered: false, metadata: None }) = parts.last() else {
        panic!("{parts:?}");
    };
    let [(a, pair), (b, list), (c, again)] = entries[..] else { panic!("{entries:?}") };
    assert_eq!(
        (&parts[a], &parts[b], &parts[c]),
        (&Part::Text("a".into()), &Part::Text("b".into()), &Part::Text("c".into()))
    );
    let Part::Tuple(items) = &parts[pair] else { panic!("{parts:?}") };
    assert_eq!((&parts[items[0]], &parts[items[1]]), (&Part::Int(1), &Part::None));
    let Part::List(items) = &parts[list] else { panic!("{parts:?}") };
    assert_eq!(parts[items[0]], Part::Bool(true));
    assert_eq!(list, again);
}

#[test]
fn tensors_stand_by_name_with_what_torch_makes_of_them() {
    let parameter =
        [&b"ctorch._utils\n_rebuild_parameter\n("[..], &tensor(false), b"\x88", ORDERED, b"tR"].concat();
    let value = [&b"}("[..], &text("w"), &tensor(true), &text("p"), &parameter, b"u"].concat();
    let parts = read(&value, true).unwrap();
    let found: Vec<_> = parts
        .iter()
        .filter_map(|part| if let Part::Tensor(tensor) = part { Some(tensor.clone()) } else { None })
        .collect();
    let needed = |name: &str, kind| StructureTensor {
        name: name.into(),
        kind,
        location: "cuda:1".into(),
        requires_grad: true,
    };
    assert_eq!(found, [needed("w", TensorKind::Tensor), needed("p", TensorKind::Parameter)]);
}

#[test]
fn what_is_not_plain_is_refused_by_name_and_place() {
    let (kind, told) = refused(b"cargparse\nNamespace\n)R");
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(told.contains("`argparse.Namespace` at byte "), "{told}");
    let (kind, told) = refused(&[ORDERED, b"}", &text("kept"), b"K\x01sb"].concat());
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(told.contains("an attribute of OrderedDict"), "{told}");
    // A key of a key.
    let (kind, told) = refused(b"}K\x01K\x02\x86\x85K\x03s");
    assert_eq!((kind, told.contains("key")), (ErrorKind::Unsupported, true), "{told}");
}

#[test]
fn a_key_that_is_set_again_has_its_last_value_alone() {
    let value =
        [&b"}("[..], &text("a"), &tensor(false), b"q\x02", &text("a"), b"K\x05", &text("b"), b"h\x02u"]
            .concat();
    let parts = read(&value, true).unwrap();
    let Some(Part::Dict { entries, .. }) = parts.last() else { panic!("{parts:?}") };
    let [(_, a), (_, b)] = entries[..] else { panic!("{entries:?}") };
    assert_eq!(parts[a], Part::Int(5));
    let Part::Tensor(tensor) = &parts[b] else { panic!("{parts:?}") };
    assert_eq!(tensor.name, "b");
}

#[test]
fn parameters_of_parameters_are_refused() {
    // One within another, where no other walk looks.
    let name = b"ctorch._utils\n_rebuild_parameter\n";
    let mut within = name.repeat(100_000);
    for _ in 0..100_000 {
        // The innermost is given None, the others what stands above them on the stack.
        within.extend(if within.ends_with(b"R") { &b"\x88N\x87R"[..] } else { &b"N\x88N\x87R"[..] });
    }
    let value = [ORDERED, b"}", &text("_metadata"), &within, b"sb"].concat();
    let (kind, told) = refused(&value);
    assert_eq!((kind, told.contains("a parameter of no tensor")), (ErrorKind::Unsupported, true), "{told}");
}

#[test]
fn tensors_and_parameters_with_hooks_are_refused() {
    let hooks = b"}K\x01K\x02s";
    let error = read(&hooked(true, hooks), true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a tensor with hooks"), "{error}");
    let parameter =
        [&b"ctorch._utils\n_rebuild_parameter\n("[..], &tensor(false), b"\x88", hooks, b"tR"].concat();
    let error = read(&parameter, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a parameter with hooks"), "{error}");
    // None, and a dict of any kind without entries, are no hooks.
    for nothing in [&b"N"[..], b"}", ORDERED, b"ccollections\nOrderedDict\n]\x85R"] {
        assert!(matches!(read(&hooked(true, nothing), true).unwrap()[..], [Part::Tensor(_)]));
    }
}

#[test]
fn shapes_and_devices_are_made_of_plain_values() {
    let parts = read(b"ctorch\nSize\nK\x02K\x03\x86\x85R", false).unwrap();
    assert_eq!(parts, [Part::Int(2), Part::Int(3), Part::Size(vec![0, 1])]);
    let parts = read(&[b"ctorch\ndevice\n", &text("cuda")[..], b"K\x01\x86R"].concat(), false).unwrap();
    assert_eq!(parts, [Part::Text("cuda".into()), Part::Int(1), Part::Device(vec![0, 1])]);
    // A shape of no sequence, of two, and of a list; a device of a dict. In metadata, where no other walk looks.
    let within =
        |call: &[u8]| refused(&[ORDERED, b"}", &text("_metadata"), b"ctorch\n", call, b"sb"].concat());
    for call in [&b"Size\nK\x02\x85R"[..], b"Size\n))\x86R"] {
        let (kind, told) = within(call);
        assert_eq!((kind, told.contains("`torch.Size`")), (ErrorKind::Unsupported, true), "{told}");
    }
    for call in [&b"Size\n]]a\x85R"[..], b"device\n}\x85R"] {
        let (kind, told) = within(call);
        assert_eq!((kind, told.contains("key")), (ErrorKind::Unsupported, true), "{told}");
    }
}

#[test]
fn what_calls_share_is_copied_within_the_limit() {
    // One list of a hundred items that a hundred sets are made of: 100 x 100 x 8 bytes.
    let list = [&b"](K\x01"[..], &b"2".repeat(99), b"eq\x01"].concat();
    let sets = b"cbuiltins\nset\nh\x01\x85R".repeat(100);
    let value = [&b"("[..], &list, &sets, b"l"].concat();
    assert!(read(&value, false).is_ok());
    let error = read_within(&value, false, Limits::default().with_value_bytes(64 << 10)).unwrap_err();
    assert!(error.to_string().contains("values of more than 65536 bytes"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Limit);
}

#[test]
fn tensors_in_metadata_are_refused() {
    let value = [ORDERED, b"}", &text("_metadata"), &tensor(false), b"sb"].concat();
    let error = read(&value, true).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("a tensor in the metadata"), "{error}");
}

#[test]
fn bytes_and_texts_are_told_apart_or_refused() {
    let parts = read(b"C\x02\xff\x00", false).unwrap();
    assert_eq!(parts, [Part::Bytes(vec![0xff, 0])]);
    assert_eq!(read(b"U\x02ok", false).unwrap(), [Part::Text("ok".into())]);
    assert!(refused(b"U\x01\xe9").1.contains("text of Python 2"));
    assert!(
        refused(&[&text("\u{fffd}")[..], b"0X\x03\x00\x00\x00\xed\xa0\x80"].concat()).1.contains("surrogate")
    );
    assert_eq!(read(&text("\u{fffd}"), false).unwrap(), [Part::Text("\u{fffd}".into())]);
    // A long one stays where it is in the file, and may have been a bytearray.
    let long = |opcode: &[u8]| [opcode, &5000u64.to_le_bytes(), &[7; 5000]].concat();
    assert_eq!(read(&long(b"\x8e"), false).unwrap(), [Part::Bytes(vec![7; 5000])]);
    assert!(refused(&long(b"\x96")).1.contains("a bytearray"));
}

#[test]
fn metadata_that_hold_themselves_are_refused() {
    // The walk that names tensors looks at no metadata.
    let value = [ORDERED, b"}", &text("_metadata"), b"]q\x01h\x01asb"].concat();
    let (kind, told) = refused(&value);
    assert_eq!((kind, told.contains("within themselves")), (ErrorKind::Limit, true), "{told}");
    let deep = [ORDERED, b"}", &text("_metadata"), &b"]".repeat(5000), &b"a".repeat(4999), b"sb"].concat();
    assert_eq!(refused(&deep).0, ErrorKind::Limit);
}

#[test]
fn a_pickle_alone_has_no_structure() {
    let source = Arc::new(MemorySource::new(Buffer::from_owner(b"\x80\x02}.".to_vec())));
    let opened = Pickled::from_source(source, &PickledOptions::default().with_structure(true)).unwrap();
    assert!(opened.structure().is_none());
}
