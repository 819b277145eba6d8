# ruff: noqa: E731, UP004, UP010, UP018, UP031, UP036
"""Runs inside the environment of one old or new writer (Python 2.7 to 3.13) and writes its benign files.

    python write_benign.py write DIRECTORY     files and entries.json, as make_benign.py collects them
    python write_benign.py load FILE           what this environment's own loader gives for one file, as JSON

The values of an entry come from the loader of the environment that wrote the file, never from ours. All
that is loaded here was written here. Modules that a pickle names are made from text with the file name
`net.py`, so that no path of this machine gets into a file. No parentheses around `with`, no comma behind
`**names`: Python 2.7 and 3.6 read this file too.
"""

from __future__ import absolute_import, division, print_function, unicode_literals

import argparse
import binascii
import collections
import ctypes
import datetime
import hashlib
import io
import json
import linecache
import os
import pickle
import sys
import types
import zipfile

try:
    import numpy
except ImportError:
    numpy = None
try:
    import torch
except ImportError:
    torch = None
try:
    import joblib
except ImportError:
    joblib = None

if sys.version_info[0] == 2:
    text_type = unicode  # noqa: F821
else:
    text_type = str

UNKNOWN = "a class that is not on the list"
NAMES = {
    "float16": "float16", "float32": "float32", "float64": "float64", "bool": "bool", "uint8": "uint8",
    "uint16": "uint16", "uint32": "uint32", "uint64": "uint64", "int8": "int8", "int16": "int16",
    "int32": "int32", "int64": "int64", "complex64": "complex64", "complex128": "complex128",
}  # fmt: skip

SOURCE = """
import collections
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super(Net, self).__init__()
        self.weight = torch.nn.Parameter(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
        self.register_buffer("steps", torch.tensor([7]))

    def forward(self, x):
        return x + self.weight

class Tagged(torch.Tensor):
    pass
"""
PLAIN_SOURCE = """
class Config(object):
    def __init__(self, width):
        self.width = width

class Slotted(object):
    __slots__ = ("depth",)

class Rows(list):
    pass

class Table(dict):
    pass
"""
OLD_STYLE = """
class Old:
    def __init__(self, width):
        self.width = width
"""


def module(name, source):
    """A module from text that believes it comes from net.py."""
    made = types.ModuleType(str(name))
    made.__file__ = "net.py"
    linecache.cache["net.py"] = (len(source), None, source.splitlines(True), "net.py")
    sys.modules[str(name)] = made
    exec(compile(source, "net.py", "exec"), made.__dict__)
    return made


class Loader(object):
    """What inspect needs in order to trust the cache of lines."""

    @staticmethod
    def get_source(name):
        return SOURCE


def digest(kind, shape, raw):
    out = collections.OrderedDict([("dtype", kind), ("shape", [int(n) for n in shape])])
    if len(raw) <= 128:
        out["hex"] = binascii.hexlify(raw).decode("ascii")
    else:
        out["sha256"] = hashlib.sha256(raw).hexdigest()
    return out


def tensor_entry(t):
    t = t.detach() if hasattr(t, "detach") else t
    kind = str(t.dtype)[len("torch.") :]
    if getattr(t, "is_quantized", False):
        t = t.int_repr()
    for resolve in ("resolve_conj", "resolve_neg"):
        t = getattr(t, resolve, lambda t=t: t)()
    t = t.contiguous()
    count = 1
    for n in t.shape:
        count *= int(n)
    raw = ctypes.string_at(t.data_ptr(), count * t.element_size()) if count else b""
    return digest(kind, t.shape, raw)


def array_entry(a):
    little = numpy.ascontiguousarray(a).astype(a.dtype.newbyteorder("<")).reshape(a.shape)
    return digest(NAMES[a.dtype.newbyteorder("=").name], a.shape, little.tobytes())


def key_text(key):
    if isinstance(key, bytes):
        return key.decode("latin1")
    return key if isinstance(key, text_type) else text_type(key)


def flatten(value, name, tensors, others):
    """Tensors by name: keys of dictionaries and indices of sequences, joined by dots."""
    if torch is not None and isinstance(value, torch.Tensor):
        strided = str(getattr(value, "layout", "torch.strided")) == "torch.strided"
        if strided and not getattr(value, "is_nested", False) and value.device.type == "cpu":
            try:
                tensors[name] = tensor_entry(value)
                return
            except (RuntimeError, ValueError):
                pass
        others[name] = type(value).__name__
    elif numpy is not None and isinstance(value, numpy.ndarray):
        if value.dtype.newbyteorder("=").name in NAMES and type(value) is numpy.ndarray:
            tensors[name] = array_entry(value)
        else:
            others[name] = "ndarray of %s" % value.dtype.name
    elif isinstance(value, dict):
        for key in value:
            flatten(value[key], join(name, key_text(key)), tensors, others)
    elif isinstance(value, (list, tuple)) and type(value).__name__ != "Size":
        for at, item in enumerate(value):
            flatten(item, join(name, text_type(at)), tensors, others)
    else:
        others[name] = type(value).__name__


def join(name, key):
    return name + "." + key if name else key


class Out(object):
    """The files of one environment and their entries."""

    def __init__(self, directory):
        self.directory, self.entries = directory, collections.OrderedDict()

    def add(self, name, content, what, form, loaded, refused=None, protocol=None, companions=()):
        with open(os.path.join(self.directory, name), "wb") as file:
            file.write(content)
        tensors, others = collections.OrderedDict(), collections.OrderedDict()
        if loaded is not UNLOADED:
            flatten(loaded, "", tensors, others)
        self.entries[name] = collections.OrderedDict([
            ("what", what), ("format", form), ("protocol", protocol), ("refused", refused),
            ("companions", list(companions)), ("tensors", tensors), ("others", others),
        ])  # fmt: skip


