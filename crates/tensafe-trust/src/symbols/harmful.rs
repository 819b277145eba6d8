//! Names and modules that are known to do harm, and what kind of harm.
//!
//! A module stands for all that is below it. The tables are not what keeps a scan safe, since what is
//! in no table is a finding too: they make known harm an error, and say what it is.

use super::{Judgement, below};
use Judgement::{Attribute, Files, LoadsBytes, LoadsFile, Network, RunsCode};

/// What is known of one name of one module.
pub(super) fn name(module: &str, name: &str) -> Option<Judgement> {
    let place = NAMES.binary_search_by(|(known, _, _)| (*known).cmp(module)).ok()?;
    // A module stands once for each kind of harm, side by side.
    let before = NAMES.get(..place)?.iter().rev().take_while(|(known, _, _)| *known == module);
    let after = NAMES.get(place..)?.iter().take_while(|(known, _, _)| *known == module);
    before.chain(after).find(|(_, names, _)| names.contains(&name)).map(|(_, _, judgement)| *judgement)
}

/// What is known of a module or of one above it.
pub(super) fn module(module: &str) -> Option<Judgement> {
    let top = module.split('.').next().unwrap_or(module);
    if let Ok(place) = TOPS.binary_search_by(|(known, _)| (*known).cmp(top)) {
        return TOPS.get(place).map(|(_, judgement)| *judgement);
    }
    BELOW.iter().find(|(known, _)| below(known, module)).map(|(_, judgement)| *judgement)
}

/// Whether an attribute of this name is a module that was imported: a word that hardly names anything
/// else.
pub(super) fn is_imported(name: &str) -> bool {
    IMPORTED.binary_search(&name).is_ok()
}

#[rustfmt::skip]
const IMPORTED: &[&str] = &[
    "asyncio", "builtins", "cloudpickle", "codecs", "concurrent", "ctypes", "dill", "distutils", "ftplib", "functools",
    "httplib", "imp", "importlib", "inspect", "marshal", "multiprocessing", "nt", "os", "pathlib", "pickle",
    "pkgutil", "posix", "posixpath", "pty", "requests", "runpy", "setuptools", "shutil", "smtplib", "socket", "sqlite3",
    "subprocess", "sys", "tempfile", "threading", "types", "urllib", "webbrowser", "zipimport",
];

#[rustfmt::skip]
const NAMES: &[(&str, &[&str], Judgement)] = &[
    ("_codecs", &["lookup", "register", "register_error"], RunsCode),
    ("_io", &["FileIO", "open", "open_code"], Files),
    ("builtins", &[
        "__build_class__", "__import__", "apply", "breakpoint", "classmethod", "compile", "delattr",
        "dir", "eval", "exec", "execfile", "exit", "filter", "globals", "help", "hasattr", "input", "iter",
        "locals", "map", "memoryview", "next", "print", "property", "quit", "raw_input", "reduce",
        "reload", "setattr", "staticmethod", "super", "type", "vars",
    ], RunsCode),
    ("builtins", &["file", "open"], Files),
    ("builtins", &["getattr"], Attribute),
    ("codecs", &["open"], Files),
    ("copyreg", &["add_extension", "constructor", "pickle", "remove_extension"], RunsCode),
    ("functools", &["cached_property", "partial", "partialmethod", "reduce", "singledispatch", "update_wrapper", "wraps"], RunsCode),
    ("io", &["FileIO", "open", "open_code"], Files),
    ("joblib", &["Memory", "Parallel", "load"], RunsCode),
    ("joblib.numpy_pickle", &["NDArrayWrapper"], LoadsFile),
    ("joblib.numpy_pickle", &["NumpyUnpickler", "load", "load_temporary_memmap"], RunsCode),
    ("joblib.numpy_pickle_compat", &["NDArrayWrapper", "ZNDArrayWrapper"], LoadsFile),
    ("joblib.numpy_pickle_compat", &["load_compatibility", "read_zfile"], RunsCode),
    ("logging", &["FileHandler"], Files),
    ("numpy", &["load", "loads"], RunsCode),
    ("numpy", &["DataSource", "fromfile", "fromregex", "genfromtxt", "loadtxt", "memmap", "save", "savetxt", "savez", "savez_compressed"], Files),
    ("numpy", &["apply_along_axis", "apply_over_axes", "fromfunction", "frompyfunc", "piecewise", "vectorize"], RunsCode),
    ("numpy._core.memmap", &["memmap"], Files),
    ("numpy.core.memmap", &["memmap"], Files),
    ("numpy.core.multiarray", &["fromfile"], Files),
    ("numpy.core.multiarray", &["set_string_function", "frompyfunc"], RunsCode),
    ("numpy.lib.npyio", &["load", "loads"], RunsCode),
    ("pandas", &["eval", "read_pickle"], RunsCode),
    ("pandas.io.pickle", &["read_pickle"], RunsCode),
    ("torch", &["compile", "load"], RunsCode),
    ("torch", &["from_file", "save"], Files),
    ("torch.serialization", &["_legacy_load", "_load", "load"], RunsCode),
    ("torch.storage", &["_load_from_bytes"], LoadsBytes),
    ("typing", &["get_type_hints"], RunsCode),
];

