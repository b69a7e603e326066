"""Convolutions of each channel by itself, in three dimensions: sums of shifted products.

A depthwise convolution has a product per input and tap and no matrix product to speak of, so memory bounds
it: read the input once, keep every tap's shift of it close by, write the output once. XLA does that with a
sum of shifted products, fused into one loop over channels-last data. XLA's own gradient of that sum makes a
padded copy of dy and a pass over x and dy for every tap; here dx is again a sum of shifts, one for each phase
of the strides, and the kernel's gradient goes over the frames one at a time, which a CPU's cache holds.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], ...]


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, dilation: Triple) -> jax.Array:
    """Convolves every channel of `x` [B, T, H, W, C] with its own window, `kernel` [*window, 1, C].

    `pads` are the (before, after) zeros of T, H and W. Returns [B, T', H', W', C]. Differentiable once, in
    reverse.
    """
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    sizes = _out_sizes(x.shape, kernel.shape, strides, dilation)
    y = 0.0
    for tap in np.ndindex(kernel.shape[:3]):
        y += _shifted(x, np.multiply(tap, dilation), sizes, strides) * _spread(kernel[tap])
    return y


def _forward(x, kernel, strides, pads, dilation):
    return depthwise(x, kernel, strides, pads, dilation), (x, kernel)


def _backward(strides, pads, dilation, saved, dy):
    x, kernel = saved
    dx = _input_gradient(dy, kernel, x.shape, strides, pads, dilation)
    return dx, _kernel_gradient(x, dy, kernel.shape, strides, pads, dilation).astype(kernel.dtype)


depthwise.defvjp(_forward, _backward)


def _input_gradient(dy, kernel, shape, strides, pads, dilation):
    """Input s * j + p meets output j - m through the tap at offset s * m + p: one sum for each phase p."""
    sizes = [n + sum(p) for n, p in zip(shape[1:], pads)]
    counts = [-(-n // s) for n, s in zip(sizes, strides)]
    before = [(k - 1) * d // s for k, d, s in zip(kernel.shape, dilation, strides)]
    after = [n - size for n, size in zip(counts, dy.shape[1:])]
    dy = jnp.pad(dy, ((0, 0), *zip(before, after), (0, 0)))
    zeros = jnp.zeros((dy.shape[0], *counts, dy.shape[-1]), dy.dtype)
    phases = dict.fromkeys(np.ndindex(strides), zeros)
    for tap in np.ndindex(kernel.shape[:3]):
        steps, phase = np.divmod(np.multiply(tap, dilation), strides)
        phases[tuple(phase)] += _shifted(dy, np.subtract(before, steps), counts) * _spread(kernel[tap])
    dx = jnp.stack(list(phases.values())).reshape(*strides, dy.shape[0], *counts, dy.shape[-1])
    dx = dx.transpose(3, 4, 0, 5, 1, 6, 2, 7)
    dx = dx.reshape(dy.shape[0], *np.multiply(counts, strides), dy.shape[-1])
    return _shifted(dx, [p for p, _ in pads], shape[1:4])


def _kernel_gradient(x, dy, shape, strides, pads, dilation):
    """Rows of W * C values are multiplied and summed, so that the inner loop is long and contiguous."""
    b, frames, height, width, channels = dy.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    columns = [x[:, :, :, p :: strides[2]].reshape(*x.shape[:3], -1) for p in range(strides[2])]
    dy = dy.reshape(b, frames, height, width * channels)
    at_once = 1 if jax.default_backend() == "cpu" else frames
    reach = (at_once - 1) * strides[0] + (shape[0] - 1) * dilation[0] + 1

    def add(total, i):
        here = lax.dynamic_slice_in_dim(dy, i * at_once, at_once, 1)
        near = [lax.dynamic_slice_in_dim(c, i * at_once * strides[0], reach, 1) for c in columns]
        sums = []
        for tap in np.ndindex(shape[:3]):
            t, h, w = np.multiply(tap, dilation)
            step, phase = divmod(w, strides[2])
            part = _shifted(near[phase], (t, h, step * channels), here.shape[1:], (*strides[:2], 1))
            sums.append((part.astype(jnp.float32) * here.astype(jnp.float32)).sum((0, 1, 2)))
        return total + jnp.stack(sums), None

    zeros = jnp.zeros((np.prod(shape[:3]), width * channels), jnp.float32)
    total, _ = lax.scan(add, zeros, jnp.arange(frames // at_once))
    return total.reshape(-1, width, channels).sum(1).reshape(shape)


def _shifted(x, starts, counts, strides=(1, 1, 1)):
    """`counts` places of the three axes after the first, from `starts` in steps of `strides`."""
    for axis, (start, count, step) in enumerate(zip(starts, counts, strides), 1):
        x = lax.slice_in_dim(x, int(start), int(start) + (count - 1) * step + 1, step, axis)
    return x


def _spread(per_channel):
    return per_channel.reshape(1, 1, 1, 1, -1)


def _out_sizes(shape, window, strides, dilation):
    return [(n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(shape[1:], window, strides, dilation)]
