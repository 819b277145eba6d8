//! Rules TS-301 on: archives, other formats, and what lies beside weights.

use std::fs;

use tensafe_trust::{Rule, ScanOptions, Verdict, scan, scan_bytes};

use crate::{archive::zip, found, shown};

const PAYLOAD: &[u8] = b"cos\nsystem\n(S'id'\ntR.";
const PLAIN: &[u8] = b"\x80\x02}q\0.";

fn rules(name: &str, bytes: &[u8]) -> Vec<Rule> {
    let report = scan_bytes(name, bytes, &ScanOptions::default());
    report.findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn members_are_named_and_nested_archives_are_opened() {
    let inner = zip(&[("x/data.pkl", PAYLOAD), ("x/version", b"3\n")]);
    assert_eq!(found("m.pt", &inner), ["error TS-101 x/data.pkl @0 os.system"]);
    let outer = zip(&[("models/a.pt", &inner)]);
    assert_eq!(found("all.zip", &outer), ["error TS-101 models/a.pt!x/data.pkl @0 os.system"]);
}

#[test]
fn archives_nested_too_deep_are_inconclusive() {
    let mut bytes = zip(&[("a.pkl", PLAIN)]);
    for _ in 0..10 {
        bytes = zip(&[("a.zip", &bytes)]);
    }
    let report = scan_bytes("m.zip", &bytes, &ScanOptions::default());
    assert_eq!(report.verdict(), Verdict::Inconclusive);
    assert_eq!(report.findings[0].rule, Rule::LimitMet);
}

#[test]
fn a_plain_torch_archive_is_clean_and_its_parts_are_checked() {
    let plain = [("m/data.pkl", PLAIN), ("m/version", &b"3\n"[..]), ("m/byteorder", b"little")];
    let report = scan_bytes("m.pt", &zip(&plain), &ScanOptions::default());
    assert_eq!((report.verdict(), report.kind), (Verdict::Clean, "torch"));
    assert_eq!(rules("m.pt", &zip(&plain[..1])), [Rule::ArchiveFlaw]);
    let twice = [plain[0], plain[1], ("n/data.pkl", PLAIN)];
    assert!(rules("m.pt", &zip(&twice)).contains(&Rule::ArchiveDeceives));
    let script = [plain[0], plain[1], ("m/constants.pkl", PLAIN), ("m/code/__torch__.py", b"x = 1")];
    assert_eq!(rules("m.pt", &zip(&script)), [Rule::TorchScript]);
    assert_eq!(rules("m.zip", &zip(&[("../a.txt", b"x")])), [Rule::MemberPath]);
    assert_eq!(rules("m.zip", &zip(&[("lib.so", b"\x7fELF\x02\x01")])), [Rule::NativeCode]);
}

#[test]
fn a_tensor_must_lie_in_its_storage() {
    let tensor = |count: u8, size: u8| {
        let mut bytes =
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\n".to_vec();
        bytes.extend(b"X\x01\0\0\x000X\x03\0\0\0cpuK");
        bytes.extend([count, b't', b'Q', b'K', 0, b'K', size, 0x85, b'K', 1, 0x85, 0x89]);
        bytes.extend(b"ccollections\nOrderedDict\n)RtR.");
        zip(&[("m/data.pkl", &bytes), ("m/version", b"3"), ("m/data/0", &[0; 16])])
    };
    assert_eq!(rules("m.pt", &tensor(4, 4)), []);
    assert_eq!(rules("m.pt", &tensor(4, 5)), [Rule::StorageMismatch]);
    assert_eq!(rules("m.pt", &tensor(8, 4)), [Rule::StorageMismatch]);
}

#[test]
fn wrong_checksums_are_told_when_asked() {
    let mut bytes = zip(&[("a.txt", b"abcdefgh")]);
    let at = bytes.windows(8).position(|part| part == b"abcdefgh").unwrap();
    bytes[at] = b'x';
    assert_eq!(rules("m.zip", &bytes), []);
    let report = scan_bytes("m.zip", &bytes, &ScanOptions::default().with_crc(true));
    assert_eq!(shown(&report.findings), ["error TS-303 a.txt"]);
}

#[test]
fn bytes_before_an_archive_are_told_and_judged() {
    let bytes = [PAYLOAD, &zip(&[("a.txt", b"x")])].concat();
    let found = rules("m.zip", &bytes);
    assert!(found.contains(&Rule::Polyglot), "{found:?}");
    let bytes = [b"\x80\x02", PAYLOAD, &zip(&[("a.txt", b"x")])].concat();
    assert!(rules("m.zip", &bytes).contains(&Rule::RunsCode));
}

/// `G` is the mark of GGUF, and of a float to a pickle.
#[test]
fn other_formats_that_are_pickles_too_are_told() {
    let mut bytes = b"GGUF\x03\0\0\0\0".to_vec();
    bytes.extend(PAYLOAD);
    let found = rules("m.gguf", &bytes);
    assert!(found.contains(&Rule::Polyglot) && found.contains(&Rule::RunsCode), "{found:?}");
}

#[test]
fn arrays_of_objects_are_pickles() {
    let npy = |descr: &str, data: &[u8]| {
        let mut header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': (1,), }}");
        header += &" ".repeat(53_usize.wrapping_sub(header.len()) % 64);
        header += "\n";
        let length = u16::try_from(header.len()).unwrap().to_le_bytes();
        [b"\x93NUMPY\x01\0", &length[..], header.as_bytes(), data].concat()
    };
    assert_eq!(rules("a.npy", &npy("<f4", &[0; 4])), []);
    assert_eq!(rules("a.npy", &npy("<f4", &[0; 9])), [Rule::AfterStop]);
    let objects = npy("|O", PAYLOAD);
    let mut found = rules("a.npy", &objects);
    found.sort();
    assert_eq!(found, [Rule::RunsCode, Rule::ObjectArray]);
    let archive = zip(&[("a.npy", &objects)]);
    assert_eq!(scan_bytes("a.npz", &archive, &ScanOptions::default()).kind, "npz");
    assert!(rules("a.npz", &archive).contains(&Rule::RunsCode));
}

#[test]
fn what_is_not_understood_is_never_clean() {
    for (name, bytes, rule) in [
        ("m.7z", &b"7z\xbc\xaf\x27\x1c\0\x04"[..], Rule::UnreadFormat),
        ("m.rar", b"Rar!\x1a\x07\x01\0", Rule::UnreadFormat),
        ("m.onnx", b"\x08\x07\x12\x07pytorch\xff\xfe", Rule::UnknownFormat),
        ("m.bin", b"\xfe\xed\xfa\xce\x00\x01\x02", Rule::UnknownFormat),
        ("m.bin", b"<html>404</html>", Rule::UnknownFormat),
        ("m.bin", b"", Rule::UnknownFormat),
        ("m.h5", b"\x89HDF\r\n\x1a\n\0\0\0\0", Rule::UnreadFormat),
        ("m.pkl.gz", b"\x1f\x8b\x08\0\0\0\0\0\0\0cut", Rule::BrokenArchive),
        ("m.bin", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", Rule::Pointer),
    ] {
        let report = scan_bytes(name, bytes, &ScanOptions::default());
        assert_eq!(report.verdict(), Verdict::Inconclusive, "{name}: {:?}", report.findings);
        assert!(report.findings.iter().any(|finding| finding.rule == rule), "{name}: {:?}", report.findings);
    }
}

#[test]
fn plain_text_and_pictures_are_clean() {
    for (name, bytes) in [
        ("README.md", &b"# Model\n\nchangelog\nversion 1\n"[..]),
        ("notes.txt", b"changelog\nversion1\nis out."),
        ("LICENSE", b"Apache License"),
        ("config.json", b"{\"hidden_size\": 8}"),
        ("vocab.txt", "caf\u{e9}\n".as_bytes()),
        ("empty.txt", b""),
        (
            "tokenizer.model",
            b"\n\x0e\n\x05<unk>\x15\0\0\0\0\x18\x02\n\x0a\n\x03\xe2\x96\x81\x15\0\0\0\0\x12\x02\x08\x01",
        ),
        ("logo.png", b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"),
        ("chat_template.jinja", b"{% for m in messages %}{{ m['content'] }}{% endfor %}"),
    ] {
        let report = scan_bytes(name, bytes, &ScanOptions::default());
        assert_eq!(report.verdict(), Verdict::Clean, "{name}: {:?}", report.findings);
    }
}

#[test]
fn a_safetensors_file_keeps_its_rules_and_its_name() {
    let file = |header: &str, data: &[u8]| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
    };
    let good = file(r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#, b"x");
    assert_eq!(rules("m.safetensors", &good), []);
    let cut = file(r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#, b"x");
    assert_eq!(rules("m.safetensors", &cut), [Rule::SafetensorsRule]);
    let lenient = file(r#"{"a":["U8",[1],[0,1]]}"#, b"x");
    assert_eq!(rules("m.safetensors", &lenient), [Rule::SafetensorsLenient]);
    assert!(rules("m.safetensors", PAYLOAD).contains(&Rule::Misnamed));
    assert!(rules("m.safetensors", &zip(&[("m/data.pkl", PLAIN)])).contains(&Rule::Misnamed));
    assert!(rules("m.safetensors", b"cut").contains(&Rule::SafetensorsRule));
}

#[test]
fn templates_reach_for_nothing() {
    let gguf = |template: &str| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend(0u64.to_le_bytes());
        bytes.extend(2u64.to_le_bytes());
        for (key, value) in [("general.name", "m"), ("tokenizer.chat_template", template)] {
            bytes.extend((key.len() as u64).to_le_bytes());
            bytes.extend(key.as_bytes());
            bytes.extend(8u32.to_le_bytes());
            bytes.extend((value.len() as u64).to_le_bytes());
            bytes.extend(value.as_bytes());
        }
        bytes
    };
    let evil = "{{ ''.__class__.__mro__ }}";
    assert_eq!(rules("m.gguf", &gguf("{{ messages }}")), [Rule::Gguf]);
    assert!(rules("m.gguf", &gguf(evil)).contains(&Rule::TemplateReaches));
    assert_eq!(rules("m.gguf", b"GGUF\x03\0\0\0"), [Rule::UnknownFormat]);
    assert_eq!(rules("chat_template.jinja", evil.as_bytes()), [Rule::TemplateReaches]);
    for config in [
        format!(r#"{{"chat_template": "{evil}"}}"#),
        format!(r#"{{"chat_template": [{{"name": "tool", "template": "{evil}"}}]}}"#),
        r#"{"chat_template": "{{ x | attr ('\u005f\u005fclass') }}"}"#.to_owned(),
        r#"{"chat\u005ftemplate": "{{ x['__init__'] }}"}"#.to_owned(),
    ] {
        assert_eq!(rules("tokenizer_config.json", config.as_bytes()), [Rule::TemplateReaches], "{config}");
    }
}

#[test]
fn configurations_that_ask_for_code_are_told() {
    for (name, text, rule) in [
        ("config.json", r#"{"auto_map": {"AutoModel": "modeling.Net"}}"#, Rule::RemoteCode),
        ("config.json", r#"{"trust_remote_code": true}"#, Rule::RemoteCode),
        ("config.json", r#"{"custom_pipelines": {"a": {"impl": "p.P"}}}"#, Rule::RemoteCode),
        ("modules.json", r#"[{"idx": 0, "type": "os.system"}]"#, Rule::RemoteCode),
        ("model_index.json", r#"{"unet": ["my_code", "Net"]}"#, Rule::RemoteCode),
        ("config.json", r#"{"_target_": "torch.nn.Linear"}"#, Rule::ImportsByText),
        ("config.yaml", "model:\n  _target_: os.system\n", Rule::ImportsByText),
        ("config.yaml", "a: !!python/object/apply:os.system ['id']\n", Rule::RunsCode),
        ("config.json", r#"{"py/reduce": ["x"], "py/object": "os.system"}"#, Rule::RunsCode),
        ("config.json", r#"{"class_name": "Lambda", "config": {}}"#, Rule::KerasLambda),
        ("config.json", r#"{"module": "os", "class_name": "function", "config": "system"}"#, Rule::RunsCode),
        ("m.safetensors.index.json", r#"{"weight_map": {"a": "../b"}}"#, Rule::MemberPath),
        ("hubconf.py", "x = 1", Rule::LoadingCode),
        ("load.py", "torch.load(p, weights_only=False)", Rule::LoadingCode),
        ("net.py", "x = 1", Rule::PythonCode),
    ] {
        assert_eq!(rules(name, text.as_bytes()), [rule], "{text}");
    }
    assert_eq!(rules("config.json", br#"{"trust_remote_code": false}"#), []);
}

#[test]
fn keras_archives_are_searched() {
    let config = br#"{"class_name": "Functional", "module": "keras", "config": {"layers": [{"class_name": "Lambda", "module": "keras.layers"}]}}"#;
    assert_eq!(rules("m.keras", &zip(&[("config.json", config)])), [Rule::KerasLambda]);
    let hdf5 = [b"\x89HDF\r\n\x1a\n", &b"{\"class_name\": \"Lambda\"}"[..]].concat();
    assert!(rules("m.h5", &hdf5).contains(&Rule::KerasLambda));
}

#[test]
fn directories_are_walked_in_order_and_links_stay_inside() {
    let place = tempfile::tempdir().unwrap();
    let root = place.path().join("model");
    fs::create_dir_all(root.join("sub")).unwrap();
    fs::create_dir_all(root.join(".git")).unwrap();
    for (name, bytes) in [("b.pkl", PAYLOAD), ("a.txt", b"x"), ("sub/c.pkl", PLAIN), (".git/d.pkl", PAYLOAD)]
    {
        fs::write(root.join(name), bytes).unwrap();
    }
    fs::write(place.path().join("outside.pkl"), PAYLOAD).unwrap();
    #[cfg(unix)]
    {
        use std::os::unix::fs::symlink;
        symlink(place.path().join("outside.pkl"), root.join("x.pkl")).unwrap();
        symlink(&root, root.join("sub/up")).unwrap();
        symlink(root.join("b.pkl"), root.join("y.pkl")).unwrap();
    }
    let report = scan([&root, &place.path().join("gone.pkl")], &ScanOptions::default().with_threads(2));
    let seen: Vec<(String, Verdict)> = report
        .files
        .iter()
        .map(|file| (file.path.rsplit(['/', '\\']).next().unwrap().to_owned(), file.verdict()))
        .collect();
    let expected = [
        ("a.txt", Verdict::Clean),
        ("b.pkl", Verdict::Findings),
        #[cfg(unix)]
        ("x.pkl", Verdict::Inconclusive),
        #[cfg(unix)]
        ("y.pkl", Verdict::Findings),
        ("c.pkl", Verdict::Clean),
        ("gone.pkl", Verdict::Unreadable),
    ];
    assert_eq!(seen, expected.map(|(name, verdict)| (name.to_owned(), verdict)));
}

/// The cache of the hub: a snapshot is made of links to blobs beside it.
#[cfg(unix)]
#[test]
fn snapshots_of_the_hub_are_followed_to_their_blobs() {
    let place = tempfile::tempdir().unwrap();
    let model = place.path().join("models--a--b");
    let snapshot = model.join("snapshots/0123");
    fs::create_dir_all(&snapshot).unwrap();
    fs::create_dir_all(model.join("blobs")).unwrap();
    fs::write(model.join("blobs/ff"), PAYLOAD).unwrap();
    std::os::unix::fs::symlink("../../blobs/ff", snapshot.join("pytorch_model.bin")).unwrap();
    let report = scan([&snapshot], &ScanOptions::default());
    assert_eq!(shown(&report.files[0].findings), ["error TS-101 @0 os.system"]);
}

#[test]
fn pickled_weights_beside_safetensors_are_told() {
    let place = tempfile::tempdir().unwrap();
    let header = b"\x02\0\0\0\0\0\0\0{}";
    fs::write(place.path().join("model.safetensors"), header).unwrap();
    fs::write(place.path().join("pytorch_model.bin"), PLAIN).unwrap();
    let report = scan([place.path()], &ScanOptions::default());
    let found: Vec<Rule> = report.findings().map(|(_, finding)| finding.rule).collect();
    assert_eq!(found, [Rule::PickleBeside]);
}
