"""Applies a trained model to data, for evaluation, prediction, features and probes.

Every host provides batches of its share of the data, with padding rows masked. The function runs on the
global batch over the mesh, one batch ahead of the host, and every host receives the outputs of all rows.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from vidjax import interrupts
from vidjax.sharding import BATCH, batch_multiple, in_mesh

Batch = dict[str, Any]


class Engine:
    """Applies a function to batches.

    Attributes:
      hosts: number of processes that share the batches; 1 if only this process uses `mesh`.
    """

    def __init__(self, mesh: Mesh, apply: Callable[[Any, Batch], Any], hosts: int | None = None):
        """Creates an engine; `apply` is compiled on its first use.

        Args:
          mesh: a mesh over the devices of all hosts, or of this host only.
          apply: a pure function (variables, batch) -> tree of arrays [B, ...]; see `run` for the batch.
          hosts: number of processes that share the batches; None for all.
        """
        self.mesh = mesh
        self.hosts = jax.process_count() if hosts is None else hosts
        self._sharding = NamedSharding(mesh, BATCH)
        self._apply = jax.jit(in_mesh(mesh, apply), out_shardings=self._sharding)

    def batch_size(self, minimum: int) -> int:
        """Returns the smallest global batch size of at least `minimum` that is divisible over the mesh."""
        multiple = batch_multiple(self.mesh, self.hosts)
        return -(-minimum // multiple) * multiple

    def replicate(self, variables: Any) -> Any:
        """Replicates host arrays, equal on all hosts, over the mesh."""
        whole = NamedSharding(self.mesh, P())

        def replicated(x: Any) -> jax.Array:
            return jax.make_array_from_callback(np.shape(x), whole, lambda index: np.asarray(x)[index])

        return jax.tree.map(replicated, variables)

    def run(self, variables: Any, batches: Iterable[Batch], empty: Batch | None = None) -> Iterator[Batch]:
        """Applies the function to each batch.

        Args:
          variables: arrays on the mesh.
          batches: rows of this host, dicts of arrays [b, ...] of equal size on all hosts: `inputs` and, if
            there are any, `targets`, which are dicts themselves, `index` (-1 for padding), `mask` bool (False
            for invalid rows), and any other arrays.
          empty: a batch without valid rows, used on hosts with fewer batches than others.

        Yields:
          For each batch, `outputs` and all arrays except inputs and targets, as numpy arrays with the rows of
          all hosts in order. They are equal on every host.

        Raises:
          Stopped: a host received a signal.
        """
        iterator, waiting = iter(batches), None
        while (batch := self._next(iterator, empty)) is not None:
            arguments = {k: batch[k] for k in ("inputs", "targets", "index") if k in batch}
            outputs = self._apply(variables, self.place(arguments))
            if waiting is not None:
                yield self._gather(*waiting)
            waiting = outputs, {k: v for k, v in batch.items() if k not in ("inputs", "targets")}
        if waiting is not None:
            yield self._gather(*waiting)

    def _next(self, iterator: Iterator[Batch], empty: Batch | None) -> Batch | None:
        batch = next(iterator, None)
        more, stop = batch is not None, interrupts.requested()
        if self.hosts > 1:
            more, stop = multihost_utils.process_allgather(np.array([more, stop])).reshape(-1, 2).any(0)
        if stop:
            raise interrupts.Stopped
        return empty if more and batch is None else batch

    def place(self, batch: Any) -> Any:
        """Places the rows of this host on the mesh, as part of a global batch."""
        return jax.tree.map(lambda x: jax.make_array_from_process_local_data(self._sharding, x), batch)

    def _gather(self, outputs: Any, rest: Mapping[str, Any]) -> Batch:
        rows = jax.tree.map(_local_rows, {"outputs": outputs, **rest})
        if self.hosts == 1:
            return rows
        leaves, structure = jax.tree.flatten(rows)
        packed = [
            np.ascontiguousarray(x)[..., None].view(np.uint8) for x in leaves
        ]  # JAX has no 64-bit types
        packed = multihost_utils.process_allgather(packed, tiled=True)
        return jax.tree.unflatten(
            structure, [np.asarray(p).view(x.dtype)[..., 0] for p, x in zip(packed, leaves, strict=True)]
        )


def batched(items: Iterable[Mapping[str, Any]], size: int, empty: Batch) -> Iterator[Batch]:
    """Stacks items into batches of `size` rows and pads the last one from `empty`.

    Args:
      items: dicts of arrays without batch axis.
      size: number of rows per batch.
      empty: a batch of `size` masked rows, with the keys of the items and `mask`.
    """
    rows: list[Mapping[str, Any]] = []

    def stacked() -> Batch:
        tail = jax.tree.map(lambda x: x[len(rows) :], empty)
        full = jax.tree.map(lambda *x: np.stack(x), *rows) | {"mask": np.ones(len(rows), bool)}
        return jax.tree.map(lambda a, b: np.concatenate([a, b]), full, tail)

    for item in items:
        rows.append(item)
        if len(rows) == size:
            yield stacked()
            rows = []
    if rows:
        yield stacked()


def _local_rows(x: Any) -> np.ndarray:
    """Returns the rows of a batch on this process as a numpy array."""
    if not isinstance(x, jax.Array) or x.is_fully_addressable:
        return np.asarray(x)
    shards = {s.index[0].start or 0: s.data for s in x.addressable_shards}  # without replicas
    return np.concatenate([np.asarray(shards[i]) for i in sorted(shards)])


def endpoints(model: nn.Module, variables: Any, inputs: Any) -> Any:
    """Returns the endpoints of a model for whole clips, a dict of arrays.

    They are those of the encoder if the model is for pretraining.

    Args:
      model: a registered model.
      variables: its variables.
      inputs: its normalized argument, see `vidjax.layers.preprocess.Inputs`.
    """
    if getattr(model, "pretraining", False):
        return model.apply(variables, inputs, method="encode")
    return model.apply(variables, inputs, train=False)[1]
