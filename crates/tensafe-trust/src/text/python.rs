//! Python beside weights: code that a loader runs when it is asked to.
//!
//! Nothing is parsed. Words that load pickles or run other code are told, so that a reader knows where
//! to look.

use crate::{
    Finding, Rule,
    scan::{Place, Scan},
};

/// Words of code that loads pickles, or runs what it is given.
const WORDS: &[&str] = &[
    "__reduce__",
    "allow_pickle=True",
    "cloudpickle.load",
    "ctypes.",
    "dill.load",
    "eval(",
    "exec(",
    "importlib.import_module(",
    "joblib.load(",
    "marshal.loads",
    "os.popen(",
    "os.system(",
    "pickle.load",
    "pickle.Unpickler",
    "runpy.",
    "subprocess.",
    "torch.hub.load",
    "torch.load(",
    "trust_remote_code=True",
    "urllib.request",
    "weights_only=False",
];

pub(super) fn judge(name: &str, text: &str, place: Place<'_>, scan: &mut Scan<'_>) {
    let found: Vec<&str> = WORDS.iter().copied().filter(|word| text.contains(word)).collect();
    let hub = name.rsplit(['/', '\\', '!']).next() == Some("hubconf.py");
    let finding = match (hub, found.is_empty()) {
        (true, _) => Finding::new(Rule::LoadingCode, "`hubconf.py` is run by `torch.hub.load`"),
        (false, true) => Finding::new(Rule::PythonCode, "Python code beside weights"),
        (false, false) => Finding::new(Rule::LoadingCode, format!("the code has `{}`", found.join("`, `"))),
    };
    let at = found.first().and_then(|word| text.find(word)).filter(|_| !hub);
    scan.add(place, Finding { offset: at.map(|at| at as u64), ..finding });
}
