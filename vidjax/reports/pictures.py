"""Visualization of clips, as an animated GIF and as a strip of frames."""

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from vidjax.flow import picture

INK, MUTED, ACCENT, TRACK = "#1c2430", "#5d6878", "#2f6fdf", "#e6eaf0"

# (colors, scale, frame step) that `gif` tries in turn until the file is small enough.
LADDER = (128, 1, 1), (64, 1, 1), (64, 0.8, 1), (48, 0.65, 1), (32, 0.5, 1), (32, 0.5, 2), (16, 0.5, 8)


def watchable(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the stream of a clip to visualize: the RGB frames if there are any."""
    return inputs["rgb" if "rgb" in inputs else "flow"]


def gif(frames: np.ndarray, fps: float = 8.0, size: int = 192, limit: int | None = None) -> bytes:
    """Encodes a clip as an endlessly looping GIF.

    Args:
      frames: uint8 [T, H, W, C], C = 1 (gray), 2 (flow, shown in colors) or 3.
      fps: playback speed in frames per second.
      size: longer side in pixels; small clips are enlarged by an integer factor.
      limit: maximum size in bytes, reached by reducing the colors, the resolution and finally the frames. If
        an eighth of the frames at half the size is still larger, that is returned.

    Returns:
      The contents of the GIF file.

    Raises:
      ValueError: `frames` has another shape or dtype.
    """
    images = _images(frames)
    for colors, scale, step in LADDER:
        data = _gif([_fit(im, int(size * scale)) for im in images[::step]], fps / step, colors)
        if limit is None or len(data) <= limit:
            break
    return data


def strip(
    frames: np.ndarray,
    captions: Sequence[str] = (),
    title: str = "",
    probs: Sequence[tuple[str, float]] = (),
    columns: int = 8,
    tile: int = 160,
) -> Image.Image:
    """Draws frames side by side on white; save the image with `strip(...).save("out.png")`.

    Args:
      frames: uint8 [T, H, W, C] as in `gif`. All frames are drawn, so sample them first.
      captions: one line under each frame, e.g. its time.
      title: lines above the frames.
      probs: (class name, probability) pairs, drawn as bars below the frames.
      columns: frames per row.
      tile: longer side of a frame in pixels.

    Raises:
      ValueError: `frames` has another shape or dtype, or the number of captions differs.
    """
    images = [_fit(im, tile) for im in _images(frames)]
    if captions and len(captions) != len(images):
        raise ValueError(f"{len(captions)} captions for {len(images)} frames")
    font = ImageFont.truetype(findfont("DejaVu Sans"), 13)
    big = ImageFont.truetype(findfont("DejaVu Sans:bold"), 16)
    gap, line, head = 8, 20, 26
    w, h = images[0].size
    columns = min(columns, len(images))
    row = h + (line if captions else 0) + gap
    titles = title.splitlines()
    top = gap + head * len(titles)
    bars = top + row * -(-len(images) // columns)
    width = max(gap + columns * (w + gap), 420 if title or probs else 0)
    out = Image.new("RGB", (width, bars + (line * len(probs) + gap if probs else 0)), "white")
    draw = ImageDraw.Draw(out)

    for i, text in enumerate(titles):
        draw.text((gap, gap + head * i), _clip_text(text, big, width - 2 * gap), INK, big)
    for i, im in enumerate(images):
        x, y = gap + i % columns * (w + gap), top + i // columns * row
        out.paste(im, (x, y))
        if captions:
            text = _clip_text(captions[i], font, w)
            draw.text((x + w / 2, y + h + 2), text, MUTED, font, anchor="ma")
    across = min(width, 800)
    name_width, bar = int(0.45 * across), int(0.35 * across)
    for i, (name, p) in enumerate(probs):
        y, x = bars + line * i, gap + name_width
        draw.text((gap, y), _clip_text(name, font, name_width - gap), INK, font)
        draw.rectangle((x, y + 3, x + bar, y + 13), TRACK)
        draw.rectangle((x, y + 3, x + round(bar * p), y + 13), ACCENT)
        draw.text((x + bar + gap, y), f"{p:.1%}", INK, font)
    return out


def _images(frames: np.ndarray) -> list[Image.Image]:
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or not frames.size or frames.shape[-1] not in (1, 2, 3):
        raise ValueError(f"a clip must be uint8 [T, H, W, 1 to 3], got {frames.dtype} {list(frames.shape)}")
    if frames.shape[-1] == 2:
        frames = picture(frames)
    return [Image.fromarray(np.broadcast_to(f, (*f.shape[:2], 3)).copy()) for f in frames]


def _fit(image: Image.Image, size: int) -> Image.Image:
    """Enlarges by an integer factor, or reduces with antialiasing, to a longer side of about `size`."""
    longer = max(image.size)
    factor = size // longer if size >= longer else size / longer
    shape = tuple(max(1, round(side * factor)) for side in image.size)
    return image.resize(shape, Image.Resampling.NEAREST if factor >= 1 else Image.Resampling.LANCZOS)


def _gif(images: list[Image.Image], fps: float, colors: int) -> bytes:
    # One palette for the whole clip and no dithering, so that static areas do not flicker and the file is
    # smaller. The palette is computed from a quarter of the pixels, for speed.
    w, h = images[0].size
    column = Image.new("RGB", (w, h * len(images)))
    for i, im in enumerate(images):
        column.paste(im, (0, i * h))
    sample = column.resize(((w + 1) // 2, (column.height + 1) // 2), Image.Resampling.NEAREST)
    palette = sample.quantize(colors, dither=Image.Dither.NONE)
    column = column.quantize(palette=palette, dither=Image.Dither.NONE)
    first, *rest = (column.crop((0, i * h, w, (i + 1) * h)) for i in range(len(images)))
    out = io.BytesIO()
    delay = max(20, 1000 / fps)  # ms; browsers play shorter delays more slowly
    first.save(out, "GIF", save_all=True, append_images=rest, duration=delay, loop=0)
    return out.getvalue()


def _clip_text(text: str, font: ImageFont.FreeTypeFont, width: float) -> str:
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"
