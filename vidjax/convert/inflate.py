"""Inflation of 2D weights for 3D networks, and of image position embeddings for space-time tokens.

Pure functions of arrays; each docstring states in what sense the result is equivalent to the source.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from vidjax.errors import UserError, unknown

MODES = ("average", "centre")


def inflate_kernel(kernel: np.ndarray, frames: int, mode: str = "average") -> np.ndarray:
    """Inflates an image kernel [..., Cin, Cout] to a video kernel [frames, ..., Cin, Cout].

    "average" repeats the kernel over time and divides it by `frames` (Carreira & Zisserman, arXiv:1705.07750,
    section 2.4; "filter inflation" in ViViT, arXiv:2103.15691, section 3.4). "centre" places it at frame
    `frames // 2` and fills the others with zeros (ViViT's "central frame initialization", ibid.). On a clip
    of one repeated frame, both produce the output of the 2D kernel wherever the window lies inside the clip.
    "centre" applies the 2D kernel to each frame separately, also at the padded borders. Tubelet embeddings
    are inflated like any other kernel.

    Raises:
      UserError: `mode` is not one of `MODES`.
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
      variables: nested variables of the image network, "params" and "batch_stats".
      target: shapes of the video network's variables, from `jax.eval_shape`.
      mode: see `inflate_kernel`.
      skip: prefixes of paths, such as "params/head", to omit from the result.

    Returns:
      The video network's variables without the skipped ones. Kernels that have one more axis in `target` are
      inflated, all other arrays are copied.

    Raises:
      UserError: lists all paths that only one network has, and all shapes that do not match.
    """
    flat, shapes = (
        {k: x for k, x in flatten_dict(tree, sep="/").items() if not k.startswith(tuple(skip))}
        for tree in (variables, target)
    )
    out, problems = {}, []
    for path in sorted(flat.keys() | shapes.keys()):
        if path not in flat or path not in shapes:
            side = "image" if path in flat else "video"
            problems.append(f"{path} {(flat.get(path, shapes.get(path))).shape}: only in the {side} network")
            continue
        x, shape = np.asarray(flat[path]), tuple(shapes[path].shape)
        if len(shape) == x.ndim + 1 and path.endswith("/kernel"):
            x = inflate_kernel(x, shape[0], mode)
        if x.shape != shape:
            problems.append(f"{path}: {flat[path].shape} cannot be inflated to {shape}")
        out[path] = x
    if problems:
        raise UserError(f"cannot inflate ({len(problems)} problems): " + "; ".join(problems))
    return unflatten_dict(out, sep="/")


def adapt_channels(kernel: np.ndarray, channels: int, mode: str = "average") -> np.ndarray:
    """Adapts the first kernel [..., Cin, Cout] to another number of input channels.

    "average" uses the mean over Cin for every channel, for flow or gray images (Wang et al.,
    arXiv:1608.00859, section 3.2). "tile" repeats the kernel, for frames stacked along the channels. Both
    scale it by Cin / channels, so that the output is unchanged for inputs with equal channels (or equal
    frames); the paper leaves the scale to BatchNorm.

    Returns:
      The kernel [..., channels, Cout].

    Raises:
      UserError: `mode` is unknown, or is "tile" and `channels` is not a multiple of Cin.
    """
    source_channels = kernel.shape[-2]
    if mode == "average":
        kernel, copies = kernel.mean(-2, keepdims=True), channels
    elif mode == "tile":
        copies, rest = divmod(channels, source_channels)
        if rest:
            raise UserError(f"{channels} input channels are not a multiple of the kernel's {source_channels}")
    else:
        raise unknown("way to adapt channels", mode, ("average", "tile"))
    kernel = kernel * np.asarray(source_channels / channels, kernel.dtype)
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
      positions: [prefix + N, D], N = product of `grid`, in row-major order.
      grid: sizes such as (H, W) or (T, H, W).
      new_grid: target sizes, of as many axes.
      prefix: number of leading embeddings of class tokens, which are kept.
      method: "cubic" or "linear", sampled at cell centers without antialiasing.

    Returns:
      [prefix + N', D]. If the grids are equal, `positions`. Enlarging an axis by an odd factor and reducing
      it again is the identity.

    Raises:
      UserError: the positions do not match `grid`, or the grids differ in their number of axes.
    """
    if len(grid) != len(new_grid) or len(positions) != prefix + np.prod(grid):
        raise UserError(
            f"cannot interpolate {len(positions)} positions ({prefix} of class tokens) from the grid "
            f"{tuple(grid)} to {tuple(new_grid)}"
        )
    if tuple(grid) == tuple(new_grid):
        return positions
    tokens, width = positions[prefix:], positions.shape[-1]
    resized = jax.image.resize(
        tokens.reshape(*grid, width), (*new_grid, width), method, antialias=False, precision="highest"
    )
    return np.concatenate([positions[:prefix], np.asarray(resized).reshape(-1, width)])


def tile_positions(positions: np.ndarray, frames: int, prefix: int = 0) -> np.ndarray:
    """Repeats image positions [prefix + N, D] for each frame of a clip (ViViT, arXiv:2103.15691, section
    3.4).

    Returns:
      [prefix + frames * N, D].
    """
    tokens = positions[prefix:]
    return np.concatenate([positions[:prefix], *[tokens] * frames])


def factorise_positions(positions: np.ndarray, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Factorizes clip positions [frames * N, D] into a sum of space [N, D] and time [frames, D].

    This is the least-squares solution. The spatial part contains the mean, so tiled image positions yield the
    image positions and zeros in time.
    """
    grid = positions.reshape(frames, -1, positions.shape[-1])
    space = grid.mean(0)
    return space, grid.mean(1) - space.mean(0)
