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
from vidjax.sharding import SAMPLES, axis_size

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
    """Computes softmax(scale q k^T + bias) v for every head (Vaswani et al., arXiv:1706.03762, section 3.2).

    Scores and softmax are computed in float32 for inputs of any dtype.

    Args:
      q: queries [B, N, H, D].
      k, v: keys and values [B, M, H, D]; values may have another D.
      bias: added to the scores, [b, h, N, M], where h is 1 or H and b divides B: the b patterns repeat along
        the batch, one per window or clip.
      mask: boolean [b, h, N, M] or [b, h, 1, M]; False hides a key.
      scale: factor on the scores; D ** -0.5 if None.
      backend: one of `BACKENDS`, see the module docstring.
      dropout: dropout rate of the attention weights; only "plain" implements it.
      rng: key of the dropout.

    Returns:
      [B, N, H, D of v], in the dtype of v.

    Raises:
      ValueError: `backend` is unknown, or does not implement dropout.
    """
    if backend not in BACKENDS:
        raise ValueError(f"unknown attention backend {backend!r}: use one of {', '.join(BACKENDS)}")
    if backend == "auto":
        # The fused kernels require values of the queries' width.
        special = bias is not None or mask is not None or q.shape[-1] != v.shape[-1]
        backend = attention_backend(q, k, special, dropout > 0)
    if dropout and backend != "plain":
        raise ValueError(f"attention backend {backend!r} has no dropout; use 'plain'")
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
    """Returns the attention weights [B, H, N, M], float32. Takes the arguments of `attention`."""
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
    """Runs `_plain` on equal blocks of queries in turn, recomputing each in the backward pass.

    Every block attends to all keys, so its softmax is exact.
    """
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

    shared = {}  # inputs that are the same for every query
    parts = {"q": split(q, 1)}
    for name, x in (("bias", bias), ("mask", mask)):
        if x is None or x.shape[2] == 1:
            shared[name] = x
        else:
            parts[name] = split(x, 2)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def run(parts):
        given = shared | parts
        return _plain(given["q"], k, v, given["bias"], given["mask"])

    y = jnp.moveaxis(jax.lax.map(run, parts), 0, 1)
    return y.reshape(y.shape[0], -1, *y.shape[3:])[:, :n]


def _cudnn(q, k, v, bias, mask):
    bias, mask = (None if x is None else _tile(x, q.shape[0]) for x in (bias, mask))
    return jax.nn.dot_product_attention(q, k, v, bias, mask, scale=1.0, implementation="cudnn")


def _flash(q, k, v, bias, mask):
    """Runs the Pallas kernel, under a mesh on each device's samples, heads and, if they divide, queries.

    XLA does not partition a Pallas kernel by itself.
    """
    (b, n, h, _), m = q.shape, k.shape[1]
    if mask is not None:
        hidden = jnp.where(mask, 0.0, HIDDEN_SCORE)
        bias = hidden if bias is None else bias + hidden
    if bias is not None:
        bias = jnp.broadcast_to(_tile(bias, b), (b, h, n, m))
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return _kernel(q, k, v, bias)
    samples, heads, part = (
        tuple(a for a in axes if axis_size(a) > 1) or None for axes in (SAMPLES, ("tensor",), ("context",))
    )
    part = part if n % axis_size("context") == 0 else None
    queries, keys = P(samples, part, heads), P(samples, None, heads)
    specs = (queries, keys, keys, None if bias is None else P(samples, heads, part))
    return jax.shard_map(_kernel, in_specs=specs, out_specs=queries, check_vma=False)(q, k, v, bias)


def _kernel(q, k, v, bias):
    """Runs the Pallas kernel on tokens padded to a multiple of 128; padding is another segment."""
    from jax.experimental.pallas.ops.tpu import flash_attention as pallas

    def pad_to_128(x, *axes):
        return jnp.pad(x, [(0, -x.shape[i] % 128 if i in axes else 0) for i in range(x.ndim)])

    b, n, m = q.shape[0], q.shape[1], k.shape[1]
    q, k, v = (pad_to_128(x.transpose(0, 2, 1, 3), 2) for x in (q, k, v))
    bias = None if bias is None else pad_to_128(bias, 2, 3)
    real = [jnp.arange(x.shape[2]) < size for x, size in ((q, n), (k, m))]
    segments = pallas.SegmentIds(*(jnp.tile(x[None], (b, 1)).astype(jnp.int32) for x in real))
    y = pallas.flash_attention(q, k, v, bias, segments, sm_scale=1.0)
    return y[:, :, :n].transpose(0, 2, 1, 3)


def _tile(x: jax.Array, batch: int) -> jax.Array:
    """Repeats the b patterns of `x` [b, ...] along the batch axis, unless b is 1 or `batch`."""
    return x if x.shape[0] in (1, batch) else jnp.tile(x, (batch // x.shape[0], *(1,) * (x.ndim - 1)))


_BACKENDS: dict[str, Callable] = {
    "heads": attention_by_heads,
    "blockwise": _blockwise,
    "cudnn": _cudnn,
    "flash": _flash,
}
