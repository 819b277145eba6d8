//! The state of one file's scan: its findings, its budgets, and the way into members.

use std::{collections::HashMap, ops::Range, sync::Arc};

use tensafe_container::ErrorKind;

use crate::{Finding, Rule, ScanOptions, content, finding::Findings, input::Input};

/// Where bytes stand: in which member of the file, if not in the file itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place<'p> {
    pub(crate) member: Option<&'p str>,
}

impl Place<'_> {
    /// The file itself.
    pub(crate) const ROOT: Self = Self { member: None };

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
    /// Bytes of the storages beside the pickle that is judged, where they are known.
    pub(crate) storages: Option<Arc<HashMap<String, u64>>>,
    /// Whether references out of the pickle are numbers, as in the oldest files of torch.
    pub(crate) numbered: bool,
    /// The file, as policies name it.
    path: &'o str,
    nested_left: u64,
    tries_left: u32,
    unpacked_left: u64,
    depth: u32,
}

impl<'o> Scan<'o> {
    pub(crate) fn new(path: &'o str, options: &'o ScanOptions) -> Self {
        Self {
            options,
            findings: Findings::new(options.limits.findings),
            storages: None,
            numbered: false,
            path,
            nested_left: options.limits.nested_bytes,
            tries_left: options.limits.tries,
            unpacked_left: options.limits.unpacked_bytes,
            depth: 0,
        }
    }

    /// Adds a finding about what stands at `place`.
    pub(crate) fn add(&mut self, place: Place<'_>, mut finding: Finding) {
        if finding.member.is_none() {
            finding.member = place.member.map(str::to_owned);
        }
        self.findings.add(finding);
    }

    /// The finding for a symbol that a policy denies.
    pub(crate) fn denied(&self, symbol: &str) -> Option<Finding> {
        let reason = self.options.policy.as_ref()?.denies_symbol(symbol, self.path)?;
        let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        Some(
            Finding::new(Rule::Denied, format!("imports `{symbol}`, which is denied{because}"))
                .of_symbol(symbol),
        )
    }

    /// Takes from the budget of what is looked into; says so where nothing is left.
    pub(crate) fn spend_nested(&mut self, bytes: u64, place: Place<'_>) -> bool {
        let left = self.nested_left.checked_sub(bytes);
        self.nested_left = left.unwrap_or_default();
        if left.is_none() {
            let limit = self.options.limits.nested_bytes;
            let text = format!("texts and bytes of more than {limit} bytes in all were not looked into");
            self.add(place, Finding::new(Rule::LimitMet, text));
        }
        left.is_some()
    }

    /// Takes from the budget of places that are tried; says so where nothing is left.
    pub(crate) fn spend_try(&mut self, place: Place<'_>) -> bool {
        let left = self.tries_left.checked_sub(1);
        self.tries_left = left.unwrap_or_default();
        if left.is_none() {
            let text = format!("more than {} places were not tried as a pickle", self.options.limits.tries);
            self.add(place, Finding::new(Rule::LimitMet, text));
        }
        left.is_some()
    }

    /// The bounds of readers of containers, with what is left of the budget.
    pub(crate) fn container_limits(&self) -> tensafe_container::Limits {
        tensafe_container::Limits::DEFAULT
            .with_members(self.options.limits.members)
            .with_decompressed_bytes(self.unpacked_left)
    }

    /// Takes from the budget of what is decompressed.
    pub(crate) fn spend_unpacked(&mut self, bytes: u64) {
        self.unpacked_left = self.unpacked_left.saturating_sub(bytes);
    }

    /// A scan one level deeper with findings of its own; `None`, and a finding, at the limit.
    pub(crate) fn below(&mut self, place: Place<'_>) -> Option<Self> {
        if self.depth >= self.options.limits.depth {
            let text = format!("nested deeper than {} levels", self.options.limits.depth);
            self.add(place, Finding::new(Rule::LimitMet, text));
            return None;
        }
        Some(Self {
            options: self.options,
            findings: Findings::new(self.options.limits.findings),
            storages: None,
            numbered: false,
            path: self.path,
            nested_left: self.nested_left,
            tries_left: self.tries_left,
            unpacked_left: self.unpacked_left,
            depth: self.depth.saturating_add(1),
        })
    }

    /// Ends a scan that [`below`](Self::below) began.
    pub(crate) fn finish_below(self, above: &mut Self) -> Vec<Finding> {
        above.nested_left = self.nested_left;
        above.tries_left = self.tries_left;
        above.unpacked_left = self.unpacked_left;
        self.findings.into_sorted()
    }

    /// Scans bytes as a member of what stands at `place`.
    pub(crate) fn member(&mut self, name: &str, bytes: Vec<u8>, place: Place<'_>) {
        self.member_input(name, &Input::of_bytes(bytes), place);
    }

    /// Scans a range of bytes as a member of what stands at `place`.
    pub(crate) fn member_range(&mut self, name: &str, input: &Input, range: Range<u64>, place: Place<'_>) {
        self.member_input(name, &input.part(range), place);
    }

    /// Scans a member of what stands at `place`; its findings are among these. Returns the word for
    /// its kind.
    pub(crate) fn member_input(&mut self, name: &str, input: &Input, place: Place<'_>) -> &'static str {
        self.member_with(name, input, place, None)
    }

    /// The same for a pickle beside which storages lie.
    pub(crate) fn member_with(
        &mut self,
        name: &str,
        input: &Input,
        place: Place<'_>,
        storages: Option<Arc<HashMap<String, u64>>>,
    ) -> &'static str {
        let Some(mut inner) = self.below(place) else { return "unknown" };
        inner.storages = storages;
        let path = place.path(name);
        let kind = inner.content(name, input, Place { member: Some(&path) });
        for finding in inner.finish_below(self) {
            self.findings.add(finding);
        }
        kind
    }

    /// Scans bytes of any kind and returns the word for the kind.
    pub(crate) fn content(&mut self, name: &str, input: &Input, place: Place<'_>) -> &'static str {
        content::scan(name, input, place, self)
    }

    /// Says why a container could not be read.
    pub(crate) fn refused(&mut self, error: &tensafe_container::Error, place: Place<'_>) {
        let rule = match error.kind() {
            ErrorKind::Limit => Rule::LimitMet,
            ErrorKind::Unsupported => Rule::UnreadFormat,
            _ => Rule::BrokenArchive,
        };
        let mut finding = Finding::new(rule, tensafe_io::Chain(error).to_string());
        finding.offset = error.offset();
        self.add(place, finding);
    }

    /// Says that bytes could not be read.
    pub(crate) fn unread(&mut self, error: &tensafe_io::Error, place: Place<'_>) {
        self.add(place, Finding::new(Rule::BrokenArchive, error.chain().to_string()));
    }
}
