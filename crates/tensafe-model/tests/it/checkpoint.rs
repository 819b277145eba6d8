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
    let model = Checkpoint::open(&index, &lenient).unwrap();
    assert_eq!((model.len(), model.is_whole()), (1, false));
    assert_eq!(model.names().collect::<Vec<_>>(), [("a", 0)]);
    assert_eq!(model.tensors().map(|(_, info)| info.name()).collect::<Vec<_>>(), ["a"]);
    assert_eq!(model.find("extra").unwrap_err().kind(), ErrorKind::NotFound);
}

/// S-32. A name that stands in two shards is that of the shard the index says.
#[test]
fn an_index_says_which_shard_counts() {
    let dir = tempdir().unwrap();
    write(&dir.path().join("one.safetensors"), &[("a", &[1]), ("b", &[2])]);
    write(&dir.path().join("two.safetensors"), &[("a", &[3, 3])]);
    let index = dir.path().join("model.safetensors.index.json");
    write_index(&index, None, &[("a", "two.safetensors"), ("b", "one.safetensors")]);
    let error = open(&index).unwrap_err().to_string();
    assert!(error.contains("`a`") && error.contains("one.safetensors"), "{error}");
    let lenient = OpenOptions::default().with_parse(ParseOptions::with_mode(Mode::Lenient));
    let model = Checkpoint::open(&index, &lenient).unwrap();
    assert_eq!(model.names().collect::<Vec<_>>(), [("a", 1), ("b", 0)]);
    assert_eq!(model.find("a").unwrap().1.shape(), [3, 3]);
}

#[test]
fn tensors_of_several_files_are_found_by_name() {
    let dir = tempdir().unwrap();
    let shapes: Vec<[u64; 1]> = (0..90).map(|i| [i]).collect();
    let names: Vec<String> = (0..90).map(|i| format!("w.{i}")).collect();
    for (place, file) in ["a", "b", "c"].iter().enumerate() {
        // Each third tensor, of as many bytes as its number says.
        let own = (place..90).step_by(3).map(|i| (names[i].as_str(), &shapes[i][..])).collect::<Vec<_>>();
        write(&dir.path().join(format!("{file}.safetensors")), &own);
    }
    let model = open(dir.path()).unwrap();
    let mut expected: Vec<_> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i % 3)).collect();
    expected.sort_unstable();
    assert!(model.names().eq(expected.iter().copied()) && model.is_whole());
    assert_eq!((model.names().len(), model.len(), model.is_empty()), (90, 90, false));
    assert!(model.tensors().map(|(_, info)| info.name()).eq(expected.iter().map(|row| row.0)));
    for (i, name) in names.iter().enumerate() {
        let (file, info) = model.find(name).unwrap();
        assert_eq!((info.name(), info.shape()), (name.as_str(), &shapes[i][..]));
        assert_eq!(file.path(), model.files()[i % 3].path());
    }
    for name in ["", "w.", "w.90", "x"] {
        assert_eq!(model.find(name).unwrap_err().kind(), ErrorKind::NotFound);
    }

    let one = open(dir.path().join("b.safetensors")).unwrap();
    assert_eq!((one.len(), one.find("w.1").unwrap().1.shape()), (30, &[1][..]));
    assert_eq!(one.find("w.0").unwrap_err().kind(), ErrorKind::NotFound);
    assert!(one.names().eq(expected.iter().filter(|row| row.1 == 1).map(|row| (row.0, 0))));
    let none = Checkpoint::from_files(Vec::new()).unwrap();
    assert_eq!((none.len(), none.names().count(), none.find("a").is_err()), (0, 0, true));
}

/// S-32. In the order of the files, and of the bytes in them.
#[test]
fn of_several_names_that_stand_twice_the_first_is_told() {
    let dir = tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(&path("1.safetensors"), &[("a", &[1]), ("b", &[1]), ("x", &[1])]);
    write(&path("2.safetensors"), &[("y", &[1]), ("c", &[1])]);
    write(&path("3.safetensors"), &[("b", &[1]), ("c", &[1]), ("y", &[1])]);
    write(&path("4.safetensors"), &[("a", &[1]), ("b", &[1])]);
    let error = open(dir.path()).unwrap_err().to_string();
    for part in ["`b`", "1.safetensors", "3.safetensors"] {
        assert!(error.contains(part), "{error}");
    }
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
