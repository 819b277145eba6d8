"""Containers around pickles, written byte by byte: zip with every field open to a lie, tar, numpy, joblib,
the layouts of torch, and wrappers of compression that give the same bytes on every machine.
"""

import bz2
import io
import json
import lzma
import struct
import tarfile
import zlib
from dataclasses import dataclass, field

from assemble import BINPERSID, BUILD, EMPTY_TUPLE, NEWOBJ, Ops, call, pickle, text_global, tuple_of, value

MAGIC = 0x1950A86A20F9469CFC6C
STORED, DEFLATED = 0, 8


def deflate(content: bytes) -> bytes:
    """One block of deflate with fixed Huffman codes and literals only: no choice is left to a library."""
    bits, filled, out = 0b011, 3, bytearray()
    for symbol in [*content, 256]:
        if symbol < 144:
            code, width = 0b00110000 + symbol, 8
        elif symbol < 256:
            code, width = 0b110010000 + symbol - 144, 9
        else:
            code, width = 0, 7
        bits |= int(f"{code:0{width}b}"[::-1], 2) << filled
        filled += width
        while filled >= 8:
            out.append(bits & 255)
            bits, filled = bits >> 8, filled - 8
    return bytes(out) + (bytes([bits]) if filled else b"")


def gzip(content: bytes) -> bytes:
    head = b"\x1f\x8b\x08" + bytes(6) + b"\xff"
    return head + deflate(content) + struct.pack("<II", zlib.crc32(content), len(content))


def zlib_stream(content: bytes) -> bytes:
    return b"\x78\x9c" + deflate(content) + struct.pack(">I", zlib.adler32(content))


def xz(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_XZ, lzma.CHECK_CRC32, preset=1)


def lzma_alone(content: bytes) -> bytes:
    return lzma.compress(content, lzma.FORMAT_ALONE, preset=1)


def bzip2(content: bytes) -> bytes:
    return bz2.compress(content, 1)


def zstd(content: bytes) -> bytes:
    """A frame with one raw block."""
    size = struct.pack("<I", len(content))
    return b"\x28\xb5\x2f\xfd\xa0" + size + struct.pack("<I", len(content) << 3 | 1)[:3] + content


def xxh32(content: bytes) -> int:
    """xxHash of fewer than 16 bytes, which is what the head of an LZ4 frame has."""
    word, mask = 374761393 + len(content), 0xFFFFFFFF
    at = 0
    while at + 4 <= len(content):
        word = word + int.from_bytes(content[at : at + 4], "little") * 3266489917 & mask
        word = (word << 17 | word >> 15) * 668265263 & mask
        at += 4
    for byte in content[at:]:
        word = word + byte * 374761393 & mask
        word = ((word << 11 | word >> 21) & mask) * 2654435761 & mask
    word = (word ^ word >> 15) * 2246822519 & mask
    word = (word ^ word >> 13) * 3266489917 & mask
    return word ^ word >> 16


def lz4(content: bytes) -> bytes:
    """A frame with one block that is not compressed."""
    head = b"\x60\x40"
    block = struct.pack("<I", len(content) | 1 << 31) + content
    return b"\x04\x22\x4d\x18" + head + bytes([xxh32(head) >> 8 & 255]) + block + bytes(4)


def seven_zip(name: str, content: bytes) -> bytes:
    """A 7z archive of one member with the codec Copy."""

    def size(n: int) -> bytes:
        return bytes([n]) if n < 128 else bytes([128 | n >> 8, n & 255])

    crc = struct.pack("<I", zlib.crc32(content))
    names = b"\x00" + name.encode("utf-16-le") + b"\0\0"
    packed = b"\x06\x00\x01\x09" + size(len(content)) + b"\x00"
    folder = b"\x07\x0b\x01\x00\x01\x01\x00\x0c" + size(len(content)) + b"\x0a\x01" + crc + b"\x00"
    header = b"\x01\x04" + packed + folder + b"\x08\x00\x00"
    header += b"\x05\x01\x11" + size(len(names)) + names + b"\x00\x00"
    start = struct.pack("<QQI", len(content), len(header), zlib.crc32(header))
    head = b"7z\xbc\xaf\x27\x1c\x00\x04" + struct.pack("<I", zlib.crc32(start)) + start
    return head + content + header


