//! What a user allows and denies, beyond what the rules say.
//!
//! A policy is TOML. An `[[allow]]` makes findings count no more; they stay in the report with the
//! reason. A `[[deny]]` makes a symbol, a rule or a path an error. Deny wins.

use std::{fmt, path::Path, sync::Arc};

use globset::{Glob, GlobBuilder, GlobMatcher};
use serde::Deserialize;

use crate::{Finding, Level, Rule};

/// A policy, read from TOML.
///
/// ```
/// use tensafe_trust::Policy;
///
/// let policy = Policy::parse(
///     r#"
///     fail-on = "warning"
///
///     [[allow]]
///     symbol = "sklearn.*"
///     reason = "we train these ourselves"
///     "#,
/// )?;
/// # Ok::<(), tensafe_trust::PolicyError>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct Policy {
    allow: Vec<Entry>,
    deny: Vec<Entry>,
    fail_on: Option<Level>,
}

/// Why a policy could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PolicyError(Detail);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Detail {
    Toml { message: String, line: Option<usize> },
    Empty { kind: &'static str, number: usize },
    Reason { kind: &'static str, number: usize },
    Rule { kind: &'static str, number: usize, rule: String },
    Pattern { kind: &'static str, number: usize, pattern: String, why: String },
    FailOn { found: String },
}

#[derive(Clone, Debug)]
struct Entry {
    symbol: Option<GlobMatcher>,
    rule: Option<Rule>,
    path: Option<GlobMatcher>,
    reason: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct Document {
    #[serde(default)]
    allow: Vec<Row>,
    #[serde(default)]
    deny: Vec<Row>,
    fail_on: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    symbol: Option<String>,
    rule: Option<String>,
    path: Option<String>,
    #[serde(default)]
    reason: String,
}

impl Policy {
    /// Reads a policy from the text of a TOML file.
    ///
    /// # Errors
    /// Where the text is no TOML, a key or rule is unknown, a pattern cannot be read, an entry names
    /// nothing, or an allowance has no reason.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let document: Document = toml::from_str(text).map_err(|error| {
            let line = error.span().and_then(|span| Some(text.get(..span.start)?.matches('\n').count() + 1));
            PolicyError(Detail::Toml { message: error.message().replace('\n', ", "), line })
        })?;
        let fail_on = match document.fail_on.as_deref() {
            None => None,
            Some("note") => Some(Level::Note),
            Some("warning") => Some(Level::Warning),
            Some("error") => Some(Level::Error),
            Some(other) => return Err(PolicyError(Detail::FailOn { found: other.to_owned() })),
        };
        Ok(Self { allow: entries("allow", document.allow)?, deny: entries("deny", document.deny)?, fail_on })
    }

    /// The level from which on findings make a scan fail, if the policy says.
    #[must_use]
    pub fn fail_on(&self) -> Option<Level> {
        self.fail_on
    }

    /// Whether a symbol is denied in a file, and why.
    pub(crate) fn denies_symbol(&self, symbol: &str, path: &str) -> Option<&str> {
        let fits = |entry: &&Entry| {
            entry.rule.is_none()
                && entry.symbol.as_ref().is_some_and(|pattern| pattern.is_match(symbol))
                && entry.fits_path(path)
        };
        self.deny.iter().find(fits).map(|entry| entry.reason.as_str())
    }

    /// Denies and allows among the findings of the file at `path`.
    pub(crate) fn apply(&self, path: &str, findings: &mut Vec<Finding>) {
        for finding in findings.iter_mut() {
            let denied = self.deny.iter().find(|entry| entry.rule.is_some() && entry.fits(path, finding));
            if let Some(entry) = denied {
                finding.level = Level::Error;
                finding.message += &format!(" (denied{})", entry.because());
                continue;
            }
            let allowed = self.allow.iter().find(|entry| entry.fits(path, finding));
            if finding.rule != Rule::Denied {
                finding.allowed = allowed.map(|entry| entry.reason.clone());
            }
        }
        let whole = |entry: &&Entry| entry.rule.is_none() && entry.symbol.is_none() && entry.fits_path(path);
        if let Some(entry) = self.deny.iter().find(whole) {
            findings.push(Finding::new(Rule::Denied, format!("the file is denied{}", entry.because())));
        }
    }
}

impl Entry {
    fn fits(&self, path: &str, finding: &Finding) -> bool {
        let symbol = match (&self.symbol, &finding.symbol) {
            (None, _) => true,
            (Some(pattern), Some(symbol)) => pattern.is_match(symbol),
            (Some(_), None) => false,
        };
        symbol && self.rule.is_none_or(|rule| rule == finding.rule) && self.fits_path(path)
    }

    fn fits_path(&self, path: &str) -> bool {
        let name = || Path::new(path).file_name().unwrap_or_default();
        self.path.as_ref().is_none_or(|pattern| pattern.is_match(path) || pattern.is_match(name()))
    }

    fn because(&self) -> String {
        if self.reason.is_empty() { String::new() } else { format!(": {}", self.reason) }
    }
}

fn entries(kind: &'static str, rows: Vec<Row>) -> Result<Vec<Entry>, PolicyError> {
    let entry = |(place, row): (usize, Row)| {
        let number = place.saturating_add(1);
        if row.symbol.is_none() && row.rule.is_none() && row.path.is_none() {
            return Err(PolicyError(Detail::Empty { kind, number }));
        }
        if kind == "allow" && row.reason.trim().is_empty() {
            return Err(PolicyError(Detail::Reason { kind, number }));
        }
        let rule = match row.rule {
            None => None,
            Some(rule) => match Rule::find(&rule) {
                Some(found) => Some(found),
                None => return Err(PolicyError(Detail::Rule { kind, number, rule })),
            },
        };
        let failed = |pattern: &str, error: &globset::Error| {
            let why = error.kind().to_string();
            PolicyError(Detail::Pattern { kind, number, pattern: pattern.to_owned(), why })
        };
        let symbol = row.symbol.as_deref().map(|pattern| {
            Glob::new(pattern).map(|glob| glob.compile_matcher()).map_err(|e| failed(pattern, &e))
        });
        let path = row.path.as_deref().map(|pattern| {
            let glob = GlobBuilder::new(pattern).literal_separator(true).build();
            glob.map(|glob| glob.compile_matcher()).map_err(|e| failed(pattern, &e))
        });
        Ok(Entry { symbol: symbol.transpose()?, rule, path: path.transpose()?, reason: row.reason })
    };
    rows.into_iter().enumerate().map(entry).collect()
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Detail::Toml { message, line: Some(line) } => write!(f, "line {line}: {message}"),
            Detail::Toml { message, line: None } => f.write_str(message),
            Detail::Empty { kind, number } => {
                write!(f, "[[{kind}]] {number}: names nothing, needed `symbol`, `rule` or `path`")
            }
            Detail::Reason { kind, number } => write!(f, "[[{kind}]] {number}: has no `reason`"),
            Detail::Rule { kind, number, rule } => {
                write!(f, "[[{kind}]] {number}: `{rule}` is no rule, needed one such as `TS-105`")
            }
            Detail::Pattern { kind, number, pattern, why } => {
                write!(f, "[[{kind}]] {number}: `{pattern}` is no pattern: {why}")
            }
            Detail::FailOn { found } => {
                write!(f, "fail-on is `{found}`, needed `note`, `warning` or `error`")
            }
        }
    }
}

