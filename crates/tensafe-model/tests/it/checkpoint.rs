use std::fs;

use tempfile::tempdir;
use tensafe_format::{Mode, ParseOptions, Rule};
use tensafe_model::{Checkpoint, Error, ErrorKind, Located, OpenOptions, locate};

use crate::{write, write_index};

fn open(path: impl AsRef<std::path::Path>) -> Result<Checkpoint, Error> {
    Checkpoint::open(path, &OpenOptions::default())
}

#[test]
fn a_directory_is_its_index_before_its_whole_file_before_all_its_files() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    assert_eq!(open(dir.path()).unwrap_err().kind(), ErrorKind::NotFound);

    write(&path("lora_a.safetensors"), &[("a", &[1])]);
    write(&path("lora_b.safetensors"), &[("b", &[2])]);
    fs::write(path(".half-written.safetensors"), "no").unwrap();
    assert_eq!(open(dir.path()).unwrap().len(), 2);

    write(&path("model.safetensors"), &[("whole", &[3])]);
    let model = open(dir.path()).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), [("whole", 0)]);

    write_index(&path("model.safetensors.index.json"), None, &[("a", "lora_a.safetensors")]);
    let model = open(dir.path()).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), [("a", 0)]);
    assert!(matches!(locate(dir.path()).unwrap(), Located::Index { .. }));
}

/// S-32.
#[test]
fn refuses_an_index_that_names_a_tensor_its_shard_does_not_hold() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("one.safetensors"), &[("a", &[1])]);
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, None, &[("a", "one.safetensors"), ("b", "one.safetensors")]);
    let error = open(&index).unwrap_err();
    assert_eq!((error.kind(), error.rule()), (ErrorKind::Format, Some(Rule::INDEX_MATCHES)), "{error}");
}

/// S-32.
#[test]
fn refuses_a_tensor_that_the_index_does_not_name_unless_lenient() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("one.safetensors"), &[("a", &[1]), ("extra", &[1])]);
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, None, &[("a", "one.safetensors")]);
    let error = open(&index).unwrap_err();
    assert_eq!(error.rule(), Some(Rule::INDEX_MATCHES), "{error}");
    let lenient = OpenOptions::default().with_parse(ParseOptions::with_mode(Mode::Lenient));
    assert_eq!(Checkpoint::open(&index, &lenient).unwrap().len(), 1);
}

/// S-31.
#[test]
fn refuses_an_index_that_reaches_outside_of_its_directory() {
    let dir = tempdir().unwrap();
    fs::create_dir(dir.path().join("in")).unwrap();
    write(&dir.path().join("secret.safetensors"), &[("a", &[1])]);
    let index = dir.path().join("in/model.safetensors.index.json");
    write_index(&index, None, &[("a", "../secret.safetensors")]);
    let error = open(&index).unwrap_err();
    assert_eq!(error.rule(), Some(Rule::SHARD_PATH), "{error}");
}

/// S-32.
#[test]
fn refuses_a_name_that_stands_in_two_files_of_a_directory() {
    let dir = tempdir().unwrap();
    for name in ["one.safetensors", "two.safetensors"] {
        write(&dir.path().join(name), &[("a", &[1])]);
    }
    let error = open(dir.path()).unwrap_err();
    assert_eq!(error.rule(), Some(Rule::INDEX_MATCHES));
    let text = error.to_string();
    assert!(text.contains("one.safetensors") && text.contains("two.safetensors"), "{text}");
}

#[test]
fn a_missing_shard_is_not_found() {
    let dir = tempdir().unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, None, &[("a", "one.safetensors")]);
    assert_eq!(open(&index).unwrap_err().kind(), ErrorKind::NotFound);
}
