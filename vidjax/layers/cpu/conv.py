"""Convolutions over space and time as sums over the temporal taps of the kernel.

XLA's CPU backward pass of a strided 3D convolution is more than ten times slower than that of the 2D
convolutions that sum to it.
"""

import jax
import jax.numpy as jnp
from jax import lax

from vidjax.layers.lowering import FEW_CHANNELS
from vidjax.layers.native import convolve


def conv_by_taps(x, kernel, strides, pads, dilation, groups):
    """Sums one 2D convolution of the folded frames, or one matrix product, per temporal offset."""
    pointwise = kernel.shape[1:3] == (1, 1) and groups == 1
    x = jnp.pad(x, ((0, 0), pads[0], *(pads[1:] if pointwise else [(0, 0)] * 2), (0, 0)))
    if pointwise:
        x = x[:, :, :: strides[1], :: strides[2]]
        if kernel.shape[0] > 1 and strides[0] == 1 and kernel.shape[-1] <= x.shape[-1]:
            return _shifted_products(x, kernel[:, 0, 0], dilation[0])
    b, frames = x.shape[:2]
    out_frames = _out_size(frames, kernel.shape[0], strides[0], dilation[0])
    taps = [_every(x, 1, k * dilation[0], out_frames, strides[0]) for k in range(kernel.shape[0])]
    if groups == 1 and x.shape[-1] <= FEW_CHANNELS:
        taps = [jnp.concatenate(taps, axis=-1)]
        kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(1, *kernel.shape[1:3], -1, kernel.shape[-1])
    y = 0.0
    for tap, weights in zip((t.reshape(-1, *x.shape[2:4], t.shape[-1]) for t in taps), kernel):
        if pointwise:
            y += _product(tap, weights[0, 0])
        else:
            y += convolve(tap, weights, strides[1:], pads[1:], dilation[1:], groups)
    return y.reshape(b, out_frames, *y.shape[1:])


def _shifted_products(x, kernel, dilation):
    """Convolves over time with `kernel` [taps, Cin, Cout]: one matrix product, shifted and summed per tap.

    With fewer output than input channels this moves less memory than shifting the inputs.
    """
    taps, _, features = kernel.shape
    products = _product(x, kernel.swapaxes(0, 1).reshape(-1, taps * features))
    products = products.reshape(*x.shape[:-1], taps, features)
    frames = _out_size(x.shape[1], taps, 1, dilation)
    return sum(_every(products[..., k, :], 1, k * dilation, frames, 1) for k in range(taps))


@jax.custom_vjp
def _product(x, weights):
    """Computes `x` [..., Cin] @ `weights` [Cin, Cout]; its gradient transposes the narrower of x and dy.

    XLA's CPU code transposes all of dy for the gradient of any product, which with 24 to 54 channels took
    four times as long as everything else.
    """
    return x @ weights


def _product_forward(x, weights):
    return x @ weights, (x, weights)


def _product_backward(saved, dy):
    x, weights = saved
    rows = tuple(range(x.ndim - 1))
    contract = lambda a, b: lax.dot_general(a, b, ((rows, rows), ((), ())))  # noqa: E731
    widens = x.shape[-1] < dy.shape[-1]
    return dy @ weights.T, contract(x, dy) if widens else contract(dy, x).T


_product.defvjp(_product_forward, _product_backward)


def _every(x, axis, start, count, step):
    return lax.slice_in_dim(x, start, start + (count - 1) * step + 1, step, axis)


def _out_size(size: int, window: int, stride: int, dilation: int) -> int:
    return (size - (window - 1) * dilation - 1) // stride + 1
