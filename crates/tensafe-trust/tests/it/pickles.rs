//! Rules TS-101 to TS-206, on bytes. Offsets are those of the instruction.

use tensafe_trust::{ScanOptions, Verdict, scan_bytes};

use crate::found;

#[test]
fn harmless_pickles_are_clean() {
    for bytes in [
        &b"N."[..],
        b"\x80\x02}q\0.",
        b"\x80\x02ccollections\nOrderedDict\nq\0)Rq\x01.",
        b"\x80\x04\x95\x09\0\0\0\0\0\0\0\x8c\x03abc\x94\x85\x94.",
        b"c_codecs\nencode\n(Vx\nVlatin1\ntR.",
        b"\x80\x02(X\x07\0\0\0storageq\x01ctorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x04tQ.",
    ] {
        let report = scan_bytes("m.pkl", bytes, &ScanOptions::default());
        assert_eq!(report.verdict(), Verdict::Clean, "{:?}", report.findings);
    }
}

#[test]
fn what_is_known_to_harm_is_an_error_called_or_not() {
    assert_eq!(found("m.pkl", b"cos\nsystem\n(S'id'\ntR."), ["error TS-101 @0 os.system"]);
    assert_eq!(found("m.pkl", b"cos\nsystem\n."), ["error TS-101 @0 os.system"]);
    assert_eq!(found("m.pkl", b"(S'id'\nios\nsystem\n."), ["error TS-101 @7 os.system"]);
    assert_eq!(found("m.pkl", b"(cos\nsystem\nS'id'\no."), ["error TS-101 @1 os.system"]);
    assert_eq!(found("m.pkl", b"c__builtin__\neval\n(S'1'\ntR."), ["error TS-101 @0 builtins.eval"]);
    assert_eq!(found("m.pkl", b"csocket\nsocket\n)R."), ["error TS-102 @0 socket.socket"]);
    assert_eq!(found("m.pkl", b"cshutil\nrmtree\n(S'/'\ntR."), ["error TS-103 @0 shutil.rmtree"]);
    assert_eq!(found("m.pkl", b"ccollections\nChainMap\n)R."), ["error TS-104 @0 collections.ChainMap"]);
}

#[test]
fn what_is_unknown_is_a_warning() {
    assert_eq!(found("m.pkl", b"csklearn.svm\nSVC\n)R."), ["warning TS-105 @0 sklearn.svm.SVC"]);
    assert_eq!(found("m.pkl", b"\x80\x02csklearn.svm\nSVC\n)\x81."), ["warning TS-105 @2 sklearn.svm.SVC"]);
    assert_eq!(found("m.pkl", b"csklearn.svm\nSVC\n."), ["warning TS-106 @0 sklearn.svm.SVC"]);
    assert_eq!(found("m.pkl", b"\x80\x04\x8c\x01m\x8c\x03A.B\x93."), ["warning TS-107 @10 m.A.B"]);
    assert_eq!(found("m.pkl", b"cos \nsystem\n."), ["error TS-108 @0 os .system"]);
    assert_eq!(
        found("m.pkl", b"ctorch.nn.modules.linear\nLinear\n)\x81."),
        ["warning TS-116 @0 torch.nn.modules.linear.Linear"]
    );
}

#[test]
fn what_is_called_must_have_a_name() {
    let bytes = b"csklearn.svm\nf\n)R(S'x'\ntR.";
    assert_eq!(found("m.pkl", bytes), ["error TS-109", "warning TS-105 @0 sklearn.svm.f"]);
}

#[test]
fn attributes_are_told_by_what_they_lead_to() {
    // An attribute of an enumeration, as Python 3.11 pickles its members.
    let plain = b"cbuiltins\ngetattr\n(cmymodule\nColour\nVRED\ntR.";
    assert_eq!(
        found("m.pkl", plain),
        ["warning TS-115 @0 builtins.getattr", "warning TS-106 @19 mymodule.Colour"]
    );
    let bytes = b"cbuiltins\ngetattr\n(cos\nenviron\nVcopy\ntR.";
    assert_eq!(found("m.pkl", bytes)[0], "error TS-101 @0 builtins.getattr");
    let bytes = b"cbuiltins\ngetattr\n(cmymodule\nColour\nV__init__\ntR.";
    assert_eq!(found("m.pkl", bytes)[0], "error TS-101 @0 builtins.getattr");
}

#[test]
fn live_objects_and_tensors_are_not_changed() {
    assert_eq!(found("m.pkl", b"cnumpy\nfloat32\n}b.")[0], "error TS-110 @16");
    assert_eq!(found("m.pkl", b"]K\x01K\x02s.")[0], "error TS-111 @5");
    let tensor = b"ctorch._utils\n_rebuild_tensor_v2\n)RK\x01K\x02s.";
    assert_eq!(found("m.pkl", tensor)[0], "error TS-111 torch._utils._rebuild_tensor_v2");
}

