//! A report on files that may be damaged: every finding, and a map of their bytes.
//!
//! Judges by every rule that files on their own can break (S-01 to S-17) and that an index and its
//! shards break together (S-30 to S-32), and warns where a file keeps the rules and still meets
//! trouble in use. Renders nothing. Data is read only where the options ask for it.

mod index;
mod map;
mod warnings;

use std::{
    collections::{HashMap, HashSet},
    error::Error as StdError,
    ops::Range,
    path::{Path, PathBuf},
};

use tensafe_format::{
    DiagnosedTensor, Diagnosis, Dtype, Error as FormatError, ErrorKind as FormatKind, Header,
    LENGTH_FIELD_BYTES, Metadata, ParseOptions, Quoted, Rule, header_range,
};
use tensafe_io::{FileSource, Source as _};

use self::{
    index::judge_index,
    map::map,
    warnings::{look_at_bools, warn},
};
use crate::{Error, ErrorKind, Located, Totals, locate, tree::dtype_totals};

/// What to look at.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct VerifyOptions {
    /// Strictness and limits.
    pub parse: ParseOptions,
    /// Read data too, where a value can be wrong: `BOOL` bytes other than 0 and 1.
    pub deep: bool,
    /// Normalises a name (to NFC), so that names that look alike are noticed. This crate holds no
    /// tables of Unicode; without a function the check is left out.
    pub normalize: Option<fn(&str) -> String>,
}

impl VerifyOptions {
    /// The same options, reading data too or not.
    #[must_use]
    pub const fn with_deep(mut self, deep: bool) -> Self {
        self.deep = deep;
        self
    }

    /// The same options with a function that normalises names.
    #[must_use]
    pub const fn with_normalize(mut self, normalize: fn(&str) -> String) -> Self {
        self.normalize = Some(normalize);
        self
    }

    /// The same options with other limits.
    #[must_use]
    pub const fn with_parse(mut self, parse: ParseOptions) -> Self {
        self.parse = parse;
        self
    }
}

/// How much a finding weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// Worth knowing.
    Note,
    /// The rules are kept, but some reader will meet trouble.
    Warning,
    /// A rule is broken, or a limit met.
    Error,
}

/// One thing that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// How much it weighs.
    pub level: Level,
    /// What kind of finding it is, for programs: a word that does not change.
    pub code: &'static str,
    /// The rule of `docs/spec.md` that is broken, if one is.
    pub rule: Option<Rule>,
    /// One clause: subject, what was found, what was needed.
    pub text: String,
    /// The tensor it is about, as the header spells it.
    pub tensor: Option<String>,
    /// Where in the file it stands, in bytes from its start.
    pub offset: Option<u64>,
    /// Whether lenient reading reads past it.
    pub lenient: bool,
}

/// What bytes of a file are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SegmentKind {
    /// The length field.
    Length,
    /// The text of the header.
    Header,
    /// The bytes of a tensor.
    Tensor,
    /// Bytes between two tensors that are no tensor's.
    Gap,
    /// Bytes that two tensors claim. Lies on top of their segments.
    Overlap,
    /// Bytes after the last tensor.
    Trailing,
    /// Bytes that the header needs and the file does not have.
    Missing,
    /// Bytes of which the header says nothing, because it cannot be read.
    Unknown,
}

/// A part of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Segment {
    /// What it is.
    pub kind: SegmentKind,
    /// Its bytes, counted from the start of the file, half-open.
    pub range: Range<u64>,
    /// The tensor, or the two that overlap, the earlier first, or the first that is missing bytes.
    pub tensors: Vec<String>,
}

/// What is to be said of one file.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileReport {
    /// The file.
    pub path: PathBuf,
    /// Its bytes.
    pub file_bytes: u64,
    /// The length of the header by its length field. Where it is wrong, so is this.
    pub header_bytes: Option<u64>,
    /// The entries that could be read, by offset.
    pub tensors: Vec<DiagnosedTensor>,
    /// The metadata, if it could be read.
    pub metadata: Option<Metadata>,
    /// Everything that was found.
    pub findings: Vec<Finding>,
    /// The map of its bytes, in order.
    pub segments: Vec<Segment>,
    /// Why the file, or a part of its data, could not be read at all.
    pub unreadable: Option<Error>,
    /// Whether every entry could be read, so that what is not named here is not in the file.
    pub complete: bool,
}