@dataclass
class Member:
    """One member of a zip. `local` and `central` replace fields of one of the two headers."""

    name: str | bytes
    content: bytes
    method: int = STORED
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)
    both: dict[str, object] = field(default_factory=dict)
    packed: bytes | None = None
    descriptor: bytes = b""
    listed: bool = True
    written: bool = True

    def fields(self, lies: dict[str, object]) -> dict[str, object]:
        name = self.name if isinstance(self.name, bytes) else self.name.encode()
        truth = {
            "version": 20, "flags": 0, "method": self.method, "crc": zlib.crc32(self.content),
            "packed": len(self.body()), "size": len(self.content), "name": name, "extra": b"",
            "comment": b"", "attributes": 0,
        }  # fmt: skip
        return truth | self.both | lies

    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        return deflate(self.content) if self.method == DEFLATED else self.content

    def local_header(self) -> bytes:
        f = self.fields(self.local)
        head = struct.pack(
            "<4s5H3I2H", b"PK\x03\x04", f["version"], f["flags"], f["method"], 0, 33,
            f["crc"], f["packed"], f["size"], len(f["name"]), len(f["extra"]),
        )  # fmt: skip
        return head + f["name"] + f["extra"]

    def central_header(self, offset: int) -> bytes:
        f = {"offset": offset} | self.fields(self.central)
        head = struct.pack(
            "<4s6H3I5H2I", b"PK\x01\x02", 20, f["version"], f["flags"], f["method"], 0, 33,
            f["crc"], f["packed"], f["size"], len(f["name"]), len(f["extra"]), len(f["comment"]),
            0, 0, f["attributes"], f["offset"],
        )  # fmt: skip
        return head + f["name"] + f["extra"] + f["comment"]


def eocd(count: int, size: int, start: int, comment: bytes = b"", length: int | None = None) -> bytes:
    """The end of the central directory."""
    said = len(comment) if length is None else length
    return struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, count, count, size, start, said) + comment


def archive(
    members: list[Member],
    prefix: bytes = b"",
    gap: bytes = b"",
    shift: int | None = None,
    end: dict[str, object] | None = None,
    before_end: bytes = b"",
) -> bytes:
    """A zip of `members`. `shift` is what offsets count for the prefix (its length unless told)."""
    moved = len(prefix) if shift is None else shift
    out, offsets = b"", []
    for member in members:
        offsets.append(len(out) + moved)
        if member.written:
            out += member.local_header() + member.body() + member.descriptor
    out += gap
    start = len(out) + moved
    listed = [(m, o) for m, o in zip(members, offsets, strict=True) if m.listed]
    directory = b"".join(m.central_header(o) for m, o in listed)
    tail = {"count": len(listed), "size": len(directory), "start": start} | (end or {})
    return prefix + out + directory + before_end + eocd(**tail)


def padded(at: int, name: str) -> bytes:
    """The extra field by which torch lets the content of a member begin at a multiple of 64."""
    begin = at + 30 + len(name) + 4
    fill = -begin % 64
    return struct.pack("<HH", 0x4246, fill) + b"Z" * fill


FLOATS = struct.pack("<4f", 1, 2, 3, 4)


def torch_members(
    data_pkl: bytes, root: str = "archive", method: int = STORED, **more: bytes
) -> list[Member]:
    """The members of a checkpoint of torch 2.x: one storage of four floats, then `more` by name."""
    contents = {"data.pkl": data_pkl, "byteorder": b"little", "data/0": FLOATS, "version": b"3\n"}
    contents |= {name.replace("__", "/"): content for name, content in more.items()}
    members, at = [], 0
    for name, content in contents.items():
        full = f"{root}/{name}" if root else name
        member = Member(full, content, method)
        if method == STORED:
            member.local = {"extra": padded(at, full)}
        at += len(member.local_header() + member.body())
        members.append(member)
    return members


def torch_zip(data_pkl: bytes, root: str = "archive", method: int = STORED, **more: bytes) -> bytes:
    return archive(torch_members(data_pkl, root, method, **more))


SYS_INFO = {
    "protocol_version": 1001,
    "little_endian": True,
    "type_sizes": {"short": 2, "int": 4, "long": 4},
}


