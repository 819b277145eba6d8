//! Texts whose spelling hides what they ask for, and those that only look like it.

use tensafe_trust::{Level, Rule, ScanOptions, Verdict, scan_bytes};

fn rules(name: &str, text: &str) -> Vec<Rule> {
    let report = scan_bytes(name, text.as_bytes(), &ScanOptions::default());
    report.findings.iter().map(|finding| finding.rule).collect()
}

#[test]
fn tags_of_python_are_told_however_they_are_spelled() {
    for text in [
        "%TAG !p! tag:yaml.org,2002:py\n---\n!p!thon/object/apply:os.system [\"id\"]\n",
        "%TAG !p! tag:yaml.org,2002:p%79\n---\n!p!th%6fn/object/apply:os.system [\"id\"]\n",
        "%TAG ! tag:yaml.org,2002:python/\n---\n{\"a\":!object/apply:os.system [id]}\n",
        "%TAG !! tag:yaml.org,2002:python/object/\n---\n!!apply:os.system [id]\n",
        "--- 1\n...\n%TAG !p! tag:yaml.org,2002:python\n--- !p!/name:os.system\n",
        "# a\u{2028}%TAG !p! tag:yaml.org,2002:python\u{2028}--- !p!/name:os.system\n",
        "!<tag:yaml.org,2002:%70ython/object/apply:os.system> [\"id\"]\n",
        "!<%74ag:yaml.org,2002:python/object/apply:os.system> [\"id\"]\n",
        "!!%70yth%6Fn/object/apply:os.system [\"id\"]\n",
        "a: [b, !!python/name:os.system]\n",
    ] {
        assert_eq!(rules("config.yaml", text), [Rule::RunsCode], "{text}");
    }
    let unknown = "%TAG !u! tag:unity3d.com,2011:\n--- !u!1\na: 1\n";
    assert_eq!(rules("config.yaml", unknown), [Rule::UnknownFormat]);
}

#[test]
fn keys_of_yaml_are_told_however_they_are_spelled() {
    for text in [
        "model: {_target_: os.system, command: id}\n",
        "model: {a: 1,_target_: os.system}\n",
        "model: {\"_target_\":os.system}\n",
        "model:\n  \"_target_\": os.system\n",
        "model:\n  '_target_' : \"os.system\"\n",
        "model:\n  \"\\x5ftarget_\": os.system\n",
        "model:\n  \"\\u005f\\x74arget\\U0000005F\": 'os.system'\n",
        "model:\n  _target_: \"os\\x2esystem\"\n",
        "? _target_\n: os.system\n",
        "? \"_tar\\\n   get_\"\n: os.system\n",
        "? \"\\\r\n  _target_\"\n: os.system\n",
        "? !!str _target_\n: !!str &a\n  os.system\n",
        "_target_: >-\n  os.system\n",
        "_target_:\n  os.system\n",
        "- - _target_: os.system\n",
        "# a\u{85}_target_: os.system\n",
        "{\"a\n # b\", _target_: os.system}\n",
    ] {
        let report = scan_bytes("config.yaml", text.as_bytes(), &ScanOptions::default());
        let found: Vec<_> = report.findings.iter().map(|finding| (finding.rule, finding.level)).collect();
        assert!(found.contains(&(Rule::ImportsByText, Level::Error)), "{text}: {found:?}");
    }
    // What stands apart from its colon may be a key.
    for text in [
        "- &k _target_\n- {*k : os.system}\n",
        "? _target_ # a\n: os.system\n",
        "? |-\n  _target_\n\n: os.system\n",
    ] {
        let verdict = scan_bytes("config.yaml", text.as_bytes(), &ScanOptions::default()).verdict();
        assert_ne!(verdict, Verdict::Clean, "{text}");
    }
}

#[test]
fn tags_that_import_are_told() {
    for text in ["a: !apply:os.system [id]\n", "a: !new:os.system\n  - id\n", "[!%6eame:os.system x]\n"] {
        let report = scan_bytes("hyperparams.yaml", text.as_bytes(), &ScanOptions::default());
        let found: Vec<_> = report.findings.iter().map(|finding| (finding.rule, finding.level)).collect();
        assert_eq!(found, [(Rule::ImportsByText, Level::Error)], "{text}");
    }
    let text =
        "model: !new:speechbrain.nnet.RNN\n  size: 8\nother: !new:speechbrain.nnet.RNN\nlr: !ref <a>\n";
    assert_eq!(rules("hyperparams.yaml", text), [Rule::ImportsByText]);
}

#[test]
fn usual_yaml_is_clean() {
    for text in [
        "license: mit\ntags: [\"text-generation\", 'de', {a: 1}]\nmodel: {hidden: 8, name: \"a\\u00e9\\n\"}\n",
        "%YAML 1.2\n---\ndefaults:\n  - _self_\n  - override hydra/launcher: basic\nlr: ${optim.lr}\n",
        "text: \"Hello, World! 100% of it? \\\"yes\\\" & no\"\npath: C:\\new\\x\n",
        "a: !!str 1\nb: !include other.yaml\nc: !<tag:yaml.org,2002:str> x\nd: &x [1]\ne: *x\n",
        "# _target_: os.system\nlr: 0.1  # was _target_: a.b\n",
        "exclude: [_target_, '_target_ of what']\nmy_target_: 1\nurl: https://a/b%20c?_target_s\n",
        "prompt: |\n  Say \"hi\"!\n  \\x5f %TAG\n",
    ] {
        assert_eq!(rules("config.yaml", text), [], "{text}");
    }
}

