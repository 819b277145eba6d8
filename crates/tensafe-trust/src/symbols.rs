//! What is known of the names that pickles import.
//!
//! [`judge`] answers for one exact pair of module and name. The order is fixed: names known to do
//! harm, names known to be harmless, modules known to do harm with all that is below them, whole
//! modules of torch, the rest of Python's standard library, and last what is unknown. The tables are
//! in `symbols/`; each is sorted, and a test says so.

mod harmful;
mod harmless;
mod stdlib;

use tensafe_pickle::{Symbol, known_symbol, python3_name};

/// What importing or calling a symbol would do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// Makes data and nothing else.
    Harmless,
    /// Runs code, starts programs, imports by name, or loads native libraries.
    RunsCode,
    /// Opens connections.
    Network,
    /// Reads, writes or removes files.
    Files,
    /// `getattr`, whose harm depends on its arguments.
    Attribute,
    /// Reads a file that its arguments name, beside the pickle.
    LoadsFile,
    /// Loads bytes that stand in the pickle as another checkpoint.
    LoadsBytes,
    /// A module of torch with its code.
    Module,
    /// Code of the TorchScript that the archive holds.
    TorchScript,
    /// A dotted name below what is not known to do harm.
    Dotted,
    /// Not such a name as Python code spells.
    Deceptive,
    /// Of Python's standard library, and not known to be harmless.
    StandardLibrary,
    /// Unknown.
    Unknown,
}

impl Judgement {
    /// Whether it is known to do harm.
    pub(crate) fn is_harm(self) -> bool {
        matches!(self, Self::RunsCode | Self::Network | Self::Files)
    }
}

/// Whether a symbol that may harm when it is called is a class that pickles hold as a value.
pub(crate) fn is_harmless_value(symbol: &Symbol<'_>) -> bool {
    matches!(
        (&*symbol.module, &*symbol.name),
        ("builtins", "type") | ("numpy" | "numpy.core.memmap" | "numpy._core.memmap", "memmap")
    )
}

/// Judges a symbol by its names, as Python 3 and as Python 2 would import it.
pub(crate) fn judge(symbol: &Symbol<'_>) -> Judgement {
    let (module, name) = (&*symbol.module, &*symbol.name);
    let known = of_names(module, name);
    // The names in the table of the harmless are those of Python 3.
    if known == Judgement::Harmless {
        return known;
    }
    let (new_module, new_name) = python3_name(module, name);
    if (new_module, new_name) == (module, name) {
        return known;
    }
    // What Python 2 would import under a protocol of Python 3.
    match of_names(new_module, new_name) {
        Judgement::Harmless => known,
        other => other,
    }
}

fn of_names(module: &str, name: &str) -> Judgement {
    if let Some(known) = harmful::name(module, name) {
        return known;
    }
    if harmless::is_harmless(module, name) || is_known(module, name) {
        return Judgement::Harmless;
    }
    if !is_dotted_path(module) || !is_dotted_path(name) {
        return Judgement::Deceptive;
    }
    if name.contains('.') {
        return dotted(module, name);
    }
    if let Some(known) = harmful::module(module) {
        return known;
    }
    // A module imports others, and a name may be one of them: `torch.serialization` has an `os`.
    if harmful::is_imported(name.trim_start_matches('_')) {
        return Judgement::RunsCode;
    }
    if name.starts_with("__") && name.ends_with("__") {
        return Judgement::RunsCode;
    }
    match module.split('.').next() {
        Some("__torch__") => Judgement::TorchScript,
        _ if below("torch.nn", module) => Judgement::Module,
        Some(top) if stdlib::is_stdlib(top) => Judgement::StandardLibrary,
        _ => Judgement::Unknown,
    }
}

/// What the converter interprets, but for what another table says more of.
fn is_known(module: &str, name: &str) -> bool {
    known_symbol(module, name) && !matches!((module, name), ("builtins", "type") | (_, "memmap"))
}

/// Attributes of attributes: what any of them leads to.
fn dotted(module: &str, name: &str) -> Judgement {
    let mut worst = Judgement::Dotted;
    for part in name.split('.') {
        if part.starts_with("__") {
            return Judgement::RunsCode;
        }
        // Modules import others under such names: `collections._sys`.
        if harmful::is_imported(part.trim_start_matches('_')) {
            return Judgement::RunsCode;
        }
        worst = harmful::name(module, part).unwrap_or(worst);
    }
    match worst {
        Judgement::Dotted if module == "builtins" => Judgement::RunsCode,
        Judgement::Dotted => harmful::module(module).unwrap_or_else(|| {
            let top = module.split('.').next().unwrap_or_default();
            if stdlib::is_stdlib(top) { Judgement::StandardLibrary } else { worst }
        }),
        worst => worst,
    }
}

fn is_dotted_path(path: &str) -> bool {
    path.split('.').all(|part| {
        let mut bytes = part.bytes();
        bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
            && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
    })
}

/// Whether `module` is `parent` or stands below it.
fn below(parent: &str, module: &str) -> bool {
    module.strip_prefix(parent).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use tensafe_pickle::Symbol;

    use super::{Judgement, judge};

    fn judged(module: &str, name: &str) -> Judgement {
        judge(&Symbol { module: module.into(), name: name.into() })
    }

    #[test]
    fn harm_wins_and_the_rest_is_not_trusted() {
        for (module, name, judgement) in [
            ("os", "system", Judgement::RunsCode),
            ("posix", "system", Judgement::RunsCode),
            ("commands", "getoutput", Judgement::RunsCode),
            ("__builtin__", "eval", Judgement::RunsCode),
            ("builtins", "getattr", Judgement::Attribute),
            ("builtins", "set", Judgement::Harmless),
            ("asyncio.unix_events", "_UnixSubprocessTransport._start", Judgement::RunsCode),
            ("pathlib", "os.system", Judgement::RunsCode),
            ("torch.serialization", "os", Judgement::RunsCode),
            ("mypackage.code", "trace", Judgement::Unknown),
            ("torch.hub", "load", Judgement::RunsCode),
            ("torch.nn.modules.linear", "Linear", Judgement::Module),
            ("torch.nn.parameter", "Parameter", Judgement::Harmless),
            ("torch._utils", "_rebuild_tensor_v2", Judgement::Harmless),
            ("__torch__.model", "Net", Judgement::TorchScript),
            ("collections", "OrderedDict", Judgement::Harmless),
            ("collections", "ChainMap", Judgement::StandardLibrary),
            ("socket", "socket", Judgement::Network),
            ("ssl", "get_server_certificate", Judgement::Network),
            ("urllib2", "urlopen", Judgement::Network),
            ("shutil", "rmtree", Judgement::Files),
            ("sklearn.svm._classes", "SVC", Judgement::Unknown),
            ("collections", "_sys.modules", Judgement::RunsCode),
            ("string", "Formatter.get_field", Judgement::StandardLibrary),
            ("sklearn.svm", "Outer.Inner", Judgement::Dotted),
            ("sklearn.svm", "Outer.__init__.__globals__", Judgement::RunsCode),
            ("os\u{200b}", "system", Judgement::Deceptive),
            ("a b", "c", Judgement::Deceptive),
            ("", "", Judgement::Deceptive),
            ("osprey", "run", Judgement::Unknown),
        ] {
            assert_eq!(judged(module, name), judgement, "{module}.{name}");
        }
    }
}
