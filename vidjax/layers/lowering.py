"""Selects the lowering of each operation from platform, shape and dtype; no other module makes this choice.

The choice is made in Python while tracing. `jax.lax.platform_dependent` traces every branch of every
operation: tracing the gradient of eight convolutions took at least 1.4 times as long with it.
"""

import math

import jax
import jax.numpy as jnp

from vidjax.layers.cpu.winograd import TILE
from vidjax.sharding import SAMPLES, axis_size

FEW_CHANNELS = 16  # too few to fill a matrix product
LONG_SCORES = 2048 * 2048  # scores per head above which the full attention map costs too much memory
FEW_SCORES = 64 * 64  # scores per head below which a loop over heads does not pay

# `with lowering_platform("tpu"):` selects lowerings as on that platform. "reference" selects the operation as
# the papers define it, which is what costs and receptive fields are computed from. This is a context, not an
# argument: it has to reach every operation inside a model without a field in every module. It is part of the
# key of jit's caches, so that nothing traced outside is reused.
lowering_platform = jax.make_user_context(None)


def platform() -> str:
    """Returns "cpu", "gpu", "tpu" or "reference"."""
    return lowering_platform.value or jax.default_backend()


def conv_lowering(x, kernel, strides, dilation, groups) -> str:
    """Returns the fastest `lowering` for `vidjax.layers.conv.conv`, measured forward and backward together.

    Args:
      x: input [B, *spatial, Cin].
      kernel: [*window, Cin / groups, Cout].
      strides, dilation: one per spatial axis.
      groups: number of channel groups.
    """
    backend = platform()
    depthwise = len(strides) > 1 and groups == x.shape[-1] == kernel.shape[-1]
    # cuDNN has no depthwise 3D kernels; the TPU compiler handles them natively.
    if depthwise and (backend == "cpu" or (backend == "gpu" and len(strides) == 3)):
        return "shifts"
    if backend != "cpu" or len(strides) == 1:
        return "native"
    plain = set(strides) == set(dilation) == {1} and groups == 1 and kernel.shape[-4:-2] == (3, 3)
    channels = kernel.shape[-2:]
    frames = math.prod(x.shape[:-3])
    tiles = frames * (x.shape[-3] // TILE) * (x.shape[-2] // TILE)
    if plain and x.dtype == jnp.float32 and min(channels) > FEW_CHANNELS and tiles >= max(channels):
        return "winograd"
    return "taps"


def attention_backend(q: jax.Array, k: jax.Array, biased: bool, dropped: bool) -> str:
    """Returns the backend that "auto" stands for in `vidjax.layers.attention.attention`.

    On the CPU the choice is measured, forward and backward together. On GPU and TPU it is the fused kernel
    where that applies, and blocks where the map of scores would fill the memory. The TPU kernel needs the
    mesh (`jax.sharding.set_mesh` or `use_abstract_mesh`) to run on several chips.

    Args:
      q, k: queries [B, N, H, D] and keys [B, M, H, D], arrays or shapes.
      biased: whether a bias, a mask or values of another width rule out the fused kernels.
      dropped: whether attention weights are dropped out.
    """
    backend = platform()
    scores = q.shape[1] * k.shape[1]
    if dropped or backend not in ("cpu", "gpu", "tpu"):
        return "plain"
    if backend == "cpu":
        return "heads" if scores >= FEW_SCORES else "plain"
    half = q.dtype in (jnp.float16, jnp.bfloat16)
    if backend == "gpu" and half and q.shape[-1] % 8 == 0 and q.shape[-1] <= 128 and not biased:
        return "cudnn"
    if backend == "tpu" and scores >= 1024 * 1024 and not biased and _divides_over_mesh(q):
        return "flash"
    return "blockwise" if scores >= LONG_SCORES else "plain"


def _divides_over_mesh(q: jax.Array) -> bool:
    """Whether the mesh divides samples and heads evenly; XLA does not partition a Pallas kernel by itself."""
    if jax.sharding.get_abstract_mesh().empty:
        return jax.device_count() == 1
    return q.shape[0] % axis_size(*SAMPLES) == 0 and q.shape[2] % axis_size("tensor") == 0


def max_pool_lowering() -> str:
    """Returns "native" or "slices", the lowering of `vidjax.layers.pool.max_pool`."""
    return "slices" if platform() == "cpu" else "native"
