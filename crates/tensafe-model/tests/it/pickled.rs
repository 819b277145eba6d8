//! What is found in checkpoints of other formats: names, values, and the bytes of tensors.

use std::fs;

use serde_json::json;
use tensafe_model::{ConvertOptions, ErrorKind, Pickled, PickledOptions, load, sidecar};

use crate::build::{
    Member, array, bytes_of, counting, dict, dtype, floats, go_on, gzip, legacy, loaded, memory, npy, open,
    open_with, refusal, stop, storage, tar, tensors, torch, torch_members, tuple, vector, walk, walk_with,
    zip, zlib,
};

fn names(bytes: impl AsRef<[u8]>) -> Vec<String> {
    open(bytes).unwrap().names().map(ToOwned::to_owned).collect()
}

fn one() -> Vec<u8> {
    counting(1, 1)
}

/// Under each key a tensor of its own: its place among the keys.
fn keyed(keys: &[&str]) -> Vec<u8> {
    let storages: Vec<(String, Vec<u8>)> = (0..keys.len())
        .map(|place| (place.to_string(), counting(u16::try_from(place).unwrap(), 1)))
        .collect();
    let entries: String = keys
        .iter()
        .enumerate()
        .map(|(place, key)| format!("{key}{}s", floats(&place.to_string(), 1)))
        .collect();
    let storages: Vec<(&str, &[u8])> =
        storages.iter().map(|(key, bytes)| (key.as_str(), bytes.as_slice())).collect();
    torch(format!("}}{entries}"), &storages)
}

#[test]
fn keys_become_names() {
    let keys =
        ["Va\n", "I7\n", "I01\n", "F1.5\n", "N", "(I1\nVx\n(tt", "ctorch\nfloat32\n", "cbuiltins\nint\n"];
    let needed = ["a", "7", "1", "1.5", "None", "(1, x, ())", "torch.float32", "builtins.int"];
    assert_eq!(names(keyed(&keys)), needed);
    let scalar = format!("cnumpy.core.multiarray\nscalar\n({}Vabcd\ntR", dtype("i4", '>'));
    assert_eq!(names(keyed(&[&scalar])), ["1633837924"]);
    assert_eq!(names(keyed(&["C\x01b"])), ["b"]);
}

#[test]
fn a_key_that_is_set_again_keeps_its_place_and_takes_the_last_value() {
    let found = tensors(keyed(&["Va\n", "Vb\n", "Va\n"]));
    assert_eq!(found, [("a".to_owned(), counting(2, 1)), ("b".to_owned(), counting(1, 1))]);
    // Python takes these for one key.
    assert_eq!(tensors(keyed(&["I1\n", "F1\n", "I01\n"])), [("1".to_owned(), counting(2, 1))]);
}

#[test]
fn keys_of_one_spelling_that_are_two_keys_are_refused() {
    let cases: [(&[&str], &str); 5] = [
        (&["Va\n", "C\x01a"], "a"),
        (&["I1\n", "V1\n"], "1"),
        (&["(I1\nt", "(V1\nt"], "(1)"),
        (&["(Va\nVb\nt", "(Va, b\nt"], "(a, b)"),
        (&["(Nt", "(VNone\nt"], "(None)"),
    ];
    for (keys, name) in cases {
        let needed = (ErrorKind::Format, format!("two tensors have the name `{name}`"));
        assert_eq!(refusal(open(keyed(keys))), needed);
    }
}

#[test]
fn items_are_numbered_and_the_whole_value_is_called_tensor() {
    let list = format!("(l{}a{}a", floats("0", 1), dict(&[("x", &floats("0", 1))]));
    assert_eq!(names(torch(list, &[("0", &one())])), ["0", "1.x"]);
    assert_eq!(names(torch(floats("0", 1), &[("0", &one())])), ["tensor"]);
    assert_eq!(names(torch(storage("FloatStorage", "0", 1), &[("0", &one())])), ["tensor"]);
}

