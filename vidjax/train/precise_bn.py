"""Precise BatchNorm: statistics of many batches under the weights of now, for evaluation.

Running averages mix the statistics of weights long gone. Wu & Johnson, "Rethinking 'Batch' in BatchNorm",
arXiv:2105.07576, section 3, as in the recipes of SlowFast: each batch is normalised by its own statistics,
and their means and total variances are pooled.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vidjax.layers.norm import statistics
from vidjax.train.sharding import in_mesh


def make_precise_bn(
    model: nn.Module,
    prepare: Callable[[Any], jax.Array] = lambda clip: clip,
    across_hosts: bool = False,
    mesh: Mesh | None = None,
) -> Callable[[Mapping[str, Any], Iterable[Any]], dict[str, Any]]:
    """Builds `collections = precise_bn(variables, clips)`: the statistics over `clips`, equal to those of all
    of them at once with a group for each batch. Make it once: it is compiled once for all its calls.

    Args:
      model: a linen module with BatchNorm.
      prepare: from a batch to what the model takes, on the device.
      across_hosts: whether each host has batches of its own, whose statistics are pooled as well.
      mesh: the mesh that the batches are on, for kernels that partition themselves.

    Returns:
      A function of variables (params and the other collections; the old statistics are not used) and clips
      (batches of inputs of one size, at least one), to the collections beside params with new batch_stats,
      each array where the old one was.
    """

    def measure(variables: Mapping[str, Any], clip: Any, key: jax.Array) -> Any:
        mutable = [name for name in variables if name != "params"]
        with statistics("measured"):
            _, state = model.apply(
                variables, prepare(clip), train=True, mutable=mutable, rngs={"dropout": key}
            )
        return state["batch_stats"]

    measure = jax.jit(measure if mesh is None else in_mesh(mesh, measure))

    def precise_bn(variables: Mapping[str, Any], clips: Iterable[Any]) -> dict[str, Any]:
        rng = jax.random.PRNGKey(0)
        pooled = None
        for i, clip in enumerate(clips):
            new = measure(variables, clip, jax.random.fold_in(rng, i))
            pooled = new if pooled is None else _pool(pooled, new, i + 1)
        if pooled is None:
            raise ValueError("no batch to take statistics of")
        if across_hosts and jax.process_count() > 1:
            hosts = multihost_utils.process_allgather(pooled)
            pooled = jax.tree.map(lambda x: x[0], hosts)
            for i in range(1, jax.process_count()):
                pooled = _pool(pooled, jax.tree.map(lambda x, i=i: x[i], hosts), i + 1)
        rest = {k: v for k, v in variables.items() if k != "params"}
        placed = jax.tree.map(lambda x, old: jax.device_put(x, old.sharding), pooled, rest["batch_stats"])
        return {**rest, "batch_stats": placed}

    return precise_bn


@jax.jit
def _pool(old: Any, new: Any, count: jax.Array) -> Any:
    """Mean and variance of `count - 1` parts and another one of the same size (Chan et al., 1979)."""
    if isinstance(old, Mapping) and "mean" not in old:
        return {k: _pool(old[k], new[k], count) for k in old}
    apart = new["mean"] - old["mean"]
    return {
        "mean": old["mean"] + apart / count,
        "var": old["var"]
        + (new["var"] - old["var"]) / count
        + jnp.square(apart) * (count - 1) / jnp.square(jnp.float32(count)),
    }
