"""What a pickle of ``torch.save`` looks like, without its tensors: followed, never executed.

``load_pickle`` gives tensors by flattened names, and keeps neither the containers that they stood in nor
the values beside them. This reads those from the instructions: containers and plain values are made, what
would become a tensor is a :class:`Leaf`, and every name that is not in the small table below is refused.
Nothing is imported and nothing that a pickle names is called. It follows ``load_pickle``, whose limits hold
for the same bytes.
"""

from __future__ import annotations

import collections
import io
import pickletools
import zipfile
import zlib
from typing import IO, Any, NoReturn

from ._errors import FormatError, UnsupportedError

# The five pickles of torch before 1.6: this number, the protocol, the system, the value, the storages' keys.
_MAGIC = 0x1950A86A20F9469CFC6C
_CALLABLES = frozenset(
    {
        "_codecs.encode",
        "builtins.frozenset",
        "builtins.set",
        "collections.OrderedDict",
        "numpy._core.multiarray._reconstruct",
        "numpy.core.multiarray._reconstruct",
        "numpy.dtype",
        "numpy.ndarray",
        "torch.Size",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch.device",
        "torch.storage.UntypedStorage",
    }
)
_VALUES = frozenset(
    "BINBYTES BINBYTES8 BINFLOAT BININT BININT1 BININT2 BINUNICODE BINUNICODE8 FLOAT INT LONG LONG1 LONG4"
    " SHORT_BINBYTES SHORT_BINUNICODE UNICODE".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


class Leaf:
    """What becomes a tensor, a parameter or an array. Equal to itself alone."""

    __slots__ = ("kind", "location", "requires_grad")

    def __init__(self, kind: str, location: str = "cpu", requires_grad: bool = False) -> None:
        self.kind = kind
        self.location = location
        self.requires_grad = requires_grad


class Symbol:
    """A name that the pickle imports, and where."""

    __slots__ = ("name", "offset")

    def __init__(self, name: str, offset: int) -> None:
        self.name = name
        self.offset = offset


class _Storage:
    __slots__ = ("location",)

    def __init__(self, location: str) -> None:
        self.location = location


class _Order:
    """A dtype of numpy: its byte order is what matters here."""

    __slots__ = ("order",)

    def __init__(self) -> None:
        self.order: Any = "="


class _Mark:
    pass


_MARK = _Mark()


def structure(file: IO[bytes], label: str) -> Any:
    """The value of a file of ``torch.save`` with a :class:`Leaf` for each tensor; ``label`` names the file.

    Containers are dicts, ordered dicts, lists, tuples and sets of new objects; what the pickle shares is
    shared. The cost is that of its instructions; data of tensors is not read.

    Raises ``UnsupportedError`` for what is neither tensor nor plain value, ``FormatError`` for instructions
    that make no sense.
    """
    start = file.tell()
    head = file.read(4)
    file.seek(start)
    if head == b"PK\x03\x04":
        name, data = _member(file, label)
        return _Machine(f"{label}: {name}").run(io.BytesIO(data))
    machine = _Machine(label)
    try:
        magic = machine.run(file)
    except (FormatError, UnsupportedError):
        magic = None
    if magic != _MAGIC:
        raise UnsupportedError(
            f"{label}: it is no file of torch.save since 0.1.10; `tensafe convert` may read it"
        )
    machine.run(file)
    machine.run(file)
    return machine.run(file)


def _member(file: IO[bytes], label: str) -> tuple[str, bytes]:
    """The pickle of a zip archive, which `load_pickle` has found to have one reading."""
    try:
        with zipfile.ZipFile(file) as archive:
            names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
            if len(names) != 1:
                raise FormatError(f"{label}: {len(names)} members are called data.pkl, needed one")
            found = archive.getinfo(names[0])
            # torch can leave checksums out; `load_pickle` has compared those that are there.
            del found.CRC
            return names[0], archive.read(found)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise FormatError(f"{label}: {error}") from error


_PLAIN = (str, int, float, bytes, type(None))


def _key(value: Any) -> Any:
    """``value`` if it may be a key. Python hashes tuples within tuples without a bound."""
    parts = value if isinstance(value, tuple) else (value,)
    if not all(isinstance(part, _PLAIN) for part in parts):
        raise TypeError("a key that is neither plain nor a tuple of what is")
    return value


class _Machine:
    def __init__(self, label: str) -> None:
        self.label = label
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.offset = 0

    def run(self, stream: IO[bytes]) -> Any:
        """Follows one pickle, and leaves the stream behind it."""
        self.stack, self.memo = [], {}
        try:
            for opcode, argument, offset in pickletools.genops(stream):
                self.offset = offset or 0
                if opcode.name == "STOP":
                    return self.stack.pop()
                self.step(opcode.name, argument)
        except (FormatError, UnsupportedError):
            raise
        # Whatever a stack of the wrong shape leads to.
        except (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError) as error:
            raise FormatError(
                f"{self.label}, byte {self.offset}: the pickle makes no sense: {error}"
            ) from error
        raise FormatError(f"{self.label}: the pickle breaks off")

    def refuse(self, what: str, offset: int | None = None) -> NoReturn:
        at = self.offset if offset is None else offset
        raise UnsupportedError(
            f"{self.label}, byte {at}: {what} is neither a tensor nor a plain value, and is not made without"
            " executing the pickle; `tensafe convert` takes the tensors beside it"
        )

    def step(self, name: str, argument: Any) -> None:
        stack = self.stack
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in ("STRING", "BINSTRING", "SHORT_BINSTRING"):
            if not argument.isascii():
                self.refuse("text of Python 2 that is not ASCII")
            stack.append(argument)
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self.memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self.memo[len(self.memo)] = stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            stack.append(self.memo[argument])
        elif name == "DUP":
            stack.append(stack[-1])
        elif name == "POP":
            stack.pop()
        elif name == "POP_MARK":
            self.marked()
        elif name == "GLOBAL":
            stack.append(self.symbol(*argument.split(" ", 1)))
        elif name == "STACK_GLOBAL":
            attribute, module = stack.pop(), stack.pop()
            stack.append(self.symbol(module, attribute))
        elif name == "REDUCE":
            arguments, called = stack.pop(), stack.pop()
            stack.append(self.reduce(called, arguments))
        elif name == "BUILD":
            state = stack.pop()
            self.build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self.storage(stack.pop()))
        elif name not in ("PROTO", "FRAME"):
            self.collect(name)

    def collect(self, name: str) -> None:
        """The instructions that make and fill containers."""
        stack = self.stack
        if name in _TUPLES:
            count = _TUPLES[name]
            stack[-count:] = [tuple(stack[-count:])]
        elif name == "TUPLE":
            stack.append(tuple(self.marked()))
        elif name == "EMPTY_TUPLE":
            stack.append(())
        elif name == "LIST":
            stack.append(self.marked())
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            items = [stack.pop()] if name == "APPEND" else self.marked()
            self.top(list).extend(items)
        elif name == "DICT":
            stack.append({})
            made = stack.pop()
            items = self.marked()
            stack.append(made)
            self.fill(made, items)
        elif name == "EMPTY_DICT":
            stack.append({})
        elif name in ("SETITEM", "SETITEMS"):
            if name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                items = [key, value]
            else:
                items = self.marked()
            self.fill(self.top(dict), items)
        elif name == "EMPTY_SET":
            stack.append(set())
        elif name == "ADDITEMS":
            items = self.marked()
            self.top(set).update(map(_key, items))
        elif name == "FROZENSET":
            stack.append(frozenset(map(_key, self.marked())))
        else:
            self.refuse(f"what the instruction {name} makes")

    def top(self, kind: type) -> Any:
        if not isinstance(self.stack[-1], kind):
            raise TypeError(f"found {type(self.stack[-1]).__name__}, needed {kind.__name__}")
        return self.stack[-1]

    def marked(self) -> list[Any]:
        """What stands above the last mark; takes both away."""
        at = len(self.stack) - 1
        while self.stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("there is no mark")
        items = self.stack[at + 1 :]
        del self.stack[at:]
        return items

    def fill(self, target: dict[Any, Any], items: list[Any]) -> None:
        """Adds keys and values, which take turns."""
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def symbol(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise TypeError("a name that is no text")
        module = {"__builtin__": "builtins"}.get(module, module)
        full = f"{module}.{name}"
        if module == "torch":
            import torch

            found = torch.__dict__.get(name)
            if isinstance(found, torch.dtype):
                return found
        if full not in _CALLABLES and not (module == "torch" and name.endswith("Storage")):
            self.refuse(f"`{full}`")
        return Symbol(full, self.offset)

    def storage(self, identity: Any) -> _Storage:
        # Legacy files have a sixth member, the part of the storage that is meant.
        kind, symbol, _, location = identity[:4]
        if kind != "storage" or not isinstance(symbol, Symbol) or not isinstance(location, str):
            raise ValueError("no storage of torch.save")
        return _Storage(location)

    def reduce(self, called: Any, arguments: tuple[Any, ...]) -> Any:
        if not isinstance(called, Symbol):
            raise TypeError(f"{type(called).__name__} is called")
        name = called.name
        if name.startswith("torch._utils._rebuild_tensor"):
            if not isinstance(arguments[0], _Storage):
                raise TypeError("a tensor without a storage")
            later = arguments[4:6] if name != "torch._utils._rebuild_tensor" else ()
            if len(later) > 1 and later[1]:
                self.refuse("a tensor with hooks")
            return Leaf("tensor", arguments[0].location, bool(later and later[0]))
        if name == "torch._utils._rebuild_parameter":
            data, requires_grad, hooks = arguments
            if hooks:
                self.refuse("a parameter with hooks")
            if not isinstance(data, Leaf) or data.kind != "tensor":
                raise TypeError("a parameter of no tensor")
            return Leaf("parameter", data.location, bool(requires_grad))
        if name == "collections.OrderedDict":
            made: collections.OrderedDict[Any, Any] = collections.OrderedDict()
            # Python 2 has the pairs among the arguments.
            self.fill(made, [part for pair in (arguments[0] if arguments else ()) for part in pair])
            return made
        if name in ("builtins.set", "builtins.frozenset"):
            return (set if name == "builtins.set" else frozenset)(map(_key, arguments[0]))
        if name == "torch.Size" or name == "torch.device":
            import torch

            arguments = tuple(map(_key, arguments))
            return torch.Size(*arguments) if name == "torch.Size" else torch.device(*arguments)
        if name == "_codecs.encode":
            text, encoding = arguments
            if encoding not in ("latin1", "latin-1"):
                raise ValueError(f"bytes in {encoding}")
            return text.encode("latin-1")
        if name == "numpy.dtype":
            return _Order()
        if name.endswith("._reconstruct") and getattr(arguments[0], "name", "") == "numpy.ndarray":
            return Leaf("array")
        self.refuse(f"a call of `{name}`", called.offset)

    def build(self, target: Any, state: Any) -> None:
        if isinstance(target, _Order):
            target.order = state[1]
        elif isinstance(target, Leaf) and target.kind == "array":
            if state[2].order not in ("<", "|", "="):
                self.refuse("an array of big-endian elements")
        elif (
            isinstance(target, collections.OrderedDict)
            and isinstance(state, dict)
            and set(state) <= {"_metadata"}
        ):
            # What Module.state_dict() says of the versions of modules.
            target.__dict__.update(state)
        else:
            self.refuse(f"an attribute of {type(target).__name__}")
