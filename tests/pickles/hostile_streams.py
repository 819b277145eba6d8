"""Hostile pickles without a container: what the opcodes of one stream can do."""

import base64
import binascii
import struct

from assemble import (
    ADDITEMS,
    APPEND,
    APPENDS,
    BINPERSID,
    BUILD,
    DICT,
    DUP,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_SET,
    EMPTY_TUPLE,
    FROZENSET,
    LIST,
    MARK,
    MEMOIZE,
    NEWOBJ,
    NEWOBJ_EX,
    NONE,
    OBJ,
    POP,
    POP_MARK,
    PROTO,
    REDUCE,
    SETITEM,
    SETITEMS,
    STACK_GLOBAL,
    STOP,
    TUPLE,
    TUPLE1,
    TUPLE2,
    Ops,
    apply,
    call,
    data,
    frame,
    get,
    ndarray,
    number,
    pickle,
    put,
    short,
    stack_global,
    state,
    storage,
    string,
    symbol,
    tensor,
    text_global,
    tuple_of,
    unicode,
    value,
)  # fmt: skip
from containers import deflate, gzip, joblib_array, torch_legacy, torch_zip, zlib_stream
from hostile_files import add
from hostile_symbols import CALLS, CMD, CODE, PATH

SYSTEM = ("posix:system",)
RUN = call("posix", "system", CMD)
RUN4 = call("posix", "system", CMD, proto=4)
TEXT_RUN = b"cposix\nsystem\n(S'" + CMD.encode() + b"'\ntR"


def cases() -> None:
    symbols()
    opcodes()
    names()
    chains()
    memo()
    frames()
    order()
    nested()
    types()
    storages()
    exhaustion()
    broken()


def symbols() -> None:
    for at, (module, name, arguments, effect, known) in enumerate(CALLS):
        proto = (2, 4, 3, 5)[at % 4]
        add(
            f"call_{module}.{name}.pkl",
            pickle(call(module, name, *arguments, proto=proto), proto),
            "callable that lists of forbidden names forget" if known else "harmful callable by name",
            f"{'STACK_GLOBAL' if proto >= 4 else 'GLOBAL'} and REDUCE in protocol {proto}",
            effect,
            reference=known,
            symbols=(f"{module}:{name}",),
        )
        if "." in name and proto < 4:
            owner, _, method = name.partition(".")
            picked = call("builtins", "getattr", text_global(module, owner), method)
            add(
                f"getattr_{module}.{name}.pkl",
                pickle(apply(picked, *arguments)),
                "method reached by getattr of an imported class",
                "GLOBAL of the class, REDUCE of builtins.getattr, REDUCE of the result",
                effect,
                reference=known,
                symbols=("builtins:getattr", f"{module}:{owner}"),
            )


def opcodes() -> None:
    """Each opcode that can call, in each protocol that has it."""
    system = symbol("posix", "system")

    def case(name: str, content: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, **more: str) -> None:
        add(f"op_{name}.pkl", content, "opcode that calls", made, symbols=symbols, **more)

    for proto in range(6):
        body = TEXT_RUN if proto < 1 else call("posix", "system", CMD, proto=proto)
        case(f"reduce_proto{proto}", pickle(body, proto), f"REDUCE in protocol {proto}")
    argument = value(CMD)
    case("newobj", pickle(system + argument + TUPLE1 + NEWOBJ), "NEWOBJ: cls.__new__(cls, *args)")
    popen = stack_global("subprocess", "Popen")
    made = popen + EMPTY_TUPLE + value({"args": ["touch", PATH]}) + NEWOBJ_EX
    case("newobj_ex", pickle(made, 4), "NEWOBJ_EX with keyword arguments", ("subprocess:Popen",))
    case(
        "obj",
        pickle(MARK + system + argument + OBJ),
        "OBJ: MARK, class, arguments",
        reference="fickling PR 108",
    )
    case("obj_popped", pickle(MARK + system + argument + OBJ + POP + NONE), "the result of OBJ is POPped",
         reference="fickling GHSA-mxhj-88fx-4pcv")  # fmt: skip
    case("obj_popped_by_mark", pickle(MARK + MARK + system + argument + OBJ + POP_MARK + NONE), "the result of OBJ goes by POP_MARK",
         reference="fickling GHSA-mxhj-88fx-4pcv")  # fmt: skip
    case(
        "reduce_popped",
        pickle(RUN + POP + value({"weight": 1})),
        "the result of REDUCE is POPped, a plain dict remains",
    )
    case("inst", pickle(MARK + argument + b"iposix\nsystem\n"), "INST: module and name as lines")
    text = b"(S'" + CODE.replace("'", "\\'").encode() + b"'\nibuiltins\nexec\n."
    case(
        "inst_proto0",
        text,
        "INST in text, protocol 0",
        ("builtins:exec",),
        reference="picklescan malicious10",
    )
    case(
        "inst_popped",
        pickle(MARK + argument + b"iposix\nsystem\n" + POP + NONE),
        "the result of INST is POPped",
    )

    shell = symbol("subprocess", "Popen") + EMPTY_TUPLE + NEWOBJ
    case(
        "build_state",
        pickle(shell + value({"args": [CMD]}) + BUILD),
        "BUILD calls __setstate__ or fills __dict__",
        ("subprocess:Popen",),
    )
    slots = tuple_of(None, {"returncode": 1})
    case(
        "build_slots",
        pickle(shell + slots + BUILD),
        "BUILD with slot state sets attributes by setattr",
        ("subprocess:Popen",),
    )
    opened = text_global("tensafe_marker_unknown_module", "Cls") + EMPTY_TUPLE + NEWOBJ
    inject = value({"__setstate__": Ops(text_global("posix", "system"))})
    both = opened + inject + BUILD + value(CMD) + BUILD
    case("build_injected_setstate", pickle(both), "a first BUILD plants __setstate__ = system, a second one calls it",
         ("tensafe_marker_unknown_module:Cls", "posix:system"))  # fmt: skip
    mutated = (
        text_global("numpy", "size") + tuple_of(None, {"shape": Ops(text_global("builtins", "eval"))}) + BUILD
    )
    reached = call("builtins", "getattr", Ops(text_global("numpy", "size")), "shape")
    case("build_numpy_size", pickle(mutated + POP + apply(reached, CODE)), "BUILD with slot state hangs eval on the function numpy.size",
         ("numpy:size", "builtins:eval", "builtins:getattr"), reference="modelscan issue 330")  # fmt: skip
    only = (
        text_global("numpy", "size") + tuple_of(None, {"shape": Ops(text_global("numpy", "dtype"))}) + BUILD
    )
    case("build_numpy_size_allowed_names_only", pickle(only + POP + NONE), "the same mutation with names that lists allow",
         ("numpy:size", "numpy:dtype"), reference="modelscan issue 330")  # fmt: skip
    case("build_module_dict", pickle(text_global("torch", "serialization") + value({"MAGIC_NUMBER": 1}) + BUILD),
         "BUILD writes into the __dict__ of a module", ("torch:serialization",))  # fmt: skip
    case("build_ordereddict_attributes", pickle(call("collections", "OrderedDict") + value({"__class__": 1, "_metadata": Ops(RUN)}) + BUILD),
         "BUILD of attributes on an OrderedDict, with a call inside")  # fmt: skip
    case("build_type_attribute", pickle(text_global("torch", "Tensor") + tuple_of(None, {"__reduce_ex__": Ops(system)}) + BUILD),
         "BUILD replaces a method of an allowed class", ("torch:Tensor", "posix:system"))  # fmt: skip

    for name, opcode in (("ext1", b"\x82\x01"), ("ext2", b"\x83\x01\x01"), ("ext4", b"\x84\x01\x00\x00\x01")):
        case(name, pickle(opcode + argument + TUPLE1 + REDUCE), f"{name.upper()}: a callable from the registry of extensions",
             (), reference="fickling PR 172")  # fmt: skip
    case("ext1_zero", pickle(b"\x82\x00"), "EXT1 with code 0, which is not allowed", ())
    case("ext4_negative", pickle(b"\x84\xff\xff\xff\xff"), "EXT4 with a negative code", ())
    registered = call("copyreg", "add_extension", "posix", "system", 66) + POP
    case("ext1_registered_before", pickle(registered + b"\x82\x42" + argument + TUPLE1 + REDUCE),
         "copyreg.add_extension, then EXT1: the name never appears as a global", ("copyreg:add_extension",))  # fmt: skip
    case("persid_text", b"Pmodel.weights\n.", "PERSID: what it does is up to the loader", ())
    case("persid_command", pickle(b"P" + CODE.encode() + b"\n"), "PERSID with code as its text", ())
    case("binpersid_call", pickle(RUN + BINPERSID), "BINPERSID of the result of a call")
    case("binpersid_symbol", pickle(system + BINPERSID), "BINPERSID of an imported name")
    module = tuple_of("module", Ops(text_global("__main__", "Net")), "net.py", CODE)
    case(
        "binpersid_module_source",
        pickle(module + BINPERSID),
        "the legacy persistent id that carries source code",
        ("__main__:Net",),
    )
    case(
        "binpersid_not_a_storage",
        pickle(tuple_of("exec", CODE) + BINPERSID),
        "BINPERSID whose first item is not `storage`",
        (),
    )
    case("next_buffer", pickle(b"\x97", 5), "NEXT_BUFFER without buffers", ())
    case("readonly_buffer", pickle(value(b"x") + b"\x98", 5), "READONLY_BUFFER of bytes", ())
    case(
        "dup_callable",
        pickle(system + DUP + value(CMD) + TUPLE1 + REDUCE + POP + POP + NONE),
        "DUP of the callable before the call",
    )
    case("call_as_key", pickle(EMPTY_DICT + RUN + NONE + SETITEM), "the call is a key of a dict")
    case("call_in_frozenset", pickle(MARK + RUN4 + FROZENSET, 4), "the call is an item of a frozenset")
    case("call_in_set", pickle(EMPTY_SET + MARK + RUN4 + ADDITEMS, 4), "the call is an item of a set")
    case("call_in_list_opcode", pickle(MARK + RUN + LIST), "the call is an item of LIST")
    case("call_in_dict_opcode", pickle(MARK + value("k") + RUN + DICT), "the call is a value of DICT")
    case("call_as_argument", pickle(call("collections", "OrderedDict", [("k", RUN)])), "the call is deep in the arguments of an allowed call",
         ("collections:OrderedDict", *SYSTEM))  # fmt: skip
    case("reduce_of_reduce", pickle(apply(call("builtins", "getattr", Ops(call("builtins", "__import__", "os")), "system"), CMD)),
         "getattr(__import__('os'), 'system') by REDUCE thrice", ("builtins:getattr", "builtins:__import__"))  # fmt: skip
    add("op_import_only.pkl", pickle(text_global("tensafe_marker_must_not_import", "x") + POP + NONE), "import without a call",
        "GLOBAL imports the module, the name is POPped", "import", symbols=("tensafe_marker_must_not_import:x",))  # fmt: skip
    add("op_import_only_proto4.pkl", pickle(stack_global("antigravity", "x") + POP + NONE, 4), "import without a call",
        "STACK_GLOBAL of a module whose import opens a browser", "import", symbols=("antigravity:x",))  # fmt: skip
    add("op_import_this.pkl", pickle(text_global("this", "s") + POP + NONE), "import without a call",
        "GLOBAL of a module whose import prints", "import", symbols=("this:s",))  # fmt: skip


