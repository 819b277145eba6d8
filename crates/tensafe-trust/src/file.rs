//! Files and directories: which are scanned, in parallel, and the report of each.
//!
//! A directory is walked in the order of its names, files first. Symbolic links are followed where they
//! lead to a place below the path that was given, and told otherwise. Directories of version control
//! are left out, and files that are named are always scanned.

use std::{
    collections::HashSet,
    fs, io,
    num::NonZero,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use tensafe_io::{Error, FileSource};

use crate::{
    FileReport, Finding, Rule, ScanOptions, ScanReport,
    input::Input,
    scan::{Place, Scan},
    text,
};

/// Directories of version control, whose objects no loader reads.
const LEFT_OUT: &[&str] = &[".git", ".hg", ".svn"];

/// Scans bytes as if they were a file called `name`.
///
/// # Cost
/// Copies the bytes once. Never fails: what cannot be understood is a finding.
#[must_use]
pub fn scan_bytes(name: &str, bytes: &[u8], options: &ScanOptions) -> FileReport {
    report(name, &Input::of_bytes(bytes.to_vec()), options)
}

/// Scans files, and everything below directories. Reports are in the order of the paths given, and
/// below a directory in the order of names.
///
/// Never fails: a path that cannot be read has a report that says so.
///
/// # Cost
/// Reads directories, headers and pickles, and no tensors unless
/// [`ScanOptions::crc`] asks for it. One thread for each processor, each with one file at a time.
///
/// # Examples
/// ```no_run
/// use tensafe_trust::{ScanOptions, scan, to_sarif};
///
/// let report = scan(["models/"], &ScanOptions::default());
/// println!("{}", to_sarif(&report));
/// ```
pub fn scan<P: AsRef<Path>>(paths: impl IntoIterator<Item = P>, options: &ScanOptions) -> ScanReport {
    scan_with(paths, options, &|_| {})
}

/// As [`scan`], and hands each file's report to `each` as soon as it is there: in no order, from many
/// threads.
pub fn scan_with<P: AsRef<Path>>(
    paths: impl IntoIterator<Item = P>,
    options: &ScanOptions,
    each: &(dyn Fn(&FileReport) + Sync),
) -> ScanReport {
    let mut found = Vec::new();
    for path in paths {
        collect(path.as_ref(), &mut found);
    }
    let mut reports = scan_all(&found, options, each);
    pickles_beside(&found, options, &mut reports);
    ScanReport::new(reports)
}

/// A file to scan, or what is in the way of it.
#[derive(Debug)]
struct Target {
    path: PathBuf,
    /// Why it is not read.
    refused: Option<Refusal>,
}

#[derive(Debug)]
enum Refusal {
    Io(Error),
    /// A link that leads out of the tree.
    Outside,
    /// A pipe, a device, a socket.
    Special,
}

impl Refusal {
    fn opening(path: &Path, error: io::Error) -> Self {
        Self::Io(Error::from_os("open", path, error))
    }
}

fn collect(path: &Path, found: &mut Vec<Target>) {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => {
            let root = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
            walk(path, &borders(root), found);
        }
        Ok(metadata) if metadata.is_file() => found.push(Target { path: path.to_owned(), refused: None }),
        Ok(_) => found.push(Target { path: path.to_owned(), refused: Some(Refusal::Special) }),
        Err(error) => {
            found.push(Target { path: path.to_owned(), refused: Some(Refusal::opening(path, error)) })
        }
    }
}

/// The directory that links may not lead out of. A snapshot in the cache of the Hugging Face hub is
/// made of links to the blobs beside it.
fn borders(root: PathBuf) -> PathBuf {
    let snapshots = root.parent().filter(|parent| parent.ends_with("snapshots"));
    let model = snapshots.and_then(Path::parent).filter(|model| model.join("blobs").is_dir());
    model.map(Path::to_owned).unwrap_or(root)
}

