"""Visualization of a masked autoencoder's reconstructions: original, masked, and two reconstructions.

If the targets are normalized per token, predictions lack the mean and standard deviation of the pixels.
"Leak-free" uses the statistics of the clip's visible pixels for every predicted token. "True statistics", the
usual visualization, uses those of each masked token, which the model does not predict, and therefore
overstates the quality of the model. If the targets are plain pixels, predictions are shown unchanged as
"leak-free".
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image, ImageDraw

from vidjax.layers.preprocess import denormalize, normalize
from vidjax.layers.transformer import patches
from vidjax.objectives.mae import draw

PANELS = ("original", "masked", "leak-free", "true statistics")
GREY = 0.5


def unpatch(tokens: jax.Array, patch: Sequence[int], grid: Sequence[int]) -> jax.Array:
    """Converts tokens [B, T' H' W', p_t p_h p_w C] to pixels [B, T, H, W, C], the inverse of `patches`."""
    (t, h, w), (pt, ph, pw) = grid, patch
    x = tokens.reshape(tokens.shape[0], t, h, w, pt, ph, pw, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(x.shape[0], t * pt, h * ph, w * pw, -1)


def reconstruct(
    model: Any,
    variables: Any,
    video: jax.Array,
    rng: jax.Array,
    mean: Sequence[float],
    std: Sequence[float],
    normalized: bool = True,
) -> dict[str, jax.Array]:
    """Reconstructs masked clips.

    Args:
      model: a masked autoencoder of `vidjax.models.masked.mae`.
      variables: variables of the model.
      video: uint8 [B, T, H, W, C]; T, H and W are multiples of the patch size.
      rng: key of the mask.
      mean, std: normalization statistics of the model.
      normalized: whether the model was trained on targets normalized per token.

    Returns:
      The `PANELS`, each float32 [B, T, H, W, C] in [0, 1]; without the last one if not `normalized`. If the
      model predicts one frame per tubelet, that frame is repeated.
    """
    clip = video.astype(jnp.float32) / 255
    grid, channels = model.token_grid(video.shape[1:]).shape, video.shape[-1]
    visible, decoded, _ = draw(model, rng, video.shape)
    predicted, _ = model.apply(variables, normalize(video, mean, std), False, visible, decoded)
    if model.predicts_one_frame:
        predicted = jnp.tile(predicted, (1, 1, model.patch[0]))
    true = patches(clip, model.patch).reshape(len(clip), -1, predicted.shape[-1])
    rows = jnp.arange(len(clip)).reshape(-1, 1)
    by_channel = lambda x: x.reshape(*x.shape[:2], -1, channels)  # noqa: E731
    shared = by_channel(true[rows, visible]).reshape(len(clip), 1, -1, channels)
    own = by_channel(true[rows, decoded])
    axes = (2, 3) if model.predicts_one_frame else 2  # statistics over the whole patch, or per channel

    def filled(pixels: jax.Array) -> jax.Array:
        pixels = jnp.clip(pixels, 0, 1).reshape(predicted.shape)
        shown = masked.at[rows, decoded].set(pixels).at[rows, visible].set(true[rows, visible])
        return unpatch(shown, *where)

    where = (model.patch, grid)
    masked = jnp.full_like(true, GREY).at[rows, visible].set(true[rows, visible])
    panels = [unpatch(true, *where), unpatch(masked, *where)]
    if normalized:
        pixels = by_channel(predicted)
        panels += [
            filled(pixels * x.std(axes, keepdims=True) + x.mean(axes, keepdims=True)) for x in (shared, own)
        ]
    elif model.predicts_one_frame:  # predicts the normalized video
        panels.append(filled(denormalize(by_channel(predicted), mean, std)))
    else:
        panels.append(filled(predicted))
    return dict(zip(PANELS, panels))


def sheet(panels: Mapping[str, np.ndarray], frames: int = 8, side: int = 96) -> Image.Image:
    """Draws the panels of one clip, each [T, H, W, C] in [0, 1], as labeled rows of frames."""
    return _rows(panels, np.linspace(0, len(panels[PANELS[0]]) - 1, frames).astype(int), side)


def animation(panels: Mapping[str, np.ndarray], side: int = 160) -> list[Image.Image]:
    """Draws the panels of one clip side by side, one image per frame."""
    columns = {name: np.asarray(x) for name, x in panels.items()}
    images = []
    for t in range(len(columns[PANELS[0]])):
        picture = Image.new("RGB", (len(columns) * (side + 4), side + 18), "white")
        for i, (name, x) in enumerate(columns.items()):
            picture.paste(_image(x[t], side), (i * (side + 4), 18))
            ImageDraw.Draw(picture).text((i * (side + 4) + 2, 3), name, fill="black")
        images.append(picture)
    return images


def _rows(panels: Mapping[str, np.ndarray], chosen: np.ndarray, side: int) -> Image.Image:
    label = 100
    picture = Image.new("RGB", (label + len(chosen) * (side + 2), len(panels) * (side + 2)), "white")
    for row, (name, x) in enumerate(panels.items()):
        ImageDraw.Draw(picture).text((4, row * (side + 2) + side // 2), name, fill="black")
        for column, t in enumerate(chosen):
            picture.paste(_image(np.asarray(x)[t], side), (label + column * (side + 2), row * (side + 2)))
    return picture


def _image(frame: np.ndarray, side: int) -> Image.Image:
    pixels = np.round(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    pixels = np.repeat(pixels, 3, -1) if pixels.shape[-1] == 1 else pixels
    return Image.fromarray(pixels).resize((side, side), Image.NEAREST)