#[test]
fn values_that_are_no_tensors_stand_in_the_sidecar() {
    let value = dict(&[
        ("model", &dict(&[("w", &floats("0", 1)), ("steps", "I3\n")])),
        ("lr", "F0.5\n"),
        ("nan", "Fnan\n"),
        ("big", "L123456789012345678901234567890L\n"),
        ("raw", "C\x02ab"),
        ("epoch", "(I1\nNI00\nt"),
        ("device", "ctorch\ndevice\n(Vcuda\nI1\ntR"),
    ]);
    let pickled = open(torch(value, &[("0", &one())])).unwrap();
    let needed = json!({
        "model": {"steps": 3},
        "lr": 0.5,
        "nan": "NaN",
        "big": "123456789012345678901234567890",
        "raw": {"hex": "6162"},
        "epoch": [1, null, false],
        "device": "cuda:1",
    });
    assert_eq!(sidecar(&pickled), needed);
    assert_eq!(pickled.names().collect::<Vec<_>>(), ["model.w"]);
}

#[test]
fn the_metadata_of_a_state_dict_is_ignored_and_other_attributes_are_kept() {
    let with = |state: &str| {
        let value = format!("ccollections\nOrderedDict\n)RVw\n{}s{state}b", floats("0", 1));
        open(torch(value, &[("0", &one())])).unwrap()
    };
    let pickled = with(&dict(&[("_metadata", &dict(&[("version", "I1\n")]))]));
    assert_eq!((pickled.names().count(), pickled.values().len()), (1, 0));
    let pickled = with(&dict(&[("note", "Vhello\n")]));
    assert_eq!(sidecar(&pickled), json!({"_attributes": {"note": "hello"}}));
    let pickled = with(&dict(&[("more", &floats("0", 1))]));
    assert_eq!(pickled.names().collect::<Vec<_>>(), ["w", "_attributes.more"]);
}

/// A module as `torch.save(model)` writes it.
fn module() -> String {
    let state = |parts: &str| format!("cnet\nNet\n)R{parts}b");
    let inner = state(&dict(&[
        ("training", "I01\n"),
        ("_parameters", &dict(&[("weight", &floats("0", 1)), ("bias", "N")])),
        ("_buffers", "}"),
        ("_modules", "}"),
    ]));
    state(&dict(&[
        ("_parameters", "}"),
        ("_buffers", &dict(&[("steps", &floats("1", 1))])),
        ("_modules", &dict(&[("fc", &inner)])),
    ]))
}

#[test]
fn a_module_that_was_pickled_whole_is_salvaged() {
    let bytes = torch(module(), &[("0", &one()), ("1", &one())]);
    assert_eq!(refusal(open(&bytes)).0, ErrorKind::Unsupported);
    let pickled = open_with(&bytes, &PickledOptions::default().with_salvage(true)).unwrap();
    let mut found: Vec<_> = pickled.names().collect();
    found.sort_unstable();
    assert_eq!(found, ["fc.weight", "steps"]);
    assert_eq!(pickled.notes().len(), 2, "{:?}", pickled.notes());
    let symbol = &pickled.symbols()[0];
    assert_eq!((&*symbol.symbol, symbol.known, &*symbol.member), ("net.Net", false, "m/data.pkl"));
}

#[test]
fn the_tree_of_a_torchscript_archive_is_read_and_its_code_is_not() {
    let inner = format!("c__torch__.Linear\nLinear\n)R{}b", dict(&[("weight", &floats("0", 1))]));
    let root = format!("c__torch__\nNet\n)R{}b", dict(&[("training", "I00\n"), ("fc", &inner)]));
    // Classes of TorchScript have a dot behind `__torch__`.
    let root = root.replace("c__torch__\n", "c__torch__.net\n");
    let mut members = torch_members(&stop(root), &[("0", &one())]);
    members.push(Member::stored("m/constants.pkl", b"(t."));
    members.push(Member::stored("m/code/__torch__/net.py", b"class Net: pass\n"));
    let pickled = open(zip(members)).unwrap();
    assert_eq!(pickled.names().collect::<Vec<_>>(), ["fc.weight"]);
    assert_eq!(pickled.notes(), ["the code of a TorchScript archive is left out"]);
}

#[test]
fn pickles_beside_the_checkpoint_are_judged_and_left_out() {
    let beside = |data: &[u8]| {
        let mut members = torch_members(&stop(dict(&[("w", &floats("0", 1))])), &[("0", &one())]);
        members.push(Member::stored("m/extra.pkl", data));
        zip(members)
    };
    let pickled = open(beside(b"}.")).unwrap();
    assert_eq!(pickled.notes(), ["member `m/extra.pkl` is left out"]);
    let (kind, text) = refusal(open(beside(b"cos\nsystem\n(Vid\ntR.")));
    assert_eq!((kind, text.contains("`os.system`")), (ErrorKind::Unsupported, true));
}