/// Everything below a directory. Links to directories are not followed, so that the walk ends.
fn walk(directory: &Path, root: &Path, found: &mut Vec<Target>) {
    let mut waiting = vec![directory.to_owned()];
    while let Some(directory) = waiting.pop() {
        let entries = fs::read_dir(&directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
        let mut entries = match entries {
            Ok(entries) => entries,
            Err(error) => {
                let refused = Some(Refusal::opening(&directory, error));
                found.push(Target { path: directory, refused });
                continue;
            }
        };
        entries.sort_by_key(fs::DirEntry::file_name);
        let mut below = Vec::new();
        for entry in entries {
            let path = entry.path();
            let refused = match entry.file_type() {
                Ok(kind) if kind.is_dir() => {
                    if !LEFT_OUT.iter().any(|name| entry.file_name() == *name) {
                        below.push(path);
                    }
                    continue;
                }
                Ok(kind) if kind.is_file() => None,
                Ok(kind) if kind.is_symlink() => match link(&path, root) {
                    Some(refused) => refused,
                    None => continue,
                },
                Ok(_) => Some(Refusal::Special),
                Err(error) => Some(Refusal::opening(&path, error)),
            };
            found.push(Target { path, refused });
        }
        waiting.extend(below.into_iter().rev());
    }
}

/// What to do with a link: `None` to pass over it, since what it leads to is in the tree itself.
fn link(path: &Path, root: &Path) -> Option<Option<Refusal>> {
    match fs::canonicalize(path) {
        Ok(target) if !target.starts_with(root) => Some(Some(Refusal::Outside)),
        Ok(target) if target.is_file() => Some(None),
        Ok(_) => None,
        Err(error) => Some(Some(Refusal::opening(path, error))),
    }
}

fn scan_all(
    targets: &[Target],
    options: &ScanOptions,
    each: &(dyn Fn(&FileReport) + Sync),
) -> Vec<FileReport> {
    let machine = || thread::available_parallelism().map_or(1, NonZero::get);
    let threads = if options.threads == 0 { machine() } else { options.threads };
    let threads = threads.min(targets.len()).max(1);
    let next = AtomicUsize::new(0);
    let reports = Mutex::new(Vec::with_capacity(targets.len()));
    let work = || {
        let mut own = Vec::new();
        while let Some((place, target)) = {
            let place = next.fetch_add(1, Ordering::Relaxed);
            targets.get(place).map(|target| (place, target))
        } {
            let report = of_target(target, options);
            each(&report);
            own.push((place, report));
        }
        reports.lock().unwrap_or_else(PoisonError::into_inner).extend(own);
    };
    thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(work);
        }
        work();
    });
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(place, _)| *place);
    reports.into_iter().map(|(_, report)| report).collect()
}

fn of_target(target: &Target, options: &ScanOptions) -> FileReport {
    let path = target.path.display().to_string();
    let failed = |path: String, message: String| FileReport {
        path,
        kind: "unread",
        bytes: 0,
        findings: Vec::new(),
        unreadable: Some(message),
    };
    match &target.refused {
        Some(Refusal::Io(error)) => return failed(path, error.chain().to_string()),
        Some(Refusal::Outside) => {
            let text = "a symbolic link leads out of the directory, and was not followed";
            let findings = vec![Finding::new(Rule::LimitMet, text)];
            return FileReport { path, kind: "link", bytes: 0, findings, unreadable: None };
        }
        Some(Refusal::Special) => return failed(path, "neither a file nor a directory".to_owned()),
        None => {}
    }
    let input = FileSource::open(&target.path).and_then(|source| Input::new(Arc::new(source)));
    match input {
        Ok(input) => report(&path, &input, options),
        Err(error) => failed(path, error.chain().to_string()),
    }
}

fn report(path: &str, input: &Input, options: &ScanOptions) -> FileReport {
    let mut scan = Scan::new(path, options);
    let kind = scan.content(path, input, Place::ROOT);
    let mut findings = scan.findings.into_sorted();
    if let Some(policy) = &options.policy {
        policy.apply(path, &mut findings);
    }
    FileReport { path: path.to_owned(), kind, bytes: input.len(), findings, unreadable: None }
}

/// Pickled weights that lie beside safetensors.
fn pickles_beside(targets: &[Target], options: &ScanOptions, reports: &mut [FileReport]) {
    let all = targets.iter().zip(&*reports);
    let safe = all.filter(|(_, report)| report.kind == "safetensors");
    let safe: HashSet<PathBuf> = safe.map(|(target, _)| parent(&target.path)).collect();
    for (target, report) in targets.iter().zip(reports) {
        let pickled = matches!(report.kind, "pickle" | "torch" | "torch-legacy" | "torch-tar" | "joblib");
        let named = matches!(text::ending(&report.path).as_str(), "bin" | "ckpt" | "pt" | "pth");
        if pickled && named && safe.contains(&parent(&target.path)) {
            let mut found = vec![Finding::new(Rule::PickleBeside, "pickled weights beside safetensors")];
            if let Some(policy) = &options.policy {
                policy.apply(&report.path, &mut found);
            }
            report.findings.extend(found.into_iter().filter(|f| f.rule == Rule::PickleBeside));
        }
    }
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map(Path::to_owned).unwrap_or_default()
}
