//! What a conversion writes: names, dtypes, shards, aliases, and the report.

use std::{collections::BTreeMap, fs, path::Path};

use serde_json::json;
use tensafe_format::{Dtype, ShardIndex};
use tensafe_model::{
    Conversion, ConvertOptions, Error, ErrorKind, Pickled, PickledOptions, REPORT_SCHEMA, convert, parse_size,
};

use crate::build::{
    bytes_of, counting, dict, floats, go_on, legacy, listing, loaded, open, read, refusal, stop, storage,
    torch, typed, vector, walk,
};

/// `a`, `b` and `c` are one tensor, `d` is a row of it.
fn tied() -> Vec<u8> {
    let all = walk(&storage("FloatStorage", "0", 6), 0, &[2, 3], &[3, 1]);
    let row = walk(&storage("FloatStorage", "0", 6), 3, &[3], &[1]);
    torch(dict(&[("c", &all), ("a", &all), ("d", &row), ("b", &all)]), &[("0", &counting(0, 6))])
}

fn written(bytes: &[u8], options: &ConvertOptions) -> Result<(Conversion, tempfile::TempDir), Error> {
    let directory = tempfile::tempdir().unwrap();
    let output = directory.path().join("out.safetensors");
    let conversion = Conversion::plan(open(bytes)?, &output, options)?;
    conversion.write(&mut go_on())?;
    Ok((conversion, directory))
}

fn quick() -> ConvertOptions {
    let mut options = ConvertOptions::default();
    options.durable = false;
    options
}