UNLOADED = object()


def attempt(label, function):
    """A case that this version may not have."""
    try:
        function()
    except Exception as error:
        print("not here: %s: %s: %s" % (label, type(error).__name__, str(error)[:120].replace("\n", " ")))


# --- torch -----------------------------------------------------------------------------------------------


def load_bytes(content):
    try:
        return torch.load(io.BytesIO(content), weights_only=False)
    except TypeError:
        return torch.load(io.BytesIO(content))


def values_of(dtype, *shape):
    count = 1
    for n in shape:
        count *= n
    if has("bool") and dtype == torch.bool:
        return torch.tensor([i % 2 == 0 for i in range(count)]).reshape(shape)
    start = torch.tensor([float(i) - 1 for i in range(count)]) if count else torch.zeros(0)
    if not dtype.is_floating_point and str(dtype).startswith("torch.u"):
        start = start + 1
    return start.to(dtype).reshape(shape)


def has(name):
    return hasattr(torch, name)


def version():
    return tuple(int(n) for n in torch.__version__.split("+")[0].split(".")[:2])


def write_torch(out):
    zip_default = version() >= (1, 6)
    form = "torch zip" if zip_default else "torch legacy stream"

    def save(name, value, what, refused=None, container=None, protocol=2, load=True, salvage=None, **options):
        def go():
            if protocol != 2:
                options["pickle_protocol"] = protocol
            buffer = io.BytesIO()
            torch.save(value() if callable(value) else value, buffer, **options)
            content = buffer.getvalue()
            loaded = load_bytes(content) if load else UNLOADED
            out.add(name + ".pt", content, what, container or form, loaded, refused, protocol)
            if salvage is not None:
                entry = out.entries[name + ".pt"]
                entry["salvage"] = collections.OrderedDict()
                flatten(salvage.state_dict(), "", entry["salvage"], {})

        attempt(name, go)

    def t(*rows):
        return torch.tensor(rows if len(rows) > 1 else rows[0])

    floats = t([1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    grid = floats.reshape(2, 3).clone()

    plain = ["uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64", "bool", "bfloat16",
             "uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz",
             "float8_e8m0fnu"]  # fmt: skip

    def dtypes(names=plain):
        made = collections.OrderedDict()
        for name in names:
            if has(name):
                try:
                    value = values_of(getattr(torch, name), 2, 3)
                    torch.save(value, io.BytesIO())
                    made[name] = value
                except Exception as error:
                    print("not here: %s: %s" % (name, str(error)[:80]))
        if has("complex64"):
            try:
                made["complex64"] = torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64)
            except Exception as error:
                print("not here: complex64: %s" % str(error)[:80])
        return made

    save("dtypes", dtypes, "every plain dtype of this version")
    for name in plain[9:]:
        if has(name):
            save(
                "dtype_" + name,
                lambda name=name: {"x": values_of(getattr(torch, name), 2, 3)},
                "dtype " + name,
            )
    if has("complex128"):
        save(
            "dtype_complex128",
            lambda: {"x": torch.tensor([1 + 2j], dtype=torch.complex128)},
            "dtype complex128",
            "complex128 has no safetensors dtype",
        )
    if has("complex32"):
        save(
            "dtype_complex32",
            lambda: {"x": torch.zeros(2, dtype=torch.complex32)},
            "dtype complex32",
            "complex32 has no safetensors dtype",
        )
    for name in ("uint4", "int4", "uint1"):
        if has(name):
            save(
                "dtype_" + name,
                lambda name=name: {"x": torch.empty(2, dtype=getattr(torch, name))},
                "dtype " + name,
                "a dtype without a fixed layout",
                load=False,
            )
    if has("float4_e2m1fn_x2"):
        save(
            "dtype_float4_e2m1fn_x2",
            lambda: {"x": torch.tensor([0x21, 0x43], dtype=torch.uint8).view(torch.float4_e2m1fn_x2)},
            "dtype float4_e2m1fn_x2: two elements to a byte",
        )
    for name in ("qint8", "quint8", "qint32"):
        if has(name):
            save(
                "quantised_" + name,
                lambda name=name: {"x": torch.quantize_per_tensor(floats, 0.5, 3, getattr(torch, name))},
                "quantised per tensor, " + name,
                "quantised tensors have no safetensors dtype",
            )
    save(
        "quantised_per_channel",
        lambda: {
            "x": torch.quantize_per_channel(
                grid, torch.tensor([0.1, 0.2]).double(), torch.tensor([0, 1]), 0, torch.qint8
            )
        },
        "quantised per channel",
        "quantised tensors have no safetensors dtype",
    )

    save(
        "scalars",
        lambda: {
            "scalar": torch.tensor(1.5),
            "int": torch.tensor(7),
            "one": torch.ones(1),
            "deep": torch.ones(1, 1, 1, 1, 1, 1),
        },
        "scalars and tensors of one element",
    )
    save(
        "no_elements",
        lambda: {"empty": torch.zeros(0), "empty_2": torch.zeros(2, 0, 3), "full": torch.ones(2)},
        "tensors without elements",
    )

    def views():
        base = torch.arange(12).float().reshape(3, 4)
        return collections.OrderedDict([
            ("base", base), ("row", base[1]), ("column", base[:, 2]), ("transposed", base.t()), ("tail", base[2:]),
            ("every_second", base[:, ::2]), ("expanded", base[:1, :1].expand(2, 5)), ("diagonal", base[:3, :3].diagonal()),
            ("permuted", base.reshape(3, 2, 2).permute(2, 0, 1)), ("same", base), ("overlap", base.reshape(-1).unfold(0, 4, 2)),
            ("none", base[3:]),
        ])  # fmt: skip

    save("views_share_a_storage", views, "views of one storage: offset, strides, stride 0, overlap")
    save(
        "view_alone",
        lambda: {"x": torch.arange(100).float()[10:14]},
        "a view of 4 elements whose storage has 100",
    )
    save("expanded_alone", lambda: {"x": torch.tensor([3.0]).expand(2, 3)}, "stride 0 over one element")
    save("transposed_alone", lambda: {"x": grid.t()}, "a transposed matrix")
    save(
        "channels_last",
        lambda: {
            "x": torch.arange(16).float().reshape(1, 2, 2, 4).contiguous(memory_format=torch.channels_last)
        },
        "memory format channels_last",
    )

    def tied():
        shared = torch.nn.Parameter(torch.ones(2, 2))
        return collections.OrderedDict(
            [("encoder.weight", shared), ("decoder.weight", shared), ("third", shared.data)]
        )

    save("tied_weights", tied, "one parameter under two names, its data under a third")
    save(
        "parameters",
        lambda: {
            "p": torch.nn.Parameter(grid.clone()),
            "frozen": torch.nn.Parameter(floats.clone(), requires_grad=False),
            "grad": torch.ones(2, requires_grad=True),
        },
        "parameters and tensors that require gradients",
    )

    def with_attribute():
        p = torch.nn.Parameter(torch.ones(2))
        p.weight_loader = "row"
        return {"p": p}

    save("parameter_with_attribute", with_attribute, "a parameter with an attribute")

    def tensor_attribute():
        x = torch.ones(2)
        x.note = "kept"
        return {"x": x}

    save("tensor_with_attribute", tensor_attribute, "a tensor with an attribute")
    save(
        "sparse_coo",
        lambda: {
            "x": torch.sparse_coo_tensor(torch.tensor([[0, 1], [1, 0]]), torch.tensor([3.0, 4.0]), (2, 2))
        },
        "sparse COO",
        "sparse tensors have no safetensors form",
        load=False,
    )
    if hasattr(torch, "sparse_csr_tensor"):
        save(
            "sparse_csr",
            lambda: {
                "x": torch.sparse_csr_tensor(
                    torch.tensor([0, 1, 2]), torch.tensor([1, 0]), torch.tensor([3.0, 4.0]), (2, 2)
                )
            },
            "sparse CSR",
            "sparse tensors have no safetensors form",
            load=False,
        )
    save(
        "meta_tensor",
        lambda: {"x": torch.empty(2, 3, device="meta")},
        "a tensor on the device meta",
        "a tensor without data",
    )
    if hasattr(torch, "nested"):
        save(
            "nested_tensor",
            lambda: {"x": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])},
            "a nested tensor",
            "nested tensors have no safetensors form",
        )
    if hasattr(torch.Tensor, "conj") and has("complex64"):
        save(
            "conjugate_view",
            lambda: {"x": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj()},
            "a lazily conjugated view",
        )
        save(
            "negative_view",
            lambda: {"x": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex64).conj().imag},
            "a lazily negated view",
        )

    def containers():
        grouped = collections.defaultdict(list)
        grouped["a"].append(torch.ones(2))
        return collections.OrderedDict([
            ("ordered", collections.OrderedDict([("z", torch.ones(1)), ("a", torch.zeros(1))])),
            ("default", grouped), ("counter", collections.Counter("aab")), ("size", torch.Size([2, 3])),
            ("device", torch.device("cpu")), ("layers", [torch.ones(1), (torch.zeros(1), {"k": torch.ones(2)})]),
            ("empty", {}), ("ints", {0: torch.ones(1), 1: torch.zeros(1)}),
        ])  # fmt: skip

    save(
        "containers",
        containers,
        "OrderedDict, defaultdict, Counter, Size, device, lists, tuples, integer keys",
    )
    save(
        "dtype_values",
        lambda: {
            "dtype": torch.float32,
            "bfloat16": getattr(torch, "bfloat16", None),
            "layout": torch.strided,
            "x": torch.ones(1),
        },
        "a dtype and a layout as values",
    )
    save(
        "memory_format_value",
        lambda: {"format": torch.channels_last, "x": torch.ones(1)},
        "a memory format as a value",
    )

    def checkpoint():
        torch.manual_seed(0)
        net = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
        for i, p in enumerate(net.parameters()):
            p.data = torch.arange(p.numel()).float().reshape(p.shape) + i
        optimizer = torch.optim.Adam(net.parameters(), lr=0.5)
        net(torch.tensor([[1.0, 2.0], [0.5, 0.25]])).sum().backward()
        optimizer.step()
        return {
            "epoch": 3,
            "model": net.state_dict(),
            "optimizer": optimizer.state_dict(),
            "best": 0.25,
            "args": None,
        }

    save(
        "checkpoint_with_optimizer",
        checkpoint,
        "a training checkpoint: model, optimizer with integer keys, epoch",
    )

    def lightning():
        base = checkpoint()
        return {"epoch": 1, "global_step": 10, "pytorch-lightning_version": "2.0.0", "state_dict": base["model"],
                "callbacks": {"ModelCheckpoint{'monitor': None}": {"best_model_score": torch.tensor(0.5)}},
                "optimizer_states": [base["optimizer"]], "lr_schedulers": [], "hparams_name": "kwargs",
                "hyper_parameters": {"lr": 0.1, "args": argparse.Namespace(width=2, name="x")}, "loops": None}  # fmt: skip

    save("lightning_like", lightning, "the layout of a Lightning checkpoint, with an argparse.Namespace")
    save(
        "python_values",
        lambda: {"weight": torch.ones(1), "values": python_values()},
        "what else people put beside tensors",
    )
    if numpy is not None:
        save(
            "numpy_inside",
            lambda: {
                "array": numpy.array([1.0, 2.0], dtype="f4"),
                "scalar": numpy.float64(0.5),
                "dtype": numpy.dtype("i8"),
                "weight": torch.ones(1),
            },
            "a numpy array, scalar and dtype inside",
        )
    net = module("net", SOURCE)
    net.__loader__ = Loader()
    save(
        "state_dict",
        lambda: torch.nn.Sequential(
            collections.OrderedDict([("fc", torch.nn.Linear(1, 1)), ("bn", torch.nn.BatchNorm1d(1))])
        ).state_dict(),
        "a state_dict with _metadata",
    )
    save(
        "whole_module",
        net.Net,
        "a whole torch.nn.Module",
        UNKNOWN + ": net.Net",
        load=False,
        salvage=net.Net(),
    )
    save(
        "tensor_subclass",
        lambda: {"x": torch.ones(2).as_subclass(net.Tagged)},
        "a subclass of Tensor",
        UNKNOWN + ": net.Tagged",
        load=False,
    )
    save("root_tensor", grid, "a tensor as root")
    save("root_parameter", torch.nn.Parameter(grid.clone()), "a parameter as root")
    save("root_list", lambda: [torch.ones(1), torch.zeros(2)], "a list as root")
    save("root_int", 42, "a number as root")
    save("root_empty_dict", collections.OrderedDict(), "no tensors")
    save(
        "root_storage",
        lambda: torch.FloatStorage([1.0, 2.0]),
        "a storage as root",
        "a storage without a tensor",
        load=False,
    )
    save(
        "names",
        lambda: collections.OrderedDict(
            (k, torch.ones(1)) for k in ["", "a.b", "a", "\u00e9", "\U0001f600", "with space", "a/b"]
        ),
        "names that are odd but legal",
    )
    save(
        "name_metadata",
        lambda: {"__metadata__": torch.ones(1)},
        "a tensor named __metadata__",
        "a name that safetensors has for itself",
    )
    save(
        "key_tuple",
        lambda: {("a", 1): torch.ones(1)},
        "a tuple as key",
        "a key that is neither text nor a number",
    )
    save(
        "special_values",
        lambda: {"x": torch.tensor([float("nan"), float("inf"), -float("inf"), -0.0, 1e-45, 3.4028235e38])},
        "not a number, infinities, -0, subnormal, largest",
    )
    save(
        "ranks",
        lambda: collections.OrderedDict(
            (str(n), torch.arange(2**n).float().reshape([2] * n)) for n in range(9)
        ),
        "tensors of 0 to 8 dimensions",
    )
    save(
        "fortran_3d",
        lambda: {"x": torch.arange(24).float().reshape(4, 3, 2).permute(2, 1, 0)},
        "a tensor in Fortran order",
    )
    save(
        "model_state_dict",
        lambda: {"model_state_dict": {"test": torch.zeros(2, 3)}, "ema": {"test": torch.ones(2, 3)}},
        "two state_dicts under keys",
    )
    save(
        "same_name_after_joining",
        lambda: {"a.b": torch.ones(1), "a": {"b": torch.zeros(1)}},
        "two tensors whose joined names are equal",
        "two tensors with the joined name `a.b`",
    )
    save(
        "large_strings",
        lambda: {"weight": torch.ones(1), "text": "x" * 300, "blob": b"y" * 300},
        "strings of 300 bytes",
    )
    save(
        "hundred_tensors",
        lambda: collections.OrderedDict(("layer.%d.weight" % i, torch.tensor([float(i)])) for i in range(12)),
        "twelve tensors: BINPUT and more keys than one digit",
    )
    save(
        "long_memo",
        lambda: {"weight": torch.ones(1), "names": [["n%d" % i] for i in range(150)]},
        "a memo of more than 256 entries",
    )
    if hasattr(torch.nn, "Buffer"):
        save("buffer", lambda: {"x": torch.nn.Buffer(torch.ones(2))}, "a torch.nn.Buffer")
    if hasattr(torch.nn, "LazyLinear"):
        save(
            "uninitialised",
            lambda: torch.nn.LazyLinear(2).state_dict(),
            "a parameter that has no shape yet",
            "a parameter without data",
            load=False,
        )

    simple = lambda: collections.OrderedDict([("weight", torch.arange(4).float().reshape(2, 2)), ("step", 3)])
    for protocol in range(1, pickle.HIGHEST_PROTOCOL + 1):
        if protocol != 2:
            save("protocol_%d" % protocol, simple, "pickle protocol %d" % protocol, protocol=protocol)
        if zip_default:
            save(
                "legacy_protocol_%d" % protocol,
                simple,
                "the legacy stream in protocol %d" % protocol,
                container="torch legacy stream",
                protocol=protocol,
                _use_new_zipfile_serialization=False,
            )
    save(
        "protocol_0_without_tensors",
        lambda: {"step": 3, "name": "x", "pi": 3.25, "flags": [True, False, None]},
        "protocol 0, which has no persistent ids but text",
        protocol=0,
    )
    if zip_default:
        save(
            "legacy_views",
            views,
            "the legacy stream with views",
            container="torch legacy stream",
            _use_new_zipfile_serialization=False,
        )
        save(
            "legacy_dtypes",
            lambda: dtypes(plain[:10]),
            "the legacy stream with every plain dtype",
            container="torch legacy stream",
            _use_new_zipfile_serialization=False,
        )
        save(
            "legacy_tied",
            tied,
            "the legacy stream with a tied parameter",
            container="torch legacy stream",
            _use_new_zipfile_serialization=False,
        )
        save(
            "legacy_checkpoint",
            checkpoint,
            "the legacy stream with a training checkpoint",
            container="torch legacy stream",
            _use_new_zipfile_serialization=False,
        )
        save(
            "legacy_whole_module",
            net.Net,
            "the legacy stream with a whole module and its source",
            UNKNOWN + ": net.Net",
            container="torch legacy stream",
            load=False,
            salvage=net.Net(),
            _use_new_zipfile_serialization=False,
        )
    elif version() >= (1, 4):
        early = (
            None
            if version() > (1, 4)
            else "the zip of 1.4 has `tensors/` for `data/`; no later torch reads it"
        )
        save(
            "early_zip",
            simple,
            "the zip of 1.4 and 1.5, which had to be asked for",
            early,
            container="torch zip",
            _use_new_zipfile_serialization=True,
        )
        save(
            "early_zip_views",
            views,
            "views in the zip of 1.4 and 1.5",
            early,
            container="torch zip",
            _use_new_zipfile_serialization=True,
        )

    def named_root():
        torch.save(simple(), "named_root.pt")
        with open("named_root.pt", "rb") as file:
            content = file.read()
        out.add(
            "named_root.pt",
            content,
            "saved by path: the root of the zip is the name of the file",
            form,
            load_bytes(content),
            protocol=2,
        )

    if zip_default:
        attempt("named_root", named_root)

    def without_crc():
        torch.serialization.set_crc32_options(False)
        try:
            save("without_crc", simple, "no CRC is computed")
        finally:
            torch.serialization.set_crc32_options(True)

    if hasattr(torch.serialization, "set_crc32_options"):
        attempt("without_crc", without_crc)

    def aligned():
        from torch.utils.serialization import config

        config.save.storage_alignment = 512
        try:
            save("alignment_512", simple, "storages at multiples of 512")
        finally:
            config.save.storage_alignment = 64

    attempt("alignment_512", aligned)
    attempt("script", lambda: script(out, net))
    attempt("export", lambda: export(out, net))


