"""The temporal shift: channels that move one frame, for nothing but the move."""

import jax
import jax.numpy as jnp


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
    # A concatenation makes each element from the one it is; selecting by channel among whole moved clips lets
    # XLA's CPU code make all three, from the layers before.
    first = jnp.zeros_like(x[:, :1, ..., :fold]) if past is None else past.astype(x.dtype)
    if causal:
        return jnp.concatenate([_later(x[..., :fold], first), x[..., fold:]], axis=-1)
    sooner = jnp.concatenate([x[:, 1:, ..., :fold], first], axis=1)
    return jnp.concatenate([sooner, _later(x[..., fold : 2 * fold], first), x[..., 2 * fold :]], axis=-1)


def _later(x: jax.Array, first: jax.Array) -> jax.Array:
    """`x` later by a frame, behind the frame `first`."""
    return jnp.concatenate([first, x[:, :-1]], axis=1)