/// What is to be said of a model: its files, and what they say of each other.
#[derive(Debug)]
#[non_exhaustive]
pub struct Report {
    /// What was verified.
    pub path: PathBuf,
    /// The index of shards, where there is one that can be read.
    pub index: Option<PathBuf>,
    /// What concerns no file alone.
    pub findings: Vec<Finding>,
    /// The files.
    pub files: Vec<FileReport>,
    /// Why the files could not even be found.
    pub unreadable: Option<Error>,
}

/// The outcome of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Verdict {
    /// Every rule is kept.
    Good,
    /// A rule is broken.
    Bad,
    /// Something could not be read, so that nothing can be said.
    Unreadable,
}

impl Finding {
    fn new(level: Level, code: &'static str, text: String) -> Self {
        Self { level, code, rule: None, text, tensor: None, offset: None, lenient: false }
    }

    fn from_format(error: &FormatError) -> Self {
        Self {
            level: Level::Error,
            code: if error.kind() == FormatKind::Limit { "limit" } else { "format" },
            rule: error.rule(),
            text: error.to_string(),
            tensor: error.tensor().map(str::to_owned),
            offset: error.offset(),
            lenient: error.is_lenient(),
        }
    }

    fn broken(rule: Rule, code: &'static str, clause: &str) -> Self {
        let text = format!("{clause} ({rule})");
        Self { rule: Some(rule), ..Self::new(Level::Error, code, text) }
    }

    fn about(mut self, tensor: &str) -> Self {
        self.tensor = Some(tensor.to_owned());
        self
    }

    fn at(mut self, offset: u64) -> Self {
        self.offset = Some(offset);
        self
    }
}

impl FileReport {
    /// The outcome for this file alone.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        verdict(self.unreadable.is_some(), &self.findings)
    }

    /// Where the data section starts, by the length field.
    #[must_use]
    pub fn data_start(&self) -> Option<u64> {
        self.header_bytes.and_then(|bytes| bytes.checked_add(LENGTH_FIELD_BYTES))
    }

    /// The totals of each dtype, the most bytes first, of the entries that could be read.
    #[must_use]
    pub fn dtypes(&self) -> Vec<(Dtype, Totals)> {
        dtype_totals(self.counted())
    }

    fn counted(&self) -> impl Iterator<Item = (Dtype, Totals)> {
        self.tensors.iter().map(|tensor| (tensor.dtype, Totals::of_diagnosed(tensor)))
    }

    fn new(path: &Path, file_bytes: u64) -> Self {
        Self {
            path: path.to_owned(),
            file_bytes,
            header_bytes: None,
            tensors: Vec::new(),
            metadata: None,
            findings: Vec::new(),
            segments: Vec::new(),
            unreadable: None,
            complete: false,
        }
    }
}

impl Report {
    /// The outcome for all files together.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        let whole = verdict(self.unreadable.is_some(), &self.findings);
        self.files.iter().map(FileReport::verdict).fold(whole, Verdict::max)
    }

    /// How many findings of a level there are, those of the files included.
    #[must_use]
    pub fn count(&self, level: Level) -> usize {
        let files = self.files.iter().flat_map(|file| &file.findings);
        files.chain(&self.findings).filter(|finding| finding.level == level).count()
    }

    /// The totals of each dtype, the most bytes first, of the entries that could be read.
    #[must_use]
    pub fn dtypes(&self) -> Vec<(Dtype, Totals)> {
        dtype_totals(self.files.iter().flat_map(FileReport::counted))
    }

    fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), index: None, findings: Vec::new(), files: Vec::new(), unreadable: None }
    }
}

fn verdict(unreadable: bool, findings: &[Finding]) -> Verdict {
    if unreadable {
        Verdict::Unreadable
    } else if findings.iter().any(|finding| finding.level == Level::Error) {
        Verdict::Bad
    } else {
        Verdict::Good
    }
}

