"""Mixup, cutmix and random erasing keep their books."""

import functools
import json
import math
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vidjax
from vidjax.layers.mixing import (
    ERASING_MODES,
    cutmix_box,
    erasing_boxes,
    erasing_size,
    mix,
    random_erasing,
)
from vidjax.layers.preprocess import Inputs
from vidjax.sharding import JitRunner, create_mesh, state_shardings
from vidjax.tasks import create_task
from vidjax.train.state import init_state
from vidjax.train.step import make_train_step

TIMM = json.loads((pathlib.Path(__file__).parents[1] / "golden" / "erasing.json").read_text())
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
    out = np.asarray(random_erasing(jax.random.PRNGKey(0), video, 0.5))
    erased = out != 7.0
    assert 15 < erased.any((1, 2, 3, 4)).sum() < 49
    assert (erased == erased[:, :1, :, :, :1]).all()
    boxes = erased[:, 0, :, :, 0]
    assert (boxes.sum((1, 2)) == boxes.any(2).sum(1) * boxes.any(1).sum(1)).all()
    assert boxes.mean((1, 2)).max() < 0.4
    assert abs(out[erased].mean()) < 0.05 and abs(out[erased].std() - 1) < 0.05
    assert (random_erasing(jax.random.PRNGKey(0), video, 0.0) == video).all()


@pytest.mark.parametrize("per_frame", [False, True])
@pytest.mark.parametrize("mode", ERASING_MODES)
def test_erasing_modes(mode, per_frame):
    video = jnp.full((32, 4, H, W, 3), 7.0)
    out = np.asarray(random_erasing(jax.random.PRNGKey(1), video, 0.9, mode, per_frame=per_frame))
    erased = (out != 7.0)[..., 0]
    assert (erased == erased[:, :1]).all() != per_frame
    assert 0.6 < erased.any((2, 3)).mean() < 1
    colors = [
        {tuple(c) for c in image[mask]}
        for image, mask in zip(out.reshape(-1, H, W, 3), erased.reshape(-1, H, W))
    ]
    counts = [len(c) for c in colors if c]
    if mode == "pixel":
        assert counts == [mask.sum() for mask in erased.reshape(-1, H, W) if mask.any()]
    else:
        assert set(counts) == {1}
        assert ({c for some in colors for c in some} == {(0.0, 0.0, 0.0)}) == (mode == "const")


@pytest.mark.parametrize("case", TIMM["erasing"], ids=lambda c: f"{c['size']}-{c['count']}")
def test_erased_boxes_are_distributed_as_in_timm(case):
    (h, w), images = case["size"], 20_000
    boxes = erasing_boxes(jax.random.PRNGKey(0), (images,), (h, w), TIMM["probability"], count=case["count"])
    top, left, height, width = (np.asarray(x).ravel() for x in boxes)
    erased = height > 0
    assert (top[erased] + height[erased]).max() <= h and (left[erased] + width[erased]).max() <= w
    assert (height < h).all() and (width < w).all() and min(top.min(), left.min()) == 0
    assert abs(erased.reshape(images, -1).any(1).mean() - case["erased"]) < 0.015
    assert abs(erased.sum() / images - case["boxes"]) < 0.025
    for name, values in zip(("top", "left", "height", "width"), (top, left, height, width)):
        got = np.quantile(values[erased], TIMM["levels"])
        np.testing.assert_allclose(got, case["quantiles"][name], atol=0.5 + 0.02 * max(h, w), err_msg=name)


def test_the_size_of_a_box_is_rounded_as_in_timm():
    rng = np.random.default_rng(0)
    area, aspect = rng.uniform(1, 2000, 500), np.exp(rng.uniform(-1.2, 1.2, 500))
    height, width = erasing_size(area.astype(np.float32), aspect.astype(np.float32))
    assert height.tolist() == [round(math.sqrt(a * r)) for a, r in zip(area, aspect)]
    assert width.tolist() == [round(math.sqrt(a / r)) for a, r in zip(area, aspect)]


def test_cutmix_boxes_equal_timm():
    for (h, w), (y, x), lam, (y1, y2, x1, x2), corrected in TIMM["cutmix"]:
        mask = np.zeros((h, w))
        mask[y1:y2, x1:x2] = 1
        centers = np.array([(y + 0.5) / h, (x + 0.5) / w])
        box = cutmix_box(centers, (h, w), np.sqrt(1 - lam))
        np.testing.assert_array_equal(box, mask)
        assert 1 - box.mean() == pytest.approx(corrected, abs=1e-6)


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
