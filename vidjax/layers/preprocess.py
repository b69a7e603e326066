"""Normalization of uint8 video to float, on the device."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from vidjax.registry import ModelSpec


def statistics(spec: ModelSpec, data: Any) -> dict[str, Any]:
    """Returns the `mean` and `std` that clips are normalized by: those of a config's data section or, where
    they are None, the model's."""
    if data.mean is None:
        return {"mean": spec.mean, "std": spec.std}
    return {"mean": tuple(data.mean), "std": tuple(data.std)}


def normalize(video: Any, mean: Sequence[float] | Mapping, std: Sequence[float] | Mapping) -> Any:
    """Converts uint8 video [..., C] to float32, (video / 255 - mean) / std.

    Args:
      video: an array, or a dict of streams; float arrays (cached features) are returned unchanged.
      mean, std: per channel, on a scale of 0 to 1, averaged for one-channel video; dicts if `video` is one.
    """
    if isinstance(video, Mapping):
        return {stream: normalize(x, mean[stream], std[stream]) for stream, x in video.items()}
    if jnp.issubdtype(video.dtype, jnp.floating):  # cached features
        return video
    mean, std = _statistics(video, mean, std)
    # In double precision, so that flow's 128 becomes exactly 0.
    scale, shift = ((1 / (255 * std)).astype(np.float32), (mean / std).astype(np.float32))
    return video.astype(jnp.float32) * scale - shift


def denormalize(video: Any, mean: Sequence[float], std: Sequence[float]) -> Any:
    """Inverts `normalize`: float [..., C] to float32 in 0 to 1."""
    mean, std = (x.astype(np.float32) for x in _statistics(video, mean, std))
    return video * std + mean


def _statistics(video: Any, mean: Sequence[float], std: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Returns mean and std reshaped to broadcast with `video`."""
    mean, std = np.asarray(mean), np.asarray(std)
    if video.shape[-1] == 1:
        mean, std = mean.mean(keepdims=True), std.mean(keepdims=True)
    shape = (1,) * (video.ndim - 1) + mean.shape
    return mean.reshape(shape), std.reshape(shape)
