"""Classification of videos that have any number of classes."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidjax.data.clips import Clip, Views
from vidjax.data.record import Record
from vidjax.data.targets import MultiLabelTarget
from vidjax.metrics.average_precision import (
    chance_average_precision,
    mean_average_precision,
    per_class_average_precision,
)
from vidjax.options import option
from vidjax.tasks.base import Batch, Metrics, Task, check_finite, each_view
from vidjax.tasks.classification import (
    Augmenting,
    apply_for_loss,
    best,
    check_label,
    named,
    view_logits,
)


@dataclasses.dataclass(frozen=True)
class MultiLabelPrediction:
    """The independent probability of each class.

    Attributes:
      scores: float32 [K].
      clips: the same for each clip, [clips, K].
      spans: time of the first and last frame of each clip in seconds, [clips, 2].
      class_names: K names.
    """

    scores: np.ndarray
    clips: np.ndarray
    spans: np.ndarray
    class_names: tuple[str, ...]

    def top(self, n: int) -> list[tuple[str, float]]:
        """Returns the n most probable (class name, probability), best first."""
        return best(self.scores, self.class_names, n)

    def as_json(self, top: int) -> dict[str, Any]:
        clips = zip(self.spans, self.clips, strict=True)
        return {
            "top": named(self.top(top)),
            "clips": [
                {"start": round(a, 3), "end": round(b, 3), "top": named(best(scores, self.class_names, top))}
                for (a, b), scores in clips
            ],
        }

    def as_text(self, top: int) -> list[str]:
        return [f"{p:6.1%}  {n}" for n, p in self.top(top)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MultiLabel(Augmenting, Task):
    """Binary cross-entropy of each class; the metrics are those of Charades (arXiv:1604.01753).

    Attributes:
      pool: how the probabilities of the views of a video are combined; Charades results commonly use the
        maximum (Feichtenhofer et al., arXiv:1812.03982, section 4).
    """

    name = "multi_label"
    target = MultiLabelTarget

    pool: str = option("mean", choices=("mean", "max"))

    def example(
        self, record: Record, clip: Clip, rng: np.random.Generator, train: bool
    ) -> dict[str, np.ndarray]:
        """Returns `labels`, float32 [K], 1 for the classes of the video.

        Raises:
          DecodeError: a label is not the index of a class.
        """
        return {"labels": multi_hot(record, len(self.class_names))}

    def loss(
        self, model: nn.Module, params: Any, model_state: Any, batch: Batch, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Computes the loss, a sum over classes and a mean over clips.

        The metric precision_at_1 is the share of clips whose most probable class is one of theirs.
        """
        video, labels = self.inputs(batch["inputs"]), batch["targets"]["labels"]
        targets = labels
        if train:
            video, targets = self.augment(jax.random.fold_in(rng, 1), video, labels)
        (logits, _), model_state = apply_for_loss(model, params, model_state, video, rng, train)
        loss = optax.sigmoid_binary_cross_entropy(logits, targets).sum(-1).mean()
        best = jnp.take_along_axis(labels, logits.argmax(-1, keepdims=True), -1).mean()
        return loss, {"metrics": {"loss": loss, "precision_at_1": best}, "model_state": model_state}

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
        """Returns logits float32 [B, V, K]."""
        return each_view(lambda x: view_logits(self.inputs, model, variables, x)[0], batch["inputs"])

    def decode(self, outputs: np.ndarray, record: Record, views: Views) -> MultiLabelPrediction:
        probabilities = sigmoid(outputs).reshape(*views.times.shape[:2], -1)
        pooled = probabilities.mean((0, 1)) if self.pool == "mean" else probabilities.max((0, 1))
        return MultiLabelPrediction(pooled, probabilities.mean(1), views.spans, self.class_names)

    def evaluate(self, predictions: Sequence[MultiLabelPrediction], records: Sequence[Record]) -> Metrics:
        """Computes the mean average precision (map), and its mean weighted by class frequency (wap)."""
        check_finite([p.scores for p in predictions], records)
        scores = np.stack([p.scores for p in predictions])
        positives = np.stack([multi_hot(r, len(self.class_names)) for r in records]) > 0
        rows = [{"id": r.id, **p.as_json(5)} for p, r in zip(predictions, records, strict=True)]
        return average_precisions(scores, positives, self.class_names, rows)


def average_precisions(
    scores: np.ndarray, positives: np.ndarray, class_names: Sequence[str], rows: Sequence[dict[str, Any]]
) -> Metrics:
    """Returns the metrics of scores and positives [N, K], with a table by class.

    Args:
      scores: of N samples.
      positives: bool, whether a sample is of a class.
      class_names: K names.
      rows: predictions to write.
    """
    by_class = per_class_average_precision(scores, positives)
    share, seen = positives.mean(0), positives.any(0)
    metrics = {
        "map": mean_average_precision(scores, positives),
        "wap": mean_average_precision(scores, positives, weighted=True),
        "chance_map": float(chance_average_precision(positives)[seen].mean()),  # of random scores
    }
    table = [
        {"class": n, "average precision": float(p), "share of positives": float(s)}
        for n, p, s in zip(class_names, by_class, share)
        if s > 0
    ]
    return Metrics(metrics, "map", rows, table)


def multi_hot(record: Record, classes: int) -> np.ndarray:
    """Returns the labels of a record as float32 [classes]. Raises `DecodeError` if one is out of range."""
    for label in record.target.labels:
        check_label(record, label, classes)
    hot = np.zeros(classes, np.float32)
    hot[list(record.target.labels)] = 1
    return hot


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns 1 / (1 + exp(-logits)) without overflow, in the dtype of `logits`."""
    return np.exp(-np.logaddexp(0, -logits))
