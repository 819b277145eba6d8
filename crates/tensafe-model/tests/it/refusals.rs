//! Every reason for which a checkpoint is refused, met by bytes, with its words.

use std::fs;

use tensafe_model::{Conversion, ConvertOptions, ErrorKind, Pickled, PickledOptions};

use crate::build::{
    Member, array, dict, dtype, floats, legacy, loaded, npy, open, open_with, refusal, stop, storage, tar,
    torch, torch_members, typed, vector, walk, zip,
};

fn assert_refused(bytes: impl AsRef<[u8]>, kind: ErrorKind, text: &str) {
    assert_eq!(refusal(open(bytes)), (kind, text.to_owned()));
}

fn salvage() -> PickledOptions {
    PickledOptions::default().with_salvage(true)
}

#[test]
fn files_of_other_formats_are_named() {
    let text = |name| format!("found {name}, which is not read as a checkpoint");
    assert_refused(b"GGUF\x03\0\0\0", ErrorKind::Unsupported, &text("gguf"));
    assert_refused(b"\x89HDF\r\n\x1a\n....", ErrorKind::Unsupported, &text("hdf5"));
    assert_refused(b"7z\xbc\xaf\x27\x1c", ErrorKind::Unsupported, &text("7z"));
    assert_refused(b"", ErrorKind::Unsupported, &text("empty"));
}

#[test]
fn a_pickle_that_breaks_off_says_where() {
    let text = "the pickle cannot be followed: at byte 3: the pickle ends, needed an instruction";
    assert_refused(b"(dN", ErrorKind::Format, text);
    let text = "the pickle cannot be followed: EXT1 at byte 2: a number of the extension registry stands for \
                a name that the pickle does not tell";
    assert_refused(b"\x80\x02\x82\x01.", ErrorKind::Unsupported, text);
    let mut options = PickledOptions::default();
    options.limits = options.limits.with_operations(2);
    let text =
        "the pickle cannot be followed: STOP at byte 2: more than 2 instructions; `Limits` can raise it";
    assert_eq!(refusal(open_with(b"(d.", &options)), (ErrorKind::Limit, text.to_owned()));
}

#[test]
fn names_are_told_before_the_pickle_breaks_off() {
    let (kind, text) = refusal(open(b"cos\nsystem\n(Vid\ntR"));
    assert_eq!(kind, ErrorKind::Unsupported);
    assert!(text.starts_with("the pickle names what is not known to be harmless: `os.system`;"), "{text}");
    let (kind, text) = refusal(open_with(b"cos\nsystem\n(Vid\ntR", &salvage()));
    assert_eq!((kind, text.contains("cannot be followed")), (ErrorKind::Format, true));
}

#[test]
fn values_below_the_last_are_refused() {
    let text = "the pickle leaves 1 values on the stack, no writer leaves any";
    assert_refused(b"NN.", ErrorKind::Format, text);
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let text = "3 bytes at offset 2 are no part of the checkpoint";
    assert_refused(b"N.xyz", ErrorKind::Format, text);
    let whole = legacy(dict(&[("a", &floats("k", 1))]), &[("k", 1, &[0; 4])]);
    let text = format!("1 bytes at offset {} are no part of the checkpoint", whole.len());
    assert_refused([&whole[..], b"x"].concat(), ErrorKind::Format, &text);
    let whole = npy("'<f4'", false, "(1,)", &[0; 4]);
    let text = format!("2 bytes at offset {} are no part of the checkpoint", whole.len());
    assert_refused([&whole[..], b"xx"].concat(), ErrorKind::Format, &text);
    assert_refused(
        zip(torch_members(b"N.\0", &[])),
        ErrorKind::Format,
        "1 bytes at offset 2 are no part of the checkpoint",
    );
}

#[test]
fn unknown_names_are_listed_and_the_rest_is_counted() {
    let text = "the pickle names what is not known to be harmless: `os.system`; `salvage` takes the \
                tensors beside it and leaves that out";
    assert_refused(b"cos\nsystem\n(Vid\ntR.", ErrorKind::Unsupported, text);
    let many: String = (0..10).map(|number| format!("ca\nf{number}\n0")).collect();
    let text = "the pickle names what is not known to be harmless: `a.f0`, `a.f1`, `a.f2`, `a.f3`, `a.f4`, \
                `a.f5`, `a.f6`, `a.f7` and 2 more; `salvage` takes the tensors beside it and leaves that out";
    assert_refused(stop(format!("{many}N")), ErrorKind::Unsupported, text);
}

