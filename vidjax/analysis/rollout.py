"""What the output tokens of a transformer are made of, through all of its layers."""

import jax
import jax.numpy as jnp


def attention_rollout(attention: jax.Array, residual: float = 0.5) -> jax.Array:
    """Attention rollout (Abnar & Zuidema, "Quantifying Attention Flow in Transformers", arXiv:2005.00928).

    Args:
      attention: [L, B, H, N, N], the endpoint `attention` of a model built with `return_attention=True`; the
        weights of a row are those of one query and sum to one.
      residual: share of the shortcut beside each attention layer.

    Returns:
      [B, N, N], float32: row n says how much of each input token is in output token n; rows sum to one. Its
      class token's row, or the mean of all rows for a model that pools by the mean, laid out by the model's
      `token_grid`, is the usual picture.
    """
    maps = attention.astype(jnp.float32).mean(2)  # [L, B, N, N]
    n = maps.shape[-1]
    maps = (1 - residual) * maps + residual * jnp.eye(n)[None, None]

    def through(flow, layer):
        return layer @ flow, None

    start = jnp.broadcast_to(jnp.eye(n)[None], maps.shape[1:])
    return jax.lax.scan(through, start, maps)[0]
