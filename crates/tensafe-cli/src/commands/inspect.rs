//! `tensafe inspect`: the tensors of a model, as a tree or as a list.

use std::{
    cell::OnceCell,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use serde_json::{Map, Value};
use tensafe::{
    Access, Checkpoint, Dtype, ErrorKind, Metadata, Mode, OpenOptions, ParseOptions, Plan, Selection,
    TensorInfo, Totals, Tree, foreign_format, natural_cmp,
};

use super::{DtypeFigures, Failure, Figures, Outcome, Page, dtype_figures};
use crate::inputs::{self, Input};

const EXAMPLES: &str = "\
Examples:
  tensafe inspect model.safetensors
  tensafe inspect model/                               every shard of a directory as one model
  tensafe inspect model.safetensors.index.json
  tensafe inspect 'checkpoints/*.safetensors'
  tensafe inspect model/ --filter 'model.layers.0.*'   a part, as a tree
  tensafe inspect model/ --flat --filter norm          every tensor that has `norm` in its name
  tensafe inspect model/ --format quiet | head -1      bare names, one a line
  tensafe inspect model/ --explain                     what loading it would read, and how
  tensafe inspect model/ --shard 0:1/4 --filter q_proj the same for rank 1 of 4, cut along dimension 0

Equal layers are folded: `layers.0-31` stands for 32 of them, and its figures are those of all.
Sizes are decimal: 1 GB is 1,000,000,000 bytes.

Exit codes:
  0  good    1  no tensor matches the filter    2  an error";

/// Show the tensors of a model: names, shapes, dtypes, sizes, metadata
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct InspectArgs {
    /// Files, directories, indices of shards (`*.index.json`) or patterns
    #[arg(required = true, value_name = "PATH")]
    paths: Vec<PathBuf>,

    /// List every tensor by its whole name instead of a tree
    #[arg(long)]
    flat: bool,

    /// Only tensors whose name holds this text, or matches it where it has `*`, `?` or `[`
    #[arg(short, long, value_name = "PATTERN")]
    filter: Option<String>,

    /// Tell what loading these tensors into memory would read now: bytes, requests, memory, and by what
    /// means each range is read, and why
    #[arg(long)]
    explain: bool,

    /// Explain the part of one rank: the dimension, and which of how many, such as `0:1/4`; tensors
    /// without that dimension are whole
    #[arg(long, value_name = "DIM:RANK/WORLD", value_parser = shard)]
    shard: Option<Shard>,

    /// Read what the reference implementation reads beyond the published format
    #[arg(long, env = "TENSAFE_LENIENT", hide_env_values = true, value_parser = clap::builder::FalseyValueParser::new())]
    lenient: bool,
}

/// A dimension that is cut, and which of how many parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Shard {
    dimension: usize,
    rank: u64,
    world: u64,
}

/// Reads `DIM:RANK/WORLD`.
fn shard(text: &str) -> Result<Shard, String> {
    let parts = text.split_once(':').and_then(|(dimension, rest)| {
        let (rank, world) = rest.split_once('/')?;
        Some(Shard {
            dimension: dimension.parse().ok()?,
            rank: rank.parse().ok()?,
            world: world.parse().ok()?,
        })
    });
    let parts = parts.filter(|shard| shard.rank < shard.world);
    parts.ok_or_else(|| "needed a dimension, a rank and how many there are, such as `0:1/4`".to_owned())
}

/// The models that were asked for.
#[derive(Debug)]
pub(crate) struct Inspection {
    pub(crate) models: Vec<Model>,
    pub(crate) flat: bool,
}

/// A model and the part of it that is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Model {
    pub(crate) path: String,
    pub(crate) kind: &'static str,
    pub(crate) totals: Figures,
    pub(crate) dtypes: Vec<DtypeFigures>,
    pub(crate) files: Vec<FileFacts>,
    pub(crate) metadata: Option<Metadata>,
    /// The values of the metadata that hold a JSON object or array.
    pub(crate) unfolded: Map<String, Value>,
    /// The figures of what a filter leaves, or of all.
    pub(crate) shown: Figures,
    pub(crate) tensors: Vec<Row>,
    /// What loading the tensors that are shown would read, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) explain: Option<Explained>,
    #[serde(skip)]
    pub(crate) tree: Tree,
}

#[derive(Debug, Serialize)]
pub(crate) struct FileFacts {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) header_bytes: u64,
    pub(crate) tensors: usize,
}

