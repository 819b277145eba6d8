"""Exchange with the published package, both ways, to the byte."""

from __future__ import annotations

import random

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


def test_signatures_begin_as_the_references():
    import inspect

    torch = pytest.importorskip("torch")
    assert torch
    modules = ["numpy", "torch"] + (["flax"] if _has("jax") else [])
    compared = 0
    for module in modules:
        for name, function in vars(__import__(f"safetensors.{module}", fromlist=["_"])).items():
            if not inspect.isfunction(function) or function.__module__ != f"safetensors.{module}":
                continue
            own = getattr(__import__(f"tensafe.{module}", fromlist=["_"]), name, None)
            if own is None:
                assert name.startswith("_"), f"tensafe.{module}.{name} is missing"
                continue
            expected = list(inspect.signature(function).parameters.values())
            found = inspect.signature(own).parameters
            for place, parameter in enumerate(expected):
                if parameter.kind is parameter.KEYWORD_ONLY:
                    assert parameter.name in found, (module, name, parameter.name)
                else:
                    assert list(found)[place] == parameter.name, (module, name, parameter.name)
                assert found[parameter.name].default == parameter.default, (module, name, parameter.name)
            compared += 1
    assert compared > 20


def _has(name: str) -> bool:
    import importlib.util

    return importlib.util.find_spec(name) is not None