#[test]
fn a_payload_after_what_stops_the_machine_is_told() {
    for start in [&b"cnumpy\nfloat32\n}b"[..], b"\x82\x01", b"Pname\n", b"\x97", b"]K\x01K\x02s"] {
        let bytes = [start, b"cos\nsystem\n(S'id'\ntR."].concat();
        assert!(found("m.pkl", &bytes).iter().any(|line| line.ends_with("os.system")), "{start:?}");
        let bytes = [start, b"\x8c\x02os\x94\x8c\x06system\x93(S'id'\ntR."].concat();
        assert!(found("m.pkl", &bytes).iter().any(|line| line.ends_with("os.system")), "{start:?}");
    }
}

#[test]
fn what_is_refused_has_its_rule() {
    for (bytes, rule) in [
        (&b"\x82\x01."[..], "error TS-112 @0"),
        (b"Pname\n.", "warning TS-113 @0"),
        (b"S'x'\nQ.", "warning TS-114"),
        (b"\x97.", "warning TS-206 @0"),
        (b"\x95\x01\0\0\0\0\0\0\0K\x01.", "error TS-205 @9"),
        (b"\x95\x0b\0\0\0\0\0\0\0\x95\x01\0\0\0\0\0\0\0N.", "error TS-205 @9"),
    ] {
        assert!(found("m.pkl", bytes).contains(&rule.to_owned()), "{:?}", found("m.pkl", bytes));
    }
}

#[test]
fn a_pickle_that_breaks_is_inconclusive_and_its_payload_told() {
    let report = scan_bytes("m.pkl", b"\x80\x04", &ScanOptions::default());
    assert_eq!(report.verdict(), Verdict::Inconclusive);
    let broken = found("m.pkl", b"cos\nsystem\n(S'id'\ntR\xff");
    assert_eq!(broken, ["error TS-101 @0 os.system", "inconclusive TS-901 @20"]);
}

#[test]
fn what_follows_the_end_is_told_and_judged() {
    assert_eq!(
        found("m.pkl", b"N.cos\nsystem\n."),
        ["note TS-202 @2", "error TS-101 @2 os.system"]
            .map(String::from)
            .into_iter()
            .rev()
            .collect::<Vec<_>>()
    );
    assert_eq!(found("m.pkl", b"N.\xff\xff\xff"), ["warning TS-201 @2"]);
}

#[test]
fn texts_that_frameworks_import_are_told() {
    let key = |value: &str| format!("}}V_instantiator\nV{value}\ns.");
    let found = |value| found("m.pkl", key(value).as_bytes());
    assert_eq!(found("lightning.pytorch.cli.instantiate_module"), ["warning TS-117"]);
    assert_eq!(found("os.system"), ["error TS-117"]);
}

#[test]
fn pickles_within_texts_and_bytes_are_told() {
    let nested = |bytes: &[u8]| {
        let length = u32::try_from(bytes.len()).unwrap().to_le_bytes();
        found("m.pkl", &[b"\x80\x03B", &length[..], bytes, b"."].concat())
    };
    let payload = b"\x80\x02cos\nsystem\n(S'id'\ntR.";
    assert_eq!(nested(payload), ["error TS-204 @7 os.system"]);
    assert_eq!(nested(b"cos\nsystem\n(S'id'\ntR."), ["error TS-204 @7 os.system"]);
    assert_eq!(nested(b"\x80\x04]\x94(K\x01K\x02K\x03e."), ["note TS-203 @7"]);
    assert_eq!(nested(b"gAJjb3MKc3lzdGVtCihTJ2lkJwp0Ui4="), ["error TS-204 @7 os.system"]);
    assert_eq!(nested(b"8002636f730a73797374656d0a28532769642700"), ["error TS-204 @7 os.system"]);
    assert_eq!(nested(b"cats and dogs\nare no pickles\n"), Vec::<String>::new());
    // Two levels: base64 of a pickle that holds the payload as bytes.
    assert_eq!(nested(&[&b"\x80\x03C\x17"[..], payload, b"."].concat())[0], "error TS-204 @7 os.system");
}

#[test]
fn many_findings_are_counted_and_bounded() {
    let bytes = [&b"cm\nf\n0".repeat(100)[..], b"N."].concat();
    let report = scan_bytes("m.pkl", &bytes, &ScanOptions::default());
    assert_eq!((report.findings.len(), report.findings[0].count), (1, 100));
    let mut bytes: Vec<u8> = (0..2000).flat_map(|i| format!("cm\nf{i}\n0").into_bytes()).collect();
    bytes.extend(b"cos\nsystem\n.");
    let lines = found("m.pkl", &bytes);
    assert_eq!(lines.len(), 1002);
    assert!(lines.iter().any(|line| line.starts_with("error TS-101")));
    assert_eq!(lines.iter().filter(|line| line.starts_with("inconclusive")).count(), 1);
}
