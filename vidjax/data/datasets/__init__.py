"""Registry of datasets. Each is a module with `load(split, **options) -> Source`, imported on first use."""

import dataclasses
import hashlib
import importlib
import inspect
import os
import pkgutil
import re
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from vidjax.data.prepare import read as prepared
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

_MODULES = {module.name: f"{__name__}.{module.name}" for module in pkgutil.iter_modules(__path__)}


class Source(Protocol):
    """Random access to the videos of one split, in the same order in every process.

    Attributes:
      target: type of the records' targets, one of `vidjax.data.targets`; None if they have none.
      class_names: the name of each label; empty for targets without labels.
      directional: whether mirroring any video can change its class; disables flipping, unless `mirror` is
        set. Where only some videos are, `Record.directional` says so.
      mirror: the label of each class after mirroring, a permutation; None if it is unknown.
      fingerprint: hash of ids and targets; runs with equal fingerprints used the same samples.

    A source that is not simply shuffled has an attribute `order`, a `vidjax.data.order.Order`.
    """

    @property
    def target(self) -> type | None: ...

    @property
    def class_names(self) -> tuple[str, ...]: ...

    @property
    def directional(self) -> bool: ...

    @property
    def mirror(self) -> tuple[int, ...] | None: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...


@dataclasses.dataclass(frozen=True)
class ListSource:
    """A `Source` over records held in memory; `problems` are the annotations that were skipped."""

    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    directional: bool = False
    problems: tuple[str, ...] = ()
    mirror: tuple[int, ...] | None = None

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Record:
        return self.records[i]

    @property
    def target(self) -> type | None:
        return type(self.records[0].target) if self.records and self.records[0].target is not None else None

    @property
    def fingerprint(self) -> str:
        return fingerprint((r.id, r.target) for r in self.records)


@dataclasses.dataclass(frozen=True)
class Card:
    """What a published dataset is; `CARD` of its module.

    Attributes:
      title: name and year, such as "UCF101 (2012)".
      paper: where it was published.
      splits: names of the splits, and the number of samples published for each; None if it is not known.
      classes: number of classes; 0 for targets without labels.
      targets: types of targets that `load` offers, the default first.
      metric: the metric that papers report.
      layout: the files that are expected on disk.
    """

    title: str
    paper: str
    splits: Mapping[str, int | None]
    classes: int
    targets: tuple[type, ...]
    metric: str
    layout: str


def card(name: str) -> Card | None:
    """Returns what a dataset is; None for generated data and folders of the user."""
    if name not in _MODULES:
        raise unknown("dataset", name, _MODULES)
    return getattr(importlib.import_module(_MODULES[name]), "CARD", None)


_MIRROR_IMAGE = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}
_SIDES = re.compile(rf"(?i)(?<![a-z])({'|'.join(_MIRROR_IMAGE)})(?![a-z])")


def mirror_by_name(names: Sequence[str]) -> tuple[int, ...] | None:
    """Returns the label of each class after mirroring, by exchanging left and right in its name.

    "Pushing something from left to right" becomes "Pushing something from right to left", and "Turning Hand
    Clockwise" becomes "Turning Hand Counterclockwise". Names without these words keep their labels.

    Returns:
      A permutation; None if no name has these words, or if the exchanged name is not that of one class, so
      that mirrored videos have no label.
    """

    def exchanged(word: re.Match[str]) -> str:
        other = _MIRROR_IMAGE[word[0].lower()]
        return other.upper() if word[0].isupper() else other.title() if word[0].istitle() else other

    images = [_SIDES.sub(exchanged, name) for name in names]
    if images == list(names) or any(names.count(image) != 1 for image in images):
        return None
    return tuple(map(names.index, images))


def check_mirror(source: Source) -> None:
    """Raises `UserError` if the mirrored labels of a source are not a permutation of its labels."""
    if source.mirror is not None and sorted(source.mirror) != list(range(len(source.class_names))):
        raise UserError(
            f"the mirrored labels {source.mirror} are not a permutation of the {len(source.class_names)} "
            "labels"
        )


