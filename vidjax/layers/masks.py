"""Masks over the token grid of masked autoencoders, drawn on the device.

Every kind has the interface `draw_mask(kind, rng, batch, grid, ratio)` and an exact, static number of visible
and masked tokens, so that a jitted step has static shapes. Token indices run over time first, then rows, then
columns.

  tube          the same positions in every temporal slice (VideoMAE, arXiv:2203.12602, section 3.2)
  random        tokens at any time and position (MAE-ST, arXiv:2205.09113, figure 3a)
  frame         whole temporal slices (MAE-ST, figure 3c)
  block         cuboids of tokens (MAE-ST, figure 3d)
  multi_block   several boxes in space, through all of time (V-JEPA, arXiv:2404.08471, section 3.2)
  running_cell  the same positions of every 2 x 2 cell, advancing by one per slice (VideoMAE V2,
                arXiv:2303.16727, section 3.2); the decoder mask of V2
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from vidjax.errors import UserError, unknown

Grid = tuple[int, int, int]
_BLOCKS = 64  # drawn per clip; those beyond the ratio are unused


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Mask:
    """Ascending token indices: `visible` int32 [B, Nv] and `masked` int32 [B, Nm]; Nv + Nm = N."""

    visible: jax.Array
    masked: jax.Array


def counts(kind: str, grid: Grid, ratio: float) -> tuple[int, int]:
    """Returns the numbers of visible and masked tokens of a grid (T, H, W).

    Raises:
      UserError: `kind` is unknown, `ratio` leaves no visible or no masked token, or the grid is not divisible
        into the 2 x 2 cells of "running_cell".
    """
    t, h, w = grid
    if kind not in KINDS:
        raise unknown("mask", kind, KINDS)
    if kind == "tube":  # the reference implementations round down, here the tokens per slice
        masked = t * int(ratio * h * w)
    elif kind == "frame":
        masked = int(ratio * t) * h * w
    elif kind == "running_cell":
        if h % 2 or w % 2:
            raise UserError(f"a running-cell mask needs an even grid, not {h}x{w} tokens")
        masked = int(4 * ratio) * t * h * w // 4
    else:
        masked = t * h * w - int(t * h * w * (1 - ratio))
    visible = t * h * w - masked
    if visible < 1 or masked < 1:
        left = "visible" if visible < 1 else "masked"
        raise UserError(f"a {kind} mask of ratio {ratio:g} leaves no {left} token of {t}x{h}x{w}")
    return visible, masked


def draw_mask(kind: str, rng: jax.Array, batch: int, grid: Grid, ratio: float) -> Mask:
    """Draws a mask for each clip of a batch; see the module docstring for the kinds.

    Args:
      kind: "tube", "random", "frame", "block", "multi_block" or "running_cell".
      rng: random key.
      batch: number of clips.
      grid: (T, H, W) in tokens.
      ratio: fraction of tokens to mask, rounded as in `counts`.

    Raises:
      UserError: see `counts`.
    """
    _, masked = counts(kind, grid, ratio)
    order = jax.vmap(lambda key: KINDS[kind](key, grid))(jax.random.split(rng, batch))
    order = jnp.argsort(order, axis=-1)  # the masked tokens have the lowest scores
    parts = jnp.split(order.astype(jnp.int32), [masked], axis=-1)
    return Mask(visible=jnp.sort(parts[1], axis=-1), masked=jnp.sort(parts[0], axis=-1))


def as_booleans(mask: Mask) -> jax.Array:
    """Returns a boolean array [B, N], True for masked tokens."""
    batch, n = mask.masked.shape[0], mask.visible.shape[1] + mask.masked.shape[1]
    rows = jnp.arange(batch).reshape(-1, 1)
    return jnp.zeros((batch, n), bool).at[rows, mask.masked].set(True)


# Each kind scores the tokens [T * H * W]; those with the lowest scores are masked.


def _tube(rng, grid):
    t, h, w = grid
    return jnp.tile(jax.random.permutation(rng, h * w), t)


def _random(rng, grid):
    return jax.random.permutation(rng, math.prod(grid))


def _frame(rng, grid):
    t, h, w = grid
    return jnp.repeat(jax.random.permutation(rng, t), h * w)


def _running_cell(rng, grid):
    start = jax.random.randint(rng, (), 0, 4)
    time, row, column = jnp.meshgrid(*map(jnp.arange, grid), indexing="ij")
    # Masked positions have the lowest scores; slice index and random start rotate the cell.
    return ((row % 2 * 2 + column % 2 + start + time + 1) % 4).ravel()


def _block(rng, grid):
    """Scores boxes of half the grid along each axis."""
    return _covered(rng, grid, 0.5, through_time=False)


def _multi_block(rng, grid):
    """Scores boxes of 15% of the frame with aspect ratios of 0.75 to 1.5."""
    return _covered(rng, grid, 0.15, through_time=True)


def _covered(rng, grid, scale, through_time):
    """Scores each token by the index of the first random box that covers it."""
    t, h, w = grid
    sides, places, ties = jax.random.split(rng, 3)
    aspect = jnp.exp(jax.random.uniform(sides, (_BLOCKS,), minval=math.log(0.75), maxval=math.log(1.5)))
    area = scale if through_time else scale**2
    size = jnp.stack(
        [
            jnp.full(_BLOCKS, t if through_time else max(1, round(scale * t))),
            jnp.clip(jnp.round(h * jnp.sqrt(area * aspect)), 1, h),
            jnp.clip(jnp.round(w * jnp.sqrt(area / aspect)), 1, w),
        ]
    )
    room = jnp.array(grid).reshape(3, 1) - size
    low = jnp.floor(jax.random.uniform(places, size.shape) * (room + 1))
    inside = [
        (jnp.arange(n).reshape(-1, 1) >= low[i].reshape(1, -1))
        & (jnp.arange(n).reshape(-1, 1) < (low[i] + size[i]).reshape(1, -1))
        for i, n in enumerate(grid)
    ]  # [T, blocks], [H, blocks], [W, blocks]
    box = (
        inside[0].reshape(t, 1, 1, -1) & inside[1].reshape(1, h, 1, -1) & inside[2].reshape(1, 1, w, -1)
    ).reshape(-1, _BLOCKS)
    first = jnp.where(box.any(-1), box.argmax(-1), _BLOCKS)
    return first + jax.random.uniform(ties, first.shape)  # the last box is cut at random to the exact count


KINDS = {
    "tube": _tube,
    "random": _random,
    "frame": _frame,
    "block": _block,
    "multi_block": _multi_block,
    "running_cell": _running_cell,
}