#[test]
fn json_that_python_reads_is_judged() {
    for text in [
        r#"{"a": NaN, "auto\u005fmap": {"AutoModel": "x--y.Z"}}"#,
        r#"{"a": [-Infinity, Infinity], "auto_map": {"AutoModel": "x--y.Z"}}"#,
        r#"{"b": "NaN \"", "a":NaN,"trust_remote\u005Fcode": true}"#,
    ] {
        assert_eq!(rules("config.json", text), [Rule::RemoteCode], "{text}");
    }
    let template = r#"{"b": -Infinity, "chat\u005ftemplate": "{{ x.__class__ }}"}"#;
    assert_eq!(rules("config.json", template), [Rule::TemplateReaches]);
    assert_eq!(rules("config.json", r#"{"py\/object": "os.system"}"#), [Rule::RunsCode]);
    let index = r#"{"weight\u005fmap": {"a": "../b"}}"#;
    assert_eq!(rules("m.safetensors.index.json", index), [Rule::MemberPath]);
}

#[test]
fn json_that_is_worth_judging_and_not_read_is_inconclusive() {
    let deep = format!("{}{}", "[".repeat(500), "]".repeat(500));
    for text in [
        r#"{"a": 1e999, "auto\u005fmap": {"AutoModel": "x--y.Z"}}"#.to_owned(),
        r#"{"a": "\ud800", "auto\u005fmap": {"AutoModel": "x--y.Z"}}"#.to_owned(),
        format!(r#"{{"a": {deep}, "\u0061uto_map": {{"AutoModel": "x--y.Z"}}}}"#),
        r#"{"a": 1, /* no */ "_target\u005f": "os.system"}"#.to_owned(),
    ] {
        assert_eq!(rules("config.json", &text), [Rule::UnknownFormat], "{text}");
    }
    assert_eq!(rules("modules.json", r#"[{"type": "os.system"},]"#), [Rule::UnknownFormat]);
}

#[test]
fn usual_json_is_clean() {
    for text in [
        r#"{"loss": NaN, "best": Infinity, "worst": -Infinity}"#,
        "{\"text\": \"caf\\u00e9\"}\n{\"text\": \"\\ud83d\\ude00\"}\n",
        r#"{"a": "\\u005f \/ \" NaN", "tokens": ["\u0120the", "auto", "_map"]}"#,
        r#"[INFO] \u00e9 not json"#,
    ] {
        assert_eq!(rules("a.json", text), [], "{text}");
    }
}

/// Each call has a tuple of its own, and all have one shape.
#[test]
fn arguments_that_calls_share_are_read_so_many_times() {
    let calls = |name: &str, shared: &[u8], count: usize| {
        let mut bytes = [b"\x80\x02c", name.as_bytes(), b"\nq\x000"].concat();
        bytes.extend(shared);
        bytes.extend(b"q\x020");
        bytes.extend(b"h\x00h\x02\x85R0".repeat(count));
        bytes.extend(b"N.");
        bytes
    };
    let items = |count: usize| b"K\x01".repeat(count);
    let tuple = |count| [b"(", &items(count)[..], b"t"].concat();
    let list = |count| [b"](", &items(count)[..], b"e"].concat();
    let dict = |count: usize| {
        let pairs = (0..count).flat_map(|at| [b'M', at.to_le_bytes()[0], at.to_le_bytes()[1], b'K', 1]);
        [b"}(", &pairs.collect::<Vec<u8>>()[..], b"u"].concat()
    };
    for bytes in [
        calls("torch\nSize", &tuple(20_000), 20_000),
        calls("builtins\nlist", &list(20_000), 20_000),
        calls("collections\nOrderedDict", &dict(20_000), 20_000),
        calls("collections\nCounter", &dict(20_000), 20_000),
    ] {
        let report = scan_bytes("m.pkl", &bytes, &ScanOptions::default());
        assert!(report.is_inconclusive(), "{:?}", report.findings);
        assert!(report.findings.iter().any(|finding| finding.rule == Rule::LimitMet));
    }
    // What is shared as writers share it is read whenever it stands.
    for bytes in
        [calls("torch\nSize", &tuple(4), 20_000), calls("collections\nOrderedDict", &dict(8), 20_000)]
    {
        let report = scan_bytes("m.pkl", &bytes, &ScanOptions::default());
        assert_eq!(report.verdict(), Verdict::Clean, "{:?}", report.findings);
    }
}

#[test]
fn a_text_that_is_too_long_to_be_read_is_not_clean_where_it_would_be_judged() {
    let directory = tempfile::tempdir().unwrap();
    for (name, verdict) in
        [("c.yaml", Verdict::Inconclusive), ("c.json", Verdict::Inconclusive), ("notes.txt", Verdict::Clean)]
    {
        let path = directory.path().join(name);
        std::fs::write(&path, vec![b' '; 8192]).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len((64 << 20) + 1).unwrap();
        let report = tensafe_trust::scan([&path], &ScanOptions::default());
        assert_eq!(report.files[0].verdict(), verdict, "{name}");
    }
}
