"""Masked autoencoding: the loss against the reference, its inputs, and the encoder's cost."""

import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.layers.preprocess import Inputs, normalize
from vidjax.layers.transformer import patches
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD
from vidjax.tasks import create_task
from vidjax.tasks.masked_autoencoding import draw, frame_targets, tubelet_targets

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
sys.path.append(str(GOLDEN))
from weights import draw_all, draw_input, relative_error, sample  # noqa: E402

SMALL = dict(width=192, depth=3, heads=3, mlp_width=768, epsilon=1e-12)
SMALL |= dict(decoder_width=96, decoder_depth=2, decoder_heads=3)
MODELS = ("videomae_b_pretrain", "videomae_v2_b_pretrain", "mae_st_b_pretrain")


def task(**options):
    inputs = Inputs(("rgb",), {"rgb": IMAGENET_MEAN}, {"rgb": IMAGENET_STD})
    return create_task("masked_autoencoding", inputs=inputs, **options)


@pytest.mark.parametrize("encoder_norm", [False, True])
def test_loss_and_predictions_match_reference(encoder_norm):
    name = "videomae_pretrain" + ("_norm" if encoder_norm else "")
    with np.load(GOLDEN / "loss" / f"{name}.npz") as file:
        golden = dict(file)
    about = json.loads(str(golden["about"]))
    options = SMALL | dict(encoder_norm=encoder_norm, decoder_epsilon=1e-5)
    source = draw_all(about["shapes"], about["seed"])
    model, variables = vidjax.load_pretrained("videomae_s_pretrain", source, **options)
    video = draw_input(about["input_shape"], about["seed"])
    visible, masked = (
        np.stack([np.flatnonzero(row) for row in m]) for m in (~golden["mask"], golden["mask"])
    )
    weight = np.ones(masked.shape, np.float32)
    params = variables["params"]

    def loss(p):
        error, total, _ = task().clip_errors(model, p, video, visible, masked, weight)
        return error.sum() / total.sum()

    loss = jax.jit(loss)(params)
    assert abs(float(loss) / float(golden["loss"]) - 1) < 1e-5
    predicted, _ = jax.jit(model.apply, static_argnums=2)(variables, video, False, visible, masked)
    assert relative_error(sample(predicted), golden["logits"]) < 1e-5


def tiny(name, batch=2, **options):
    model = vidjax.create_model(name, tiny=True, **options)
    video = jax.random.randint(jax.random.PRNGKey(1), (batch, 4, 32, 32, 3), 0, 256).astype(jnp.uint8)
    params = jax.jit(model.init)(jax.random.PRNGKey(0), video.astype(jnp.float32))["params"]
    return model, params, video


def loss(model, params, video, seeds=(3, 4)):
    """Returns the loss of two clips, whose masks are drawn from `seeds`, and what comes with it."""
    batch = {"inputs": {"rgb": video}, "targets": {"mask_seed": jnp.array(seeds)}}
    return task().loss(model, params, {}, batch, jax.random.PRNGKey(2), True)


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_has_a_gradient_and_bfloat16_runs(name):
    model, params, video = tiny(name)
    value_and_grad = jax.value_and_grad(lambda p: loss(model, p, video), has_aux=True)
    (value, aux), grads = jax.jit(value_and_grad)(params)
    assert aux["metrics"]["loss"] == value and 0 < aux["metrics"]["feature_std"] < 2
    for path, g in jax.tree_util.tree_leaves_with_path(grads):
        assert jnp.isfinite(g).all() and (g != 0).any(), jax.tree_util.keystr(path)
    half = vidjax.create_model(name, tiny=True, dtype=jnp.bfloat16)
    rough = jax.jit(lambda p: loss(half, p, video)[0])(params)
    np.testing.assert_allclose(rough, value, rtol=0.02)


@pytest.mark.parametrize("name", MODELS)
def test_loss_ignores_visible_tokens_and_encoder_ignores_masked_ones(name):
    model, params, video = tiny(name)
    clip = video.astype(jnp.float32) / 255
    visible, decoded, weight = draw(model, jax.random.PRNGKey(3), clip.shape)
    apply = jax.jit(model.apply, static_argnums=2)
    predicted, endpoints = apply({"params": params}, clip, True, visible, decoded)
    changed = _changed(
        model, clip, decoded[:, weight[0] > 0][:, :1] if weight.min() else _hidden(decoded, weight)
    )
    again, others = apply({"params": params}, changed, True, visible, decoded)
    np.testing.assert_array_equal(again, predicted)
    np.testing.assert_array_equal(others["tokens"], endpoints["tokens"])
    # The loss of a decoded token that the encoder saw weighs nothing.
    rows = jnp.arange(2).reshape(-1, 1)
    seen = jnp.zeros((2, 32), bool).at[rows, visible].set(True)
    assert ((weight == 0) == jnp.take_along_axis(seen, decoded, 1)).all()