/// What a plan would cost now.
#[derive(Debug, Serialize)]
pub(crate) struct Explained {
    pub(crate) tensors: u64,
    pub(crate) bytes_needed: u64,
    pub(crate) bytes_read: u64,
    pub(crate) amplification: f64,
    pub(crate) requests: u64,
    pub(crate) workers: u64,
    pub(crate) peak_memory: u64,
    pub(crate) ranges: Vec<ExplainedRange>,
}

/// A range that is read by one means for one reason.
#[derive(Debug, Serialize)]
pub(crate) struct ExplainedRange {
    /// The place of its file in `files`.
    pub(crate) file: usize,
    pub(crate) range: (u64, u64),
    pub(crate) method: &'static str,
    pub(crate) why: &'static str,
    pub(crate) needed: u64,
    pub(crate) read: u64,
    pub(crate) requests: u64,
}

/// One tensor.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    #[serde(serialize_with = "dtype_name")]
    pub(crate) dtype: Dtype,
    pub(crate) shape: Vec<u64>,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
    /// The place of its file in `files`.
    pub(crate) file: usize,
    pub(crate) data_offsets: (u64, u64),
}

fn dtype_name<S: serde::Serializer>(dtype: &Dtype, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(dtype.name())
}

pub(crate) fn run(args: &InspectArgs) -> Outcome {
    let mode = if args.lenient { Mode::Lenient } else { Mode::Strict };
    let options = OpenOptions::default().with_parse(ParseOptions::with_mode(mode)).with_access(Access::Owned);
    let filter = match args.filter.as_deref().map(Filter::new).transpose() {
        Ok(filter) => filter,
        Err(failure) => return outcome(Vec::new(), vec![failure], args),
    };
    let (inputs, mut failures) = inputs::resolve(&args.paths);
    let mut models = Vec::new();
    for input in &inputs {
        match input.open(&options) {
            Ok(checkpoint) => {
                let mut model = model(input, &checkpoint, filter.as_ref());
                match explained(&checkpoint, &model, args) {
                    Ok(explained) => model.explain = explained,
                    Err(error) => failures.push(Failure::of(&input.label, &error)),
                }
                models.push(model);
            }
            Err(error) => {
                let hint = hint(input, &error);
                failures.push(Failure::of(&input.label, &error).with_hint(hint));
            }
        }
    }
    outcome(models, failures, args)
}

fn outcome(models: Vec<Model>, failures: Vec<Failure>, args: &InspectArgs) -> Outcome {
    let nothing = args.filter.is_some() && models.iter().all(|model| model.tensors.is_empty());
    let negative = nothing && failures.is_empty();
    let hints = match &args.filter {
        Some(filter) if negative => vec![format!("no tensor matches `{filter}`")],
        _ => Vec::new(),
    };
    Outcome { page: Page::Inspect(Inspection { models, flat: args.flat }), failures, hints, negative }
}

/// The way on from an input that could not be opened.
fn hint(input: &Input, error: &tensafe::Error) -> Option<String> {
    let label = &input.label;
    if error.as_file().and_then(|e| e.as_format()).is_some_and(|e| e.is_lenient()) {
        return Some("`--lenient` reads it as the reference implementation does".to_owned());
    }
    if let Some(what) = error.as_file().and_then(|e| e.path()).and_then(foreign) {
        let pickles = ["pickle", "zip", "numpy"].iter().any(|word| what.contains(word));
        let way =
            if pickles { format!("; `tensafe convert {label}` reads such files") } else { String::new() };
        return Some(format!("the file looks like {what}{way}"));
    }
    match error.kind() {
        ErrorKind::Format | ErrorKind::Limit => {
            Some(format!("`tensafe verify {label}` tells everything that is wrong with it"))
        }
        _ => None,
    }
}

/// What a file is that is no safetensors file, if that can be told.
fn foreign(path: &Path) -> Option<&'static str> {
    let mut start = Vec::new();
    File::open(path).ok()?.take(64).read_to_end(&mut start).ok()?;
    foreign_format(&start)
}