#[test]
fn a_known_name_with_arguments_of_no_writer_is_refused() {
    let bytes = stop(dict(&[("a", &walk("N", 0, &[1], &[1]))]));
    let text = "`a`: `torch._utils._rebuild_tensor_v2`: storage: found None, needed a storage";
    assert_refused(bytes, ErrorKind::Format, text);
    let text = "the value: `torch._utils._rebuild_tensor_v2`: storage: found None, needed a storage";
    assert_refused(stop(walk("N", 0, &[1], &[1])), ErrorKind::Format, text);
}

#[test]
fn what_would_change_a_tensor_after_it_was_made_is_refused() {
    let file = |value: &str| torch(dict(&[("a", value)]), &[("0", &[0; 8]), ("1", &[1; 8])]);
    let (made, other) = (floats("0", 2), storage("FloatStorage", "1", 2));
    assert!(open(file(&made)).is_ok());
    let parameter = format!("ctorch._utils\n_rebuild_parameter\n({made}I00\n}}tR");
    let numbers = array(&dtype("f4", '<'), &[2], false, "Vabcdefgh\n");
    let elsewhere = format!("({other}I0\n(I2\nt(I1\nttb");
    let data = format!("({}NNI00\nNtb", floats("1", 2));
    let (tensor, parameters) = ("torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter");
    let reconstruct = "numpy.core.multiarray._reconstruct";
    for (value, name, text) in [
        (format!("{made}{elsewhere}"), tensor, "state: found a tuple, needed none"),
        (format!("{made}{data}"), tensor, "state: found a tuple, needed none"),
        (format!("{parameter}{elsewhere}"), parameters, "state: found a tuple, needed none"),
        (format!("{made}I0\nF9.0\ns"), tensor, "entries: found 1 more, needed none"),
        (format!("{made}(I0\nF9.0\nI1\nF9.0\nu"), tensor, "entries: found 2 more, needed none"),
        (format!("{numbers}I0\nF9.0\ns"), reconstruct, "entries: found 1 more, needed none"),
        (format!("{numbers}(I1\n(I2\ntNI00\nNtb"), reconstruct, "state: found a tuple, needed one"),
    ] {
        assert_refused(file(&value), ErrorKind::Format, &format!("`a`: `{name}`: {text}"));
        assert_eq!(refusal(open_with(file(&value), &salvage())).0, ErrorKind::Format);
    }
}

#[test]
fn a_deque_is_written_with_the_items_that_it_keeps() {
    let items = format!("ccollections\ndeque\n((l{}a{}aI1\ntR", floats("0", 1), floats("1", 1));
    let bytes = torch(dict(&[("a", &items)]), &[("0", &[0; 4]), ("1", &[1; 4])]);
    let all = loaded(bytes, &ConvertOptions::default()).unwrap();
    let found: Vec<_> = all.iter().map(|(tensor, bytes)| (&*tensor.name, &bytes[..])).collect();
    assert_eq!(found, [("a.0", &[1; 4][..])]);
}

#[test]
fn numbers_that_python_reads_in_two_ways_are_refused() {
    let one = |size: &str| {
        let walk =
            walk(&storage("FloatStorage", "0", 8), 0, &[8], &[1]).replace("(I8\nt", &format!("({size}t"));
        torch(dict(&[("a", &walk)]), &[("0", &[0; 32])])
    };
    assert!(open(one("I8\n")).is_ok() && open(one("I0o10\n")).is_ok());
    for size in ["I010\n", "I+1\n", "L010L\n"] {
        let (kind, text) = refusal(open(one(size)));
        assert_eq!(
            (kind, text.ends_with("the text is no number, needed an integer")),
            (ErrorKind::Format, true),
            "{text}"
        );
    }
}

const META: &str = "ctorch._utils\n_rebuild_meta_tensor_no_storage\n(ctorch\nfloat32\n(I1\nt(I1\ntI00\ntR";

