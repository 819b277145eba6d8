//! What records mean: calls of known names as their writers write them, and as nobody does.

use std::{borrow::Cow, io};

use tensafe_pickle::{
    ArrayData, Behind, Bytes, Dialect, Element, LegacyStream, Limits, Meaning, Pickle, Quantizer, StorageAt,
    Stream, Value, evaluate, evaluate_stream, known_symbol, numbered_storages, numbered_tensors,
};

use crate::python::{python, unhex};

fn root<'p>(pickle: &'p Pickle<'_>) -> Meaning<'p> {
    pickle.meaning(pickle.root_id().unwrap()).unwrap()
}

fn refusal(bytes: &[u8]) -> String {
    let pickle = evaluate(bytes, &Limits::default());
    pickle.meaning(pickle.root_id().unwrap()).unwrap_err().to_string()
}

/// `_rebuild_tensor_v2` on a storage of 6 floats.
fn tensor(offset: &str, size: &str, stride: &str) -> Vec<u8> {
    [
        "ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQ",
        offset,
        size,
        stride,
        "I00\nccollections\nOrderedDict\n)RtR.",
    ]
    .concat()
    .into_bytes()
}

#[test]
fn a_tensor_is_a_walk_over_a_storage() {
    let bytes = tensor("I0\n", "(I2\nI3\nt", "(I3\nI1\nt");
    let pickle = evaluate(&bytes, &Limits::default());
    let Meaning::Tensor(tensor) = root(&pickle) else { panic!() };
    assert_eq!(
        (tensor.element, tensor.elements(), tensor.extent()),
        (Some(Element::F32), Some(6), Some(0..6))
    );
    assert!(tensor.is_contiguous());
    let StorageAt::Key { key, location, count, .. } = tensor.storage.at else { panic!() };
    assert_eq!((key, location, count), ("0", "cpu", 6));
    assert_eq!(pickle.unknown_symbols().count(), 0);
}

#[test]
fn a_walk_that_overflows_or_leaves_its_storage_has_no_extent() {
    let extent = |bytes: &[u8]| {
        let pickle = evaluate(bytes, &Limits::default());
        match root(&pickle) {
            Meaning::Tensor(tensor) => tensor.extent(),
            other => panic!("{other:?}"),
        }
    };
    let huge = i64::MAX.to_string();
    let size = format!("(I{huge}\nI{huge}\nt");
    assert_eq!(extent(&tensor("I0\n", &size, "(I1\nI1\nt")), None);
    assert_eq!(extent(&tensor("I0\n", "(I4\nt", &format!("(I{huge}\nt"))), None);
    assert_eq!(extent(&tensor("I1\n", "(I3\nt", "(I-1\nt")), None);
    assert_eq!(extent(&tensor("I2\n", "(I3\nt", "(I-1\nt")), Some(0..3));
    assert_eq!(extent(&tensor("I9\n", "(I0\nI3\nt", "(I3\nI1\nt")), Some(9..9));
}

#[test]
fn arguments_that_no_writer_writes_are_refused_with_what_was_found() {
    let name = "`torch._utils._rebuild_tensor_v2`";
    for (bytes, text) in [
        (tensor("I-1\n", "(t", "(t"), "storage offset: found an integer, needed an integer from 0 on"),
        (tensor("I0\n", "(I-2\nt", "(I1\nt"), "size: found a tuple, needed a tuple of integers from 0 on"),
        (tensor("I0\n", "(I2\nt", "(I1\nI1\nt"), "stride: found 2 strides, needed one for each dimension"),
        (tensor("I0\n", "(I2\nt", "Vx\n"), "stride: found text, needed a tuple of integers"),
    ] {
        assert_eq!(refusal(&bytes), format!("{name}: {text}"));
    }
    let storage = b"(Vstorage\nctorch\nEvilStorage\nV0\nVcpu\nI6\ntQ.";
    assert_eq!(
        refusal(storage),
        "`storage`: type: found `torch.EvilStorage`, needed a storage class of torch"
    );
}

