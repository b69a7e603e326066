"""Classification of every moment of an untrimmed video into any number of classes."""

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
from vidjax.data.targets import SegmentsTarget
from vidjax.metrics.average_precision import labels_at, points
from vidjax.options import option
from vidjax.tasks.base import Batch, Metrics, Task, check_finite, each_view
from vidjax.tasks.classification import apply_for_loss, check_label, view_logits
from vidjax.tasks.multi_label import average_precisions, sigmoid


@dataclasses.dataclass(frozen=True)
class FramePrediction:
    """Probabilities of each class over time.

    Attributes:
      times: seconds, ascending, [M].
      scores: float32 [M, K].
      class_names: K names.
      threshold: probability from which on a class is reported.
    """

    times: np.ndarray
    scores: np.ndarray
    class_names: tuple[str, ...]
    threshold: float

    def at(self, times: np.ndarray) -> np.ndarray:
        """Returns the scores [n, K] at `times` [n], interpolated linearly and constant beyond the ends."""
        return np.stack([np.interp(times, self.times, s) for s in self.scores.T], 1)

    def segments(self) -> list[tuple[float, float, str, float]]:
        """Returns (start, end, class name, mean probability) of the spans above the threshold, in order.

        A span reaches halfway to the neighboring times.
        """
        middle = (self.times[1:] + self.times[:-1]) / 2
        edges = np.concatenate([self.times[:1], middle, self.times[-1:]])
        found = []
        for name, scores in zip(self.class_names, self.scores.T, strict=True):
            above = np.concatenate([[False], scores >= self.threshold, [False]])
            starts, ends = np.flatnonzero(above[1:] & ~above[:-1]), np.flatnonzero(above[:-1] & ~above[1:])
            found += [
                (float(edges[a]), float(edges[b]), name, float(scores[a:b].mean()))
                for a, b in zip(starts, ends, strict=True)
            ]
        return sorted(found)

    def as_json(self, top: int) -> dict[str, Any]:
        return {
            "segments": [
                {"start": round(a, 3), "end": round(b, 3), "name": n, "probability": round(p, 6)}
                for a, b, n, p in self.segments()
            ]
        }

    def as_text(self, top: int) -> list[str]:
        lines = [f"{a:7.2f}–{b:.2f} s  {n} {p:.1%}" for a, b, n, p in self.segments()]
        return lines or [f"no class reaches a probability of {self.threshold:g}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameClassification(Task):
    """Binary cross-entropy of each class at each frame.

    A model that classifies every frame (endpoint frame_logits [B, T', K]) is trained on all frames of a clip,
    any other on the middle of the clip. The metric is the localization metric of Charades (Sigurdsson et al.,
    arXiv:1612.06371, section 5): the mean average precision over equally spaced points of all videos.

    Attributes:
      points: points per video at which predictions are scored.
      threshold: probability from which on `vidjax predict` reports a class.
    """

    name = "frame_classification"
    target = SegmentsTarget
    any_clips = True

    points: int = option(25, 1, 10_000)
    threshold: float = option(0.5, 0.0, 1.0)

    def example(
        self, record: Record, clip: Clip, rng: np.random.Generator, train: bool
    ) -> dict[str, np.ndarray]:
        """Returns `labels`, float32 [T, K], 1 for the classes at the time of each frame.

        Raises:
          DecodeError: a label is not the index of a class.
        """
        for segment in record.target.segments:
            check_label(record, segment.label, len(self.class_names))
        labels = labels_at(record.target.segments, clip.times, len(self.class_names))
        return {"labels": labels.astype(np.float32)}

    def loss(
        self, model: nn.Module, params: Any, model_state: Any, batch: Batch, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Computes the loss, a sum over classes and a mean over frames."""
        outputs, model_state = apply_for_loss(
            model, params, model_state, self.inputs(batch["inputs"]), rng, train
        )
        logits = _over_time(*outputs)
        labels = batch["targets"]["labels"]
        labels = labels[:, _middles(labels.shape[1], logits.shape[1])]
        loss = optax.sigmoid_binary_cross_entropy(logits, labels).sum(-1).mean()
        right = ((logits > 0) == (labels > 0.5)).mean(dtype=jnp.float32)
        return loss, {"metrics": {"loss": loss, "binary_accuracy": right}, "model_state": model_state}

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
        """Returns logits float32 [B, V, T', K]."""
        return each_view(
            lambda x: _over_time(*view_logits(self.inputs, model, variables, x)), batch["inputs"]
        )

    def decode(self, outputs: np.ndarray, record: Record, views: Views) -> FramePrediction:
        """Averages the crops of a clip, and joins the clips in the order of time."""
        times = views.times
        clips, crops, frames = times.shape
        steps = outputs.shape[1]
        scores = sigmoid(outputs).reshape(clips, crops, steps, -1).mean(1).reshape(clips * steps, -1)
        at = times[:, 0, _middles(frames, steps)].ravel()
        unique, inverse = np.unique(at, return_inverse=True)  # clips may overlap
        count = np.bincount(inverse)[:, None]
        joined = np.stack([np.bincount(inverse, s, len(unique)) for s in scores.T], 1) / count
        return FramePrediction(unique, joined.astype(np.float32), self.class_names, self.threshold)

    def evaluate(self, predictions: Sequence[FramePrediction], records: Sequence[Record]) -> Metrics:
        """Computes map and wap over `points` points of each video, see `vidjax.metrics.average_precision`."""
        check_finite([p.scores for p in predictions], records)
        classes, scores, positives = len(self.class_names), [], []
        for p, r in zip(predictions, records, strict=True):
            at = points(r.target.duration, self.points)
            scores.append(p.at(at))
            positives.append(labels_at(r.target.segments, at, classes))
        rows = [{"id": r.id, **p.as_json(5)} for p, r in zip(predictions, records, strict=True)]
        return average_precisions(np.concatenate(scores), np.concatenate(positives), self.class_names, rows)


def _over_time(logits: jax.Array, endpoints: dict[str, jax.Array]) -> jax.Array:
    """Returns logits [B, T', K] over time; T' = 1 if the model only classifies whole clips."""
    return endpoints.get("frame_logits", logits[:, None]).astype(jnp.float32)


def _middles(frames: int, steps: int) -> np.ndarray:
    """Returns the middle frame of each of `steps` equal parts of `frames` frames."""
    return (2 * np.arange(steps) + 1) * frames // (2 * steps)
