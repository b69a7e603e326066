"""Receptive fields: the frames, rows and columns of the input that an element of an endpoint depends on.

`computed` propagates intervals of input positions through the jaxpr, without running the model. `measured`
runs the model and finds the nonzero elements of the gradient. For convolutional networks both give the same
intervals. The element is the middle one of the endpoint, n // 2 on each axis, over all channels.
"""

import dataclasses
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidjax.analysis import graph
from vidjax.analysis.intervals import Interval, outputs

Intervals = dict[
    str, tuple[Interval, ...]
]  # endpoint -> (first, last) position on each axis; last < first: none
PROBE = (1024, 4096, 4096)  # T, H, W that contain an unclipped field


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field of an endpoint, (T, H, W), or (H, W) for an image model.

    Attributes:
      clipped: positions of the actual input that the middle element depends on.
      unclipped: the same for an unbounded input; None on an axis where the field always spans the input
        (global average, attention), "past" where it spans everything before the element (running average).
        None for a model whose parameters depend on the input size.
    """

    clipped: tuple[int, ...]
    unclipped: tuple[int | str | None, ...] | None


def receptive_fields(
    model: nn.Module, input_shape: tuple[int, ...], g: graph.Graph | None = None, unclipped: bool = True
) -> dict[str, Field]:
    """Returns the field of each endpoint of `model` for an input of `input_shape`, (T, H, W, C) or (H, W, C).

    Args:
      model: a registered model, or any model that returns logits and endpoints.
      input_shape: shape of one input without the batch axis.
      g: the traced model; traced here if None.
      unclipped: also trace the model on an input of at least `PROBE`. Not for transformers, whose cost is
        quadratic in the input.
    """
    inside = computed(model, input_shape, g)
    *axes, channels = input_shape
    large = tuple(n * -(-probe // n) for n, probe in zip(axes, PROBE[-len(axes) :]))
    free = {}
    if unclipped:
        try:
            free = computed(model, (*large, channels))
        except ValueError:  # the model requires its number of frames
            large = (axes[0], *large[1:])
            free = computed(model, (*large, channels))
    return {
        name: Field(
            clipped=tuple(_length(i) for i in found),
            unclipped=tuple(map(_endless, free[name], large)) if unclipped else None,
        )
        for name, found in inside.items()
    }


def _endless(interval: Interval, size: int) -> int | str | None:
    """Returns the value of `Field.unclipped` for an axis of `size`."""
    if _length(interval) == size:
        return None
    # Only an unbounded field starts at the start of an input as long as the probe.
    return "past" if size >= min(PROBE) and interval[0] == 0 < interval[1] else _length(interval)


def computed(model: nn.Module, input_shape: tuple[int, ...], g: graph.Graph | None = None) -> Intervals:
    """Returns the intervals of each endpoint from the graph `g` of the model (traced here if None).

    An operation without a rule is assumed to depend on all of its inputs, so an interval can be too long but
    never too short.
    """
    g = g or graph.trace(model, input_shape)
    found = outputs(g.jaxpr, axes=range(1, len(input_shape)))
    return {name: tuple(_middle(i, g.shape(name)) for i in found[k]) for name, k in g.endpoints.items()}


def _middle(interval: Interval, shape: tuple[int, ...]) -> Interval:
    ends = []
    for bound, hull in zip(interval, (np.min, np.max)):
        *axes, _ = bound.shape
        at = tuple(n // 2 if m > 1 else 0 for n, m in zip(shape, axes))
        ends.append(int(hull(bound[at])))
    return ends[0], ends[1]


def _length(interval: Interval) -> int:
    return max(0, interval[1] - interval[0] + 1)


def measured(model: nn.Module, input_shape: tuple[int, ...], seed: int = 0) -> Intervals:
    """Returns the intervals of each endpoint from gradients of the model with random positive weights.

    With positive weights nothing cancels and every ReLU is active. Max pooling passes the gradient to the
    largest element only, so the gradients of several inputs are combined: increasing and decreasing ramps,
    which reach both ends of a window, and noise, which does so next to padding. Inputs are small, so that no
    sigmoid saturates.
    """
    rng = np.random.default_rng(seed)
    shapes = graph.abstract_variables(model, input_shape)
    variables = jax.tree_util.tree_map_with_path(lambda path, x: _positive(path, x, rng), shapes)
    ramp = sum(np.meshgrid(*(np.linspace(0, 1, n) for n in input_shape[:-1]), indexing="ij"))[..., None]
    ramps = [np.broadcast_to(1e-4 * r, (1, *input_shape)) for r in (0.1 + ramp, 0.1 + ramp.max() - ramp)]
    videos = [*ramps, *1e-4 * rng.lognormal(sigma=2.0, size=(4, 1, *input_shape))]

    @jax.jit
    def seen(video: jax.Array) -> dict[str, list[jax.Array]]:
        endpoints, pull = jax.vjp(lambda x: graph.flat(model.apply(variables, x, train=False)[1]), video)
        zero = jax.tree.map(jnp.zeros_like, endpoints)
        found = {}
        for name, x in endpoints.items():
            at = tuple(n // 2 for n in x.shape[:-1])
            (grad,) = pull(zero | {name: zero[name].at[at].set(1)})
            axes = range(1, video.ndim - 1)
            found[name] = [jnp.any(grad != 0, [a for a in range(video.ndim) if a != axis]) for axis in axes]
        return found

    every = [seen(jnp.asarray(v, jnp.float32)) for v in videos]
    joined: dict[str, Any] = jax.tree.map(lambda *xs: np.any(xs, 0), *every)
    return {name: tuple(_ends(x) for x in found) for name, found in joined.items()}


def _positive(path: Any, x: jax.ShapeDtypeStruct, rng: np.random.Generator) -> jax.Array:
    if path[0].key != "params":  # running statistics
        return jnp.full(x.shape, path[-1].key == "var", x.dtype)
    if path[-1].key == "bias":
        return jnp.zeros(x.shape, x.dtype)
    return jnp.asarray(rng.exponential(size=x.shape) / max(1, math.prod(x.shape[:-1])), x.dtype)


def _ends(seen: np.ndarray) -> Interval:
    where = np.flatnonzero(seen)
    return (int(where[0]), int(where[-1])) if len(where) else (0, -1)
