"""Recurrent convolutional networks: the equations by numpy, streaming, truncation, stacking."""

import jax
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.models.recurrent.recurrent_conv import ConvGRU, ConvRNN, GRURecurrentConvNet, RecurrentConvNet

LEVELS = (("stem", 3), ("pre_logits", 5))


def small(cls=GRURecurrentConvNet, frames=3, **options):
    options = dict(trunk="resnet18", trunk_options=dict(stage_sizes=(1,), width=4), levels=LEVELS) | options
    model = cls(num_classes=3, **options)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, frames, 16, 16, 3))
    return model, jax.jit(model.init)(jax.random.PRNGKey(0), x), x


def same_conv(x, kernel):
    """Cross-correlation of [B, H, W, C] with a 3x3 kernel, zeros around."""
    h, w = x.shape[1:3]
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    return sum(x[:, i : i + h, j : j + w] @ kernel[i, j] for i in range(3) for j in range(3))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("cell, reverse", [(ConvRNN, False), (ConvGRU, False), (ConvGRU, True)])
def test_cells_match_their_equations(cell, reverse):
    layer = cell(2, reverse=reverse)
    x = np.random.default_rng(0).normal(size=(2, 4, 5, 6, 3)).astype(np.float32)
    h = np.zeros((2, 5, 6, 2), np.float32)
    params = jax.jit(layer.init)(jax.random.PRNGKey(0), x, h)
    params = jax.tree.map(lambda p: 0.3 * jax.random.normal(jax.random.PRNGKey(p.size), p.shape), params)
    y, last = jax.jit(layer.apply)(params, x, h)

    p = jax.tree.map(np.asarray, params["params"])
    w, b, u = p["input"]["kernel"], p["input"]["bias"], p["recurrent"]
    for t in range(4)[:: -1 if reverse else 1]:
        i = same_conv(x[:, t], w) + b
        if cell is ConvRNN:
            h = np.tanh(i + same_conv(h, u))
        else:
            z = sigmoid(i[..., :2] + same_conv(h, u[..., :2]))
            r = sigmoid(i[..., 2:4] + same_conv(h, u[..., 2:4]))
            h = (1 - z) * h + z * np.tanh(i[..., 4:] + same_conv(r * h, u[..., 4:]))
        np.testing.assert_allclose(y[:, t], h, atol=1e-5)
    np.testing.assert_allclose(last, h, atol=1e-5)


@pytest.mark.parametrize("cls, stacked", [(RecurrentConvNet, False), (GRURecurrentConvNet, True)])
def test_stream_matches_whole_clip(cls, stacked):
    model, variables, x = small(cls, stacked=stacked)
    step = jax.jit(lambda s, f: model.apply(variables, s, f, method="step"))
    state = model.init_state(2, (16, 16, 3))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state))
    for t in range(3):
        (logits, _), state = step(state, x[:, t])
    want, _ = jax.jit(model.apply)(variables, x)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)
    _, state = step(model.init_state(2, (16, 16, 3)), x[:, :1])
    (logits, _), _ = step(state, x[:, 1:])
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


def test_bidirectional_is_symmetric_and_cannot_stream():
    """Forwards and backwards have weights of their own, swapped by reversing time; no streaming."""
    model, variables, x = small(bidirectional=True)
    _, e = jax.jit(model.apply)(variables, x)
    p = variables["params"]
    names = {name: f"{name}_backward" for name in (f"rcn_{level}" for level, _ in LEVELS)}
    swapped = {**p, **{a: p[b] for a, b in names.items()}, **{b: p[a] for a, b in names.items()}}
    _, other = jax.jit(model.apply)({**variables, "params": swapped}, x[:, ::-1])
    for name, width in LEVELS:
        a, b = e[f"rcn_{name}"], other[f"rcn_{name}"][:, ::-1]
        np.testing.assert_allclose(a[..., :width], b[..., width:], atol=1e-6)
        np.testing.assert_allclose(a[..., width:], b[..., :width], atol=1e-6)
        assert not np.allclose(a[..., :width], a[..., width:])
    # The features are the last states: the forward one at the end of the clip, the backward one at its start.
    want = np.concatenate(
        [
            e[f"rcn_{name}"][:, t, ..., part].mean((1, 2))
            for name, width in LEVELS
            for t, part in ((-1, slice(width)), (0, slice(width, None)))
        ],
        axis=-1,
    )
    np.testing.assert_allclose(e["pre_logits"], want, atol=1e-6)
    with pytest.raises(UserError, match="bidirectional"):
        model.init_state(2, (16, 16, 3))


def test_truncation_and_freezing_stop_gradients():
    model, variables, x = small(frames=4, truncate=2)

    def reach(model):
        g = jax.jit(jax.grad(lambda x: model.apply(variables, x)[0][:, 0].sum()))(x)
        return np.abs(g).max((0, 2, 3, 4))

    g = reach(model)
    assert (g[:2] == 0).all() and (g[2:] > 0).all()
    assert (reach(model.clone(truncate=None)) > 0).all()
    assert (reach(model.clone(frozen=True)) == 0).all()


def test_stacked_level_depends_on_the_level_below():
    """Of two levels, weights of the first move the second's state only where they are stacked."""
    for stacked in (False, True):
        model, variables, x = small(stacked=stacked)
        apply = jax.jit(model.apply)
        p = variables["params"]
        moved = {**variables, "params": {**p, "rcn_stem": jax.tree.map(lambda w: w + 1.0, p["rcn_stem"])}}
        a, b = (apply(v, x)[1]["rcn_pre_logits"] for v in (variables, moved))
        assert np.array_equal(a, b) != stacked


def test_logits_average_the_levels():
    model, variables, x = small()
    logits, e = jax.jit(model.apply)(variables, x)
    each = np.mean([jax.nn.softmax(e[f"logits_{name}"]) for name, _ in LEVELS], axis=0)
    np.testing.assert_allclose(jax.nn.softmax(logits), each, rtol=1e-5)
    headless = model.clone(num_classes=0)
    features, _ = jax.jit(headless.apply)(variables, x)
    np.testing.assert_allclose(features, e["pre_logits"], atol=1e-6)
    assert features.shape == (2, 3 + 5)


def test_unknown_trunk_endpoint_is_rejected():
    model, _, x = small()
    with pytest.raises(UserError, match="unknown endpoint of resnet18 'stage11'"):
        jax.eval_shape(model.clone(levels=(("stage11", 3),)).init, jax.random.PRNGKey(0), x)