def swapped(content, sizes):
    """A zip with the bytes of its storages reversed in groups of `sizes`, and byteorder `big`."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(kept, "w") as new:
        for info in old.infolist():
            raw = old.read(info.filename)
            place, key = info.filename.rsplit("/", 1)
            if place.endswith("/data"):
                size = sizes[int(key)]
                raw = b"".join(raw[i : i + size][::-1] for i in range(0, len(raw), size))
            elif key == "byteorder":
                raw = b"big"
            new.writestr(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), raw)
    return kept.getvalue()


def zipped_again(content, method, zip64=False, stream=False):
    """The same members from an ordinary zip tool."""
    kept = io.BytesIO()
    target = Unseekable(kept) if stream else kept
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        for info in old.infolist():
            made = zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0))
            made.compress_type = method
            with new.open(made, "w", force_zip64=zip64) as member:
                member.write(old.read(info.filename))
    return kept.getvalue()


class Unseekable(object):
    def __init__(self, file):
        self.file = file

    def write(self, content):
        return self.file.write(content)

    def flush(self):
        pass


def write_handmade(out):
    """Files that no writer at hand makes: changed or put together here, then read by this version of torch."""

    def add(name, content, what, form, refused=None):
        with open(name, "wb") as file:
            file.write(content)
        out.add(name, content, "handmade: " + what, form, torch.load(name, weights_only=False), refused, 2)

    def saved(value, **options):
        buffer = io.BytesIO()
        torch.save(value, buffer, **options)
        return buffer.getvalue()

    mixed = collections.OrderedDict([
        ("f32", torch.tensor([[1.0, 2.0], [3.0, 4.0]])), ("i64", torch.tensor([1, -2])), ("u8", torch.tensor([1, 2, 3], dtype=torch.uint8)),
        ("bf16", torch.tensor([1.0, 2.0], dtype=torch.bfloat16)), ("f64", torch.tensor([0.5]).double()), ("i16", torch.tensor([258], dtype=torch.int16)),
        ("bool", torch.tensor([True, False])),
    ])  # fmt: skip
    mixed["column"] = mixed["f32"][:, 1]
    content = saved(mixed)
    add(
        "big_endian.pt",
        swapped(content, [4, 8, 1, 2, 8, 2, 1]),
        "bytes of storages swapped, byteorder `big`",
        "torch zip",
    )
    add(
        "big_endian_complex.pt",
        swapped(saved({"x": torch.tensor([1 + 2j], dtype=torch.complex64)}), [4]),
        "complex64, big-endian: each half swapped",
        "torch zip",
    )
    add(
        "zip_stored.pt",
        zipped_again(content, zipfile.ZIP_STORED),
        "zipped again without alignment",
        "torch zip",
    )
    add(
        "zip_deflated.pt",
        zipped_again(content, zipfile.ZIP_DEFLATED),
        "zipped again with deflate",
        "torch zip",
        "members are deflated",
    )
    add(
        "zip_zip64.pt",
        zipped_again(content, zipfile.ZIP_STORED, zip64=True),
        "zipped again with zip64 fields",
        "torch zip",
    )
    add(
        "zip_streamed.pt",
        zipped_again(content, zipfile.ZIP_STORED, stream=True),
        "zipped again to a stream: data descriptors",
        "torch zip",
    )
    legacy = saved({"x": torch.tensor([1.0, 2.0])}, _use_new_zipfile_serialization=False)
    assert legacy.count(b"little_endianq\x02\x88") == 1
    legacy = legacy.replace(b"little_endianq\x02\x88", b"little_endianq\x02\x89")
    add(
        "legacy_says_big_endian.pth",
        legacy,
        "sys_info says big-endian; storages of the legacy stream are little-endian all the same",
        "torch legacy stream",
    )

    floats, ints, halves = (
        torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0, 6.0]),
        torch.tensor([7, -8]),
        torch.tensor([1.0, 2.0]).half(),
    )
    simple = collections.OrderedDict([("weight", floats.reshape(2, 3)), ("steps", ints)])
    add("tar_simple.pt", old_tar(simple), "the tar of torch < 0.1.10", "tar of torch < 0.1.10")
    shared = [
        floats[2:],
        floats.reshape(2, 3).t(),
        {"half": halves, "scalar": 3, "name": "x"},
        floats[:1].expand(2),
    ]
    add(
        "tar_views.pt",
        old_tar(shared),
        "the tar of torch < 0.1.10 with views of one storage",
        "tar of torch < 0.1.10",
    )
    add(
        "tar_no_tensors.pt",
        old_tar({"epoch": 3}),
        "the tar of torch < 0.1.10 without tensors",
        "tar of torch < 0.1.10",
    )
    add(
        "tar_root_tensor.pt",
        old_tar(floats),
        "the tar of torch < 0.1.10, a tensor as root",
        "tar of torch < 0.1.10",
    )


def old_tar(value):
    """The layout of torch before 0.1.10, as torch.serialization still reads it.

    sys_info   a pickle: {protocol_version, little_endian, type_sizes}
    pickle     the object; a tensor is the persistent id of its key, as text
    tensors    a pickle: how many; for each: a pickle (key, key of the storage, type of the tensor), then
               int32 dimensions, 4 bytes of nothing, int64 sizes, int64 strides, int64 offset
    storages   a pickle: how many; for each: a pickle (key, location, type of the storage), then int64
               elements and their bytes; last a pickle: the list of views of storages
    """
    import struct
    import tarfile

    kinds = {torch.float32: "Float", torch.int64: "Long", torch.float16: "Half"}
    tensors, storages = collections.OrderedDict(), collections.OrderedDict()

    class Pickler(pickle.Pickler):
        def persistent_id(self, item):
            if isinstance(item, torch.Tensor):
                key = 1000 + 8 * len(tensors)
                tensors[key] = item
                return str(key)
            return None

    root = io.BytesIO()
    Pickler(root, 2).dump(value)
    table = pickle.dumps(len(tensors), 2)
    for key, t in tensors.items():
        place = storages.setdefault(t.untyped_storage().data_ptr(), (5000 + 8 * len(storages), t))[0]
        table += pickle.dumps((key, place, getattr(torch, kinds[t.dtype] + "Tensor")), 2)
        table += struct.pack("<ii", t.dim(), 0)
        table += struct.pack(
            "<%dq" % (2 * t.dim() + 1), *(tuple(t.shape) + t.stride() + (t.storage_offset(),))
        )
    data = pickle.dumps(len(storages), 2)
    for place, t in storages.values():
        raw = ctypes.string_at(t.untyped_storage().data_ptr(), t.untyped_storage().nbytes())
        data += pickle.dumps((place, "cpu", getattr(torch, kinds[t.dtype] + "Storage")), 2)
        data += struct.pack("<q", len(raw) // t.element_size()) + raw
    data += pickle.dumps([], 2)
    info = {"protocol_version": 1000, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:", format=tarfile.PAX_FORMAT) as tar:
        for name, content in [
            ("sys_info", pickle.dumps(info, 2)),
            ("pickle", root.getvalue()),
            ("tensors", table),
            ("storages", data),
        ]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def script(out, net):
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.script(net.Net()), buffer)
    out.add(
        "script.pt",
        without_debug(buffer.getvalue()),
        "TorchScript; members with debug information are removed",
        "TorchScript",
        UNLOADED,
        "TorchScript holds code",
    )


def export(out, net):
    made = torch.export.export(net.Net(), (torch.ones(2, 2),))
    for node in made.graph.nodes:
        node.meta.pop("stack_trace", None)
        node.meta.pop("nn_module_stack", None)
    buffer = io.BytesIO()
    torch.export.save(made, buffer)
    out.add(
        "export.pt2", buffer.getvalue(), "torch.export", "pt2", UNLOADED, "an exported program holds a graph"
    )


def without_debug(content):
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(kept, "w") as new:
        for info in old.infolist():
            if not info.filename.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(info.filename, (1980, 1, 1, 0, 0, 0)), old.read(info.filename))
    return kept.getvalue()


# --- plain pickle, numpy, joblib -------------------------------------------------------------------------


def python_values():
    made = collections.OrderedDict([
        ("bytes", b"\x00\xff"), ("empty_bytes", b""), ("bytearray", bytearray(b"abc")), ("str", "gr\u00fc\u00dfe"), ("none", None),
        ("true", True), ("false", False), ("int", 7), ("negative", -7), ("int32", 2**31 - 1), ("int64", 2**62), ("bigint", 2**100),
        ("negative_bigint", -(2**100)), ("float", 0.1), ("inf", float("inf")), ("nan", float("nan")), ("complex", 1 + 2j),
        ("set", {1, 2}), ("frozenset", frozenset([3])), ("empty_set", set()), ("tuple", (1, (2,), ())), ("list", [1, [2, []]]),
        ("date", datetime.date(2020, 1, 2)), ("datetime", datetime.datetime(2020, 1, 2, 3, 4, 5, 6)), ("delta", datetime.timedelta(1, 2)),
    ])  # fmt: skip
    if sys.version_info[0] > 2:
        import pathlib

        made["path"] = pathlib.PurePosixPath("models/a.pt")
        made["windows"] = pathlib.PureWindowsPath("C:/models/a.pt")
    return made


def write_pickle(out):
    """Plain pickles: what pickle itself writes in each protocol."""
    form = "pickle"
    config = module("net_config", PLAIN_SOURCE)

    def dump(name, value, what, protocol, refused=None):
        def go():
            content = pickle.dumps(value, protocol=protocol)
            out.add(name + ".pkl", content, what, form, pickle.loads(content), refused, protocol)

        attempt(name, go)

    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        dump(
            "python_values_protocol_%d" % protocol,
            python_values(),
            "Python values in protocol %d" % protocol,
            protocol,
        )
    dump("range", {"x": range(3)}, "a range", 2, UNKNOWN + ": range" if text_type is str else None)
    dump("slice", {"x": slice(1, 2)}, "a slice", 2, UNKNOWN + ": slice")
    dump("ellipsis", {"x": Ellipsis}, "an Ellipsis", 2, UNKNOWN + ": Ellipsis")
    slotted = config.Slotted()
    slotted.depth = 2
    for protocol in (0, 2, pickle.HIGHEST_PROTOCOL):
        dump(
            "instance_protocol_%d" % protocol,
            config.Config(3),
            "an instance of a class of the user",
            protocol,
            UNKNOWN + ": net_config.Config",
        )
        dump(
            "list_subclass_protocol_%d" % protocol,
            config.Rows([1, 2]),
            "a subclass of list",
            protocol,
            UNKNOWN + ": net_config.Rows",
        )
        dump(
            "dict_subclass_protocol_%d" % protocol,
            config.Table(a=1),
            "a subclass of dict",
            protocol,
            UNKNOWN + ": net_config.Table",
        )
    dump("slots_protocol_2", slotted, "slot state", 2, UNKNOWN + ": net_config.Slotted")
    if sys.version_info[0] == 2:
        old = module("net_old", OLD_STYLE)
        dump(
            "old_style_protocol_0",
            old.Old(3),
            "an instance of an old-style class: INST",
            0,
            UNKNOWN + ": net_old.Old",
        )
        dump(
            "old_style_protocol_1",
            old.Old(3),
            "an instance of an old-style class: OBJ",
            1,
            UNKNOWN + ": net_old.Old",
        )
    recursive = [1]
    recursive.append(recursive)
    content = pickle.dumps(recursive, protocol=2)
    out.add(
        "recursive_list.pkl",
        content,
        "a list that holds itself",
        form,
        UNLOADED,
        "a value that holds itself",
        2,
    )


def write_numpy(out):
    def dump(name, value, what, protocol, refused=None):
        def go():
            content = pickle.dumps(value, protocol=protocol)
            out.add(name + ".pkl", content, what, "pickle", pickle.loads(content), refused, protocol)

        attempt(name, go)

    grid = numpy.arange(6, dtype="f4").reshape(2, 3)
    arrays = collections.OrderedDict([
        ("c", grid), ("fortran", numpy.asfortranarray(grid)), ("big", grid.astype(">f4")), ("big_int", numpy.arange(3, dtype=">i8")),
        ("strided", grid[:, ::2]), ("transposed", grid.T), ("scalar", numpy.array(1.5)), ("empty", numpy.zeros((0, 2), "i4")),
        ("bool", numpy.array([True, False])), ("half", numpy.array([1, 2], "f2")), ("u64", numpy.array([2**63], "u8")),
        ("complex64", numpy.array([1 + 2j], "c8")), ("view_a", grid[0]), ("view_b", grid[0]),
    ])  # fmt: skip
    for name in ("i1", "i2", "i4", "i8", "u1", "u2", "u4", "f8"):
        arrays[name] = numpy.array([1, 2, 3], name)
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        dump(
            "arrays_protocol_%d" % protocol,
            arrays,
            "arrays of each dtype and order in protocol %d" % protocol,
            protocol,
        )
        dump(
            "scalars_protocol_%d" % protocol,
            {
                "f8": numpy.float64(0.5),
                "i8": numpy.int64(-1),
                "b": numpy.bool_(True),
                "f2": numpy.float16(2),
                "dtype": numpy.dtype("<f4"),
            },
            "numpy scalars and a dtype in protocol %d" % protocol,
            protocol,
        )
        dump(
            "root_array_protocol_%d" % protocol, grid, "an array as root in protocol %d" % protocol, protocol
        )
    objects = numpy.empty(2, dtype=object)
    objects[:] = [1, "two"]
    structured = numpy.array([(1, 2.0)], dtype=[(str("a"), "i4"), (str("b"), "f8")])
    refuse = [
        ("object_array", objects, "an object array", "object arrays have no safetensors dtype"),
        ("structured", structured, "a structured array", "structured arrays have no safetensors dtype"),
        ("complex128", numpy.array([1 + 2j]), "complex128", "complex128 has no safetensors dtype"),
        ("datetime64", numpy.array(["2020-01-01"], "M8[D]"), "datetime64", "datetime64 has no safetensors dtype"),
        ("unicode", numpy.array(["ab", "c"]), "an array of text", "arrays of text have no safetensors dtype"),
        ("bytes", numpy.array([b"ab", b"c"]), "an array of bytes", "arrays of bytes have no safetensors dtype"),
        ("longdouble", numpy.array([1], "g"), "long double", "long double has no safetensors dtype"),
        ("masked", numpy.ma.array([1, 2], mask=[True, False]), "a masked array", UNKNOWN + ": numpy.ma.core._mareconstruct"),
        ("matrix", numpy.matrix([[1, 2]]), "a numpy.matrix", UNKNOWN + ": numpy.matrix"),
        ("recarray", structured.view(numpy.recarray), "a record array", UNKNOWN + ": numpy.recarray"),
        ("random_state", numpy.random.RandomState(0), "a random state", UNKNOWN + ": numpy.random"),
    ]  # fmt: skip
    for name, value, what, why in refuse:
        for protocol in (2, pickle.HIGHEST_PROTOCOL):
            if name != "random_state" or protocol > 2:
                dump("refused_%s_protocol_%d" % (name, protocol), {"x": value}, what, protocol, why)

    def npy(name, value, what, refused=None, version=None):
        def go():
            buffer = io.BytesIO()
            numpy.lib.format.write_array(buffer, value, version=version)
            content = buffer.getvalue()
            try:
                loaded = numpy.load(io.BytesIO(content), allow_pickle=True)
            except TypeError:
                loaded = numpy.load(io.BytesIO(content))
            out.add(name + ".npy", content, what, "npy", loaded, refused)

        attempt(name, go)

    for version in ((1, 0), (2, 0), (3, 0)):
        npy("version_%d" % version[0], grid, "npy %d.%d" % version, version=version)
    npy("fortran", numpy.asfortranarray(grid), "Fortran order")
    npy("big_endian", grid.astype(">f4"), "big-endian")
    npy("scalar", numpy.array(1.5), "an array without dimensions")
    npy("empty", numpy.zeros((0, 3)), "an array without elements")
    npy("object", objects, "an object array", "object arrays have no safetensors dtype")
    npy("structured", structured, "a structured array", "structured arrays have no safetensors dtype")
    npy("bool", numpy.array([True, False]), "bool")
    npy("half", numpy.array([1, 2], "f2"), "float16")

    def npz(name, what, compressed, refused=None, **members):
        def go():
            buffer = io.BytesIO()
            (numpy.savez_compressed if compressed else numpy.savez)(buffer, **members)
            content = buffer.getvalue()
            try:
                loaded = numpy.load(io.BytesIO(content), allow_pickle=True)
            except TypeError:
                loaded = numpy.load(io.BytesIO(content))
            out.add(
                name + ".npz",
                content,
                what,
                "npz",
                collections.OrderedDict((k, loaded[k]) for k in loaded.files),
                refused,
            )

        attempt(name, go)

    for label, compressed in (("stored", False), ("compressed", True)):
        npz(
            label,
            "an npz, " + label,
            compressed,
            weight=grid,
            bias=numpy.arange(2.0),
            fortran=numpy.asfortranarray(grid),
        )
        npz(
            label + "_object",
            "an npz with an object array, " + label,
            compressed,
            "object arrays have no safetensors dtype",
            weight=grid,
            meta=objects,
        )
    npz("names", "names with a slash and a dot", False, **{str("a/b"): grid, str("a.b"): numpy.ones(1)})


def write_joblib(out):
    grid = numpy.arange(6, dtype="f4").reshape(2, 3)
    model = collections.OrderedDict([
        ("coef", grid), ("fortran", numpy.asfortranarray(grid)), ("big", grid.astype(">f4")), ("intercept", numpy.array([0.5, 1.5])),
        ("scalar", numpy.float64(2)), ("classes", numpy.array([0, 1])), ("name", "model"), ("empty", numpy.zeros(0)), ("steps", [numpy.ones(1), 3]),
    ])  # fmt: skip
    objects = numpy.empty(2, dtype=object)
    objects[:] = [1, "two"]

    def dump(name, value, what, form="joblib", refused=None, load=True, **options):
        def go():
            target = name + ".joblib"
            written = joblib.dump(value, target, **options)
            names = sorted({os.path.basename(path) for path in (written or [target])} - {target})
            loaded = joblib.load(target) if load else UNLOADED
            with open(target, "rb") as file:
                content = file.read()
            for companion in names:
                with open(companion, "rb") as file:
                    COMPANIONS[companion] = file.read()
            out.add(target, content, what, form, loaded, refused, options.get(str("protocol")), names)

        attempt(name, go)

    dump("plain", model, "arrays in the stream, not compressed")
    dump("root_array", grid, "an array as root")
    dump("no_arrays", {"a": 1}, "no arrays at all")
    dump(
        "object_array",
        {"x": objects, "weight": grid},
        "an object array",
        refused="object arrays have no safetensors dtype",
    )
    dump("compress_3", model, "compress=3", "joblib, compressed", compress=3)
    dump("compress_1_root", grid, "compress=1, an array as root", "joblib, compressed", compress=1)
    for method in ("zlib", "gzip", "bz2", "xz", "lzma", "lz4"):
        dump(
            "compress_" + method,
            model,
            "compress=('%s', 3)" % method,
            "joblib in " + method,
            compress=(str(method), 3),
        )
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        dump("protocol_%d" % protocol, model, "protocol %d" % protocol, protocol=protocol)


COMPANIONS = {}


def main():
    mode, where = sys.argv[1:3]
    if mode == "load":
        tensors, others = collections.OrderedDict(), collections.OrderedDict()
        try:
            loaded = torch.load(where, weights_only=False)
        except TypeError:
            loaded = torch.load(where)
        flatten(loaded, "", tensors, others)
        print(json.dumps({"tensors": tensors, "others": others}))
        return
    os.chdir(where)
    parts = sys.argv[3].split(",")
    out = Out(".")
    for part in parts:
        {
            "torch": write_torch,
            "pickle": write_pickle,
            "numpy": write_numpy,
            "joblib": write_joblib,
            "handmade": write_handmade,
        }[part](out)
    versions = ["Python %d.%d" % sys.version_info[:2]]
    if "torch" in parts or "handmade" in parts:
        versions.insert(0, "torch " + torch.__version__.split("+")[0])
    if "joblib" in parts:
        versions.insert(0, "joblib " + joblib.__version__)
    if numpy is not None and parts != ["pickle"]:
        versions.append("numpy " + numpy.__version__)
    for entry in out.entries.values():
        entry["writer"] = ", ".join(versions)
    with open("entries.json", "w") as file:
        file.write(str(json.dumps(out.entries)))


if __name__ == "__main__":
    main()
