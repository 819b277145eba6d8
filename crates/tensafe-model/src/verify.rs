//! A report on files that may be damaged: every finding, and a map of their bytes.
//!
//! Judges by every rule that files on their own can break (S-01 to S-17) and that an index and its
//! shards break together (S-30 to S-32), and warns where a file keeps the rules and still meets
//! trouble in use. Renders nothing. Data is read only where the options ask for it.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    error::Error as StdError,
    fs,
    ops::Range,
    path::{Path, PathBuf},
};

use tensafe_format::{
    DiagnosedTensor, Diagnosis, Dtype, Error as FormatError, ErrorKind as FormatKind, Header,
    LENGTH_FIELD_BYTES, Metadata, ParseOptions, Quoted, Rule, ShardIndex, header_range, is_hub_shard_name,
};
use tensafe_io::{FileSource, Source as _};

use crate::{Error, ErrorKind, Located, Totals, locate, tree::dtype_totals};

/// The Hub's viewers, in Python and in the browser, refuse longer headers.
const HUB_HEADER_BYTES: u64 = 25_000_000;

/// The Hub's viewers refuse models of more shards.
const HUB_SHARDS: usize = 10_000;

/// A dimension beyond this loses digits in the Hub's viewer.
const HUB_DIMENSION: u64 = 1 << 32;

/// Bytes that are read at once.
const CHUNK_BYTES: u64 = 1 << 20;

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

// The map of the bytes.

fn map(diagnosis: &Diagnosis, file_bytes: u64, header_bytes: Option<u64>, complete: bool) -> Vec<Segment> {
    let mut map = Map { segments: Vec::new(), file_bytes };
    let Some(header_bytes) = header_bytes else {
        map.push(SegmentKind::Length, 0..file_bytes, &[]);
        map.push(SegmentKind::Missing, file_bytes..LENGTH_FIELD_BYTES, &[]);
        return map.segments;
    };
    map.push(SegmentKind::Length, 0..LENGTH_FIELD_BYTES, &[]);
    let refused = diagnosis.errors.iter().any(|e| e.rule() == Some(Rule::HEADER_LIMIT));
    let end = header_bytes.checked_add(LENGTH_FIELD_BYTES).filter(|_| !refused);
    let Some(data_start) = end else {
        map.push(SegmentKind::Unknown, LENGTH_FIELD_BYTES..file_bytes, &[]);
        return map.segments;
    };
    map.push(SegmentKind::Header, LENGTH_FIELD_BYTES..data_start.min(file_bytes), &[]);
    map.push(SegmentKind::Missing, file_bytes.max(LENGTH_FIELD_BYTES)..data_start, &[]);
    let covered = map.tensors(&diagnosis.tensors, data_start);
    map.push(SegmentKind::Trailing, covered..file_bytes, &[]);
    if !complete {
        // What could not be read may lie where nothing that could be read does.
        let unclaimed = |s: &&mut Segment| matches!(s.kind, SegmentKind::Gap | SegmentKind::Trailing);
        for segment in map.segments.iter_mut().filter(unclaimed) {
            segment.kind = SegmentKind::Unknown;
        }
    }
    map.segments.sort_by_key(|segment| segment.range.start);
    map.segments
}

struct Map {
    segments: Vec<Segment>,
    file_bytes: u64,
}

impl Map {
    fn push(&mut self, kind: SegmentKind, range: Range<u64>, tensors: &[&DiagnosedTensor]) {
        if !range.is_empty() {
            let tensors = tensors.iter().map(|tensor| tensor.name.clone()).collect();
            self.segments.push(Segment { kind, range, tensors });
        }
    }