def _hidden(decoded, weight):
    return jnp.stack([d[w > 0][:1] for d, w in zip(decoded, weight)])


def _changed(model, clip, token):
    """Returns the clip with the pixels of one token of each sample replaced."""
    t, h, w = model.token_grid(clip.shape[1:]).shape
    out = np.array(clip)
    pt, ph, pw = model.patch
    for b, n in enumerate(np.asarray(token)[:, 0]):
        i, j, k = np.unravel_index(n, (t, h, w))
        out[b, i * pt : (i + 1) * pt, j * ph : (j + 1) * ph, k * pw : (k + 1) * pw] = 0.123
    return jnp.asarray(out)


def test_tubelet_and_frame_targets():
    video = jax.random.uniform(jax.random.PRNGKey(0), (1, 4, 8, 8, 3))
    everything = jnp.arange(2).reshape(1, -1)
    got = np.asarray(tubelet_targets(video, (2, 8, 8), everything)).reshape(2, -1, 3)
    raw = np.asarray(patches(video, (2, 8, 8))).reshape(2, -1, 3)
    want = (raw - raw.mean(1, keepdims=True)) / (raw.std(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    got = np.asarray(frame_targets(video, (2, 8, 8), everything))[0]
    raw = np.asarray(video)[0, [0, 3]].reshape(2, -1)
    want = (raw - raw.mean(1, keepdims=True)) / np.sqrt(raw.var(1, ddof=1, keepdims=True) + 1e-6)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)


def test_targets_of_one_channel_clips():
    video = jax.random.randint(jax.random.PRNGKey(0), (2, 4, 16, 16, 1), 0, 256).astype(jnp.uint8)
    model = vidjax.create_model("videomae_b_pretrain", tiny=True)
    decoded = jnp.arange(4)[None].repeat(2, 0)
    mae = task(normalize_targets=False)
    targets = mae.targets(model, normalize(video, IMAGENET_MEAN, IMAGENET_STD), decoded)
    want = patches(video / 255, model.patch).reshape(2, 8, -1)[:, :4]
    np.testing.assert_allclose(targets, want, atol=1e-6)


def test_kernel_initialization_matches_releases():
    model = vidjax.create_model("videomae_b_pretrain", tiny=True)
    params = jax.jit(model.init)(jax.random.PRNGKey(0), jnp.zeros((1, 4, 32, 32, 3)))["params"]
    for block, width in (("block0", 16), ("decoder_block0", 12)):  # uniform within sqrt(6 / (in + out))
        bound = np.abs(params[block]["attn"]["qkv"]["kernel"]).max()
        assert 0.9 < bound / np.sqrt(6 / (4 * width)) <= 1


def test_encoder_macs_scale_with_visible_tokens():
    """160 of 1,568 tokens at a ratio of 0.9: dense layers cost 160 / 1568, attention its square."""
    cost = lambda name, **o: jaxpr_cost(  # noqa: E731
        graph.trace(vidjax.create_model(name, **o), (16, 224, 224, 3)).jaxpr
    ).by_module()
    masked, whole = cost("videomae_b_pretrain"), cost("videomae_b")
    dense = 12 * 12 * 768**2
    attention = 2 * 12 * 768
    for blocks, n in ((masked, 160), (whole, 1568)):
        got = sum(v for k, v in blocks.items() if k.startswith("block"))
        assert got == n * dense + n * n * attention
    assert masked["patch_embed"] == 160 * 1536 * 768


def test_masks_depend_only_on_the_seeds_of_their_clips():
    model, params, video = tiny("videomae_b_pretrain")
    same = jnp.stack([video[0]] * 2)
    run = jax.jit(lambda video, seeds: loss(model, params, video, seeds)[0])
    both = [run(same, jnp.array(seeds)) for seeds in ((3, 3), (4, 4), (3, 4), (4, 3))]
    assert both[0] != both[1]
    np.testing.assert_allclose(both[2:], (both[0] + both[1]) / 2, rtol=1e-6)
