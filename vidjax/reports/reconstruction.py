"""Drawing of a masked autoencoder's reconstructions next to the original and the masked clip."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

PANELS = ("original", "masked", "leak-free", "true statistics")


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
