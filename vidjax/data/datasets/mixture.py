"""Several datasets as one, mixed by weight.

load("train", parts=[
    dict(name="kinetics", path="kinetics400", weight=3),
    dict(name="ucf101", path="ucf101", weight=1, splits=dict(val="test")),
])

A part is the `name` of a dataset and its options, and:
  weight   its share of the training samples, relative to that of other parts; 0 only evaluates it. If no part
           has a weight, they are the numbers of records.
  splits   names of its splits where they differ from those of the mixture; None leaves the part out of one.
           Its classes are then those of its split for "train".

Training interleaves the parts evenly: the share of a part in the first g samples is exact up to a few
samples, for every g. Each part is shuffled as it would be alone, by its own epochs: all its records are used
once before one is used again. An epoch of the mixture is `epoch` samples, by default as many as there are
records in the parts that are trained on. Without weights, it uses every record once.

Evaluation uses every record of every part once, part by part. Ids start with the name of the part; the second
part of a name has the number 2 after it.
"""

import bisect
import dataclasses
import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from vidjax.data.datasets import Source, fingerprint, load_source
from vidjax.data.order import REPLACEMENT, Order, Seed, order_of
from vidjax.data.record import Record
from vidjax.data.targets import relabeled
from vidjax.errors import UserError, unknown


@dataclasses.dataclass(frozen=True)
class Part:
    """A dataset of a mixture.

    Attributes:
      name: starts the ids of its records.
      source: its records.
      share: integer proportional to its weight.
      labels: the label in the mixture of each of its labels.
      directional: whether its videos must not be mirrored.
    """

    name: str
    source: Source
    share: int
    labels: tuple[int, ...]
    directional: bool