/// Modules without a dot: everything below them.
#[rustfmt::skip]
const TOPS: &[(&str, Judgement)] = &[
    ("Cython", RunsCode), ("IPython", RunsCode),
    ("_aix_support", RunsCode), ("_android_support", RunsCode), ("_apple_support", RunsCode),
    ("_asyncio", RunsCode), ("_bootsubprocess", RunsCode), ("_ctypes", RunsCode),
    ("_frozen_importlib", RunsCode), ("_frozen_importlib_external", RunsCode), ("_functools", RunsCode),
    ("_imp", RunsCode), ("_interpchannels", RunsCode), ("_interpqueues", RunsCode),
    ("_interpreters", RunsCode), ("_ios_support", RunsCode), ("_multiprocessing", RunsCode),
    ("_operator", RunsCode), ("_osx_support", RunsCode), ("_overlapped", RunsCode), ("_pickle", RunsCode),
    ("_posixshmem", Files), ("_posixsubprocess", RunsCode), ("_pyio", Files), ("_pyrepl", RunsCode),
    ("_remote_debugging", RunsCode), ("_signal", RunsCode), ("_sitebuiltins", RunsCode),
    ("_socket", Network), ("_sqlite3", Files), ("_ssl", Network), ("_sysconfig", RunsCode),
    ("_testcapi", RunsCode), ("_thread", RunsCode), ("_tkinter", RunsCode), ("_winapi", RunsCode),
    ("_xxsubinterpreters", RunsCode),
    ("aiohttp", Network), ("antigravity", Network), ("asgiref", RunsCode), ("ast", RunsCode),
    ("asynchat", Network), ("asyncio", RunsCode), ("asyncore", Network), ("atexit", RunsCode),
    ("bdb", RunsCode), ("boto3", Network), ("botocore", Network), ("cProfile", RunsCode),
    ("cffi", RunsCode), ("cgi", RunsCode), ("cgitb", RunsCode), ("cloudpickle", RunsCode),
    ("cmd", RunsCode), ("code", RunsCode), ("codeop", RunsCode), ("commands", RunsCode),
    ("compileall", RunsCode), ("concurrent", RunsCode), ("contextlib", RunsCode), ("ctypes", RunsCode),
    ("curses", RunsCode), ("dbm", Files), ("delegator", RunsCode), ("dill", RunsCode), ("dis", RunsCode),
    ("distutils", RunsCode), ("doctest", RunsCode), ("dummy_threading", RunsCode),
    ("ensurepip", RunsCode), ("envoy", RunsCode), ("execnet", RunsCode), ("fabric", RunsCode),
    ("faulthandler", RunsCode), ("fcntl", Files), ("filecmp", Files), ("fileinput", Files),
    ("fire", RunsCode), ("fsspec", Files), ("ftplib", Network), ("gc", RunsCode), ("getpass", RunsCode),
    ("gevent", RunsCode), ("glob", Files), ("gradio", RunsCode), ("grpc", Network),
    ("http", Network), ("httpx", Network), ("huggingface_hub", Network), ("idlelib", RunsCode),
    ("imaplib", Network), ("imp", RunsCode), ("importlib", RunsCode), ("importlib_metadata", RunsCode),
    ("importlib_resources", RunsCode), ("inspect", RunsCode), ("invoke", RunsCode),
    ("jinja2", RunsCode), ("jsonpickle", RunsCode), ("kombu", Network), ("lib2to3", RunsCode),
    ("linecache", Files), ("llvmlite", RunsCode), ("mailbox", Files), ("mako", RunsCode),
    ("marshal", RunsCode), ("mlflow", RunsCode), ("mmap", Files), ("modulefinder", RunsCode),
    ("msvcrt", RunsCode), ("multiprocess", RunsCode), ("multiprocessing", RunsCode), ("netrc", Files),
    ("new", RunsCode), ("nltk", RunsCode), ("nntplib", Network), ("nt", RunsCode), ("ntpath", Files),
    ("numexpr", RunsCode), ("operator", RunsCode), ("os", RunsCode), ("paramiko", Network),
    ("parso", RunsCode), ("paste", RunsCode), ("pathlib", Files), ("pdb", RunsCode),
    ("pexpect", RunsCode), ("pickle", RunsCode), ("pickletools", RunsCode), ("pip", RunsCode),
    ("pipes", RunsCode), ("pkg_resources", RunsCode), ("pkgutil", RunsCode), ("platform", RunsCode),
    ("plumbum", RunsCode), ("popen2", RunsCode), ("poplib", Network), ("posix", RunsCode),
    ("posixpath", Files), ("profile", RunsCode), ("pstats", RunsCode), ("psutil", RunsCode),
    ("pty", RunsCode), ("ptyprocess", RunsCode), ("py", RunsCode), ("py_compile", RunsCode),
    ("pyclbr", RunsCode), ("pydoc", RunsCode), ("pytest", RunsCode), ("readline", RunsCode),
    ("requests", Network), ("resource", RunsCode), ("rlcompleter", RunsCode), ("runpy", RunsCode),
    ("sched", RunsCode), ("select", Network), ("selectors", Network), ("setuptools", RunsCode), ("sh", RunsCode),
    ("shelve", RunsCode), ("shutil", Files), ("signal", RunsCode), ("site", RunsCode),
    ("sitecustomize", RunsCode), ("smtpd", Network), ("smtplib", Network), ("socket", Network),
    ("socketserver", Network), ("socks", Network), ("sqlite3", Files), ("ssl", Network),
    ("subprocess", RunsCode), ("sympy", RunsCode), ("symtable", RunsCode), ("sys", RunsCode),
    ("sysconfig", RunsCode), ("tarfile", Files), ("telnetlib", Network), ("tempfile", Files),
    ("test", RunsCode), ("thread", RunsCode), ("threading", RunsCode), ("timeit", RunsCode),
    ("tkinter", RunsCode), ("tornado", Network), ("trace", RunsCode), ("traceback", RunsCode),
    ("tracemalloc", RunsCode), ("turtle", RunsCode), ("turtledemo", RunsCode), ("twisted", Network),
    ("types", RunsCode), ("unittest", RunsCode), ("urllib", Network), ("urllib2", Network),
    ("urllib3", Network), ("usercustomize", RunsCode), ("uuid", RunsCode), ("uvloop", RunsCode),
    ("venv", RunsCode), ("virtualenv", RunsCode), ("webbrowser", RunsCode), ("websocket", Network),
    ("websockets", Network), ("win32api", RunsCode), ("win32com", RunsCode), ("win32process", RunsCode),
    ("winreg", RunsCode), ("wmi", RunsCode), ("wsgiref", Network), ("xmlrpc", Network),
    ("yaml", RunsCode), ("zipapp", RunsCode), ("zipfile", Files), ("zipimport", RunsCode),
    ("zmq", Network),
];