fn strings<const N: usize>(entries: [(&str, &str); N]) -> BTreeMap<String, String> {
    entries.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn the_name_that_sorts_first_owns_a_shared_tensor() {
    let (conversion, directory) = written(&tied(), &quick()).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a", "d"]);
    assert_eq!(file.tensors["a"], ("F32".to_owned(), vec![2, 3], counting(0, 6)));
    assert_eq!(file.tensors["d"], ("F32".to_owned(), vec![3], counting(3, 3)));
    assert_eq!(file.metadata, strings([("b", "a"), ("c", "a"), ("format", "pt")]));
    assert_eq!(conversion.tensors()[0].aliases, ["b", "c"]);
    assert_eq!(listing(directory.path()), ["out.safetensors"]);
}

#[test]
fn duplicates_are_written_on_request() {
    let mut options = quick();
    options.duplicate = true;
    let (conversion, directory) = written(&tied(), &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a", "b", "c", "d"]);
    assert_eq!(file.tensors["a"], file.tensors["c"]);
    assert_eq!(file.metadata, strings([("format", "pt")]));
    assert!(conversion.aliases().is_empty());
}

#[test]
fn an_owner_that_is_not_selected_owns_nothing() {
    let mut options = quick();
    options.exclude.push("a".into());
    let (conversion, directory) = written(&tied(), &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["b", "d"]);
    assert_eq!(file.metadata, strings([("c", "b"), ("format", "pt")]));
    assert_eq!(conversion.left_out(), ["a"]);
}

#[test]
fn views_that_differ_in_anything_are_tensors_of_their_own() {
    let six = storage("FloatStorage", "0", 6);
    let ints = storage("IntStorage", "0", 6);
    let value = dict(&[
        ("a", &walk(&six, 0, &[2, 3], &[3, 1])),
        ("b", &walk(&six, 0, &[6], &[1])),
        ("c", &walk(&six, 0, &[2, 3], &[1, 2])),
        ("d", &walk(&six, 1, &[5], &[1])),
        ("e", &walk(&ints, 0, &[6], &[1])),
        ("none", &walk(&six, 0, &[0], &[1])),
        ("nothing", &walk(&six, 0, &[0], &[1])),
    ]);
    let (conversion, _directory) = written(&torch(value, &[("0", &counting(0, 6))]), &quick()).unwrap();
    assert!(conversion.aliases().is_empty());
    assert_eq!(conversion.tensors().len(), 7);
}

#[test]
fn names_are_selected_excluded_and_renamed() {
    let value = dict(&[
        ("model.a.weight", &floats("0", 1)),
        ("model.b.weight", &floats("1", 1)),
        ("model.b.bias", &floats("2", 1)),
        ("step", &floats("3", 1)),
    ]);
    let storages: Vec<Vec<u8>> = (0..4).map(|first| counting(first, 1)).collect();
    let storages = [("0", &*storages[0]), ("1", &*storages[1]), ("2", &*storages[2]), ("3", &*storages[3])];
    let bytes = torch(value, &storages);
    let mut options = quick();
    options.select = vec!["model.*".into(), "nobody".into()];
    options.exclude = vec!["*.bia?".into()];
    options.rename = vec![(r"^model\.".into(), String::new()), (r"(\w)\.weight$".into(), "$1.w".into())];
    let (conversion, directory) = written(&bytes, &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a.w", "b.w"]);
    assert_eq!(file.tensors["b.w"].2, counting(1, 1));
    assert_eq!(conversion.left_out(), ["model.b.bias", "step"]);
    assert_eq!(conversion.tensors()[0].found, "model.a.weight");
    options.select = vec!["nobody".into()];
    let text = "no tensor in it, or none that is selected";
    assert_eq!(refusal(written(&bytes, &options).map(drop)), (ErrorKind::NotFound, text.to_owned()));
}

#[test]
fn names_that_meet_after_renaming_are_refused() {
    let to = |from: &str| {
        let mut options = quick();
        options.rename = vec![(from.into(), "x".into())];
        refusal(written(&tied(), &options).map(drop))
    };
    let needed = (ErrorKind::Format, "two tensors have the name `x`".to_owned());
    // Two tensors, an alias and its owner, an alias and another tensor, two aliases.
    for from in ["^[ad]$", "^[ab]$", "^[bd]$", "^[bc]$"] {
        assert_eq!(to(from), needed, "{from}");
    }
}

#[test]
fn aliases_are_renamed_as_tensors_are() {
    let mut options = quick();
    options.rename = vec![("^".into(), "m.".into())];
    let (_, directory) = written(&tied(), &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.metadata, strings([("format", "pt"), ("m.b", "m.a"), ("m.c", "m.a")]));
    let all = loaded(tied(), &options).unwrap();
    let names: Vec<_> = all.iter().map(|(tensor, _)| (&*tensor.name, &*tensor.found)).collect();
    assert_eq!(names, [("m.c", "c"), ("m.a", "a"), ("m.d", "d"), ("m.b", "b")]);
    assert!(all.iter().all(|(tensor, bytes)| tensor.bytes == bytes.len() as u64));
}

#[test]
fn options_that_make_no_sense_are_refused() {
    let with = |change: &dyn Fn(&mut ConvertOptions)| {
        let mut options = quick();
        change(&mut options);
        refusal(written(&tied(), &options).map(drop))
    };
    let (kind, text) = with(&|options| options.select.push("a[".into()));
    assert_eq!(
        (kind, text.starts_with("`a[` is not a pattern of names: ")),
        (ErrorKind::Usage, true),
        "{text}"
    );
    let (kind, text) = with(&|options| options.rename.push(("(".into(), String::new())));
    assert_eq!(
        (kind, text.starts_with("`(` is not a regular expression: ")),
        (ErrorKind::Usage, true),
        "{text}"
    );
    let text = "`I8` is not a dtype to cast to: needed F64, F32, F16 or BF16";
    assert_eq!(with(&|options| options.dtype = Some(Dtype::I8)), (ErrorKind::Usage, text.to_owned()));
}

#[test]
fn sizes_are_read_as_the_hub_writes_them() {
    for (text, bytes) in
        [("5GB", 5_000_000_000), ("512MiB", 512 << 20), (" 7 kb ", 7000), ("12", 12), ("1TiB", 1 << 40)]
    {
        assert_eq!(parse_size(text).unwrap(), bytes);
    }
    for text in ["", "GB", "0", "-1", "1.5GB", "5 GiBs", "99999999999999999999", "99999999999TB"] {
        let needed =
            format!("`{text}` is not a size: needed a number with B, KB, MB, GB, TB, KiB, MiB, GiB or TiB");
        assert_eq!(refusal(parse_size(text)), (ErrorKind::Usage, needed));
    }
}

#[test]
fn shards_have_the_names_and_the_index_of_the_hub() {
    let value = dict(&[
        ("z", &floats("0", 1)),
        ("big", &floats("1", 9)),
        ("a", &floats("2", 2)),
        ("m", &floats("3", 3)),
        ("y", &floats("0", 1)),
    ]);
    let storages =
        [("0", counting(0, 1)), ("1", counting(10, 9)), ("2", counting(20, 2)), ("3", counting(30, 3))];
    let storages: Vec<(&str, &[u8])> = storages.iter().map(|(key, bytes)| (*key, bytes.as_slice())).collect();
    let mut options = quick();
    options.max_shard_bytes = Some(16);
    options.metadata = strings([("author", "me")]);
    let (conversion, directory) = written(&torch(value, &storages), &options).unwrap();
    let names = [
        "out-00001-of-00003.safetensors",
        "out-00002-of-00003.safetensors",
        "out-00003-of-00003.safetensors",
        "out.safetensors.index.json",
    ];
    assert_eq!(listing(directory.path()), names);
    // The one that is too large stands alone; in order of the checkpoint the others fill shards.
    let held: Vec<Vec<String>> = names[..3]
        .iter()
        .map(|name| {
            let file = read(&directory.path().join(name));
            assert_eq!(file.metadata, strings([("format", "pt")]));
            file.tensors.into_keys().collect()
        })
        .collect();
    assert_eq!(held, [vec!["big"], vec!["a"], vec!["m", "y"]]);
    let text = fs::read_to_string(directory.path().join(names[3])).unwrap();
    let index = ShardIndex::parse(text.as_bytes()).unwrap();
    assert_eq!(
        (index.total_size, conversion.index()),
        (Some(4 * 15), Some(&*directory.path().join(names[3])))
    );
    let json: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(json["metadata"], json!({"author": "me", "total_size": 60, "z": "y"}));
    let map: Vec<_> = index.weight_map.iter().map(|(name, file)| (&**name, &**file)).collect();
    assert_eq!(map, [("a", names[1]), ("big", names[0]), ("m", names[2]), ("y", names[2])]);
    let map_text = text.split("weight_map").nth(1).unwrap();
    let places: Vec<_> =
        ["\"a\"", "\"big\"", "\"m\"", "\"y\""].iter().map(|name| map_text.find(name)).collect();
    assert!(places.is_sorted(), "{text}");
    // The shards are one model.
    let model = tensafe_model::Checkpoint::open(directory.path(), &tensafe_model::OpenOptions::default());
    assert_eq!(model.unwrap().len(), 4);
}

#[test]
fn what_fits_one_shard_has_the_plain_name() {
    let mut options = quick();
    options.max_shard_bytes = Some(1 << 20);
    let (conversion, directory) = written(&tied(), &options).unwrap();
    assert_eq!(listing(directory.path()), ["out.safetensors"]);
    assert_eq!((conversion.index(), conversion.files().len()), (None, 1));
    let bytes = fs::metadata(directory.path().join("out.safetensors")).unwrap().len();
    assert_eq!(conversion.bytes(), bytes);
}

#[test]
fn floats_are_cast_and_nothing_else_is() {
    let value = dict(&[
        ("f", &floats("0", 2)),
        ("i", &vector("LongStorage", "1", 1)),
        ("t", &walk(&storage("FloatStorage", "0", 2), 1, &[2], &[-1])),
    ]);
    let bytes = torch(value, &[("0", &counting(1, 2)), ("1", &[9; 8])]);
    for (dtype, name, cast) in [
        (Dtype::F16, "F16", vec![0, 0x3c, 0, 0x40]),
        (Dtype::BF16, "BF16", vec![0x80, 0x3f, 0, 0x40]),
        (Dtype::F32, "F32", counting(1, 2)),
        (Dtype::F64, "F64", bytes_of(&[1f64, 2.], |value| value.to_le_bytes())),
    ] {
        let mut options = quick();
        options.dtype = Some(dtype);
        let (conversion, directory) = written(&bytes, &options).unwrap();
        let file = read(&directory.path().join("out.safetensors"));
        assert_eq!(file.tensors["f"], (name.to_owned(), vec![2], cast.clone()));
        let (low, high) = cast.split_at(cast.len() / 2);
        assert_eq!(file.tensors["t"].2, [high, low].concat());
        assert_eq!(file.tensors["i"], ("I64".to_owned(), vec![1], vec![9; 8]));
        assert_eq!(conversion.tensors()[0].element, "float32");
    }
}

#[test]
fn two_floats_of_four_bits_are_two_elements_of_the_last_dimension() {
    let bytes = storage("torch.storage.UntypedStorage", "0", 6);
    let value = dict(&[("a", &typed(&bytes, 0, &[2, 3], &[1, 2], "float4_e2m1fn_x2"))]);
    let (_, directory) = written(&torch(&value, &[("0", &[1, 2, 3, 4, 5, 6])]), &quick()).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors["a"], ("F4".to_owned(), vec![2, 6], vec![1, 3, 5, 2, 4, 6]));
    // Without a dimension there is none to count them.
    let value = dict(&[("a", &typed(&bytes, 0, &[], &[], "float4_e2m1fn_x2"))]);
    let refused = written(&torch(&value, &[("0", &[1, 2, 3, 4, 5, 6])]), &quick());
    let text = "`a`: safetensors has no dtype for torch.float4_e2m1fn_x2; `select` can leave it out";
    assert_eq!(refusal(refused.map(drop)), (ErrorKind::Unsupported, text.to_owned()));
}

#[test]
fn tensors_beyond_64_bits_are_refused() {
    let shape = [1 << 31, 1 << 31];
    let value = dict(&[("a", &walk(&storage("DoubleStorage", "0", 1), 0, &shape, &[0, 0]))]);
    let refused = written(&torch(&value, &[("0", &[0; 8])]), &quick());
    let text = "`a`: shape, strides and offset lead out of 64 bits or before the storage";
    assert_eq!(refusal(refused.map(drop)), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn every_dtype_of_the_format_is_written_under_its_name() {
    let cases = [
        ("bool", "BOOL", 1),
        ("uint8", "U8", 1),
        ("int8", "I8", 1),
        ("int16", "I16", 2),
        ("uint16", "U16", 2),
        ("float16", "F16", 2),
        ("bfloat16", "BF16", 2),
        ("int32", "I32", 4),
        ("uint32", "U32", 4),
        ("float32", "F32", 4),
        ("float64", "F64", 8),
        ("int64", "I64", 8),
        ("uint64", "U64", 8),
        ("complex64", "C64", 8),
        ("float8_e5m2", "F8_E5M2", 1),
        ("float8_e4m3fn", "F8_E4M3", 1),
        ("float8_e8m0fnu", "F8_E8M0", 1),
    ];
    for (torch_name, name, bytes) in cases {
        let storage = storage("torch.storage.UntypedStorage", "0", bytes);
        let value = dict(&[("a", &typed(&storage, 0, &[1], &[1], torch_name))]);
        let data = vec![1; usize::try_from(bytes).unwrap()];
        let (_, directory) = written(&torch(&value, &[("0", &data)]), &quick()).unwrap();
        let file = read(&directory.path().join("out.safetensors"));
        assert_eq!(file.tensors["a"], (name.to_owned(), vec![1], data));
    }
}

#[test]
fn metadata_tells_where_the_tensors_come_from() {
    let mut options = quick();
    options.metadata = strings([("author", "me"), ("format", "mlx")]);
    let (_, directory) = written(&tied(), &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.metadata, strings([("author", "me"), ("b", "a"), ("c", "a"), ("format", "mlx")]));
    let array = crate::build::npy("'<f4'", false, "(1,)", &counting(1, 1));
    let (_, directory) = written(&array, &quick()).unwrap();
    assert_eq!(read(&directory.path().join("out.safetensors")).metadata, strings([("format", "np")]));
}

#[test]
fn a_file_is_converted_into_a_directory_that_is_made() {
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("model.pt");
    fs::write(&input, tied()).unwrap();
    let output = format!("{}/new/deep/", directory.path().display());
    let conversion = convert(&input, &output, &ConvertOptions::default(), &mut go_on()).unwrap();
    assert_eq!(conversion.output(), Path::new(&output).join("model.safetensors"));
    assert_eq!(listing(Path::new(&output)), ["model.safetensors"]);
    // A directory that is there is one without a separator, too.
    let output = directory.path().join("new");
    convert(directory.path(), &output, &quick(), &mut go_on()).unwrap();
    assert_eq!(listing(&output), ["deep", "model.safetensors"]);
    let missing = convert(directory.path().join("none.pt"), &output, &quick(), &mut go_on());
    assert_eq!(refusal(missing.map(drop)).0, ErrorKind::NotFound);
}

#[test]
fn what_the_kernel_moves_is_what_a_reader_reads() {
    let count = 20_000;
    let of = |key: &str| storage("FloatStorage", key, 20_000);
    let value = dict(&[
        ("all", &walk(&of("0"), 0, &[count], &[1])),
        ("part", &walk(&of("1"), 100, &[150, 100], &[100, 1])),
        ("turned", &walk(&of("1"), 0, &[100, 200], &[1, 100])),
    ]);
    let data = [counting(0, 20_000), counting(20_000, 20_000)];
    let bytes = torch(value, &[("0", &data[0]), ("1", &data[1])]);
    let directory = tempfile::tempdir().unwrap();
    let (input, output) = (directory.path().join("model.pt"), directory.path().join("out.safetensors"));
    for bytes in [bytes.clone(), crate::build::gzip(&bytes)] {
        fs::write(&input, &bytes).unwrap();
        let mut options = quick();
        options.overwrite = true;
        convert(&input, &output, &options, &mut go_on()).unwrap();
        let file = read(&output);
        assert!(file.tensors["all"].2 == data[0]);
        assert!(file.tensors["part"].2 == data[1][400..60_400]);
        for (tensor, loaded) in loaded(&bytes, &options).unwrap() {
            assert!(file.tensors[&tensor.name].2 == loaded, "{}", tensor.name);
        }
    }
}

#[test]
fn a_file_may_replace_what_it_was_made_of() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.bin");
    fs::write(&path, tied()).unwrap();
    let mut options = quick();
    options.overwrite = true;
    convert(&path, &path, &options, &mut go_on()).unwrap();
    assert_eq!(read(&path).tensors["a"].2, counting(0, 6));
    // And what is safetensors by now converts again: names are kept, the metadata of aliases is not.
    options.dtype = Some(Dtype::F16);
    convert(&path, &path, &options, &mut go_on()).unwrap();
    assert_eq!(read(&path).tensors["d"], ("F16".to_owned(), vec![3], vec![0, 0x42, 0, 0x44, 0, 0x45]));
}

#[test]
fn the_report_tells_everything() {
    let value =
        dict(&[("b", &floats("0", 1)), ("a", &floats("0", 1)), ("x", &floats("1", 1)), ("lr", "F0.5\n")]);
    let bytes = torch(value, &[("0", &counting(1, 1)), ("1", &counting(2, 1))]);
    let directory = tempfile::tempdir().unwrap();
    let input = directory.path().join("model.pt");
    fs::write(&input, bytes).unwrap();
    let output = directory.path().join("out.safetensors");
    let mut options = quick();
    options.exclude.push("x".into());
    options.rename.push(("^".into(), "m.".into()));
    let conversion = convert(&input, &output, &options, &mut go_on()).unwrap();
    let mut report = conversion.report();
    let symbols = report["symbols"].take();
    let bytes = fs::metadata(&output).unwrap().len();
    let needed = json!({
        "schema": REPORT_SCHEMA,
        "input": input.display().to_string(),
        "output": output.display().to_string(),
        "index": null,
        "bytes": bytes,
        "files": [{"path": output.display().to_string(), "bytes": bytes, "tensors": 1}],
        "tensors": [{
            "name": "m.a", "found_as": "a", "dtype": "F32", "found_dtype": "float32", "shape": [1], "bytes": 4,
            "aliases": ["b"],
        }],
        "aliases": {"m.b": "m.a"},
        "not_selected": ["x"],
        "dropped": [{"path": ["lr"], "value": 0.5}],
        "notes": [],
        "symbols": null,
    });
    assert_eq!(report, needed);
    let names: Vec<_> =
        symbols.as_array().unwrap().iter().map(|seen| seen["symbol"].as_str().unwrap()).collect();
    assert_eq!(names[..2], ["torch._utils._rebuild_tensor_v2", "torch.FloatStorage"]);
    assert_eq!(symbols[0]["member"], "m/data.pkl");
    assert!(symbols.as_array().unwrap().iter().all(|seen| seen["known"] == true));
}

#[test]
fn progress_counts_every_byte_once() {
    let value = dict(&[
        ("run", &walk(&storage("FloatStorage", "k", 6), 0, &[6], &[1])),
        ("turned", &walk(&storage("FloatStorage", "k", 6), 0, &[3, 2], &[1, 3])),
    ]);
    let bytes = legacy(value, &[("k", 6, &counting(0, 6))]);
    let directory = tempfile::tempdir().unwrap();
    let mut options = quick();
    options.dtype = Some(Dtype::F64);
    let conversion =
        Conversion::plan(open(bytes).unwrap(), &directory.path().join("out.safetensors"), &options).unwrap();
    let mut seen = Vec::new();
    let told = conversion.write(&mut |progress| {
        seen.push(progress.done);
        assert_eq!(progress.total, 96);
        std::ops::ControlFlow::Continue(())
    });
    told.unwrap();
    assert!(seen.is_sorted());
    assert_eq!(seen.last(), Some(&96));
}

#[test]
fn a_plain_pickle_without_tensors_has_values_alone() {
    let pickled =
        Pickled::from_source(crate::build::memory(stop("I7\n")), &PickledOptions::default()).unwrap();
    assert_eq!(tensafe_model::sidecar(&pickled), json!(7));
}

#[test]
fn a_name_that_means_something_else_in_the_metadata_is_written_as_a_copy() {
    let all = walk(&storage("FloatStorage", "0", 6), 0, &[2, 3], &[3, 1]);
    let bytes = torch(dict(&[("a", &all), ("format", &all), ("mine", &all)]), &[("0", &counting(0, 6))]);
    let mut options = quick();
    options.metadata = strings([("mine", "text")]);
    let (_, directory) = written(&bytes, &options).unwrap();
    let file = read(&directory.path().join("out.safetensors"));
    assert_eq!(file.tensors.keys().collect::<Vec<_>>(), ["a", "format", "mine"]);
    assert_eq!(file.metadata, strings([("format", "pt"), ("mine", "text")]));
}

#[test]
fn a_safetensors_file_keeps_its_metadata() {
    let (_, first) = {
        let mut options = quick();
        options.metadata = strings([("note", "kept"), ("format", "np")]);
        written(&tied(), &options).unwrap()
    };
    let bytes = fs::read(first.path().join("out.safetensors")).unwrap();
    let mut options = quick();
    options.metadata = strings([("more", "text")]);
    let (_, second) = written(&bytes, &options).unwrap();
    let file = read(&second.path().join("out.safetensors"));
    let expected = strings([("b", "a"), ("c", "a"), ("format", "np"), ("more", "text"), ("note", "kept")]);
    assert_eq!(file.metadata, expected);
}
