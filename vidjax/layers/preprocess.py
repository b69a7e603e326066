"""Conversion of the inputs of a batch to what a model takes, on the device."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vidjax.registry import ModelSpec


@dataclasses.dataclass(frozen=True)
class Inputs:
    """Which streams a model takes, and how they are normalized.

    Attributes:
      streams: names of the streams of a batch, see `vidjax.data.streams`.
      mean, std: per channel, on a scale of 0 to 1, for each stream of uint8; others are not normalized.
      single: whether the model takes an array instead of a dict of streams.
    """

    streams: tuple[str, ...]
    mean: Mapping[str, tuple[float, ...]]
    std: Mapping[str, tuple[float, ...]]
    single: bool = True

    def __call__(self, inputs: Mapping[str, jax.Array]) -> Any:
        """Returns the model's argument: an array, or a dict of arrays, float32 where the input was uint8."""
        prepared = {name: self._prepare(name, inputs[name]) for name in self.streams}
        return prepared[self.streams[0]] if self.single else prepared

    def _prepare(self, name: str, x: jax.Array) -> jax.Array:
        return normalize(x, self.mean[name], self.std[name]) if x.dtype == jnp.uint8 else x

    def abstract(self, clip: Mapping[str, np.ndarray], batch: int = 1) -> Any:
        """Returns the shapes and dtypes of the model's argument for a batch of a clip's shapes."""
        shapes = {k: jax.ShapeDtypeStruct((batch, *x.shape), x.dtype) for k, x in clip.items()}
        return jax.eval_shape(self, shapes)


def model_inputs(spec: ModelSpec, streams: Sequence[str], data: Any = None) -> Inputs:
    """Returns the inputs of a registered model.

    Args:
      spec: the model.
      streams: the streams it takes, see `registry.streams`.
      data: the data section of a config, whose mean and std replace those of the model if they are set.
    """
    mean, std = spec.mean, spec.std
    if data is not None and data.mean is not None:
        mean, std = tuple(data.mean), tuple(data.std)
    named = [x if isinstance(x, Mapping) else dict.fromkeys(streams, x) for x in (mean, std)]
    return Inputs(tuple(streams), *named, single=not isinstance(spec.input_shape, Mapping))


def normalize(video: jax.Array, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Converts uint8 video [..., C] to float32, (video / 255 - mean) / std.

    Args:
      video: pixels.
      mean, std: per channel, on a scale of 0 to 1, averaged for one-channel video.
    """
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
