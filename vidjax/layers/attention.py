"""Attention, once: one function behind which each platform runs what is fastest there.

Backends, all with the same result:
- "plain": the whole map of scores at once, by XLA.
- "heads": one head of one sample at a time, in blocks of queries that stay in the CPU's caches; on XLA's CPU
  several times faster than a map of all heads, and its memory is linear in the tokens. It has no forward-mode
  derivative.
- "blockwise": all heads at once in blocks of queries, each recomputed in the backward pass, so that memory is
  linear in the tokens for the gradient as well.
- "cudnn": the fused kernel of cuDNN (GPU; float16 or bfloat16).
- "flash": the fused Pallas kernel of the TPU.
- "auto": by platform and shape, see `choose`.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

BACKENDS = ("auto", "plain", "heads", "blockwise", "cudnn", "flash")
BLOCK = 256  # queries at a time of "blockwise"
LONG = 2048 * 2048  # scores of one head from which a map of all heads costs more memory than it saves time
TILE = 5 << 18  # scores of a block of "heads", half as many in its backward pass: measured
SMALLEST = 64  # queries of a block of "heads"
FEW = 64 * 64  # scores of one head that do not repay a turn of a loop
_HIDDEN = 0.5 * float(jnp.finfo(jnp.float32).min)  # the score of a hidden key

# `with forced_platform("tpu"):` makes "auto" choose as on that platform; any name but "cpu", "gpu" and "tpu"
# chooses "plain". A context that jit's caches know of, so nothing traced outside is reused.
forced_platform = jax.make_user_context(None)


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
        backend = choose(q, k, special, dropout > 0)
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


def choose(q: jax.Array, k: jax.Array, biased: bool, dropped: bool) -> str:
    """The backend of "auto". On the CPU from measurement, forward and backward together; on GPU and TPU the
    fused kernels where they apply (that of the TPU over several chips needs the mesh, `jax.sharding.set_mesh`
    or `use_abstract_mesh`), and blocks where the map of scores would fill the memory."""
    platform = forced_platform.value or jax.default_backend()
    scores = q.shape[1] * k.shape[1]
    if dropped or platform not in ("cpu", "gpu", "tpu"):
        return "plain"
    if platform == "cpu":
        return "heads" if scores >= FEW else "plain"
    half = q.dtype in (jnp.float16, jnp.bfloat16)
    if platform == "gpu" and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and not biased:
        return "cudnn"
    if platform == "tpu" and scores >= 1024 * 1024 and not biased and _splits(q):
        return "flash"
    return "blockwise" if scores >= LONG else "plain"


def _splits(q) -> bool:
    """Whether samples and heads can be dealt out over the mesh at hand: a kernel is not split by itself."""
    mesh = jax.sharding.get_abstract_mesh()
    size = lambda *axes: math.prod(mesh.shape.get(a, 1) for a in axes)  # noqa: E731
    if mesh.empty:
        return jax.device_count() == 1
    return q.shape[0] % size("data", "fsdp") == 0 and q.shape[2] % size("tensor") == 0


def _weights(q, k, bias, mask):
    scores = jnp.einsum("bnhd,bmhd->bhnm", q, k, preferred_element_type=jnp.float32)
    bias, mask = (None if x is None else _tile(x, q.shape[0]) for x in (bias, mask))
    return jax.nn.softmax(_biased(scores, bias, mask))


def _biased(scores, bias, mask):
    if bias is not None:
        scores += bias.astype(jnp.float32)
    return scores if mask is None else jnp.where(mask, scores, _HIDDEN)


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


def _heads(q, k, v, bias, mask):
    """A few heads of a few samples at a time, as many as make a block. The loops run over heads, over the
    patterns of bias and mask, and over the samples of a pattern, so that each bias is sliced (and its
    gradient summed) where it is used."""
    b, n, h, _ = q.shape
    patterns = max([x.shape[0] for x in (bias, mask) if x is not None], default=1)
    sizes = (h, patterns, b // patterns)

    def sides(x):
        """[B, N, H, D] -> [H, patterns, B / patterns, N, D]"""
        x = x.transpose(2, 0, 1, 3).reshape(h, b // patterns, patterns, x.shape[1], x.shape[3])
        return x.swapaxes(1, 2)

    arrays = {name: sides(x) for name, x in (("q", q), ("k", k), ("v", v))}
    for name, x in (("bias", bias), ("mask", mask)):
        if x is not None:  # [b, h, N, M] -> [h, b, 1, N, M]
            arrays[name] = x.swapaxes(0, 1)[:, :, None]
    many = {  # which loops an array takes part in
        name: (True, True, True) if name in "qkv" else (x.shape[0] > 1, x.shape[1] > 1, False)
        for name, x in arrays.items()
    }

    def loop(depth: int, given):
        if depth == 3:
            return _head(*(given.get(name) for name in ("q", "k", "v", "bias", "mask")))
        size = sizes[depth]
        if size == 1:  # no axis of one: XLA's CPU is several times slower beside them
            return loop(depth + 1, {name: x[0] for name, x in given.items()})[None]
        fixed = {name: x[0] for name, x in given.items() if not many[name][depth]}
        turning = {name: x for name, x in given.items() if many[name][depth]}
        # One by one where they share a bias, whose gradient is their sum: XLA's CPU is slow to sum maps.
        room = 1 if "bias" in fixed else TILE // 2 // (n * k.shape[1] * math.prod(sizes[depth + 1 :]))
        together = max(d for d in range(1, size + 1) if size % d == 0 and d <= max(1, room))
        run = lambda part: loop(depth + 1, fixed | part)  # noqa: E731
        if together == size:
            return jax.vmap(run)(turning)
        return jax.lax.map(run, turning, batch_size=together if together > 1 else None)

    y = loop(0, arrays)  # [H, patterns, B / patterns, N, D]
    return y.swapaxes(1, 2).reshape(h, b, n, -1).transpose(1, 2, 0, 3)


@jax.custom_vjp
def _head(q, k, v, bias, mask):
    """softmax(q k^T + bias) v of [N, D], [M, D] and [M, D of v], in blocks of queries.

    The backward pass computes the weights again, from two numbers of each query, and gets by without the sum
    of weights times their gradients: it is that of the result times its own (Dao et al., arXiv:2205.14135,
    appendix B.2). XLA's sums over products of maps took a third of its time."""
    return _head_forward(q, k, v, bias, mask)[0]


