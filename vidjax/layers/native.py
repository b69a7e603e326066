"""Primitives of XLA, and scores of attention, that several lowerings are built from."""

import jax.numpy as jnp
import numpy as np
from jax import lax

HIDDEN_SCORE = 0.5 * float(jnp.finfo(jnp.float32).min)  # the score of a masked key


def convolve(x, kernel, strides, pads, dilation, groups):
    """XLA's convolution of `x` [B, *spatial, Cin] with `kernel` [*window, Cin / groups, Cout]."""
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


def max_window(x, window, strides, pads):
    """XLA's maximum over windows of `x` [B, *spatial, C]."""
    return lax.reduce_window(
        x, np.array(-np.inf, x.dtype)[()], lax.max, (1, *window, 1), (1, *strides, 1), ((0, 0), *pads, (0, 0))
    )


def masked_scores(scores, bias, mask):
    """Adds `bias` to attention scores in float32 and hides keys where `mask` is False; each may be None."""
    if bias is not None:
        scores += bias.astype(jnp.float32)
    return scores if mask is None else jnp.where(mask, scores, HIDDEN_SCORE)
