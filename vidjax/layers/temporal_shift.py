"""The temporal shift: channels that move one frame, for nothing but the move."""

import jax
import jax.numpy as jnp
from jax import lax


def temporal_shift(
    x: jax.Array, n_div: int = 8, *, causal: bool = False, past: jax.Array | None = None
) -> jax.Array:
    """Moves two parts of the channels of `x` by a frame (Lin et al., arXiv:1811.08383, section 3.2).

    With F = C // n_div: channels [0, F) come from the next frame and [F, 2F) from the one before; zeros come
    in at both ends. `causal` (section 3.3): channels [0, F) come from the frame before, the others stay.

    Args:
      x: features [B, T, ..., C].
      n_div: what share of the channels moves each way, 1 / n_div; 0 moves nothing.
      causal: from the past only.
      past: [B, 1, ..., F], channels [0, F) of the frame before the first, where they are not zeros; `causal`
        only.

    Returns:
      [B, T, ..., C].
    """
    fold = x.shape[-1] // n_div if n_div else 0
    if fold == 0:
        return x
    # Selecting by channel among whole frames makes one elementwise loop, which XLA joins with its neighbours;
    # cutting the channels apart and concatenating them copies each part twice, and took five times longer.
    channel = lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    if not causal:
        return jnp.where(channel < fold, _moved(x, -1), jnp.where(channel < 2 * fold, _moved(x, 1), x))
    before = _moved(x, 1)
    if past is not None:
        first = lax.pad(
            past, jnp.zeros((), x.dtype), [(0, 0, 0)] * (x.ndim - 1) + [(0, x.shape[-1] - fold, 0)]
        )
        before = jnp.concatenate([first, x[:, :-1]], axis=1)
    return jnp.where(channel < fold, before, x)


def _moved(x: jax.Array, frames: int) -> jax.Array:
    """`x` later by `frames`, zeros filling in."""
    return lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (frames, -frames, 0)] + [(0, 0, 0)] * (x.ndim - 2))
