"""The non-local block: attention from every position of a clip to all positions.

Wang et al., "Non-local Neural Networks", CVPR 2018, arXiv:1711.07971. Equation 1 with the pairwise
functions of equations 2 to 5, inside the residual of equation 6 (figure 2), with the subsampling of section
3.3. As in the published code, and unlike the paper, the maximum is taken before phi and g rather than after,
and the exponent of the embedded Gaussian is divided by the root of the width.
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidjax.errors import unknown
from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.layers.pool import max_pool

FORMS = ("gaussian", "embedded_gaussian", "dot_product", "concatenation")


class NonLocal(nn.Module):
    """A residual block of attention over space and time.

    Attributes:
      form: pairwise function of two positions: "gaussian", exp(x_i . x_j); "embedded_gaussian",
        exp(theta(x_i) . phi(x_j) / sqrt(width)); "dot_product", theta(x_i) . phi(x_j); "concatenation",
        relu(w . [theta(x_i), phi(x_j)]). The first two are normalized by their sum, the others by the number
        of positions.
      pool: (T, H, W) window of the max pooling of keys and values.
      zero_init: initialize the scale of the last norm with zeros, so that the block starts as the identity.
      conv, norm: constructors of convolution and norm modules.
    """

    form: str = "embedded_gaussian"
    pool: tuple[int, int, int] = (1, 2, 2)
    zero_init: bool = True
    conv: Callable[..., nn.Module] = Conv
    norm: Callable[..., nn.Module] = BatchNorm

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps `x` [B, T, H, W, C] to the same shape. Raises `UserError` for an unknown form."""
        if self.form not in FORMS:
            raise unknown("form of the non-local block", self.form, FORMS)
        width = x.shape[-1] // 2
        embed = partial(self.conv, kernel_size=(1, 1, 1), use_bias=True)
        pooled = max_pool(x, self.pool, self.pool) if self.pool != (1, 1, 1) else x
        g = _flat(embed(width, name="g")(pooled))  # [B, M, width]
        if self.form == "gaussian":
            theta, phi = _flat(x), _flat(pooled)
        else:
            theta, phi = _flat(embed(width, name="theta")(x)), _flat(embed(width, name="phi")(pooled))

        if self.form == "concatenation":
            w = self.param("concatenation", nn.initializers.normal(0.01), (2, width, 1), jnp.float32)
            w = w.astype(theta.dtype)
            f = nn.relu(theta @ w[0] + (phi @ w[1]).swapaxes(1, 2))  # [B, N, M]
        else:
            f = jnp.einsum("bnc,bmc->bnm", theta, phi)
        if self.form == "embedded_gaussian":
            f = f * width**-0.5
        if self.form in ("gaussian", "embedded_gaussian"):
            f = nn.softmax(f.astype(jnp.float32)).astype(f.dtype)
        else:
            f = f / f.shape[-1]

        y = jnp.einsum("bnm,bmc->bnc", f, g).reshape(*x.shape[:-1], width)
        scale_init = nn.initializers.zeros if self.zero_init else nn.initializers.ones
        return x + self.norm(scale_init=scale_init, name="bn")(embed(x.shape[-1], name="out")(y), train)


def _flat(x: jax.Array) -> jax.Array:
    """[B, T, H, W, C] -> [B, THW, C]."""
    return x.reshape(x.shape[0], -1, x.shape[-1])