#[test]
fn a_tensor_without_data_is_refused_or_left_out() {
    let text = "`a`: `torch._utils._rebuild_meta_tensor_no_storage` makes a tensor without data; \
                `salvage` leaves it out";
    let bytes = stop(dict(&[("a", META)]));
    assert_refused(&bytes, ErrorKind::Unsupported, text);
    let pickled = open_with(&bytes, &salvage()).unwrap();
    assert_eq!(pickled.names().count(), 0);
    assert_eq!(
        pickled.notes(),
        ["`a`: left out: `torch._utils._rebuild_meta_tensor_no_storage` makes a tensor without data"]
    );
    let wrapper = "ctorch._utils\n_rebuild_wrapper_subclass\n(ctorch\nTensor\ntR";
    let text = "`a`: `torch.Tensor` makes a tensor without data; `salvage` leaves it out";
    assert_refused(stop(dict(&[("a", wrapper)])), ErrorKind::Unsupported, text);
}

#[test]
fn a_tensor_whose_elements_nobody_names_is_refused() {
    let bytes = torch(dict(&[("a", &vector("UntypedStorage", "0", 4))]), &[("0", &[0; 4])]);
    let text = "`a`: neither the tensor nor its storage says what its elements are";
    assert_refused(&bytes, ErrorKind::Format, text);
    assert_eq!(refusal(open_with(&bytes, &salvage())), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn references_to_the_outside_are_refused() {
    let text = "`a`: refers to something outside of the file";
    assert_refused(stop(dict(&[("a", "Vx\nQ")])), ErrorKind::Format, text);
    assert_refused(torch(dict(&[("a", "Vx\nQ")]), &[]), ErrorKind::Format, text);
}

#[test]
fn storages_that_are_not_there_are_refused() {
    let value = dict(&[("a", &floats("0", 1))]);
    let text = "`a`: storage `0` is not in the file";
    assert_refused(stop(&value), ErrorKind::Format, text);
    assert_refused(torch(&value, &[("1", &[0; 4])]), ErrorKind::Format, text);
    assert_refused(legacy(&value, &[]), ErrorKind::Format, text);
    // What stands in the path of a key leads nowhere.
    let text = "`a`: storage `../version` is not in the file";
    assert_refused(torch(dict(&[("a", &floats("../version", 1))]), &[]), ErrorKind::Format, text);
    let beside = "cjoblib.numpy_pickle\nNDArrayWrapper\n)R}Vfilename\nVx_01.npy\nsb";
    let text = "`a`: storage `x_01.npy` is not in the file";
    assert_refused(stop(dict(&[("a", beside)])), ErrorKind::Format, text);
    let inner = format!("ctorch.storage\n_load_from_bytes\n({}tR", binary(&legacy("}", &[])));
    assert_refused(
        stop_bytes(&[&inner_dict(&inner)]),
        ErrorKind::Format,
        "`a`: storage `0` is not in the file",
    );
}

/// Bytes as protocol 0 of Python 3 writes them.
fn binary(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .map(|byte| match byte {
            b'\n' | b'\\' => format!("\\u{byte:04x}"),
            byte if byte.is_ascii_graphic() || *byte == b' ' => char::from(*byte).to_string(),
            byte => format!("\\u{byte:04x}"),
        })
        .collect();
    format!("c_codecs\nencode\n(V{text}\nVlatin1\ntR")
}

fn inner_dict(value: &str) -> String {
    dict(&[("a", value)])
}

fn stop_bytes(parts: &[&str]) -> Vec<u8> {
    stop(parts.concat())
}

#[test]
fn storages_of_another_size_are_refused() {
    let value = dict(&[("a", &floats("0", 2))]);
    let text = "`a`: storage `0` has 4 bytes, the pickle says 8";
    assert_refused(torch(&value, &[("0", &[0; 4])]), ErrorKind::Format, text);
    // The size of one type and the size of another.
    let value = dict(&[("a", &floats("0", 2)), ("b", &vector("DoubleStorage", "0", 2))]);
    let text = "`b`: storage `0` has 8 bytes, the pickle says 16";
    assert_refused(torch(&value, &[("0", &[0; 8])]), ErrorKind::Format, text);
    let value = dict(&[("a", &floats("0", i64::MAX))]);
    let text = "`a`: storage `0` has 4 bytes, the pickle says 18446744073709551615";
    assert_refused(torch(&value, &[("0", &[0; 4])]), ErrorKind::Format, text);
}

#[test]
fn storages_that_are_compressed_are_refused() {
    let pickle = stop(dict(&[("a", &floats("0", 64))]));
    let members = [Member::stored("m/data.pkl", &pickle), Member::deflated("m/data/0", &[0; 256])];
    let text = "`a`: storage `0` is compressed, torch stores them as they are";
    assert_refused(zip(members), ErrorKind::Format, text);
}

#[test]
fn tensors_that_leave_their_storage_are_refused() {
    let one = |walk: &str| torch(dict(&[("a", walk)]), &[("0", &[0; 24])]);
    let six = storage("FloatStorage", "0", 6);
    let text = |range| format!("`a`: touches elements {range} of a storage that has 6");
    assert_refused(one(&walk(&six, 0, &[7], &[1])), ErrorKind::Format, &text("0..7"));
    assert_refused(one(&walk(&six, 5, &[2], &[1])), ErrorKind::Format, &text("5..7"));
    assert_refused(one(&walk(&six, 0, &[2, 2], &[5, 1])), ErrorKind::Format, &text("0..7"));
    assert_refused(one(&walk(&six, 6, &[], &[])), ErrorKind::Format, &text("6..7"));
    // A tensor without elements touches none.
    assert!(open(one(&walk(&six, 100, &[0, 3], &[3, 1]))).is_ok());
    // A type of its own: as many bytes, fewer elements.
    let bytes = storage("torch.storage.UntypedStorage", "0", 24);
    let text = "`a`: touches elements 0..4 of a storage that has 3";
    assert_refused(one(&typed(&bytes, 0, &[4], &[1], "float64")), ErrorKind::Format, text);
}

#[test]
fn views_that_leave_their_storage_are_refused() {
    let view = |offset, count| {
        format!("(Vstorage\nctorch\nFloatStorage\nVk\nVcpu\nI6\n(Vv\nI{offset}\nI{count}\nttQ")
    };
    let file = |walk: &str| legacy(dict(&[("a", walk)]), &[("k", 6, &[0; 24])]);
    let text = "`a`: touches elements 4..7 of a storage that has 6";
    assert_refused(file(&walk(&view(4, 3), 0, &[1], &[1])), ErrorKind::Format, text);
    let text = "`a`: touches elements 0..3 of a storage that has 2";
    assert_refused(file(&walk(&view(4, 2), 0, &[3], &[1])), ErrorKind::Format, text);
    assert!(open(file(&walk(&view(4, 2), 0, &[2], &[1]))).is_ok());
}

#[test]
fn a_view_counts_in_its_storages_type_and_not_in_the_tensors() {
    // 4 of 6 floats are before the view; as doubles they would be beyond the storage.
    let view = "(Vstorage\nctorch\nFloatStorage\nVk\nVcpu\nI6\n(Vv\nI4\nI2\nttQ";
    let file =
        |view: &str| legacy(dict(&[("a", &typed(view, 0, &[1], &[1], "float64"))]), &[("k", 6, &[0; 24])]);
    let text = "`a`: a view of a storage whose elements are of another size";
    assert_refused(file(view), ErrorKind::Format, text);
}

#[test]
fn walks_that_overflow_are_refused() {
    let one = |walk: &str| torch(dict(&[("a", walk)]), &[("0", &[0; 24])]);
    let six = storage("FloatStorage", "0", 6);
    let text = "`a`: shape, strides and offset lead out of 64 bits or before the storage";
    assert_refused(one(&walk(&six, 0, &[2], &[-1])), ErrorKind::Format, text);
    assert_refused(one(&walk(&six, 0, &[i64::MAX, i64::MAX], &[0, 0])), ErrorKind::Format, text);
}

#[test]
fn elements_without_a_dtype_are_refused_and_can_be_left_out() {
    let bytes = torch(
        dict(&[("a", &vector("QUInt4x2Storage", "0", 4)), ("b", &floats("1", 1))]),
        &[("0", &[0; 4]), ("1", &[0; 4])],
    );
    let text = "`a`: safetensors has no dtype for torch.quint4x2; `select` can leave it out";
    assert_eq!(
        refusal(loaded(&bytes, &ConvertOptions::default())),
        (ErrorKind::Unsupported, text.to_owned())
    );
    let mut options = ConvertOptions::default();
    options.exclude.push("a".into());
    assert_eq!(loaded(&bytes, &options).unwrap().len(), 1);
}

#[test]
fn arrays_of_what_are_no_numbers_are_refused_or_left_out() {
    let objects = array("cnumpy\ndtype\n(VO8\nI00\nI01\ntR", &[1], false, "(lNa");
    let cases = [
        (stop(dict(&[("a", &objects)])), "`a`: an array of Python's objects"),
        (stop(dict(&[("a", &array(&dtype("S3", '|'), &[1], false, "Vabc\n"))])), "`a`: an array of `<S3`"),
        (stop(dict(&[("a", &array(&dtype("f4", '<'), &[1], false, "(lNa"))])), "`a`: an array of no numbers"),
        (npy("'|O'", false, "(1,)", b"N."), "`tensor`: an array of Python's objects"),
        (npy("[('x', '<f4')]", false, "(1,)", &[0; 4]), "`tensor`: an array of structures"),
        (npy("'<U1'", false, "(1,)", &[0; 4]), "`tensor`: an array of `<U1`"),
    ];
    for (bytes, text) in cases {
        assert_refused(
            &bytes,
            ErrorKind::Unsupported,
            &format!("{text} is no tensor; `salvage` leaves it out"),
        );
        let pickled = open_with(&bytes, &salvage()).unwrap();
        assert_eq!((pickled.names().count(), pickled.notes().len()), (0, 1), "{text}");
    }
}

#[test]
fn sparse_tensors_are_refused_unless_asked_for() {
    let sparse = |layout: &str| {
        let parts = "NNN(I1\nt";
        let parts = if layout == "sparse_coo" { &parts[1..] } else { parts };
        stop(dict(&[(
            "a",
            &format!("ctorch._utils\n_rebuild_sparse_tensor\n(ctorch\n{layout}\n({parts}ttR"),
        )]))
    };
    for layout in ["sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc"] {
        let text = format!("`a`: a tensor of layout torch.{layout}; `dense` writes it as a dense one");
        assert_refused(sparse(layout), ErrorKind::Unsupported, &text);
    }
}

#[test]
fn two_tensors_of_one_name_are_refused() {
    let nested = dict(&[("b", &floats("0", 1))]);
    let bytes = torch(dict(&[("a.b", &floats("0", 1)), ("a", &nested)]), &[("0", &[0; 4])]);
    assert_refused(bytes, ErrorKind::Format, "two tensors have the name `a.b`");
}

#[test]
fn keys_that_make_no_name_are_refused_or_numbered() {
    let with = |key: &str| torch(format!("}}{key}{}s", floats("0", 1)), &[("0", &[0; 4])]);
    let pickle = [b"}C\x01\x80", floats("0", 1).as_bytes(), b"s."].concat();
    let bytes = zip(torch_members(&pickle, &[("0", &[0; 4])]));
    assert_refused(bytes, ErrorKind::Unsupported, "the value: a key that is bytes makes no name");
    let text = "the value: a key that is an object makes no name";
    assert_refused(with("cbuiltins\nobject\n)R"), ErrorKind::Unsupported, text);
    let wide = format!("({}t", "N".repeat(64));
    let text = "the value: a key that is a tuple of more than 64 parts makes no name";
    assert_refused(with(&wide), ErrorKind::Unsupported, text);
    let pickled = open_with(with("cbuiltins\nobject\n)R"), &salvage()).unwrap();
    assert!(pickled.names().next().unwrap().starts_with('#'));
}

#[test]
fn values_within_themselves_are_refused() {
    let (kind, text) = refusal(open(b"(lp0\ng0\na."));
    assert_eq!(kind, ErrorKind::Limit);
    let needed =
        "… (41 more characters)`: containers within containers beyond 100 levels, or within themselves";
    assert!(text.starts_with("`0.0.0.0.") && text.ends_with(needed), "{text}");
    let deep = [vec![b']'; 101], vec![b'a'; 100], b".".to_vec()].concat();
    assert!(open(&deep).is_ok());
    let deeper = [vec![b']'; 102], vec![b'a'; 101], b".".to_vec()].concat();
    assert_eq!(refusal(open(&deeper)).0, ErrorKind::Limit);
}

#[test]
fn archives_within_archives_end_somewhere() {
    let mut bytes = npy("'<f4'", false, "(1,)", &[0; 4]);
    for _ in 0..4 {
        bytes = zip([Member::stored("x", &bytes)]);
    }
    assert_eq!(open(&bytes).unwrap().names().collect::<Vec<_>>(), ["tensor"]);
    bytes = zip([Member::stored("x", &bytes)]);
    let text = "the value: containers within containers beyond 4 levels, or within themselves";
    assert_refused(bytes, ErrorKind::Limit, text);
}

#[test]
fn bombs_of_values_are_refused() {
    // Each list holds the one before it ten times.
    let mut pickle = "(lp0\n0".to_owned();
    for level in 1..=6 {
        pickle += &format!("({}lp{level}\n0", format!("g{}\n", level - 1).repeat(10));
    }
    pickle += "g6\n";
    let (kind, text) = refusal(open(stop(&pickle)));
    assert_eq!(kind, ErrorKind::Limit);
    assert!(text.starts_with("more than 1002") && text.ends_with(" values"), "{text}");
}

#[test]
fn a_directory_without_a_checkpoint_says_so() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("readme.md"), "x").unwrap();
    let text = format!("{}: no checkpoint in it", directory.path().display());
    let refused = Pickled::open(directory.path(), &PickledOptions::default());
    assert_eq!(refusal(refused), (ErrorKind::NotFound, text));
}

