"""The diagnosis of a non-finite loss repeats exactly the step that failed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.config import resolve
from vidjax.train.diagnose import _replay, explain_nonfinite
from vidjax.train.experiment import build, initial_state

CONFIG = dict(
    batch=8,
    steps=4,
    data=dict(
        name="synthetic_motion",
        options=dict(size=32, frames=8, train=24, val=12, test=12),
        frames=4,
        stride=1.0,
        size=16,
        short_side=16,
    ),
    model=dict(name="slow_fusion_conv4", tiny=True),
    task=dict(name="classification", mixup=0.8),
    optimizer=dict(lr=0.1),
)
VIT = ["model.name=vivit_b_16x2", "data.frames=8", "data.size=32"]
ARGUMENTS = {
    "plain": ["model.options.dropout=0.5"],
    "accumulation": ["model.options.dropout=0.5", "parallel.accumulation=2"],
    "frozen BatchNorm": ["model.freeze_bn=True", "parallel.accumulation=2"],
    "pmap": ["model.options.dropout=0.5", "parallel.mode=pmap", "parallel.accumulation=2"],
}


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


def setup(overrides):
    config = resolve(CONFIG, overrides)
    exp = build(config)
    rng = np.random.default_rng(0)
    shape = (8, config.data.frames, config.data.size, config.data.size, 3)
    batch = {
        "inputs": {"rgb": rng.integers(0, 256, shape, np.uint8)},
        "targets": {"label": rng.integers(0, 3, 8).astype(np.int32)},
    }
    batch = jax.tree.map(lambda x: jax.device_put(x, exp.runner.batch_sharding), batch)
    return exp, initial_state(exp).replace(step=jnp.int32(3)), batch


@pytest.mark.parametrize("overrides", ARGUMENTS.values(), ids=ARGUMENTS)
def test_replay_reproduces_the_loss(overrides):
    """The loss agrees, so random keys, accumulation and BatchNorm statistics are the same."""
    exp, state, batch = setup(overrides)
    _, _, grads, replayed = _replay(exp, jax.tree.map(jnp.copy, state), batch)
    assert all(jax.tree.leaves(grads))
    _, metrics = exp.runner.step(exp.runner.place(state), batch)
    for key, value in replayed.items():
        np.testing.assert_allclose(value, metrics[key], rtol=1e-6, err_msg=key)


def test_nonfinite_statistics_are_located():
    exp, state, batch = setup(ARGUMENTS["frozen BatchNorm"])
    stats = state.model_state["batch_stats"]
    stats["bn2"]["var"] *= jnp.nan
    assert explain_nonfinite(exp, state, batch) == "loss is not finite; the first non-finite layer is bn2"


@pytest.mark.parametrize("scan", [False, True])
def test_nonfinite_blocks_are_located_with_and_without_scan(scan):
    exp, state, batch = setup([*VIT, f"model.options.scan={scan}", "parallel.accumulation=2"])
    block = state.params["blocks" if scan else "block1"]
    block["norm2"]["scale"] *= 1e30
    block["mlp"]["fc1"]["kernel"] *= 1e30
    line = explain_nonfinite(exp, state, batch)
    assert line.endswith("value is the input of norm" if scan else "layer is block1/mlp/fc1"), line