    /// Places tensors that are in the order of their offsets; returns where the last of them ends.
    fn tensors(&mut self, tensors: &[DiagnosedTensor], data_start: u64) -> u64 {
        let there = |range: Range<u64>, end: u64| range.start..range.end.min(end);
        let mut covered = data_start;
        let mut owner: Option<&DiagnosedTensor> = None;
        let mut missing: Option<&DiagnosedTensor> = None;
        // Offsets that end before they begin claim nothing.
        for tensor in tensors.iter().filter(|tensor| tensor.range.start <= tensor.range.end) {
            let begin = data_start.saturating_add(tensor.range.start);
            let end = data_start.saturating_add(tensor.range.end);
            self.push(SegmentKind::Gap, there(covered..begin, self.file_bytes), &[]);
            self.push(SegmentKind::Tensor, there(begin..end, self.file_bytes), &[tensor]);
            let shared = there(begin..end.min(covered), self.file_bytes);
            let both = [owner.unwrap_or(tensor), tensor];
            self.push(SegmentKind::Overlap, shared, &both);
            if end > self.file_bytes {
                missing = missing.or(Some(tensor));
            }
            if end >= covered {
                covered = end;
                owner = Some(tensor);
            }
        }
        let from = self.file_bytes.max(data_start);
        self.push(SegmentKind::Missing, from..covered, missing.as_slice());
        covered
    }
}

// What keeps the rules and still meets trouble.

fn warn(report: &mut FileReport, options: &VerifyOptions) {
    let mut found = Vec::new();
    if let Some(bytes) = report.header_bytes.filter(|bytes| {
        *bytes > HUB_HEADER_BYTES && bytes.saturating_add(LENGTH_FIELD_BYTES) <= report.file_bytes
    }) {
        let text = format!(
            "header of {bytes} bytes: viewers of the Hub give up above {HUB_HEADER_BYTES}, the format allows it"
        );
        found.push(Finding::new(Level::Warning, "hub-header", text));
    }
    warn_of_alignment(report, &mut found);
    warn_of_dimensions(&report.tensors, &mut found);
    warn_of_names(&report.tensors, options.normalize, &mut found);
    note_format(report, &mut found);
    report.findings.extend(found);
}

fn warn_of_alignment(report: &FileReport, found: &mut Vec<Finding>) {
    let Some(start) = report.data_start().filter(|start| *start <= report.file_bytes) else { return };
    if report.tensors.is_empty() {
        return;
    }
    if !start.is_multiple_of(8) {
        let text = format!(
            "data section at byte {start}, not a multiple of 8: readers that map the file have to copy"
        );
        found.push(Finding::new(Level::Warning, "data-alignment", text).at(start));
    }
    let aligned_start = start.next_multiple_of(8);
    let is_off = |tensor: &&DiagnosedTensor| {
        // Judged from an aligned data section, so that one cause is told once.
        let begin = aligned_start.saturating_add(tensor.range.start);
        !tensor.range.is_empty() && !begin.is_multiple_of(tensor.dtype.alignment_bytes())
    };
    let mut off = report.tensors.iter().filter(is_off);
    if let Some(first) = off.next() {
        let more = off.count();
        let begin = start.saturating_add(first.range.start);
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        let text = format!(
            "tensor `{}`{others}: {} at byte {begin}, not a multiple of {}: readers that map the file have to copy",
            Quoted(&first.name),
            first.dtype,
            first.dtype.alignment_bytes()
        );
        found.push(Finding::new(Level::Warning, "tensor-alignment", text).about(&first.name).at(begin));
    }
}

fn warn_of_dimensions(tensors: &[DiagnosedTensor], found: &mut Vec<Finding>) {
    for tensor in tensors {
        let Some(dimension) = tensor.shape.iter().find(|dimension| **dimension > HUB_DIMENSION) else {
            continue;
        };
        let text = format!(
            "tensor `{}`: dimension of {dimension}, viewers of the Hub give up above {HUB_DIMENSION}",
            Quoted(&tensor.name)
        );
        found.push(Finding::new(Level::Warning, "hub-dimension", text).about(&tensor.name));
    }
}