#[test]
fn a_checkpoint_without_tensors_is_not_written() {
    let directory = tempfile::tempdir().unwrap();
    let plan = Conversion::plan(
        open(b"}.").unwrap(),
        &directory.path().join("new/out.safetensors"),
        &ConvertOptions::default(),
    );
    let written = plan.unwrap().write(&mut crate::build::go_on());
    let text = "no tensor in it, or none that is selected";
    assert_eq!(refusal(written), (ErrorKind::NotFound, text.to_owned()));
    assert!(!directory.path().join("new").exists());
}

#[test]
fn members_of_another_checksum_are_refused() {
    let members = |pickle_crc: Option<u32>, storage_crc: Option<u32>| {
        let pickle = stop(dict(&[("a", &floats("0", 1))]));
        let with = |member: Member, crc| match crc {
            Some(crc) => member.with_crc(crc),
            None => member,
        };
        zip([
            with(Member::stored("m/data.pkl", &pickle), pickle_crc),
            with(Member::stored("m/data/0", &[0; 4]), storage_crc),
        ])
    };
    let (kind, text) = refusal(open(members(Some(0xdead_beef), None)));
    assert_eq!(kind, ErrorKind::Format);
    assert!(
        text.starts_with("member `m/data.pkl`: the bytes have checksum ")
            && text.ends_with(", the archive says deadbeef"),
        "{text}"
    );
    let storage = members(None, Some(0xdead_beef));
    assert!(open(&storage).is_ok(), "bytes of tensors are compared on request");
    let text = "member `m/data/0`: the bytes have checksum 2144df1c, the archive says deadbeef";
    let refused = open_with(&storage, &PickledOptions::default().with_crc(true));
    assert_eq!(refusal(refused), (ErrorKind::Format, text.to_owned()));
}

#[test]
fn two_pickles_that_could_be_the_checkpoints_are_refused() {
    let bytes = zip([Member::stored("a/data.pkl", b"N."), Member::stored("b/data.pkl", b"N.")]);
    let text = "more than one member could be the checkpoint: `a/data.pkl`, `b/data.pkl`";
    assert_refused(bytes, ErrorKind::Format, text);
}

#[test]
fn archives_that_contradict_themselves_are_refused() {
    let mut members = torch_members(b"}.", &[]);
    members.push(Member::stored("m/byteorder", b"middle"));
    let text = "the archive cannot be trusted: the member `byteorder` says middle";
    assert_refused(zip(members), ErrorKind::Format, text);
    let text = "the archive cannot be trusted: tar entry `a.pkl` at byte 1024: the name stands twice";
    assert_refused(tar(&[("a.pkl", b"N."), ("a.pkl", b"N.")]), ErrorKind::Format, text);
}

#[test]
fn errors_name_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.pt");
    fs::write(&path, crate::build::gzip(b"NN.")).unwrap();
    let text = format!("{}: the pickle leaves 1 values on the stack, no writer leaves any", path.display());
    assert_eq!(refusal(Pickled::open(&path, &PickledOptions::default())), (ErrorKind::Format, text));
}
