//! Every page of the program as a snapshot: exit code, stdout and stderr together. Each test runs
//! the program in a directory of its own, so that paths are short and the same everywhere.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod convert;
mod errors;
mod help;
mod inspect;
mod scan;
mod summary;
mod verify;

use std::{
    fs,
    io::Read as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use tempfile::TempDir;
use tensafe::{Dtype, Layout, LayoutOptions, Metadata, ShardIndex, TensorSpec};

/// A directory to run the program in.
struct Place {
    directory: TempDir,
    environment: Vec<(&'static str, &'static str)>,
}

impl Place {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap(), environment: Vec::new() }
    }

    fn with(mut self, key: &'static str, value: &'static str) -> Self {
        self.environment.push((key, value));
        self
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Writes a file of these tensors whose data is a hole: as large as a model and as small as
    /// its header.
    fn write(&self, name: &str, specs: Vec<TensorSpec>, metadata: &[(&str, &str)]) {
        let metadata: Metadata = metadata.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let layout = Layout::new(specs, Some(&metadata), &LayoutOptions::default()).unwrap();
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, layout.header_bytes()).unwrap();
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(layout.file_bytes()).unwrap();
    }

    /// Writes a file of this text as its header, padded to 8, and so many bytes of data.
    fn write_raw(&self, name: &str, header: &str, data_bytes: usize) {
        let text = header.to_owned() + &" ".repeat(header.len().next_multiple_of(8) - header.len());
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.extend(text.as_bytes());
        bytes.resize(bytes.len() + data_bytes, 0);
        fs::write(self.path(name), bytes).unwrap();
    }

    fn write_index(&self, name: &str, total_size: Option<u64>, map: &[(&str, &str)]) {
        let weight_map = map.iter().map(|(name, file)| ((*name).to_owned(), (*file).to_owned())).collect();
        fs::write(self.path(name), ShardIndex { weight_map, total_size, ..Default::default() }.to_json())
            .unwrap();
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tensafe"));
        command.args(arguments).current_dir(self.directory.path());
        for key in ["NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE", "COLUMNS", "LINES", "TENSAFE_LENIENT", "TERM"] {
            command.env_remove(key);
        }
        command.envs(self.environment.iter().copied());
        command
    }

    fn output(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// What the program says to these arguments.
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        let text = |bytes| String::from_utf8(bytes).unwrap();
        format!(
            "exit code: {}\n----- stdout -----\n{}----- stderr -----\n{}",
            output.status.code().unwrap(),
            text(output.stdout),
            text(output.stderr)
        )
    }

    fn json(&self, arguments: &[&str]) -> serde_json::Value {
        serde_json::from_slice(&self.output(arguments).stdout).unwrap()
    }
}

/// The tensors of a small model of the usual build.
fn llama(layers: u64) -> Vec<TensorSpec> {
    let (wide, inner, words) = (4096, 11008, 32000);
    let spec = |name: String, shape: &[u64]| TensorSpec::new(name, Dtype::BF16, shape);
    let mut specs = vec![
        spec("lm_head.weight".into(), &[words, wide]),
        spec("model.embed_tokens.weight".into(), &[words, wide]),
        spec("model.norm.weight".into(), &[wide]),
    ];
    for layer in 0..layers {
        let name = |part: &str| format!("model.layers.{layer}.{part}");
        for part in ["q", "k", "v", "o"] {
            specs.push(spec(name(&format!("self_attn.{part}_proj.weight")), &[wide, wide]));
        }
        specs.push(spec(name("mlp.gate_proj.weight"), &[inner, wide]));
        specs.push(spec(name("mlp.up_proj.weight"), &[inner, wide]));
        specs.push(spec(name("mlp.down_proj.weight"), &[wide, inner]));
        specs.push(spec(name("input_layernorm.weight"), &[wide]));
        specs.push(spec(name("post_attention_layernorm.weight"), &[wide]));
        specs.push(TensorSpec::new(name("self_attn.rotary_emb.inv_freq"), Dtype::F32, [64]));
    }
    specs
}

/// Three small tensors.
fn small() -> Vec<TensorSpec> {
    vec![
        TensorSpec::new("fc.bias", Dtype::F32, [4]),
        TensorSpec::new("fc.weight", Dtype::F32, [4, 8]),
        TensorSpec::new("step", Dtype::I64, []),
    ]
}

/// A header with a gap, an overlap, a wrong size and more than the file holds.
const DAMAGED: &str = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"b":{"dtype":"F32","shape":[4],"data_offsets":[24,40]},"c":{"dtype":"F32","shape":[4],"data_offsets":[32,48]},"d":{"dtype":"F32","shape":[4],"data_offsets":[48,80]}}"#;

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let place = Place::new();
    let specs = (0..20_000).map(|i| TensorSpec::new(format!("t{i}.weight"), Dtype::U8, [1])).collect();
    place.write("many.safetensors", specs, &[]);
    let mut command = place.command(&["inspect", "many.safetensors", "--flat"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    stdout.read_exact(&mut [0; 16]).unwrap();
    drop(stdout);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), "");
}

#[test]
fn colour_is_for_terminals_and_can_be_asked_for() {
    let page = |place: Place, arguments: &[&str]| {
        place.write("m.safetensors", small(), &[]);
        place.run(arguments).contains('\u{1b}')
    };
    let ask = ["inspect", "m.safetensors"];
    let insist = ["inspect", "m.safetensors", "--color", "always"];
    assert!(!page(Place::new(), &ask));
    assert!(page(Place::new(), &insist));
    assert!(page(Place::new().with("CLICOLOR_FORCE", "1"), &ask));
    assert!(!page(Place::new().with("CLICOLOR_FORCE", "1").with("NO_COLOR", "1"), &ask));
    assert!(!page(
        Place::new().with("CLICOLOR_FORCE", "1"),
        &["inspect", "m.safetensors", "--color", "never"]
    ));
}