#[test]
fn numbers_of_the_other_byte_order_are_swapped() {
    let value = dict(&[
        ("f", &floats("0", 1)),
        ("z", &vector("ComplexFloatStorage", "1", 1)),
        ("b", &vector("ByteStorage", "2", 2)),
    ]);
    let complex = [1f32.to_be_bytes(), 2f32.to_be_bytes()].concat();
    let mut members =
        torch_members(&stop(value), &[("0", &1f32.to_be_bytes()), ("1", &complex), ("2", &[1, 2])]);
    members.push(Member::stored("m/byteorder", b"big"));
    let found = tensors(zip(members));
    let swapped = [1f32.to_le_bytes(), 2f32.to_le_bytes()].concat();
    assert_eq!(found.into_iter().map(|(_, bytes)| bytes).collect::<Vec<_>>(), [one(), swapped, vec![1, 2]]);
}

#[test]
fn signs_that_torch_notes_are_written() {
    let complex = storage("ComplexFloatStorage", "z", 1);
    let value = dict(&[
        ("conj", &walk_with(&complex, &[1], &[1], "conj")),
        ("neg", &walk_with(&complex, &[1], &[1], "neg")),
        ("ints", &walk_with(&storage("ShortStorage", "s", 4), &[4], &[1], "neg")),
    ]);
    let shorts = |numbers: &[i16]| bytes_of(numbers, |number| number.to_le_bytes());
    let floats = |numbers: &[f32]| bytes_of(numbers, |number| number.to_le_bytes());
    let bytes = torch(value, &[("z", &floats(&[1., 2.])), ("s", &shorts(&[1, -5, 0, 256]))]);
    let found: Vec<_> = tensors(bytes).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(found, [floats(&[1., -2.]), floats(&[-1., -2.]), shorts(&[-1, 5, 0, -256])]);
}

#[test]
fn legacy_files_have_views() {
    let view = "(Vstorage\nctorch\nFloatStorage\nVk\nVcpu\nI6\n(Vv\nI2\nI3\nttQ";
    let value = dict(&[
        ("all", &walk(&storage("FloatStorage", "k", 6), 0, &[2, 3], &[3, 1])),
        ("view", &walk(view, 1, &[2], &[1])),
        ("alone", view),
        ("turned", &walk(view, 0, &[3], &[1])),
    ]);
    let found = tensors(legacy(value, &[("k", 6, &counting(0, 6))]));
    let needed = [
        ("all", counting(0, 6)),
        ("view", counting(3, 2)),
        ("alone", counting(2, 3)),
        ("turned", counting(2, 3)),
    ];
    assert_eq!(found, needed.map(|(name, bytes)| (name.to_owned(), bytes)));
}

/// The tar of torch before 0.1.10, with a transposed matrix.
fn old_tar(pickle: &str, sys_info: &str) -> Vec<u8> {
    let mut storages = b"I1\n.(I7\nVcpu\nctorch\nFloatStorage\nt.".to_vec();
    storages.extend(6u64.to_le_bytes());
    storages.extend(counting(0, 6));
    let mut tensors = b"I1\n.(I9\nI7\nctorch\nFloatTensor\nt.".to_vec();
    for number in [2u64, 3, 2, 1, 3, 0] {
        tensors.extend(number.to_le_bytes());
    }
    tar(&[
        ("sys_info", sys_info.as_bytes()),
        ("pickle", &stop(pickle)),
        ("tensors", &tensors),
        ("storages", &storages),
    ])
}

#[test]
fn the_oldest_tar_archives_are_read() {
    let found = tensors(old_tar(&dict(&[("w", "I9\nQ"), ("lr", "F0.5\n")]), "}."));
    let turned: Vec<u8> = [0f32, 3., 1., 4., 2., 5.].iter().flat_map(|value| value.to_le_bytes()).collect();
    assert_eq!(found, [("w".to_owned(), turned)]);
    let refused = refusal(open(old_tar(&dict(&[("w", "I8\nQ")]), "}.")));
    assert_eq!(refused, (ErrorKind::Format, "`w`: refers to something outside of the file".to_owned()));
    let refused = refusal(open(old_tar(&dict(&[("w", "I9\nQ")]), "cos\nsystem\n(Vid\ntR.")));
    assert_eq!(refused.0, ErrorKind::Unsupported);
}

