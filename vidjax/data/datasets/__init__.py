"""Datasets by name. Each is a module with `load(split, **options) -> Source`, imported when asked for."""

import dataclasses
import hashlib
import importlib
import inspect
from collections.abc import Iterable
from typing import Any, Protocol

from vidjax.data.record import Record
from vidjax.errors import UserError, unknown

_MODULES = {name: f"{__name__}.{name}" for name in ("features", "synthetic_motion", "video_folder")}


class Source(Protocol):
    """Random access to the labelled videos of one split; the same order in every process.

    Attributes:
      class_names: name of each label.
      directional: a mirrored video can belong to another class, so flipping is off.
      fingerprint: hash of ids and labels; two runs with equal fingerprints saw the same samples.
    """

    class_names: tuple[str, ...]
    directional: bool
    fingerprint: str

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Record: ...


@dataclasses.dataclass(frozen=True)
class ListSource:
    """A `Source` over records held in memory."""

    records: tuple[Record, ...]
    class_names: tuple[str, ...]
    directional: bool = False

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, i: int) -> Record:
        return self.records[i]

    @property
    def fingerprint(self) -> str:
        return fingerprint((r.id, r.label) for r in self.records)


def fingerprint(ids_and_labels: Iterable[tuple[str, int]]) -> str:
    """Sixteen hex digits that change with any id, label or their order."""
    digest = hashlib.sha256()
    for id, label in ids_and_labels:
        digest.update(f"{label}\t{id}\n".encode())
    return digest.hexdigest()[:16]


def dataset_names() -> list[str]:
    """Names that `load_source` knows."""
    return sorted(_MODULES)


def load_source(name: str, split: str, **options: Any) -> Source:
    """Opens one split of a dataset, which is made first where it is a generated one.

    Args:
      name: one of `dataset_names()`.
      split: "train", "test" or another that the dataset has.
      **options: keyword arguments of the dataset's `load`.

    Raises:
      UserError: unknown name, split or option, a missing option, or data that cannot be used.
    """
    if name not in _MODULES:
        raise unknown("dataset", name, _MODULES)
    load = importlib.import_module(_MODULES[name]).load
    parameters = {k: p for k, p in inspect.signature(load).parameters.items() if k != "split"}
    for key in options:
        if key not in parameters:
            raise unknown(f"option of dataset {name}", key, parameters)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise UserError(f"dataset {name} needs the option '{key}'")
    return load(split, **options)
