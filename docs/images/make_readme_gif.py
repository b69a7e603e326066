"""Draws docs/images/demo.gif, the picture of the README, from the runs of the demo.

  vidjax demo --workdir runs/demo
  python docs/images/make_readme_gif.py runs/demo

Each row is a test clip of the embedded motions: the clip, the frames that the masked autoencoder sees, its
prediction of the others, and the classes that the fine-tuned ViT predicts.
"""

import io
import pathlib
import sys

import jax
import numpy as np
from matplotlib.font_manager import findfont
from PIL import Image, ImageDraw, ImageFont

from vidjax.checkpoint_io import load_variables
from vidjax.config import restore
from vidjax.data.pipeline import eval_batches
from vidjax.evaluation.reconstructions import reconstruct
from vidjax.tasks.results import ClassificationResult
from vidjax.train.experiment import build, load_sources

SHOWN = ("move_right", "speed_slow", "shrink_then_snap")
SIDE, GAP, TOP, BARS = 160, 10, 30, 250
INK, MUTED, ACCENT, TRACK = "#1c2430", "#5d6878", "#2f6fdf", "#e6eaf0"


def main(demo: pathlib.Path) -> None:
    result = ClassificationResult.load(demo / "ViT_pretrained" / "result.npz")
    logits = result.logits.mean(1)
    scores = np.exp(logits - logits.max(1, keepdims=True))
    scores /= scores.sum(1, keepdims=True)
    names = list(result.class_names)
    right = scores.argmax(1) == result.labels
    chosen, clips = [], []
    for name in SHOWN:  # of each class, the correctly predicted clip with the lowest reconstruction error
        candidates = np.flatnonzero(right & (result.labels == names.index(name)))
        panels = _panels(demo / "pretraining", [result.ids[i] for i in candidates])
        best = int(np.argmin([np.square(p["leak-free"] - p["original"]).mean() for p in panels]))
        chosen.append(candidates[best])
        clips.append(panels[best])
    tops = [_top(names, scores[i]) for i in chosen]
    frames = [_frame(clips, t, tops) for t in range(len(clips[0]["original"]))]
    palette = _stacked(frames).quantize(224, dither=Image.Dither.NONE)
    first, *rest = (f.quantize(palette=palette, dither=Image.Dither.NONE) for f in frames)
    out = io.BytesIO()
    first.save(out, "GIF", save_all=True, append_images=rest, duration=250, loop=0, optimize=True)
    path = pathlib.Path(__file__).with_name("demo.gif")
    path.write_bytes(out.getvalue())
    print(f"{path}: {len(out.getvalue()) / 1e3:.0f} kB")


def _panels(run: pathlib.Path, ids: list[str]) -> list[dict[str, np.ndarray]]:
    """Returns the panels of `reconstruct` of each video, [T, H, W, C] in [0, 1]."""
    variables, meta = load_variables(run)
    config = restore(meta["config"])
    exp = build(config)
    _, test = load_sources(config)
    numbers = [[test[i].id for i in range(len(test))].index(name) for name in ids]
    batches = eval_batches(test, config.data, 1, 1, 1)
    videos = {int(b["index"][0]): b["inputs"]["rgb"][:, 0] for b in batches if int(b["index"][0]) in numbers}
    panels = reconstruct(
        exp.model,
        variables,
        np.concatenate([videos[i] for i in numbers]),
        jax.random.PRNGKey(0),
        exp.task.inputs.mean["rgb"],
        exp.task.inputs.std["rgb"],
        exp.task.normalize_targets,
    )
    return [{name: np.asarray(x[i]) for name, x in panels.items()} for i in range(len(ids))]


def _top(names: list[str], scores: np.ndarray) -> list[tuple[str, float]]:
    return [(names[k].replace("_", " "), float(scores[k])) for k in np.argsort(-scores)[:4]]


def _font(size: int, bold: bool = False) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(findfont("DejaVu Sans:bold" if bold else "DejaVu Sans"), size)


def _frame(clips: list[dict], t: int, tops: list[list[tuple[str, float]]]) -> Image.Image:
    columns = ("video", "visible frames", "reconstruction")
    width = 3 * (SIDE + GAP) + BARS + 2 * GAP
    image = Image.new("RGB", (width, TOP + len(clips) * (SIDE + GAP)), "white")
    draw = ImageDraw.Draw(image)
    for c, title in enumerate(columns):
        draw.text((GAP + c * (SIDE + GAP) + SIDE / 2, 8), title, INK, _font(12, True), anchor="ma")
    left = GAP + 3 * (SIDE + GAP) + GAP
    draw.text((left, 8), "predicted motion", INK, _font(12, True))
    for r, (clip, top) in enumerate(zip(clips, tops)):
        y = TOP + r * (SIDE + GAP)
        for c, name in enumerate(("original", "masked", "leak-free")):
            pixels = np.round(clip[name][t] * 255).astype(np.uint8)
            tile = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            if name == "masked" and not np.ptp(clip[name][t]):
                tile.paste("#d4d9e0", (0, 0, SIDE, SIDE))
                ImageDraw.Draw(tile).text((SIDE / 2, SIDE / 2), "masked", MUTED, _font(13), anchor="mm")
            image.paste(tile, (GAP + c * (SIDE + GAP), y))
        for k, (name, p) in enumerate(top):
            line = y + 8 + 38 * k
            draw.text((left, line), name, INK if k == 0 else MUTED, _font(12, k == 0))
            draw.text((left + BARS - 20, line), f"{p:.0%}", MUTED, _font(12), anchor="ra")
            draw.rectangle((left, line + 18, left + BARS - 20, line + 24), TRACK)
            draw.rectangle((left, line + 18, left + round((BARS - 20) * p), line + 24), ACCENT)
    return image


def _stacked(frames: list[Image.Image]) -> Image.Image:
    column = Image.new("RGB", (frames[0].width, frames[0].height * len(frames)))
    for i, frame in enumerate(frames):
        column.paste(frame, (0, i * frame.height))
    return column


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
