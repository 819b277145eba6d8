"""torch.distributed.checkpoint, with the readers and the writer of tensafe beside torch's own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import tensafe  # noqa: E402
import torch.distributed.checkpoint as dcp  # noqa: E402
from dcp_ranks import others, read_bytes, read_since, same, tensors  # noqa: E402
from safetensors.torch import _TYPES, save_file  # noqa: E402
from tensafe.integrations import _dcp_consolidate  # noqa: E402
from tensafe.integrations.dcp import (  # noqa: E402
    TensafeQuantizedStorageReader,
    TensafeStorageReader,
    TensafeStorageWriter,
    consolidate,
)
from torch.distributed.checkpoint.metadata import MetadataIndex  # noqa: E402
from torch.distributed.checkpoint.planner import (  # noqa: E402
    LoadItemType,
    LoadPlan,
    ReadItem,
)

HERE = Path(__file__).resolve().parent
READERS = (TensafeStorageReader, dcp.HuggingFaceStorageReader)
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def ranks(job: str, world: int, root: Path) -> None:
    """Runs a job of `dcp_ranks.py` on as many processes."""
    command = [sys.executable, "-W", "ignore", str(HERE / "dcp_ranks.py"), job, str(root)]
    started = []
    for rank in range(world):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
        started.append(
            subprocess.Popen(
                command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        )
    try:
        said = [process.communicate(timeout=180)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    for rank, process in enumerate(started):
        assert process.returncode == 0, f"rank {rank} of {world}:\n{said[rank][-4000:]}"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two ranks saved, by both writers."""
    root = tmp_path_factory.mktemp("dcp")
    ranks("save", 2, root)
    return root


def load(reader: Any, into: dict[str, Any], planner: Any = None) -> dict[str, Any]:
    dcp.load(into, storage_reader=reader, planner=planner, no_dist=True)
    return into


def empty(wholes: dict[str, Any]) -> dict[str, Any]:
    return {name: torch.zeros(whole.shape, dtype=whole.dtype) for name, whole in wholes.items()}


def test_three_ranks_load_what_two_saved(saved: Path) -> None:
    big = torch.arange(6000, dtype=torch.float32)[:, None].expand(6000, 2048).contiguous()
    (saved / "big").mkdir()
    save_file({"big": big}, saved / "big" / "model.safetensors")
    forget(saved / "big" / "model.safetensors")
    cut_short(saved)
    ranks("load", 3, saved)


@pytest.mark.parametrize(
    "directory", ["ours", "theirs", "ours-hub", "ours-hub/sharded", "theirs-hub", "async"]
)
def test_one_process_loads_what_two_saved(saved: Path, directory: str) -> None:
    table = tensors() if directory == "theirs-hub" else {**tensors(), **others()}
    wholes = {name: whole for name, (whole, _) in table.items()}
    for kind in READERS:
        found = load(kind(str(saved / directory)), empty(wholes))
        for name, whole in wholes.items():
            assert same(found[name], whole), (kind, name)


def test_files_and_metadata_are_named_as_torch_names_them(saved: Path) -> None:
    ours, theirs = (sorted((saved / who).iterdir()) for who in ("ours", "theirs"))
    assert [path.name for path in ours] == [path.name for path in theirs]
    for mine, other in zip(ours, theirs, strict=True):
        with tensafe.open(mine) as one, tensafe.open(other) as two:
            places = [json.loads(file.metadata.pop("DCP_SHARDING_INFO")) for file in (one, two)]
            assert places[0] == places[1]
            keys = ("DCP_VERSION", "format")
            assert [one.metadata[key] for key in keys] == [two.metadata[key] for key in keys]
            assert set(one) == set(two)
            assert all(one[name].bytes() == two[name].bytes() for name in one)