def names() -> None:
    """Names that say one thing and mean another."""

    def case(
        name: str, symbol: bytes, made: str, symbols: tuple[str, ...], proto: int = 4, **more: str
    ) -> None:
        add(f"name_{name}.pkl", pickle(apply(symbol, CMD), proto), more.pop("technique", "name that hides"), made,
            symbols=symbols, **more)  # fmt: skip

    dotted = {"technique": "dotted attribute: find_class walks the dots from protocol 4 on"}
    case("dotted_pathlib_os_system", stack_global("pathlib", "os.system"), "STACK_GLOBAL pathlib, os.system", ("pathlib:os.system",),
         reference="fickling GHSA-5j3x-jp52-966f", **dotted)  # fmt: skip
    case(
        "dotted_torch_os_system",
        stack_global("torch", "os.system"),
        "STACK_GLOBAL torch, os.system",
        ("torch:os.system",),
        **dotted,
    )
    case("dotted_collections_sys_modules", stack_global("collections", "_sys.modules.get"), "STACK_GLOBAL collections, _sys.modules.get",
         ("collections:_sys.modules.get",), **dotted)  # fmt: skip
    case("dotted_ordereddict_init_globals", stack_global("collections", "OrderedDict.__init__.__globals__"),
         "attributes of an allowed class", ("collections:OrderedDict.__init__.__globals__",), **dotted)  # fmt: skip
    case(
        "dotted_numpy_f2py_os_system",
        stack_global("numpy", "f2py.os.system"),
        "STACK_GLOBAL numpy, f2py.os.system",
        ("numpy:f2py.os.system",),
        **dotted,
    )
    case("dotted_torch_serialization_os", stack_global("torch", "serialization.os.system"), "STACK_GLOBAL torch, serialization.os.system",
         ("torch:serialization.os.system",), **dotted)  # fmt: skip
    case(
        "dotted_by_global_opcode",
        text_global("torch", "os.system"),
        "GLOBAL in a stream of protocol 4 walks dots too",
        ("torch:os.system",),
        **dotted,
    )
    case(
        "dotted_in_proto2",
        text_global("torch", "os.system"),
        "GLOBAL with a dotted name in protocol 2",
        ("torch:os.system",),
        proto=2,
        **dotted,
    )
    late = PROTO + b"\x02" + PROTO + b"\x04" + apply(text_global("torch", "os.system"), CMD) + STOP
    add("name_dotted_after_second_proto.pkl", late, dotted["technique"], "PROTO 2, then PROTO 4 in the same stream",
        symbols=("torch:os.system",))  # fmt: skip

    py2 = {"technique": "name of Python 2 that is mapped", "proto": 2}
    case(
        "python2_builtin_eval",
        text_global("__builtin__", "eval"),
        "GLOBAL __builtin__ eval",
        ("__builtin__:eval",),
        **py2,
    )
    case(
        "python2_builtin_apply",
        text_global("__builtin__", "apply"),
        "GLOBAL __builtin__ apply",
        ("__builtin__:apply",),
        **py2,
    )
    case(
        "python2_builtin_execfile",
        text_global("__builtin__", "execfile"),
        "GLOBAL __builtin__ execfile",
        ("__builtin__:execfile",),
        **py2,
    )
    case(
        "python2_commands_getoutput",
        text_global("commands", "getoutput"),
        "GLOBAL commands getoutput -> subprocess",
        ("commands:getoutput",),
        **py2,
    )
    case(
        "python2_builtin_reduce",
        text_global("__builtin__", "reduce"),
        "GLOBAL __builtin__ reduce -> functools.reduce",
        ("__builtin__:reduce",),
        **py2,
    )
    case(
        "python2_copy_reg",
        text_global("copy_reg", "_reconstructor"),
        "GLOBAL copy_reg _reconstructor -> copyreg",
        ("copy_reg:_reconstructor",),
        **py2,
    )
    case(
        "python2_urllib_urlopen",
        text_global("urllib", "urlopen"),
        "GLOBAL urllib urlopen -> urllib.request",
        ("urllib:urlopen",),
        **py2,
    )
    case(
        "python2_urllib2",
        text_global("urllib2", "urlopen"),
        "GLOBAL urllib2 urlopen -> urllib.request",
        ("urllib2:urlopen",),
        **py2,
    )
    case(
        "python2_itertools_imap",
        text_global("itertools", "imap"),
        "GLOBAL itertools imap -> builtins.map",
        ("itertools:imap",),
        **py2,
    )
    case(
        "python2_thread",
        text_global("thread", "start_new_thread"),
        "GLOBAL thread start_new_thread -> _thread",
        ("thread:start_new_thread",),
        **py2,
    )
    case(
        "python2_os_getcwdu",
        text_global("os", "getcwdu"),
        "GLOBAL os getcwdu -> os.getcwd",
        ("os:getcwdu",),
        **py2,
    )
    case(
        "python2_in_proto4_not_mapped",
        stack_global("__builtin__", "eval"),
        "__builtin__ in protocol 4 is not mapped",
        ("__builtin__:eval",),
    )

    look = {"technique": "look-alike, empty or odd name"}
    for label, module, name in [
        ("cyrillic_o_in_os", "\u043es", "system"),
        ("greek_in_collections", "c\u03bfllections", "OrderedDict"),
        ("fullwidth_torch", "\uff54orch", "FloatStorage"),
        ("ligature_in_function", "torch._utils", "_rebuild_tensor_v2\u200b"),
        ("zero_width_space", "torch\u200b._utils", "_rebuild_tensor_v2"),
        ("soft_hyphen", "col\u00adlections", "OrderedDict"),
        ("bidi_override", "torch\u202esnoitcelloc", "OrderedDict"),
        ("combining_accent", "torc\u0301h", "Size"),
        ("nfkc_equals_builtins", "\ufb01le", "x"),
        ("nul_in_module", "posix\0.torch", "system"),
        ("nul_in_name", "torch", "Size\0"),
        ("newline_in_module", "torch\n_utils", "x"),
        ("escape_sequence", "\x1b[2Ktorch", "Size"),
        ("carriage_return", "os\rcollections", "system"),
        ("backspace", "os\b\btorch", "system"),
        ("tab", "torch\t", "Size"),
        ("leading_space", " torch", "Size"),
        ("trailing_space", "torch", "Size "),
        ("upper_case", "Torch", "Size"),
        ("empty_module", "", "system"),
        ("empty_name", "os", ""),
        ("both_empty", "", ""),
        ("dot_name", "os", "."),
        ("leading_dot_name", "os", ".system"),
        ("trailing_dot_module", "torch.", "Size"),
        ("double_dot_module", "torch.._utils", "_rebuild_tensor_v2"),
        ("relative_module", "..os", "system"),
        ("dunder_name", "torch", "__builtins__"),
        ("path_as_module", "../../os", "system"),
        ("colon_in_module", "os:system", "x"),
    ]:
        case(label, stack_global(module, name), "STACK_GLOBAL with this name", (f"{module}:{name}",), **look)
    case(
        "invalid_utf8",
        Ops(short(b"os\xff") + short("system") + STACK_GLOBAL),
        "STACK_GLOBAL whose module is not UTF-8",
        (),
        **look,
    )
    case(
        "lone_surrogate",
        stack_global("os\ud800", "system"),
        "STACK_GLOBAL with a lone surrogate (surrogatepass)",
        (),
        **look,
    )
    case(
        "latin1_global",
        text_global(b"os\xe9", "system"),
        "GLOBAL whose line is not UTF-8",
        (),
        proto=2,
        **look,
    )
    case(
        "global_with_carriage_return",
        text_global("posix\r", "system\r"),
        "GLOBAL whose lines end in CR LF",
        (),
        proto=2,
        **look,
    )
    case(
        "global_two_words",
        text_global("os system", "x"),
        "GLOBAL with a space: `module name` as text is ambiguous",
        ("os system:x",),
        proto=2,
        **look,
    )
    case(
        "long_name",
        stack_global("a" * 255, "b" * 255),
        "names of 255 bytes",
        ("a" * 255 + ":" + "b" * 255,),
        **look,
    )


