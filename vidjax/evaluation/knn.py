"""A nearest-neighbor probe of features, and measures of their collapse."""

import dataclasses
from typing import Any

import jax
import numpy as np
from etils import epath

from vidjax.data.datasets import ListSource, Source
from vidjax.data.pipeline import eval_batches
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.evaluation.base import Eval
from vidjax.inference.engine import endpoints
from vidjax.metrics.features import effective_rank, feature_std, knn_predict
from vidjax.options import option
from vidjax.tasks.base import Metrics


@dataclasses.dataclass(frozen=True, kw_only=True)
class KnnEval(Eval):
    """A weighted k-nearest-neighbor classifier on the features of at most `videos` labeled training videos.

    Attributes:
      videos: maximum number of videos per split, balanced over classes.
      neighbors: k.
    """

    type = "knn"

    videos: int = option(1000, 1, 2**24)
    neighbors: int = option(20, 1, 2**24)

    def sources(self, exp: Any) -> tuple[Source, Source]:
        """Returns the labeled videos, and the videos to classify.

        Raises:
          UserError: the videos have no classes, or a class of the latter has no labeled video.
        """
        return exp.cached(("knn", self.split, self.videos), lambda: self._sources(exp))

    def _sources(self, exp: Any) -> tuple[Source, Source]:
        bank, test = (balanced(s, self.videos) for s in (exp.train_source, exp.source(self.split)))
        if unseen := sorted(_labels(test) - _labels(bank)):
            names = ", ".join(test.class_names[i] for i in unseen[:5])
            raise UserError(
                f"none of the {len(bank)} training videos of the nearest-neighbor probe is of the classes "
                f"{names}: raise evals.knn.videos, or remove these classes from the evaluation split"
            )
        return bank, test

    def prepare(self, exp: Any) -> None:
        self.sources(exp)

    def run(self, exp: Any, variables: Any, folder: epath.Path, step: int) -> Metrics:
        bank, test = self.sources(exp)
        keys, labels = self._embed(exp, variables, bank)
        queries, truth = self._embed(exp, variables, test)
        scores = knn_predict(keys, labels, queries, len(test.class_names), self.neighbors)
        metrics = {
            "knn_top1": float((scores.argmax(1) == truth).mean()),
            "feature_std": feature_std(queries),
            "effective_rank": effective_rank(queries),
        }
        return Metrics(metrics, "knn_top1")

    def _embed(self, exp: Any, variables: Any, source: Source) -> tuple[np.ndarray, np.ndarray]:
        """Returns features float64 [N, D] and labels [N] of the readable videos of a source, in order."""
        engine = exp.engine("embed", _features(exp))
        size = engine.batch_size(min(len(source), self.batch or exp.config.batch))
        hosts = dict(host=jax.process_index(), hosts=engine.hosts, streams=exp.task.inputs.streams)
        parts = []
        for batch in engine.run(variables, eval_batches(source, exp.config.data, size, 1, 1, **hosts)):
            parts += [
                (int(batch["index"][row]), batch["outputs"][row]) for row in np.flatnonzero(batch["mask"])
            ]
        if not parts:
            raise UserError("none of the videos of the nearest-neighbor probe can be read")
        parts.sort(key=lambda part: part[0])
        labels = np.array([source[i].target.label for i, _ in parts])
        return np.stack([x for _, x in parts]).astype(np.float64), labels


def _labels(source: Source) -> set[int]:
    return {source[i].target.label for i in range(len(source))}


def _features(exp: Any) -> Any:
    def features(variables: Any, batch: dict) -> jax.Array:
        clip = exp.task.inputs(jax.tree.map(lambda x: x[:, 0], batch["inputs"]))
        return endpoints(exp.model, variables, clip)["pre_logits"].astype("float32")

    return features


def balanced(source: Source, limit: int) -> Source:
    """Returns at most `limit` videos, balanced over classes, in the order of the source.

    Raises:
      UserError: the videos are not labeled with classes.
    """
    if source.target is not ClassTarget:
        raise UserError("the nearest-neighbor probe needs videos with one class each: remove the knn eval")
    order = np.random.default_rng(0).permutation(len(source))
    labels = np.array([source[int(i)].target.label for i in order])
    by_label = np.argsort(labels, kind="stable")
    rank = np.empty(len(labels), int)  # number of preceding videos of the same class
    rank[by_label] = np.arange(len(labels)) - np.searchsorted(labels[by_label], labels[by_label])
    chosen = np.sort(order[np.argsort(rank, kind="stable")[:limit]])
    return ListSource(tuple(source[int(i)] for i in chosen), source.class_names)
