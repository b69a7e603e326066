"""Max and average pooling over any number of spatial dimensions."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vidjax.layers.conv import Padding
from vidjax.layers.cpu.pool import max_pool_by_slices
from vidjax.layers.lowering import max_pool_lowering
from vidjax.layers.native import max_window

Window = int | Sequence[int]
Pads = tuple[tuple[int, int], ...]


def max_pool(
    x: jax.Array, window: Window, strides: Window, padding: Padding = 0, ceil_mode: bool = False
) -> jax.Array:
    """Computes the maximum over windows of `x` [B, *spatial, C]; padding is minus infinity.

    Among equal elements of a window the first in row-major order receives the gradient, as in XLA and
    PyTorch.

    Args:
      x: input with at least one spatial axis.
      window, strides: one number for all spatial axes, or one per axis.
      padding: one number for all, one per axis, (before, after) pairs, or "SAME".
      ceil_mode: as in PyTorch, the last window may extend past the end if it starts before the end padding.

    Returns:
      The output, [B, *spatial, C].
    """
    window, strides, pads = _geometry(x, window, strides, padding, ceil_mode)
    lower = max_window if max_pool_lowering() == "native" else max_pool_by_slices
    return lower(x, window, strides, pads)


def avg_pool(
    x: jax.Array,
    window: Window,
    strides: Window,
    padding: Padding = 0,
    count_include_pad: bool = True,
    ceil_mode: bool = False,
) -> jax.Array:
    """Computes the average over windows of `x` [B, *spatial, C].

    Args:
      x, window, strides, padding, ceil_mode: see `max_pool`; elements past the end in `ceil_mode` do not
        count.
      count_include_pad: count the zeros of the padding, as PyTorch does by default; TensorFlow never does.

    Returns:
      The output, [B, *spatial, C].
    """
    window, strides, plain = _geometry(x, window, strides, padding, False)
    _, _, pads = _geometry(x, window, strides, padding, ceil_mode)
    total = lax.reduce_window(
        x, np.zeros((), x.dtype)[()], lax.add, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )
    count = np.ones((1,) * x.ndim, np.float32)
    for axis, (k, step, (low, high), (_, last)) in enumerate(zip(window, strides, plain, pads), 1):
        counted = np.pad(np.ones(x.shape[axis]), (low, high), constant_values=float(count_include_pad))
        inside = np.pad(counted, (0, last - high))
        sums = np.lib.stride_tricks.sliding_window_view(inside, k)[::step].sum(-1)
        count = count * np.expand_dims(sums, [a for a in range(x.ndim) if a != axis])
    return total / jnp.asarray(count, x.dtype)


def max_over(x: jax.Array, axis: int) -> jax.Array:
    """Computes the maximum over an axis by index.

    The gradient of `x.max` divides by the number of elements equal to the maximum, which can be zero if the
    compiler recomputes `x` with other rounding.
    """
    return jnp.take_along_axis(x, x.argmax(axis, keepdims=True), axis).squeeze(axis)


def adaptive_avg_pool(x: jax.Array, size: int | Sequence[int]) -> jax.Array:
    """Averages `x` [B, *spatial, C] to [B, *size, C].

    As in PyTorch, cell i of an axis of n elements averages floor(i n / size) to ceil((i + 1) n / size); cells
    overlap if `size` is larger than n.
    """
    size = (size,) * (x.ndim - 2) if isinstance(size, int) else size
    for axis, (n, m) in enumerate(zip(x.shape[1:-1], size, strict=True), 1):
        if n != m:
            cells = [lax.slice_in_dim(x, i * n // m, -(-(i + 1) * n // m), axis=axis) for i in range(m)]
            x = jnp.concatenate([c.mean(axis, keepdims=True) for c in cells], axis)
    return x


def _geometry(x, window, strides, padding, ceil_mode) -> tuple[tuple[int, ...], tuple[int, ...], Pads]:
    """Returns window, strides and (before, after) padding per axis."""
    n = x.ndim - 2
    window, strides = ((v,) * n if isinstance(v, int) else tuple(v) for v in (window, strides))
    if isinstance(padding, str):
        return window, strides, tuple(lax.padtype_to_pads(x.shape[1:-1], window, strides, padding))
    padding = (padding,) * n if isinstance(padding, int) else padding
    pads = []
    for size, k, step, pad in zip(x.shape[1:], window, strides, padding, strict=False):
        low, high = (pad, pad) if isinstance(pad, int) else pad
        if ceil_mode and (rest := (size + low + high - k) % step):
            over = step - rest  # elements of one more window past the end of the padding
            starts = size + low + high - k + over
            high += over if starts < size + low else 0
        pads.append((low, high))
    return window, strides, tuple(pads)
