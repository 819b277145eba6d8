"""Ranks: rules, plans of what a rank holds, loading together, saving together. Ranks are processes of their own."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import ranks_program as program  # noqa: E402
import tensafe  # noqa: E402
import tensafe.torch  # noqa: E402
from tensafe.distributed import (  # noqa: E402
    Column,
    Experts,
    Fused,
    Layers,
    Replicate,
    Row,
    Rules,
    Shard,
    Skip,
    Stage,
    host,
    load_sharded,
)

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from page import run_page  # noqa: E402

Run = Callable[..., list[Any]]
PROGRAM = Path(program.__file__)
# Seconds that a rank may need more when another has died.
SOON = 8.0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("ranks")
    tensafe.torch.save_file(program.model(), directory / "model.safetensors")
    return directory


@pytest.fixture(scope="module")
def run() -> Iterator[Run]:
    """Runs a scenario; what each rank of it returned."""
    program_ = subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program_.stdin is not None
    assert program_.stdout is not None
    ask, hear = program_.stdin, program_.stdout

    def run(scenario: str, world: int, directory: Path, **options: Any) -> list[Any]:
        ask.write(json.dumps([scenario, world, str(directory), options]) + "\n")
        ask.flush()
        answers: list[Any] | None = json.loads(hear.readline())
        assert answers is not None, "a rank failed"
        return answers

    with program_:
        yield run
        ask.close()


def on_disk(directory: Path) -> bool:
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(directory)], capture_output=True, text=True).stdout
    return kind.strip() != "tmpfs"


# Rules, and the plans that they make.


@pytest.fixture
def small(tmp_path: Path) -> tuple[tensafe.Checkpoint, dict[str, Any]]:
    tensors = {
        "a.weight": torch.arange(60).reshape(10, 6),
        "a.bias": torch.arange(10),
        "stack": torch.arange(4 * 6 * 8).reshape(4, 6, 8),
        "scalar": torch.tensor(7),
    }
    tensafe.torch.save_file(tensors, tmp_path / "small.safetensors")
    return tensafe.open(tmp_path / "small.safetensors"), tensors


def loaded(rules: Rules, small: Any, rank: int, world: int, **options: Any) -> dict[str, Any]:
    tensors: dict[str, Any] = rules.plan(small[0], rank, world, **options).load()
    return tensors


@pytest.mark.parametrize("world", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("dim", [0, 1])
def test_a_shard_is_the_chunk_of_torch(small: Any, world: int, dim: int) -> None:
    parts = [loaded(Rules({"a.weight": Shard(dim)}), small, rank, world)["a.weight"] for rank in range(world)]
    whole = small[1]["a.weight"]
    assert torch.equal(torch.cat(parts, dim), whole)
    for part, wanted in zip(parts, whole.chunk(world, dim), strict=False):
        assert torch.equal(part, wanted)


def test_blocks_stay_together_and_replicas_hold_the_same(small: Any) -> None:
    whole = small[1]["a.weight"]
    parts = [loaded(Rules({"a.*": Shard(0, block=4)}), small, rank, 2)["a.weight"] for rank in range(2)]
    assert torch.equal(parts[0], whole[:8])
    assert torch.equal(parts[1], whole[8:])
    parts = [loaded(Rules({"a.*": Shard(0, replicas=2)}), small, rank, 4)["a.weight"] for rank in range(4)]
    assert torch.equal(parts[0], whole[:5])
    assert torch.equal(parts[1], whole[:5])
    assert torch.equal(parts[3], whole[5:])


def test_parts_of_a_fused_weight_are_cut_by_themselves(small: Any) -> None:
    whole = small[1]["a.weight"]
    rules = Rules({"a.weight": Fused(0, (6, 2, 2), replicas=(1, 2, 2))})
    parts = [loaded(rules, small, rank, 2)["a.weight"] for rank in range(2)]
    assert torch.equal(parts[0], torch.cat([whole[0:3], whole[6:10]]))
    assert torch.equal(parts[1], torch.cat([whole[3:6], whole[6:10]]))
    part = loaded(Rules({"stack": Fused(1, 2)}), small, 1, 3)["stack"]
    assert torch.equal(part, small[1]["stack"][:, [1, 4]])


@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_padding_is_zeros_up_to_the_part_of_the_others(small: Any, framework: str) -> None:
    for rank in range(4):
        plan = Rules({"a.*": Column()}).plan(small[0], rank, 4, pad=True)
        assert plan.shape("a.weight") == (3, 6)
        found = torch.as_tensor(plan.load(framework)["a.weight"])
        wanted = torch.zeros(12, 6, dtype=torch.int64)
        wanted[:10] = small[1]["a.weight"]
        assert torch.equal(found, wanted[rank * 3 : rank * 3 + 3])
    # Vocabularies are padded to a multiple first.
    plan = Rules({"a.weight": Shard(0, block=8, pad=True)}).plan(small[0], 1, 2)
    assert plan.shape("a.weight") == (8, 6)
    assert plan.load()["a.weight"][2:].sum() == 0


def test_experts_are_held_by_number_or_by_the_first_dimension() -> None:
    rules = Rules({"*experts*": Experts(8)})
    assert rules.part("m.experts.3.w", (2, 2), 2, 4) is None
    assert rules.part("m.experts.3.w", (2, 2), 0, 2) is not None
    part = rules.part("m.experts.down", (8, 2, 2), 1, 4)
    assert part is not None
    assert part.cuts == ((0, ((2, 4),)),)
    with pytest.raises(tensafe.UsageError, match=r"m\.experts\.8\.w"):
        rules.part("m.experts.8.w", (2, 2), 0, 2)


def test_stages_and_tensor_parallelism_follow_the_axes_of_a_mesh() -> None:
    both = (Rules.stages(4) & Rules({"*.q": Shard(0)})).on({"pp": 2, "tp": 2})
    names = {"embed": (4,), "layers.0.q": (4, 2), "layers.3.q": (4, 2), "norm": (4,)}
    held = [
        {
            name: part.cuts
            for name, shape in names.items()
            if (part := both.part(name, shape, rank, 4)) is not None
        }
        for rank in range(4)
    ]
    assert held[0] == {"embed": (), "layers.0.q": ((0, ((0, 2),)),)}
    assert held[1] == {"embed": (), "layers.0.q": ((0, ((2, 4),)),)}
    assert held[2] == {"layers.3.q": ((0, ((0, 2),)),), "norm": ()}
    with pytest.raises(tensafe.UsageError, match="has 4 ranks, the world has 6"):
        both.part("embed", (4,), 0, 6)
    assert Rules({"*": Layers((0, 1, 4))}).part("layers.1.q", (2,), 0, 2) is None
    assert Rules({"*": Stage(-1)}).part("x", (2,), 1, 2) is not None


def test_the_first_rule_that_matches_is_the_one(small: Any) -> None:
    rules = Rules([("a.bias", Skip()), ("a.*", Column()), (re.compile("st.*"), Skip()), ("*", Replicate())])
    found = loaded(rules, small, 0, 2)
    assert {name: tuple(tensor.shape) for name, tensor in found.items()} == {"a.weight": (5, 6), "scalar": ()}


def test_what_a_rule_cannot_cut_is_named(small: Any) -> None:
    with pytest.raises(tensafe.UsageError, match="`scalar`: shape \\[\\] has no dimension 0"):
        Rules({"scalar": Shard(0)}).plan(small[0], 0, 2)
    with pytest.raises(
        tensafe.UsageError, match="`a.weight`: dimension 0 has 10 positions, 4 ranks need equal"
    ):
        Rules({"a.weight": Shard(0, even=True)}).plan(small[0], 0, 4)
    with pytest.raises(tensafe.UsageError, match="`stack`: dimension 1 has 6 positions, the fused parts"):
        Rules({"stack": Fused(1, (2, 2))}).plan(small[0], 0, 2)
    with pytest.raises(tensafe.UsageError, match="is no rule"):
        Rules({"a": "colwise"})  # type: ignore[dict-item]
    with pytest.raises(tensafe.UsageError, match=r"rank 2 of a world of 2"):
        Rules().plan(small[0], 2, 2)


def test_every_style_of_transformers_is_known_and_others_are_refused() -> None:
    parallel = pytest.importorskip("transformers.distributed.tensor_parallel")
    pytest.importorskip("transformers.distributed.expert_parallel")
    plan = {f"layers.*.{style}": style for style in parallel.ALL_PARALLEL_STYLES}
    assert plan
    Rules.from_tp_plan(plan)
    with pytest.raises(tensafe.UnsupportedError, match="sideways"):
        Rules.from_tp_plan({"layers.*": "sideways"})


def test_a_tp_plan_names_modules_and_parameters() -> None:
    rules = Rules.from_tp_plan(
        {
            "layers.*.mlp.experts": "moe_tp_experts",
            "layers.*.mlp.experts.up": "packed_colwise",
            "layers.*.o": "rowwise",
        },
        prefix="model.",
    )
    assert rules.rule("model.layers.3.o.weight") == Row()
    assert rules.rule("model.layers.3.o.deeper.weight") == Replicate()
    assert rules.rule("model.layers.x.o.weight") == Replicate()
    assert rules.rule("layers.3.o.weight") == Replicate()
    part = rules.part("model.layers.0.mlp.experts.up", (4, 8, 2), 1, 2)
    assert part is not None
    assert part.cuts == ((1, ((2, 4), (6, 8))),)
    bias = rules.part("model.layers.0.o.bias", (8,), 1, 2)
    assert bias is not None
    assert bias.cuts == ()


@pytest.mark.parametrize("size", [1, 5, 8, 9, 16, 23])
@pytest.mark.parametrize("split", [1, 2, 3])
def test_strided_placements_are_those_of_torch(size: int, split: int) -> None:
    from torch.distributed.tensor.placement_types import Replicate as Whole
    from torch.distributed.tensor.placement_types import Shard as Cut
    from torch.distributed.tensor.placement_types import _StridedShard

    rows = torch.arange(size)
    first, _ = _StridedShard(0, split_factor=split)._split_tensor(rows, 3, with_padding=False)
    for rank in range(6):
        second = first[rank // 2].chunk(2)
        wanted = second[rank % 2] if rank % 2 < len(second) else rows[:0]
        rules = Rules.from_placements({"x": [_StridedShard(0, split_factor=split), Cut(0)]}, (3, 2))
        part = rules.part("x", (size,), rank, 6)
        assert part is not None
        found = [place for start, end in part.cuts[0][1] for place in range(start, end)]
        assert found == wanted.tolist()
    assert Rules.from_placements({"x": [Whole(), Cut(0)]}, (3, 2)).part("x", (4,), 5, 7) is not None
    assert Rules.from_placements({"x": [Whole(), Cut(0)]}, (3, 2)).part("x", (4,), 6, 7) is None


def test_partial_sums_are_refused() -> None:
    from torch.distributed.tensor.placement_types import Partial

    with pytest.raises(tensafe.UnsupportedError, match="`x`"):
        Rules.from_placements({"x": [Partial()]}, (2,))


# Loading.


def test_ranks_without_a_group_read_by_themselves(made: Path) -> None:
    for rank in range(2):
        found = load_sharded(made / "model.safetensors", program.RULES, rank=rank, world=2)
        assert program.same(found, program.expected(program.model(), rank, 2)) == []
    with pytest.raises(tensafe.UsageError, match="rank= and world="):
        load_sharded(made / "model.safetensors", program.RULES)
    with pytest.raises(tensafe.UsageError, match="together"):
        load_sharded(made / "model.safetensors", program.RULES, rank=1)
    with pytest.raises(tensafe.UsageError, match="share"):
        load_sharded(made / "model.safetensors", program.RULES, rank=0, world=1, share="all")


@pytest.mark.parametrize(
    ("world", "options"),
    [
        (2, {}),
        (4, {}),
        (3, {"share": "memfd", "io": "direct"}),
        (4, {"share": "page-cache"}),
        (2, {"share": "memfd", "budget": "12MiB"}),
        (2, {"share": "memfd", "framework": "numpy"}),
    ],
)
def test_ranks_of_a_host_read_each_byte_once(
    run: Run, made: Path, world: int, options: dict[str, Any]
) -> None:
    answers = run("loads", world, made, **options)
    assert [answer["wrong"] for answer in answers] == [[]] * world
    assert [answer["mapped"] for answer in answers] == [0] * world
    if on_disk(made):
        read = sum(answer["read"] for answer in answers)
        size = (made / "model.safetensors").stat().st_size
        # Of a part that is in the page cache the rest is read through it, and the kernel reads ahead there.
        assert read <= 1.05 * size + (4 << 20)
        # Else nothing was cold.
        assert read > 0.5 * size


def test_plans_know_how_many_ranks_of_the_host_read(run: Run, made: Path) -> None:
    assert run("plans", 3, made) == [{"wrong": [], "ranks": 3}] * 3


def test_a_reader_stays_past_the_page_cache_behind_the_end_of_a_file(tmp_path: Path) -> None:
    data = os.urandom((9 << 20) + 123)
    (tmp_path / "file").write_bytes(data)
    memory = os.memfd_create("test")
    try:
        os.ftruncate(memory, len(data))
        slabs: list[memoryview] = []
        with host._Reader(str(tmp_path / "file"), slabs) as reader:
            direct = reader._direct
            reader.read(memory, 0, len(data))
            if on_disk(tmp_path):
                assert reader._direct == direct != reader._plain
            (slab,) = slabs
            reader.read(memory, 4096, 8192)
            assert slabs == [slab]
        assert os.pread(memory, len(data), 0) == data
    finally:
        os.close(memory)


def test_a_model_of_many_files_too(run: Run, made: Path, tmp_path: Path) -> None:
    run("saves", 2, tmp_path, max_shard_size="10MB")
    assert len(list((tmp_path / "saved").glob("*.safetensors"))) > 2
    answers = run("loads", 2, tmp_path, share="memfd", file="saved")
    assert [answer["wrong"] for answer in answers] == [[], []]


@pytest.mark.parametrize(
    ("phase", "victim"),
    [("joining", 1), ("made", 0), ("filling", 0), ("filling", 1), ("taking", 1), ("leaving", 1)],
)
def test_a_rank_that_dies_stops_nobody(run: Run, made: Path, phase: str, victim: int) -> None:
    answers = run("dies", 3, made, phase=phase, victim=victim)
    assert answers.pop(victim) is None
    assert [answer["wrong"] for answer in answers] == [[], []]
    assert max(answer["seconds"] for answer in answers) < SOON


def test_ranks_that_do_not_agree_who_lives_wait_for_nobody(run: Run, made: Path) -> None:
    answers = run("doubts", 3, made)
    assert [answer["wrong"] for answer in answers] == [[], [], []]
    assert max(answer["seconds"] for answer in answers) < SOON


@pytest.mark.parametrize("phase", ["before", "stopped"])
def test_a_rank_that_does_not_come_or_go_on_is_waited_for_so_long(run: Run, made: Path, phase: str) -> None:
    answers = run("dies", 3, made, phase=phase, timeout=2.0)
    assert answers.pop(1) is None
    assert [answer["wrong"] for answer in answers] == [[], []]
    assert all(1.5 < answer["seconds"] < 2.0 + SOON for answer in answers)


def test_those_that_are_left_load_again(run: Run, made: Path) -> None:
    answers = run("twice", 3, made)
    assert [answer and answer["wrong"] for answer in answers] == [[], [], None]
    assert max(answer["seconds"] for answer in answers[:2]) < SOON


def test_a_rank_that_stops_early_stops_nobody(run: Run, made: Path) -> None:
    assert run("stops_early", 3, made) == [{"wrong": []}] * 3


def test_for_a_rank_that_is_late_nothing_is_read_again(run: Run, made: Path) -> None:
    answers = run("late", 3, made)
    assert [answer["wrong"] for answer in answers] == [[], [], []]
    if on_disk(made):
        assert sum(answer["read"] for answer in answers) <= 1.05 * (made / "model.safetensors").stat().st_size


# Saving.


@pytest.mark.parametrize("world", [2, 4])
def test_ranks_save_the_bytes_of_save_file(run: Run, tmp_path: Path, world: int) -> None:
    run("saves", world, tmp_path, metadata={"format": "pt"})
    tensafe.torch.save_file(program.model(), tmp_path / "whole", metadata={"format": "pt"})
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "whole").read_bytes()


def test_ranks_save_shards_of_the_hub(run: Run, tmp_path: Path) -> None:
    run("saves", 2, tmp_path, max_shard_size="10MB")
    index = json.loads((tmp_path / "saved" / "model.safetensors.index.json").read_text())
    assert index["weight_map"].keys() == program.model().keys()
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in program.model().values())
    found = tensafe.open(tmp_path / "saved").to_torch()
    assert program.same(found, program.model()) == []
    (tmp_path / "one").mkdir()
    run("saves", 2, tmp_path / "one", max_shard_size="1GB")
    assert [path.name for path in (tmp_path / "one" / "saved").iterdir()] == ["model.safetensors"]


def test_dtensors_are_saved_and_loaded_again(run: Run, tmp_path: Path) -> None:
    assert run("saves_dtensors", 4, tmp_path) == [{"wrong": []}] * 4
    tensafe.torch.save_file(program.model(), tmp_path / "whole", metadata={"format": "pt"})
    assert (tmp_path / "saved").read_bytes() == (tmp_path / "whole").read_bytes()


@pytest.mark.parametrize("how", ["dies", "dies writing", "raises"])
def test_a_save_that_one_rank_fails_fails_for_all_and_leaves_nothing(
    run: Run, tmp_path: Path, how: str
) -> None:
    answers = run("save_fails", 3, tmp_path, how=how)
    told = [answer for answer in answers if answer is not None]
    assert len(told) == (3 if how == "raises" else 2)
    assert all(answer["error"] for answer in told)
    assert max(answer["seconds"] for answer in told) < 3.0 + SOON
    assert list(tmp_path.iterdir()) == []


# Others.


def test_what_dtensors_hold_is_what_placements_say(run: Run, tmp_path: Path) -> None:
    answers = run("placements", 4, tmp_path)
    assert [answer["wrong"] for answer in answers] == [[]] * 4
    assert any("_S" in kind for kind in answers[0]["kinds"])


def test_a_llama_is_cut_as_transformers_cuts_it(run: Run, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        vocab_size=131,
        hidden_size=64,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        attention_bias=True,
        tie_word_embeddings=False,
    )
    transformers.LlamaForCausalLM(config).save_pretrained(tmp_path / "llama")
    answers = run("transformers", 2, tmp_path)
    assert [answer["wrong"] for answer in answers] == [[], []]
    assert min(answer["cut"] for answer in answers) > 10


def test_the_page_is_right(tmp_path: Path) -> None:
    run_page("ranks", tmp_path, {"OMP_NUM_THREADS": "1"})