/// Judges what `path` means, see [`locate`]: a file, a directory, or an index of shards.
///
/// Never fails: what cannot be read is part of the report.
///
/// # Cost
/// Reads the header of each file, and data where the options ask for it.
///
/// # Examples
/// ```no_run
/// use tensafe_model::{Verdict, VerifyOptions, verify};
///
/// let report = verify("path/to/model", &VerifyOptions::default());
/// for finding in report.files.iter().flat_map(|file| &file.findings) {
///     eprintln!("{:?}: {}", finding.level, finding.text);
/// }
/// assert_eq!(report.verdict(), Verdict::Good);
/// ```
///
/// Spec: S-01 to S-17, S-30 to S-32.
pub fn verify(path: impl AsRef<Path>, options: &VerifyOptions) -> Report {
    let path = path.as_ref();
    match locate(path) {
        Ok(Located::Files(files)) => Report { path: path.to_owned(), ..verify_files(&files, options) },
        Ok(Located::Index { path: index_path, directory, index }) => {
            let mut report = Report { index: Some(index_path), ..Report::new(path) };
            judge_index(&mut report, &directory, &index, options);
            report
        }
        Err(error) if error.kind() == ErrorKind::Format => {
            let mut report = Report::new(path);
            let text = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let rule = error.rule();
            report.findings.push(Finding { rule, ..Finding::new(Level::Error, "index", text) });
            report
        }
        Err(error) => Report { unreadable: Some(error), ..Report::new(path) },
    }
}

/// Judges files that belong together without an index: none of them repeats a name of another.
///
/// # Cost
/// As [`verify`].
pub fn verify_files(paths: &[PathBuf], options: &VerifyOptions) -> Report {
    let mut report = Report::new(paths.first().map_or_else(|| Path::new(""), PathBuf::as_path));
    report.files = paths.iter().map(|path| judge_file(path, options)).collect();
    let mut owners: HashMap<&str, usize> = HashMap::new();
    for (place, file) in report.files.iter().enumerate() {
        for tensor in &file.tensors {
            let first = *owners.entry(&tensor.name).or_insert(place);
            if let Some(first) = report.files.get(first).filter(|_| first != place) {
                let clause = format!(
                    "tensor `{}`: in {} and in {}, a name stands in one file",
                    Quoted(&tensor.name),
                    first.path.display(),
                    file.path.display()
                );
                let finding = Finding::broken(Rule::INDEX_MATCHES, "name-in-two-files", &clause);
                report.findings.push(finding.about(&tensor.name));
            }
        }
    }
    report
}

/// What a file that is no safetensors file seems to be, by its first bytes.
#[must_use]
pub fn foreign_format(start: &[u8]) -> Option<&'static str> {
    const KNOWN: &[(&[u8], &str)] = &[
        (b"PK\x03\x04", "a zip archive, such as a PyTorch checkpoint"),
        (b"\x80\x02", "a pickle"),
        (b"\x80\x03", "a pickle"),
        (b"\x80\x04", "a pickle"),
        (b"\x80\x05", "a pickle"),
        (b"GGUF", "a GGUF file"),
        (b"version https://git-lfs", "a Git LFS pointer, not the weights; `git lfs pull` fetches them"),
        (b"\x93NUMPY", "a NumPy array"),
        (b"\x89HDF", "an HDF5 file"),
        (b"\x1f\x8b", "gzip data"),
        (b"\x28\xb5\x2f\xfd", "zstd data"),
        (b"<!DOCTYPE", "a web page; the download may have failed"),
        (b"<!doctype", "a web page; the download may have failed"),
        (b"<html", "a web page; the download may have failed"),
        (b"<?xml", "an XML text; the download may have failed"),
    ];
    KNOWN.iter().find(|(magic, _)| start.starts_with(magic)).map(|(_, what)| *what)
}

// One file.

fn judge_file(path: &Path, options: &VerifyOptions) -> FileReport {
    let mut report = FileReport::new(path, 0);
    let judged = FileSource::open(path).and_then(|source| {
        report.file_bytes = source.len();
        judge_source(&source, options, &mut report)
    });
    report.unreadable = judged.err().map(Error::from);
    report
}

fn judge_source(
    source: &FileSource,
    options: &VerifyOptions,
    report: &mut FileReport,
) -> Result<(), tensafe_io::Error> {
    let file_bytes = source.len();
    let start = read_start(source, &options.parse)?;
    report.header_bytes = start.first_chunk::<8>().map(|length| u64::from_le_bytes(*length));
    let mut diagnosis = Header::diagnose(&start, file_bytes, &options.parse);
    if diagnosis.errors.iter().any(|e| e.rule() == Some(Rule::HEADER_IN_FILE)) {
        salvage(start, file_bytes, &options.parse, &mut diagnosis);
    }
    report.findings = diagnosis.errors.iter().map(Finding::from_format).collect();
    report.complete = is_complete(&diagnosis);
    report.segments = map(&diagnosis, file_bytes, report.header_bytes, report.complete);
    if !report.complete && report.data_start().is_some_and(|start| start <= file_bytes) {
        tell_claims(report);
    }
    report.tensors = diagnosis.tensors;
    report.metadata = diagnosis.metadata;
    if !report.complete
        && report.tensors.is_empty()
        && let Some(what) = foreign_format(&peek(source)?)
    {
        let text = format!("the file looks like {what}");
        report.findings.push(Finding::new(Level::Note, "other-format", text));
    }
    warn(report, options);
    if options.deep {
        look_at_bools(source, report)?;
    }
    Ok(())
}