def fingerprint(ids_and_targets: Iterable[tuple[str, Any]]) -> str:
    """Returns a hash of the ids and targets, in order, as sixteen hex digits."""
    digest = hashlib.sha256()
    for id, target in ids_and_targets:
        text = target.label if isinstance(target, ClassTarget) else target
        digest.update(f"{text}\t{id}\n".encode())
    return digest.hexdigest()[:16]


def summary(name: str) -> str:
    """Returns the first sentence of a dataset's documentation."""
    text = importlib.import_module(_MODULES[name]).__doc__ or ""
    return text.partition("\n")[0].rstrip(".")


def option_names(name: str) -> dict[str, bool]:
    """Returns the options of a dataset, and whether each is required."""
    if name not in _MODULES:
        raise unknown("dataset", name, _MODULES)
    parameters = inspect.signature(importlib.import_module(_MODULES[name]).load).parameters
    return {k: p.default is p.empty for k, p in parameters.items() if k not in ("split", "target")}


def dataset_names() -> list[str]:
    """Returns the names that `load_source` accepts."""
    return sorted(_MODULES)


def load_source(name: str, split: str, target: type | None = None, **options: Any) -> Source:
    """Opens one split of a dataset, generating the data first if the dataset is synthetic.

    Args:
      name: one of `dataset_names()`.
      split: "train", "test" or another split of the dataset.
      target: type of the targets, for datasets that have several; None takes any.
      **options: keyword arguments of the dataset's `load`; `path` may be a folder that `vidjax data prepare`
        wrote.

    Raises:
      UserError: the name, split or an option is unknown, an option is missing or has the wrong type, the
        data cannot be used, or the dataset does not have the targets.
    """
    if name not in _MODULES:
        raise unknown("dataset", name, _MODULES)
    load = importlib.import_module(_MODULES[name]).load
    parameters = dict(inspect.signature(load).parameters)
    chooses = parameters.pop("target", None) is not None
    del parameters["split"]
    for key in options:
        if key not in parameters:
            raise unknown(f"option of dataset {name}", key, parameters)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise UserError(f"dataset {name} needs the option '{key}'")
    kinds = typing.get_type_hints(load)
    for key, value in options.items():
        options[key] = _typed(value, kinds[key])
        if options[key] is _MISFIT:
            kind = _kind_text(kinds[key])
            raise UserError(f"option '{key}' of dataset {name} must be {kind}, not {value!r}")
    if folder := prepared.find(options.get("path")):
        return prepared.load(folder, name, split, target, options)
    if (about := card(name)) and split not in about.splits:
        raise unknown(f"split of {name}", split, about.splits)
    if chooses and target is not None:
        options["target"] = target
    source = load(split, **options)
    if target is not None and source.target is not target:
        has = source.target.__name__ if source.target else "none"
        raise UserError(
            f"the task needs targets of type {target.__name__}, and dataset {name} has {has}: use another "
            "dataset or set task.name"
        )
    return source


_MISFIT = object()


def _typed(value: Any, kind: Any) -> Any:
    """Returns `value` if it is of type `kind`, else `_MISFIT`; a number becomes text where `kind` is str."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return next((v for k in arguments if (v := _typed(value, k)) is not _MISFIT), _MISFIT)
    if origin is Sequence:
        items = [_typed(v, arguments[0]) for v in value] if isinstance(value, list | tuple) else [_MISFIT]
        return _MISFIT if _MISFIT in items else items
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is str and number:  # a folder or group whose name is a number
        return str(value)
    if kind in (int, float) and not number:
        return _MISFIT
    return value if isinstance(value, int | float if kind is float else kind) else _MISFIT


def _kind_text(kind: Any) -> str:
    arguments = typing.get_args(kind)
    if typing.get_origin(kind) is Sequence:
        return f"a list of {_kind_text(arguments[0])}"
    if arguments:
        return " or ".join(_kind_text(k) for k in arguments if k is not os.PathLike)
    return "None" if kind is types.NoneType else kind.__name__
