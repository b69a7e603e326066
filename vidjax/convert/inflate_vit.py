"""Initialization of video transformers from image ViTs.

ViViT (Arnab et al., arXiv:2103.15691, section 3.4) and TimeSformer.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vidjax.convert.inflate import inflate_kernel, interpolate_positions, tile_positions
from vidjax.errors import UserError

FRESH = r"^params/(head/|time_(?!embed))"  # the classifier; the second encoder of ViViT's model 2
# Attention layers that the image model lacks, and the layers that they copy.
_EXTRA = re.compile(r"(params/block[0-9]+)/([a-z]+)_(norm|attn|fc)/(.+)")
_COPIED = {"norm": "norm1", "attn": "attn"}


def inflate_vit(
    image: Mapping[str, np.ndarray], target: Mapping[str, Any], grid: tuple[int, int], mode: str = "centre"
) -> tuple[dict[str, np.ndarray], list[str]]:
    """Converts the parameters of an image ViT to a video transformer of the same width and depth.

    The patch embedding is inflated in time, and the position embeddings are resized and repeated over time.
    Attention layers that the image model lacks are copies of its own, except for their last layer, which is
    zero, so that they have no effect initially. TimeSformer's temporal positions are zero as well.

    Args:
      image: arrays of the image model by path, with unstacked blocks and without the classifier.
      target: shapes of the video model by path.
      grid: (H', W'), token grid of the video model's positions.
      mode: inflation of the patch embedding, see `inflate_kernel`.

    Returns:
      The arrays by path, without those that match `FRESH`, and a short description of each step.

    Raises:
      UserError: lists all paths without a source, and all shapes that do not match.
    """
    out, notes, problems = {}, {}, []
    for path, shape in ((k, tuple(x.shape)) for k, x in target.items()):
        if re.search(FRESH, path):
            continue
        found = _EXTRA.fullmatch(path)
        origin = f"{found[1]}/{_COPIED.get(found[3])}/{found[4]}" if found else path
        last = f"{found[1]}/{found[2]}_fc/kernel" in target if found else False
        if path == "params/time_embed" or (found and (found[3] == "fc" or (not last and "proj/" in path))):
            x = np.zeros(shape, np.float32)
            name = "/".join(path.split("/")[2 if found else 1 : -1 if found else None])
            notes[f"{name} is zero"] = None
        elif origin not in image:
            problems.append(f"{path} {shape}: not in the image model")
            continue
        else:
            x = np.asarray(image[origin])
            if found:
                notes[f"{found[2]}_{found[3]} is a copy of {_COPIED[found[3]]}"] = None
        if path == "params/patch_embed/kernel":
            if shape[0] > 1:
                notes[f"patches are inflated to {shape[0]} frames ({mode})"] = None
            x = inflate_kernel(x, shape[0], mode)
        elif path == "params/pos_embed":
            slices, first = divmod(shape[1], math.prod(grid))
            x = _positions(x[0], grid, slices, first)[None]
            if slices > 1:
                notes[f"positions are repeated over {slices} slices"] = None
        if x.shape != shape:
            problems.append(f"{origin}: {np.shape(image.get(origin))} cannot become {path} {shape}")
        out[path] = x
    if problems:
        raise UserError(f"cannot inflate ({len(problems)} problems): " + "; ".join(problems))
    if "params/cls_token" not in target:
        notes["the class token is left out"] = None
    if fresh := {re.sub(r"[0-9]+$", "s", k.split("/")[1]): None for k in target if re.search(FRESH, k)}:
        notes[f"{', '.join(fresh)} are newly initialized"] = None
    return out, list(notes)


def _positions(positions: np.ndarray, grid: tuple[int, int], slices: int, first: int) -> np.ndarray:
    """Converts positions [1 + N, D] of a square image to [first + slices * N', D]."""
    side = math.isqrt(len(positions) - 1)
    resized = interpolate_positions(positions, (side, side), grid, prefix=1)
    return tile_positions(resized[1 - first :], slices, first)
