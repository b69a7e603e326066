"""The temporal shift of TSM, which moves some channels by one frame."""

import jax
import jax.numpy as jnp


def temporal_shift(
    x: jax.Array, n_div: int = 8, *, causal: bool = False, past: jax.Array | None = None
) -> jax.Array:
    """Shifts two parts of the channels of `x` by one frame (Lin et al., arXiv:1811.08383, section 3.2).

    With F = C // n_div: channels [0, F) come from the next frame and [F, 2F) from the previous one, with
    zeros at both ends. With `causal` (section 3.3), channels [0, F) come from the previous frame and the
    others stay.

    Args:
      x: features [B, T, ..., C].
      n_div: 1 / n_div of the channels is shifted in each direction; 0 disables the shift.
      causal: shift from the past only.
      past: [B, 1, ..., F], channels [0, F) of the frame before the first; zeros if None. Only for `causal`.

    Returns:
      [B, T, ..., C].
    """
    fold = x.shape[-1] // n_div if n_div else 0
    if fold == 0:
        return x
    # Concatenating slices computes every element once. Selecting by channel among shifted copies makes XLA's
    # CPU code compute all three copies from the preceding layers.
    first = jnp.zeros_like(x[:, :1, ..., :fold]) if past is None else past.astype(x.dtype)
    if causal:
        return jnp.concatenate([_later(x[..., :fold], first), x[..., fold:]], axis=-1)
    sooner = jnp.concatenate([x[:, 1:, ..., :fold], first], axis=1)
    return jnp.concatenate([sooner, _later(x[..., fold : 2 * fold], first), x[..., 2 * fold :]], axis=-1)


def _later(x: jax.Array, first: jax.Array) -> jax.Array:
    """Delays `x` by one frame, starting with the frame `first`."""
    return jnp.concatenate([first, x[:, :-1]], axis=1)