def test_metadata_are_those_of_torch(saved: Path) -> None:
    for directory in ("ours", "ours-hub"):
        ours, theirs = (kind(str(saved / directory)).read_metadata() for kind in READERS)
        assert set(ours.state_dict_metadata) == set(theirs.state_dict_metadata)
        for name, mine in ours.state_dict_metadata.items():
            other = theirs.state_dict_metadata[name]
            assert (mine.size, mine.properties.dtype) == (other.size, other.properties.dtype)
            # torch keeps the parts of ranks that have nothing.
            chunks = [
                {(chunk.offsets, chunk.sizes) for chunk in md.chunks if chunk.sizes.numel()}
                for md in (mine, other)
            ]
            assert chunks[0] == chunks[1], name
        places = [
            {
                index: Path(info.relative_path).resolve()
                for index, info in metadata.storage_data.items()
                if info.shape.numel()
            }
            for metadata in (ours, theirs)
        ]
        assert places[0] == places[1]


def test_consolidated_files_are_those_of_torch(saved: Path, tmp_path: Path) -> None:
    mapping = {name: 1 + number % 3 for number, name in enumerate(tensors())}
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    source = saved / "theirs-hub" / "sharded"
    theirs.mkdir()
    from torch.distributed.checkpoint._consolidate_hf_safetensors import consolidate_safetensors_files

    consolidate_safetensors_files(str(source), str(theirs), mapping)
    consolidate(source, ours, mapping)
    index = "model.safetensors.index.json"
    indices = [json.loads((directory / index).read_text()) for directory in (ours, theirs)]
    assert indices[0] == indices[1]
    for file in sorted(set(indices[0]["weight_map"].values())):
        with tensafe.open(ours / file) as one, tensafe.open(theirs / file) as two:
            assert set(one) == set(two)
            for name in one:
                assert (one[name].dtype, one[name].shape) == (two[name].dtype, two[name].shape)
                assert one[name].bytes() == two[name].bytes()
    # Nothing is left beside them.
    assert {path.name for path in ours.iterdir()} == {index, *indices[0]["weight_map"].values()}


@pytest.mark.parametrize("batch", [4, 30, 64, 200])
def test_consolidates_in_blocks(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: int
) -> None:
    monkeypatch.setattr(_dcp_consolidate, "_BATCH", batch)
    consolidate(saved / "ours", tmp_path, num_threads=2)
    with tensafe.open(tmp_path) as found:
        for name, (whole, _) in {**tensors(), **others()}.items():
            assert same(found[name].to_torch(), whole), name


def test_every_dtype(tmp_path: Path) -> None:
    numbers = torch.arange(96, dtype=torch.uint8)
    table = {}
    for code, dtype in _TYPES.items():
        data = numbers % 2 if dtype == torch.bool else numbers
        table[code] = data.clone().view(dtype).reshape(3, -1)
    save_file(table, tmp_path / "model.safetensors")
    for kind in READERS:
        found = load(kind(str(tmp_path)), empty(table))
        assert all(same(found[code], table[code]) for code in table), kind
    dcp.save(table, storage_writer=TensafeStorageWriter(tmp_path / "again"), no_dist=True)
    found = load(dcp.HuggingFaceStorageReader(str(tmp_path / "again")), empty(table))
    assert all(same(found[code], table[code]) for code in table)


def test_packed_elements_come_back(tmp_path: Path) -> None:
    packed = torch.arange(12, dtype=torch.uint8).reshape(3, 4).view(torch.float4_e2m1fn_x2)
    dcp.save({"p": packed}, storage_writer=TensafeStorageWriter(tmp_path), no_dist=True)
    into = {"p": torch.zeros(3, 4, dtype=torch.uint8).view(torch.float4_e2m1fn_x2)}
    assert same(load(TensafeStorageReader(tmp_path), into)["p"], packed)


def test_another_dtype_is_converted_as_torch_does(tmp_path: Path) -> None:
    save_file({"w": torch.randn(5, 6)}, tmp_path / "model.safetensors")
    found = [
        load(kind(str(tmp_path)), {"w": torch.zeros(5, 6, dtype=torch.float16)})["w"] for kind in READERS
    ]
    assert same(*found)


