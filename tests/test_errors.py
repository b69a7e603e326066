"""Out-of-memory errors are reported in one line and distinguished from a full disk."""

import errno
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax import cli
from vidjax.config import resolve
from vidjax.errors import DiskFull, MemoryErrors, OutOfMemory
from vidjax.sharding import JitRunner
from vidjax.train import loop
from vidjax.train.checkpoint import DiskErrors

MESSAGES = {
    "RESOURCE_EXHAUSTED: Out of memory allocating 34359738368 bytes.": "cannot allocate 32.0 GiB",
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 34359738368 bytes.": "allocate 32.0 GiB",
    "RESOURCE_EXHAUSTED: Failed to allocate request for 32.00GiB (1B) on device": "cannot allocate 32.00GiB",
    "RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.5G of 15.7G hbm.": "20.5G of the",
    "RESOURCE_EXHAUSTED: something new\nand more": "RESOURCE_EXHAUSTED: something new;",
}


@pytest.mark.parametrize("text, message", MESSAGES.items())
def test_requested_memory_is_in_the_message(text, message):
    with pytest.raises(OutOfMemory) as e, MemoryErrors("do less"):
        raise jax.errors.JaxRuntimeError(text)
    assert message in str(e.value) and str(e.value).endswith("; do less") and "\n" not in str(e.value)
    assert isinstance(e.value.__cause__, jax.errors.JaxRuntimeError)


def test_too_large_arrays_raise_out_of_memory():
    with pytest.raises(OutOfMemory, match=r"the host: Unable to allocate 64\.0 TiB"), MemoryErrors():
        np.empty((1 << 46,), np.uint8)
    with pytest.raises(OutOfMemory, match=r"the device cannot allocate 65,536\.0 GiB"), MemoryErrors():
        jnp.zeros((1 << 46,), jnp.uint8)
    with pytest.raises(OutOfMemory, match="the host has no memory left"), MemoryErrors():
        raise MemoryError
    with pytest.raises(ValueError, match="RESOURCE_EXHAUSTED"), MemoryErrors():
        raise ValueError("RESOURCE_EXHAUSTED: of a library that is not the device's")


def test_full_disk_differs_from_device_out_of_memory():
    disk = DiskErrors(pathlib.Path("/runs/a"))
    for error in (
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EROFS, "Read-only file system"),
        ValueError("RESOURCE_EXHAUSTED: Error writing: [OS error 28: No space left on device]"),
    ):
        with pytest.raises(DiskFull, match="/runs/a") as e, disk:
            raise error
        assert e.value.__cause__ is error
    for text in MESSAGES:
        with pytest.raises(jax.errors.JaxRuntimeError), disk:
            raise jax.errors.JaxRuntimeError(text)


def test_training_out_of_memory_suggests_config_changes(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))

    def step(*_):
        jnp.zeros((1 << 46,), jnp.uint8)

    data = dict(name="synthetic_motion", options=dict(size=32, frames=8, train=24, val=12, test=12), size=32)
    model = dict(name="vivit_b_16x2", tiny=True)
    data |= dict(frames=8, short_side=32)
    config = resolve(dict(batch=4, steps=2, data=data, model=model))
    make = JitRunner.__init__
    monkeypatch.setattr(
        JitRunner, "__init__", lambda self, *a: (make(self, *a), setattr(self, "step", step))[0]
    )
    monkeypatch.setattr(cli.models, "run", lambda args: loop.train(config, tmp_path / "run"))
    with pytest.raises(SystemExit) as e:
        cli.main(["models"])
    *_, line = capsys.readouterr().err.splitlines()
    assert e.value.code == 2 and line.startswith("vidjax: out of memory: the device cannot allocate"), line
    assert "lower batch (4) or raise parallel.accumulation (1), or set model.options.remat=full" in line
