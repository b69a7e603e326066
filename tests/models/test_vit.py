"""The image ViT and VideoMAE's classifiers, with parameters in either layout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.convert.engine import export
from vidjax.convert.load import rules_for
from vidjax.layers.stacking import laid_out_as, unstack_blocks
from vidjax.models.masked import videomae


def build(name, seed=0, **options):
    """Returns a tiny model, randomly drawn variables and an input."""
    model = vidjax.create_model(name, 7, tiny=True, **options)
    x = jax.random.normal(jax.random.key(seed), (2, *vidjax.spec(name).tiny_input_shape))
    shapes = jax.eval_shape(model.init, jax.random.key(0), x)
    rng = np.random.default_rng(seed)
    return model, jax.tree.map(lambda s: jnp.asarray(rng.normal(size=s.shape) * 0.6, s.dtype), shapes), x


def patch_order(x, order, patch):
    """The image [B, H, W, C] with its patches in another order."""
    b, h, w, c = x.shape
    y = x.reshape(b, h // patch, patch, w // patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    y = y.reshape(b, -1, patch, patch, c)[:, order]
    y = y.reshape(b, h // patch, w // patch, patch, patch, c).transpose(0, 1, 3, 2, 4, 5)
    return y.reshape(x.shape)


def test_output_is_invariant_to_permuting_patches_with_their_positions():
    model, variables, x = build("vit_b_16")
    logits, _ = model.apply(variables, x)
    order = np.random.default_rng(1).permutation(16)
    moved = patch_order(x, order, 8)
    assert jnp.abs(model.apply(variables, moved)[0] - logits).max() > 0.01
    pos = variables["params"]["pos_embed"]
    pos = jnp.concatenate([pos[:, :1], pos[:, 1:][:, order]], axis=1)
    again, _ = model.apply({"params": variables["params"] | {"pos_embed": pos}}, moved)
    np.testing.assert_allclose(again, logits, atol=1e-5)


def test_positions_are_interpolated_for_other_sizes():
    model, variables, x = build("vit_b_16")
    finer = model.clone(position_grid=(4, 4))
    np.testing.assert_array_equal(finer.apply(variables, x)[0], model.apply(variables, x)[0])
    large = jax.random.normal(jax.random.key(3), (1, 48, 56, 3))
    _, endpoints = finer.apply(variables, large)
    assert endpoints["tokens"].shape[1] == finer.token_grid((48, 56, 3)).count == 1 + 6 * 7


def test_vit_as_trunk_of_late_fusion():
    """Late fusion of a repeated frame gives the logits of that single frame."""
    options = dict(trunk="vit_s_16", trunk_options=dict(tiny=True))
    model = vidjax.create_model("late_fusion_resnet50", 5, **options)
    video = jnp.broadcast_to(jax.random.normal(jax.random.key(0), (1, 1, 32, 32, 3)), (1, 3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(1), video)
    assert "block0" in variables["params"]["trunk"]
    logits, endpoints = model.apply(variables, video)
    assert endpoints["pre_logits"].shape == (1, 16)
    np.testing.assert_allclose(logits, model.apply(variables, video[:, :1])[0], atol=1e-5)


def test_videomae_without_positions_ignores_tubelet_order(monkeypatch):
    model, variables, x = build("videomae_b")
    swapped = x[:, [2, 3, 0, 1]]
    logits, _ = model.apply(variables, x)
    assert jnp.abs(model.apply(variables, swapped)[0] - logits).max() > 1e-3
    monkeypatch.setattr(videomae, "sincos_positions", lambda n, d: np.zeros((n, d), np.float32))
    blind, _ = model.apply(variables, x)
    np.testing.assert_allclose(model.apply(variables, swapped)[0], blind, atol=1e-5)
    within = x[:, [1, 0, 3, 2]]  # the two frames of a tubelet differ
    assert jnp.abs(model.apply(variables, within)[0] - blind).max() > 1e-3


def test_videomae_head_layers_and_parameter_count():
    """Mean, norm and a linear layer with scaled initialization; parameter count for 101 classes."""
    model, variables, x = build("videomae_b")
    logits, endpoints = model.apply(variables, x)
    pooled = np.asarray(endpoints["tokens"], np.float64).mean(1)
    pooled = (pooled - pooled.mean(-1, keepdims=True)) / np.sqrt(pooled.var(-1, keepdims=True) + 1e-6)
    norm, head = variables["params"]["fc_norm"], variables["params"]["head"]
    pooled = pooled * np.asarray(norm["scale"]) + np.asarray(norm["bias"])
    np.testing.assert_allclose(endpoints["pre_logits"], pooled, atol=1e-5)
    np.testing.assert_allclose(
        logits, pooled @ np.asarray(head["kernel"]) + np.asarray(head["bias"]), atol=1e-5
    )
    kernels = [
        jax.jit(model.clone(head_scale=s).init)(jax.random.key(0), x)["params"]["head"]["kernel"]
        for s in (1.0, 0.001)
    ]
    np.testing.assert_allclose(kernels[1], kernels[0] * 0.001, rtol=1e-5)
    full = abstract_variables(vidjax.create_model("videomae_b", 101), (16, 224, 224, 3))
    assert count_params(full["params"]) == 86_304_869


@pytest.mark.parametrize("name", ["vit_s_16", "videomae_s"])
def test_scan_and_remat_keep_outputs(name):
    model, variables, x = build(name)
    other = model.clone(scan=True, remat="dots")
    given = laid_out_as(jax.eval_shape(other.init, jax.random.key(0), x), variables)

    def gradient(model, variables):
        return jax.jit(jax.value_and_grad(lambda v: (model.apply(v, x)[0] ** 2).sum()))(variables)

    want, want_grad = gradient(model, variables)
    got, grad = gradient(other, given)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(laid_out_as(variables, grad)), jax.tree.leaves(want_grad), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5 * float(jnp.abs(b).max()))


@pytest.mark.parametrize(
    "name, origins",
    [("vit_b_16", ("torchvision", "timm")), ("videomae_b", ("videomae", "transformers", "transformers_4"))],
)
def test_every_checkpoint_format_loads_into_scanned_and_unrolled_models(name, origins):
    model, variables, x = build(name)
    logits, _ = model.apply(variables, x)
    options = dict(position_grid=(4, 4)) if name == "vit_b_16" else {}
    for origin in origins:
        source = export(
            {k: np.asarray(v) for k, v in flatten_dict(variables, sep="/").items()}, rules_for(name, origin)
        )
        for scan in (False, True):
            loaded, given = vidjax.load_pretrained(name, source, tiny=True, scan=scan, **options)
            assert ("blocks" in given["params"]) == scan
            jax.tree.map(np.testing.assert_array_equal, unstack_blocks(given), variables)
    np.testing.assert_allclose(loaded.apply(given, x)[0], logits, atol=1e-5)