def test_tied_tensors_and_views_are_saved(tmp_path: Path) -> None:
    table = torch.randn(6, 4)
    state = {"a": table, "b": table, "columns": table[:, 1:3], "turned": table.T}
    dcp.save(state, storage_writer=TensafeStorageWriter(tmp_path), no_dist=True)
    found = load(
        dcp.HuggingFaceStorageReader(str(tmp_path)), {k: torch.zeros(v.shape) for k, v in state.items()}
    )
    assert all(same(found[name], tensor) for name, tensor in state.items())


def test_a_file_and_an_index_are_paths_too(saved: Path) -> None:
    index = saved / "ours-hub" / "model.safetensors.index.json"
    rows = tensors()["rows"][0]
    file = saved / "ours-hub" / json.loads(index.read_text())["weight_map"]["rows"]
    for path in (index, file):
        assert same(load(TensafeStorageReader(path), {"rows": torch.zeros(7, 5)})["rows"], rows)


def test_checkpoint_id_is_another_path(saved: Path, tmp_path: Path) -> None:
    rows = tensors()["rows"][0]
    into = {"rows": torch.zeros(7, 5)}
    reader = TensafeStorageReader(tmp_path / "nowhere")
    dcp.load(into, checkpoint_id=saved / "ours", storage_reader=reader, no_dist=True)
    assert same(into["rows"], rows)
    writer = TensafeStorageWriter(tmp_path / "no", save_distributed=True, enable_consolidation=True)
    for number in (1, 2):
        dcp.save(
            {"w": rows * number}, checkpoint_id=tmp_path / f"{number}", storage_writer=writer, no_dist=True
        )
    for number in (1, 2):
        assert same(tensafe.open(tmp_path / f"{number}")["w"].to_torch(), rows * number)
    assert not (tmp_path / "no").exists()


def test_saves_in_another_process(tmp_path: Path) -> None:
    # The writer, and what it returns, cross to that process and back.
    import pickle

    writer = pickle.loads(pickle.dumps(TensafeStorageWriter(tmp_path, {"w": 3}, 2)))
    dcp.save({"w": torch.ones(3)}, storage_writer=writer, no_dist=True)
    assert (tmp_path / "model-00003-of-00003.safetensors").exists()


class Places(dcp.DefaultLoadPlanner):
    """Gives the memory that each item names by its offset."""

    def __init__(self, targets: dict[tuple[int, ...], Any]) -> None:
        super().__init__()
        self.targets = targets
        self.committed: list[Any] = []

    def resolve_tensor(self, read_item: ReadItem) -> Any:
        return self.targets[tuple(read_item.storage_offsets)]

    def commit_tensor(self, read_item: ReadItem, tensor: Any) -> None:
        self.committed.append((read_item, tensor))


def item(name: str, start: tuple[int, ...], lengths: tuple[int, ...]) -> ReadItem:
    place = MetadataIndex(name, (0,) * len(start))
    sizes = torch.Size(start), torch.Size(lengths)
    return ReadItem(LoadItemType.TENSOR, place, sizes[0], place, sizes[0], sizes[1])


def read(reader: Any, name: str, regions: list[Any], targets: dict[tuple[int, ...], Any]) -> Places:
    reader.set_up_storage_reader(reader.read_metadata(), True)
    planner = Places(targets)
    reader.read_data(LoadPlan([item(name, *region) for region in regions]), planner).wait()
    return planner


def test_several_parts_of_one_tensor(tmp_path: Path) -> None:
    whole = torch.randn(40, 30)
    save_file({"w": whole}, tmp_path / "model.safetensors")
    regions = [((0, 0), (3, 30)), ((5, 2), (7, 9)), ((39, 29), (1, 1)), ((10, 0), (30, 30))]
    # Memory that is a part of other memory, and some of another dtype.
    out = torch.zeros(80, 60)
    targets = {
        (0, 0): out[0:6:2, 0:60:2],
        (5, 2): out[10:17, 3:12],
        (39, 29): torch.zeros(1, 1, dtype=torch.float64),
        (10, 0): out[40:70].T[:30].T,
    }
    planner = read(TensafeStorageReader(tmp_path), "w", regions, targets)
    for start, lengths in regions:
        part = whole[tuple(slice(at, at + size) for at, size in zip(start, lengths, strict=True))]
        assert torch.equal(targets[start].to(torch.float32), part)
    assert len(planner.committed) == len(regions)
    assert out.count_nonzero() == 3 * 30 + 7 * 9 + 30 * 30


