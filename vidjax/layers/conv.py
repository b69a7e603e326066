"""Convolution over one, two or three spatial dimensions, lowered to what the backend runs fast."""

import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype
from jax import lax
from jax.typing import DTypeLike

from vidjax.layers.depthwise import depthwise
from vidjax.layers.winograd import TILE, winograd

FEW = 16  # channels that do not fill a matrix product by themselves
Padding = str | int | Sequence[int | tuple[int, int]]

# `with forced_lowering("native"):` makes each `conv` traced inside one XLA convolution, on every backend and
# whatever its `lowering` says. A context that jit's caches know of, so nothing traced outside is reused.
forced_lowering = jax.make_user_context(None)


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
      strides: one step for all axes, or one per axis.
      padding: zeros on each side: one number for all, one per axis, (before, after) pairs, or "SAME".
      dilation: spacing of the window, one for all axes or one per axis.
      groups: parts of the channels that are convolved apart.
      lowering: "auto" picks by backend and shape, and is "native" everywhere but on the CPU and, for 3D
        windows of single channels, on the GPU.
        "native": XLA's own convolution.
        "taps" (2D, 3D): one 2D convolution of the folded frames per temporal offset, summed; of a pointwise
        window, one matrix product, without a forward-mode derivative.
        "winograd" (2D, 3D; float32; 3x3 in space, without strides, dilation or groups): see
        `vidjax.layers.winograd`. It has no forward-mode derivative.
        "shifts" (2D, 3D; one channel per group): see `vidjax.layers.depthwise`. No forward-mode derivative.

    Returns:
      The output, [B, *spatial, Cout].
    """
    window = kernel.shape[:-2]
    n = len(window)
    strides, dilation = _per_axis(strides, n), _per_axis(dilation, n)
    pads = _pads(padding, x.shape[1:-1], window, strides, dilation)
    lowering = forced_lowering.value or lowering
    if lowering == "auto":
        lowering = _choose(x, kernel, strides, pads, dilation, groups)
    if lowering == "native":
        return _native(x, kernel, strides, pads, dilation, groups)
    if n == 2:  # images are the frames of one video under a window of one frame
        x, kernel = x[None], kernel[None]
        strides, pads, dilation = (1, *strides), [(0, 0), *pads], (1, *dilation)
    if lowering == "winograd":
        y = winograd(x, kernel, tuple(pads))
    elif lowering == "shifts":
        y = depthwise(x, kernel, strides, tuple(pads), dilation)
    else:
        y = _taps(x, kernel, strides, pads, dilation, groups)
    return y[0] if n == 2 else y


def _choose(x, kernel, strides, pads, dilation, groups) -> str:
    """The lowering that measured fastest, forward and backward together."""
    backend = jax.default_backend()
    single = len(strides) > 1 and groups == x.shape[-1] == kernel.shape[-1]
    # cuDNN has no kernels for 3D windows of single channels; the TPU's compiler treats them as such.
    if single and (backend == "cpu" or (backend == "gpu" and len(strides) == 3)):
        return "shifts"
    if backend != "cpu" or len(strides) == 1:
        return "native"
    plain = set(strides) == set(dilation) == {1} and groups == 1 and kernel.shape[-4:-2] == (3, 3)
    channels = kernel.shape[-2:]
    frames = math.prod(x.shape[:-3])
    tiles = frames * (x.shape[-3] // TILE) * (x.shape[-2] // TILE)
    if plain and x.dtype == jnp.float32 and min(channels) > FEW and tiles >= max(channels):
        return "winograd"
    return "taps"


def _native(x, kernel, strides, pads, dilation, groups):
    spatial = "THW"[3 - len(strides) :]
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=(f"N{spatial}C", f"{spatial}IO", f"N{spatial}C"),
    )


def _taps(x, kernel, strides, pads, dilation, groups):
    """One 2D convolution of the folded frames, or one matrix product, per temporal offset."""
    pointwise = kernel.shape[1:3] == (1, 1) and groups == 1
    x = jnp.pad(x, ((0, 0), pads[0], *(pads[1:] if pointwise else [(0, 0)] * 2), (0, 0)))
    if pointwise:
        x = x[:, :, :: strides[1], :: strides[2]]
        if kernel.shape[0] > 1 and strides[0] == 1 and kernel.shape[-1] <= x.shape[-1]:
            return _shares(x, kernel[:, 0, 0], dilation[0])
    b, frames = x.shape[:2]
    out_frames = _out_size(frames, kernel.shape[0], strides[0], dilation[0])
    taps = [_every(x, 1, k * dilation[0], out_frames, strides[0]) for k in range(kernel.shape[0])]
    if groups == 1 and x.shape[-1] <= FEW:
        taps = [jnp.concatenate(taps, axis=-1)]
        kernel = kernel.transpose(1, 2, 0, 3, 4).reshape(1, *kernel.shape[1:3], -1, kernel.shape[-1])
    y = 0.0
    for tap, weights in zip((t.reshape(-1, *x.shape[2:4], t.shape[-1]) for t in taps), kernel):
        if pointwise:
            y += _product(tap, weights[0, 0])
        else:
            y += _native(tap, weights, strides[1:], pads[1:], dilation[1:], groups)
    return y.reshape(b, out_frames, *y.shape[1:])


def _shares(x, kernel, dilation):
    """A window over time alone, [taps, Cin, Cout]: one matrix product of all taps, whose shares of the output
    are shifted and summed. It moves less than shifted inputs do where fewer channels come out than go in."""
    taps, _, features = kernel.shape
    shares = _product(x, kernel.swapaxes(0, 1).reshape(-1, taps * features))
    shares = shares.reshape(*x.shape[:-1], taps, features)
    frames = _out_size(x.shape[1], taps, 1, dilation)
    return sum(_every(shares[..., k, :], 1, k * dilation, frames, 1) for k in range(taps))


@jax.custom_vjp
def _product(x, weights):
    """`x` [..., Cin] @ `weights` [Cin, Cout], whose gradient transposes the narrower of x and dy.

    XLA's CPU transposes dy, whole, for the gradient of any product; of 24 to 54 channels that took four times
    as long as all the rest.
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
      kernel_init: initialiser; He et al.'s normal over the fan-out, the rule of the ResNets, by default.
      dtype: dtype of the computation and output; that of input and parameters where None.
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
