"""The contract of a task: targets, loss, prediction, metrics and report."""

import abc
import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

import flax.linen as nn
import jax
import numpy as np
from etils import epath

from vidjax import files
from vidjax.data.clips import Clip, Views
from vidjax.data.record import Record
from vidjax.errors import UserError
from vidjax.layers.preprocess import Inputs

if TYPE_CHECKING:  # drawing libraries are slow to import, also in data workers
    from PIL import Image

    from vidjax.reports.page import Section

Batch = Mapping[str, Any]


class Prediction(Protocol):
    """What was predicted for one video, in the user's terms."""

    def as_json(self, top: int) -> dict[str, Any]:
        """Returns what `vidjax predict --json` prints; `top` is the number of classes to list."""
        ...

    def as_text(self, top: int) -> list[str]:
        """Returns the lines that `vidjax predict` prints."""
        ...


class Result(Protocol):
    """The result of an evaluation.

    Attributes:
      metrics: numbers by name.
      best: name of the headline metric; with a "-" before it, lower is better.
      headline: the metric by which checkpoints are ranked; higher is better.
    """

    @property
    def best(self) -> str: ...

    @property
    def metrics(self) -> Mapping[str, float]: ...

    @property
    def headline(self) -> float: ...

    def write(self, folder: epath.PathLike) -> None:
        """Writes the result to a folder."""
        ...


