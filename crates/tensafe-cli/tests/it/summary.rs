use insta::assert_snapshot;

use crate::{DAMAGED, Place, llama, small};

#[test]
fn a_bare_path_is_summarized() {
    let place = Place::new();
    place.write("llama.safetensors", llama(32), &[("format", "pt"), ("ss_steps", "1000")]);
    assert_snapshot!(place.run(&["llama.safetensors"]));
}

#[test]
fn a_damaged_file_is_summarized_as_far_as_it_goes() {
    let place = Place::new();
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    assert_snapshot!(place.run(&["damaged.safetensors"]));
}

#[test]
fn several_paths_are_several_cards() {
    let place = Place::new();
    place.write("a.safetensors", small(), &[("format", "pt")]);
    place.write("b.safetensors", small(), &[]);
    assert_snapshot!(place.run(&["a.safetensors", "b.safetensors"]));
}

#[test]
fn json_and_quiet_give_the_verdict() {
    let place = Place::new();
    place.write("a.safetensors", small(), &[("format", "pt")]);
    place.write_raw("damaged.safetensors", DAMAGED, 60);
    let json = place.run(&["--format", "json", "a.safetensors", "damaged.safetensors"]);
    let quiet = place.run(&["a.safetensors", "damaged.safetensors", "--format", "quiet"]);
    assert_snapshot!(format!("{json}\n{quiet}"));
}
