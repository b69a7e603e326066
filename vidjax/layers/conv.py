"""Convolution over one, two or three spatial dimensions."""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.typing import DTypeLike

from vidjax.layers.cpu.conv import conv_by_taps
from vidjax.layers.cpu.depthwise import depthwise
from vidjax.layers.cpu.winograd import winograd
from vidjax.layers.lowering import conv_lowering, platform
from vidjax.layers.native import convolve

Padding = str | int | Sequence[int | tuple[int, int]]


def conv(
    x: jax.Array,
    kernel: jax.Array,
    strides: int | Sequence[int] = 1,
    padding: Padding = 0,
    *,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    lowering: str = "auto",
) -> jax.Array:
    """Convolves `x` [B, *spatial, Cin] with `kernel` [*window, Cin / groups, Cout]; channels last.

    Args:
      x: input with one, two or three spatial axes.
      kernel: the weights, of the same dtype.
      strides: one for all axes, or one per axis.
      padding: zeros on each side: one number for all, one per axis, (before, after) pairs, or "SAME".
      dilation: spacing of the window, one for all axes or one per axis.
      groups: number of channel groups that are convolved separately.
      lowering: "auto" selects by platform and shape, see `vidjax.layers.lowering.conv_lowering`; it is
        "native" except on the CPU and, for depthwise 3D kernels, on the GPU. All give the same result.
        "native": XLA's own convolution.
        "taps" (2D, 3D): one 2D convolution of the folded frames per temporal offset, summed; for a pointwise
        kernel, one matrix product, which has no forward-mode derivative.
        "winograd" (2D, 3D; float32; 3x3 in space, without strides, dilation or groups): see
        `vidjax.layers.cpu.winograd`. It has no forward-mode derivative.
        "shifts" (2D, 3D; one channel per group): see `vidjax.layers.cpu.depthwise`. No forward-mode
        derivative.

    Returns:
      The output, [B, *spatial, Cout].
    """
    window = kernel.shape[:-2]
    n = len(window)
    strides, dilation = _per_axis(strides, n), _per_axis(dilation, n)
    pads = _pads(padding, x.shape[1:-1], window, strides, dilation)
    if platform() == "reference":
        lowering = "native"
    if lowering == "auto":
        lowering = conv_lowering(x, kernel, strides, dilation, groups)
    if lowering == "native":
        return convolve(x, kernel, strides, pads, dilation, groups)
    if n == 2:  # treats images as frames of one video, with a kernel of one frame
        x, kernel = x[None], kernel[None]
        strides, pads, dilation = (1, *strides), [(0, 0), *pads], (1, *dilation)
    if lowering == "winograd":
        y = winograd(x, kernel, tuple(pads))
    elif lowering == "shifts":
        y = depthwise(x, kernel, strides, tuple(pads), dilation)
    else:
        y = conv_by_taps(x, kernel, strides, pads, dilation, groups)
    return y[0] if n == 2 else y


def _per_axis(value: int | Sequence[int], n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


def _pads(padding, sizes, window, strides, dilation) -> list[tuple[int, int]]:
    if isinstance(padding, str):
        reach = [(k - 1) * d + 1 for k, d in zip(window, dilation)]
        return lax.padtype_to_pads(sizes, reach, strides, padding)
    return [(p, p) if isinstance(p, int) else tuple(p) for p in _per_axis(padding, len(window))]


class Conv(nn.Module):
    """A learned convolution. Kernel [*kernel_size, Cin / groups, features]; see `conv` for the arguments.

    Attributes:
      kernel_init: initializer; by default He et al.'s normal over the fan-out, as ResNets use.
      dtype: dtype of the computation and output; inferred from input and parameters if None.
      param_dtype: dtype of kernel and bias.
    """

    features: int
    kernel_size: Sequence[int]
    strides: int | Sequence[int] = 1
    padding: Padding = 0
    use_bias: bool = False
    feature_group_count: int = 1
    kernel_dilation: int | Sequence[int] = 1
    kernel_init: nn.initializers.Initializer = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Convolves `x` [B, *spatial, Cin] to [B, *spatial, features]."""
        shape = (*self.kernel_size, x.shape[-1] // self.feature_group_count, self.features)
        kernel = self.param("kernel", self.kernel_init, shape, self.param_dtype)
        bias = None
        if self.use_bias:
            bias = self.param("bias", self.bias_init, (self.features,), self.param_dtype)
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        y = conv(
            x,
            kernel,
            self.strides,
            self.padding,
            dilation=self.kernel_dilation,
            groups=self.feature_group_count,
        )
        return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