/// The length field and as much of the header as the file and the limits let us have.
fn read_start(source: &FileSource, parse: &ParseOptions) -> Result<Vec<u8>, tensafe_io::Error> {
    let file_bytes = source.len();
    let mut start = vec![0; usize::try_from(file_bytes.min(LENGTH_FIELD_BYTES)).unwrap_or_default()];
    source.read_at(0, &mut start)?;
    let end = match header_range(&start, file_bytes, parse) {
        Ok(range) => range.end,
        // Cut off within a header that is not too long: what there is of it tells something.
        Err(e) if e.rule() == Some(Rule::HEADER_IN_FILE) => file_bytes,
        Err(_) => return Ok(start),
    };
    let known = start.len();
    if let Ok(end) = usize::try_from(end) {
        start.resize(end, 0);
        source.read_at(known as u64, start.get_mut(known..).unwrap_or_default())?;
    }
    Ok(start)
}

fn peek(source: &FileSource) -> Result<Vec<u8>, tensafe_io::Error> {
    let mut start = vec![0; usize::try_from(source.len().min(64)).unwrap_or_default()];
    source.read_at(0, &mut start)?;
    Ok(start)
}

/// Reads the part of a cut-off header that is there, as if the header ended with the file.
fn salvage(mut start: Vec<u8>, file_bytes: u64, parse: &ParseOptions, diagnosis: &mut Diagnosis) {
    let there = file_bytes.saturating_sub(LENGTH_FIELD_BYTES);
    if let Some(length) = start.first_chunk_mut::<8>() {
        *length = there.to_le_bytes();
    }
    let found = Header::diagnose(&start, file_bytes, parse);
    diagnosis.tensors = found.tensors;
    diagnosis.metadata = found.metadata;
    // That the text ends early, or in the middle of a character, is what was said already.
    let cut = |e: &FormatError| matches!(e.rule(), Some(Rule::JSON | Rule::UTF8 | Rule::FILE_END));
    diagnosis.errors.extend(found.errors.into_iter().filter(|e| !cut(e)));
    diagnosis.data_bytes = 0;
}

/// Whether the diagnosis holds every entry of the header: the text did not break off, and no flaw is
/// about a tensor that is not among those read.
fn is_complete(diagnosis: &Diagnosis) -> bool {
    let mut names: Option<HashSet<&str>> = None;
    diagnosis.errors.iter().all(|e| match e.rule() {
        None
        | Some(Rule::LENGTH_FIELD | Rule::HEADER_LIMIT | Rule::HEADER_IN_FILE | Rule::UTF8 | Rule::JSON) => {
            false
        }
        Some(Rule::ENTRY | Rule::DTYPE | Rule::SHAPE | Rule::OFFSETS) => {
            let names =
                names.get_or_insert_with(|| diagnosis.tensors.iter().map(|tensor| &*tensor.name).collect());
            e.tensor().is_none_or(|name| names.contains(name))
        }
        Some(_) => true,
    })
}

/// Tells what the entries that could be read claim wrongly. The diagnosis leaves the cover out
/// where it cannot know all of it, but two tensors that overlap do so whatever else there is.
fn tell_claims(report: &mut FileReport) {
    for segment in &report.segments {
        let finding = match (segment.kind, &segment.tensors[..]) {
            (SegmentKind::Overlap, [first, second]) => {
                let clause = format!(
                    "tensor `{}`: overlaps tensor `{}` in bytes {}..{} of the file",
                    Quoted(second),
                    Quoted(first),
                    segment.range.start,
                    segment.range.end
                );
                Finding::broken(Rule::COVER, "format", &clause).about(second).at(segment.range.start)
            }
            (SegmentKind::Missing, [first]) => {
                let clause = format!(
                    "tensor `{}` is cut off: the file holds {} bytes, the header needs {}",
                    Quoted(first),
                    report.file_bytes,
                    segment.range.end
                );
                Finding::broken(Rule::FILE_END, "format", &clause).about(first)
            }
            _ => continue,
        };
        report.findings.push(finding);
    }
}
