"""The result of an evaluation of a classifier, and reading the result of any task."""

import dataclasses
import functools
import io
import json
import os
import zipfile
from typing import Any, ClassVar

import numpy as np
from etils import epath

from vidjax import files
from vidjax.errors import UserError
from vidjax.metrics.classification import confusion_matrix, log_mean_softmax, per_class_accuracy, rank
from vidjax.tasks.base import Metrics, Result


@dataclasses.dataclass(frozen=True)
class ClassificationResult:
    """The logits of every view of every video, and the metrics derived from them.

    The score of a video is the mean softmax over its views. Ties rank by class index, as in `argmax`, so that
    a constant prediction has chance accuracy.

    Attributes:
      ids: names of the N videos.
      labels: int [N], the true classes.
      logits: float32 [N, V, K], one row per view, the crops of the first clip first.
      class_names: K names.
      crops: crops per clip, a divisor of V; None if unknown, as for files written by earlier versions.
    """

    best: ClassVar[str] = "video_top1"

    ids: list[str]
    labels: np.ndarray
    logits: np.ndarray
    class_names: tuple[str, ...]
    crops: int | None = None

    @functools.cached_property
    def log_probs(self) -> np.ndarray:
        """Log of each video's score, float64 [N, K]; avoids ties by underflow."""
        return log_mean_softmax(self.logits)

    @functools.cached_property
    def predictions(self) -> np.ndarray:
        """The class with the highest score, int [N]."""
        return self.log_probs.argmax(-1)

    @functools.cached_property
    def metrics(self) -> dict[str, float]:
        """Loss (mean negative log likelihood of the videos, nats) and accuracies as fractions.

        `clip_*` counts every view as a sample, `video_*` uses the mean over views. Top-5 uses min(5, K)
        classes, so it is 1 for K <= 5. `mean_class_accuracy` is the mean of `per_class` over the classes
        present.
        """
        clip = np.stack([rank(x, np.full(len(x), y)) for x, y in zip(self.logits, self.labels)])
        video = rank(self.log_probs, self.labels)
        return {
            "loss": float(-self.log_probs[np.arange(len(self.labels)), self.labels].mean()),
            "clip_top1": float((clip < 1).mean()),
            "clip_top5": float((clip < 5).mean()),
            "video_top1": float((video < 1).mean()),
            "video_top5": float((video < 5).mean()),
            "mean_class_accuracy": float(np.nanmean(self.per_class)),
        }

    @property
    def headline(self) -> float:
        """The metric by which checkpoints are ranked."""
        return self.metrics[self.best]

    @functools.cached_property
    def confusion(self) -> np.ndarray:
        """Confusion matrix int [K, K]: number of videos of class i (row) predicted as class j (column)."""
        return confusion_matrix(self.labels, self.predictions, len(self.class_names))

    @property
    def per_class(self) -> np.ndarray:
        """Per-class accuracy, float [K]; NaN for classes without a video."""
        return per_class_accuracy(self.confusion)

    def top(self, i: int, n: int = 5) -> list[tuple[str, float]]:
        """Returns the n most probable (class name, probability) of the i-th video, best first."""
        order = np.argsort(-self.log_probs[i], kind="stable")[:n]
        return [(self.class_names[k], float(np.exp(self.log_probs[i, k]))) for k in order]

    def write(self, workdir: str | os.PathLike) -> None:
        """Writes result.npz and predictions.jsonl."""
        self.save(epath.Path(workdir) / "result.npz")
        self.write_predictions(epath.Path(workdir) / "predictions.jsonl")

    def save(self, path: str | os.PathLike) -> None:
        """Writes the result to an npz file, replacing an existing file atomically."""
        encoded = io.BytesIO()
        layout: dict[str, Any] = {} if self.crops is None else {"crops": np.array(self.crops)}
        np.savez_compressed(
            encoded,
            ids=np.array(self.ids, str),
            labels=self.labels,
            logits=self.logits,
            class_names=np.array(self.class_names, str),
            **layout,
        )
        files.write(path, encoded.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike) -> "ClassificationResult":
        """Reads a file written by `save`. Raises `UserError` if it does not exist or has another format."""
        try:
            with epath.Path(path).open("rb") as file, np.load(file) as f:
                crops = int(f["crops"]) if "crops" in f else None
                if crops is not None and (crops < 1 or f["logits"].shape[1] % crops):
                    raise ValueError(f"{f['logits'].shape[1]} views are not of {crops} crops per clip")
                return cls(
                    f["ids"].tolist(), f["labels"], f["logits"], tuple(f["class_names"].tolist()), crops
                )
        except FileNotFoundError:
            raise UserError(f"no saved result at {path}: run the evaluation first") from None
        except (KeyError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as e:
            raise UserError(f"{path} is not a saved classification result: {e}") from None

    def write_predictions(self, path: str | os.PathLike) -> None:
        """Writes one JSON line per video: id, true, predicted, and top5 as [name, probability] pairs."""
        rows = []
        for i, (name, label) in enumerate(zip(self.ids, self.labels)):
            top = [[c, round(p, 6)] for c, p in self.top(i)]
            row = {"id": name, "true": self.class_names[label], "predicted": top[0][0], "top5": top}
            rows.append(json.dumps(row, ensure_ascii=False) + "\n")
        files.write(path, "".join(rows))  # a file name that is not UTF-8 is escaped by JSON


def read_result(folder: str | os.PathLike) -> Result:
    """Reads the result of an evaluation of any task. Raises `UserError` if the folder has none."""
    path = epath.Path(folder) / "result.npz"
    return ClassificationResult.load(path) if path.exists() else Metrics.load(folder)
