"""Precise BatchNorm: recomputes the statistics from many batches with the current weights.

Running averages lag behind, because they mix statistics of earlier weights. Source: Wu & Johnson, "Rethinking
'Batch' in BatchNorm", arXiv:2105.07576, section 3, as used by SlowFast. Each batch is normalized by its own
statistics, and the means and total variances of all batches are pooled.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.experimental import multihost_utils
from jax.sharding import Mesh

from vidjax.layers.norm import statistics
from vidjax.sharding import in_mesh


def make_precise_bn(
    model: nn.Module,
    prepare: Callable[[Any], jax.Array] = lambda clip: clip,
    across_hosts: bool = False,
    mesh: Mesh | None = None,
) -> Callable[[Mapping[str, Any], Iterable[Any]], dict[str, Any]]:
    """Makes a function `collections = precise_bn(variables, clips)` that recomputes BatchNorm statistics.

    The function is compiled on its first call, so reuse it.

    Args:
      model: a linen module with BatchNorm.
      prepare: converts a batch to the input of the model, on the device.
      across_hosts: whether to pool the statistics of all hosts, if each has batches of its own.
      mesh: the mesh of the batches, as required by kernels with custom partitioning.

    Returns:
      A function of variables (params and the other collections, whose statistics are ignored) and clips (one
      or more batches of equal size). It returns the collections except params, with new batch_stats that keep
      the sharding of the old ones.
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
            raise ValueError("precise BatchNorm needs at least one batch")
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
    """Pools the statistics of `count - 1` batches with those of another one (Chan et al., 1979)."""
    if isinstance(old, Mapping) and "mean" not in old:
        return {k: _pool(old[k], new[k], count) for k in old}
    delta = new["mean"] - old["mean"]
    return {
        "mean": old["mean"] + delta / count,
        "var": old["var"]
        + (new["var"] - old["var"]) / count
        + jnp.square(delta) * (count - 1) / jnp.square(jnp.float32(count)),
    }
