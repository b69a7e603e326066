"""Attention rollout through all layers of a transformer."""

import jax
import jax.numpy as jnp


def attention_rollout(attention: jax.Array, residual: float = 0.5) -> jax.Array:
    """Computes attention rollout (Abnar & Zuidema, arXiv:2005.00928).

    Args:
      attention: [L, B, H, N, N], the endpoint `attention` of a model built with `return_attention=True`; the
        weights of a row are those of one query and sum to one.
      residual: weight of the residual connection of each attention layer.

    Returns:
      [B, N, N], float32: row n holds the weights of the input tokens in output token n; rows sum to one. To
      visualize it, take the row of the class token, or the mean of all rows for mean pooling, and unflatten
      it with the `token_grid` of the model.
    """
    maps = attention.astype(jnp.float32).mean(2)  # [L, B, N, N]
    n = maps.shape[-1]
    maps = (1 - residual) * maps + residual * jnp.eye(n)[None, None]

    def through(flow, layer):
        return layer @ flow, None

    start = jnp.broadcast_to(jnp.eye(n)[None], maps.shape[1:])
    return jax.lax.scan(through, start, maps)[0]
