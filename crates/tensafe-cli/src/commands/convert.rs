//! `tensafe convert`: checkpoints of other formats to safetensors, without running them.

use std::{
    fs,
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::Args;
use serde_json::Value as Json;
use tensafe::{
    Conversion, ConvertOptions, Dtype, Error, FileSink, Pickled, PickledOptions, Progress, ReplaceOptions,
    Sink as _, parse_size, sidecar,
};

use super::{Failure, Outcome, Page};

const EXAMPLES: &str = "\
Examples:
  tensafe convert pytorch_model.bin                     writes model.safetensors beside it
  tensafe convert model.ckpt model.safetensors --select 'state_dict.*' --rename '^state_dict\\.='
  tensafe convert pytorch_model.bin.index.json out/ --max-shard-size 5GB
  tensafe convert checkpoints/ model.safetensors        puts the ranks of DeepSpeed's ZeRO together
  tensafe convert model.pt model.safetensors --dtype bf16 --sidecar values.json --report report.json

Nothing of a pickle is executed: what it would import is compared with a closed list, and what is
not on it is refused. Read are torch's files of all versions, TorchScript, .npy, .npz, joblib, plain
pickles of arrays, compressed or in archives; the content decides, not the name.

Of the Python package the program takes `--engine local|ray` too, for very many files: see
`tensafe convert --engine local --help`.

Exit codes:
  0  converted    2  refused, or an error; what was there before is still there";

/// Turn pickle checkpoints into safetensors, without executing them
#[derive(Args, Clone, Debug)]
#[command(after_help = EXAMPLES)]
pub(crate) struct ConvertArgs {
    /// The checkpoint: a file, an index of shards (`*.index.json`), a directory, or a folder of ZeRO
    #[arg(value_name = "INPUT")]
    input: PathBuf,

    /// The file to write, or a directory that gets `model.safetensors` [default: beside the input]
    #[arg(value_name = "OUTPUT")]
    output: Option<PathBuf>,

    /// Take the tensors whose names match, with `*` and `?`; can be given again
    #[arg(long, value_name = "PATTERN")]
    select: Vec<String>,

    /// Leave out the tensors whose names match; can be given again
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<String>,

    /// Replace in names what a regular expression matches; can be given again
    #[arg(long, value_name = "REGEX=TEXT")]
    rename: Vec<String>,

    /// Cast floats of 16, 32 and 64 bits, to the nearest
    #[arg(long, value_name = "DTYPE", value_parser = ["f64", "f32", "f16", "bf16"])]
    dtype: Option<String>,

    /// Write shards of at most this size, such as 5GB, with the Hub's names and index
    #[arg(long, value_name = "SIZE")]
    max_shard_size: Option<String>,

    /// Write tensors that share memory as copies, not as aliases in the metadata
    #[arg(long)]
    duplicate: bool,

    /// Write sparse tensors as dense ones
    #[arg(long)]
    dense: bool,

    /// Leave out what is unknown, and take the tensors of modules that were pickled whole
    #[arg(long)]
    salvage: bool,

    /// Compare the checksums of a zip archive's tensors, which reads every byte
    #[arg(long)]
    crc: bool,

    /// Text for the metadata; can be given again
    #[arg(long, value_name = "KEY=TEXT")]
    metadata: Vec<String>,

    /// Write what was done as JSON: tensors, aliases, dropped values, symbols
    #[arg(long, value_name = "FILE")]
    report: Option<PathBuf>,

    /// Write the values that are no tensors as JSON
    #[arg(long, value_name = "FILE")]
    sidecar: Option<PathBuf>,

    /// Replace files that are there
    #[arg(long)]
    force: bool,

    /// Tell what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
}

/// What was converted, or would be.
#[derive(Debug)]
pub(crate) struct Converted {
    pub(crate) input: String,
    pub(crate) conversion: Option<Conversion>,
    pub(crate) report: Json,
    pub(crate) dry_run: bool,
    pub(crate) sidecar: bool,
}

pub(crate) fn run(args: &ConvertArgs) -> Outcome {
    let input = args.input.display().to_string();
    let mut page = Converted {
        input: input.clone(),
        conversion: None,
        report: Json::Null,
        dry_run: args.dry_run,
        sidecar: args.sidecar.is_some(),
    };
    let mut failures = Vec::new();
    match options(args).and_then(|options| converted(args, &options)) {
        Ok(conversion) => {
            page.report = conversion.report();
            page.conversion = Some(conversion);
        }
        Err(error) => {
            let hint = hint(&error);
            failures.push(Failure::new(&input, error.chain().to_string()).with_hint(hint));
        }
    }
    Outcome { page: Page::Convert(Box::new(page)), failures, hints: Vec::new(), negative: false }
}

/// What can be done about a refusal, in the words of this program.
fn hint(error: &Error) -> Option<String> {
    let text = error.to_string();
    let hint = if text.contains("`salvage`") {
        "`tensafe scan` tells what each name does when it is loaded; --salvage leaves them out"
    } else if text.contains("`dense`") {
        "--dense writes sparse tensors as dense ones"
    } else if text.contains("`select`") {
        "--exclude leaves single tensors out, --select takes some"
    } else if text.contains("File exists") || error.chain().to_string().contains("File exists") {
        "--force replaces files that are there"
    } else {
        return None;
    };
    Some(hint.to_owned())
}

fn options(args: &ConvertArgs) -> Result<ConvertOptions, Error> {
    let mut options = ConvertOptions::default();
    options.read =
        PickledOptions::default().with_salvage(args.salvage).with_dense(args.dense).with_crc(args.crc);
    options.select.clone_from(&args.select);
    options.exclude.clone_from(&args.exclude);
    options.rename = pairs(&args.rename)?;
    options.metadata = pairs(&args.metadata)?.into_iter().collect();
    options.dtype = args.dtype.as_ref().and_then(|name| Dtype::from_name(&name.to_uppercase()));
    options.max_shard_bytes = args.max_shard_size.as_deref().map(parse_size).transpose()?;
    options.duplicate = args.duplicate;
    options.overwrite = args.force;
    Ok(options)
}

fn pairs(texts: &[String]) -> Result<Vec<(String, String)>, Error> {
    let pair = |text: &String| {
        let (key, value) = text.split_once('=').ok_or_else(|| Error::usage(text, "needed KEY=TEXT"))?;
        Ok((key.to_owned(), value.to_owned()))
    };
    texts.iter().map(pair).collect()
}

fn converted(args: &ConvertArgs, options: &ConvertOptions) -> Result<Conversion, Error> {
    let pickled = Pickled::open(&args.input, &options.read)?;
    let output = args.output.clone().unwrap_or_else(|| beside(&args.input));
    let conversion = Conversion::plan(pickled, &output, options)?;
    if args.dry_run {
        conversion.has_tensors()?;
        return Ok(conversion);
    }
    // Refused before anything is written, not after.
    for path in [&args.sidecar, &args.report].into_iter().flatten() {
        beside_output(path, &conversion, args.force)?;
    }
    let cancelled = watch_interrupts();
    let bar = Bar::new(conversion.bytes());
    let written = conversion.write(&mut |progress| {
        bar.show(progress);
        if cancelled.load(Ordering::Relaxed) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    bar.clear();
    written?;
    if let Some(path) = &args.sidecar {
        write_json(path, &sidecar(conversion.checkpoint()), args.force)?;
    }
    if let Some(path) = &args.report {
        write_json(path, &conversion.report(), args.force)?;
    }
    Ok(conversion)
}

/// Whether a file can be written beside the output: it is none of its files, its directory can be
/// made, and nothing is there that must not be replaced.
fn beside_output(path: &Path, conversion: &Conversion, overwrite: bool) -> Result<(), Error> {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let files = conversion.files().iter().map(|file| file.path.as_path());
    if files.chain(conversion.index()).any(|file| whole(file) == whole(path)) {
        return Err(Error::usage(&path.display().to_string(), "it is a file of the output"));
    }
    let refused = |doing, error| Error::from(tensafe::FileError::from_os(doing, path, error));
    if !overwrite && path.symlink_metadata().is_ok() {
        return Err(refused("write", std::io::Error::from_raw_os_error(FILE_EXISTS)));
    }
    match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => fs::create_dir_all(directory).map_err(|e| refused("make the directory of", e)),
        None => Ok(()),
    }
}

/// `EEXIST`, the same number on Unix; Windows has words of its own for it.
const FILE_EXISTS: i32 = if cfg!(windows) { 80 } else { 17 };

/// Where the output goes if nobody says: beside the input, under the name that loaders look for.
fn beside(input: &Path) -> PathBuf {
    if input.is_dir() {
        return input.join("model.safetensors");
    }
    let name = input.file_name().unwrap_or_default().to_string_lossy();
    let stem = name.strip_suffix(".index.json").unwrap_or(&name);
    let stem = stem.rsplit_once('.').map_or(stem, |(stem, _)| stem);
    let stem = if stem == "pytorch_model" { "model" } else { stem };
    input.with_file_name(format!("{stem}.safetensors"))
}

fn write_json(path: &Path, value: &Json, overwrite: bool) -> Result<(), Error> {
    let text = format!("{value:#}\n");
    let options = ReplaceOptions::default().with_overwrite(overwrite);
    let mut sink = FileSink::create(path, text.len() as u64, options)?;
    sink.write_at(0, text.as_bytes())?;
    Ok(sink.commit()?)
}

/// A flag that Ctrl-C sets, so that a conversion ends between two writes and leaves nothing behind.
fn watch_interrupts() -> &'static AtomicBool {
    static CANCELLED: AtomicBool = AtomicBool::new(false);
    static WATCHED: OnceLock<()> = OnceLock::new();
    WATCHED.get_or_init(|| {
        // Where no handler can be set, Ctrl-C ends the process as it always did.
        drop(ctrlc::set_handler(|| CANCELLED.store(true, Ordering::Relaxed)));
    });
    CANCELLED.store(false, Ordering::Relaxed);
    &CANCELLED
}

/// How far it is: on a terminal alone, after a moment, with rate and time left.
struct Bar(indicatif::ProgressBar);

impl Bar {
    fn new(bytes: u64) -> Self {
        let bar = indicatif::ProgressBar::with_draw_target(
            Some(bytes),
            indicatif::ProgressDrawTarget::stderr_with_hz(10),
        );
        let style = "{bar:30} {decimal_bytes} of {decimal_total_bytes}, {decimal_bytes_per_sec}, {eta} left";
        if let Ok(style) = indicatif::ProgressStyle::with_template(style) {
            bar.set_style(style);
        }
        Self(bar)
    }

    fn show(&self, progress: Progress) {
        self.0.set_length(progress.total);
        self.0.set_position(progress.done);
    }

    fn clear(&self) {
        self.0.finish_and_clear();
    }
}
