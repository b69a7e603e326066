"""The order in which training uses the records of a source.

An order maps the number of a sample to its record, so every host and process can compute any part of it.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np

_ORDER, REPLACEMENT = 0, 2  # first words of random seeds; the others are in `pipeline`

Seed = tuple[int, ...]


class Order(Protocol):
    """Maps the number of a sample to its record.

    Attributes:
      epoch: number of samples per epoch.
    """

    @property
    def epoch(self) -> int: ...

    def candidates(self, seed: Seed, g: int) -> Iterator[int]:
        """Yields the record of sample g, then every other record once, to replace it if it is corrupt."""
        ...


@dataclasses.dataclass(frozen=True)
class Shuffled:
    """Every record once per epoch, in the order of a permutation that depends on the seed and the epoch."""

    epoch: int

    def candidates(self, seed: Seed, g: int) -> Iterator[int]:
        epoch, position = divmod(g, self.epoch)
        first = int(_permutation(seed, epoch, self.epoch)[position])
        yield first
        rng = np.random.default_rng([REPLACEMENT, *seed, epoch, position])
        yield from (int(i) for i in rng.permutation(self.epoch) if i != first)


@dataclasses.dataclass(frozen=True)
class OfHosts:
    """Each host uses the records of its own part, see `part_of`, in the order of its own permutation.

    All hosts have as many samples, so those with a smaller part start their next pass a few samples earlier.

    Attributes:
      total: number of records.
      batch: number of samples per global batch.
      hosts: number of hosts.
    """

    total: int
    batch: int
    hosts: int

    @property
    def epoch(self) -> int:
        return self.total

    def candidates(self, seed: Seed, g: int) -> Iterator[int]:
        batch, row = divmod(g, self.batch)
        local = self.batch // self.hosts
        host, row = divmod(row, local)
        part = part_of(self.total, host, self.hosts)
        yield from (part[i] for i in Shuffled(len(part)).candidates((*seed, host), batch * local + row))


def part_of(total: int, host: int, hosts: int) -> range:
    """Returns the records of a host if each has its own: contiguous, so that hosts share few files."""
    return range(total * host // hosts, total * (host + 1) // hosts)


def order_of(source: Any) -> Order:
    """Returns the `order` of a `Source`, or `Shuffled` if it has none."""
    return getattr(source, "order", None) or Shuffled(len(source))


def _permutation(seed: Seed, epoch: int, total: int) -> np.ndarray:
    recent = _recent(seed, total)
    order = recent.get(epoch)
    if order is None:
        if len(recent) > 1:  # threads read at most two adjacent epochs at a time
            recent.clear()
        order = recent[epoch] = np.random.default_rng([_ORDER, *seed, epoch]).permutation(total)
    return order


@functools.lru_cache(maxsize=64)
def _recent(seed: Seed, total: int) -> dict[int, np.ndarray]:
    """The permutations of the last epochs that were read, by epoch."""
    return {}
