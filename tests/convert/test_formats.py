"""Tests of weight file readers: every format round-trips, and untrusted files cannot execute code."""

import io
import os
import pickle
import struct
import sys
from typing import ClassVar

import ml_dtypes
import numpy as np
import pytest
from flax.serialization import msgpack_serialize
from safetensors.numpy import save_file

from vidjax.checkpoint_io import save_variables
from vidjax.convert import formats
from vidjax.errors import UserError

ARRAYS = {
    "a.weight": np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32),
    "a.bias": np.arange(4, dtype=np.float64),
    "count": np.array(3, np.int64),
}


class Python2Pickler(pickle._Pickler):
    """Pickles bytes as strings, as Python 2 did."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_bytes(self, x):
        self.write(pickle.BINSTRING + struct.pack("<i", len(x)) + x)
        self.memoize(x)

    dispatch[bytes] = save_bytes


def python2_pickle(x):
    out = io.BytesIO()
    Python2Pickler(out, 2).dump(x)
    return out.getvalue().replace(b"numpy._core", b"numpy.core")


class Payload:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def write(path, arrays=ARRAYS):
    """Writes a weight file in the format given by the suffix."""
    if path.suffix == ".safetensors":
        save_file(arrays, path)
    elif path.suffix == ".msgpack":
        path.write_bytes(msgpack_serialize({"a": {"weight": arrays["a.weight"]}, "b": arrays["a.bias"]}))
    elif path.suffix == ".npz":
        np.savez(path, **arrays)
    elif path.suffix == ".pkl":
        path.write_bytes(python2_pickle({"blobs": arrays}))
    else:
        torch = pytest.importorskip("torch", reason="PyTorch writes and reads .pth")
        torch.save({"epoch": 3, "state_dict": {k: torch.tensor(v) for k, v in arrays.items()}}, path)
    return path


def assert_same(got, want):
    assert got.keys() == want.keys()
    for name, x in want.items():
        np.testing.assert_array_equal(got[name], x)
        assert got[name].dtype == x.dtype and isinstance(got[name], np.ndarray)


KINDS = ["w.safetensors", "w.npz", "w.pkl", "w.pth", "w.pyth"]


@pytest.mark.parametrize("kind", KINDS)
def test_arrays_round_trip(tmp_path, kind):
    arrays, meta = formats.read(write(tmp_path / kind))
    assert_same(arrays, ARRAYS)
    assert meta == {}


def test_nested_files_are_flattened_to_paths(tmp_path):
    arrays, _ = formats.read(write(tmp_path / "w.msgpack"))
    assert_same(arrays, {"a/weight": ARRAYS["a.weight"], "b": ARRAYS["a.bias"]})


def test_checkpoint_folder_returns_paths_and_metadata(tmp_path):
    variables = {"params": {"x": {"kernel": ARRAYS["a.weight"]}}, "batch_stats": {"bn": {"mean": np.ones(2)}}}
    save_variables(tmp_path / "ckpt", variables, {"note": 1})
    arrays, meta = formats.read(tmp_path / "ckpt")
    assert_same(arrays, {"params/x/kernel": ARRAYS["a.weight"], "batch_stats/bn/mean": np.ones(2)})
    assert meta == {"note": 1}
    with pytest.raises(UserError, match="exists"):
        save_variables(tmp_path / "ckpt", variables, {})


@pytest.mark.parametrize("wrapper", ["state_dict", "model", "model_state", "module"])
def test_wrappers_of_training_scripts_are_removed(wrapper):
    saved = {"epoch": 7, "optimizer": {"lr": 0.1}, wrapper: {f"module.{k}": x for k, x in ARRAYS.items()}}
    assert_same(formats.state_dict(saved, "x"), ARRAYS)


def test_prefix_is_kept_unless_all_names_share_it():
    mixed = {"module.a": ARRAYS["a.bias"], "b": ARRAYS["a.bias"]}
    assert formats.state_dict(mixed, "x").keys() == mixed.keys()


def test_bfloat16(tmp_path):
    want = np.arange(5, dtype=np.float32).astype(ml_dtypes.bfloat16)
    save_file({"x": want}, tmp_path / "w.safetensors")
    assert_same(formats.read(tmp_path / "w.safetensors")[0], {"x": want})


def test_bfloat16_tensors():
    torch = pytest.importorskip("torch", reason="tensors are PyTorch's")
    x = torch.arange(5, dtype=torch.bfloat16, requires_grad=True)
    assert_same(formats.state_dict({"x": x}, "x"), {"x": np.arange(5, dtype=np.float32)})


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_pickle_with_a_call_is_rejected_before_execution(tmp_path, protocol):
    trap = tmp_path / "trap"
    file = tmp_path / "w.pkl"
    file.write_bytes(pickle.dumps({"blobs": {"x": Payload(trap)}}, protocol))
    with pytest.raises(UserError, match=f"more than arrays: {os.system.__module__}.system"):
        formats.read(file)
    assert not trap.exists()
    pickle.loads(file.read_bytes())  # the payload does run in a regular unpickler
    assert trap.exists()


@pytest.mark.parametrize(
    "module, name", [("builtins", "eval"), ("numpy", "load"), ("numpy.core", "multiarray")]
)
def test_pickle_with_unknown_globals_is_rejected(tmp_path, module, name):
    (tmp_path / "w.pkl").write_bytes(f"c{module}\n{name}\n.".encode())
    with pytest.raises(UserError, match=f"more than arrays: {module}.{name}"):
        formats.read(tmp_path / "w.pkl")


@pytest.mark.parametrize("in_zip", [True, False])
def test_pth_with_a_call_is_rejected_before_execution(tmp_path, in_zip):
    torch = pytest.importorskip("torch", reason="PyTorch reads .pth")
    trap, file = tmp_path / "trap", tmp_path / "w.pth"
    torch.save({"state_dict": {"x": Payload(trap)}}, file, _use_new_zipfile_serialization=in_zip)
    with pytest.raises(UserError, match=f"more than arrays: {os.system.__module__}.system"):
        formats.read(file)
    assert not trap.exists()


@pytest.mark.parametrize("kind", [*KINDS, "w.msgpack"])
@pytest.mark.parametrize("damage", ["cut", "tail", "text", "empty"])
def test_corrupt_files_raise_a_one_line_error(tmp_path, kind, damage):
    file = write(tmp_path / kind)
    data = file.read_bytes()
    file.write_bytes(
        {"cut": data[: len(data) // 2], "tail": data[:-9], "text": b"Not found\n" * 9, "empty": b""}[damage]
    )
    with pytest.raises(UserError) as e:
        formats.read(file)
    assert str(file) in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize(
    "content, message",
    [
        ({"x": object()}, "more than arrays: x (object)"),
        ({"model": {"lr": 0.1, "name": "x"}}, "more than arrays: lr (float), name (str)"),
        ({"optimizer": {1: {2: None}}}, "more than arrays: optimizer/1/2 (NoneType)"),
        ([1, 2], "contains no mapping"),
        ({}, "contains no mapping"),
    ],
)
def test_invalid_state_dicts_are_rejected(content, message):
    with pytest.raises(UserError) as e:
        formats.state_dict(content, "the file")
    assert message in str(e.value)


def test_object_arrays_are_rejected(tmp_path):
    np.savez(tmp_path / "w.npz", x=np.array([None]))
    with pytest.raises(UserError, match="cannot read"):
        formats.read(tmp_path / "w.npz")


@pytest.mark.parametrize(
    "file, module, extra", [("w.pth", "torch", "convert"), ("w.index", "tensorflow", "tf")]
)
def test_missing_optional_dependency_names_the_extra(tmp_path, monkeypatch, file, module, extra):
    (tmp_path / file).write_bytes(b"x")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"pip install 'vidjax\[{extra}\]'"):
        formats.read(tmp_path / file)


def test_missing_files_and_unknown_formats_are_reported(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        formats.read(tmp_path / "w.npz")
    (tmp_path / "w.h5").touch()
    with pytest.raises(UserError, match=r"'\.h5'; supported are .*\.pth"):
        formats.read(tmp_path / "w.h5")


def test_tensorflow_checkpoints(tmp_path):
    tf = pytest.importorskip("tensorflow", reason="TensorFlow writes and reads its checkpoints")
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    prefix = tf.train.Checkpoint(layer=tf.Variable(x)).save(str(tmp_path / "model"))
    for path in (prefix, f"{prefix}.index"):
        arrays, _ = formats.read(path)
        np.testing.assert_array_equal(arrays["layer/.ATTRIBUTES/VARIABLE_VALUE"], x)
        assert "_CHECKPOINTABLE_OBJECT_GRAPH" not in arrays
    with open(f"{prefix}.index", "r+b") as file:
        file.truncate(20)
    with pytest.raises(UserError, match="truncated"):
        formats.read(prefix)


def test_written_files_round_trip_for_any_memory_layout(tmp_path):
    arrays = {"t": ARRAYS["a.weight"].T, "zero": ARRAYS["count"]}
    formats.write(tmp_path / "w.safetensors", arrays, {"model": "x"})
    assert_same(formats.read(tmp_path / "w.safetensors")[0], arrays)
    with pytest.raises(UserError, match="safetensors"):
        formats.write(tmp_path / "w.pth", arrays, {})
    with pytest.raises(UserError, match="cannot write"):
        formats.write(tmp_path / "no" / "w.safetensors", arrays, {})
