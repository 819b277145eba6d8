"""TensorFlow, PaddlePaddle and MLX, each in an environment of its own: `pytest -k tensorflow`."""

from __future__ import annotations

import numpy as np
import pytest
import tensafe
import tensafe.numpy


def round_trips(framework, tensors, to_numpy, tmp_path):
    module = __import__(f"tensafe.{framework}", fromlist=["_"])
    kept = dict(tensors)
    module.save_file(tensors, tmp_path / "f", {"k": "v"})
    data = module.save(tensors, {"k": "v"})
    assert (tmp_path / "f").read_bytes() == data
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


def test_tensorflow_round_trips(tmp_path):
    tf = pytest.importorskip("tensorflow", exc_type=ImportError)
    values = np.arange(12).reshape(3, 4)
    names = ["bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"]
    names += ["float16", "bfloat16", "float32", "float64", "complex64"]
    tensors = {name: tf.cast(tf.constant(values), name) for name in names}
    tensors |= {"scalar": tf.constant(2.5), "empty": tf.zeros((0, 3))}
    round_trips("tensorflow", tensors, lambda t: t.numpy().astype(np.complex128), tmp_path)


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
    with pytest.raises(ValueError, match="non contiguous"):
        __import__("tensafe.paddle", fromlist=["_"]).save({"a": values.transpose([1, 0])})


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
