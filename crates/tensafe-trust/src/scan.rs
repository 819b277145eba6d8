//! The state of one file's scan, and the entry for bytes.

use crate::{FileReport, Finding, Rule, ScanOptions, finding::Findings, pickle};

/// Where bytes stand: in which member of the file, and how far into it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    /// The member, `None` for the file itself.
    pub(crate) member: Option<&'p str>,
    /// The byte of the member at which the bytes begin.
    pub(crate) base: u64,
}

impl Place<'_> {
    /// The file itself, from its first byte.
    pub(crate) const ROOT: Self = Self { member: None, base: 0 };

    /// So many bytes further.
    pub(crate) fn plus(self, bytes: u64) -> Self {
        Self { base: self.base.saturating_add(bytes), ..self }
    }

    /// The path of a member below this place.
    pub(crate) fn path(&self, member: &str) -> String {
        match self.member {
            Some(above) => format!("{above}!{member}"),
            None => member.to_owned(),
        }
    }
}

/// The scan of one file: what was found so far, and what is left of the budgets.
#[derive(Debug)]
pub(crate) struct Scan<'o> {
    pub(crate) options: &'o ScanOptions,
    pub(crate) findings: Findings,
    nested_left: u64,
    depth: u32,
}

impl<'o> Scan<'o> {
    pub(crate) fn new(options: &'o ScanOptions) -> Self {
        Self {
            options,
            findings: Findings::new(options.limits.findings),
            nested_left: options.limits.nested_bytes,
            depth: 0,
        }
    }

    /// Adds a finding whose offset counts from `place`.
    pub(crate) fn add(&mut self, place: &Place<'_>, mut finding: Finding) {
        finding.offset = finding.offset.map(|offset| offset.saturating_add(place.base));
        if finding.member.is_none() {
            finding.member = place.member.map(str::to_owned);
        }
        self.findings.add(finding);
    }

    /// Takes from the budget of what is looked into; says so where nothing is left.
    pub(crate) fn spend_nested(&mut self, bytes: usize, place: &Place<'_>) -> bool {
        let left = self.nested_left.checked_sub(bytes as u64);
        self.nested_left = left.unwrap_or_default();
        if left.is_none() {
            let limit = self.options.limits.nested_bytes;
            let text = format!("texts and bytes of more than {limit} bytes in all were not looked into");
            self.add(place, Finding::new(Rule::LimitMet, text));
        }
        left.is_some()
    }

    /// A scan one level deeper with findings of its own; `None`, and a finding, at the limit.
    pub(crate) fn below(&mut self, place: &Place<'_>) -> Option<Self> {
        if self.depth >= self.options.limits.depth {
            let text = format!("nested deeper than {} levels", self.options.limits.depth);
            self.add(place, Finding::new(Rule::LimitMet, text));
            return None;
        }
        Some(Self {
            options: self.options,
            findings: Findings::new(self.options.limits.findings),
            nested_left: self.nested_left,
            depth: self.depth.saturating_add(1),
        })
    }

    /// Ends a scan that [`below`](Self::below) began.
    pub(crate) fn finish_below(self, above: &mut Self) -> Vec<Finding> {
        above.nested_left = self.nested_left;
        self.findings.into_sorted()
    }

    /// Scans what stands in `bytes` as a member of its own, with its findings among these.
    pub(crate) fn nested_content(&mut self, label: &str, bytes: &[u8], place: &Place<'_>) {
        let Some(inner) = self.below(place) else { return };
        let path = place.path(label);
        let mut inner = inner;
        inner.content(label, bytes.to_vec(), &Place { member: Some(&path), base: 0 });
        for finding in inner.finish_below(self) {
            self.findings.add(finding);
        }
    }

    /// Scans bytes of any kind and returns the word for the kind.
    pub(crate) fn content(&mut self, _name: &str, bytes: Vec<u8>, place: &Place<'_>) -> &'static str {
        stream(&bytes, place, self);
        "pickle"
    }
}

/// Judges pickles one after another.
fn stream(bytes: &[u8], place: &Place<'_>, scan: &mut Scan<'_>) {
    let mut at = 0usize;
    while let Some(rest) = bytes.get(at..).filter(|rest| at == 0 || !rest.is_empty()) {
        let place = place.plus(at as u64);
        if at > 0 && !looks_like_pickle(rest) {
            let text = format!("{} bytes follow the end of the pickle", rest.len());
            return scan.add(&place, Finding::new(Rule::AfterStop, text).at(0u64));
        }
        if at > 0 {
            scan.add(&place, Finding::new(Rule::SecondPickle, "another pickle follows").at(0u64));
        }
        let Some(end) = pickle::judge(rest, &place, scan).end else { return };
        at = at.saturating_add(end);
    }
}

/// Whether bytes after a pickle go on as another.
fn looks_like_pickle(bytes: &[u8]) -> bool {
    matches!(bytes, [0x80, 0..=5, ..]) || {
        let pickle = tensafe_pickle::evaluate(bytes, &tensafe_pickle::Limits::DEFAULT);
        pickle.error().is_none() || !pickle.symbols().is_empty()
    }
}

/// Scans bytes as if they were a file called `name`.
///
/// # Cost
/// Copies the bytes once. Never fails: what cannot be understood is a finding.
#[must_use]
pub fn scan_bytes(name: &str, bytes: &[u8], options: &ScanOptions) -> FileReport {
    let mut scan = Scan::new(options);
    let kind = scan.content(name, bytes.to_vec(), &Place::ROOT);
    FileReport {
        path: name.to_owned(),
        kind,
        bytes: bytes.len() as u64,
        findings: scan.findings.into_sorted(),
        unreadable: None,
    }
}
