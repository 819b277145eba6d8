use std::{fs, path::Path};

use insta::assert_snapshot;

use crate::Place;

/// A directory with a file that torch wrote.
fn with(name: &str) -> Place {
    let place = Place::new();
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/pickles/benign/torch-2.15.0");
    fs::copy(corpus.join(name), place.path(name)).unwrap();
    place
}

#[test]
fn a_checkpoint_is_converted_beside_itself() {
    let place = with("tied_weights.pt");
    assert_snapshot!(place.run(&["convert", "tied_weights.pt"]));
    assert!(place.path("tied_weights.safetensors").exists());
}

#[test]
fn shards_and_values_are_told() {
    let place = with("checkpoint_with_optimizer.pt");
    let arguments = [
        "convert",
        "checkpoint_with_optimizer.pt",
        "out/",
        "--max-shard-size",
        "16B",
        "--dtype",
        "bf16",
        "--exclude",
        "optimizer.*",
        "--sidecar",
        "values.json",
    ];
    assert_snapshot!(place.run(&arguments));
    assert!(place.path("values.json").exists());
}

#[test]
fn nothing_is_written_by_a_dry_run() {
    let place = with("dtypes.pt");
    assert_snapshot!(place.run(&["convert", "dtypes.pt", "out.safetensors", "--dry-run"]));
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 1);
}

#[test]
fn a_file_that_is_there_is_replaced_on_request_alone() {
    let place = with("state_dict.pt");
    fs::write(place.path("out.safetensors"), "old").unwrap();
    assert_snapshot!(place.run(&["convert", "state_dict.pt", "out.safetensors"]));
    assert_eq!(fs::read(place.path("out.safetensors")).unwrap(), b"old");
    let forced =
        place.output(&["convert", "state_dict.pt", "out.safetensors", "--force", "--format", "quiet"]);
    assert_eq!(String::from_utf8(forced.stdout).unwrap(), "out.safetensors\n");
}

#[test]
fn what_is_unknown_is_refused_with_its_name_and_the_way_on() {
    let place = Place::new();
    fs::write(place.path("evil.pkl"), b"\x80\x02cos\nsystem\nX\x02\0\0\0id\x85R.").unwrap();
    assert_snapshot!(place.run(&["convert", "evil.pkl"]));
    assert_snapshot!(place.run(&["convert", "evil.pkl", "--salvage"]));
    assert_eq!(fs::read_dir(place.path(".")).unwrap().count(), 1);
}

#[test]
fn sparse_and_unsupported_tensors_tell_the_way_on() {
    assert_snapshot!(with("sparse_coo.pt").run(&["convert", "sparse_coo.pt"]));
    assert_snapshot!(with("dtype_complex128.pt").run(&["convert", "dtype_complex128.pt"]));
}

#[test]
fn wrong_options_are_told() {
    let place = with("state_dict.pt");
    for (options, number) in [
        (["--max-shard-size", "5 bananas"], 1),
        (["--rename", "("], 2),
        (["--rename", "(=x"], 3),
        (["--select", "[a"], 4),
    ] {
        let told = place.run(&[&["convert", "state_dict.pt"][..], &options[..]].concat());
        assert_snapshot!(format!("wrong_option_{number}"), told);
    }
}

#[test]
fn json_is_the_report() {
    let place = with("tied_weights.pt");
    let report = place.json(&["convert", "tied_weights.pt", "--format", "json"]);
    assert_eq!(report["schema"], "tensafe.convert/1");
    assert_eq!(report["output"], "tied_weights.safetensors");
    assert!(!report["tensors"].as_array().unwrap().is_empty());
}

#[test]
fn names_that_would_steer_a_terminal_are_escaped() {
    let place = Place::new();
    fs::write(place.path("x.pkl"), b"\x80\x02c\x1b[31mred\n\x1b[2Jclear\n)R.").unwrap();
    let told = place.run(&["convert", "x.pkl"]);
    assert!(!told.contains('\x1b'), "{told:?}");
    let scanned = place.run(&["scan", "x.pkl"]);
    assert!(!scanned.contains('\x1b'), "{scanned:?}");
}