def chains() -> None:
    """Calls that only together do harm."""

    def case(name: str, body: bytes, made: str, symbols: tuple[str, ...], **more: str) -> None:
        proto = int(more.pop("proto", "2"))
        add(f"chain_{name}.pkl", pickle(body, proto), "chain of calls", made, symbols=symbols, **more)

    locate = call("pydoc", "locate", "os")
    case("methodcaller_locate", apply(call("operator", "methodcaller", "system", CMD), locate), "methodcaller('system')(pydoc.locate('os'))",
         ("operator:methodcaller", "pydoc:locate"), reference="GHSA-84r2-jw7c-4r5q")  # fmt: skip
    imported = call("builtins", "__import__", "os")
    case("attrgetter_import", apply(apply(call("operator", "attrgetter", "system"), imported), CMD), "attrgetter('system')(__import__('os'))",
         ("operator:attrgetter", "builtins:__import__"), reference="picklescan malicious12")  # fmt: skip
    case("resolve_name_call", apply(call("pkgutil", "resolve_name", "os:system"), CMD), "resolve_name('os:system')(command)",
         ("pkgutil:resolve_name",), reference="GHSA-vvpj-8cmc-gx39")  # fmt: skip
    case("importlib_getattr", apply(call("builtins", "getattr", call("importlib", "import_module", "os"), "system"), CMD),
         "getattr(import_module('os'), 'system')", ("builtins:getattr", "importlib:import_module"), reference="fickling GHSA-q5qq-mvfm-j35x")  # fmt: skip
    function = call("types", "FunctionType", call("marshal", "loads", b"N"), {})
    case("marshal_function", apply(function), "FunctionType(marshal.loads(...), {})()", ("types:FunctionType", "marshal:loads"),
         reference="fickling GHSA-565g-hwwr-4pp3")  # fmt: skip
    case("cdll_system", apply(call("builtins", "getattr", call("ctypes", "CDLL", None), "system"), CMD.encode()), "CDLL(None).system",
         ("builtins:getattr", "ctypes:CDLL"), reference="fickling GHSA-q5qq-mvfm-j35x")  # fmt: skip
    case("partial_torch_load", apply(call("functools", "partial", text_global("torch", "load"), PATH)), "partial(torch.load, path)()",
         ("functools:partial", "torch:load"), reference="picklescan malicious19")  # fmt: skip
    shadow = (
        text_global("sys", "modules")
        + value("torch._utils")
        + text_global("tensafe_marker_unknown_module", "Fake")
        + SETITEM
    )
    case("sys_modules_override", shadow + POP + tensor(), "sys.modules['torch._utils'] is replaced, then an allowed name is called",
         ("sys:modules", "tensafe_marker_unknown_module:Fake", "collections:OrderedDict", "torch._utils:_rebuild_tensor_v2"),
         reference="picklescan sys_module_override_sploit")  # fmt: skip
    shadow4 = (
        stack_global("sys", "modules")
        + short("collections")
        + apply(stack_global("builtins", "__import__"), "os")
        + SETITEM
    )
    case("sys_modules_collections_is_os", shadow4 + POP + call("collections", "system", CMD, proto=4), "sys.modules['collections'] = os",
         ("sys:modules", "builtins:__import__", "collections:system"), proto="4")  # fmt: skip
    case(
        "exit_before_the_rest",
        call("sys", "exit", 0) + POP + RUN,
        "sys.exit, so that a tracer sees no more",
        ("sys:exit", *SYSTEM),
    )
    dictionary = call("builtins", "getattr", text_global("builtins", "dict"), "get")
    case("sour_pickles", apply(apply(dictionary, call("builtins", "globals"), "eval"), CODE), "dict.get(globals(), 'eval')(code)",
         ("builtins:getattr", "builtins:dict", "builtins:globals"), reference="Slaviero, Sour Pickles, 2011")  # fmt: skip
    case(
        "print_as_decoy",
        call("builtins", "print", "ok") + POP + RUN,
        "a harmless call first",
        ("builtins:print", *SYSTEM),
    )
    case("shadowed_by_allowed", call("collections", "OrderedDict") + POP + RUN + POP + call("collections", "OrderedDict"),
         "allowed calls around a forbidden one", ("collections:OrderedDict", *SYSTEM), reference="fickling GHSA-cffv-grgg-g429")  # fmt: skip
    case("builtins_only", call("builtins", "exec", CODE) + POP + NONE, "a call of builtins alone leaves no import",
         ("builtins:exec",), reference="fickling GHSA-h4rm-mm56-xf63")  # fmt: skip
    case("cloudpickle_codetype", apply(call("cloudpickle.cloudpickle", "_builtin_type", "CodeType"), 0, 0, 0, 0, 0, 0, b""),
         "cloudpickle._builtin_type('CodeType')(...)", ("cloudpickle.cloudpickle:_builtin_type",))  # fmt: skip
    case("deferred_by_partial_in_hooks", tensor(hooks=call("collections", "OrderedDict", [(0, Ops(call("functools", "partial", text_global("posix", "system"), CMD)))])),
         "backward hooks of a tensor hold a callable", ("torch._utils:_rebuild_tensor_v2", "functools:partial", *SYSTEM))  # fmt: skip
    case("type_with_reduce", call("builtins", "type", "X", (), {"__del__": Ops(text_global("posix", "system"))}), "a class with __del__ = system",
         ("builtins:type", *SYSTEM))  # fmt: skip
    case("map_exec_consumed", call("builtins", "list", call("builtins", "map", Ops(text_global("posix", "system")), [CMD])),
         "list(map(system, [command]))", ("builtins:list", "builtins:map", *SYSTEM))  # fmt: skip
    case("rebuild_from_type_v2", call("torch._tensor", "_rebuild_from_type_v2", Ops(text_global("posix", "system")), Ops(text_global("torch", "Tensor")), (CMD,), {}),
         "torch._tensor._rebuild_from_type_v2 calls its first argument", ("torch._tensor:_rebuild_from_type_v2", *SYSTEM, "torch:Tensor"))  # fmt: skip
    case("numpy_reconstruct_any_type", call("numpy.core.multiarray", "_reconstruct", Ops(text_global("subprocess", "Popen")), (0,), b"b"),
         "numpy's _reconstruct with a class that is no array", ("numpy.core.multiarray:_reconstruct", "subprocess:Popen"))  # fmt: skip
    case("copyreg_reconstructor", call("copyreg", "_reconstructor", Ops(text_global("subprocess", "Popen")), Ops(text_global("builtins", "object")), None),
         "copyreg._reconstructor of any class", ("copyreg:_reconstructor", "subprocess:Popen", "builtins:object"))  # fmt: skip
    case("defaultdict_factory", call("collections", "defaultdict", Ops(text_global("posix", "fork"))), "a default factory that forks",
         ("collections:defaultdict", "posix:fork"))  # fmt: skip
    case("codecs_encode_zip", call("_codecs", "encode", "x" * 64, "zlib"), "_codecs.encode with a codec that is not latin1",
         ("_codecs:encode",), effect="deceive")  # fmt: skip
    case(
        "enum_by_value",
        call("torch.serialization", "StorageType", CODE),
        "a class of torch that is not on the list",
        ("torch.serialization:StorageType",),
    )


