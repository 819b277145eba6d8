"""Exchange with the published package, both ways, to the byte."""

from __future__ import annotations

import ast
import random
from pathlib import Path

import numpy as np
import pytest
import tensafe
import tensafe.numpy as ours

reference = pytest.importorskip("safetensors")
theirs = pytest.importorskip("safetensors.numpy")

DTYPES = [dtype for dtype, _, _, _ in tensafe._tensafe.DTYPES]
BITS = {dtype: bits for dtype, bits, _, _ in tensafe._tensafe.DTYPES}
# The names that the reference's TensorSpec takes; it writes no F6.
SPEC_NAMES = {d: torch or numpy for d, _, numpy, torch in tensafe._tensafe.DTYPES if not d.startswith("F6")}


def random_set(seed: int) -> tuple[dict[str, tuple[str, list[int], np.ndarray]], dict[str, str] | None]:
    """Tensors of any dtype, with names, shapes and bytes that are hard to get right."""
    rng = random.Random(seed)
    names = ["a", "b.weight", "é", "", "x" * 200, 'quote"\\', "tab\t\n\x00", "日本語", "zz.10", "zz.9"]
    tensors = {}
    for name in rng.sample(names, rng.randrange(0, len(names))):
        dtype = rng.choice(list(SPEC_NAMES))
        shape = [rng.choice([0, 1, 2, 3, 7]) for _ in range(rng.randrange(0, 4))]
        if dtype == "F4":
            shape = [*shape, 2]
        count = int(np.prod(shape, dtype=np.int64)) if shape else 1
        data = np.frombuffer(rng.randbytes(count * BITS[dtype] // 8), np.uint8)
        tensors[name] = (dtype, shape, data)
    # More than one key is written in an order that changes with each run of the reference.
    metadata = rng.choice([None, {}, {"format": "pt"}, {'ké"y\n': "välue\x01"}])
    return tensors, metadata


def specs(module, tensors):
    """The arguments of `serialize` of a module; packed dtypes are given as frameworks count them."""
    result = {}
    for name, (dtype, shape, data) in tensors.items():
        storage = [*shape[:-1], shape[-1] // 2] if dtype == "F4" else shape
        result[name] = module.TensorSpec(
            dtype=SPEC_NAMES[dtype], shape=storage, data_ptr=data.ctypes.data, data_len=data.nbytes
        )
    return result


@pytest.mark.parametrize("seed", range(200))
def test_bytes_of_a_generated_set_are_the_references(seed, tmp_path):
    tensors, metadata = random_set(seed)
    if not tensors and metadata == {}:
        metadata = None  # The case of the test below.
    expected = bytes(reference.serialize(specs(reference, tensors), metadata))
    assert tensafe.serialize(specs(tensafe, tensors), metadata) == expected
    path = tmp_path / "file.safetensors"
    tensafe.serialize_file(specs(tensafe, tensors), path, metadata)
    assert path.read_bytes() == expected
    # And each reads what the other wrote.
    assert sorted(n for n, _ in reference.deserialize(expected)) == sorted(tensors)
    for name, row in tensafe.deserialize(expected):
        dtype, shape, data = tensors[name]
        assert (row["dtype"], row["shape"], bytes(row["data"])) == (dtype, shape, data.tobytes())


def test_empty_metadata_without_tensors_is_written_so_that_it_can_be_read():
    with pytest.raises(reference.SafetensorError):
        reference.deserialize(bytes(reference.serialize({}, {})))
    assert tensafe.serialize({}, {})[8:] == b'{"__metadata__":{}}     '
    assert tensafe.deserialize(tensafe.serialize({}, {})) == []


def test_every_dtype_is_in_the_generated_sets():
    seen = {dtype for seed in range(200) for dtype, _, _ in random_set(seed)[0].values()}
    assert seen == set(SPEC_NAMES)


def arrays():
    rng = np.random.default_rng(0)
    return (
        {
            name: rng.integers(0, 2, (3, 4)).astype(name)
            for name in ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
        }
        | {name: rng.random((2, 5)).astype(name) for name in ["float16", "float32", "float64", "complex64"]}
        | {
            "scalar": np.array(3.5),
            "empty": np.zeros((0, 3), np.float32),
        }
    )


def test_numpy_files_are_exchanged_both_ways(tmp_path):
    a, b = tmp_path / "ours", tmp_path / "theirs"
    ours.save_file(arrays(), a, {"k": "v"})
    theirs.save_file(arrays(), b, {"k": "v"})
    assert a.read_bytes() == b.read_bytes() == ours.save(arrays(), {"k": "v"})
    for loaded in (theirs.load_file(a), ours.load_file(b), ours.load(b.read_bytes())):
        assert loaded.keys() == arrays().keys()
        for name, array in arrays().items():
            assert loaded[name].dtype == array.dtype and np.array_equal(loaded[name], array)


def test_torch_files_are_exchanged_both_ways(tmp_path):
    torch = pytest.importorskip("torch")
    import safetensors.torch as theirs_torch
    import tensafe.torch as ours_torch

    tensors = {}
    for code, dtype in ours_torch._TYPES.items():
        raw = torch.randint(0, 2, (4, 16), dtype=torch.uint8)
        tensors[code] = raw.view(dtype) if dtype != torch.bool else raw.bool()
    tensors |= {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 3)}
    a, b = tmp_path / "ours", tmp_path / "theirs"
    ours_torch.save_file(tensors, a)
    theirs_torch.save_file(tensors, b)
    assert a.read_bytes() == b.read_bytes() == ours_torch.save(tensors)
    for loaded in (theirs_torch.load_file(a), ours_torch.load_file(b), ours_torch.load(b.read_bytes())):
        assert loaded.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape), name
            left, right = (t.reshape(-1).view(torch.uint8) for t in (loaded[name], tensor))
            assert torch.equal(left, right), name


def test_jax_files_are_exchanged_both_ways(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    import safetensors.flax as theirs_flax
    import tensafe.flax as ours_flax
    import tensafe.jax as ours_jax

    arrays = {
        name: jnp.ones((2, 3), dtype=name)
        for name in ["float32", "bfloat16", "float16", "int32", "bool", "complex64"]
    }
    a, b = tmp_path / "ours", tmp_path / "theirs"
    ours_flax.save_file(arrays, a)
    theirs_flax.save_file(dict(arrays), b)
    assert a.read_bytes() == b.read_bytes() == ours_jax.save(arrays)
    for loaded in (theirs_flax.load_file(a), ours_flax.load_file(b), ours_jax.load(b.read_bytes())):
        for name, array in arrays.items():
            assert loaded[name].dtype == array.dtype and jnp.array_equal(loaded[name], array)


def test_every_dtype_of_jax_is_exchanged_both_ways(tmp_path):
    jnp = pytest.importorskip("jax.numpy")
    import safetensors.flax as theirs_flax
    import tensafe.flax as ours_flax

    names = "bool int8 uint8 int16 uint16 int32 uint32 float16 bfloat16 float32 complex64 float8_e4m3fn float8_e5m2"
    names += " float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
    arrays = {name: jnp.arange(6).reshape(2, 3).astype(name) for name in names.split()}
    arrays |= {"scalar": jnp.array(2.5), "empty": jnp.zeros((0, 3)), "日本": jnp.ones(1)}
    expected = {name: np.asarray(array).tobytes() for name, array in arrays.items()}
    ours_flax.save_file(arrays, tmp_path / "ours", {"k": "v"})
    theirs_flax.save_file(dict(arrays), tmp_path / "theirs", {"k": "v"})
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()
    loaded = ours_flax.load_file(tmp_path / "theirs")
    assert {name: np.asarray(array).tobytes() for name, array in loaded.items()} == expected
    assert all(loaded[name].dtype == array.dtype for name, array in arrays.items())
    # The reference writes 8-bit floats of numpy and does not read them again (its issue 682).
    arrays = {name: array for name, array in arrays.items() if not name.startswith("float8")}
    ours_flax.save_file(arrays, tmp_path / "ours")
    loaded = theirs_flax.load_file(tmp_path / "ours")
    assert loaded.keys() == arrays.keys()
    assert all(np.asarray(loaded[name]).tobytes() == expected[name] for name in arrays)


@pytest.mark.parametrize("seed", range(20))
def test_what_torch_saves_of_a_generated_set_are_the_references_bytes(seed):
    torch = pytest.importorskip("torch")
    import safetensors.torch as theirs_torch
    import tensafe.torch as ours_torch

    generator, rng = torch.Generator().manual_seed(seed), random.Random(seed)
    tensors = {}
    for place in range(rng.randrange(12)):
        dtype = rng.choice(list(ours_torch._TYPES.values()))
        shape = [rng.choice([0, 1, 2, 5]) for _ in range(rng.randrange(3))]
        raw = torch.randint(0, 2, [*shape, max(dtype.itemsize, 1)], dtype=torch.uint8, generator=generator)
        name = rng.choice(["layer", "é", "a.b", ""]) + str(place)
        tensors[name] = raw.bool() if dtype == torch.bool else raw.view(dtype)
    metadata = rng.choice([None, {"format": "pt"}])
    assert ours_torch.save(tensors, metadata) == theirs_torch.save(tensors, metadata)


def _signatures(path: Path) -> dict[str, ast.arguments]:
    """The functions of a module, by its text: what it needs may not be installed."""
    tree = ast.parse(path.read_text())
    return {node.name: node.args for node in tree.body if isinstance(node, ast.FunctionDef)}


def _parameters(arguments: ast.arguments) -> tuple[list[tuple[str, str | None]], dict[str, str | None]]:
    """Names and defaults: of those by position in their order, and of those by name."""
    text = [None if default is None else ast.unparse(default) for default in arguments.defaults]
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    by_name = {
        argument.arg: None if default is None else ast.unparse(default)
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
    return list(zip(names, [None] * (len(names) - len(text)) + text, strict=True)), by_name


@pytest.mark.parametrize("module", ["numpy", "torch", "flax", "tensorflow", "paddle", "mlx"])
def test_signatures_begin_as_the_references(module):
    expected = _signatures(Path(reference.__file__).with_name(f"{module}.py"))
    found = _signatures(Path(tensafe.__file__).with_name(f"{module}.py"))
    if module == "torch":
        # What tells tensors that share memory is a file of its own, whose names torch.py has too.
        found |= _signatures(Path(tensafe.__file__).with_name("_sharing.py"))
    compared = 0
    for name, arguments in expected.items():
        if name not in found:
            assert name.startswith("_"), f"tensafe.{module}.{name} is missing"
            continue
        by_place, by_name = _parameters(arguments)
        our_places, our_names = _parameters(found[name])
        if name.startswith("_"):
            by_place, our_places = ([name for name, _ in places] for places in (by_place, our_places))
        assert our_places[: len(by_place)] == by_place, (module, name)
        assert by_name.items() <= our_names.items(), (module, name)
        compared += not name.startswith("_")
    assert compared >= 4


@pytest.mark.parametrize(
    "name", ["__init__", *"keys offset_keys metadata get_tensor get_tensors get_slice".split()]
)
def test_methods_of_safe_open_take_what_the_references_take(name):
    import inspect

    method = getattr(reference.safe_open, name)
    if name == "__init__":
        # The extension type says how it is called on the class.
        method = reference.safe_open
    expected = [p for p in inspect.signature(method).parameters.values() if p.name != "self"]
    ours_here = tensafe.safe_open if name == "__init__" else getattr(tensafe.safe_open, name)
    found = [p for p in inspect.signature(ours_here).parameters.values() if p.name != "self"]
    for theirs_parameter, parameter in zip(expected, found, strict=False):
        assert theirs_parameter.name == parameter.name and theirs_parameter.kind == parameter.kind
    assert len(found) >= len(expected)


def test_the_bytes_of_the_lowest_layer_are_taken_by_keyword():
    data = reference.serialize(tensor_dict={}, metadata={"k": "v"})
    assert tensafe.serialize(tensor_dict={}, metadata={"k": "v"}) == bytes(data)
    assert tensafe.deserialize(bytes=bytes(data)) == []
