"""Schedules and optimizers against their formulas."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.config import resolve
from vidjax.errors import UserError
from vidjax.train.optim import create_optimizer, create_schedule, peak_lr


def config(*overrides):
    base = dict(epochs=10, batch=64, data=dict(name="synthetic_motion"), model=dict(name="r3d_18"))
    return resolve(base, overrides)


def test_cosine_with_warmup():
    c = config(
        "optimizer.lr=0.2", "schedule.warmup_epochs=2", "schedule.warmup_lr=0.1", "schedule.end_lr=0.01"
    )
    lr = create_schedule(c, 100, 10)
    np.testing.assert_allclose([lr(0), lr(10), lr(20)], [0.02, 0.11, 0.2], rtol=1e-6)
    half = 0.2 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * 40 / 80)))
    np.testing.assert_allclose([lr(60), lr(100)], [half, 0.002], rtol=1e-5)


def test_step_schedule_counts_epochs_from_the_start():
    c = config(
        "schedule.name=step", "schedule.milestones=(4,6)", "schedule.warmup_epochs=1", "optimizer.lr=1.0"
    )
    lr = create_schedule(c, 100, 10)
    np.testing.assert_allclose([lr(39), lr(41), lr(59), lr(61)], [1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_learning_rate_scales_with_the_batch():
    assert peak_lr(config("optimizer.lr=0.1", "optimizer.lr_batch=256")) == pytest.approx(0.025)


def test_warmup_longer_than_training_is_refused():
    with pytest.raises(UserError, match="warmup_epochs"):
        create_schedule(config("schedule.warmup_epochs=20"), 100, 10)


@pytest.mark.parametrize("name, decayed", [("sgd", 0.9 * (1 - 0.1 * 0.5)), ("adamw", 0.9 * (1 - 0.1 * 0.5))])
def test_only_kernels_decay(name, decayed):
    """With no gradient, a step multiplies kernels by 1 - lr * decay and leaves biases alone."""
    c = config(f"optimizer.name={name}", "optimizer.weight_decay=0.5", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda _: 0.1)
    params = {"kernel": jnp.full((2, 2), 0.9), "bias": jnp.full((2,), 0.9)}
    zero = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros((2,))}
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(params["kernel"] + updates["kernel"], decayed, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_clipping_bounds_the_gradient():
    c = config("optimizer.clip_norm=1.0", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda _: 1.0)
    params = {"kernel": jnp.zeros((2, 2))}
    updates, _ = tx.update({"kernel": jnp.full((2, 2), 50.0)}, tx.init(params), params)
    np.testing.assert_allclose(np.linalg.norm(updates["kernel"]), 1.0, rtol=1e-6)


def test_each_tensor_is_clipped_by_itself():
    tx = create_optimizer(config("optimizer.clip_each=1.0", "optimizer.momentum=0.0"), lambda _: 1.0)
    grads = {"large": jnp.full((2, 2), 50.0), "small": jnp.full((3,), 0.1), "none": jnp.zeros(2)}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates["large"], -0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["small"], -0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["none"], 0)


def test_rmsprop_is_that_of_tensorflow():
    c = config(
        "optimizer.name=rmsprop",
        "optimizer.b2=0.9",
        "optimizer.eps=1.0",
        "optimizer.weight_decay=0.1",
        "optimizer.momentum=0.9",
    )
    tx, w, mean, moved = create_optimizer(c, lambda _: 0.5), np.full((2, 2), 3.0), 0.0, 0.0
    state, params = tx.init({"kernel": jnp.asarray(w)}), {"kernel": jnp.asarray(w)}
    for grad in (2.0, -1.0, 0.5):
        updates, state = tx.update({"kernel": jnp.full((2, 2), grad)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        g = grad + 0.1 * w
        mean = 0.9 * mean + 0.1 * g**2
        moved = 0.9 * moved + 0.5 * g / np.sqrt(mean + 1.0)
        w = w - moved
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-5)


def test_layer_decay_counts_blocks_from_the_input():
    """Against the formula: embeddings are layer 0 and the head, whatever follows the blocks, the top."""
    leaf = jnp.ones((2, 2))
    params = {
        "patch_embed": {"kernel": leaf},
        "pos_embed": leaf,
        **{f"block{i}": {"mlp": {"fc1": {"kernel": leaf}}} for i in range(12)},
        "norm": {"scale": leaf},
        "head": {"kernel": leaf},
    }
    c = config("optimizer.layer_decay=0.75", "optimizer.trunk_lr=0.1", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda step: 1.0)
    updates, _ = tx.update(params, tx.init(params), params)
    got = {k: -float(np.ravel(next(iter(jax.tree.leaves(v))))[0]) for k, v in updates.items()}
    assert got["head"] == pytest.approx(1.0) and got["norm"] == pytest.approx(0.1)
    assert got["patch_embed"] == got["pos_embed"] == pytest.approx(0.1 * 0.75**13)
    for i in range(12):
        assert got[f"block{i}"] == pytest.approx(0.1 * 0.75 ** (12 - i))
    stacked = {"pos_embed": leaf, "blocks": {"fc1": jnp.ones((12, 3, 2))}, "head": {"kernel": leaf}}
    updates, _ = tx.update(stacked, tx.init(stacked), stacked)
    want = [-got[f"block{i}"] for i in range(12)]
    np.testing.assert_allclose(updates["blocks"]["fc1"][:, 0, 0], want, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_what_is_frozen_does_not_move_even_by_decay(name):
    c = config(f"optimizer.name={name}", "optimizer.weight_decay=0.5", "optimizer.decay_all=True")
    params = {"trunk": {"w": jnp.ones((2, 2))}, "not_trunk": {"w": jnp.ones((2, 2))}}
    tx = create_optimizer(c, lambda step: 0.1, frozen="^trunk/")
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert (updates["trunk"]["w"] == 0).all() and (updates["not_trunk"]["w"] < 0).all()