/// Bytes as Python 3 writes them in protocols before 3.
fn latin1(bytes: &[u8]) -> Vec<u8> {
    let mut text = String::new();
    for byte in bytes {
        match byte {
            b'\n' | b'\\' => text += &format!("\\u{byte:04x}"),
            byte if byte.is_ascii() => text.push(char::from(*byte)),
            byte => text += &format!("\\u{byte:04x}"),
        }
    }
    format!("c_codecs\nencode\n(V{text}\nVlatin1\ntR").into_bytes()
}

/// A storage as a pickle of Python's own `pickle` holds it: a torch file around it.
fn file_of(first: u16, bytes: impl Fn(&[u8]) -> Vec<u8>) -> Vec<u8> {
    let file = legacy(storage("FloatStorage", "k", 2), &[("k", 2, &counting(first, 2))]);
    [b"ctorch.storage\n_load_from_bytes\n(", &*bytes(&file), b"tR"].concat()
}

fn around(storages: &[Vec<u8>]) -> Vec<u8> {
    let mut out = b"}".to_vec();
    for (place, storage) in storages.iter().enumerate() {
        out.extend(format!("Vt{place}\nctorch._utils\n_rebuild_tensor_v2\n(").as_bytes());
        out.extend(storage);
        out.extend(b"I0\n(I2\nt(I1\ntI00\n}tRs");
    }
    out.extend(b".");
    out
}

#[test]
fn plain_pickles_hold_files_of_their_storages() {
    let binary = |file: &[u8]| [b"B", &u32::try_from(file.len()).unwrap().to_le_bytes()[..], file].concat();
    let needed = [("t0".to_owned(), counting(1, 2)), ("t1".to_owned(), counting(5, 2))];
    assert_eq!(tensors(around(&[file_of(1, binary), file_of(5, binary)])), needed);
    // Longer bytes stay where they are: the same answer.
    let long = |first: u16| {
        let file = legacy(storage("FloatStorage", "k", 4096), &[("k", 4096, &counting(first, 4096))]);
        [b"ctorch.storage\n_load_from_bytes\n(", &*binary(&file), b"tR"].concat()
    };
    let found = tensors(around(&[long(1), long(5)]));
    assert_eq!(found[1].1, counting(5, 2));
}

#[test]
fn bytes_that_are_spelled_as_text_are_each_their_own() {
    let files: Vec<_> = (0..16).map(|place| file_of(place * 10, latin1)).collect();
    for (place, (name, bytes)) in tensors(around(&files)).into_iter().enumerate() {
        assert_eq!(bytes, counting(u16::try_from(place).unwrap() * 10, 2), "{name}");
    }
}

#[test]
fn a_file_within_a_pickle_is_judged_as_one() {
    let wrap = |file: &[u8]| {
        let bytes = [b"B", &u32::try_from(file.len()).unwrap().to_le_bytes()[..], file].concat();
        around(&[[b"ctorch.storage\n_load_from_bytes\n(", &*bytes, b"tR"].concat()])
    };
    let file = legacy(storage("FloatStorage", "k", 2), &[("k", 2, &counting(0, 2))]);
    let refused = refusal(open(wrap(&[&file[..], b"x"].concat())));
    let text = format!("1 bytes at offset {} are no part of the checkpoint", file.len());
    assert_eq!(refused, (ErrorKind::Format, text));
    let evil =
        legacy(format!("({}cos\nsystem\n(Vid\ntRt", storage("FloatStorage", "k", 2)), &[("k", 2, &[0; 8])]);
    let (kind, text) = refusal(open(wrap(&evil)));
    assert_eq!((kind, text.contains("`os.system`")), (ErrorKind::Unsupported, true));
    assert_eq!(refusal(open(wrap(&file[..40]))).0, ErrorKind::Format);
}

#[test]
fn arrays_of_numpy_are_read_in_either_order() {
    let data = "Vabcdefghijkl\n";
    let value = dict(&[
        ("c", &array(&dtype("i2", '<'), &[3, 2], false, data)),
        ("f", &array(&dtype("i2", '<'), &[3, 2], true, data)),
        ("big", &array(&dtype("i2", '>'), &[3, 2], false, data)),
    ]);
    let found: Vec<_> = tensors(stop(value)).into_iter().map(|(_, bytes)| bytes).collect();
    assert_eq!(found, [b"abcdefghijkl", b"abghcdijefkl", b"badcfehgjilk"]);
}