def quantized(directory: Path, shape: tuple[int, int], block: int, kind: Any = torch.float32) -> None:
    rows, columns = (-(-size // block) for size in shape)
    weight = (torch.randn(shape) * 40).to(torch.float8_e4m3fn)
    scale = (torch.rand(rows, columns) + 0.01).to(kind)
    first = {"a.weight": weight, "norm.weight": torch.randn(5)}
    save_file(first, directory / "model-00001-of-00002.safetensors")
    save_file({"a.weight_scale_inv": scale}, directory / "model-00002-of-00002.safetensors")
    places = dict.fromkeys(first, "model-00001-of-00002.safetensors")
    places["a.weight_scale_inv"] = "model-00002-of-00002.safetensors"
    (directory / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("scales", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block, shape", [(128, (300, 390)), (16, (64, 33)), (128, (5, 7))])
def test_blocks_are_dequantized_as_torch_does(
    tmp_path: Path, target: Any, scales: Any, block: int, shape: tuple[int, int]
) -> None:
    quantized(tmp_path, shape, block, scales)
    kinds = (TensafeQuantizedStorageReader, dcp.QuantizedHuggingFaceStorageReader)
    readers = [kind(str(tmp_path), target_dtype=target, block_size=block) for kind in kinds]
    found = [
        load(reader, {"a.weight": torch.zeros(shape), "norm.weight": torch.zeros(5)}) for reader in readers
    ]
    assert all(same(found[0][name], found[1][name]) for name in found[0])
    assert found[0]["a.weight"].count_nonzero() > 0
    # Parts that begin and end within blocks.
    rows, columns = shape
    start, lengths = (rows // 3, columns // 4), (rows - rows // 3 - 1, columns // 2)
    parts = [torch.zeros(lengths, dtype=torch.bfloat16) for _ in kinds]
    for reader, part in zip(readers, parts, strict=True):
        read(reader, "a.weight", [(start, lengths)], {start: part})
    assert same(*parts)


class Numbers(dcp.QuantizedHuggingFaceStorageReader):
    """torch's reader, whose chunks of MXFP4 have the shape of the bytes: a planner then asks for too little."""

    def read_metadata(self) -> Any:
        metadata = super().read_metadata()
        for name, tensor in metadata.state_dict_metadata.items():
            if name.endswith("_blocks"):
                shape = torch.Size(tensor.size)
                file = metadata.storage_data.pop(MetadataIndex(name, tensor.chunks[0].offsets))
                tensor.chunks = [type(tensor.chunks[0])(torch.Size([0] * len(shape)), shape)]
                metadata.storage_data[MetadataIndex(name, [0] * len(shape))] = file
        return metadata


@pytest.mark.parametrize("target", [torch.float32, torch.bfloat16])
def test_mxfp4_is_dequantized_as_torch_does(tmp_path: Path, target: Any) -> None:
    table = {
        "e_blocks": torch.randint(0, 256, (3, 5, 6, 16), dtype=torch.uint8),
        "e_scales": torch.randint(100, 150, (3, 5, 6), dtype=torch.uint8),
    }
    save_file(table, tmp_path / "model.safetensors")
    index = {"weight_map": dict.fromkeys(table, "model.safetensors")}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    readers = [kind(str(tmp_path), target_dtype=target) for kind in (TensafeQuantizedStorageReader, Numbers)]
    found = [load(reader, {"e_blocks": torch.zeros(3, 5, 192)})["e_blocks"] for reader in readers]
    assert same(*found)
    assert found[0].count_nonzero() > 2000
    start, lengths = (1, 2, 37), (2, 3, 100)
    parts = [torch.zeros(lengths) for _ in readers]
    for reader, part in zip(readers, parts, strict=True):
        read(reader, "e_blocks", [(start, lengths)], {start: part})
    assert same(*parts)
    assert same(parts[0], found[0][1:, 2:, 37:137].contiguous())


def test_a_scale_of_another_shape_is_refused(tmp_path: Path) -> None:
    quantized(tmp_path, (64, 32), 16)
    reader = TensafeQuantizedStorageReader(tmp_path)
    with pytest.raises(
        BaseException, match=r"`a.weight`.*`a.weight_scale_inv`.*\[4, 2\].*128 needs \[1, 1\]"
    ):
        load(reader, {"a.weight": torch.zeros(64, 32)})


def forget(file: Path) -> None:
    """Has the page cache forget a file."""
    handle = os.open(file, os.O_RDONLY)
    os.fsync(handle)
    os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(handle)


def test_reads_what_is_asked_for_alone(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    size = 64 << 20
    save_file({"big": torch.ones(size // 4), "small": torch.ones(8), "rows": torch.ones(4096, 2048)}, file)
    # The kernel reads ahead of a page that is touched, by megabytes where the disk is told to.
    for into, most in (
        ({"small": torch.zeros(8)}, 16 << 20),
        ({"big": torch.zeros(size // 4)}, size + (16 << 20)),
    ):
        forget(file)
        before = read_bytes()
        load(TensafeStorageReader(tmp_path), into)
        count = read_since(before)
        assert count < most, (list(into), count)
        if "big" in into:
            assert count >= size, count


def test_small_tensors_between_large_ones_are_read_once(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    wholes = {}
    for layer in range(32):
        wholes[f"{layer}.norm"] = torch.full((2048,), float(layer))
        wholes[f"{layer}.weight"] = torch.full((1024, 1024), float(layer))
    save_file(wholes, file)
    # What the first load of a process imports is read too.
    load(TensafeStorageReader(tmp_path), empty(wholes))
    forget(file)
    before = read_bytes()
    found = load(TensafeStorageReader(tmp_path), empty(wholes))
    count, total = read_since(before), sum(whole.nbytes for whole in wholes.values())
    assert all(torch.equal(found[name], whole) for name, whole in wholes.items())
    # A page that is touched in a mapping brings many behind it, which were read already or will be.
    assert total <= count < total + (2 << 20), (count, total)


def test_missing_tensors_and_other_shapes_are_named(saved: Path) -> None:
    with pytest.raises(BaseException, match="absent"):
        load(TensafeStorageReader(saved / "ours"), {"absent": torch.zeros(2)})
    with pytest.raises(BaseException, match=r"\[7, 5\].*\[5, 7\].*rows"):
        load(TensafeStorageReader(saved / "ours"), {"rows": torch.zeros(5, 7)})
    with pytest.raises(tensafe.UsageError, match=r"`rows`: shape \[2, 2\] to read into, needed \[7, 5\]"):
        read(
            TensafeStorageReader(saved / "theirs-hub"),
            "rows",
            [((0, 0), (7, 5))],
            {(0, 0): torch.zeros(2, 2)},
        )


def cut_short(saved: Path) -> Path:
    broken = saved / "broken"
    shutil.copytree(saved / "ours", broken, dirs_exist_ok=True)
    file = broken / "shard-00002-model-00001-of-00001.safetensors"
    os.truncate(file, file.stat().st_size - 10)
    return file


def test_a_file_that_is_cut_short_is_named(saved: Path) -> None:
    file = cut_short(saved)
    with pytest.raises(tensafe.FormatError, match=file.name):
        TensafeStorageReader(file.parent).read_metadata()


def test_parts_that_are_missing_or_overlap_are_named(saved: Path, tmp_path: Path) -> None:
    directory = tmp_path / "parts"
    shutil.copytree(saved / "ours", directory)
    (directory / "shard-00001-model-00001-of-00001.safetensors").unlink()
    with pytest.raises(tensafe.FormatError, match=r"tensor `\w+`: parts in shard-00002.*a file is missing"):
        TensafeStorageReader(directory).read_metadata()
    shutil.copytree(saved / "ours", directory, dirs_exist_ok=True)
    save_file({"rows": torch.zeros(7, 5)}, directory / "older.safetensors")
    with pytest.raises(tensafe.FormatError, match=r"`rows`: parts overlap, .*shard-0000.*several saves"):
        TensafeStorageReader(directory).read_metadata()
    (directory / "older.safetensors").rename(directory / "model.safetensors.index.json")
    with pytest.raises(tensafe.UsageError, match=r"both model.safetensors.index.json and .* shard-00001"):
        TensafeStorageReader(directory).read_metadata()


def test_parts_that_overlap_where_another_is_missing(tmp_path: Path) -> None:
    # As many elements as the shape needs, and none at row 2.
    for number, (first, rows) in enumerate([(0, 2), (1, 1), (3, 1)]):
        places = json.dumps({"w": {"saved_offsets": [first, 0]}})
        save_file(
            {"w": torch.zeros(rows, 3)}, tmp_path / f"{number}.safetensors", {"DCP_SHARDING_INFO": places}
        )
    overlap = r"`w`: parts overlap, 0.safetensors \[2, 3\] at \[0, 0\] and 1.safetensors \[1, 3\] at \[1, 0\]"
    with pytest.raises(tensafe.FormatError, match=overlap):
        TensafeStorageReader(tmp_path).read_metadata()


@pytest.mark.parametrize(
    "text, said",
    [
        ("{", "no JSON"),
        ("[" * 100_000, "no JSON"),
        ("[1]", "no offset of 2 dimensions"),
        ('{"w": {"saved_offsets": [0]}}', "no offset of 2 dimensions"),
        ('{"w": {"saved_offsets": [-1, 0]}}', r"the offset \[-1, 0\]"),
        ('{"w": {"saved_offsets": [0, 9223372036854775807]}}', "the offset"),
        ('{"w": {"saved_offsets": [0, true]}}', "the offset"),
        ('{"w": {"saved_offsets": [4, 0]}}', "a file is missing"),
    ],
)
def test_metadata_that_lie_are_refused(tmp_path: Path, text: str, said: str) -> None:
    save_file({"w": torch.zeros(2, 3)}, tmp_path / "a.safetensors", {"DCP_SHARDING_INFO": text})
    with pytest.raises(tensafe.FormatError, match=said) as error:
        TensafeStorageReader(tmp_path).read_metadata()
    assert "a.safetensors" in str(error.value)


def test_an_empty_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(tensafe.SafetensorError, match=str(tmp_path)):
        TensafeStorageReader(tmp_path).read_metadata()


def test_what_a_file_cannot_hold_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseException, match="`step` is no tensor"):
        dcp.save({"step": 3, "w": torch.ones(2)}, storage_writer=TensafeStorageWriter(tmp_path), no_dist=True)
    with pytest.raises(BaseException, match="`w` is not in fqn_to_index_mapping"):
        dcp.save({"w": torch.ones(2)}, storage_writer=TensafeStorageWriter(tmp_path, {"v": 1}), no_dist=True)
    with pytest.raises(tensafe.UsageError, match="needs save_distributed=True"):
        TensafeStorageWriter(tmp_path, enable_consolidation=True)
    assert not list(tmp_path.iterdir())


def test_consolidation_leaves_out_files_of_an_earlier_save(tmp_path: Path) -> None:
    sharded = tmp_path / "sharded"
    sharded.mkdir()
    save_file({"w": torch.zeros(4)}, sharded / "shard-00002-model-00001-of-00001.safetensors")
    writer = TensafeStorageWriter(tmp_path, save_distributed=True, enable_consolidation=True)
    dcp.save({"w": torch.ones(3)}, storage_writer=writer, no_dist=True)
    assert torch.equal(tensafe.open(tmp_path)["w"].to_torch(), torch.ones(3))


def test_page(tmp_path: Path) -> None:
    sys.path.insert(0, str(HERE.parent))
    from page import run_page

    run_page("dcp", tmp_path)