fn warn_of_names(
    tensors: &[DiagnosedTensor],
    normalize: Option<fn(&str) -> String>,
    found: &mut Vec<Finding>,
) {
    for tensor in tensors {
        if let Some(c) = tensor.name.chars().find(|c| is_unseen(*c)) {
            let text = format!(
                "tensor `{}`: the name holds U+{:04X}, which is not seen where it is shown",
                Quoted(&tensor.name),
                u32::from(c)
            );
            found.push(Finding::new(Level::Warning, "name-unseen", text).about(&tensor.name));
        }
    }
    let Some(normalize) = normalize.filter(|_| tensors.iter().any(|t| !t.name.is_ascii())) else { return };
    let mut seen: HashMap<String, &str> = HashMap::new();
    for tensor in tensors {
        let first = *seen.entry(normalize(&tensor.name)).or_insert(&tensor.name);
        if first != tensor.name {
            let text = format!(
                "tensor `{}`: another name is the same but for the Unicode form, its characters are {} and {}",
                Quoted(&tensor.name),
                CodePoints(first),
                CodePoints(&tensor.name)
            );
            found.push(Finding::new(Level::Warning, "name-twins", text).about(&tensor.name));
        }
    }
}

/// The characters of a name beyond ASCII, by number.
struct CodePoints<'a>(&'a str);

impl std::fmt::Display for CodePoints<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SHOWN: usize = 4;
        let mut beyond = self.0.chars().filter(|c| !c.is_ascii());
        for (i, c) in beyond.by_ref().take(SHOWN).enumerate() {
            write!(f, "{}U+{:04X}", if i == 0 { "" } else { " " }, u32::from(c))?;
        }
        match (beyond.next(), self.0.is_ascii()) {
            (Some(_), _) => f.write_str(" …"),
            (None, true) => f.write_str("ASCII"),
            (None, false) => Ok(()),
        }
    }
}

/// Controls, and characters that take no room or turn the direction of the text.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

fn note_format(report: &FileReport, found: &mut Vec<Finding>) {
    if report.tensors.is_empty() || !report.complete {
        return;
    }
    let format = report.metadata.as_ref().and_then(|metadata| metadata.get("format"));
    let text = match format.map(String::as_str) {
        Some("pt" | "tf" | "flax" | "jax" | "np" | "mlx" | "paddle") => return,
        Some(other) => {
            format!("metadata: `format` is `{}`, loaders know `pt`, `tf`, `flax` and `mlx`", Quoted(other))
        }
        None => "metadata: no `format`, some loaders of model hubs ask for one, such as `pt`".to_owned(),
    };
    found.push(Finding::new(Level::Note, "format-key", text));
}

/// Counts the bytes of `BOOL` tensors that are neither 0 nor 1.
fn look_at_bools(source: &FileSource, report: &mut FileReport) -> Result<(), tensafe_io::Error> {
    let Some(data_start) = report.data_start() else { return Ok(()) };
    let mut chunk = Vec::new();
    for tensor in report.tensors.iter().filter(|tensor| tensor.dtype == Dtype::BOOL) {
        let mut at = data_start.saturating_add(tensor.range.start);
        let end = data_start.saturating_add(tensor.range.end).min(source.len());
        let (mut wrong, mut first) = (0u64, None);
        while at < end {
            let bytes = end.saturating_sub(at).min(CHUNK_BYTES);
            chunk.resize(usize::try_from(bytes).unwrap_or_default(), 0);
            source.read_at(at, &mut chunk)?;
            for (offset, byte) in (at..).zip(&chunk).filter(|(_, byte)| **byte > 1) {
                wrong = wrong.saturating_add(1);
                first = first.or(Some((offset, *byte)));
            }
            at = at.saturating_add(bytes);
        }
        if let Some((offset, byte)) = first {
            let text = format!(
                "tensor `{}`: BOOL bytes that are neither 0 nor 1: {wrong}, the first is {byte} at byte {offset}",
                Quoted(&tensor.name)
            );
            let finding = Finding::new(Level::Warning, "bool-bytes", text);
            report.findings.push(finding.about(&tensor.name).at(offset));
        }
    }
    Ok(())
}

// Index and shards.