#[test]
fn arrays_of_joblib_stand_behind_their_records() {
    let record = |padding: &str| {
        format!(
            "cjoblib.numpy_pickle\nNumpyArrayWrapper\n)R}}(Vdtype\n{}Vshape\n(I2\ntVorder\nVC\n{padding}ub",
            dtype("f4", '<')
        )
    };
    let aligned = record("Vnumpy_array_alignment_bytes\nI16\n");
    let bytes = [
        b"}Va\n",
        aligned.as_bytes(),
        b"\x02\xff\xff",
        &counting(1, 2),
        b"sVb\n",
        aligned.as_bytes(),
        b"\0",
        &counting(3, 2),
        b"s.",
    ]
    .concat();
    let needed = [("a".to_owned(), counting(1, 2)), ("b".to_owned(), counting(3, 2))];
    assert_eq!(tensors(&bytes), needed);
    assert_eq!(tensors(gzip(&bytes)), needed);
    assert_eq!(tensors(zlib(&bytes)), needed);
    let refused = refusal(open(&bytes[..bytes.len() - 8]));
    assert_eq!(refused.0, ErrorKind::Format);
}

#[test]
fn arrays_of_old_joblib_are_files_beside_it() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.pkl");
    let beside = "cjoblib.numpy_pickle\nNDArrayWrapper\n)R}Vfilename\nVmodel.pkl_01.npy\nsb";
    fs::write(&path, stop(dict(&[("a", beside)]))).unwrap();
    let missing = refusal(Pickled::open(&path, &PickledOptions::default()));
    assert_eq!(missing.0, ErrorKind::NotFound);
    fs::write(directory.path().join("model.pkl_01.npy"), npy("'<f4'", false, "(1,)", &one())).unwrap();
    assert_eq!(Pickled::open(&path, &PickledOptions::default()).unwrap().names().collect::<Vec<_>>(), ["a"]);
    let up = beside.replace("model.pkl_01", "../model.pkl_01");
    fs::write(&path, stop(dict(&[("a", &up)]))).unwrap();
    assert_eq!(refusal(Pickled::open(&path, &PickledOptions::default())).0, ErrorKind::Format);
}

#[test]
fn files_of_numpy_are_tensors() {
    assert_eq!(
        tensors(npy("'<f4'", false, "(2,)", &counting(1, 2))),
        [("tensor".to_owned(), counting(1, 2))]
    );
    let members = [
        Member::stored("a.npy", &npy("'<f4'", true, "(1,)", &counting(1, 1))),
        Member::deflated("b.c.npy", &npy("'>f4'", false, "(1,)", &2f32.to_be_bytes())),
    ];
    assert_eq!(tensors(zip(members)), [("a".to_owned(), counting(1, 1)), ("b.c".to_owned(), counting(2, 1))]);
    // One array is called by its name, too.
    let alone = zip([Member::stored("arr_0.npy", &npy("'<f4'", false, "()", &one()))]);
    assert_eq!(tensors(alone), [("arr_0".to_owned(), one())]);
}

#[test]
fn archives_of_checkpoints_are_read_and_names_lead_through_them() {
    let inner = torch(dict(&[("w", &floats("0", 1))]), &[("0", &one())]);
    assert_eq!(names(gzip(&inner)), ["w"]);
    assert_eq!(names(gzip(&zlib(&inner))), ["w"]);
    assert_eq!(names(zip([Member::stored("model.pt", &inner)])), ["w"]);
    let both = [Member::stored("x/model.pt", &inner), Member::deflated("y.pth", &inner)];
    assert_eq!(names(zip(both)), ["x/model.w", "y.w"]);
    assert_eq!(names(tar(&[("one.pt", &inner), ("two.pkl", b"}.")])), ["one.w"]);
    let pickled = open(gzip(&zip([Member::stored("model.pt", &inner)]))).unwrap();
    assert_eq!(pickled.symbols()[0].member, "model.pt!m/data.pkl");
}