def torch_legacy(
    root: bytes,
    magic: bytes | None = None,
    protocol: bytes | None = None,
    sys_info: bytes | None = None,
    keys: bytes | None = None,
    storages: bytes | None = None,
) -> bytes:
    """The five pickles of torch 0.1.10 to 1.5 and the storages behind them; each part can be replaced."""
    parts = [
        pickle(value(MAGIC)) if magic is None else magic,
        pickle(value(1001)) if protocol is None else protocol,
        pickle(value(SYS_INFO)) if sys_info is None else sys_info,
        root,
        pickle(value(["0"])) if keys is None else keys,
        struct.pack("<Q", 4) + FLOATS if storages is None else storages,
    ]
    return b"".join(parts)


def tar(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as file:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            file.addfile(info, io.BytesIO(content))
    end = len(out.getvalue().rstrip(b"\0"))
    return out.getvalue()[: (end + 511) // 512 * 512 + 1024]


def torch_tar(
    root: bytes | None = None,
    count: bytes | None = None,
    entry: bytes | None = None,
    tensors: bytes | None = None,
    sys_info: bytes | None = None,
    ndim: int = 2,
) -> bytes:
    """The tar of torch before 0.1.10: one storage, one tensor, and the object that names it."""
    described = tuple_of(7, "cpu", text_global("torch", "FloatStorage"))
    shown = tuple_of(9, 7, text_global("torch", "FloatTensor"))
    storages = pickle(value(1)) if count is None else count
    storages += (pickle(described) if entry is None else entry) + struct.pack("<q", 4) + FLOATS
    storages += pickle(value([]))
    layout = struct.pack("<ii5q", ndim, 0, 2, 2, 2, 1, 0)
    table = (pickle(value(1)) if tensors is None else tensors) + pickle(shown) + layout
    named = value({"weight": Ops(value("9") + BINPERSID)})
    return tar({
        "sys_info": pickle(value(SYS_INFO)) if sys_info is None else sys_info,
        "pickle": pickle(named) if root is None else root,
        "tensors": table,
        "storages": storages,
    })  # fmt: skip


def npy(body: bytes, descr: str = "|O", shape: tuple[int, ...] = (1,), version: int = 1) -> bytes:
    described = descr if descr.startswith("[") else f"'{descr}'"
    header = f"{{'descr': {described}, 'fortran_order': False, 'shape': {shape}, }}"
    width = 2 if version == 1 else 4
    pad = -(8 + width + len(header) + 1) % 64
    text = header.encode() + b" " * pad + b"\n"
    return b"\x93NUMPY" + bytes([version, 0]) + len(text).to_bytes(width, "little") + text + body


def npz(members: dict[str, bytes], method: int = STORED) -> bytes:
    return archive([Member(name, content, method) for name, content in members.items()])


def joblib_array(raw: bytes, shape: tuple[int, ...] = (4,), dtype: str = "f4", aligned: bool = True) -> Ops:
    """An array as joblib >= 0.10 leaves it: a wrapper by NEWOBJ and BUILD, then the raw bytes in the stream."""
    kind = call("numpy", "dtype", dtype, False, True) + tuple_of(3, "<", None, None, None, -1, -1, 0) + BUILD
    fields = {
        "subclass": text_global("numpy", "ndarray"), "shape": shape, "order": "C", "dtype": Ops(kind),
        "allow_mmap": True,
    }  # fmt: skip
    if aligned:
        fields["numpy_array_alignment_bytes"] = 16
        raw = b"\x01\xff" + raw
    wrapper = text_global("joblib.numpy_pickle", "NumpyArrayWrapper") + EMPTY_TUPLE + NEWOBJ
    return Ops(wrapper + value(fields) + BUILD + raw)


def joblib_z(content: bytes) -> bytes:
    """The compressed file of joblib < 0.10: its own head, then zlib."""
    return b"ZF" + hex(len(content)).encode().ljust(19) + zlib_stream(content)


def safetensors(header: dict[str, object], content: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content


def gguf(pairs: dict[str, str]) -> bytes:
    """A GGUF without tensors, with texts as its metadata."""
    out = b"GGUF" + struct.pack("<IQQ", 3, 0, len(pairs))
    for name, text in pairs.items():
        out += struct.pack("<Q", len(name)) + name.encode() + struct.pack("<I", 8)
        out += struct.pack("<Q", len(text.encode())) + text.encode()
    return out