def _head_forward(q, k, v, bias, mask):
    def block(_, q, bias, mask):
        scores = _biased(_dot(q, k.T), bias, mask)
        top = scores.max(1, keepdims=True)
        weights = jnp.exp(scores - top)
        share = 1 / weights.sum(1, keepdims=True)
        return None, ((_dot(weights.astype(v.dtype), v) * share).astype(v.dtype), top, share)

    _, (y, top, share) = _by_blocks(block, None, TILE // k.shape[0], q, bias, mask)
    return y, (q, k, v, bias, mask, y, top, share)


def _head_backward(kept, dy):
    q, k, v, bias, mask, y, top, share = kept
    # XLA's products with maps are faster where these are [M, N]; beside a bias that costs its transposition.
    across = bias is None and mask is None
    turn = jnp.transpose if across else lambda x: x

    def maps(a, b):
        return _dot(b, a.T) if across else _dot(a, b.T)

    def block(sums, q, bias, mask, y, top, share, dy):
        dk, dv = sums
        scores = _biased(maps(q, k), bias, mask)
        weights = jnp.exp(scores - turn(top))
        dy = dy.astype(jnp.float32) * share
        delta = (dy * y).sum(1, keepdims=True)
        dy = dy.astype(v.dtype)
        dscores = weights * (maps(dy, v) - turn(delta))
        if mask is not None:
            dscores = jnp.where(mask, dscores, 0)
        dbias = None if bias is None else dscores.astype(bias.dtype)
        weights, dscores = turn(weights).astype(v.dtype), turn(dscores).astype(q.dtype)
        return (dk + _dot(dscores.T, q), dv + _dot(weights.T, dy)), (_dot(dscores, k), dbias)

    sums = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    rows = (q, bias, mask, y, top, share, dy)
    (dk, dv), (dq, dbias) = _by_blocks(block, sums, TILE // 2 // k.shape[0], *rows)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), dbias, None


_head.defvjp(_head_forward, _head_backward)


def _by_blocks(fn, carry, size, *arrays):
    """`fn(carry, *blocks) -> carry, outputs` over equal blocks, of about `size` rows, of all arrays that have
    as many rows as the first; others, and None, go to each call as they are. Outputs are put together."""
    n = arrays[0].shape[0]
    count = -(-n // max(SMALLEST, size))
    if count == 1:
        return fn(carry, *arrays)
    size = -(-n // count)
    split = [x is not None and x.shape[0] == n for x in arrays]
    parts = [
        jnp.pad(x, ((0, count * size - n), (0, 0))).reshape(count, size, -1)
        for x, s in zip(arrays, split)
        if s
    ]

    def step(carry, parts):
        parts = iter(parts)
        return fn(carry, *(next(parts) if s else x for x, s in zip(arrays, split)))

    carry, outputs = jax.lax.scan(step, carry, parts)
    return carry, jax.tree.map(lambda y: y.reshape(count * size, -1)[:n], outputs)


def _dot(a, b):
    return jax.lax.dot(a, b, preferred_element_type=jnp.float32)


def _cudnn(q, k, v, bias, mask):
    bias, mask = (None if x is None else _tile(x, q.shape[0]) for x in (bias, mask))
    return jax.nn.dot_product_attention(q, k, v, bias, mask, scale=1.0, implementation="cudnn")


def _flash(q, k, v, bias, mask):
    """The compiler cannot split a kernel over devices: under a mesh each takes its samples and its heads."""
    (b, n, h, _), m = q.shape, k.shape[1]
    if mask is not None:
        hidden = jnp.where(mask, 0.0, _HIDDEN)
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
    "heads": _heads,
    "blockwise": _blockwise,
    "cudnn": _cudnn,
    "flash": _flash,
}