/// A safetensors file of `F32` vectors.
fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn files_of_safetensors_are_read_as_they_are() {
    let header = r#"{"a":{"dtype":"F32","shape":[1,2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}}"#;
    let found = tensors(safetensors(header, &counting(1, 3)));
    assert_eq!(found, [("a".to_owned(), counting(1, 2)), ("b".to_owned(), counting(3, 1))]);
    let header = r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"b":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}"#;
    let bytes = safetensors(header, &[1, 2]);
    let text = "`a`: an array of F4 is no tensor; `salvage` leaves it out";
    assert_eq!(refusal(open(&bytes)), (ErrorKind::Unsupported, text.to_owned()));
    let pickled = open_with(&bytes, &PickledOptions::default().with_salvage(true)).unwrap();
    assert_eq!((pickled.names().collect::<Vec<_>>(), pickled.notes().len()), (vec!["b"], 1));
}

#[test]
fn quantized_tensors_are_integers_with_their_scales() {
    let quantizer = "(ctorch\nper_tensor_affine\nF0.5\nI3\nt";
    let value = format!(
        "ctorch._utils\n_rebuild_qtensor\n({}I0\n{}{}{quantizer}I00\nNtR",
        storage("QInt8Storage", "0", 2),
        tuple(&[2]),
        tuple(&[1]),
    );
    let all = loaded(torch(dict(&[("q", &value)]), &[("0", &[5, 255])]), &ConvertOptions::default()).unwrap();
    let found: Vec<_> =
        all.iter().map(|(tensor, bytes)| (&*tensor.name, tensor.dtype.name(), &bytes[..])).collect();
    let (scale, zero) = (0.5f64.to_le_bytes(), 3i64.to_le_bytes());
    assert_eq!(
        found,
        [("q", "I8", &[5, 255][..]), ("q.scale", "F64", &scale), ("q.zero_point", "I64", &zero)]
    );
    let channels = format!(
        "(ctorch\nper_channel_affine\n{}{}I1\nt",
        vector("DoubleStorage", "s", 1),
        vector("LongStorage", "z", 1)
    );
    let value = value.replace(quantizer, &channels);
    let all = tensors(torch(dict(&[("q", &value)]), &[("0", &[5, 255]), ("s", &scale), ("z", &zero)]));
    let found: Vec<_> = all.iter().map(|(name, _)| &**name).collect();
    assert_eq!(found, ["q", "q.axis", "q.scale", "q.zero_point"]);
    assert_eq!(all[1].1, 1i64.to_le_bytes());
}

#[test]
fn directories_and_indices_are_read() {
    let directory = tempfile::tempdir().unwrap();
    let put = |name: &str, tensor: &str| {
        let bytes = torch(dict(&[(tensor, &floats("0", 1))]), &[("0", &one())]);
        fs::write(directory.path().join(name), bytes).unwrap();
    };
    let found = || {
        let pickled = Pickled::open(directory.path(), &PickledOptions::default())?;
        Ok(pickled.names().map(ToOwned::to_owned).collect::<Vec<_>>())
    };
    put("b.pth", "b");
    put("a.pt", "a");
    fs::write(directory.path().join("notes.txt"), "x").unwrap();
    assert_eq!(found().unwrap(), ["a", "b"]);
    put("c.bin", "a");
    assert_eq!(
        refusal(found()),
        (ErrorKind::Format, format!("{}: two tensors have the name `a`", directory.path().display()))
    );
    put("pytorch_model.bin", "whole");
    assert_eq!(found().unwrap(), ["whole"]);
    put("pytorch_model-00001-of-00002.bin", "x");
    put("pytorch_model-00002-of-00002.bin", "y");
    let index = directory.path().join("pytorch_model.bin.index.json");
    let map =
        r#"{"weight_map":{"x":"pytorch_model-00001-of-00002.bin","y":"pytorch_model-00002-of-00002.bin"}}"#;
    fs::write(&index, map).unwrap();
    assert_eq!(found().unwrap(), ["x", "y"]);
    fs::write(&index, map.replace("\"y\"", "\"z\"")).unwrap();
    let (kind, text) = refusal(found());
    assert_eq!(kind, ErrorKind::Format);
    assert!(text.starts_with("tensor `z`: the index places it in "), "{text}");
    fs::write(&index, map.replace("00002-of", "00003-of")).unwrap();
    assert_eq!(refusal(found()).0, ErrorKind::NotFound);
    fs::write(&index, "{").unwrap();
    assert_eq!(refusal(found()).0, ErrorKind::Format);
}

