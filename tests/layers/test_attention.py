"""Attention backends against numpy: outputs, gradients, and memory linear in the tokens."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.analysis.macs import function_cost
from vidjax.layers import attention as module
from vidjax.layers.attention import attention, attention_weights
from vidjax.layers.cpu import attention as cpu_attention
from vidjax.layers.lowering import attention_backend, lowering_platform

CPU_BACKENDS = ("plain", "heads", "blockwise")
B, N, M, H, D = 4, 37, 29, 3, 8


def draw(*shape, seed=0, dtype=jnp.float32):
    return jax.random.normal(jax.random.key(seed), shape).astype(dtype)


def inputs(dtype=jnp.float32):
    return (
        draw(B, N, H, D, dtype=dtype),
        draw(B, M, H, D, seed=1, dtype=dtype),
        draw(B, M, H, D, seed=2, dtype=dtype),
    )


def by_hand(q, k, v, bias=None, mask=None, scale=None):
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    out = np.empty(q.shape)
    for b, h in np.ndindex(q.shape[0], q.shape[2]):
        scores = q[b, :, h] @ k[b, :, h].T * (scale or q.shape[-1] ** -0.5)
        if bias is not None:
            scores = scores + np.asarray(bias[b % bias.shape[0], h % bias.shape[1]])
        if mask is not None:
            scores = np.where(mask[b % mask.shape[0], h % mask.shape[1]], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        out[b, :, h] = weights / weights.sum(-1, keepdims=True) @ v[b, :, h]
    return out


KEEP = np.random.default_rng(0).random((2, 1, N, M)) < 0.7
EXTRAS = {
    "bare": {},
    "scale": dict(scale=0.7),
    "bias of each head": dict(bias=draw(1, H, N, M, seed=3)),
    "bias of two windows in turn, mask of the keys": dict(
        bias=draw(2, H, N, M, seed=3), mask=jnp.asarray(KEEP[:, :, :1])
    ),
    "bias of one pattern, mask of two": dict(bias=draw(1, 1, N, M, seed=3), mask=jnp.asarray(KEEP)),
}


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Shrinks the blocks so that small inputs have several, the last one padded."""
    monkeypatch.setattr(cpu_attention, "TILE", 0)
    monkeypatch.setattr(cpu_attention, "MIN_QUERIES", 16)
    monkeypatch.setattr(module, "BLOCK", 16)


@pytest.mark.parametrize("extras", EXTRAS)
@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_output_and_gradient_match_numpy_and_plain(backend, extras):
    """Float32 within 1e-6 of float64; gradients within 1e-5 (of the largest) of those of "plain"."""
    extras = EXTRAS[extras]
    q, k, v = inputs()
    got = jax.jit(lambda *a: attention(*a, backend=backend, **extras))(q, k, v)
    np.testing.assert_allclose(got, by_hand(q, k, v, **extras), atol=1e-6)

    given = {"q": q, "k": k, "v": v, **{n: x for n, x in extras.items() if n == "bias"}}
    rest = {n: x for n, x in extras.items() if n != "bias"}
    weight = draw(B, N, H, D, seed=5)

    def gradient(backend):
        loss = lambda given: (attention(**given, **rest, backend=backend) * weight).sum()  # noqa: E731
        return jax.jit(jax.grad(loss))(given)

    want = gradient("plain")
    for name, g in gradient(backend).items():
        np.testing.assert_allclose(g, want[name], atol=1e-5 * jnp.abs(want[name]).max(), err_msg=name)
        assert (g != 0).any()


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_bfloat16_error_is_bounded(backend):
    exact = by_hand(*(x.astype(jnp.float32) for x in inputs(jnp.bfloat16)))
    got = jax.jit(lambda *a: attention(*a, backend=backend))(*inputs(jnp.bfloat16))
    assert got.dtype == jnp.bfloat16
    np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=0.012 * np.abs(exact).max())
    loss = lambda q, k, v: attention(q, k, v, backend=backend).astype(jnp.float32).sum()  # noqa: E731
    half, full = (jax.jit(jax.grad(loss, (0, 1, 2)))(*inputs(t)) for t in (jnp.bfloat16, jnp.float32))
    for h, f in zip(half, full):
        np.testing.assert_allclose(h.astype(jnp.float32), f, atol=0.03 * np.abs(f).max())