#[test]
fn names_outside_of_the_table_stay_unknown() {
    let pickle = evaluate(b"cos\nsystem\n(Vid\ntR.", &Limits::default());
    assert!(
        matches!(root(&pickle), Meaning::Unknown { symbol: Some(symbol), .. } if symbol.name == "system")
    );
    let unknown: Vec<_> = pickle.unknown_symbols().map(|symbol| symbol.to_string()).collect();
    assert_eq!(unknown, ["os.system"]);
    assert!(known_symbol("torch", "bfloat16") && known_symbol("torch", "HalfStorage"));
    assert!(!known_symbol("torch", "load") && !known_symbol("torch.os", "system"));
}

#[test]
fn what_deepspeed_saves_beside_tensors_is_known() {
    let stage =
        |value: &str| format!("cdeepspeed.runtime.zero.config\nZeroStageEnum\n({value}tR.").into_bytes();
    let bytes = stage("I3\n");
    let pickle = evaluate(&bytes, &Limits::default());
    assert_eq!(root(&pickle), Meaning::Int(3));
    assert_eq!(pickle.unknown_symbols().count(), 0);
    let name = "`deepspeed.runtime.zero.config.ZeroStageEnum`";
    assert_eq!(refusal(&stage("Vx\n")), format!("{name}: value: found text, needed an integer"));
    let scaler =
        b"\x80\x02cdeepspeed.runtime.fp16.loss_scaler\nLossScaler\n)\x81}X\x09\0\0\0cur_scaleK\x01sb.";
    let pickle = evaluate(scaler, &Limits::default());
    assert!(matches!(root(&pickle), Meaning::Map(entries) if entries.len() == 1));
    assert!(!known_symbol("deepspeed.runtime.fp16.loss_scaler", "CreateLossScaler"));
}

/// `(what Python says, the pickle)` for values of Python's own library.
const PLAIN: &str = r#"
import argparse, collections, datetime, pathlib, pickle
for protocol in range(6):
    for value in [collections.OrderedDict(a=1, b=2), collections.Counter("aab"), collections.defaultdict(list, k=[1]),
                  argparse.Namespace(lr=0.1, name="x"), collections.deque([1, 2])]:
        print("map" if not isinstance(value, collections.deque) else "sequence", pickle.dumps(value, protocol).hex())
    for value in [datetime.datetime(2020, 1, 2, 3, 4, 5, 6), datetime.date(1999, 12, 31), 1.5 - 2j,
                  pathlib.PurePosixPath("a/b")]:
        print("named", pickle.dumps(value, protocol).hex())
    for value in [b"", b"\x00\xff", bytearray(b"\x80x"), bytearray()]:
        print("bytes:" + bytes(value).hex(), pickle.dumps(value, protocol).hex())
"#;

