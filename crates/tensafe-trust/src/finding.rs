//! What a scan returns: findings, of files.
//!
//! Invariant: the findings of a file are sorted by member and offset, and one that stands many times
//! is one finding with a count.

use std::{collections::HashMap, fmt};

use serde::Serialize;

use crate::Rule;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Something could not be judged. Neither good nor bad, and never clean.
    Inconclusive,
    /// Worth knowing.
    Note,
    /// Not known to be harmless.
    Warning,
    /// Known to do harm, or made to deceive.
    Error,
}

/// What is to be said of a file as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything was looked at and nothing found.
    Clean,
    /// There are findings, and they may not be all.
    Findings,
    /// Nothing was found, and not everything could be judged.
    Inconclusive,
    /// The file could not be read.
    Unreadable,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is about.
    pub rule: Rule,
    /// How much it matters.
    pub level: Level,
    /// One clause: subject first, then what was found.
    pub message: String,
    /// The member of the file, a `!` between an archive and its member; `None` for the file itself.
    pub member: Option<String>,
    /// The byte of the file, or of its member, where it stands.
    pub offset: Option<u64>,
    /// The symbol, as Python 3 names it: `module.name`.
    pub symbol: Option<String>,
    /// The pickle's instruction, as Python names it.
    pub opcode: Option<&'static str>,
    /// How many times it stands; the offset is that of the first.
    pub count: u64,
    /// The reason of a policy that allows it. What is allowed makes no verdict.
    pub allowed: Option<String>,
}

/// What was found in one file.
#[derive(Debug)]
#[non_exhaustive]
pub struct FileReport {
    /// The path as it was given, or found below a directory that was given.
    pub path: String,
    /// What the content is: a word such as `pickle`, `zip`, `safetensors`, `text`.
    pub kind: &'static str,
    /// Bytes of the file.
    pub bytes: u64,
    /// What was found.
    pub findings: Vec<Finding>,
    /// Why the file could not be read.
    pub unreadable: Option<String>,
}

impl Finding {
    pub(crate) fn new(rule: Rule, message: impl Into<String>) -> Self {
        Self {
            rule,
            level: rule.level(),
            message: message.into(),
            member: None,
            offset: None,
            symbol: None,
            opcode: None,
            count: 1,
            allowed: None,
        }
    }

    pub(crate) fn at(mut self, offset: impl TryInto<u64>) -> Self {
        self.offset = offset.try_into().ok();
        self
    }

    pub(crate) fn of_symbol(mut self, symbol: impl Into<String>) -> Self {
        self.symbol = Some(symbol.into());
        self
    }

    pub(crate) fn by(mut self, opcode: &'static str) -> Self {
        self.opcode = Some(opcode);
        self
    }

    pub(crate) fn leveled(mut self, level: Level) -> Self {
        self.level = level;
        self
    }
}

impl FileReport {
    /// What is to be said of the file as a whole.
    #[must_use]
    pub fn verdict(&self) -> Verdict {
        if self.unreadable.is_some() {
            Verdict::Unreadable
        } else if self.worst().is_some() {
            Verdict::Findings
        } else if self.is_inconclusive() {
            Verdict::Inconclusive
        } else {
            Verdict::Clean
        }
    }

    /// The highest level of its findings; `None` where there is none, or none but inconclusive ones.
    #[must_use]
    pub fn worst(&self) -> Option<Level> {
        self.standing().map(|finding| finding.level).filter(|level| *level > Level::Inconclusive).max()
    }

    /// Whether something of it could not be judged.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        self.standing().any(|finding| finding.level == Level::Inconclusive)
    }

    /// What no policy allows.
    fn standing(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.allowed.is_none())
    }
}

/// What was found in all files of a scan, in the order of their paths.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct ScanReport {
    /// One report for each file.
    pub files: Vec<FileReport>,
}

impl ScanReport {
    /// A report of these files.
    #[must_use]
    pub fn new(files: Vec<FileReport>) -> Self {
        Self { files }
    }

    /// Every finding with its file, those that a policy allows among them.
    pub fn findings(&self) -> impl Iterator<Item = (&FileReport, &Finding)> {
        self.files.iter().flat_map(|file| file.findings.iter().map(move |finding| (file, finding)))
    }

    /// The highest level of all findings that no policy allows, inconclusive ones aside.
    #[must_use]
    pub fn worst(&self) -> Option<Level> {
        self.files.iter().filter_map(FileReport::worst).max()
    }

    /// Whether a finding of this level or above stands that no policy allows.
    #[must_use]
    pub fn reaches(&self, level: Level) -> bool {
        self.worst() >= Some(level)
    }

    /// Whether something could not be judged.
    #[must_use]
    pub fn is_inconclusive(&self) -> bool {
        self.files.iter().any(FileReport::is_inconclusive)
    }
}

impl fmt::Display for Level {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Inconclusive => "inconclusive",
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clean => "clean",
            Self::Findings => "findings",
            Self::Inconclusive => "inconclusive",
            Self::Unreadable => "unreadable",
        })
    }
}

/// What makes two findings one.
type Key = (Rule, Level, Option<String>, Option<&'static str>, Option<String>, String);

/// Gathers findings: those that say the same are counted, and beyond a limit no more are kept.
#[derive(Debug)]
pub(crate) struct Findings {
    list: Vec<Finding>,
    places: HashMap<Key, usize>,
    limit: usize,
    full: bool,
    worst: Option<Level>,
}

impl Findings {
    pub(crate) fn new(limit: usize) -> Self {
        Self { list: Vec::new(), places: HashMap::new(), limit, full: false, worst: None }
    }

    pub(crate) fn add(&mut self, finding: Finding) {
        // A symbol is one finding wherever its message comes from, other findings differ by theirs.
        let message = if finding.symbol.is_some() { String::new() } else { finding.message.clone() };
        let key = (
            finding.rule,
            finding.level,
            finding.member.clone(),
            finding.opcode,
            finding.symbol.clone(),
            message,
        );
        if let Some(known) = self.places.get(&key).and_then(|place| self.list.get_mut(*place)) {
            known.count = known.count.saturating_add(1);
            known.offset = known.offset.min(finding.offset);
            return;
        }
        if self.list.len() >= self.limit {
            // What is worse than all that is kept is still told.
            self.full = true;
            if Some(finding.level) <= self.worst {
                return;
            }
        }
        self.worst = self.worst.max(Some(finding.level));
        self.places.insert(key, self.list.len());
        self.list.push(finding);
    }

    /// Whether a finding of one of these rules was added.
    pub(crate) fn any_of(&self, rules: &[Rule]) -> bool {
        self.list.iter().any(|finding| rules.contains(&finding.rule))
    }

    pub(crate) fn into_sorted(mut self) -> Vec<Finding> {
        if self.full {
            let text = format!("more than {} findings; the others are not told", self.limit);
            self.list.push(Finding::new(Rule::LimitMet, text));
        }
        self.list.sort_by(|a, b| {
            (&a.member, a.offset, a.rule, &a.message).cmp(&(&b.member, b.offset, b.rule, &b.message))
        });
        self.list
    }
}