@dataclasses.dataclass(frozen=True)
class Interleaved:
    """Records of several orders, interleaved by integer shares.

    Attributes:
      orders: the orders of the parts.
      sizes: number of records of each part.
      shares: of the samples, for each part.
      epoch: number of samples per epoch.
    """

    orders: tuple[Order, ...]
    sizes: tuple[int, ...]
    shares: tuple[int, ...]
    epoch: int

    def place(self, g: int) -> tuple[int, int]:
        """Returns the part of sample g, and how many samples of that part precede it.

        The first part takes its share of all samples, the second its share of the others, and so on, each
        count rounded to the nearest integer. Among sum(shares) samples from a multiple of that number, the
        counts are exactly the shares.
        """
        rest, total = g, sum(self.shares)
        for k, share in enumerate(self.shares):
            before, after = ((2 * n * share + total) // (2 * total) for n in (rest, rest + 1))
            if after > before:
                return k, before
            rest, total = rest - before, total - share
        raise AssertionError("the last part takes what is left")

    def candidates(self, seed: Seed, g: int) -> Iterator[int]:
        """Yields the record of sample g, the others of its part, and the records of other parts."""
        part, n = self.place(g)
        first = sum(self.sizes[:part])
        yield from (first + i for i in self.orders[part].candidates((*seed, part), n))
        others = np.random.default_rng([REPLACEMENT, *seed, g]).permutation(sum(self.sizes))
        yield from (int(i) for i in others if not first <= i < first + self.sizes[part])


@dataclasses.dataclass(frozen=True)
class MixtureSource:
    """One split of a mixture; its records are those of the parts, one part after the other.

    Attributes:
      parts: at least one.
      class_names: of all parts.
      epoch: number of training samples per epoch.
    """

    parts: tuple[Part, ...]
    class_names: tuple[str, ...]
    epoch: int

    @functools.cached_property
    def _ends(self) -> list[int]:
        """Number of records up to and including each part."""
        return list(itertools.accumulate(len(part.source) for part in self.parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < len(self):
            raise IndexError(i)
        k = bisect.bisect_right(self._ends, i)
        part = self.parts[k]
        record = part.source[i - self._ends[k] + len(part.source)]
        return dataclasses.replace(
            record,
            id=f"{part.name}/{record.id}",
            target=relabeled(record.target, part.labels),
            directional=record.directional or (part.directional and self.mirror is None),
        )

    @property
    def target(self) -> type | None:
        return self.parts[0].source.target

    @property
    def directional(self) -> bool:
        return all(part.directional for part in self.parts)

    @functools.cached_property
    def mirror(self) -> tuple[int, ...] | None:
        """As of the parts that know it; None if a directional part does not, or if two parts disagree."""
        images: dict[str, str] = {}
        for source in (part.source for part in self.parts):
            if source.mirror is None and source.directional:
                return None
            for name, image in zip(source.class_names, source.mirror or ()):
                if images.setdefault(name, source.class_names[image]) != source.class_names[image]:
                    return None
        if not images:
            return None
        return tuple(self.class_names.index(images.get(name, name)) for name in self.class_names)

    @property
    def fingerprint(self) -> str:
        rows = [(f"{part.name} {part.share}", part.source.fingerprint) for part in self.parts]
        return fingerprint([*rows, ("epoch", self.epoch)])

    @functools.cached_property
    def order(self) -> Interleaved:
        return Interleaved(
            tuple(order_of(part.source) for part in self.parts),
            tuple(len(part.source) for part in self.parts),
            tuple(part.share for part in self.parts),
            self.epoch,
        )


def load(
    split: str,
    parts: Sequence[dict],
    target: type | None = None,
    epoch: int | None = None,
    classes: str = "union",
) -> MixtureSource:
    """Opens one split of all parts.

    Args:
      split: a split of the parts, see `splits` in the module docstring.
      parts: dicts, see the module docstring.
      target: type of the targets of all parts; None takes the default of each.
      epoch: training samples per epoch; None is the number of records in the parts that are trained on.
      classes: "union": classes of the same name are one, in the order of the parts. "equal": in addition, all
        parts must have the same classes.

    Raises:
      UserError: a part cannot be loaded, the parts do not fit together, or an option is out of range.
    """
    if classes not in ("union", "equal"):
        raise unknown("value of data.options.classes", classes, ("union", "equal"))
    if not parts:
        raise UserError("a mixture needs parts: set data.options.parts to a list of dicts with a name each")
    opened = [_open(split, target, part) for part in parts]
    names, sources, used = [], [], []
    for (name, source, is_used), count in zip(opened, _occurrences(name for name, *_ in opened)):
        names.append(name if count == 1 else f"{name}-{count}")
        sources.append(source)
        used.append(is_used)
    _check_targets(names, sources)
    class_names = tuple(dict.fromkeys(itertools.chain(*(source.class_names for source in sources))))
    for name, source in zip(names, sources):
        if classes == "equal" and (missing := {*class_names} - {*source.class_names}):
            raise UserError(
                f"the part {name} has no class '{min(missing)}', which other parts have: rename classes, or "
                "set data.options.classes=union"
            )
    number = {name: i for i, name in enumerate(class_names)}
    directed = [{*source.class_names} if source.directional else set() for source in sources]
    made = [
        Part(
            name,
            source,
            share,
            tuple(number[c] for c in source.class_names),
            # A class of a directional part is directional in all parts.
            source.directional or any(other & {*source.class_names} for other in directed),
        )
        for name, source, share, is_used in zip(names, sources, _shares(parts, sources), used)
        if is_used
    ]
    if not made:
        raise UserError(f"no part of the mixture has a split '{split}': change `splits` of a part")
    if epoch is None:
        epoch = sum(len(part.source) for part in made if part.share) or 1
    if epoch < 1:
        raise UserError(f"data.options.epoch is a number of samples, not {epoch}")
    return MixtureSource(tuple(made), class_names, epoch)


def _open(split: str, target: type | None, part: dict) -> tuple[str, Source, bool]:
    """Returns the name of a part's dataset, its records, and whether they are in the split."""
    options = dict(part)
    name, splits = options.pop("name", None), options.pop("splits", {})
    options.pop("weight", None)
    if not isinstance(name, str) or not isinstance(splits, dict):
        raise UserError(f"a part of a mixture is a dict with the name of a dataset, not {part!r}")
    own = splits.get(split, split)
    source = load_source(name, own or splits.get("train") or "train", target, **options)
    if hasattr(source, "origin"):
        raise UserError("cached features cannot be part of a mixture: extract the features of the mixture")
    return name, source, own is not None


def _occurrences(names: Iterator[str]) -> Iterator[int]:
    """Yields for each name how often it has occurred so far."""
    seen: dict[str, int] = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield seen[name]


def _check_targets(names: Sequence[str], sources: Sequence[Source]) -> None:
    found: dict[Any, str] = {}
    for name, source in zip(names, sources):
        found.setdefault(source.target, name)
    if len(found) > 1:
        text = ", ".join(f"{t.__name__ if t else 'no targets'} of {name}" for t, name in found.items())
        raise UserError(f"the parts of a mixture need targets of one type, not {text}: leave a part out")


def _shares(parts: Sequence[dict], sources: Sequence[Source]) -> list[int]:
    """Returns integers proportional to the weights of the parts."""
    weights: list[Any] = [part.get("weight") for part in parts]
    if all(weight is None for weight in weights):
        return [len(source) for source in sources]
    for part, weight in zip(parts, weights):
        number = isinstance(weight, int | float) and not isinstance(weight, bool)
        if not number or not 0 <= weight < math.inf:
            raise UserError(
                f"the weight of {part['name']} must be a number from 0, not {weight!r}: set that of all "
                "parts or of none"
            )
    if not any(weights):
        raise UserError("all parts of the mixture have the weight 0: set that of one to 1")
    exact = [Fraction(str(weight)) for weight in weights]
    return [int(weight * math.lcm(*(w.denominator for w in exact))) for weight in exact]
