"""From images to video: 2D weights for 3D networks, and image positions for space-time tokens.

Pure functions of arrays; each docstring states in which sense the result equals the source.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vidjax.errors import UserError, unknown

MODES = ("average", "centre")


def inflate_kernel(kernel: np.ndarray, frames: int, mode: str = "average") -> np.ndarray:
    """Inflates an image kernel [..., Cin, Cout] to a clip kernel [frames, ..., Cin, Cout].

    "average" repeats it over time and divides by `frames` (Carreira & Zisserman, arXiv:1705.07750, section
    2.4; "filter inflation" in ViViT, arXiv:2103.15691, section 3.4). "centre" puts it at frame `frames // 2`
    among zeros (ViViT's "central frame initialization", ibid.). On a clip of one repeated frame both answer
    as the 2D kernel does, wherever the window lies inside the clip; "centre" answers for each frame apart,
    padding included. A tubelet embedding is inflated in the same way as any other kernel.
    """
    if mode not in MODES:
        raise unknown("mode of inflation", mode, MODES)
    if mode == "average":
        return np.repeat(kernel[None] / frames, frames, axis=0)
    out = np.zeros((frames, *kernel.shape), kernel.dtype)
    out[frames // 2] = kernel
    return out


def inflate(
    variables: Mapping[str, Any], target: Mapping[str, Any], mode: str = "average", skip: Sequence[str] = ()
) -> dict[str, Any]:
    """Inflates the variables of a 2D network for the 3D network with the same submodule names.

    Args:
      variables: of the image network: nested, "params" and "batch_stats".
      target: shapes of the video network's variables, from `jax.eval_shape`.
      mode: see `inflate_kernel`.
      skip: prefixes of paths, such as "params/head", to leave out of the result.

    Returns:
      The video network's variables, but for what is skipped: kernels of one more axis inflated, all else as
      it was.

    Raises:
      UserError: listing every path that only one side has, and every shape that does not follow.
    """
    have, want = (
        {k: x for k, x in flatten_dict(tree, sep="/").items() if not k.startswith(tuple(skip))}
        for tree in (variables, target)
    )
    out, problems = {}, []
    for path in sorted(have.keys() | want.keys()):
        if path not in have or path not in want:
            side = "image" if path in have else "video"
            problems.append(f"{path} {(have.get(path, want.get(path))).shape}: only in the {side} network")
            continue
        x, shape = np.asarray(have[path]), tuple(want[path].shape)
        if len(shape) == x.ndim + 1 and path.endswith("/kernel"):
            x = inflate_kernel(x, shape[0], mode)
        if x.shape != shape:
            problems.append(f"{path}: {have[path].shape} cannot be inflated to {shape}")
        out[path] = x
    if problems:
        raise UserError(f"cannot inflate ({len(problems)} problems): " + "; ".join(problems))
    return unflatten_dict(out, sep="/")


def adapt_channels(kernel: np.ndarray, channels: int, mode: str = "average") -> np.ndarray:
    """Adapts the first kernel [..., Cin, Cout] to another number of input channels.

    "average": every channel gets the average over Cin, for flow or grey pictures (Wang et al.,
    arXiv:1608.00859, section 3.2). "tile": the kernel repeated, for frames stacked in the channels. Both are
    scaled by Cin / channels, so that an input of equal channels (or of equal frames) is answered as before;
    the paper leaves the scale to BatchNorm.

    Raises:
      UserError: "tile" to a number of channels that is no multiple of Cin.
    """
    have = kernel.shape[-2]
    if mode == "average":
        kernel, copies = kernel.mean(-2, keepdims=True), channels
    elif mode == "tile":
        copies, rest = divmod(channels, have)
        if rest:
            raise UserError(f"{channels} channels are no multiple of the {have} that the kernel takes")
    else:
        raise unknown("way to adapt channels", mode, ("average", "tile"))
    kernel = kernel * np.asarray(have / channels, kernel.dtype)
    return np.concatenate([kernel] * copies, axis=-2)


def interpolate_positions(
    positions: np.ndarray,
    grid: Sequence[int],
    new_grid: Sequence[int],
    prefix: int = 0,
    method: str = "cubic",
) -> np.ndarray:
    """Interpolates position embeddings to another input size, in one, two or three dimensions.

    Args:
      positions: [prefix + N, D], N = product of `grid`, the last axis of the grid fastest.
      grid: sizes such as (H, W) or (T, H, W).
      new_grid: the sizes wanted, of as many axes.
      prefix: embeddings of class tokens in front, which stay.
      method: "cubic" or "linear", sampled at the centers of the cells, without smoothing.

    Returns:
      [prefix + N', D]. Equal grids give back `positions`; growing an axis by an odd factor and shrinking it
      again does as well.

    Raises:
      UserError: the grid is not that of the positions, or the two differ in their number of axes.
    """
    if len(grid) != len(new_grid) or len(positions) != prefix + np.prod(grid):
        raise UserError(
            f"{len(positions)} positions, {prefix} of class tokens, are not on a grid of {tuple(grid)}, or "
            f"cannot go to {tuple(new_grid)}"
        )
    if tuple(grid) == tuple(new_grid):
        return positions
    tokens, width = positions[prefix:], positions.shape[-1]
    resized = jax.image.resize(
        tokens.reshape(*grid, width), (*new_grid, width), method, antialias=False, precision="highest"
    )
    return np.concatenate([positions[:prefix], np.asarray(resized).reshape(-1, width)])


def tile_positions(positions: np.ndarray, frames: int, prefix: int = 0) -> np.ndarray:
    """Positions of images [prefix + N, D] for clips [prefix + frames * N, D], equal in every frame (ViViT,
    arXiv:2103.15691, section 3.4)."""
    tokens = positions[prefix:]
    return np.concatenate([positions[:prefix], *[tokens] * frames])


def factorise_positions(positions: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions of clips [frames * N, D] as a sum of space [N, D] and time [frames, D], by least squares.

    The spatial part carries the average, so tiled image positions give themselves and zeros in time.
    """
    grid = positions.reshape(frames, -1, positions.shape[-1])
    space = grid.mean(0)
    return space, grid.mean(1) - space.mean(0)