/// S-32, both ways round; every disagreement is told.
fn judge_index(report: &mut Report, directory: &Path, index: &ShardIndex, options: &VerifyOptions) {
    let mut wanted: BTreeMap<&str, HashSet<&str>> = BTreeMap::new();
    for (name, file) in &index.weight_map {
        wanted.entry(file).or_default().insert(name);
    }
    let mut bytes = 0u64;
    let mut complete = true;
    for (file, names) in &wanted {
        let shard = judge_file(&directory.join(file), options);
        if shard.unreadable.as_ref().is_some_and(|e| e.kind() == ErrorKind::NotFound) {
            let clause = format!(
                "shard `{}`: there is no such file, the index places tensors in it: {}",
                Quoted(file),
                names.len()
            );
            report.findings.push(Finding::broken(Rule::INDEX_MATCHES, "shard-missing", &clause));
            complete = false;
            continue;
        }
        bytes = shard.tensors.iter().fold(bytes, |sum, tensor| {
            sum.saturating_add(tensor.range.end.saturating_sub(tensor.range.start))
        });
        if shard.unreadable.is_some() || !shard.complete {
            complete = false;
        } else {
            compare(&mut report.findings, file, names, &shard);
        }
        report.files.push(shard);
    }
    if let Some(claimed) = index.total_size.filter(|claimed| complete && *claimed != bytes) {
        let text = format!("index: `total_size` is {claimed}, the tensors hold {bytes} bytes");
        report.findings.push(Finding::new(Level::Warning, "total-size", text));
    }
    if wanted.len() > HUB_SHARDS {
        let text = format!("index: {} shards, viewers of the Hub give up above {HUB_SHARDS}", wanted.len());
        report.findings.push(Finding::new(Level::Warning, "hub-shards", text));
    }
    let plain = |file: &&&str| wanted.len() > 1 && !is_hub_shard_name(file);
    if let Some(file) = wanted.keys().find(plain) {
        let text = format!(
            "shard `{}`: not named as the Hub names shards, such as `model-00001-of-00002.safetensors`",
            Quoted(file)
        );
        report.findings.push(Finding::new(Level::Note, "shard-name", text));
    }
    note_strays(&mut report.findings, directory, &wanted);
}

fn compare(findings: &mut Vec<Finding>, file: &str, names: &HashSet<&str>, shard: &FileReport) {
    let there: HashSet<&str> = shard.tensors.iter().map(|tensor| tensor.name.as_str()).collect();
    let mut absent: Vec<&str> = names.difference(&there).copied().collect();
    absent.sort_by(|a, b| crate::natural_cmp(a, b));
    for name in absent {
        let clause = format!(
            "tensor `{}`: the index places it in `{}`, which does not hold it",
            Quoted(name),
            Quoted(file)
        );
        findings.push(Finding::broken(Rule::INDEX_MATCHES, "tensor-missing", &clause).about(name));
    }
    let mut unnamed: Vec<&str> = there.difference(names).copied().collect();
    unnamed.sort_by(|a, b| crate::natural_cmp(a, b));
    for name in unnamed {
        let clause =
            format!("tensor `{}`: in `{}`, the index does not name it there", Quoted(name), Quoted(file));
        findings.push(Finding::broken(Rule::INDEX_MATCHES, "tensor-unnamed", &clause).about(name));
    }
}

/// Files beside the shards that a loader of the directory might take for part of the model.
fn note_strays(findings: &mut Vec<Finding>, directory: &Path, wanted: &BTreeMap<&str, HashSet<&str>>) {
    let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
    let Ok(entries) = fs::read_dir(directory) else { return };
    let mut strays: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| name.ends_with(".safetensors") && !name.starts_with('.'))
        .filter(|name| !wanted.contains_key(name.as_str()))
        .collect();
    strays.sort();
    for name in strays {
        let text = format!("file `{}`: beside the shards, the index does not name it", Quoted(&name));
        findings.push(Finding::new(Level::Note, "stray-file", text));
    }
}
