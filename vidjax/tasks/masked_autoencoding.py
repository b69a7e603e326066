"""Pretraining by reconstruction of masked tubelets.

Sources: Tong et al., arXiv:2203.12602, section 3.1 and the authors' release; Wang et al., arXiv:2303.16727,
equation 6 (dual masking); Feichtenhofer et al., arXiv:2205.09113, section 3 and the authors' release.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from vidjax.data.clips import Clip, Views
from vidjax.data.record import Record
from vidjax.errors import UserError
from vidjax.layers.masks import as_booleans, draw_mask
from vidjax.layers.preprocess import denormalize
from vidjax.layers.transformer import some_patches
from vidjax.options import option
from vidjax.tasks.base import Batch, Metrics, Task, check_finite


@dataclasses.dataclass(frozen=True)
class MaskedPrediction:
    """The reconstruction error of one clip, and the weight of its tokens."""

    error: float
    weight: float

    def as_json(self, top: int) -> dict[str, Any]:
        return {"loss": round(self.error / self.weight, 6)}

    def as_text(self, top: int) -> list[str]:
        return [f"reconstruction loss {self.error / self.weight:.4f}"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskedAutoencoding(Task):
    """Mean squared error of the predicted masked tokens; visible tokens are ignored.

    The model defines the masks (fields `mask`, `mask_ratio`, `decoder_mask`) and whether a whole tubelet or
    one of its frames is predicted.

    Attributes:
      normalize_targets: normalize the target pixels of each token by their mean and standard deviation.
    """

    name = "masked_autoencoding"

    normalize_targets: bool = option(True)

    def check(self, name: str, model: nn.Module, endpoints: Mapping[str, Any]) -> None:
        if not getattr(model, "pretraining", False):
            raise UserError(
                f"task.name={self.name} does not fit {name}: use a masked autoencoder such as "
                "videomae_b_pretrain, or task.name=classification"
            )

    def example(
        self, record: Record, clip: Clip, rng: np.random.Generator, train: bool
    ) -> dict[str, np.ndarray]:
        """Returns `mask_seed` int32, from which the mask of the clip is drawn on the device.

        Masks do not depend on the number of hosts, devices and accumulation steps.
        """
        return {"mask_seed": np.asarray(rng.integers(2**31), np.int32)}

    def loss(
        self, model: nn.Module, params: Any, model_state: Any, batch: Batch, rng: jax.Array, train: bool
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Computes the loss under masks drawn from `targets["mask_seed"]` [B].

        The metric feature_std is the standard deviation of the clips' features, which is near 0 if they have
        collapsed.
        """
        video = self.inputs(batch["inputs"])
        masks = self.draw_each(model, batch["targets"]["mask_seed"], video.shape)
        error, weight, endpoints = self.clip_errors(model, params, video, *masks, train)
        loss = error.sum() / weight.sum()
        features = jax.lax.stop_gradient(endpoints["pre_logits"])
        features /= jnp.linalg.norm(features, axis=-1, keepdims=True) + 1e-12
        feature_std = features.std(0).mean() * features.shape[-1] ** 0.5
        return loss, {"metrics": {"loss": loss, "feature_std": feature_std}, "model_state": model_state}

    def clip_errors(
        self,
        model: nn.Module,
        params: Any,
        video: jax.Array,
        visible: jax.Array,
        decoded: jax.Array,
        weight: jax.Array,
        train: bool = False,
    ) -> tuple[jax.Array, jax.Array, Any]:
        """Returns the weighted sum of token errors and sum of weights per clip, [B], and the endpoints.

        Args:
          model: the masked autoencoder.
          params: its parameters.
          video: normalized, [B, T, H, W, C].
          visible, decoded, weight: from `draw`.
          train: whether dropout is enabled.
        """
        predicted, endpoints = model.apply({"params": params}, video, train, visible, decoded)
        error = jnp.square(predicted - self.targets(model, video, decoded)).mean(-1)
        return (error * weight).sum(-1), weight.sum(-1), endpoints

    def targets(self, model: nn.Module, video: jax.Array, decoded: jax.Array) -> jax.Array:
        """Returns the targets [B, Nd, P] of the tokens `decoded` [B, Nd] of a normalized video."""
        if model.predicts_one_frame:
            return frame_targets(video, model.patch, decoded, self.normalize_targets)
        (stream,) = self.inputs.streams
        pixels = denormalize(video, self.inputs.mean[stream], self.inputs.std[stream])
        return tubelet_targets(pixels, model.patch, decoded, self.normalize_targets)

    def predict(self, model: nn.Module, variables: Any, batch: Batch) -> dict[str, jax.Array]:
        """Returns `error` and `weight` of the first view, float32 [B].

        The mask of a clip is drawn from the seed and its index, so it is independent of the batch.
        """
        clip = self.inputs(jax.tree.map(lambda x: x[:, 0], batch["inputs"]))
        masks = self.draw_each(model, batch["index"], clip.shape)
        error, weight, _ = self.clip_errors(model, variables["params"], clip, *masks)
        return {"error": error, "weight": weight}

    def draw_each(
        self, model: nn.Module, numbers: jax.Array, shape: Sequence[int]
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Draws masks as `draw` does, that of each clip from the seed and its number, int [B]."""

        def one(number):
            key = jax.random.fold_in(jax.random.PRNGKey(self.seed), number)
            return jax.tree.map(lambda x: x[0], draw(model, key, (1, *shape[1:])))

        return jax.vmap(one)(numbers)

    def decode(self, outputs: Mapping[str, Any], record: Record, views: Views) -> MaskedPrediction:
        return MaskedPrediction(float(outputs["error"]), float(outputs["weight"]))

    def evaluate(self, predictions: Sequence[MaskedPrediction], records: Sequence[Record]) -> Metrics:
        """Computes the loss: the sum of all errors divided by the sum of all weights."""
        check_finite([np.array(p.error) for p in predictions], records)
        loss = sum(p.error for p in predictions) / sum(p.weight for p in predictions)
        return Metrics({"loss": loss}, "-loss")


def draw(model: nn.Module, rng: jax.Array, shape: Sequence[int]) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Draws masks for a batch of clips of `shape` [B, T, H, W, C].

    Returns:
      Indices of the visible tokens [B, Nv] and of the tokens that the decoder predicts [B, Nd], and the loss
      weights of the latter, float32 [B, Nd]: 0 for tokens visible to the encoder.
    """
    first, second = jax.random.split(rng)
    grid = model.token_grid(shape[1:]).shape
    mask = draw_mask(model.mask, first, shape[0], grid, model.mask_ratio)
    if not model.decoder_mask:
        return mask.visible, mask.masked, jnp.ones(mask.masked.shape, jnp.float32)
    kept = draw_mask(model.decoder_mask, second, shape[0], grid, model.decoder_mask_ratio).visible
    hidden = jnp.take_along_axis(as_booleans(mask), kept, axis=1)
    return mask.visible, kept, hidden.astype(jnp.float32)


def tubelet_targets(
    video: jax.Array, patch: Sequence[int], decoded: jax.Array, normalized: bool = True
) -> jax.Array:
    """Returns the targets of VideoMAE: tubelets normalized per channel by mean and standard deviation.

    Args:
      video: pixels in [0, 1], [B, T, H, W, C].
      patch: (p_t, p_h, p_w).
      decoded: token indices [B, Nd].
      normalized: whether to normalize.

    Returns:
      [B, Nd, p_t p_h p_w C].
    """
    x = some_patches(video, patch, decoded)
    if not normalized:
        return x
    pixels = x.reshape(*x.shape[:2], -1, video.shape[-1])
    mean = pixels.mean(2, keepdims=True)
    pixels = (pixels - mean) / (jnp.sqrt(pixels.var(2, ddof=1, keepdims=True)) + 1e-6)
    return pixels.reshape(x.shape)


def frame_targets(
    video: jax.Array, patch: Sequence[int], decoded: jax.Array, normalized: bool = True
) -> jax.Array:
    """Returns the targets of MAE-ST: patches of one frame per tubelet, evenly spaced, normalized per patch.

    Args:
      video: normalized, [B, T, H, W, C].
      patch: (p_t, p_h, p_w).
      decoded: token indices [B, Nd].
      normalized: whether to normalize patches by mean and unbiased standard deviation.

    Returns:
      [B, Nd, p_h p_w C].
    """
    frames = np.linspace(0, video.shape[1] - 1, video.shape[1] // patch[0]).astype(int)
    x = some_patches(video[:, frames], (1, *patch[1:]), decoded)
    if not normalized:
        return x
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, ddof=1, keepdims=True) + 1e-6)
