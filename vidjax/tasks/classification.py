"""Classification of videos into one of several classes."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from etils import epath

from vidjax.data.clips import Clip, Views
from vidjax.data.decode import DecodeError
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.layers.mixing import ERASING_MODES, mix, random_erasing
from vidjax.metrics.classification import log_mean_softmax
from vidjax.options import option
from vidjax.tasks.base import Batch, Task, check_finite, each_view
from vidjax.tasks.results import ClassificationResult

if TYPE_CHECKING:
    from PIL import Image

    from vidjax.reports.page import Section


@dataclasses.dataclass(frozen=True)
class ClassPrediction:
    """The class probabilities of one video.

    Attributes:
      logits: float32 [clips, crops, K].
      spans: time of the first and last frame of each clip in seconds, [clips, 2].
      class_names: K names.
    """

    logits: np.ndarray
    spans: np.ndarray
    class_names: tuple[str, ...]

    @property
    def scores(self) -> np.ndarray:
        """Probabilities [K], the mean over all views."""
        return np.exp(log_mean_softmax(self.logits.reshape(1, -1, len(self.class_names)))[0])

    def top(self, n: int) -> list[tuple[str, float]]:
        """Returns the n most probable (class name, probability), best first; the mean over all views."""
        return self._best(self.logits.reshape(-1, len(self.class_names)), n)

    def as_json(self, top: int) -> dict[str, Any]:
        return {
            "top": named(self.top(top)),
            "clips": [
                {"start": round(a, 3), "end": round(b, 3), "name": n, "probability": round(p, 6)}
                for a, b, n, p in self._clips()
            ],
        }

    def as_text(self, top: int) -> list[str]:
        lines = [f"{p:6.1%}  {n}" for n, p in self.top(top)]
        return lines + [f"{a:7.2f}–{b:.2f} s  {n} {p:.1%}" for a, b, n, p in self._clips()]

    def _clips(self) -> list[tuple[float, float, str, float]]:
        tops = (self._best(views, 1)[0] for views in self.logits)
        return [(float(a), float(b), n, p) for (a, b), (n, p) in zip(self.spans, tops, strict=True)]

    def _best(self, logits: np.ndarray, n: int) -> list[tuple[str, float]]:
        log_probs = log_mean_softmax(logits[None])[0]
        order = np.argsort(-log_probs, kind="stable")[:n]
        return [(self.class_names[k], float(np.exp(log_probs[k]))) for k in order]


def best(scores: np.ndarray, class_names: Sequence[str], n: int) -> list[tuple[str, float]]:
    """Returns the n classes with the highest scores [K] as (class name, score), best first."""
    return [(class_names[k], float(scores[k])) for k in np.argsort(-scores, kind="stable")[:n]]


def named(top: Sequence[tuple[str, float]]) -> list[dict[str, Any]]:
    """Converts (class name, probability) pairs for JSON."""
    return [{"name": n, "probability": round(p, 6)} for n, p in top]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Augmenting:
    """Options of a task that augments batches in training, see `vidjax.layers.mixing`.

    Attributes:
      mixup, cutmix: alpha of the distribution of weights, e.g. 0.8 and 1.0; with both they alternate.
      random_erasing: probability that a clip is erased; recipes use 0.25.
      erasing_mode: what boxes are filled with.
      erasing_count: highest number of boxes.
      erasing_per_frame: whether every frame has boxes of its own.
    """

    mixup: float = option(0.0, 0.0, 1e3)
    cutmix: float = option(0.0, 0.0, 1e3)
    random_erasing: float = option(0.0, 0.0, 1.0)
    erasing_mode: str = option("pixel", choices=ERASING_MODES)
    erasing_count: int = option(1, 1, 100)
    erasing_per_frame: bool = option(False)

    def augment(self, rng: jax.Array, video: Any, targets: jax.Array) -> tuple[Any, jax.Array]:
        """Applies random erasing and mixing to a batch, the same to all streams of a clip."""
        erase, mixing = jax.random.split(rng)
        streams, structure = jax.tree.flatten(video)
        if self.random_erasing:
            how = self.random_erasing, self.erasing_mode, self.erasing_count, self.erasing_per_frame
            streams = [random_erasing(erase, x, *how) for x in streams]
        mixed = [mix(mixing, x, targets, self.mixup, self.cutmix) for x in streams]
        return jax.tree.unflatten(structure, [x for x, _ in mixed]), mixed[0][1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Augmenting, Task):
    """Softmax cross-entropy loss; the score of a video is the mean softmax over its views.

    The training metric top1 compares mixed clips with the label before mixing.

    Attributes:
      label_smoothing: probability spread evenly over the classes (Szegedy et al., arXiv:1512.00567).
      per_frame: average loss and top1 over the predictions of every frame, the endpoint frame_logits
        [B, T, K] (Donahue et al., arXiv:1411.4389, section 4).
    """

    name = "classification"
    target = ClassTarget

    label_smoothing: float = option(0.0, 0.0, 0.999)
    per_frame: bool = option(False)

    def check(self, name: str, model: nn.Module, endpoints: Mapping[str, Any]) -> None:
        super().check(name, model, endpoints)
        if self.per_frame:
            check_frame_logits("task.per_frame", endpoints)

    def example(
        self, record: Record, clip: Clip, rng: np.random.Generator, train: bool
    ) -> dict[str, np.ndarray]:
        """Returns the `label`, int32. Raises `DecodeError` if it is not the index of a class."""
        check_label(record, record.target.label, len(self.class_names))
        return {"label": np.array(record.target.label, np.int32)}

    def loss(
        self, model: nn.Module, params: Any, model_state: Any, batch: Batch, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        video, labels = self.inputs(batch["inputs"]), batch["targets"]["label"]
        targets = optax.smooth_labels(jax.nn.one_hot(labels, model.num_classes), self.label_smoothing)
        if train:
            video, targets = self.augment(jax.random.fold_in(rng, 1), video, targets)
        (logits, endpoints), model_state = apply_for_loss(model, params, model_state, video, rng, train)
        if self.per_frame:
            logits, targets, labels = _every_frame(endpoints, targets, labels)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
        return loss, {"metrics": {"loss": loss, "top1": top1}, "model_state": model_state}

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> jax.Array:
        """Returns logits float32 [B, V, K]."""
        return each_view(lambda x: view_logits(self.inputs, model, variables, x)[0], batch["inputs"])

    def decode(self, outputs: np.ndarray, record: Record, views: Views) -> ClassPrediction:
        return ClassPrediction(outputs.reshape(*views.times.shape[:2], -1), views.spans, self.class_names)

    def evaluate(
        self, predictions: Sequence[ClassPrediction], records: Sequence[Record]
    ) -> ClassificationResult:
        check_finite([p.logits for p in predictions], records)
        names = self.class_names
        if (k := predictions[0].logits.shape[-1]) != len(names):
            raise UserError(
                f"the model has {k} classes and the data {len(names)}: evaluate the model on a dataset with "
                "the classes it was trained on"
            )
        for r in records:
            if not 0 <= r.target.label < len(names):
                raise UserError(f"'{r.id}' has label {r.target.label}, outside the {len(names)} classes")
        logits = np.stack([p.logits.reshape(-1, len(names)) for p in predictions])
        labels = np.array([r.target.label for r in records], np.int64)
        crops = predictions[0].logits.shape[1]
        return ClassificationResult([r.id for r in records], labels, logits, names, crops)

    def load(self, folder: epath.PathLike) -> ClassificationResult:
        return ClassificationResult.load(epath.Path(folder) / "result.npz")

    def report(self, results: Mapping[str, ClassificationResult]) -> "list[Section]":
        from vidjax.reports.page import classification_sections

        for name, result in results.items():
            if result.class_names != self.class_names:
                raise UserError(
                    f"the classes of the result of {name} differ from those of the last run: report runs on "
                    "the same dataset"
                )
        return classification_sections(results, self.class_names)

    def examples(
        self, result: ClassificationResult, n: int
    ) -> list[tuple[str, str, list[tuple[str, float]]]]:
        """Returns the most confident mistakes, up to half of n, and correct predictions."""
        wrong = result.predictions != result.labels
        confidence = result.log_probs.max(-1)
        mistakes = [int(i) for i in np.argsort(-confidence) if wrong[i]][: n // 2]
        right = [int(i) for i in np.argsort(result.labels, kind="stable") if not wrong[i]]
        spread = np.linspace(0, len(right) - 1, min(len(right), n - len(mistakes))).astype(int)
        chosen = mistakes + [right[i] for i in spread]
        return [(result.ids[i], result.class_names[result.labels[i]], result.top(i)) for i in chosen]

    def draw(self, prediction: ClassPrediction, frames: np.ndarray, title: str = "") -> "Image.Image":
        from vidjax.reports.pictures import strip

        return strip(frames, title=title, probs=prediction.top(5))


def apply_for_loss(
    model: nn.Module, params: Any, model_state: Any, inputs: Any, rng: jax.Array, train: bool
) -> Any:
    """Returns the outputs of a classifier, (logits, endpoints), and its new state."""
    return model.apply(
        {"params": params, **model_state},
        inputs,
        train=train,
        rngs={"dropout": rng},
        mutable=list(model_state) if train else [],
    )


def view_logits(inputs: Any, model: nn.Module, variables: Any, view: Any) -> tuple[jax.Array, Any]:
    """Returns the float32 logits [B, K] of a view, and the endpoints, a dict of arrays."""
    logits, endpoints = model.apply(variables, inputs(view), train=False)
    return logits.astype(jnp.float32), endpoints


def check_label(record: Record, label: int, classes: int) -> None:
    """Raises `DecodeError` if a label is not the index of a class."""
    if not 0 <= label < classes:
        raise DecodeError(f"{record.id}: label {label} is not from 0 to {classes - 1}")


def check_frame_logits(key: str, endpoints: Mapping[str, Any]) -> None:
    """Raises `UserError` if a model does not classify every frame."""
    if "frame_logits" not in endpoints:
        raise UserError(
            f"{key} needs a model that classifies every frame: lrcn_resnet50, or another recurrent one with "
            "model.options.readout=every"
        )


def _every_frame(
    endpoints: dict[str, jax.Array], targets: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns logits [B, T, K], targets [B, T, K] and labels [B, T]; a clip's label applies to all frames."""
    check_frame_logits("task.per_frame", endpoints)
    logits = endpoints["frame_logits"]
    b, t, k = logits.shape
    return (
        logits,
        jnp.broadcast_to(targets.reshape(b, -1, k), (b, t, k)),
        jnp.broadcast_to(labels.reshape(b, -1), (b, t)),
    )
