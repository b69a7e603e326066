"""Receptive fields: which frames, rows and columns of the input an element of an endpoint depends on.

`computed` follows the jaxpr and computes nothing: every intermediate array carries, for each axis of the
input, the interval of positions that each of its elements depends on. `measured` runs the model and looks
where the gradient is not zero. For convolutional networks both give the same intervals.
The element is the one in the middle of the endpoint, n // 2 on each axis, all channels together.
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
PROBE = (1024, 4096, 4096)  # T, H, W at least this large show a field whole


@dataclasses.dataclass(frozen=True)
class Field:
    """The receptive field of an endpoint, (T, H, W), or (H, W) for an image model.

    Attributes:
      clipped: positions of the actual input that the middle element depends on.
      unclipped: the same for an input without end, None on an axis where the field is as long as the input,
        whatever it is (a global average, attention), "past" where it is all before the element as well (a
        running average). None for a model whose size depends on its input.
    """

    clipped: tuple[int, ...]
    unclipped: tuple[int | str | None, ...] | None


def receptive_fields(
    model: nn.Module, input_shape: tuple[int, ...], g: graph.Graph | None = None, unclipped: bool = True
) -> dict[str, Field]:
    """Field of each endpoint of `model` for an input of `input_shape`, (T, H, W, C) or (H, W, C).

    Args:
      model: a registered model, or any that returns logits and endpoints.
      input_shape: one input without the batch axis.
      g: the traced model, where it exists already.
      unclipped: also trace the model on an input of at least `PROBE`. Not for models on tokens, whose cost
        grows with the square of the input.
    """
    inside = computed(model, input_shape, g)
    *axes, channels = input_shape
    large = tuple(n * -(-probe // n) for n, probe in zip(axes, PROBE[-len(axes) :]))
    free = {}
    if unclipped:
        try:
            free = computed(model, (*large, channels))
        except ValueError:  # made for its number of frames
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
    """What `Field.unclipped` says of an axis of `size`."""
    if _length(interval) == size:
        return None
    # Only a field without bound begins where an input as long as the probe does.
    return "past" if size >= min(PROBE) and interval[0] == 0 < interval[1] else _length(interval)


def computed(model: nn.Module, input_shape: tuple[int, ...], g: graph.Graph | None = None) -> Intervals:
    """Intervals of each endpoint, from the graph `g` of the model (traced here if None). An operation without
    a rule is taken to look at all of its inputs, so an interval can be too long, never too short."""
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
    """Intervals of each endpoint, from gradients of the model run with random positive weights, for which
    nothing cancels and every ReLU is open. A maximum passes a gradient to the largest element only, so the
    gradients of several inputs are joined: rising and falling ones, which reach both ends of a pooling
    window, and spiky ones, which also do beside padding. Inputs are small, so that no sigmoid is flat."""
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
