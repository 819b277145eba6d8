use insta::assert_snapshot;
use tensafe::{Dtype, TensorSpec};

use crate::{Place, llama, small};

fn one_model() -> Place {
    let place = Place::new();
    place.write("llama.safetensors", llama(32), &[("format", "pt")]);
    place
}

#[test]
fn a_model_is_a_tree_with_equal_layers_folded() {
    assert_snapshot!(one_model().run(&["inspect", "llama.safetensors"]));
}

#[test]
fn narrow_terminals_lose_columns_and_the_middle_of_names() {
    assert_snapshot!(one_model().with("COLUMNS", "60").run(&["inspect", "llama.safetensors"]));
}

#[test]
fn very_narrow_terminals_keep_names_and_sizes() {
    assert_snapshot!(one_model().with("COLUMNS", "30").run(&["inspect", "llama.safetensors"]));
}

#[test]
fn nothing_is_cut_when_asked_not_to() {
    let place = one_model().with("COLUMNS", "40");
    assert_snapshot!(place.run(&["inspect", "llama.safetensors", "--no-truncate", "--filter", "norm"]));
}

#[test]
fn flat_lists_every_tensor_in_natural_order() {
    let place = Place::new();
    place.write("llama.safetensors", llama(11), &[("format", "pt")]);
    assert_snapshot!(place.run(&[
        "inspect",
        "llama.safetensors",
        "--flat",
        "--filter",
        "*.input_layernorm.*"
    ]));
}

#[test]
fn quiet_prints_bare_names() {
    let place = Place::new();
    place.write("m.safetensors", small(), &[]);
    assert_snapshot!(place.run(&["inspect", "m.safetensors", "--format", "quiet"]));
}

#[test]
fn json_has_a_schema_and_every_tensor() {
    let place = Place::new();
    place.write("m.safetensors", small(), &[("format", "pt"), ("config", r#"{"b":[1,2],"a":null}"#)]);
    assert_snapshot!(place.run(&["inspect", "m.safetensors", "--format", "json"]));
}

#[test]
fn json_holds_the_errors_too() {
    let place = Place::new();
    place.write("m.safetensors", small(), &[]);
    assert_snapshot!(place.run(&["inspect", "m.safetensors", "gone.safetensors", "--format", "json"]));
}

fn sharded() -> Place {
    let place = Place::new();
    let mut map = Vec::new();
    let specs = llama(4);
    for number in 1..=2usize {
        let name = format!("model-0000{number}-of-00002.safetensors");
        let part: Vec<TensorSpec> = specs.iter().skip(number - 1).step_by(2).cloned().collect();
        map.extend(part.iter().map(|spec| (spec.name.clone(), name.clone())));
        place.write(&format!("model/{name}"), part, &[("format", "pt")]);
    }
    let map: Vec<(&str, &str)> = map.iter().map(|(name, file)| (name.as_str(), file.as_str())).collect();
    place.write_index("model/model.safetensors.index.json", Some(2_143_559_680), &map);
    place
}

#[test]
fn a_directory_of_shards_is_one_model() {
    assert_snapshot!(sharded().run(&["inspect", "model"]));
}

#[test]
fn an_index_and_a_pattern_and_the_shards_by_name_show_the_same_tensors() {
    let place = sharded();
    let names = |arguments: &[&str]| {
        let json = place.json(&[&["inspect", "--format", "json"], arguments].concat());
        let [model] = &json["models"].as_array().unwrap()[..] else { panic!("one model: {json}") };
        model["tensors"].as_array().unwrap().iter().map(|t| t["name"].clone()).collect::<Vec<_>>()
    };
    let whole = names(&["model"]);
    assert_eq!(whole.len(), 43);
    assert_eq!(names(&["model/model.safetensors.index.json"]), whole);
    assert_eq!(names(&["model/*.safetensors"]), whole);
    let shards = ["model/model-00002-of-00002.safetensors", "model/model-00001-of-00002.safetensors"];
    assert_eq!(names(&shards), whole);
}

#[test]
fn metadata_that_holds_json_is_unfolded_and_controls_are_escaped() {
    let place = Place::new();
    let tags: Vec<String> = (0..30).map(|i| format!(r#""tag {i}":{i}"#)).collect();
    place.write(
        "lora.safetensors",
        small(),
        &[
            ("ss_network_dim", "32"),
            ("ss_tag_frequency", &format!(r#"{{"10_set":{{{}}}}}"#, tags.join(","))),
            (
                "ss_bucket_info",
                r#"{"buckets":{"0":{"resolution":[512,768],"count":4}},"mean":0.5,"empty":{}}"#,
            ),
            ("not_json", "{oops"),
            ("title", "red \u{1b}[31m and\nback \u{202e}"),
            ("thumbnail", &"data:image/png;base64,AAAA".repeat(40)),
        ],
    );
    assert_snapshot!(place.with("COLUMNS", "72").run(&["inspect", "lora.safetensors"]));
}

#[test]
fn names_that_would_steer_a_terminal_are_escaped() {
    let place = Place::new();
    let names = ["", "a\u{1b}[2Jb", "new\nline", "日本.重み", "x"];
    let specs = names.iter().map(|name| TensorSpec::new(*name, Dtype::U8, [1])).collect();
    place.write("odd.safetensors", specs, &[]);
    assert_snapshot!(place.run(&["inspect", "odd.safetensors"]));
}

#[test]
fn a_filter_that_nothing_matches_is_a_negative_answer() {
    assert_snapshot!(one_model().run(&["inspect", "llama.safetensors", "--filter", "lora"]));
}

#[test]
fn a_file_without_tensors_is_a_card() {
    let place = Place::new();
    place.write("empty.safetensors", Vec::new(), &[]);
    assert_snapshot!(place.run(&["inspect", "empty.safetensors"]));
}

#[test]
fn a_hundred_thousand_tensors_are_shown() {
    let place = Place::new();
    let spec = |i: u64| TensorSpec::new(format!("blocks.{i}.w{}", i % 7), Dtype::U8, [4, i % 3]);
    place.write("huge.safetensors", (0..100_000).map(spec).collect(), &[]);
    let lines = |arguments: &[&str]| {
        let output = place.output(arguments);
        assert_eq!(output.status.code(), Some(0));
        output.stdout.iter().filter(|byte| **byte == b'\n').count()
    };
    assert!(lines(&["inspect", "huge.safetensors"]) > 100_000);
    assert!(lines(&["inspect", "huge.safetensors", "--flat"]) > 100_000);
    assert_eq!(lines(&["inspect", "huge.safetensors", "--format", "quiet"]), 100_000);
}

#[test]
fn explain_tells_what_loading_would_read() {
    let place = one_model();
    assert_snapshot!(place.run(&["inspect", "llama.safetensors", "--explain", "--filter", "down_proj"]));
}

#[test]
fn the_part_of_a_rank_is_explained() {
    let place = one_model();
    let arguments =
        ["inspect", "llama.safetensors", "--shard", "0:1/4", "--filter", "layers.3.", "--format", "json"];
    assert_snapshot!(place.run(&arguments));
    assert_snapshot!(place.run(&["inspect", "llama.safetensors", "--shard", "0:4/4"]));
}
