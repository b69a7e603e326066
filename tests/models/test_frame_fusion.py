"""Fusion of frame features: image trunks, VLAD, and partial BatchNorm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.errors import UserError
from vidjax.models.frame.fusion import LateFusion, LateFusionVLAD

IMAGE = [
    n
    for n in vidjax.list_models()
    if isinstance(shape := vidjax.spec(n).input_shape, tuple) and len(shape) == 3
]
# Every kind of trunk, each with one of the two ways to look at it: by pooled features, by maps or tokens.
KINDS = {vidjax.spec(n).module: n for n in reversed(IMAGE)}
HEADS = {t: LateFusionVLAD if i % 2 else LateFusion for i, t in enumerate(sorted(KINDS.values()))}


@pytest.mark.parametrize("trunk", HEADS)
def test_any_image_model_serves_as_trunk(trunk):
    """Fusion is invariant to the order of frames; the fusion of one frame is that frame's features."""
    size = vidjax.spec(trunk).tiny_input_shape
    model = HEADS[trunk](5, trunk=trunk, trunk_options=dict(tiny=True))
    video = jax.random.normal(jax.random.key(1), (2, 3, *size))
    variables = jax.jit(model.init)(jax.random.key(0), video)
    apply = jax.jit(model.apply)
    logits, endpoints = apply(variables, video)
    assert logits.shape == (2, 5) and endpoints["frame_features"].shape[:2] == (2, 3)
    other, _ = apply(variables, video[:, ::-1])
    np.testing.assert_allclose(other, logits, atol=1e-5 * float(jnp.abs(logits).max()))
    image = vidjax.create_model(trunk, 0, tiny=True)
    below = {k: v["trunk"] for k, v in variables.items() if "trunk" in v}
    features, _ = jax.jit(image.apply)(below, video[:, 1])
    scale = float(jnp.abs(features).max())
    np.testing.assert_allclose(endpoints["frame_features"][:, 1], features, atol=1e-5 * scale)


def test_vlad_matches_numpy():
    model = LateFusionVLAD(5, trunk="resnet18", trunk_options=dict(tiny=True), clusters=4)
    video = jax.random.normal(jax.random.key(1), (2, 3, 64, 64, 3))
    variables = jax.jit(model.init)(jax.random.key(0), video)
    _, endpoints = jax.jit(model.apply)(variables, video)
    c = np.asarray(variables["params"]["vlad"]["centres"])  # [D, K]
    x = np.asarray(endpoints["stage4"]).reshape(2, 3 * 2 * 2, -1)
    x = x / np.linalg.norm(x, axis=-1, keepdims=True)
    for b in range(2):
        want = np.zeros_like(c)
        for descriptor in x[b]:
            near = np.exp(-10 * ((descriptor[:, None] - c) ** 2).sum(0))  # equation 3
            want += near / near.sum() * (descriptor[:, None] - c)
        want = want / np.linalg.norm(want, axis=0) / 2  # four parts of length one
        np.testing.assert_allclose(endpoints["pre_logits"][b], want.reshape(-1), atol=1e-5)


def test_partial_bn_requires_a_trunk_with_batch_norm():
    model = vidjax.create_model("late_fusion_resnet18", tiny=True, partial_bn=True, trunk="resnet50")
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2, 32, 32, 3)))
    without = [n for n in IMAGE if "partial_bn" not in vidjax.registry.fields(vidjax.spec(n).module)]
    for trunk in without[:1]:
        model = LateFusion(5, trunk=trunk, trunk_options=dict(tiny=True), partial_bn=True)
        with pytest.raises(UserError, match=f"BatchNorm, which {trunk} does not"):
            jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2, 32, 32, 3)))
