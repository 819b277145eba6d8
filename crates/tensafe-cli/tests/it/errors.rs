use insta::assert_snapshot;

use crate::{DAMAGED, Place, small};

#[test]
fn bad_input_is_one_sentence_and_a_way_on() {
    let place = Place::new();
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    assert_snapshot!(place.run(&["inspect", "damaged.safetensors"]));
}

#[test]
fn what_lenient_reads_says_so_and_lenient_reads_it() {
    let place = Place::new();
    let header = r#"{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"more":1}}"#;
    place.write_raw("more.safetensors", header, 1);
    let strict = place.run(&["inspect", "more.safetensors"]);
    let lenient = place.run(&["inspect", "more.safetensors", "--lenient"]);
    assert_snapshot!(format!("{strict}\n{lenient}"));
    let place = place.with("TENSAFE_LENIENT", "1");
    assert_eq!(place.run(&["inspect", "more.safetensors"]), lenient);
}

#[test]
fn another_format_is_named() {
    let place = Place::new();
    std::fs::write(place.path("model.safetensors"), b"PK\x03\x04\x14\x00\x00\x00\x00\x00").unwrap();
    assert_snapshot!(place.run(&["inspect", "model.safetensors"]));
}

#[test]
fn a_missing_file_and_a_pattern_without_a_match_are_errors() {
    let place = Place::new();
    place.write("m.safetensors", small(), &[]);
    assert_snapshot!(place.run(&["inspect", "gone.safetensors", "*.nothing", "--flat", "m.safetensors"]));
}

#[test]
fn a_word_that_is_no_command_and_no_file_is_told_as_both() {
    assert_snapshot!(Place::new().run(&["inspekt"]));
}

#[test]
fn a_directory_without_weights_is_an_error() {
    let place = Place::new();
    std::fs::create_dir(place.path("empty")).unwrap();
    assert_snapshot!(place.run(&["verify", "empty"]));
}

#[test]
fn an_unknown_option_is_an_error() {
    assert_snapshot!(Place::new().run(&["inspect", "--depth", "2", "m.safetensors"]));
}

#[test]
fn a_filter_that_is_no_pattern_is_an_error() {
    assert_snapshot!(Place::new().run(&["inspect", "--filter", "a[", "m.safetensors"]));
}

#[cfg(unix)]
#[test]
fn a_file_that_may_not_be_read_is_an_error() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    place.write("secret.safetensors", small(), &[]);
    let path = place.path("secret.safetensors");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o000)).unwrap();
    // Root reads everything.
    if std::fs::read(&path).is_err() {
        assert_snapshot!(place.run(&["verify", "secret.safetensors"]));
    }
}