def memo() -> None:
    def case(
        name: str, body: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, proto: int = 4, **more: str
    ) -> None:
        add(f"memo_{name}.pkl", pickle(body, proto), "memo that misleads", made, symbols=symbols, **more)

    tail = value(66)
    case("get_of_missing", RUN + POP + short("os") + MEMOIZE + get(3) + get(0) + STACK_GLOBAL + tail, "the payload, then BINGET of an index that was never put",
         reference="picklescan keyerror-exploit")  # fmt: skip
    case("int_as_module", RUN + POP + number(42) + MEMOIZE + short("os") + MEMOIZE + get(0) + get(1) + STACK_GLOBAL + tail,
         "the payload, then STACK_GLOBAL with an int as module", reference="picklescan type-confusion-exploit")  # fmt: skip
    case("index_ignored", b"Vposix\np2\n0Vsystem\np3\n0Vtorch\np0\n0VLongStorage\np1\n0g2\ng3\n" + STACK_GLOBAL + MARK + unicode(CMD) + TUPLE + REDUCE,
         "the names that are used are not the last ones that were put", reference="picklescan issue 22")  # fmt: skip
    case("put_again", short("collections") + put(0) + POP + short("posix") + put(0) + POP + get(0) + short("system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
         "an index is put twice; the second one counts")  # fmt: skip
    case("memoize_after_put", short("posix") + put(1) + short("system") + MEMOIZE + POP + POP + get(1) + get(1) + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
         "MEMOIZE counts entries, so a PUT before it moves its index", ())  # fmt: skip
    case("strings_not_unicode", string(b"posix") + string(b"system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE, "STACK_GLOBAL with SHORT_BINSTRING",
         reference="GHSA-9gvj-pp9x-gcfr")  # fmt: skip
    case(
        "strings_text",
        b"S'posix'\nS'system'\n" + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "STACK_GLOBAL with STRING",
        reference="GHSA-9gvj-pp9x-gcfr",
    )
    case(
        "string_escapes",
        b"S'po\\x73ix'\nS'sys\\164em'\n" + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "STACK_GLOBAL with STRING and escapes",
    )
    case(
        "unicode_escapes",
        b"Vpo\\u0073ix\nVsyst\\u0065m\n" + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "STACK_GLOBAL with UNICODE and escapes",
    )
    case("binunicode8", b"\x8d" + struct.pack("<Q", 5) + b"posix" + b"\x8d" + struct.pack("<Q", 6) + b"system" + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
         "STACK_GLOBAL with BINUNICODE8")  # fmt: skip
    case(
        "bytes_as_module",
        data(b"posix") + data(b"system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "STACK_GLOBAL with bytes: a type error",
        (),
    )
    computed = call("builtins", "str", "posix")
    case("module_computed", computed + short("system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE, "the module of STACK_GLOBAL is the result of a call",
         ("builtins:str",))  # fmt: skip
    joined = apply(Ops(text_global("builtins", "getattr") + tuple_of("", "join") + REDUCE), ["po", "six"])
    case(
        "module_joined",
        joined + short("system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "the module is joined from parts",
        ("builtins:getattr",),
    )
    case(
        "dup_strings",
        short("posix") + DUP + POP + short("system") + DUP + POP + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
        "DUP and POP between the strings",
    )
    case("mark_between", short("posix") + MARK + short("x") + POP_MARK + short("system") + STACK_GLOBAL + tuple_of(CMD) + REDUCE,
         "MARK and POP_MARK between the strings")  # fmt: skip
    case("callable_from_memo", text_global("posix", "system") + put(7) + POP + value([1, 2, 3]) + POP + get(7) + tuple_of(CMD) + REDUCE,
         "the callable comes out of the memo long after", proto=2)  # fmt: skip
    case("long_binget", text_global("posix", "system") + b"r\x00\x00\x01\x00" + POP + b"j\x00\x00\x01\x00" + tuple_of(CMD) + REDUCE,
         "LONG_BINPUT and LONG_BINGET", proto=2)  # fmt: skip
    case(
        "long_binput_huge",
        NONE + b"r\xff\xff\xff\x7f" + RUN,
        "LONG_BINPUT at 2^31-1: an array as memo would take 16 GiB",
        proto=2,
        effect="dos",
    )
    case("text_put_huge", NONE + b"p99999999999999999999\n" + RUN, "PUT at 10^20", proto=2, effect="dos")
    case("text_put_negative", NONE + b"p-1\n" + RUN, "PUT at -1", proto=2)
    case(
        "text_get_with_spaces",
        text_global("posix", "system") + b"p 1 \n" + POP + b"g+1\n" + tuple_of(CMD) + REDUCE,
        "PUT ` 1 ` and GET `+1`: int() takes both",
        proto=2,
    )
    case(
        "text_get_underscore",
        text_global("posix", "system") + b"p10\n" + POP + b"g1_0\n" + tuple_of(CMD) + REDUCE,
        "GET `1_0`: int() takes it",
        proto=2,
    )
    case(
        "get_of_self",
        EMPTY_LIST + put(0) + get(0) + APPEND,
        "a list that holds itself",
        (),
        proto=2,
        effect="dos",
    )
    case(
        "dict_of_self",
        EMPTY_DICT + put(0) + value("self") + get(0) + SETITEM,
        "a dict that holds itself",
        (),
        proto=2,
        effect="dos",
    )
    case(
        "tuple_of_self",
        EMPTY_LIST + put(0) + get(0) + TUPLE1 + put(1) + APPEND + POP + get(1),
        "a tuple that holds itself through a list",
        (),
        proto=2,
        effect="dos",
    )


def frames() -> None:
    """FRAME that two readers understand differently."""

    def case(name: str, content: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, **more: str) -> None:
        add(f"frame_{name}.pkl", content, "boundary of a frame", made, symbols=symbols,
            reference=more.pop("reference", "cpython issue 154848"), **more)  # fmt: skip

    head, body = PROTO + b"\x04", RUN4 + STOP
    case(
        "shorter_than_argument",
        head + frame(short("x" * 20) + POP + body, 10),
        "the frame ends inside the string that it holds",
    )
    case(
        "shorter_than_opcode",
        head + frame(value(1.5) + POP + body, 4),
        "the frame ends inside the number of BINFLOAT",
    )
    case(
        "longer_than_file", head + frame(body, len(body) + 1000), "the frame claims more bytes than there are"
    )
    case("longer_hides_second_pickle", head + frame(NONE + STOP + pickle(RUN), len(NONE + STOP + pickle(RUN))),
         "the frame reaches over STOP into a second pickle")  # fmt: skip
    case("empty", head + frame(b"") + body, "a frame of no bytes, the payload outside of frames")
    case("payload_outside", head + frame(NONE + POP) + body, "the payload follows the frame")
    case("inside_frame", head + frame(frame(body)), "a frame in a frame")
    case(
        "crossing",
        head + frame(short("abc")[:3], 3) + b"bc" + body,
        "a string that begins in a frame and ends outside",
    )
    case("huge", head + frame(body, 2**63), "a frame of 2^63 bytes", effect="dos")
    case("all_ones", head + frame(body, 2**64 - 1), "a frame of 2^64-1 bytes", effect="dos")
    case(
        "truncated_length", head + b"\x95\x10\x00\x00", "the length of the frame is cut", (), effect="broken"
    )
    case("in_proto2", PROTO + b"\x02" + frame(RUN + STOP), "FRAME in a stream of protocol 2")
    case("without_proto", frame(body), "FRAME is the first opcode")
    case(
        "global_line_crosses",
        head + frame(b"cposix\nsys", 10) + b"tem\n" + tuple_of(CMD) + REDUCE + STOP,
        "a line of GLOBAL that crosses the end of a frame",
    )
    two = frame(RUN4 + POP) + frame(NONE + STOP)
    case("two_frames", head + two, "the payload is in the first of two frames")
    decoy = stack_global("collections", "OrderedDict") + EMPTY_TUPLE + REDUCE + STOP
    case("decoy_after_lie", head + frame(decoy, 2) + body, "a reader that skips by the length and one that does not see different streams",
         ("collections:OrderedDict",))  # fmt: skip


def order() -> None:
    """Payloads where a reader has stopped looking."""

    def case(name: str, content: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, **more: object) -> None:
        add(
            f"order_{name}.pkl",
            content,
            str(more.pop("technique", "payload where nobody looks")),
            made,
            symbols=symbols,
            **more,
        )

    early = {"technique": "payload before a broken tail", "reference": "NullifAI (ReversingLabs, 2025-02)"}
    case("then_unknown_opcode", pickle(RUN + b"\xff"), "an unknown opcode after the call", **early)
    case("then_end_of_file", (PROTO + b"\x02" + RUN), "no STOP after the call", **early)
    case(
        "then_cut_string",
        PROTO + b"\x02" + RUN + b"X\xff\x00\x00\x00abc",
        "a cut string after the call",
        **early,
    )
    case(
        "then_stack_underflow", pickle(RUN + POP + POP + POP), "POP of an empty stack after the call", **early
    )
    case(
        "then_invalid_utf8",
        pickle(RUN + b"X\x01\x00\x00\x00\xff"),
        "a string that is not UTF-8 after the call",
        **early,
    )
    case("then_bad_int", pickle(RUN + b"Iabc\n"), "INT that is no number after the call", **early)
    case("then_no_mark", pickle(RUN + TUPLE), "TUPLE without MARK after the call", **early)
    case("then_noise", PROTO + b"\x02" + RUN + bytes(range(128, 256)), "noise after the call", **early)
    case(
        "then_negative_length",
        PROTO + b"\x02" + RUN + b"T\xff\xff\xff\xff" + STOP,
        "BINSTRING of -1 bytes after the call",
        **early,
    )
    case("then_proto_255", pickle(RUN + POP + PROTO + b"\xff" + NONE), "PROTO 255 after the call", **early)

    case("after_stop", pickle(value({"weight": 1})) + RUN + STOP, "opcodes after STOP, no PROTO in front")
    case("second_pickle", pickle(value({"weight": 1})) + pickle(RUN), "a second pickle behind a plain one")
    case(
        "second_pickle_proto0",
        pickle(value({"weight": 1})) + TEXT_RUN + STOP,
        "a second pickle of protocol 0",
    )
    case("third_pickle", pickle(NONE) * 2 + pickle(RUN4, 4), "a third pickle behind two plain ones")
    case("pickle_after_zeros", pickle(NONE) + bytes(64) + pickle(RUN), "a second pickle behind 64 zero bytes")
    case("pickle_after_text", pickle(NONE) + b"weights follow\n" + pickle(RUN), "a second pickle behind text")
    case(
        "pickle_after_newlines",
        pickle(RUN) + b"\n\n\t\t",
        "white space behind the payload",
        reference="picklescan malicious-invalid-bytes",
    )
    case(
        "noise_after_stop",
        pickle(value({"weight": 1})) + bytes(range(256)),
        "noise behind STOP",
        (),
        effect="deceive",
    )
    case("hundred_pickles", pickle(NONE) * 100 + pickle(RUN), "the payload is in the 101st pickle")
    case("leading_zeros", bytes(16) + pickle(RUN), "zero bytes in front of the pickle")
    case("leading_newline", b"\n" + pickle(RUN), "a newline in front of the pickle")
    case("leading_bom", b"\xef\xbb\xbf" + pickle(RUN), "a byte order mark in front of the pickle")
    case("zip_magic_then_pickle", b"PK\x03\x04" + pickle(RUN), "the magic of zip in front of a pickle")
    case("stop_in_string", pickle(value("." * 100) + POP + RUN), "STOP as text before the payload")
    case("many_protos", (PROTO + b"\x02") * 50 + RUN + STOP, "PROTO fifty times")
    case("proto_lies_low", PROTO + b"\x00" + RUN4 + STOP, "PROTO 0 and opcodes of protocol 4")
    case("proto_too_high", PROTO + b"\x09" + RUN + STOP, "PROTO 9: refused by Python, read by others")
    case("no_proto_opcodes4", RUN4 + STOP, "no PROTO and opcodes of protocol 4")
    case("empty_stack_at_stop", pickle(RUN + POP), "nothing is left at STOP")
    case("three_left_at_stop", pickle(value(1) + value(2) + RUN), "more than one value is left at STOP")
    case("mark_left_at_stop", pickle(MARK + RUN), "a MARK is left at STOP")

    raw = {"technique": "payload behind the raw array of joblib", "container": "joblib",
           "reference": "aisbom PR 91", "symbols": ("joblib.numpy_pickle:NumpyArrayWrapper", "numpy:ndarray", "numpy:dtype", *SYSTEM)}  # fmt: skip
    for label, content in [
        ("floats", struct.pack("<4f", 1, 2, 3, 4)), ("unknown_opcodes", b"\xff" * 16), ("stop_first", b"." + bytes(15)),
        ("none_stop", b"N." * 8), ("long_string_opcode", b"X\xff\xff\xff\x7f" + bytes(11)),
    ]:  # fmt: skip
        case(f"joblib_raw_{label}", PROTO + b"\x03" + MARK + joblib_array(content) + RUN + TUPLE + STOP,
             f"raw bytes of the array in the stream ({label.replace('_', ' ')}), then the call", **raw)  # fmt: skip
    case(
        "joblib_raw_not_aligned",
        PROTO + b"\x03" + joblib_array(b"\xff" * 16, aligned=False) + POP + RUN + STOP,
        "layout of joblib < 1.1",
        **raw,
    )
    old = text_global("joblib.numpy_pickle", "NDArrayWrapper") + EMPTY_TUPLE + NEWOBJ
    old += (
        value(
            {
                "filename": "../../" + PATH,
                "subclass": Ops(text_global("numpy", "ndarray")),
                "allow_mmap": True,
            }
        )
        + BUILD
    )
    case("joblib_old_filename", pickle(Ops(old), 2), "NDArrayWrapper of joblib < 0.10 names a file outside", effect="file",
         technique="path in a joblib wrapper", reference="CVE-2024-34997",
         symbols=("joblib.numpy_pickle:NDArrayWrapper", "numpy:ndarray"), container="joblib")  # fmt: skip
    objects = joblib_array(pickle(RUN), (1,), "O8", aligned=False)
    case("joblib_object_array", PROTO + b"\x03" + objects + STOP, "an object array of joblib is a pickle in the stream", technique="nested pickle",
         symbols=("joblib.numpy_pickle:NumpyArrayWrapper", "numpy:ndarray", "numpy:dtype", *SYSTEM), container="joblib", reference="CVE-2024-34997")  # fmt: skip
    negative = joblib_array(b"", (-1,), "f4", aligned=False)
    case(
        "joblib_negative_shape",
        PROTO + b"\x03" + negative + RUN + STOP,
        "the shape of the raw array is -1",
        **raw,
    )
    case(
        "joblib_shape_overflow",
        PROTO + b"\x03" + joblib_array(b"", (2**33, 2**33), "f8", aligned=False) + RUN + STOP,
        "the shape of the raw array overflows",
        **raw,
    )
    case(
        "joblib_pad_length_lies",
        PROTO + b"\x03" + joblib_array(b"", (0,), "f4")[:-2] + b"\xff" + RUN + STOP,
        "255 bytes of padding are claimed before the array",
        **raw,
    )


def nested() -> None:
    """A pickle inside the data of a pickle: inert unless it is loaded a second time."""
    inner = pickle(RUN)
    inner4 = pickle(RUN4, 4)

    def case(
        name: str,
        body: bytes,
        made: str,
        symbols: tuple[str, ...] = SYSTEM,
        proto: int = 3,
        effect: str = "nested",
    ) -> None:
        add(f"nested_{name}.pkl", pickle(body, proto), "nested pickle", made, effect, symbols=symbols,
            reference="modelaudit nested samples")  # fmt: skip

    case("bytes", value({"weight": 1, "blob": inner}), "in bytes")
    case("bytes_proto4", value({"weight": 1, "blob": inner4}), "in bytes, protocol 4")
    case("bytearray8", b"\x96" + struct.pack("<Q", len(inner)) + inner, "in a BYTEARRAY8", proto=5)
    case("binbytes8", b"\x8e" + struct.pack("<Q", len(inner)) + inner, "in BINBYTES8", proto=4)
    case("latin1_string", string(inner), "in the string of Python 2", proto=2)
    case("latin1_codecs_encode", call("_codecs", "encode", inner.decode("latin1"), "latin1"), "in bytes as protocol 2 writes them",
         ("_codecs:encode", *SYSTEM), proto=2)  # fmt: skip
    case("str", value({"blob": (TEXT_RUN + b".").decode()}), "in text, protocol 0")
    case("base64", value({"blob": base64.b64encode(inner).decode()}), "in base64")
    case(
        "base64_urlsafe",
        value({"blob": base64.urlsafe_b64encode(inner4).decode().rstrip("=")}),
        "in base64 for URLs, no padding",
    )
    case("base85", value({"blob": base64.b85encode(inner).decode()}), "in base85")
    case("hex", value({"blob": inner.hex()}), "in hex")
    case("hex_upper", value({"blob": inner.hex(" ").upper()}), "in hex, upper case with spaces")
    case("uuencoded", value({"blob": binascii.b2a_uu(inner[:45]).decode()}), "in uuencode")
    case("zlib", value({"blob": zlib_stream(inner)}), "in zlib")
    case("raw_deflate", value({"blob": deflate(inner)}), "in raw deflate")
    case("gzip", value({"blob": gzip(inner)}), "in gzip")
    case(
        "base64_of_zlib", value({"blob": base64.b64encode(zlib_stream(inner)).decode()}), "in base64 of zlib"
    )
    case("twice", value(pickle(value(inner), 3)), "in a pickle in a pickle")
    ten = inner
    for _ in range(10):
        ten = pickle(value(ten), 3)
    case("ten_deep", value(ten), "ten pickles deep")
    case("torch_zip", value({"blob": torch_zip(pickle(RUN))}), "a torch zip in bytes")
    case("torch_legacy", value({"blob": torch_legacy(pickle(RUN))}), "a legacy torch file in bytes")
    case("reversed", value({"blob": inner[::-1]}), "in bytes, reversed")
    case(
        "xored",
        value({"blob": bytes(b ^ 0x55 for b in inner)}),
        "in bytes, each exclusive-or 0x55: nobody can be asked to see it",
        (),
    )
    case("split", value({"a": inner[:20], "b": inner[20:]}), "in two parts")
    case("after_prefix", value({"blob": b"HEADER00" + inner}), "in bytes, behind eight others")
    case("in_ndarray_data", ndarray("u1", (len(inner),), inner), "as the bytes of a numpy array",
         ("numpy.core.multiarray:_reconstruct", "numpy:ndarray", "numpy:dtype", *SYSTEM))  # fmt: skip
    case("object_ndarray", ndarray("O8", (1,), [RUN]), "an object array holds the call itself",
         ("numpy.core.multiarray:_reconstruct", "numpy:ndarray", "numpy:dtype", *SYSTEM), effect="exec")  # fmt: skip
    case(
        "loaded_at_once",
        call("pickle", "loads", inner),
        "in bytes that pickle.loads gets at once",
        ("pickle:loads", *SYSTEM),
        effect="exec",
    )
    chain = call("pickle", "loads", call("base64", "b64decode", base64.b64encode(inner).decode()))
    case(
        "decode_exec_chain",
        chain,
        "loads(b64decode(...))",
        ("pickle:loads", "base64:b64decode", *SYSTEM),
        effect="exec",
    )
    chain = call("builtins", "exec", call("zlib", "decompress", zlib_stream(CODE.encode())))
    case(
        "zlib_exec_chain",
        chain,
        "exec(zlib.decompress(...))",
        ("builtins:exec", "zlib:decompress"),
        effect="exec",
    )
    case("load_from_bytes", call("torch.storage", "_load_from_bytes", torch_legacy(pickle(RUN))), "torch.storage._load_from_bytes loads a pickle",
         ("torch.storage:_load_from_bytes", *SYSTEM), effect="exec")  # fmt: skip
    case(
        "source_code_text",
        value({"init": f"import os; os.system('{CMD}')"}),
        "source code as text",
        (),
        effect="deceive",
    )
    case("key_is_pickle", EMPTY_DICT + value(inner) + NONE + SETITEM, "as the key of a dict")


def types() -> None:
    """Opcodes on values that they are not for."""

    def case(
        name: str, body: bytes, made: str, symbols: tuple[str, ...] = (), effect: str = "memory", **more: str
    ) -> None:
        add(f"type_{name}.pkl", pickle(body, int(more.pop("proto", "2"))), "opcode on a value of another type", made, effect,
            symbols=symbols, **more)  # fmt: skip

    cve = {"reference": "CVE-2026-24747"}
    pair = value(0) + value(1)
    case("setitem_on_list", value([1, 2]) + pair + SETITEM, "SETITEM on a list", **cve)
    case("setitem_on_tuple", value((1, 2)) + pair + SETITEM, "SETITEM on a tuple", **cve)
    case("setitem_on_bytes", value(b"ab") + pair + SETITEM, "SETITEM on bytes", proto="3", **cve)
    case("setitem_on_none", NONE + pair + SETITEM, "SETITEM on None", **cve)
    case(
        "setitem_on_symbol",
        text_global("sys", "modules") + value("os") + NONE + SETITEM,
        "SETITEM on sys.modules",
        ("sys:modules",),
        **cve,
    )
    case(
        "setitem_on_tensor",
        tensor() + pair + SETITEM,
        "SETITEM on a tensor writes its memory",
        ("torch._utils:_rebuild_tensor_v2",),
        **cve,
    )
    case(
        "setitems_on_tensor",
        tensor() + MARK + pair + pair + SETITEMS,
        "SETITEMS on a tensor",
        ("torch._utils:_rebuild_tensor_v2",),
        **cve,
    )
    case(
        "setitem_on_storage",
        storage() + pair + SETITEM,
        "SETITEM on a storage",
        ("torch:FloatStorage",),
        **cve,
    )
    case("setitems_on_set", EMPTY_SET + MARK + pair + SETITEMS, "SETITEMS on a set", proto="4", **cve)
    case(
        "setitem_on_result",
        call("torch", "Size", (1, 2)) + pair + SETITEM,
        "SETITEM on a torch.Size",
        ("torch:Size",),
        **cve,
    )
    case(
        "setitems_odd",
        EMPTY_DICT + MARK + pair + value(2) + SETITEMS,
        "SETITEMS with a key that has no value",
    )
    case("setitem_unhashable_key", EMPTY_DICT + EMPTY_LIST + NONE + SETITEM, "a list as key")
    case(
        "setitem_tensor_as_key",
        EMPTY_DICT + tensor() + NONE + SETITEM,
        "a tensor as key",
        ("torch._utils:_rebuild_tensor_v2",),
    )
    case("append_on_dict", EMPTY_DICT + NONE + APPEND, "APPEND on a dict", **cve)
    case(
        "append_on_tensor",
        tensor() + NONE + APPEND,
        "APPEND on a tensor",
        ("torch._utils:_rebuild_tensor_v2",),
        **cve,
    )
    case(
        "appends_on_symbol",
        text_global("sys", "path") + MARK + value(PATH) + APPENDS,
        "APPENDS on sys.path",
        ("sys:path",),
        effect="import",
    )
    case(
        "append_on_sys_meta_path",
        text_global("sys", "meta_path") + NONE + APPEND,
        "APPEND on sys.meta_path",
        ("sys:meta_path",),
        effect="import",
    )
    case("additems_on_list", EMPTY_LIST + MARK + NONE + ADDITEMS, "ADDITEMS on a list", proto="4")
    case("build_on_int", value(1) + value({"x": 1}) + BUILD, "BUILD on an int")
    case("build_on_dict", EMPTY_DICT + value({"x": 1}) + BUILD, "BUILD on a dict")
    case(
        "build_on_symbol",
        text_global("collections", "OrderedDict") + value({"x": 1}) + BUILD,
        "BUILD on an imported class",
        ("collections:OrderedDict",),
    )
    case(
        "build_with_int_state",
        call("collections", "OrderedDict") + value(1) + BUILD,
        "BUILD with an int as state",
        ("collections:OrderedDict",),
    )
    case("reduce_on_int", value(1) + EMPTY_TUPLE + REDUCE, "REDUCE on an int")
    case("reduce_on_str", value("posix.system") + tuple_of(CMD) + REDUCE, "REDUCE on text")
    case(
        "reduce_args_not_tuple",
        text_global("posix", "system") + value(CMD) + REDUCE,
        "REDUCE whose arguments are text",
        SYSTEM,
        effect="exec",
    )
    case(
        "reduce_args_list",
        text_global("posix", "system") + value([CMD]) + REDUCE,
        "REDUCE whose arguments are a list",
        SYSTEM,
        effect="exec",
    )
    case(
        "reduce_args_none",
        text_global("posix", "getpid") + NONE + REDUCE,
        "REDUCE whose arguments are None",
        ("posix:getpid",),
        effect="exec",
    )
    case("newobj_on_str", value("x") + EMPTY_TUPLE + NEWOBJ, "NEWOBJ on text")
    case(
        "newobj_of_object_dict",
        text_global("builtins", "dict") + EMPTY_TUPLE + NEWOBJ + pair + SETITEM,
        "NEWOBJ of dict, then SETITEM",
        ("builtins:dict",),
    )
    case("mark_as_value", MARK + TUPLE1, "TUPLE1 takes a MARK")
    case("setitem_over_mark", EMPTY_DICT + MARK + value(1) + SETITEM, "SETITEM takes a MARK as key")
    case("pop_of_mark", MARK + POP + NONE, "POP of a MARK is allowed")
    case("obj_without_class", MARK + OBJ, "OBJ with nothing behind MARK")
    case("stack_global_one_string", short("os") + STACK_GLOBAL, "STACK_GLOBAL with one string", proto="4")
    case(
        "ordereddict_of_int",
        call("collections", "OrderedDict", 1),
        "OrderedDict(1)",
        ("collections:OrderedDict",),
    )
    case(
        "ordereddict_of_triples",
        call("collections", "OrderedDict", [(1, 2, 3)]),
        "OrderedDict of triples",
        ("collections:OrderedDict",),
    )
    case("size_of_text", call("torch", "Size", "abc"), "torch.Size of text", ("torch:Size",))
    case("size_negative", call("torch", "Size", [-1]), "torch.Size of -1", ("torch:Size",))
    case(
        "bool_as_size",
        tensor(size=(True, True), stride=(1, 1)),
        "booleans as sizes",
        ("torch._utils:_rebuild_tensor_v2",),
    )
    case("float_as_size", tensor(size=(2.0, 2.0)), "floats as sizes", ("torch._utils:_rebuild_tensor_v2",))
    case("text_as_offset", tensor(offset="0"), "text as offset", ("torch._utils:_rebuild_tensor_v2",))
    case(
        "rebuild_missing_arguments",
        call("torch._utils", "_rebuild_tensor_v2", storage()),
        "a rebuild with one argument",
        ("torch._utils:_rebuild_tensor_v2",),
    )
    case(
        "rebuild_without_storage",
        tensor(store=value("0")),
        "a rebuild whose storage is text",
        ("torch._utils:_rebuild_tensor_v2",),
    )
    case(
        "rebuild_storage_is_tensor",
        tensor(store=tensor()),
        "a rebuild whose storage is a tensor",
        ("torch._utils:_rebuild_tensor_v2",),
    )
    case(
        "parameter_of_text",
        call("torch._utils", "_rebuild_parameter", "x", True, Ops(call("collections", "OrderedDict"))),
        "a parameter of text",
        ("torch._utils:_rebuild_parameter",),
    )


def storages() -> None:
    """Tensors that reach beyond their storage. Each is the root of a torch zip with one storage of 16 bytes."""
    big = 2**62

    def case(name: str, root: bytes, made: str, **more: object) -> None:
        reference = str(more.pop("reference", "CVE-2026-24747"))
        content = torch_zip(pickle(Ops(root)), **more)
        add(f"storage_{name}.pt", content, "tensor and storage do not agree", made, "memory", "torch zip", reference,
            ("torch._utils:_rebuild_tensor_v2",))  # fmt: skip

    def one(**parts: object) -> Ops:
        return state(weight=tensor(**parts))

    case("larger_than_storage", one(size=(4, 4), stride=(4, 1)), "16 elements in a storage of 4")
    case(
        "numel_lies",
        one(store=storage(numel=1000), size=(1000,), stride=(1,)),
        "the persistent id claims 1000 elements, the member has 4",
    )
    case(
        "numel_too_small",
        one(store=storage(numel=2)),
        "the persistent id claims 2 elements, the tensor has 4",
    )
    case("numel_negative", one(store=storage(numel=-4)), "the persistent id claims -4 elements")
    case("numel_huge", one(store=storage(numel=big)), "the persistent id claims 2^62 elements")
    case("numel_bigint", one(store=storage(numel=2**70)), "the persistent id claims 2^70 elements")
    case("offset_beyond", one(offset=100), "the offset is behind the end")
    case("offset_by_one", one(offset=1), "the offset moves the last element out")
    case("offset_negative", one(offset=-1), "the offset is -1")
    case("offset_huge", one(offset=2**63 - 1), "the offset plus the size overflows 64 bits")
    case("stride_negative", one(stride=(-2, 1)), "a negative stride")
    case("stride_huge", one(stride=(big, big)), "strides whose product with the size overflows")
    case("stride_just_beyond", one(stride=(3, 1)), "the last element is one behind the end")
    case("stride_wraps_to_zero", one(size=(2, 2), stride=(2**63, 2**63)), "strides that sum to 0 modulo 2^64")
    case("size_negative", one(size=(-2, -2)), "negative sizes whose product is positive")
    case(
        "size_product_overflow",
        one(size=(2**32, 2**32), stride=(0, 0)),
        "sizes whose product is 0 modulo 2^64, stride 0",
    )
    case(
        "size_product_huge_stride_zero",
        one(size=(2**31, 2**20), stride=(0, 0)),
        "2^51 elements that all lie on one (expanded)",
    )
    case("size_zero_and_huge", one(size=(0, big), stride=(1, 1)), "no elements beside a huge dimension")
    case("rank_mismatch", one(size=(2, 2), stride=(1,)), "two sizes, one stride")
    case("rank_200", one(size=(1,) * 200, stride=(1,) * 200), "two hundred dimensions")
    case("key_missing", one(store=storage(key="7")), "there is no member data/7")
    case("key_with_path", one(store=storage(key="../../etc/passwd")), "the key is a path")
    case("key_absolute", one(store=storage(key="/etc/passwd")), "the key is an absolute path")
    case("key_empty", one(store=storage(key="")), "the key is empty")
    case("key_is_int", one(store=storage(key=0)), "the key is an int")
    case(
        "key_is_data_pkl",
        one(store=storage(key="../data.pkl"), size=(1,), stride=(1,)),
        "the key leads back to data.pkl",
    )
    case(
        "two_types_one_key",
        state(a=tensor(), b=tensor(store=storage("DoubleStorage", numel=2), size=(2,), stride=(1,))),
        "one member as floats and as doubles",
    )
    case(
        "two_numels_one_key",
        state(a=tensor(), b=tensor(store=storage(numel=8), size=(8,), stride=(1,))),
        "one member as 4 and as 8 elements",
    )
    case(
        "type_is_other_symbol",
        one(store=storage(Ops(text_global("posix", "system")))),
        "the storage type is posix.system",
    )
    case("type_is_unknown", one(store=storage("EvilStorage")), "the storage type does not exist")
    case("type_is_text", one(store=storage(value("FloatStorage"))), "the storage type is text")
    case("type_double_of_16_bytes", one(store=storage("DoubleStorage")), "4 doubles in a member of 16 bytes")
    case("location_is_meta", one(store=storage(place="meta")), "the location is meta: no bytes are read")
    case("location_is_code", one(store=storage(place=CODE)), "the location is code")
    case("pid_too_short", one(store=Ops(tuple_of("storage") + BINPERSID)), "a persistent id of one item")
    case("pid_is_text", one(store=Ops(value("storage") + BINPERSID)), "a persistent id that is text")
    case(
        "pid_list",
        one(store=Ops(value(["storage", 1, "0", "cpu", 4]) + BINPERSID)),
        "a persistent id that is a list",
    )
    case(
        "member_larger",
        one(),
        "the member has 1000 bytes, the persistent id says 16",
        data__1=b"",
        data__0=bytes(1000),
    )
    case("member_empty", one(), "the member is empty", data__0=b"")
    case("member_odd", one(), "the member has 15 bytes", data__0=bytes(15))
    case("byteorder_unknown", one(), "byteorder is `middle`", byteorder=b"middle")
    case("byteorder_big", one(), "byteorder is `big`, bytes are little", byteorder=b"big")
    case("byteorder_missing_newline", one(), "byteorder ends in a newline", byteorder=b"little\n")
    case("version_huge", one(), "version is 999999999999", version=b"999999999999\n")
    case("version_is_text", one(), "version is `three`", version=b"three\n")
    untyped = storage(Ops(text_global("torch.storage", "UntypedStorage")), numel=16)
    v3 = call(
        "torch._utils",
        "_rebuild_tensor_v3",
        untyped,
        0,
        (8,),
        (1,),
        False,
        Ops(call("collections", "OrderedDict")),
        Ops(text_global("torch", "float32")),
    )
    case("v3_larger_than_storage", state(w=v3), "_rebuild_tensor_v3 with 8 floats in 16 bytes")
    meta = call(
        "torch._utils",
        "_rebuild_meta_tensor_no_storage",
        Ops(text_global("torch", "float32")),
        (2**40, 2**40),
        (1, 1),
        False,
    )
    case("meta_tensor_huge", state(w=meta), "a meta tensor without storage of 2^80 elements")
    sparse = call(
        "torch._utils",
        "_rebuild_sparse_tensor",
        Ops(call("torch.serialization", "_get_layout", "torch.sparse_coo")),
        (tensor(size=(1, 2), stride=(2, 1)), tensor(size=(2,), stride=(1,)), (2,)),
    )
    case(
        "sparse_indices_beyond",
        state(w=sparse),
        "a sparse tensor whose indices are floats and out of range",
        reference="",
    )
    qtensor = call(
        "torch._utils",
        "_rebuild_qtensor",
        storage("QInt8Storage"),
        0,
        (4,),
        (1,),
        (Ops(text_global("torch", "per_channel_affine")), tensor(), tensor(), 9),
        False,
        Ops(call("collections", "OrderedDict")),
    )
    case("quantised_axis_beyond", state(w=qtensor), "a quantised tensor whose axis is 9", reference="")
    case(
        "tied_names_differ",
        state(a=tensor(), b=tensor(), A=tensor()),
        "names that differ in case over one storage",
        reference="",
    )
    case(
        "same_key_twice",
        EMPTY_DICT
        + MARK
        + value("w")
        + tensor()
        + value("w")
        + tensor(offset=1, size=(1,), stride=(1,))
        + SETITEMS,
        "one name twice in a dict: the second one counts",
        reference="",
    )


def exhaustion() -> None:
    """Small files that cost much."""

    def case(name: str, content: bytes, made: str, large: int = 4096) -> None:
        add(f"dos_{name}.pkl", content, "exhaustion", made, "dos", large=large)

    p2 = PROTO + b"\x02"
    laughs = value("lol" * 10) + put(0) + POP
    for level in range(1, 60):
        laughs += MARK + get(level - 1) * 10 + TUPLE + put(level) + POP
    case(
        "billion_laughs_tuples",
        p2 + laughs + get(59) + STOP,
        "60 levels of ten references: 10^59 strings when walked",
    )
    lists = EMPTY_LIST + put(0)
    for level in range(1, 100):
        lists += EMPTY_LIST + put(level) + get(level - 1) + APPEND + get(level - 1) + APPEND
    case("billion_laughs_lists", p2 + lists + STOP, "lists that hold the one before twice, 100 levels")
    dicts = EMPTY_DICT + put(0)
    for level in range(1, 80):
        dicts += (
            EMPTY_DICT
            + put(level)
            + value("a")
            + get(level - 1)
            + SETITEM
            + value("b")
            + get(level - 1)
            + SETITEM
        )
    case("billion_laughs_dicts", p2 + dicts + STOP, "dicts that hold the one before twice, 80 levels")
    hashes = EMPTY_TUPLE + put(0) + POP
    for level in range(1, 100):
        hashes += get(level - 1) + get(level - 1) + TUPLE2 + put(level) + POP
    case(
        "hash_bomb",
        p2 + hashes + EMPTY_DICT + get(99) + NONE + SETITEM + STOP,
        "a tuple whose hash takes 2^99 steps, as key",
    )
    case("nested_lists", p2 + EMPTY_LIST * 3000 + APPEND * 2999 + STOP, "3000 lists in lists", 8192)
    case(
        "nested_lists_50000",
        p2 + EMPTY_LIST * 50_000 + APPEND * 49_999 + STOP,
        "50,000 lists in lists",
        128 * 1024,
    )
    case("nested_tuples", p2 + NONE + TUPLE1 * 4000 + STOP, "4000 tuples in tuples", 4096)
    case("nested_tuples_60000", p2 + NONE + TUPLE1 * 60_000 + STOP, "60,000 tuples in tuples", 64 * 1024)
    case("nested_marks", p2 + MARK * 4000 + STOP, "4000 marks")
    case(
        "nested_reduce",
        p2
        + text_global("collections", "OrderedDict")
        + put(0)
        + POP
        + get(0) * 500
        + EMPTY_TUPLE
        + (REDUCE + TUPLE1) * 499
        + REDUCE
        + STOP,
        "500 calls in calls",
    )
    case("stack_grows", p2 + NONE * 4000 + STOP, "4000 values on the stack")
    case("dup_grows", p2 + value("x" * 200) + DUP * 3800 + STOP, "3800 times DUP of a string")
    case("memo_grows", PROTO + b"\x04" + NONE + MEMOIZE * 4000 + STOP, "4000 times MEMOIZE")
    case(
        "get_grows",
        p2 + value("y" * 100) + put(0) + get(0) * 1900 + MARK + POP_MARK + STOP,
        "1900 times BINGET of a string",
    )
    case("binunicode_4gib", p2 + b"X\xff\xff\xff\xffabc", "BINUNICODE of 4 GiB in a file of 10 bytes")
    case("binunicode8_huge", PROTO + b"\x04\x8d" + b"\xff" * 8 + b"abc", "BINUNICODE8 of 2^64-1 bytes")
    case(
        "binunicode8_negative",
        PROTO + b"\x04\x8d" + struct.pack("<Q", 2**63) + b"abc",
        "BINUNICODE8 of 2^63 bytes",
    )
    case("binbytes_4gib", PROTO + b"\x03B\xff\xff\xff\xffabc", "BINBYTES of 4 GiB")
    case("binbytes8_huge", PROTO + b"\x04\x8e" + struct.pack("<Q", 2**62) + b"abc", "BINBYTES8 of 2^62 bytes")
    case(
        "bytearray8_huge",
        PROTO + b"\x05\x96" + struct.pack("<Q", 2**40) + b"abc",
        "BYTEARRAY8 of 2^40 bytes: Python allocates at once",
    )
    case("binstring_negative", p2 + b"T\xff\xff\xff\xffabc.", "BINSTRING of -1 bytes")
    case("binstring_2gib", p2 + b"T\xff\xff\xff\x7fabc.", "BINSTRING of 2 GiB")
    case("long1_255", p2 + b"\x8a\xff" + b"\xff" * 255 + STOP, "LONG1 of 255 bytes")
    case("long4_2gib", p2 + b"\x8b\xff\xff\xff\x7f" + b"\x01" * 8 + STOP, "LONG4 of 2 GiB")
    case("long4_negative", p2 + b"\x8b\xff\xff\xff\xff" + STOP, "LONG4 of -1 bytes")
    case("long4_3000", p2 + b"\x8b" + struct.pack("<i", 3000) + b"\x7f" * 3000 + STOP, "LONG4 of 3000 bytes")
    case(
        "long4_50000",
        p2 + b"\x8b" + struct.pack("<i", 50_000) + b"\x7f" * 50_000 + STOP,
        "LONG4 of 50,000 bytes: its text takes quadratic time",
        64 * 1024,
    )
    case("int_text_4000_digits", b"I" + b"9" * 4000 + b"\n.", "INT of 4000 digits")
    case(
        "long_text_30000_digits",
        b"L" + b"9" * 30_000 + b"L\n.",
        "LONG of 30,000 digits: quadratic time",
        32 * 1024,
    )
    case("float_text_long", b"F" + b"1" * 4000 + b"\n.", "FLOAT of 4000 digits")
    case("text_without_newline", b"S'" + b"a" * 3000, "STRING without an end")
    case("global_without_newline", b"c" + b"a" * 3000, "GLOBAL without an end")
    case("unicode_escapes", b"V" + b"\\U0010ffff" * 300 + b"\n.", "UNICODE with 300 escapes")
    case(
        "setitems_same_key",
        p2 + EMPTY_DICT + MARK + (value(1) + NONE) * 1000 + SETITEMS + STOP,
        "one key a thousand times",
    )
    case(
        "colliding_ints",
        p2
        + EMPTY_DICT
        + MARK
        + b"".join(number(i * (2**61 - 1)) + NONE for i in range(200))
        + SETITEMS
        + STOP,
        "200 ints with the same hash in Python",
    )
    case("empty_appends", p2 + EMPTY_LIST + (MARK + APPENDS) * 2000 + STOP, "2000 times APPENDS of nothing")
    case(
        "shape_bomb_ndarray",
        pickle(ndarray("f8", (2**40, 2**20), b"")),
        "a numpy array of 2^60 elements without data",
    )
    case(
        "structured_dtype_huge",
        pickle(call("numpy", "dtype", "V2147483647", False, True)),
        "a dtype of 2 GiB for an element",
    )
    case("torch_size_huge", pickle(call("torch", "Size", [1] * 1500)), "a torch.Size of 1500 dimensions")
    case(
        "bytearray_by_number",
        pickle(call("builtins", "bytearray", 2**40)),
        "bytearray(2^40): an allowed name with a number",
    )
    case(
        "counter_of_huge",
        pickle(call("collections", "Counter", {"a": 2**62})),
        "a Counter whose elements() would never end",
    )


def broken() -> None:
    """Streams without a payload that are cut or wrong: a reader has to say so, not fall."""

    def case(name: str, content: bytes, made: str) -> None:
        add(f"broken_{name}.pkl", content, "broken stream", made, "broken")

    case("empty", b"", "no bytes")
    case("stop_alone", STOP, "STOP alone")
    case("proto_alone", PROTO, "PROTO without its byte")
    case("proto_and_nothing", PROTO + b"\x04", "PROTO 4 alone")
    case("not_a_pickle", b"cmod\n\xf8\n", "begins like GLOBAL, then a byte that is no text")
    case("text", b"Hello, this is a model.\n", "text")
    case("zeros", bytes(64), "zero bytes")
    case("mark_stop", MARK + STOP, "MARK, STOP")
    for name, head in [
        ("binunicode", b"X\x05\x00"),
        ("binint", b"J\x01"),
        ("binfloat", b"G\x00"),
        ("long1", b"\x8a"),
        ("binget", b"h"),
    ]:
        case(f"cut_{name}", PROTO + b"\x02" + head, f"{name.upper()} is cut")
    case("dict_odd", PROTO + b"\x02" + MARK + NONE + DICT + STOP, "DICT of one item")
    case("float_text", b"Fone\n.", "FLOAT that is no number")
    case("int_text_hex", b"I0x10\n.", "INT in hexadecimal")
    case("string_without_quotes", b"Sabc\n.", "STRING without quotes")
    case("string_bad_escape", b"S'\\xZZ'\n.", "STRING with a bad escape")
    case("string_mixed_quotes", b"S'abc\"\n.", "STRING that ends in another quote")
    case("int_bool", b"I02\n.", "INT `02`, close to the booleans `00` and `01`")
    case("binfloat_nan_key", pickle(EMPTY_DICT + b"G\x7f\xf8" + bytes(6) + NONE + SETITEM), "NaN as key")
