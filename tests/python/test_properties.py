"""Properties over random tensors and indices."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
import tensafe
import tensafe.numpy

hypothesis = pytest.importorskip("hypothesis")
from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from hypothesis.extra import numpy as hnp  # noqa: E402

DTYPES = st.sampled_from("? i1 u1 i2 u2 i4 u4 i8 u8 f2 f4 f8 c8 >i4 >f8".split()).map(np.dtype)
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=5))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    little = [x.astype(x.dtype.newbyteorder("<")) for x in (a, b)]
    return (
        a.shape == b.shape
        and little[0].dtype == little[1].dtype
        and little[0].tobytes() == little[1].tobytes()
    )


@given(
    st.dictionaries(st.text().filter(lambda n: n != "__metadata__"), ARRAYS, max_size=4),
    st.dictionaries(st.text(), st.text(), max_size=3),
)
@settings(max_examples=150, deadline=None)
def test_arrays_and_metadata_round_trip(arrays, metadata):
    try:
        data = tensafe.numpy.save(arrays, metadata)
    except UnicodeEncodeError:
        return  # Half of a surrogate pair is no text.
    loaded = tensafe.numpy.load(data)
    assert loaded.keys() == arrays.keys() and all(same(loaded[n], arrays[n]) for n in arrays)
    assert tensafe.open(data).metadata == metadata
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        tensafe.numpy.save_file(arrays, path, metadata, durable=False)
        assert path.read_bytes() == data


def items(size: int) -> st.SearchStrategy:
    bound = st.none() | st.integers(-size - 2, size)
    steps = st.none() | st.integers(1, 3)
    slices = st.builds(slice, bound, bound, steps)
    return slices | st.integers(-size, size - 1) if size else slices


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_parts_are_those_of_numpy_by_every_access(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    array = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    index = tuple(data.draw(items(size)) for size in shape[: data.draw(st.integers(0, len(shape)))])
    if data.draw(st.booleans()):
        index = (*index, ...)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        tensafe.numpy.save_file({"a": array}, path, durable=False)
        for io in ("mmap", "pread"):
            with tensafe.safe_open(path, "np", io=io) as file:
                part = file.get_slice("a")[index]
            assert part.shape == array[index].shape and np.array_equal(part, array[index])


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_torch_tensors_round_trip_to_the_bit(data):
    torch = pytest.importorskip("torch")
    import tensafe.torch

    tensors = {}
    for name in data.draw(st.lists(st.text("ab.é", max_size=4), unique=True, max_size=4)):
        dtype = data.draw(st.sampled_from(list(tensafe.torch._TYPES.values())))
        shape = data.draw(st.lists(st.integers(0, 4), max_size=3))
        count = int(np.prod(shape, dtype=np.int64)) * max(dtype.itemsize, 1)
        raw = torch.tensor(list(data.draw(st.binary(min_size=count, max_size=count))), dtype=torch.uint8)
        raw = raw.reshape(*shape, max(dtype.itemsize, 1))
        tensors[name] = (raw > 127) if dtype == torch.bool else raw.view(dtype)
    saved = tensafe.torch.save(tensors)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        tensafe.torch.save_file(tensors, path, durable=False)
        assert path.read_bytes() == saved
        loads = [
            tensafe.torch.load(saved),
            tensafe.torch.load_file(path),
            tensafe.torch.load_file(path, owned=True),
        ]
    for loaded in loads:
        assert loaded.keys() == tensors.keys()
        for name, tensor in tensors.items():
            assert (loaded[name].dtype, loaded[name].shape) == (tensor.dtype, tensor.shape)
            if tensor.numel():
                bits = (t.reshape(-1).view(torch.uint8) for t in (loaded[name], tensor))
                assert torch.equal(*bits)


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_parts_are_those_of_torch_wherever_their_bounds_are(data):
    torch = pytest.importorskip("torch")
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=6))
    array = np.arange(int(np.prod(shape)), dtype=np.int32).reshape(shape)
    bound = st.none() | st.integers(-20, 20)
    ranges = st.builds(slice, bound, bound, st.none() | st.integers(1, 4))
    index = tuple(data.draw(ranges) for _ in shape[: data.draw(st.integers(0, len(shape)))])
    place = data.draw(st.none() | st.integers(0, len(index)))
    if place is not None:
        index = (*index[:place], ..., *index[place:])
    expected = torch.from_numpy(array)[index]
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "f"
        tensafe.numpy.save_file({"a": array}, path, durable=False)
        for io in ("mmap", "pread"):
            with tensafe.safe_open(path, "pt", io=io) as file:
                part = file.get_slice("a")[index]
            assert part.shape == expected.shape and torch.equal(part, expected)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_integers_beyond_the_end_are_refused(data):
    shape = data.draw(hnp.array_shapes(min_dims=1, max_dims=3, min_side=1, max_side=4))
    dimension = data.draw(st.integers(0, len(shape) - 1))
    size = shape[dimension]
    beyond = data.draw(st.integers(size, 2**62) | st.integers(-(2**62), -size - 1))
    model = tensafe.open(tensafe.numpy.save({"a": np.zeros(shape)}))
    with pytest.raises(tensafe.UsageError):
        model["a"][(slice(None),) * dimension + (beyond,)]


@given(st.binary(max_size=400))
@settings(max_examples=300, deadline=None)
def test_any_bytes_are_a_file_or_an_error_of_ours(data):
    for lenient in (False, True):
        try:
            tensafe.numpy.load(len(data).to_bytes(8, "little") + data, lenient=lenient)
        except tensafe.SafetensorError as error:
            assert str(error)
