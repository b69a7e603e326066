"""The classification task against numpy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.layers.mixing import mix
from vidjax.layers.preprocess import Inputs, normalize
from vidjax.tasks import create_task

INPUTS = Inputs(("rgb",), {"rgb": (0.5,) * 3}, {"rgb": (0.25,) * 3})

LOGITS = np.array([[2.0, 0.0, -1.0], [0.5, 1.0, 0.0]], np.float32)


class Fixed(nn.Module):
    """Returns LOGITS plus the mean of the input."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, video, train=False):
        return jnp.asarray(LOGITS) + video.mean(), {}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_loss_and_accuracy_match_numpy(smoothing):
    task = create_task("classification", inputs=INPUTS, class_names="abc", label_smoothing=smoothing)
    batch = {
        "inputs": {"rgb": np.full((2, 4, 8, 8, 3), 51, np.uint8)},
        "targets": {"label": np.array([0, 2], np.int32)},
    }
    loss, aux = task.loss(Fixed(), {}, {}, batch, jax.random.PRNGKey(0), True)
    log_p = LOGITS - np.log(np.exp(LOGITS).sum(-1, keepdims=True))  # a shift of all logits changes nothing
    target = np.eye(3)[[0, 2]] * (1 - smoothing) + smoothing / 3
    np.testing.assert_allclose(loss, -(target * log_p).sum(-1).mean(), rtol=1e-6)
    assert aux["metrics"]["top1"] == 0.5


def test_pixels_are_normalized_with_mean_and_std():
    video = np.stack([np.full((2, 2), v, np.uint8) for v in (0, 51, 255)], -1)
    got = normalize(jnp.asarray(video), (0.1, 0.2, 0.3), (0.5, 0.25, 0.2))[0, 0]
    np.testing.assert_allclose(got, [-0.2, 0.0, 3.5], atol=1e-6)
    grey = normalize(jnp.full((2, 2, 1), 51, jnp.uint8), (0.1, 0.2, 0.3), (0.5, 0.25, 0.15))[0, 0]
    np.testing.assert_allclose(grey, [0.0], atol=1e-6)


def test_unknown_task_is_rejected():
    with pytest.raises(UserError, match="did you mean classification"):
        create_task("clasification", inputs=INPUTS)


def test_mixing_applies_only_in_training():
    options = dict(mixup=0.8, cutmix=1.0, random_erasing=1.0)
    task = create_task("classification", inputs=INPUTS, class_names="abc", **options)
    batch = {
        "inputs": {"rgb": np.full((2, 4, 8, 8, 3), 51, np.uint8)},
        "targets": {"label": np.array([0, 2], np.int32)},
    }
    plain = create_task("classification", inputs=INPUTS, class_names="abc")
    losses = {}
    for train in (True, False):
        for seed in (0, 1):
            losses[train, seed] = float(task.loss(Fixed(), {}, {}, batch, jax.random.PRNGKey(seed), train)[0])
    want = float(plain.loss(Fixed(), {}, {}, batch, jax.random.PRNGKey(0), True)[0])
    assert losses[False, 0] == losses[False, 1] == want
    assert losses[True, 0] != losses[True, 1] and losses[True, 0] != want


class EveryFrame(nn.Module):
    """Returns frame_logits of LOGITS times 1, 2, ... per frame."""

    num_classes: int = 3

    @nn.compact
    def __call__(self, video, train=False):
        times = jnp.arange(1.0, 1 + video.shape[1]).reshape(1, -1, 1)
        return jnp.zeros((2, 3)), {"frame_logits": jnp.asarray(LOGITS)[:, None] * times}


def test_per_frame_loss_averages_over_frames():
    task = create_task("classification", inputs=INPUTS, class_names="abc", per_frame=True)
    video = np.zeros((2, 4, 8, 8, 3), np.uint8)
    logits = LOGITS[:, None] * np.arange(1, 5).reshape(1, 4, 1)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    for label in ([0, 2], [[0, 1, 0, 0], [2, 1, 1, 0]]):
        batch = {"inputs": {"rgb": video}, "targets": {"label": np.array(label, np.int32)}}
        loss, aux = task.loss(EveryFrame(), {}, {}, batch, jax.random.PRNGKey(0), True)
        each = np.broadcast_to(np.array(label).reshape(2, -1), (2, 4))
        np.testing.assert_allclose(loss, -np.take_along_axis(log_p, each[..., None], -1).mean(), rtol=1e-5)
        np.testing.assert_allclose(aux["metrics"]["top1"], (logits.argmax(-1) == each).mean())
    with pytest.raises(UserError, match="needs a model that classifies every frame"):
        task.loss(
            Fixed(),
            {},
            {},
            {"inputs": {"rgb": video}, "targets": {"label": np.array([0, 2])}},
            jax.random.PRNGKey(0),
            True,
        )


@pytest.mark.parametrize("kind", ["mixup", "cutmix"])
def test_per_frame_targets_of_mixed_clips(kind):
    """Per-frame targets are mixed with the clip's weight, for labels [B] and [B, T]."""
    task = create_task("classification", inputs=INPUTS, class_names="abc", per_frame=True, **{kind: 0.8})
    video = np.zeros((2, 4, 8, 8, 3), np.uint8)
    log_p = jax.nn.log_softmax(LOGITS[:, None] * np.arange(1, 5).reshape(1, 4, 1))
    rng = jax.random.PRNGKey(3)
    _, mixing = jax.random.split(jax.random.fold_in(rng, 1))
    for label in ([0, 2], [[0, 1, 0, 0], [2, 1, 1, 0]]):
        loss, _ = task.loss(
            EveryFrame(), {}, {}, {"inputs": {"rgb": video}, "targets": {"label": np.array(label)}}, rng, True
        )
        each = np.eye(3)[np.broadcast_to(np.array(label).reshape(2, -1), (2, 4))]
        _, share = mix(mixing, jnp.zeros(video.shape), jnp.eye(2), **{kind: 0.8})
        lam = float(share[0, 0])
        assert 0.01 < lam < 0.99
        np.testing.assert_allclose(
            loss, -((lam * each + (1 - lam) * each[::-1]) * log_p).sum(-1).mean(), rtol=1e-5
        )