/// Modules with dots: they, and everything below them.
#[rustfmt::skip]
const BELOW: &[(&str, Judgement)] = &[
    ("encodings", RunsCode),
    ("joblib.externals", RunsCode), ("joblib.func_inspect", RunsCode), ("joblib.memory", RunsCode),
    ("joblib.parallel", RunsCode),
    ("keras.src.saving", RunsCode), ("keras.saving", RunsCode), ("keras.models.load_model", RunsCode),
    ("logging.config", RunsCode), ("logging.handlers", Network),
    ("numpy.ctypeslib", RunsCode), ("numpy.distutils", RunsCode), ("numpy.f2py", RunsCode),
    ("numpy.lib._datasource", Files), ("numpy.lib.npyio", Files), ("numpy.testing", RunsCode),
    ("pandas.core.computation", RunsCode), ("pandas.io", Files),
    ("sklearn.utils._testing", RunsCode), ("scipy.weave", RunsCode),
    ("tensorflow.python.lib.io", Files), ("tensorflow.python.platform", Files),
    ("torch._dynamo", RunsCode), ("torch._export", RunsCode), ("torch._functorch", RunsCode),
    ("torch._inductor", RunsCode), ("torch._library", RunsCode), ("torch._lobpcg", RunsCode),
    ("torch._ops", RunsCode), ("torch.classes", RunsCode), ("torch.compiler", RunsCode),
    ("torch.cuda._sanitizer", RunsCode), ("torch.distributed.elastic", RunsCode),
    ("torch.distributed.launch", RunsCode), ("torch.distributed.nn", RunsCode),
    ("torch.distributed.rpc", RunsCode), ("torch.distributed.run", RunsCode), ("torch.export", RunsCode),
    ("torch.fx", RunsCode), ("torch.hub", RunsCode), ("torch.jit", RunsCode),
    ("torch.multiprocessing", RunsCode), ("torch.onnx", RunsCode),
    ("torch.ops", RunsCode), ("torch.package", RunsCode), ("torch.testing", RunsCode),
    ("torch.utils._config_module", RunsCode), ("torch.utils._triton", RunsCode),
    ("torch.utils.backend_registration", RunsCode), ("torch.utils.benchmark", RunsCode),
    ("torch.utils.bottleneck", RunsCode), ("torch.utils.bundled_inputs", RunsCode),
    ("torch.utils.checkpoint", RunsCode), ("torch.utils.collect_env", RunsCode),
    ("torch.utils.cpp_backtrace", RunsCode), ("torch.utils.cpp_extension", RunsCode),
    ("torch.utils.data._utils", RunsCode), ("torch.utils.data.datapipes", RunsCode),
    ("torch.utils.file_baton", Files), ("torch.utils.flop_counter", RunsCode),
    ("torch.utils.hipify", RunsCode), ("torch.utils.mobile_optimizer", RunsCode),
    ("torch.utils.model_dump", RunsCode), ("torch.utils.model_zoo", Network),
    ("torch.utils.show_pickle", RunsCode), ("torch.utils.tensorboard", Files),
    ("torch.utils.viz", RunsCode),
    ("transformers.dynamic_module_utils", RunsCode), ("transformers.pipelines", RunsCode),
];

#[cfg(test)]
mod tests {
    use super::{IMPORTED, NAMES, TOPS};

    #[test]
    fn the_tables_are_sorted() {
        assert!(IMPORTED.is_sorted());
        assert!(NAMES.is_sorted_by(|a, b| a.0 <= b.0));
        assert!(TOPS.is_sorted_by(|a, b| a.0 < b.0), "{:?}", TOPS.windows(2).find(|w| w[0].0 >= w[1].0));
        assert!(TOPS.iter().all(|(name, _)| !name.contains('.')));
    }
}
