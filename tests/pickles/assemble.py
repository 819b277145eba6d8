"""Pickle streams as bytes: one function for each opcode that the hostile corpus needs.

Nothing here makes an object, imports what it names, or loads a pickle. A value goes in as a literal
(text, number, tuple, ...) and comes out as the opcodes that would push it; `Ops` stands for opcodes that
are there already, so that a call can be an argument of another call.
"""

import struct

PROTO, STOP, MARK, POP, POP_MARK, DUP = b"\x80", b".", b"(", b"0", b"1", b"2"
NONE, TRUE, FALSE = b"N", b"\x88", b"\x89"
EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT, EMPTY_SET = b")", b"]", b"}", b"\x8f"
TUPLE, TUPLE1, TUPLE2, TUPLE3 = b"t", b"\x85", b"\x86", b"\x87"
LIST, DICT, APPEND, APPENDS, SETITEM, SETITEMS = b"l", b"d", b"a", b"e", b"s", b"u"
ADDITEMS, FROZENSET = b"\x90", b"\x91"
REDUCE, BUILD, NEWOBJ, NEWOBJ_EX, OBJ = b"R", b"b", b"\x81", b"\x92", b"o"
STACK_GLOBAL, MEMOIZE, BINPERSID = b"\x93", b"\x94", b"Q"


class Ops(bytes):
    """Opcodes that push one value."""


def be_text(text: str | bytes) -> bytes:
    """The bytes of a name; bytes stay as they are, for names that no text can spell."""
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


def short(text: str | bytes) -> Ops:
    """SHORT_BINUNICODE (protocol 4)."""
    raw = be_text(text)
    return Ops(b"\x8c" + struct.pack("<B", len(raw)) + raw)


def unicode(text: str | bytes) -> Ops:
    """BINUNICODE (protocol 1)."""
    raw = be_text(text)
    return Ops(b"X" + struct.pack("<I", len(raw)) + raw)


def string(text: bytes) -> Ops:
    """SHORT_BINSTRING (protocol 1), the string of Python 2."""
    return Ops(b"U" + struct.pack("<B", len(text)) + text)


def number(n: int) -> Ops:
    """The shortest opcode for an integer."""
    if 0 <= n < 256:
        return Ops(b"K" + struct.pack("<B", n))
    if 0 <= n < 65536:
        return Ops(b"M" + struct.pack("<H", n))
    if -(2**31) <= n < 2**31:
        return Ops(b"J" + struct.pack("<i", n))
    raw = n.to_bytes(n.bit_length() // 8 + 1, "little", signed=True)
    return Ops(b"\x8a" + struct.pack("<B", len(raw)) + raw)


def data(raw: bytes) -> Ops:
    """SHORT_BINBYTES or BINBYTES (protocol 3)."""
    if len(raw) < 256:
        return Ops(b"C" + struct.pack("<B", len(raw)) + raw)
    return Ops(b"B" + struct.pack("<I", len(raw)) + raw)


def value(literal: object) -> Ops:
    """The opcodes that push a literal."""
    match literal:
        case Ops():
            return literal
        case None:
            return Ops(NONE)
        case bool():
            return Ops(TRUE if literal else FALSE)
        case int():
            return number(literal)
        case float():
            return Ops(b"G" + struct.pack(">d", literal))
        case str():
            return unicode(literal)
        case bytes():
            return data(literal)
        case tuple():
            return Ops(tuple_of(*literal))
        case list():
            items = b"".join(map(value, literal))
            return Ops(EMPTY_LIST + (MARK + items + APPENDS if literal else b""))
        case dict():
            items = b"".join(value(k) + value(v) for k, v in literal.items())
            return Ops(EMPTY_DICT + (MARK + items + SETITEMS if literal else b""))
    raise TypeError(type(literal).__name__)


def tuple_of(*items: object) -> Ops:
    parts = b"".join(map(value, items))
    if len(items) > 3:
        return Ops(MARK + parts + TUPLE)
    return Ops(parts + (EMPTY_TUPLE, TUPLE1, TUPLE2, TUPLE3)[len(items)])


def text_global(module: str | bytes, name: str | bytes) -> Ops:
    """GLOBAL: two lines of text."""
    return Ops(b"c" + be_text(module) + b"\n" + be_text(name) + b"\n")


def stack_global(module: str | bytes, name: str | bytes) -> Ops:
    """STACK_GLOBAL with its two strings (protocol 4)."""
    return Ops(short(module) + short(name) + STACK_GLOBAL)


def symbol(module: str | bytes, name: str | bytes, proto: int = 2) -> Ops:
    return (stack_global if proto >= 4 else text_global)(module, name)


def call(module: str | bytes, name: str | bytes, *args: object, proto: int = 2) -> Ops:
    """REDUCE of a named callable."""
    return Ops(symbol(module, name, proto) + tuple_of(*args) + REDUCE)


def apply(function: bytes, *args: object) -> Ops:
    """REDUCE of whatever `function` pushes."""
    return Ops(function + tuple_of(*args) + REDUCE)


def put(index: int) -> bytes:
    """BINPUT."""
    return b"q" + struct.pack("<B", index)


def get(index: int) -> Ops:
    """BINGET."""
    return Ops(b"h" + struct.pack("<B", index))


def frame(body: bytes, length: int | None = None) -> bytes:
    """FRAME around a body, or one that lies about its length."""
    return b"\x95" + struct.pack("<Q", len(body) if length is None else length) + body


def pickle(body: bytes, proto: int = 2, stop: bytes = STOP) -> bytes:
    """A whole stream: PROTO from 2 on, FRAME from 4 on."""
    if proto >= 4:
        return PROTO + bytes([proto]) + frame(body + stop)
    return (PROTO + bytes([proto]) if proto >= 2 else b"") + body + stop


def storage(
    kind: str | Ops = "FloatStorage", key: object = "0", numel: int = 4, place: str = "cpu", view: object = ()
) -> Ops:
    """The persistent id of a torch storage; a legacy one has a sixth item, `view`."""
    named = kind if isinstance(kind, Ops) else text_global("torch", kind)
    extra = () if view == () else (view,)
    return Ops(tuple_of("storage", named, key, place, numel, *extra) + BINPERSID)


def tensor(
    store: bytes | None = None,
    size: tuple[object, ...] = (2, 2),
    stride: tuple[object, ...] = (2, 1),
    offset: object = 0,
    hooks: object = None,
    rebuild: str = "_rebuild_tensor_v2",
) -> Ops:
    """A torch tensor over a storage: 2 by 2 floats unless told otherwise."""
    empty = call("collections", "OrderedDict") if hooks is None else hooks
    place = storage() if store is None else Ops(store)
    return call("torch._utils", rebuild, place, offset, size, stride, False, empty)


def state(**entries: object) -> Ops:
    """A dictionary by name."""
    return value(entries)


def ndarray(dtype: str, shape: tuple[int, ...], content: object) -> Ops:
    """A numpy array as numpy itself pickles it in protocol 2."""
    made = call("numpy.core.multiarray", "_reconstruct", text_global("numpy", "ndarray"), (0,), b"b")
    kind = call("numpy", "dtype", dtype, False, True)
    fields = (3, "|" if dtype == "O8" else "<", None, None, None, -1, -1, 63 if dtype == "O8" else 0)
    return Ops(made + tuple_of(1, shape, Ops(kind + tuple_of(*fields) + BUILD), False, content) + BUILD)
