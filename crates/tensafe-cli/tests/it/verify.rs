use std::fs;

use insta::assert_snapshot;

use crate::{DAMAGED, Place, small};

#[test]
fn a_good_file_is_one_line() {
    let place = Place::new();
    place.write("good.safetensors", small(), &[("format", "pt")]);
    assert_snapshot!(place.run(&["verify", "good.safetensors"]));
}

#[test]
fn the_map_of_a_good_file_can_be_asked_for() {
    let place = Place::new();
    place.write("good.safetensors", small(), &[("format", "pt")]);
    assert_snapshot!(place.run(&["verify", "good.safetensors", "--map"]));
}

#[test]
fn a_damaged_file_is_told_in_full_with_a_map_of_its_bytes() {
    let place = Place::new();
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    assert_snapshot!(place.run(&["verify", "damaged.safetensors"]));
}

#[test]
fn a_file_cut_off_in_its_header_is_described_as_far_as_it_goes() {
    let place = Place::new();
    place.write_raw("cut.safetensors", DAMAGED, 0);
    let bytes = fs::read(place.path("cut.safetensors")).unwrap();
    fs::write(place.path("cut.safetensors"), &bytes[..160]).unwrap();
    assert_snapshot!(place.run(&["verify", "cut.safetensors"]));
}

#[test]
fn a_pointer_to_weights_is_named() {
    let place = Place::new();
    fs::write(place.path("model.safetensors"), "version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
        .unwrap();
    assert_snapshot!(place.run(&["verify", "model.safetensors"]));
}

#[test]
fn what_the_reference_reads_past_is_marked() {
    let place = Place::new();
    place.write_raw(
        "twice.safetensors",
        r#"{"a":["U8",[1],[0,1]],"\u0061":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}"#,
        1,
    );
    assert_snapshot!(place.run(&["verify", "twice.safetensors"]));
}

#[test]
fn names_that_look_alike_or_are_not_seen_are_warned_of() {
    let place = Place::new();
    let entry = |name: &str, at: u32| {
        format!(r#""{name}":{{"dtype":"U8","shape":[1],"data_offsets":[{at},{}]}}"#, at + 1)
    };
    let entries = [entry("caf\u{e9}", 0), entry("cafe\u{301}", 1), entry("a\\u202eb", 2)];
    place.write_raw("names.safetensors", &format!("{{{}}}", entries.join(",")), 3);
    assert_snapshot!(place.run(&["verify", "names.safetensors"]));
}

#[test]
fn wrong_bools_are_found_by_deep() {
    let place = Place::new();
    place.write_raw(
        "bool.safetensors",
        r#"{"__metadata__":{"format":"pt"},"mask":{"dtype":"BOOL","shape":[4],"data_offsets":[0,4]}}"#,
        4,
    );
    let mut bytes = fs::read(place.path("bool.safetensors")).unwrap();
    *bytes.last_mut().unwrap() = 7;
    fs::write(place.path("bool.safetensors"), bytes).unwrap();
    assert_snapshot!(place.run(&["verify", "bool.safetensors", "--deep"]));
}

#[test]
fn an_index_and_its_shards_are_held_against_each_other() {
    let place = Place::new();
    place.write("model/one-00001-of-00002.safetensors", small(), &[("format", "pt")]);
    let map = [
        ("fc.bias", "one-00001-of-00002.safetensors"),
        ("fc.weight", "one-00001-of-00002.safetensors"),
        ("head", "one-00001-of-00002.safetensors"),
        ("tail", "one-00002-of-00002.safetensors"),
    ];
    place.write_index("model/model.safetensors.index.json", Some(1), &map);
    assert_snapshot!(place.run(&["verify", "model"]));
}

#[test]
fn an_index_that_reaches_outside_is_refused() {
    let place = Place::new();
    place.write_index("model.safetensors.index.json", None, &[("a", "../secret.safetensors")]);
    assert_snapshot!(place.run(&["verify", "model.safetensors.index.json"]));
}

fn batch() -> Place {
    let place = Place::new();
    place.write("good.safetensors", small(), &[("format", "pt")]);
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    place
}

#[test]
fn a_bad_file_does_not_stop_a_batch() {
    assert_snapshot!(batch().run(&["verify", "damaged.safetensors", "gone.safetensors", "good.safetensors"]));
}

#[test]
fn quiet_prints_the_bad_ones() {
    assert_snapshot!(batch().run(&["verify", "*.safetensors", "--format", "quiet"]));
}

#[test]
fn json_has_a_schema_findings_and_segments() {
    assert_snapshot!(batch().run(&["verify", "damaged.safetensors", "--format", "json"]));
}
