"""Batch, layer and local response normalization."""

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

# `with statistics("stored"):` makes every BatchNorm traced inside normalize with its running statistics, also
# in training, and not update them; "measured" replaces them by those of the batch, for `train.precise_bn`.
# This is a context, as `lowering.lowering_platform` is: frozen BatchNorm and precise BatchNorm are properties
# of a step, which would otherwise be an argument of every model's call.
statistics = jax.make_user_context("batch")


class BatchNorm(nn.Module):
    """Batch normalization over every axis but the last (Ioffe & Szegedy, arXiv:1502.03167).

    Under `jit` over a mesh the batch axis is global, so `groups=1` means statistics of the global batch.
    Most papers of this field used the statistics of each device; `groups=n` computes them for n equal parts
    of the leading axis, and the running statistics average the groups. Statistics are float32, and the
    variance is the biased one both in the step and in the running average.

    Attributes:
      momentum: weight of the old running statistics (PyTorch's momentum is one minus this).
      epsilon: added to the variance.
      use_scale, use_bias: whether there is a learned scale, and a learned bias.
      scale_init: initializer of the scale; zeros for the last layer of a residual branch.
      groups: number of equal parts of the leading axis that are normalized separately.
      dtype: dtype of the output; that of the input if None.
      param_dtype: dtype of scale and bias.
    """

    momentum: float = 0.9
    epsilon: float = 1e-5
    use_scale: bool = True
    use_bias: bool = True
    scale_init: nn.initializers.Initializer = nn.initializers.ones
    groups: int = 1
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Normalizes `x` [B, ..., C]. Raises ValueError if `groups` does not divide B in training."""
        channels = x.shape[-1]
        train = train and statistics.value != "stored"
        if train and x.shape[0] % self.groups:
            raise ValueError(f"batch of {x.shape[0]} is not divisible by {self.groups} groups")
        mean = self.variable("batch_stats", "mean", jnp.zeros, (channels,), jnp.float32)
        var = self.variable("batch_stats", "var", jnp.ones, (channels,), jnp.float32)
        bias, gain = jnp.zeros((channels,)), jnp.float32(1.0)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (channels,), self.param_dtype)
        if self.use_scale:
            scale = self.param("scale", self.scale_init, (channels,), self.param_dtype)
            gain = scale.astype(jnp.float32)[None]

        # Spatial axes are not flattened: the gradient would take ten times longer on XLA's CPU.
        grouped = x.reshape(self.groups if train else 1, -1, *x.shape[1:])
        if train:
            # The variance is taken around the running mean: in float32, E[x^2] - E[x]^2 is inaccurate for a
            # channel whose mean is much larger than its standard deviation; a second pass would cost more.
            axes = tuple(range(1, x.ndim))
            centered = grouped.astype(jnp.float32) - self._spread(mean.value[None], x.ndim)
            m = centered.mean(axes)  # [groups, C]
            v = jnp.maximum((centered * centered).mean(axes) - m * m, 0.0)
            m += mean.value[None]
            if statistics.value == "measured":
                mean.value, var.value = m.mean(0), v.mean(0) + m.var(0)
            elif not self.is_initializing():
                mean.value = self.momentum * mean.value + (1 - self.momentum) * m.mean(0)
                var.value = self.momentum * var.value + (1 - self.momentum) * v.mean(0)
        else:
            m, v = mean.value[None], var.value[None]

        scale = gain * jax.lax.rsqrt(v + self.epsilon)  # [groups, C]
        shift = bias.astype(jnp.float32)[None] - m * scale
        y = grouped * self._spread(scale, x.ndim) + self._spread(shift, x.ndim)
        return y.reshape(x.shape).astype(self.dtype or x.dtype)

    @staticmethod
    def _spread(per_group: jax.Array, ndim: int) -> jax.Array:
        """Reshapes [groups, C] to [groups, 1, ..., 1, C], to broadcast with a grouped input."""
        return per_group.reshape(per_group.shape[0], *(1,) * (ndim - 1), per_group.shape[1])


def local_response_norm(
    x: jax.Array, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Computes x / (k + alpha / size * sum of squares over `size` neighboring channels) ** beta.

    Krizhevsky et al., "ImageNet Classification with Deep Convolutional Neural Networks", 2012, section 3.3,
    with Caffe's and PyTorch's division of alpha by the size. Channels are the last axis; `size` is odd.
    """
    squares = jnp.square(x.astype(jnp.float32))
    squares = jnp.pad(squares, [(0, 0)] * (x.ndim - 1) + [(size // 2, size // 2)])
    total = sum(squares[..., i : i + x.shape[-1]] for i in range(size))
    return (x * (k + alpha / size * total) ** -beta).astype(x.dtype)


class LayerNorm(nn.Module):
    """Layer normalization over the last axis (Ba et al., arXiv:1607.06450).

    Mean and variance are float32, the variance around the mean.

    Attributes:
      epsilon: added to the variance.
      dtype: dtype of the output; that of the input if None.
      param_dtype: dtype of scale and bias.
    """

    epsilon: float = 1e-6
    dtype: DTypeLike | None = None
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Normalizes each vector of `x` [..., C]."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (x.shape[-1],), self.param_dtype)
        # Axes of size one are removed: with them the gradient takes ten times longer on XLA's CPU.
        y = x.reshape([n for n in x.shape[:-1] if n > 1] + [x.shape[-1]]).astype(jnp.float32)
        scale, bias = (p.astype(jnp.float32).reshape((1,) * (y.ndim - 1) + (-1,)) for p in (scale, bias))
        y = y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt((y * y).mean(-1, keepdims=True) + self.epsilon) * scale + bias
        return y.reshape(x.shape).astype(self.dtype or x.dtype)
