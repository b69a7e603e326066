"""Mixup, cutmix and random erasing keep their books."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vidjax
from vidjax.layers.mixing import mix, random_erasing
from vidjax.layers.preprocess import Inputs
from vidjax.sharding import JitRunner, create_mesh, state_shardings
from vidjax.tasks import create_task
from vidjax.train.state import init_state
from vidjax.train.step import make_train_step

B, T, H, W = 4, 2, 16, 24
VIDEO = jnp.arange(B, dtype=jnp.float32).reshape(B, 1, 1, 1, 1) * jnp.ones((B, T, H, W, 3))
TARGETS = jnp.eye(B)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_averages_clips_and_targets_alike(seed):
    video, targets = jax.jit(mix, static_argnums=3)(jax.random.PRNGKey(seed), VIDEO, TARGETS, 0.8)
    np.testing.assert_allclose(targets.sum(-1), 1, rtol=1e-6)
    lam = float(targets[0, 0])
    assert 0 < lam < 1
    np.testing.assert_allclose(video[0], (1 - lam) * 3.0 * np.ones((T, H, W, 3)), rtol=1e-5)
    np.testing.assert_allclose(video[3], lam * 3.0 * np.ones((T, H, W, 3)), rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_pastes_one_box_and_counts_its_pixels(seed):
    video, targets = mix(jax.random.PRNGKey(seed), VIDEO, TARGETS, cutmix=1.0)
    pasted = np.asarray(video[0] == 3.0)
    assert np.isin(video[0], (0.0, 3.0)).all() and (pasted == pasted[:1, :, :, :1]).all()
    np.testing.assert_allclose(targets[0, 3], pasted.mean(), atol=1e-6)
    rows, columns = pasted[0, :, :, 0].any(1), pasted[0, :, :, 0].any(0)
    assert pasted[0, :, :, 0].sum() == rows.sum() * columns.sum()


def test_both_take_turns_and_none_changes_nothing():
    kinds = [
        bool(np.isin(mix(jax.random.PRNGKey(s), VIDEO, TARGETS, 0.8, 1.0)[0], (0, 1, 2, 3)).all())
        for s in range(12)
    ]
    assert 0 < sum(kinds) < 12
    assert mix(jax.random.PRNGKey(0), VIDEO, TARGETS)[0] is VIDEO


def test_erasing_fills_one_box_per_clip_with_noise():
    video = jnp.full((64, T, H, W, 3), 7.0)
    erased = np.asarray(random_erasing(jax.random.PRNGKey(0), video, 0.5)) != 7.0
    assert 15 < erased.any((1, 2, 3, 4)).sum() < 49
    assert (erased == erased[:, :1, :, :, :1]).all()
    boxes = erased[:, 0, :, :, 0]
    assert (boxes.sum((1, 2)) == boxes.any(2).sum(1) * boxes.any(1).sum(1)).all()
    assert boxes.mean((1, 2)).max() < 0.45
    assert (random_erasing(jax.random.PRNGKey(0), video, 0.0) == video).all()


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_clips_are_mixed_with_their_mirror_in_the_share_of_a_device(devices):
    """One device mirrors the whole batch, as timm does; several mirror their shares of it."""
    mesh = create_mesh(data=devices, devices=jax.devices()[:devices])
    clips = jnp.arange(8, dtype=jnp.float32).reshape(8, 1, 1, 1, 1) * jnp.ones((8, T, H, W, 3))
    with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
        video, targets = mix(jax.random.PRNGKey(0), clips, jnp.eye(8), 0.8)
    n = 8 // devices
    partner = [i // n * n + n - 1 - i % n for i in range(8)]
    lam = targets[0, 0]
    np.testing.assert_allclose(
        targets, lam * jnp.eye(8) + (1 - lam) * jnp.eye(8)[jnp.array(partner)], rtol=1e-6
    )
    want = lam * np.arange(8) + (1 - lam) * np.array(partner)
    np.testing.assert_allclose(video[:, 0, 0, 0, 0], want, rtol=1e-5)


def test_a_single_clip_on_each_device_is_mixed_with_another():
    with jax.sharding.use_abstract_mesh(create_mesh().abstract_mesh):
        _, targets = mix(jax.random.PRNGKey(0), VIDEO, TARGETS, 0.8)
    assert 0 < targets[0, 0] < 1 and targets[0, 0] == targets[3, 3] == 1 - targets[0, 3]


COLLECTIVE = re.compile(r"= \(?\w+\[([\d,]*)\].* (all-to-all|all-gather|all-reduce|collective-permute)\S*\(")


@pytest.mark.parametrize("accumulation, mesh", [(1, dict(data=4)), (2, dict(data=2, fsdp=2))])
def test_no_video_moves_between_devices(accumulation, mesh):
    """The compiled step exchanges nothing of the size of a clip, whatever is mixed and erased."""
    shape = (4, 16, 16, 3)
    model = vidjax.create_model("slow_fusion_conv4", 3, tiny=True)
    inputs = Inputs(("rgb",), {"rgb": (0.5,) * 3}, {"rgb": (0.5,) * 3})
    task = create_task("classification", inputs=inputs, mixup=0.8, cutmix=1.0, random_erasing=0.5)
    tx = optax.sgd(0.1)
    state = jax.eval_shape(
        functools.partial(init_state, model, tx, 0, jax.ShapeDtypeStruct((1, *shape), jnp.float32), False)
    )
    mesh = create_mesh(**mesh)
    step = make_train_step(task.loss, model, tx, accumulation=accumulation)
    runner = JitRunner(step, mesh, state_shardings(state, mesh, ()))
    batch = {
        "inputs": {"rgb": jax.ShapeDtypeStruct((16, *shape), jnp.uint8)},
        "targets": {"label": jax.ShapeDtypeStruct((16,), int)},
    }
    text = runner.step.lower(state, batch).compile().as_text()
    moved = [[int(n) for n in found[1].split(",") if n] for found in COLLECTIVE.finditer(text)]
    assert moved  # gradients and statistics of BatchNorm
    weights = max(x.size for x in jax.tree.leaves(state.params))
    assert max(int(np.prod(dims)) for dims in moved) <= weights
    assert weights < np.prod(shape)
