//! The commands. Each returns data; `output` prints it.

pub(crate) mod completions;
pub(crate) mod convert;
pub(crate) mod inspect;
pub(crate) mod man;
pub(crate) mod scan;
pub(crate) mod summary;
pub(crate) mod verify;

use serde::Serialize;
use tensafe::{Dtype, Error, Rule, Totals};

/// What a command has to say.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) page: Page,
    /// What went wrong with single inputs; each makes the exit code 2.
    pub(crate) failures: Vec<Failure>,
    /// What to do next.
    pub(crate) hints: Vec<String>,
    /// Whether the answer is a negative one: exit code 1.
    pub(crate) negative: bool,
}

#[derive(Debug)]
pub(crate) enum Page {
    Convert(Box<convert::Converted>),
    Inspect(inspect::Inspection),
    Verify(verify::Verification),
    Scan(scan::Scanned),
    Summary(summary::Summaries),
    /// Text for a program: completions, a man page.
    Text(Vec<u8>),
}

/// An input that could not be read.
#[derive(Debug, Serialize)]
pub(crate) struct Failure {
    pub(crate) path: String,
    pub(crate) message: String,
    pub(crate) rule: Option<String>,
    #[serde(skip)]
    pub(crate) hint: Option<String>,
}

/// Figures of tensors.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Figures {
    pub(crate) tensors: u64,
    pub(crate) parameters: u64,
    pub(crate) bytes: u64,
}

/// Figures of one dtype.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct DtypeFigures {
    pub(crate) dtype: &'static str,
    #[serde(flatten)]
    pub(crate) figures: Figures,
}

impl Failure {
    pub(crate) fn new(path: &str, message: String) -> Self {
        Self { path: path.to_owned(), message, rule: None, hint: None }
    }

    pub(crate) fn of(path: &str, error: &Error) -> Self {
        let rule = error.rule().map(|rule: Rule| rule.to_string());
        Self { rule, ..Self::new(path, error.chain().to_string()) }
    }

    pub(crate) fn with_hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl From<Totals> for Figures {
    fn from(totals: Totals) -> Self {
        Self { tensors: totals.tensors, parameters: totals.parameters, bytes: totals.bytes }
    }
}

fn dtype_figures(dtypes: &[(Dtype, Totals)]) -> Vec<DtypeFigures> {
    let figures = |(dtype, totals): &(Dtype, Totals)| DtypeFigures {
        dtype: dtype.name(),
        figures: Figures::from(*totals),
    };
    dtypes.iter().map(figures).collect()
}