#[test]
fn a_source_has_the_same_checkpoint_as_a_file() {
    let bytes = torch(dict(&[("w", &floats("0", 1))]), &[("0", &one())]);
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("x.bin");
    fs::write(&path, &bytes).unwrap();
    let file = Pickled::open(&path, &PickledOptions::default()).unwrap();
    let source = Pickled::from_source(memory(&bytes), &PickledOptions::default()).unwrap();
    assert_eq!(file.names().collect::<Vec<_>>(), source.names().collect::<Vec<_>>());
    assert_eq!((file.path(), source.path()), (Some(&*path), None));
}

/// What joblib 0.9.4 wrote for `{"c": …, "f": …}` with compression and arrays in files of their own.
const JOBLIB_0_9_COMPRESSED: [(&str, &str); 3] = [
    (
        "s.pkl",
        "5a4630783136392020202020202020202020202020785e65ce3b4fc33014056027a1d01a28e5fd7e6d6189003130202404139632742162a9ec34c569d3e0933a43902ac1400bbf1a92100684074bbed63de77bb5c620b66710427c187eff5944a170e274a8b28e0afd4114d047f7ee264978f69070a58284c23c7943be36637bf57cad174641cc87016a5e337f8e1c35883aa7674eac32e705b35ead186aae03ccd9cc6026b326a8fb6503edea4c05140dcf2c822e401961c614f36d2cd8cc2a55d758745df7fe2b3fe5c58846537c6a2c798dfc3b8c43dde1c9d308ad2a33eef2424bb1ccc83b566e0d81d529d65251c6f5b02e0bffc6189bb6fc433eafc85bb2829a136ccbca76899d1fdb6e1b7bbfb62becffb31d880f8d43d99265fd91ccbb8f53913adf37b16d92",
    ),
    (
        "s.pkl_01.npy.z",
        "5a4630783138202020202020202020202020202020785e63606060b06f60607000d20e40c201c45ec0c0000020a40320",
    ),
    ("s.pkl_02.npy.z", "5a4630783230202020202020202020202020202020785e636040010e10de077b08cde10000104701b8"),
];

#[test]
fn arrays_that_joblib_compressed_into_files_of_their_own_are_read() {
    let directory = tempfile::tempdir().unwrap();
    for (name, hex) in JOBLIB_0_9_COMPRESSED {
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        fs::write(directory.path().join(name), bytes).unwrap();
    }
    let path = directory.path().join("s.pkl");
    let pickled = Pickled::open(&path, &PickledOptions::default()).unwrap();
    let loaded = load(pickled, &ConvertOptions::default(), &mut go_on()).unwrap();
    let c: Vec<u8> = (0u8..6).flat_map(|n| f32::from(n).to_le_bytes()).collect();
    let f: Vec<u8> = (0u8..4).flat_map(|n| f64::from(n).to_le_bytes()).collect();
    let mut found: Vec<_> = loaded.iter().map(|(tensor, bytes)| (&*tensor.name, bytes.to_vec())).collect();
    found.sort();
    assert_eq!(found, [("c", c), ("f", f)]);
    // A file that is another length than the record says, and one that is not there.
    fs::write(
        directory.path().join("s.pkl_01.npy.z"),
        fs::read(directory.path().join("s.pkl_02.npy.z")).unwrap(),
    )
    .unwrap();
    assert!(
        Pickled::open(&path, &PickledOptions::default()).unwrap_err().to_string().contains("the pickle says")
    );
    fs::remove_file(directory.path().join("s.pkl_02.npy.z")).unwrap();
    assert!(Pickled::open(&path, &PickledOptions::default()).is_err());
}

#[test]
fn scales_of_channels_may_be_lists_of_numbers() {
    let value = format!(
        "ctorch._utils\n_rebuild_qtensor\n({}I0\n(I2\nI2\nt(I2\nI1\nt(ctorch\nper_channel_affine\n(lF0.5\naF2\na(lI1\naI-3\naI0\ntI00\nNtR",
        storage("QInt8Storage", "0", 4)
    );
    let bytes = torch(dict(&[("q", &value)]), &[("0", &[1, 2, 3, 4])]);
    let found: Vec<_> = tensors(bytes);
    let numbers = |values: [f64; 2]| values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    let zeros = [1i64, -3].iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>();
    assert_eq!(
        found,
        [
            ("q".to_owned(), vec![1, 2, 3, 4]),
            ("q.axis".to_owned(), 0i64.to_le_bytes().to_vec()),
            ("q.scale".to_owned(), numbers([0.5, 2.0])),
            ("q.zero_point".to_owned(), zeros),
        ]
    );
}