@dataclasses.dataclass(frozen=True)
class Metrics:
    """A `Result` of metrics, and a table with a row for each class or video.

    Attributes:
      best: name of the headline metric; with a "-" before it, lower is better.
      rows: predictions to write to predictions.jsonl.
      table: rows for the report, dicts by column.
    """

    metrics: Mapping[str, float]
    best: str
    rows: Sequence[Mapping[str, Any]] = ()
    table: Sequence[Mapping[str, Any]] = ()

    @property
    def headline(self) -> float:
        return -self.metrics[self.best[1:]] if self.best.startswith("-") else self.metrics[self.best]

    def write(self, folder: epath.PathLike) -> None:
        """Writes result.json, and predictions.jsonl if there are rows."""
        folder = epath.Path(folder)
        saved = {"metrics": dict(self.metrics), "best": self.best, "table": list(self.table)}
        files.write(folder / "result.json", json.dumps(saved, indent=1, ensure_ascii=False) + "\n")
        if self.rows:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in self.rows)
            files.write(folder / "predictions.jsonl", "".join(lines))

    @classmethod
    def load(cls, folder: epath.PathLike) -> "Metrics":
        """Reads result.json of a folder. Raises `UserError` if there is none."""
        path = epath.Path(folder) / "result.json"
        try:
            saved = json.loads(path.read_text())
            return cls(saved["metrics"], saved["best"], table=saved["table"])
        except FileNotFoundError:
            raise UserError(f"no saved result at {path}: run the evaluation first") from None
        except (ValueError, KeyError, TypeError) as e:
            raise UserError(f"{path} is not a saved result ({e}): run the evaluation again") from None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(abc.ABC):
    """Everything that differs between tasks. A subclass in a module of this package is registered by `name`.

    Fields declared by `vidjax.options.option` are the options in the section `task` of a config.

    Attributes:
      name: name of the task in configs and checkpoints.
      target: type of the records' targets, one of `vidjax.data.targets`; None if the task needs none.
      streams: modalities that the task needs in addition to those of the model.
      any_clips: whether videos may differ in their number of clips; `predict` then returns [B, V, ...], and
        targets have a duration.
      inputs: the inputs of the model.
      class_names: names of the labels.
      seed: seed of random numbers in evaluation.
    """

    name: ClassVar[str]
    target: ClassVar[type | None] = None
    streams: ClassVar[tuple[str, ...]] = ()
    any_clips: ClassVar[bool] = False

    inputs: Inputs
    class_names: tuple[str, ...] = ()
    seed: int = 0

    @property
    def num_outputs(self) -> int:
        """The `num_classes` of the model."""
        return len(self.class_names)

    @property
    def reading(self) -> dict[str, Any]:
        """Keyword arguments of `train_batches` and `eval_batches`."""
        streams = tuple(dict.fromkeys((*self.inputs.streams, *self.streams)))
        return {"streams": streams, "example": self.example}

    def check(self, name: str, model: nn.Module, endpoints: Mapping[str, Any]) -> None:
        """Raises `UserError` if a model lacks what the task needs.

        Args:
          name: registered name of the model.
          model: the module.
          endpoints: shapes of its endpoints for a batch of one clip.
        """
        if getattr(model, "pretraining", False):
            raise UserError(
                f"task.name={self.name} does not fit {name}, a model for pretraining: set "
                "task.name=masked_autoencoding, or use a model with logits"
            )

    def example(
        self, record: Record, clip: Clip, rng: np.random.Generator, train: bool
    ) -> dict[str, np.ndarray]:
        """Returns the targets of a clip as numpy arrays of static shapes. Runs in data workers.

        Args:
          record: the video and its target, in seconds and pixels of the video.
          clip: its times and its geometry map the target to the clip.
          rng: random generator.
          train: whether the clip is for training; in evaluation it is the first view.

        Raises:
          DecodeError: the target is malformed; the record then counts as a corrupt video.
        """
        return {}

    @abc.abstractmethod
    def loss(
        self, model: nn.Module, params: Any, model_state: Any, batch: Batch, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Computes the loss of a batch with `inputs` [B, ...] and `targets`. Pure, for use with `jit`.

        Returns:
          The loss, and a dict of `metrics` (scalars, with `loss`) and the new `model_state`.
        """

    @abc.abstractmethod
    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> Any:
        """Computes outputs [B, ...] of a batch with `inputs` [B, V, ...] of V views, `targets` and `index`.

        Pure, for use with `jit` on the mesh. A row depends on no other row.
        """

    @abc.abstractmethod
    def decode(self, outputs: Any, record: Record, views: Views) -> Prediction:
        """Converts the outputs of one video to a prediction.

        Args:
          outputs: a row of the outputs of `predict`, as numpy arrays.
          record: the video.
          views: where the views are from, to convert frames to seconds and pixels of the clip to those of the
            video.
        """

    @abc.abstractmethod
    def evaluate(self, predictions: Sequence[Any], records: Sequence[Record]) -> Result:
        """Computes the metrics of all predicted videos, in the order of the dataset.

        Raises:
          UserError: there are no videos, or the predictions are not finite.
        """

    def load(self, folder: epath.PathLike) -> Result:
        """Reads a result that was written to a folder."""
        return Metrics.load(folder)

    def report(self, results: Mapping[str, Any]) -> "list[Section]":
        """Returns the task's sections of a report on the results of several runs."""
        from vidjax.reports.page import Section

        return [Section.table(f"Results of {name}", r.table) for name, r in results.items() if r.table]

    def examples(self, result: Any, n: int) -> list[tuple[str, str, list[tuple[str, float]]]]:
        """Returns (id, true class, (class name, probability) pairs) of up to n videos to show in a report."""
        return []

    def draw(self, prediction: Any, frames: np.ndarray, title: str = "") -> "Image.Image":
        """Draws a prediction with the frames of its first view, uint8 [T, H, W, C]."""
        from vidjax.reports.pictures import strip

        return strip(frames, title="\n".join([title, *prediction.as_text(5)]).strip())


def each_view(function: Callable[[Any], Any], inputs: Any) -> Any:
    """Applies a function of inputs [B, ...] to each view of [B, V, ...] in sequence; returns [B, V, ...]."""
    views = jax.tree.map(lambda x: x.swapaxes(0, 1), inputs)
    return jax.tree.map(lambda x: x.swapaxes(0, 1), jax.lax.map(function, views))


def check_finite(scores: Sequence[np.ndarray], records: Sequence[Record]) -> None:
    """Raises `UserError` if there are no scores, or if those of a record are not finite."""
    if not len(scores):
        raise UserError("no video to evaluate: the split is empty, or none of its videos could be read")
    bad = [r.id for s, r in zip(scores, records, strict=True) if not np.isfinite(s).all()]
    if bad:
        raise UserError(
            f"the model's outputs are not finite for '{bad[0]}' ({len(bad)} of {len(records)} videos): "
            "training has diverged; use an earlier checkpoint or lower the learning rate"
        )