#[test]
fn values_of_pythons_library_are_known_in_every_protocol() {
    let mut seen = 0;
    for line in python(PLAIN).lines() {
        let (what, hex) = line.split_once(' ').unwrap();
        let bytes = unhex(hex);
        let pickle = evaluate(&bytes, &Limits::default());
        let found = match root(&pickle) {
            Meaning::Map(_) => "map".into(),
            Meaning::Sequence(_) => "sequence".into(),
            Meaning::Named { .. } => "named".into(),
            Meaning::Bytes(Bytes::Near(bytes)) => {
                format!("bytes:{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
            }
            other => format!("{other:?}"),
        };
        assert_eq!(found, what, "{hex}");
        assert_eq!(pickle.unknown_symbols().count(), 0, "{hex}");
        seen += 1;
    }
    assert_eq!(seen, 6 * 13);
}

const DTYPE: &str = "cnumpy\ndtype\n(Vf4\nI00\nI01\ntR(I3\nV<\nNNNI-1\nI-1\nI0\ntb";

#[test]
fn an_array_of_numpy_has_as_many_bytes_as_its_shape_asks_for() {
    let array = |data: &str| {
        format!(
            "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I2\nt{DTYPE}I00\n{data}tb."
        )
        .into_bytes()
    };
    let whole = array("Vabcdefgh\n");
    let pickle = evaluate(&whole, &Limits::default());
    let Meaning::Array(found) = root(&pickle) else { panic!() };
    assert_eq!((found.number.element(), &found.shape[..]), (Some(Element::F32), &[2][..]));
    assert_eq!(found.data, ArrayData::Bytes(Bytes::Near(Cow::Borrowed(b"abcdefgh"))));
    assert!(
        refusal(&array("Vabc\n"))
            .ends_with("data: found 3 bytes where shape and dtype ask for 8, needed as many")
    );
}

#[test]
fn joblib_reads_the_array_behind_its_record_and_pickle_does_not() {
    let record = format!(
        "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)R}}(Vdtype\n{DTYPE}Vshape\n(I2\ntVorder\nVC\n\
         Vnumpy_array_alignment_bytes\nI16\nub"
    );
    let bytes = [b"\x80\x02", record.as_bytes(), b"\x02\xff\xffabcdefgh", b"."].concat();
    let pickle = evaluate_stream(&bytes[..], 0, Dialect::Joblib, &Limits::default());
    let Some(Value::Object(object)) = pickle.root() else { panic!("{:?}", pickle.error()) };
    let start = (bytes.len() - 9) as u64;
    assert_eq!(object.behind, Behind::Bytes(start..start + 8));
    assert!(matches!(root(&pickle), Meaning::Array(_)));
    // Whoever reads it as a plain pickle meets what the bytes spell.
    assert!(evaluate(&bytes, &Limits::default()).error().is_some());
}

/// A dtype with the state `(version, "|", subarray, names, fields, bytes, -1, flags)`.
fn dtype(name: &str, version: u8, subarray: &str, fields: &str, bytes: i64, flags: u8) -> String {
    let names = if fields == "N" { "N" } else { "(Va\nt" };
    format!(
        "cnumpy\ndtype\n(V{name}\nI00\nI01\ntR(I{version}\nV|\n{subarray}{names}{fields}I{bytes}\nI-1\nI{flags}\ntb"
    )
}

/// A record of joblib and what stands behind it: of which kind that is, or why it is not read.
fn announced(dtype: &str, tail: &[u8]) -> Result<Behind, String> {
    let record =
        format!("cjoblib.numpy_pickle\nNumpyArrayWrapper\n)R}}(Vdtype\n{dtype}Vshape\n(I2\ntVorder\nVC\nub");
    let bytes = [b"\x80\x02", record.as_bytes(), tail].concat();
    let pickle = evaluate_stream(&bytes[..], 0, Dialect::Joblib, &Limits::default());
    match (pickle.root(), pickle.error()) {
        (Some(Value::Object(object)), None) => Ok(object.behind.clone()),
        (_, error) => Err(error.unwrap().to_string()),
    }
}

#[test]
fn a_dtype_hides_no_objects_from_joblib() {
    let object = dtype("O8", 3, "N", "N", -1, 63);
    let field = |inner: &str| format!("}}Va\n({inner}I0\nts");
    let inner = dtype("V8", 3, "N", &field(&object), 8, 63);
    let pickled = b"(lp0\n..";
    for holds in [&object, &inner, &dtype("V8", 3, &format!("({object}(I1\ntt"), "N", 8, 63)] {
        assert!(matches!(announced(holds, pickled), Ok(Behind::Pickle(_))), "{holds}");
    }
    let whole = dtype("V2", 3, "N", &field(&dtype("u1", 3, "N", "N", -1, 0)), 2, 0);
    assert!(matches!(announced(&whole, b"abcd."), Ok(Behind::Bytes(range)) if range.end - range.start == 4));
    // Of text the state tells the size, as numpy has it.
    let text = dtype("S1", 3, "N", "N", 2, 0);
    assert!(matches!(announced(&text, b"abcd."), Ok(Behind::Bytes(range)) if range.end - range.start == 4));
    let hidden = [
        dtype("O8", 3, "N", "N", -1, 0),
        dtype("V8", 3, "N", &field(&object), 8, 0),
        dtype("V8", 3, "N", &field(&inner), 8, 0),
        dtype("V8", 3, &format!("({object}(I1\ntt"), "N", 8, 0),
        // Versions before 3, in which numpy looks for itself.
        dtype("V1", 2, "N", &field(&object), 1, 0),
        dtype("u1", 2, "N", "N", -1, 1),
        dtype("u1", 5, "N", "N", -1, 0),
        // numpy's own dtype, whose state stays as it is; two states; items; fields that are no dict.
        dtype("u1", 3, "N", "N", -1, 0).replace("I01\n", "I00\n"),
        dtype("u1", 3, "N", "N", -1, 0) + "(I3\nV|\nNNNI-1\nI-1\nI1\ntb",
        dtype("u1", 3, "N", "N", -1, 0) + "Na",
        dtype("V1", 3, "N", "(t", 1, 0),
    ];
    for dtype in hidden {
        let error = announced(&dtype, &[0; 64]).unwrap_err();
        assert!(error.ends_with("the record of an array tells no dtype"), "{dtype}: {error}");
    }
}

#[test]
fn dtypes_within_dtypes_end_somewhere() {
    // Each holds the one before it twice.
    let mut doubled = dtype("u1", 3, "N", "N", -1, 0) + "p0\n";
    for level in 0..15 {
        let fields = format!("}}Va\n(g{level}\nI0\ntsVb\n(g{level}\nI0\nts");
        doubled += &format!("0{}p{}\n", dtype("V1", 3, "N", &fields, 1, 0), level + 1);
    }
    assert!(announced(&doubled, b"ab.").is_err());
    // One that holds itself.
    let itself = "cnumpy\ndtype\n(VV1\nI00\nI01\ntRp0\n(I3\nV|\nN(Va\nt}Va\n(g0\nI0\ntsI1\nI-1\nI0\ntb";
    assert!(announced(itself, b"ab.").is_err());
}

#[test]
fn joblib_reads_one_array_behind_a_record() {
    let u1 = dtype("u1", 3, "N", "N", -1, 0);
    assert!(announced(&u1, b"ab.").is_ok());
    // joblib would give this state to the array.
    let error = announced(&u1, b"ab(I1\n(I2\ntNI00\nNtb.").unwrap_err();
    assert!(error.ends_with("the record of an array tells no single state"), "{error}");
}

#[test]
fn what_is_added_to_the_result_of_a_call_is_read_or_refused() {
    let storage = "(Vstorage\nctorch\nFloatStorage\nV1\nVcpu\nI6\ntQ";
    let text = String::from_utf8(tensor("I0\n", "(I2\nt", "(I1\nt")).unwrap();
    let tensor = text.strip_suffix('.').unwrap();
    let parameter = format!("ctorch._utils\n_rebuild_parameter\n({tensor}I00\n}}tR");
    let old = format!("ctorch.nn.parameter\nParameter\n({tensor}tR");
    let subclass = format!(
        "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_parameter\nctorch\nTensor\n({tensor}I00\n}}tNtR"
    );
    let array = format!(
        "cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntVb\ntR(I1\n(I2\nt{DTYPE}I00\nVabcdefgh\ntb"
    );
    let scalar = format!("cnumpy.core.multiarray\nscalar\n({DTYPE}Vabcd\ntR");
    let load = "ctorch.storage\n_load_from_bytes\n(C\x01xtR";
    let elsewhere = format!("({storage}I0\n(I2\nt(I1\nttb");
    let variable = format!("({tensor}NNI00\nNtb");
    let mut refused = 0;
    for made in [tensor, &parameter, &old, &subclass, &array, &scalar, load, "ctorch\nSize\n((I1\nttR"] {
        assert!(!refusal_or_none(made).starts_with('`'), "{made}");
        for added in
            [&*elsewhere, &variable, "(I00\nNtb", "}b", "}Vx\nNsb", "Nb", "I0\nF9.0\ns", "(I0\nF9.0\nu", "Na"]
        {
            let found = refusal_or_none(&format!("{made}{added}"));
            assert!(
                found.contains(": state: found ")
                    || found.contains("items: found 1 more, needed none")
                    || found.contains("entries: found 1 more, needed none"),
                "{made}{added}: {found}"
            );
            refused += 1;
        }
    }
    assert_eq!(refused, 72);
    // What torch before 0.4 wrote behind parameters.
    assert_eq!(refusal_or_none(&format!("{old}(I01\nI00\nNtb")), "");
    let found = refusal_or_none(&format!("{tensor}{elsewhere}"));
    assert_eq!(found, "`torch._utils._rebuild_tensor_v2`: state: found a tuple, needed none");
    for (bytes, text) in [
        ("cbuiltins\nset\n((lI1\natRI2\nNs", "`builtins.set`: entries: found 1 more, needed none"),
        ("cbuiltins\nbytearray\n(C\x01xtRI2\na", "`builtins.bytearray`: items: found 1 more, needed none"),
        (
            "ccollections\nOrderedDict\n)R(I1\ntb",
            "`collections.OrderedDict`: state: found a tuple, needed a dict of attributes",
        ),
    ] {
        assert_eq!(refusal_or_none(bytes), text);
    }
    let text = "`argparse.Namespace`: keywords: found a dict, needed none";
    assert_eq!(refusal(b"cargparse\nNamespace\n)}VK\nNs\x92."), text);
    // Bytes and shapes that were added to are no arguments either.
    let data = |data: &str| format!("cnumpy.core.multiarray\nscalar\n({DTYPE}{data}tR");
    let grown = "cbuiltins\nbytearray\n(C\x04abcdtRI2\na";
    assert_eq!(
        refusal_or_none(&data(grown)),
        "`numpy.core.multiarray.scalar`: data: found no bytes, needed the bytes of one number"
    );
    assert_eq!(refusal_or_none(&data(&grown[..grown.len() - 4])), "");
}

fn refusal_or_none(text: &str) -> String {
    let bytes = [text.as_bytes(), b"."].concat();
    let pickle = evaluate(&bytes, &Limits::default());
    let root = pickle.root_id().unwrap_or_else(|| panic!("{text}: {:?}", pickle.error()));
    pickle.meaning(root).err().map(|error| error.to_string()).unwrap_or_default()
}

#[test]
fn a_deque_keeps_its_last_items() {
    let deque = |most: &str, added: &str| {
        let text = format!("ccollections\ndeque\n((lI1\naI2\naI3\na{most}tR{added}.");
        let pickle = evaluate(text.as_bytes(), &Limits::default());
        let meaning = pickle.meaning(pickle.root_id().unwrap());
        let number = |id: &_| match pickle.value(*id) {
            Some(Value::Int(number)) => *number,
            other => panic!("{other:?}"),
        };
        meaning.map_err(|error| error.to_string()).map(|meaning| match meaning {
            Meaning::Sequence(items) => items.iter().map(number).collect::<Vec<_>>(),
            other => panic!("{other:?}"),
        })
    };
    let numbers = |numbers: &[i64]| Ok(numbers.to_vec());
    assert_eq!(deque("", ""), numbers(&[1, 2, 3]));
    assert_eq!(deque("N", "I4\na"), numbers(&[1, 2, 3, 4]));
    assert_eq!(deque("I1\n", ""), numbers(&[3]));
    assert_eq!(deque("I2\n", "I4\na"), numbers(&[3, 4]));
    assert_eq!(deque("I0\n", "I4\na"), numbers(&[]));
    assert_eq!(deque("I9\n", ""), numbers(&[1, 2, 3]));
    let text = "`collections.deque`: maxlen: found an integer, needed an integer from 0 on";
    assert_eq!(deque("I-1\n", ""), Err(text.to_owned()));
}

#[test]
fn padding_before_an_array_ends_within_the_file() {
    let record = format!(
        "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)R}}(Vdtype\n{DTYPE}Vshape\n(I0\ntVorder\nVC\n\
         Vnumpy_array_alignment_bytes\nI16\nub"
    );
    let bytes = [b"\x80\x02", record.as_bytes(), b"\xffshort."].concat();
    let pickle = evaluate_stream(&bytes[..], 0, Dialect::Joblib, &Limits::default());
    let text = pickle.error().unwrap().to_string();
    assert!(text.ends_with("0 bytes announced, 0 are left"), "{text}");
    assert!(pickle.range().end <= bytes.len() as u64);
}

#[test]
fn memoize_counts_the_entries_that_are_filled_as_python_does() {
    // PUT 5, then MEMOIZE: one entry is filled, so the next is number 1.
    let pickle = evaluate(b"\x80\x04]q\x05}\x94h\x010h\x05.", &Limits::default());
    assert!(matches!(pickle.root(), Some(Value::List(_))), "{:?}", pickle.error());
    assert_eq!(pickle.leftover(), 2);
}

#[test]
fn five_pickles_and_their_storages_are_one_file() {
    let object = "(Vstorage\nctorch\nFloatStorage\nVkey\nVcpu\nI2\nNtQ";
    let head = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03.\x80\x02}(Vlittle_endian\nI01\nu.";
    let tail = b"(lVkey\na.";
    let bytes =
        [&head[..], object.as_bytes(), b".", tail, &2u64.to_le_bytes(), b"12345678", b"rest"].concat();
    let legacy = LegacyStream::read(&bytes[..], &Limits::default());
    assert_eq!(legacy.error(), None);
    let end = bytes.len() as u64 - 4;
    assert_eq!(legacy.storage("key").unwrap().range, end - 8..end);
    assert_eq!(legacy.end(), end);
    // Cut anywhere, it says so and keeps what it has.
    for cut in 0..bytes.len() - 4 {
        let part = LegacyStream::read(&bytes[..cut], &Limits::default());
        assert!(part.error().is_some() && part.end() <= cut as u64);
    }
}

#[test]
fn members_of_the_oldest_files_are_read_by_their_numbers() {
    let storages =
        [&b"I1\n.(I7\nVcpu\nctorch\nFloatStorage\nt."[..], &2u64.to_le_bytes(), b"12345678"].concat();
    let (found, _) = numbered_storages(&storages[..], &Limits::default()).unwrap();
    assert_eq!(
        (found[0].key, found[0].element, found[0].range.end),
        (7, Element::F32, storages.len() as u64)
    );
    let mut tensors = b"I1\n.(I8\nI7\nctorch\nFloatTensor\nt.".to_vec();
    for number in [1u64, 2, 1, 0] {
        tensors.extend(number.to_le_bytes());
    }
    let (found, _) = numbered_tensors(&tensors[..], &Limits::default()).unwrap();
    assert_eq!((found[0].key, found[0].storage, &found[0].shape[..], found[0].offset), (8, 7, &[2][..], 0));
    for cut in 0..tensors.len() {
        assert!(numbered_tensors(&tensors[..cut], &Limits::default()).is_err());
    }
}

#[test]
fn a_quantized_tensor_has_its_scale() {
    let bytes = b"ctorch._utils\n_rebuild_qtensor\n((Vstorage\nctorch\nQInt8Storage\nV0\nVcpu\nI2\ntQI0\n(I2\nt(I1\nt\
(ctorch\nper_tensor_affine\nF0.5\nI3\ntI00\nNtR.";
    let pickle = evaluate(bytes, &Limits::default());
    let Meaning::Quantized { quantizer, .. } = root(&pickle) else { panic!() };
    assert_eq!(quantizer, Quantizer::Tensor { scale: 0.5, zero_point: 3 });
}

/// Bytes whose long runs stay where they are.
#[derive(Debug)]
struct Far<'b>(&'b [u8]);

impl Stream<'static> for Far<'_> {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn peek(&mut self, at: u64, most: usize) -> io::Result<&[u8]> {
        let rest = self.0.get(usize::try_from(at).unwrap()..).unwrap_or_default();
        Ok(rest.get(..most).unwrap_or(rest))
    }

    fn take(&mut self, at: u64, length: usize) -> io::Result<Cow<'static, [u8]>> {
        Ok(Cow::Owned(self.peek(at, length)?.to_vec()))
    }

    fn near_bytes(&self) -> u64 {
        16
    }
}

#[test]
fn long_bytes_may_stay_where_they_are() {
    let bytes = [b"\x80\x03(C\x02abB\x20\0\0\0".as_slice(), &[7; 32], b"t."].concat();
    let pickle = evaluate_stream(Far(&bytes), 0, Dialect::Plain, &Limits::default());
    let Some(Value::Tuple(items)) = pickle.root() else { panic!("{:?}", pickle.error()) };
    assert_eq!(pickle.value(items[0]), Some(&Value::Bytes(Cow::Borrowed(b"ab"))));
    assert_eq!(pickle.value(items[1]), Some(&Value::Far(12..44)));
}
