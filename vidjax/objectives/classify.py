"""Classification of labeled clips."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vidjax.errors import UserError
from vidjax.layers.preprocess import normalize
from vidjax.objectives.mixing import mix, random_erasing


@dataclasses.dataclass(frozen=True)
class Classify:
    """Softmax cross-entropy loss.

    Attributes:
      mean, std: per-channel statistics that the model expects, on a scale of 0 to 1; dicts if the
        input is a dict of streams.
      label_smoothing: probability spread evenly over the classes (Szegedy et al., arXiv:1512.00567).
      mixup, cutmix, random_erasing: in training only, see `vidjax.objectives.mixing`. The training
        metric top1 then compares mixed clips with the label before mixing.
      per_frame: average loss and top1 over the predictions of every frame, the endpoint frame_logits
        [B, T, K] (Donahue et al., arXiv:1411.4389, section 4).
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    label_smoothing: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    random_erasing: float = 0.0
    per_frame: bool = False

    def __call__(
        self, model: nn.Module, params: Any, model_state: Any, batch: dict, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Returns the loss of batch["video"] uint8 [B, T, H, W, C] with batch["label"] int [B], or [B, T].

        Returns:
          The loss, and aux with `metrics` (loss, top1) and the new `model_state`.

        Raises:
          UserError: `per_frame` is set and the model has no frame_logits.
        """
        video, labels = normalize(batch["video"], self.mean, self.std), batch["label"]
        targets = optax.smooth_labels(jax.nn.one_hot(labels, model.num_classes), self.label_smoothing)
        if train:
            video, targets = self._mix(jax.random.fold_in(rng, 1), video, targets)
        (logits, endpoints), model_state = model.apply(
            {"params": params, **model_state},
            video,
            train=train,
            rngs={"dropout": rng},
            mutable=list(model_state) if train else [],
        )
        if self.per_frame:
            logits, targets, labels = _every_frame(endpoints, targets, labels)
        loss = optax.softmax_cross_entropy(logits, targets).mean()
        top1 = (logits.argmax(-1) == labels).mean(dtype=jnp.float32)
        return loss, {"metrics": {"loss": loss, "top1": top1}, "model_state": model_state}

    def _mix(self, rng: jax.Array, video: Any, targets: jax.Array) -> tuple[Any, jax.Array]:
        """Applies random erasing and mixing, the same to all streams of a clip."""
        erasing, mixing = jax.random.split(rng)
        streams, structure = jax.tree.flatten(video)
        if self.random_erasing:
            streams = [random_erasing(erasing, x, self.random_erasing) for x in streams]
        mixed = [mix(mixing, x, targets, self.mixup, self.cutmix) for x in streams]
        return jax.tree.unflatten(structure, [x for x, _ in mixed]), mixed[0][1]


def _every_frame(
    endpoints: dict[str, jax.Array], targets: jax.Array, labels: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns logits [B, T, K], targets [B, T, K] and labels [B, T]; a clip's label applies to all frames."""
    if "frame_logits" not in endpoints:
        raise UserError(
            "objective.per_frame needs a model that classifies every frame: lrcn_resnet50, or another "
            "recurrent one with model.options.readout=every"
        )
    logits = endpoints["frame_logits"]
    b, t, k = logits.shape
    return (
        logits,
        jnp.broadcast_to(targets.reshape(b, -1, k), (b, t, k)),
        jnp.broadcast_to(labels.reshape(b, -1), (b, t)),
    )