fn model(input: &Input, checkpoint: &Checkpoint, filter: Option<&Filter>) -> Model {
    let mut tensors: Vec<(usize, TensorInfo<'_>)> = checkpoint
        .names()
        .filter_map(|(name, file)| Some((file, checkpoint.files().get(file)?.header().tensor(name).ok()?)))
        .collect();
    let whole = OnceCell::new();
    let all = || Tree::new(tensors.iter().map(|(_, info)| *info));
    // Without a filter one tree serves for both.
    let (totals, dtypes) = {
        let tree = whole.get_or_init(all);
        (tree.totals, dtype_figures(&tree.dtypes))
    };
    let tree = match filter {
        None => whole.into_inner().unwrap_or_default(),
        Some(filter) => {
            tensors.retain(|(_, info)| filter.matches(info.name()));
            Tree::new(tensors.iter().map(|(_, info)| *info))
        }
    };
    tensors.sort_by(|(_, a), (_, b)| natural_cmp(a.name(), b.name()));
    let metadata = checkpoint.metadata();
    Model {
        path: input.label.clone(),
        kind: input.kind(),
        totals: totals.into(),
        dtypes,
        files: checkpoint.files().iter().map(facts).collect(),
        unfolded: metadata.as_ref().map(unfold).unwrap_or_default(),
        metadata,
        shown: tree.totals.into(),
        tensors: tensors.iter().map(|(file, info)| row(*file, info)).collect(),
        explain: None,
        tree,
    }
}

/// What loading the shown tensors into memory costs, where that was asked for.
fn explained(
    checkpoint: &Checkpoint,
    model: &Model,
    args: &InspectArgs,
) -> Result<Option<Explained>, tensafe::Error> {
    if !args.explain && args.shard.is_none() {
        return Ok(None);
    }
    let mut plan = Plan::new();
    for tensor in &model.tensors {
        let selection = match args.shard {
            Some(Shard { dimension, rank, world }) if dimension < tensor.shape.len() => {
                Selection::Shard { dimension, rank, world }
            }
            _ => Selection::Whole,
        };
        checkpoint.add_to(&mut plan, &tensor.name, &selection)?;
    }
    let explain = checkpoint.explain(&plan)?;
    let ranges = explain.ranges.iter().map(|range| ExplainedRange {
        file: range.file,
        range: (range.range.start, range.range.end),
        method: range.method.name(),
        why: range.why.text(),
        needed: range.needed,
        read: range.read,
        requests: range.requests,
    });
    Ok(Some(Explained {
        tensors: explain.tensors,
        bytes_needed: explain.bytes_needed,
        bytes_read: explain.bytes_read,
        amplification: explain.amplification(),
        requests: explain.requests,
        workers: explain.workers,
        peak_memory: explain.peak_memory,
        ranges: ranges.collect(),
    }))
}

fn facts(file: &tensafe::TensorFile) -> FileFacts {
    let header = file.header();
    FileFacts {
        path: file.path().map(|path| path.display().to_string()).unwrap_or_default(),
        bytes: header.file_bytes(),
        header_bytes: header.data_start().saturating_sub(8),
        tensors: header.len(),
    }
}

fn row(file: usize, info: &TensorInfo<'_>) -> Row {
    let Totals { parameters, bytes, .. } = Totals::of(info);
    let offsets = info.data_offsets();
    Row {
        name: info.name().to_owned(),
        dtype: info.dtype(),
        shape: info.shape().to_vec(),
        parameters,
        bytes,
        file,
        data_offsets: (offsets.start, offsets.end),
    }
}

/// The values that are JSON objects or arrays written as strings, as trainers leave them.
fn unfold(metadata: &Metadata) -> Map<String, Value> {
    let parse = |text: &String| {
        let holds_json = text.trim_start().starts_with(['{', '[']);
        holds_json.then(|| serde_json::from_str::<Value>(text).ok()).flatten()
    };
    metadata.iter().filter_map(|(key, text)| Some((key.clone(), parse(text)?))).collect()
}

/// Which names to show.
#[derive(Debug)]
enum Filter {
    Holds(String),
    Matches(Box<glob::Pattern>),
}

impl Filter {
    fn new(text: &str) -> Result<Self, Failure> {
        if !text.contains(['*', '?', '[']) {
            return Ok(Self::Holds(text.to_owned()));
        }
        match glob::Pattern::new(text) {
            Ok(pattern) => Ok(Self::Matches(Box::new(pattern))),
            Err(e) => {
                let message = format!("filter `{text}`: {} at character {}", e.msg, e.pos);
                Err(Failure::new(text, message))
            }
        }
    }

    fn matches(&self, name: &str) -> bool {
        match self {
            Self::Holds(text) => name.contains(text),
            Self::Matches(pattern) => pattern.matches(name),
        }
    }
}
