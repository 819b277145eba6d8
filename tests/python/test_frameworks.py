"""JAX, TensorFlow, PaddlePaddle and MLX, each in an environment of its own: `pytest -k tensorflow`."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import tensafe
import tensafe.numpy


def round_trips(framework, tensors, to_numpy, tmp_path):
    module = __import__(f"tensafe.{framework}", fromlist=["_"])
    framework = {"tensorflow": "tf"}.get(framework, framework)
    kept = dict(tensors)
    module.save_file(tensors, tmp_path / "f", {"k": "v"})
    data = module.save(tensors, {"k": "v"})
    assert (tmp_path / "f").read_bytes() == data
    with pytest.raises(TypeError, match="os.PathLike"):
        module.save_file(tensors, None)
    assert all(tensors[name] is kept[name] for name in kept), "the caller's dict is not changed"
    expected = {name: to_numpy(tensor) for name, tensor in tensors.items()}
    loads = [
        module.load(data),
        module.load_file(tmp_path / "f"),
        module.load_file(tmp_path / "f", backend="pread"),
    ]
    for loaded in loads:
        assert loaded.keys() == expected.keys()
        for name, tensor in loaded.items():
            assert tensor.dtype == tensors[name].dtype, name
            assert (
                np.array_equal(to_numpy(tensor), expected[name])
                and to_numpy(tensor).shape == expected[name].shape
            )
    with tensafe.safe_open(tmp_path / "f", framework) as file:
        assert np.array_equal(to_numpy(file.get_tensor("float32")), expected["float32"])
        for index in (np.s_[1:], np.s_[:, 1:3], np.s_[1], np.s_[..., ::2], np.s_[2:1]):
            part = to_numpy(file.get_slice("float32")[index])
            wanted = expected["float32"][index]
            assert part.shape == wanted.shape and np.array_equal(part, wanted), index


def every_access_agrees(framework, to_numpy, tmp_path):
    """Tensors and parts of them by each access; they live on when file and handle are gone."""
    values = np.arange(50, dtype=np.float32).reshape(10, 5)
    arrays = {"a": values, "i": np.arange(7, dtype=np.int32), "s": np.array(2.5, np.float32)}
    for keywords in ({}, {"io": "mmap"}, {"backend": "pread"}, {"owned": True}):
        path = tmp_path / "f"
        tensafe.numpy.save_file(arrays | {"e": np.zeros((0, 4), np.float32)}, path)
        file = tensafe.safe_open(path, framework, **keywords)
        indices = [
            np.s_[2:4],
            np.s_[:, 1],
            np.s_[-1],
            np.s_[3, 2],
            np.s_[::3],
            np.s_[..., -2:],
            np.s_[-3:, ::2],
        ]
        indices += [np.s_[5:2], np.s_[10:10], np.s_[()]]
        parts = [file.get_slice("a")[index] for index in indices]
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        together = file.get_tensors()
        meta = file.get_slice("a")
        assert (meta.get_shape(), meta.get_dtype()) == ([10, 5], "F32")
        with pytest.raises(
            tensafe.UsageError, match=r"Error during slicing \[:20\] with shape \[10, 5\]: index 19"
        ):
            meta[:20]
        del file, meta
        path.unlink()
        gc.collect()
        for part, index in zip(parts, indices, strict=True):
            assert to_numpy(part).shape == values[index].shape
            assert np.array_equal(to_numpy(part), values[index]), (keywords, index)
        for name, array in arrays.items():
            for loaded in (tensors, together):
                assert to_numpy(loaded[name]).shape == array.shape
                assert np.array_equal(to_numpy(loaded[name]), array), (keywords, name)
        assert to_numpy(tensors["e"]).shape == (0, 4)


def test_jax_round_trips(tmp_path):
    jnp = pytest.importorskip("jax.numpy", exc_type=ImportError)
    names = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "float16", "bfloat16", "float32"]
    names += [
        "complex64",
        "float8_e4m3fn",
        "float8_e5m2",
        "float8_e4m3fnuz",
        "float8_e5m2fnuz",
        "float4_e2m1fn",
    ]
    tensors = {name: jnp.array([[0, 1, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1]]).astype(name) for name in names}
    tensors |= {"scalar": jnp.array(2.5), "empty": jnp.zeros((0, 3))}
    for framework in ("flax", "jax"):
        round_trips(framework, tensors, lambda t: np.asarray(t).astype(np.complex128), tmp_path)
    every_access_agrees("jax", np.asarray, tmp_path)
    with pytest.raises(tensafe.UnsupportedError, match="int4"):
        __import__("tensafe.flax", fromlist=["_"]).save({"a": jnp.zeros(4, "int4")})


def test_tensorflow_round_trips(tmp_path):
    tf = pytest.importorskip("tensorflow", exc_type=ImportError)
    values = np.arange(12).reshape(3, 4)
    names = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    names += ["float16", "bfloat16", "float32", "float64", "complex64"]
    tensors = {name: tf.cast(tf.constant(values), name) for name in names}
    tensors |= {"scalar": tf.constant(2.5), "empty": tf.zeros((0, 3))}
    for name in ("float8_e4m3fn", "float8_e5m2"):
        tensors[name] = tf.cast(tf.cast(values, "float32"), getattr(tf.dtypes.experimental, name))
    round_trips("tensorflow", tensors, lambda t: t.numpy().astype(np.complex128), tmp_path)
    every_access_agrees("tensorflow", lambda t: t.numpy(), tmp_path)
    module = __import__("tensafe.tensorflow", fromlist=["_"])
    loaded = module.load(module.save({"v": tf.Variable([1.0, 2.0])}))
    assert loaded["v"].numpy().tolist() == [1, 2]
    with pytest.raises(tensafe.UnsupportedError, match="complex128"):
        module.save({"a": tf.zeros(2, "complex128")})
    with pytest.raises(ValueError):
        module.save({"a": tf.constant("text")})
    with pytest.raises(tensafe.SafetensorError, match="not supported for framework tf"):
        tensafe.safe_open(tmp_path / "f", "tf", "cuda")


def test_paddle_round_trips(tmp_path):
    paddle = pytest.importorskip("paddle", exc_type=ImportError)
    values = paddle.arange(12).reshape([3, 4])
    names = ["bool", "int8", "uint8", "int16", "int32", "int64", "float16", "bfloat16", "float32", "float64"]
    tensors = {name: values.astype(name) for name in names}
    tensors |= {"complex64": paddle.complex(values.astype("float32"), values.astype("float32"))}
    tensors |= {name: values.astype("float32").astype(name) for name in ("float8_e4m3fn", "float8_e5m2")}
    tensors |= {"scalar": paddle.to_tensor(2.5), "empty": paddle.zeros([0, 3])}

    def to_numpy(tensor):
        if 0 in tensor.shape:
            return np.zeros(tensor.shape)
        wide = tensor if tensor.dtype == paddle.complex64 else tensor.astype("float64")
        return wide.numpy().astype(np.complex128)

    round_trips("paddle", tensors, to_numpy, tmp_path)
    module = __import__("tensafe.paddle", fromlist=["_"])
    viewed = module._view2paddle(tensafe.deserialize((tmp_path / "f").read_bytes()), "cpu")
    assert viewed.keys() == tensors.keys()
    for name, tensor in viewed.items():
        assert tensor.dtype == tensors[name].dtype and np.array_equal(
            to_numpy(tensor), to_numpy(tensors[name])
        )
    plain = {name: tensors[name] for name in ("float32", "int64", "bool")}
    again = module._np2paddle(module._paddle2np(plain))
    assert all(np.array_equal(to_numpy(again[name]), to_numpy(plain[name])) for name in plain)
    every_access_agrees("paddle", lambda t: t.numpy() if 0 not in t.shape else np.zeros(t.shape), tmp_path)
    unsigned = {f"uint{bits}": np.arange(3, dtype=f"uint{bits}") for bits in (16, 32, 64)}
    module = __import__("tensafe.paddle", fromlist=["_"])
    data = tensafe.numpy.save(unsigned)
    assert module.save(module.load(data)) == data
    with pytest.raises(tensafe.UnsupportedError, match="complex128"):
        module.save({"a": paddle.zeros([2], "complex128")})
    with pytest.raises(ValueError, match="non contiguous"):
        __import__("tensafe.paddle", fromlist=["_"]).save({"a": values.transpose([1, 0])})


def test_paddle_files_are_the_references(tmp_path):
    paddle = pytest.importorskip("paddle", exc_type=ImportError)
    theirs = pytest.importorskip("safetensors.paddle")
    ours = __import__("tensafe.paddle", fromlist=["_"])
    tensors = {
        n: paddle.arange(6).astype(n) for n in ("bool", "uint8", "int64", "float16", "bfloat16", "float32")
    }
    assert ours.save(tensors, {"k": "v"}) == theirs.save(dict(tensors), {"k": "v"})
    loaded = ours.load(theirs.save(dict(tensors)))
    assert all(loaded[n].dtype == t.dtype and bool((loaded[n] == t).all()) for n, t in tensors.items())


def test_mlx_round_trips(tmp_path):
    mx = pytest.importorskip("mlx.core", exc_type=ImportError)
    values = mx.arange(12).reshape(3, 4)
    names = ["bool_", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    names += ["float16", "bfloat16", "float32", "complex64"]
    tensors = {name: values.astype(getattr(mx, name)) for name in names}
    tensors |= {"scalar": mx.array(2.5), "empty": mx.zeros((0, 3))}

    def to_numpy(array):
        return np.asarray(array.astype(mx.complex64)).astype(np.complex128)

    round_trips("mlx", tensors, to_numpy, tmp_path)
    every_access_agrees("mlx", np.asarray, tmp_path)
