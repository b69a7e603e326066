"""Dataset of cached features, read from files written by `vidjax features` in place of videos.

load("train", path="runs/features/{split}.npz")
"""

import dataclasses
import functools
import math
import os
from collections.abc import Mapping
from typing import Any

from vidjax.data.datasets import fingerprint
from vidjax.data.feature_file import StoredFeatures, open_file
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget, Target, from_json
from vidjax.errors import UserError

# Metadata that two files must share for their features to be comparable.
ORIGIN = ("model", "layer", "weights", "rows", "input", "dataset")


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """One split of cached features.

    Attributes:
      path: the feature file.
      width: D, the number of channels per token.
      tokens: tokens per row: 1 for pooled features, T'H'W' for feature maps [T', H', W', D].
    """

    path: str

    @property
    def _meta(self) -> Mapping[str, Any]:
        return open_file(self.path).meta

    @property
    def width(self) -> int:
        return self._meta["shape"][-1]

    @property
    def tokens(self) -> int:
        return math.prod(self._meta["shape"][:-1])

    @property
    def lengths(self) -> list[int]:
        """Number of rows of each video."""
        return self._meta["lengths"]

    @property
    def target(self) -> type | None:
        return type(self[0].target)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self._meta["class_names"])

    @property
    def directional(self) -> bool:
        return True  # features cannot be mirrored

    @property
    def mirror(self) -> None:
        return None

    @functools.cached_property
    def fingerprint(self) -> str:
        origin = [(f"{key}={self.origin[key]}", -1) for key in ORIGIN]
        return fingerprint([*origin, *((r.id, r.target) for r in map(self.__getitem__, range(len(self))))])

    @property
    def origin(self) -> dict[str, Any]:
        """The backbone, layer, weights and dataset that the features were extracted from."""
        return {key: self._meta[key] for key in ORIGIN}

    def check(self, cfg: Any) -> None:
        """Raises `UserError` if the config's data section does not fit the features."""
        if self.width != cfg.feature_width:
            raise UserError(
                f"{self.path} has features of width {self.width}, and data.feature_width is "
                f"{cfg.feature_width}: set data.feature_width={self.width}, or extract features of the model "
                "that you meant"
            )
        if self.tokens != cfg.feature_tokens:
            raise UserError(
                f"{self.path} has {self.tokens} tokens per row, of shape {tuple(self._meta['shape'])}, and "
                f"data.feature_tokens is {cfg.feature_tokens}: set data.feature_tokens={self.tokens}, or "
                f"extract features {'without' if self.tokens > 1 else 'with'} --dense"
            )
        length, id = min(zip(self._meta["lengths"], self._meta["ids"], strict=True))
        if length < cfg.frames:
            raise UserError(
                f"{self.path}: {id} has {length} rows, fewer than data.frames={cfg.frames}: "
                "lower data.frames, or extract the features of every frame (--frames)"
            )

    def __len__(self) -> int:
        return len(self._meta["ids"])

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < len(self):
            raise IndexError(i)
        meta = self._meta
        return Record(StoredFeatures(self.path, i), _target(meta, i), meta["ids"][i])


def _target(meta: Mapping[str, Any], i: int) -> Target:
    """Returns the target of a video; files written before there were other targets have integer labels."""
    return from_json(meta["targets"][i]) if "targets" in meta else ClassTarget(meta["labels"][i])


def load(split: str, path: str | os.PathLike, weights: str | None = None) -> FeatureSource:
    """Opens the features of a split.

    Args:
      split: the split that the features were extracted from.
      path: the feature file; "{split}" is replaced by `split`.
      weights: required fingerprint of the backbone's weights; None accepts any.

    Raises:
      UserError: the file does not exist, has no labels, or has features of another split or other weights.
    """
    file = os.fspath(path).replace("{split}", split)
    meta = open_file(file).meta
    if meta["split"] is None:
        raise UserError(f"{file} has features of unlabeled videos: extract those of dataset:{split}")
    if meta["split"] != split:
        raise UserError(
            f"{file} holds the split '{meta['split']}', not '{split}': put {{split}} in data.options.path"
        )
    if weights is not None and weights != meta["weights"]:
        raise UserError(
            f"{file} has features of {meta['model']} with weights {meta['weights']}, not {weights}: extract "
            "them again, or change data.options.weights"
        )
    return FeatureSource(file)


def check_origin(a: Mapping[str, Any], b: Mapping[str, Any], what: str) -> None:
    """Raises `UserError`, listing the differences, if two sets of features differ in their origin."""
    odd = [f"{key} {a.get(key)} and {b.get(key)}" for key in ORIGIN if a.get(key) != b.get(key)]
    if odd:
        raise UserError(f"the features of {what} differ in their origin: {'; '.join(odd)}")
