"""Depthwise convolutions in three dimensions, as sums of shifted products.

A depthwise convolution has no large matrix product and is bound by memory. XLA fuses the sum of shifted
products into one loop over channels-last data, which reads the input and writes the output once. XLA's own
gradient of that sum makes a padded copy of dy and a pass over x and dy for every tap. Here dx is again a sum
of shifts, one per phase of the strides, and the gradient of the kernel is summed over a few frames at a time,
which fit a CPU's cache. On the GPU it also serves depthwise 3D kernels, which cuDNN lacks.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from vidjax.layers.lowering import platform

Triple = tuple[int, int, int]
Pads = tuple[tuple[int, int], ...]


TERMS = 40  # products summed in one loop


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def depthwise(x: jax.Array, kernel: jax.Array, strides: Triple, pads: Pads, dilation: Triple) -> jax.Array:
    """Convolves every channel of `x` [B, T, H, W, C] with its own window, `kernel` [*window, 1, C].

    `pads` are the (before, after) zeros of T, H and W. Returns [B, T', H', W', C]. Differentiable once, in
    reverse.
    """
    return _forward(x, kernel, strides, pads, dilation)[0]


@partial(jax.jit, static_argnums=(2, 3, 4))  # traced once per shape, since there are many taps
def _forward(x, kernel, strides, pads, dilation):
    x = _stored(jnp.pad(x, ((0, 0), *pads, (0, 0))))
    sizes = [
        (n - (k - 1) * d - 1) // s + 1 for n, k, s, d in zip(x.shape[1:], kernel.shape, strides, dilation)
    ]
    y = 0.0
    for tap in np.ndindex(kernel.shape[:3]):
        y += _shifted(x, np.multiply(tap, dilation), sizes, strides) * _spread(kernel[tap])
    return y, (x, kernel)


@partial(jax.jit, static_argnums=(0, 1, 2))
def _backward(strides, pads, dilation, saved, dy):
    x, kernel = saved
    dy = _stored(dy)
    dx = _input_gradient(dy, kernel, x.shape, strides, dilation)
    dx = dx[:, *(slice(before, n - after) for n, (before, after) in zip(x.shape[1:], pads))]
    sums = _kernel_sums if platform() == "cpu" else _kernel_sums_at_once
    return dx, sums(x, dy, kernel.shape[:3], strides, dilation).reshape(kernel.shape).astype(kernel.dtype)


depthwise.defvjp(_forward, _backward)


def _input_gradient(dy, kernel, shape, strides, dilation):
    """Input s * j + p meets output j - m through the tap at offset s * m + p: one sum for each phase p."""
    counts = [-(-n // s) for n, s in zip(shape[1:], strides)]
    before = [(k - 1) * d // s for k, d, s in zip(kernel.shape, dilation, strides)]
    after = [n - size for n, size in zip(counts, dy.shape[1:])]
    dy = _stored(jnp.pad(dy, ((0, 0), *zip(before, after), (0, 0))))
    zeros = jnp.zeros((dy.shape[0], *counts, dy.shape[-1]), dy.dtype)
    phases = dict.fromkeys(np.ndindex(strides), zeros)
    for tap in np.ndindex(kernel.shape[:3]):
        steps, phase = np.divmod(np.multiply(tap, dilation), strides)
        phases[tuple(phase)] += _shifted(dy, np.subtract(before, steps), counts) * _spread(kernel[tap])
    dx = jnp.stack(list(phases.values())).reshape(*strides, *zeros.shape)
    dx = dx.transpose(3, 4, 0, 5, 1, 6, 2, 7).reshape(
        dy.shape[0], *np.multiply(counts, strides), dy.shape[-1]
    )
    return dx[:, : shape[1], : shape[2], : shape[3]]


def _kernel_sums_at_once(x, dy, window, strides, dilation):
    """Returns the gradient of the kernel, [taps, C]."""
    dy = dy.astype(jnp.float32)
    parts = (_shifted(x, np.multiply(t, dilation), dy.shape[1:4], strides) for t in np.ndindex(window))
    return jnp.stack([(part.astype(jnp.float32) * dy).sum((0, 1, 2, 3)) for part in parts])


def _kernel_sums(x, dy, window, strides, dilation):
    """Returns the same as `_kernel_sums_at_once`, in steps of a few frames and rows that fit a CPU's cache.

    A row is W * C contiguous values; a loop over it sums the products of `TERMS` rows at once, for all taps
    of equal offset in W, as XLA's loops cost about the same for one term as for many.
    """
    b, frames, height, width, channels = dy.shape
    rows = -(-height // -(-height // TERMS))
    few = -(-frames // -(-frames // max(1, TERMS // rows)))
    steps = (b, -(-frames // few), -(-height // rows))
    reach = [(n - 1) * s + (k - 1) * d + 1 for n, s, k, d in zip((few, rows), strides, window, dilation)]
    # Rows of zeros complete the last step.
    ends = [(n - 1) * k * s + r for n, k, s, r in zip(steps[1:], (few, rows), strides, reach)]
    spare = [(0, max(0, end - n)) for end, n in zip(ends, x.shape[1:])]
    x = jnp.pad(x, ((0, 0), *spare, (0, 0), (0, 0)))
    columns = [x[:, :, :, p :: strides[2]].reshape(*x.shape[:3], -1) for p in range(strides[2])]
    dy = dy.reshape(b, frames, height, width * channels)
    dy = jnp.pad(dy, ((0, 0), (0, steps[1] * few - frames), (0, steps[2] * rows - height), (0, 0)))

    def add(sums, i):
        n, t, h = (i // (steps[1] * steps[2]), i // steps[2] % steps[1] * few, i % steps[2] * rows)
        here = lax.dynamic_slice(dy, (n, t, h, 0), (1, few, rows, dy.shape[3]))[0].astype(jnp.float32)
        start = (n, t * strides[0], h * strides[1], 0)
        near = [lax.dynamic_slice(c, start, (1, *reach, c.shape[3])).astype(jnp.float32) for c in columns]
        new = []
        for w, total in enumerate(sums):
            step, phase = divmod(w * dilation[2], strides[2])
            row = near[phase][:, :, :, step * channels :][..., : width * channels]
            for f, r in np.ndindex(few, rows):
                taps = row[0, f * strides[0] :, r * strides[1] :][:: dilation[0], :: dilation[1]]
                total += taps[: window[0], : window[1]] * here[f, r].reshape(1, 1, -1)
            new.append(total)
        return new, None

    zeros = jnp.zeros((*window[:2], width * channels), jnp.float32)
    sums, _ = lax.scan(add, [zeros] * window[2], jnp.arange(np.prod(steps)))
    return jnp.stack(sums, 2).reshape(-1, width, channels).sum(1)


def _stored(x):
    """Materializes `x`; XLA would otherwise fuse its computation into the loop, once per tap."""
    return lax.optimization_barrier(x)


def _shifted(x, starts, counts, strides=(1, 1, 1)):
    """Slices the three axes after the first: `counts` elements from `starts` in steps of `strides`."""
    for axis, (start, count, step) in enumerate(zip(starts, counts, strides), 1):
        x = lax.slice_in_dim(x, int(start), int(start) + (count - 1) * step + 1, step, axis)
    return x


def _spread(per_channel):
    return per_channel.reshape(1, 1, 1, 1, -1)
