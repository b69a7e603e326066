"""Saving and restoring checkpoints, retention, and a full disk."""

import functools
import json
import resource
import signal
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vidjax
from vidjax.checkpoint_io import find_checkpoint, load_variables, merge_variables
from vidjax.errors import UserError
from vidjax.sharding import create_mesh, state_shardings
from vidjax.train.checkpoint import Checkpointer
from vidjax.train.state import init_state

INIT = functools.partial(
    init_state,
    vidjax.create_model("slow_fusion_conv4", 3, tiny=True),
    optax.adamw(0.1),
    0,
    jax.ShapeDtypeStruct((1, 4, 16, 16, 3), jnp.float32),
)


def state_at(step, ema=True):
    state = jax.jit(lambda: INIT(ema))().replace(step=jnp.int32(step))
    return state.replace(params=jax.tree.map(lambda x: x + step, state.params))


def steps_kept(folder):
    return sorted(int(p.name) for p in (folder / "checkpoints").iterdir())


def test_restores_onto_another_mesh(tmp_path):
    saved = state_at(7)
    checkpoints = Checkpointer(tmp_path)
    checkpoints.save(saved, {"class_names": ["a", "b"]})
    checkpoints.wait()
    abstract = jax.eval_shape(lambda: INIT(True))
    shardings = state_shardings(abstract, create_mesh(1, 2, 2), [("kernel", "fsdp")])
    target = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), abstract, shardings
    )
    got, meta = Checkpointer(tmp_path).restore(target)
    chex.assert_trees_all_equal(jax.device_get(got), jax.device_get(saved))
    assert got.params["conv2"]["kernel"].sharding == shardings.params["conv2"]["kernel"]
    assert meta["class_names"] == ["a", "b"]


def test_keeps_every_nth_step_and_the_latest(tmp_path):
    checkpoints = Checkpointer(tmp_path, keep=1, keep_every=4)
    for step in (2, 4, 6, 8, 9, 10):
        checkpoints.save(state_at(step), {})
        checkpoints.wait()
    assert steps_kept(tmp_path) == [4, 8, 10]


def test_keeps_the_latest_and_the_best_across_restarts(tmp_path):
    metrics = {1: 0.5, 2: 0.9, 3: 0.2, 4: None, 5: 0.1}
    for step, metric in metrics.items():
        checkpoints = Checkpointer(tmp_path, keep=1)
        checkpoints.save(state_at(step), {}, metric)
        checkpoints.close()
    assert steps_kept(tmp_path) == [2, 5]
    assert [find_checkpoint(tmp_path, which).name for which in ("last", "best", "2")] == ["5", "2", "2"]
    with pytest.raises(UserError, match="no checkpoint of step 3 in"):
        find_checkpoint(tmp_path, "3")
    with pytest.raises(UserError, match="choose last, best or a step"):
        find_checkpoint(tmp_path, "lats")
    assert find_checkpoint(tmp_path / "checkpoints" / "5").name == "5"


@pytest.mark.parametrize("ema", [True, False])
def test_load_variables(tmp_path, ema):
    saved = state_at(3, ema)
    if ema:
        saved = saved.replace(ema=jax.tree.map(lambda x: x * 2, saved.params))
    checkpoints = Checkpointer(tmp_path)
    checkpoints.save(saved, {"note": 1})
    checkpoints.close()
    variables, meta = load_variables(tmp_path)
    chex.assert_trees_all_equal(variables, jax.device_get(saved.eval_variables))
    assert meta == {"note": 1}


def test_full_disk_keeps_the_previous_checkpoint(tmp_path):
    checkpoints = Checkpointer(tmp_path)
    checkpoints.save(state_at(1), {})
    checkpoints.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail with EFBIG, as on a full disk
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(UserError, match="the disk is full or read-only"):
            checkpoints.save(state_at(2), {})
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, old)
    again = Checkpointer(tmp_path)
    assert again.latest_step() == 1
    variables, _ = load_variables(tmp_path)
    chex.assert_trees_all_equal(variables, jax.device_get(state_at(1).eval_variables))


KILLED = """
import os, pathlib, signal, sys, threading, time
import tests.conftest  # compiles as fast as here
from tests.train.test_checkpoint import Checkpointer, state_at

folder = pathlib.Path(sys.argv[1])
checkpoints = Checkpointer(folder)
checkpoints.save(state_at(1), {})
checkpoints.wait()
rename = os.rename
os.rename = lambda old, new: time.sleep(60) if os.path.basename(new) == "2" else rename(old, new)

def kill():
    while not any(p.is_file() for p in folder.glob("checkpoints/2.*/state*/ocdbt.process_0/d/*")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGKILL)

threading.Thread(target=kill).start()
checkpoints.save(state_at(2), {}, metric=1.0)
checkpoints.wait()
"""


def test_checkpoint_is_ignored_if_the_process_was_killed_while_writing_it(tmp_path):
    """The process is killed when the first arrays are on disk; the final rename is held back until then."""
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], stderr=subprocess.PIPE, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    folder = tmp_path / "checkpoints"
    (partial,) = (path for path in folder.iterdir() if path.name != "1")
    assert partial.name.startswith("2.") and any(p.is_file() for p in partial.rglob("ocdbt.process_0/d/*"))
    assert find_checkpoint(tmp_path).name == "1"
    with pytest.raises(UserError, match="no checkpoint of step 2"):
        find_checkpoint(tmp_path, "2")
    checkpoints = Checkpointer(tmp_path)
    state, _ = checkpoints.restore(jax.eval_shape(lambda: INIT(True)))
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(state_at(1)))
    checkpoints.save(state_at(2), {})
    checkpoints.close()
    assert [path.name for path in folder.iterdir()] == ["2"]


def test_missing_and_corrupt_checkpoints_are_reported(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        find_checkpoint(tmp_path / "nowhere")
    with pytest.raises(UserError, match="no checkpoint in"):
        find_checkpoint(tmp_path)
    checkpoints = Checkpointer(tmp_path)
    checkpoints.save(state_at(1), {})
    checkpoints.close()
    (tmp_path / "checkpoints" / "1" / "meta" / "metadata").write_text("{")
    with pytest.raises(UserError, match="cannot read"):
        load_variables(tmp_path)


def test_merge_lists_every_difference_at_once():
    fresh = {"params": {"a": jnp.zeros((2,)), "b": jnp.zeros((3,)), "head": jnp.zeros((4,))}}
    loaded = {"params": {"a": np.ones((2,)), "b": np.ones((5,)), "old": np.ones((1,))}}
    with pytest.raises(UserError) as e:
        merge_variables(fresh, loaded, (), "x")
    assert all(f"params/{k}" in str(e.value) for k in ("b", "old", "head")) and "params/a" not in str(e.value)
    merged = merge_variables(fresh, loaded, ("head", "/b", "old"), "x")
    assert json.dumps(jax.tree.map(lambda x: x.tolist(), merged)) == json.dumps(
        {"params": {"a": [1.0, 1.0], "b": [0.0] * 3, "head": [0.0] * 4}}
    )
