"""The temporal shift against a numpy loop, and its gradient against the transposed shift."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.layers.temporal_shift import temporal_shift


def by_hand(x, n_div, causal=False, past=None):
    out, fold = x.copy(), x.shape[-1] // n_div
    for b in range(x.shape[0]):
        for t in range(x.shape[1]):
            after = x[b, t + 1] if t + 1 < x.shape[1] else np.zeros_like(x[b, t])
            before = x[b, t - 1] if t else np.zeros_like(x[b, t])
            if causal:
                out[b, t, ..., :fold] = before[..., :fold]
                if t == 0 and past is not None:
                    out[b, t, ..., :fold] = past[b, 0]
            else:
                out[b, t, ..., :fold] = after[..., :fold]
                out[b, t, ..., fold : 2 * fold] = before[..., fold : 2 * fold]
    return out


@pytest.mark.parametrize("shape, n_div", [((2, 5, 3, 4, 16), 8), ((1, 1, 2, 2, 9), 4), ((3, 4, 6), 2)])
@pytest.mark.parametrize("causal", [False, True])
def test_matches_a_loop_in_numpy(shape, n_div, causal):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    np.testing.assert_array_equal(temporal_shift(x, n_div, causal=causal), by_hand(x, n_div, causal))


def test_past_frame_replaces_zero_padding():
    x = np.random.default_rng(0).normal(size=(2, 6, 3, 3, 16)).astype(np.float32)
    whole = temporal_shift(x, 8, causal=True)
    np.testing.assert_array_equal(
        temporal_shift(x[:, 4:], 8, causal=True, past=x[:, 3:4, ..., :2]), whole[:, 4:]
    )


def test_shift_is_identity_when_no_channel_moves():
    x = jnp.arange(24.0).reshape(1, 3, 8)
    np.testing.assert_array_equal(temporal_shift(x, 0), x)
    np.testing.assert_array_equal(temporal_shift(x, 9), x)


@pytest.mark.parametrize("causal", [False, True])
def test_gradient_is_the_transposed_shift(causal):
    rng = np.random.default_rng(0)
    x, dy = (rng.normal(size=(2, 4, 2, 16)).astype(np.float32) for _ in range(2))
    y, back = jax.vjp(lambda x: temporal_shift(x, 8, causal=causal), x)
    np.testing.assert_allclose((y * dy).sum(), (x * back(dy)[0]).sum(), rtol=1e-5)
    moved = np.flatnonzero((np.asarray(back(dy)[0]) != dy).any((0, 1, 2)))
    assert moved.max() < (2 if causal else 4)
