"""Attention one head at a time, in blocks of queries that stay in the CPU's caches.

Several times faster than a map of all heads on XLA's CPU, with memory linear in the number of tokens. It has
no forward-mode derivative.
"""

import math

import jax
import jax.numpy as jnp

from vidjax.layers.native import masked_scores

TILE = 5 << 18  # scores per block, half as many in the backward pass; measured
MIN_QUERIES = 64  # fewest queries per block


def attention_by_heads(q, k, v, bias, mask):
    """Computes attention for as many heads and samples at a time as fit one block.

    The loops run over heads, over the patterns of bias and mask, and over the samples of a pattern, so that
    each bias is sliced, and its gradient summed, where it is used. See `vidjax.layers.attention.attention`
    for the arguments.
    """
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
    looped = {  # whether each of the three loops slices an array
        name: (True, True, True) if name in "qkv" else (x.shape[0] > 1, x.shape[1] > 1, False)
        for name, x in arrays.items()
    }

    def loop(depth: int, given):
        if depth == 3:
            return _head(*(given.get(name) for name in ("q", "k", "v", "bias", "mask")))
        size = sizes[depth]
        if size == 1:  # XLA's CPU code is several times slower with axes of size one
            return loop(depth + 1, {name: x[0] for name, x in given.items()})[None]
        fixed = {name: x[0] for name, x in given.items() if not looped[name][depth]}
        sliced = {name: x for name, x in given.items() if looped[name][depth]}
        # One at a time if they share a bias: its gradient sums their maps, which is slow on XLA's CPU.
        room = 1 if "bias" in fixed else TILE // 2 // (n * k.shape[1] * math.prod(sizes[depth + 1 :]))
        batch = max(d for d in range(1, size + 1) if size % d == 0 and d <= max(1, room))
        run = lambda part: loop(depth + 1, fixed | part)  # noqa: E731
        if batch == size:
            return jax.vmap(run)(sliced)
        return jax.lax.map(run, sliced, batch_size=batch if batch > 1 else None)

    y = loop(0, arrays)  # [H, patterns, B / patterns, N, D]
    return y.swapaxes(1, 2).reshape(h, b, n, -1).transpose(1, 2, 0, 3)


@jax.custom_vjp
def _head(q, k, v, bias, mask):
    """Computes softmax(q k^T + bias) v for q [N, D], k [M, D] and v [M, D'], in blocks of queries.

    The backward pass recomputes the weights from the maximum and the sum of each query. It replaces the sum
    of weights times their gradients by that of the output times its gradient (Dao et al., arXiv:2205.14135,
    appendix B.2): XLA's sums over products of maps took a third of the time.
    """
    return _head_forward(q, k, v, bias, mask)[0]


def _head_forward(q, k, v, bias, mask):
    def block(_, q, bias, mask):
        scores = masked_scores(_dot(q, k.T), bias, mask)
        top = scores.max(1, keepdims=True)
        weights = jnp.exp(scores - top)
        inverse_sum = 1 / weights.sum(1, keepdims=True)
        return None, ((_dot(weights.astype(v.dtype), v) * inverse_sum).astype(v.dtype), top, inverse_sum)

    _, (y, top, inverse_sum) = _by_blocks(block, None, TILE // k.shape[0], q, bias, mask)
    return y, (q, k, v, bias, mask, y, top, inverse_sum)


def _head_backward(residuals, dy):
    q, k, v, bias, mask, y, top, inverse_sum = residuals
    # XLA's products with maps are faster for maps [M, N]; with a bias that would need its transpose.
    transposed = bias is None and mask is None
    turn = jnp.transpose if transposed else lambda x: x

    def maps(a, b):
        return _dot(b, a.T) if transposed else _dot(a, b.T)

    def block(sums, q, bias, mask, y, top, inverse_sum, dy):
        dk, dv = sums
        scores = masked_scores(maps(q, k), bias, mask)
        weights = jnp.exp(scores - turn(top))
        dy = dy.astype(jnp.float32) * inverse_sum
        delta = (dy * y).sum(1, keepdims=True)
        dy = dy.astype(v.dtype)
        dscores = weights * (maps(dy, v) - turn(delta))
        if mask is not None:
            dscores = jnp.where(mask, dscores, 0)
        dbias = None if bias is None else dscores.astype(bias.dtype)
        weights, dscores = turn(weights).astype(v.dtype), turn(dscores).astype(q.dtype)
        return (dk + _dot(dscores.T, q), dv + _dot(weights.T, dy)), (_dot(dscores, k), dbias)

    sums = (jnp.zeros(k.shape, jnp.float32), jnp.zeros(v.shape, jnp.float32))
    rows = (q, bias, mask, y, top, inverse_sum, dy)
    (dk, dv), (dq, dbias) = _by_blocks(block, sums, TILE // 2 // k.shape[0], *rows)
    return dq.astype(q.dtype), dk.astype(k.dtype), dv.astype(v.dtype), dbias, None


_head.defvjp(_head_forward, _head_backward)


def _by_blocks(fn, carry, size, *arrays):
    """Scans `fn(carry, *blocks) -> carry, outputs` over equal blocks of about `size` rows.

    Arrays with as many rows as the first are cut into blocks; other arrays and None are passed to every call.
    Outputs are concatenated.
    """
    n = arrays[0].shape[0]
    count = -(-n // max(MIN_QUERIES, size))
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