impl std::error::Error for PolicyError {}

/// A policy that files share.
pub(crate) type Shared = Option<Arc<Policy>>;

#[cfg(test)]
mod tests {
    use super::Policy;

    #[test]
    fn what_is_wrong_with_a_policy_is_said() {
        for (text, error) in [
            ("allow = 1", "line 1: invalid type: integer `1`, expected a sequence"),
            ("\n[[alow]]\n", "line 2: unknown field `alow`, expected one of `allow`, `deny`, `fail-on`"),
            ("[[allow]]\nreason = 'x'", "[[allow]] 1: names nothing, needed `symbol`, `rule` or `path`"),
            ("[[allow]]\nrule = 'TS-105'", "[[allow]] 1: has no `reason`"),
            ("[[deny]]\nrule = 'TS-1'", "[[deny]] 1: `TS-1` is no rule, needed one such as `TS-105`"),
            ("fail-on = 'info'", "fail-on is `info`, needed `note`, `warning` or `error`"),
        ] {
            assert_eq!(Policy::parse(text).unwrap_err().to_string(), error);
        }
        let error = Policy::parse("[[deny]]\nsymbol = 'a['").unwrap_err().to_string();
        assert!(error.starts_with("[[deny]] 1: `a[` is no pattern: "), "{error}");
        let error = Policy::parse("fail-on = ").unwrap_err().to_string();
        assert!(error.starts_with("line 1: "), "{error}");
    }
}
