"""Multi-head attention behind one function, with a backend per platform.

Backends, all with the same result:
- "plain": the full map of scores at once, by XLA.
- "heads": one head of one sample at a time, for the CPU; see `vidjax.layers.cpu.attention`.
- "blockwise": all heads at once in blocks of queries, each recomputed in the backward pass, so that memory is
  linear in the number of tokens for the gradient as well.
- "cudnn": cuDNN's fused kernel (GPU; float16 or bfloat16).
- "flash": the fused Pallas kernel for TPU.
- "auto": selected from platform and shape, see `vidjax.layers.lowering.attention_backend`.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from vidjax.layers.cpu.attention import attention_by_heads
from vidjax.layers.lowering import attention_backend
from vidjax.layers.native import HIDDEN_SCORE, masked_scores

BACKENDS = ("auto", "plain", "heads", "blockwise", "cudnn", "flash")
BLOCK = 256  # queries per block of "blockwise"


def attention(
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
    backend: str = "auto",
    dropout: float = 0.0,
    rng: jax.Array | None = None,
) -> jax.Array:
    """softmax(scale q k^T + bias) v, over heads (Vaswani et al., arXiv:1706.03762, section 3.2).

    Scores and softmax are float32 whatever the inputs are.

    Args:
      q: [B, N, H, D].
      k, v: [B, M, H, D]; v may have another D.
      bias: added to the scores, [b, h, N, M] with h of 1 or H, and b a divisor of B: windows or clips in the
        batch repeat the b patterns in turn.
      mask: of the same shape or [b, h, 1, M]; False hides a key.
      scale: D ** -0.5 where None.
      backend: see the module.
      dropout: rate at which weights are dropped, with the key `rng`; "plain" alone has it.

    Returns:
      [B, N, H, D of v], of the dtype of v.

    Raises:
      ValueError: an unknown backend, or dropout under another than "plain".
    """
    if backend not in BACKENDS:
        raise ValueError(f"attention backend {backend!r}: one of {', '.join(BACKENDS)}")
    if backend == "auto":
        # The fused kernels take values of the queries' size alone.
        special = bias is not None or mask is not None or q.shape[-1] != v.shape[-1]
        backend = attention_backend(q, k, special, dropout > 0)
    if dropout and backend != "plain":
        raise ValueError(f"attention backend {backend!r} has no dropout, only 'plain' has")
    q = q * (q.shape[-1] ** -0.5 if scale is None else scale)
    if backend == "plain":
        return _plain(q, k, v, bias, mask, dropout, rng)
    return _BACKENDS[backend](q, k, v, bias, mask)


def attention_weights(
    q: jax.Array,
    k: jax.Array,
    *,
    bias: jax.Array | None = None,
    mask: jax.Array | None = None,
    scale: float | None = None,
) -> jax.Array:
    """The weights [B, H, N, M], float32, that `attention` averages the values with; its arguments."""
    return _weights(q * (q.shape[-1] ** -0.5 if scale is None else scale), k, bias, mask)


def _weights(q, k, bias, mask):
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
    bias, mask = (None if x is None else _tile(x, q.shape[0]) for x in (bias, mask))
    return jax.nn.softmax(masked_scores(scores, bias, mask))


def _plain(q, k, v, bias, mask, dropout=0.0, rng=None):
    weights = _weights(q, k, bias, mask)
    if dropout:
        weights *= jax.random.bernoulli(rng, 1 - dropout, weights.shape) / (1 - dropout)
    y = jnp.einsum("bhnm,bmhd->bnhd", weights.astype(v.dtype), v, preferred_element_type=jnp.float32)
    return y.astype(v.dtype)


def _blockwise(q, k, v, bias, mask):
    """`_plain` on equal blocks of queries, one after the other, recomputed in the backward pass. Each sees
    every key, so its softmax is exact as it stands."""
    n = q.shape[1]
    count = -(-n // BLOCK)
    if count == 1:
        return jax.checkpoint(_plain)(q, k, v, bias, mask)
    size = -(-n // count)

    def split(x, axis):  # [..., N, ...] -> [count, ..., size, ...]
        pad = [(0, 0)] * x.ndim
        pad[axis] = (0, count * size - n)
        x = jnp.pad(x, pad).reshape(*x.shape[:axis], count, size, *x.shape[axis + 1 :])
        return jnp.moveaxis(x, axis, 0)

    whole = {}  # what is the same for every query
    parts = {"q": split(q, 1)}
    for name, x in (("bias", bias), ("mask", mask)):
        if x is None or x.shape[2] == 1:
            whole[name] = x
        else:
            parts[name] = split(x, 2)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def run(parts):
        given = whole | parts
        return _plain(given["q"], k, v, given["bias"], given["mask"])

    y = jnp.moveaxis(jax.lax.map(run, parts), 0, 1)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :n]


def _cudnn(q, k, v, bias, mask):
    bias, mask = (None if x is None else _tile(x, q.shape[0]) for x in (bias, mask))
    return jax.nn.dot_product_attention(q, k, v, bias, mask, scale=1.0, implementation="cudnn")


def _flash(q, k, v, bias, mask):
    """The compiler cannot split a kernel over devices: under a mesh each takes its samples and its heads."""
    (b, n, h, _), m = q.shape, k.shape[1]
    if mask is not None:
        hidden = jnp.where(mask, 0.0, HIDDEN_SCORE)
        bias = hidden if bias is None else bias + hidden
    if bias is not None:
        bias = jnp.broadcast_to(_tile(bias, b), (b, h, n, m))
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _kernel(q, k, v, bias)
    samples, heads = (
        tuple(a for a in axes if a in mesh.axis_names and mesh.shape[a] > 1)
        for axes in (("data", "fsdp"), ("tensor",))
    )
    tokens = P(samples or None, None, heads or None)
    specs = (tokens, tokens, tokens, None if bias is None else P(samples or None, heads or None))
    return jax.shard_map(_kernel, in_specs=specs, out_specs=tokens, check_vma=False)(q, k, v, bias)


def _kernel(q, k, v, bias):
    """The Pallas kernel, on multiples of 128 tokens; those that fill up are of another segment."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    def fill(x, *axes):
        return jnp.pad(x, [(0, -x.shape[i] % 128 if i in axes else 0) for i in range(x.ndim)])

    b, n, m = q.shape[0], q.shape[1], k.shape[1]
    q, k, v = (fill(x.transpose(0, 2, 1, 3), 2) for x in (q, k, v))
    bias = None if bias is None else fill(bias, 2, 3)
    real = [jnp.arange(x.shape[2]) < size for x, size in ((q, n), (k, m))]
    segments = pallas.SegmentIds(*(jnp.tile(x[None], (b, 1)).astype(jnp.int32) for x in real))
    y = pallas.flash_attention(q, k, v, bias, segments, sm_scale=1.0)
    return y[:, :, :n].transpose(0, 2, 1, 3)


def _tile(x: jax.Array, batch: int) -> jax.Array:
    """[b, ...] -> [1 or batch, ...], the b patterns in turn."""
    return x if x.shape[0] in (1, batch) else jnp.tile(x, (batch // x.shape[0], *(1,) * (x.ndim - 1)))


_BACKENDS: dict[str, Callable] = {
    "heads": attention_by_heads,
    "blockwise": _blockwise,
    "cudnn": _cudnn,
    "flash": _flash,
}