def test_flash_kernel_matches_plain_in_interpret_mode():
    """One block of padded tokens, with bias and mask, forward and backward."""
    from jax.experimental.pallas import tpu

    q, k, v = (x[:1, :, :1] for x in inputs())
    extras = dict(bias=draw(1, 1, N, M, seed=3), mask=jnp.asarray(KEEP[:1]))
    loss = lambda q, b: (attention(q, k, v, backend=b, **extras) ** 2).sum()  # noqa: E731
    with tpu.force_tpu_interpret_mode():
        got = jax.value_and_grad(loss)(q, "flash")
    want = jax.value_and_grad(loss)(q, "plain")
    np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
    np.testing.assert_allclose(got[1], want[1], atol=1e-5 * jnp.abs(want[1]).max())


def test_attention_weights_reproduce_the_output():
    q, k, v = inputs()
    bias = draw(1, H, N, M, seed=3)
    weights = attention_weights(q, k, bias=bias)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-6)
    got = jnp.einsum("bhnm,bmhd->bnhd", weights, v)
    np.testing.assert_allclose(got, attention(q, k, v, bias=bias), atol=1e-6)


@pytest.mark.parametrize("backend", ["heads", "blockwise"])
def test_memory_is_linear_in_tokens_forward_and_backward(backend, monkeypatch):
    """With 3,136 tokens and 12 heads the full attention matrix takes 472 MB."""
    monkeypatch.undo()
    loss = lambda q, k, v: attention(q, k, v, backend=backend).sum()  # noqa: E731

    def used(fn, tokens):
        x = jax.ShapeDtypeStruct((1, tokens, 12, 64), jnp.float32)
        return jax.jit(fn).lower(x, x, x).compile().memory_analysis().temp_size_in_bytes

    for fn in (loss, jax.grad(loss, (0, 1, 2))):
        assert used(fn, 3136) < 4 * 12 * 3136**2 / 2
        assert used(fn, 3136) < 2.4 * used(fn, 1568)
    x = jax.ShapeDtypeStruct((1, 3136, 12, 64), jnp.float32)
    jaxpr = jax.make_jaxpr(lambda *a: jax.vjp(loss, *a)[1])(x, x, x)
    kept = sum(v.aval.size * 4 for v in jaxpr.jaxpr.outvars)
    assert kept < 10 * x.size * 4, "what the backward pass reads"


@pytest.mark.parametrize("backend", CPU_BACKENDS)
def test_macs_are_counted_for_every_backend(backend):
    x = jax.ShapeDtypeStruct((2, 32, 3, 8), jnp.float32)
    cost = function_cost(lambda q, k, v: attention(q, k, v, backend=backend), x, x, x)
    assert cost.macs == 2 * 2 * 3 * 32 * 32 * 8
    assert not cost.uncounted and not cost.loops


def test_auto_backend_by_platform_and_mesh(monkeypatch):
    q = jax.ShapeDtypeStruct((1, 1568, 12, 64), jnp.bfloat16)
    assert attention_backend(q, q, False, False) == "heads"
    assert attention_backend(q, q, False, True) == "plain"
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for platform, want in (("tpu", "flash"), ("gpu", "cudnn"), ("reference", "plain")):
        with lowering_platform(platform):
            assert attention_backend(q, q, False, False) == want
    with lowering_platform("tpu"):
        assert attention_backend(q, q, True, False) == "plain"
        monkeypatch.undo()  # four devices
        assert attention_backend(q, q, False, False) == "plain"
        mesh = jax.sharding.AbstractMesh((4, 1), ("data", "tensor"))
        with jax.sharding.use_abstract_mesh(mesh):
            assert attention_backend(q, q, False, False) == "plain", "one sample does not divide over four"
            four = jax.ShapeDtypeStruct((4, *q.shape[1:]), q.dtype)
            assert attention_backend(four, four, False, False) == "flash"
    x = jax.ShapeDtypeStruct((1, 130, 3, 8), jnp.float32)  # blocks would count their padding
    assert function_cost(attention, x, x, x).macs == 2 * 3 * 130 * 130 * 8


def test_dropout_requires_plain_and_keeps_the_mean():
    q, k, v = inputs()
    runs = [attention(q, k, jnp.ones_like(v), dropout=0.3, rng=jax.random.key(i)) for i in range(20)]
    assert abs(float(jnp.stack(runs).mean()) - 1) < 0.02
    assert not jnp.array_equal(runs[0], runs[1])
    with pytest.raises(ValueError, match="no dropout"):
        attention(q, k, v, dropout=0.3, rng=jax.random.key(0), backend="heads")
    with pytest.raises(ValueError, match="'fast'"):
        attention(q, k, v, backend="fast")
