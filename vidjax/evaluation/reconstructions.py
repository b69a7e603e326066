"""Images of the reconstructions of a masked autoencoder: original, masked, and two reconstructions.

If the targets are normalized per token, predictions lack the mean and standard deviation of the pixels.
"Leak-free" uses the statistics of the clip's visible pixels for every predicted token. "True statistics", the
usual visualization, uses those of each masked token, which the model does not predict, and therefore
overstates the quality of the model. If the targets are plain pixels, predictions are shown unchanged as
"leak-free".
"""

import dataclasses
import functools
import io
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
from PIL import Image

from vidjax.data.datasets import ListSource, Source
from vidjax.data.pipeline import eval_batches
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.evaluation.base import Eval
from vidjax.evaluation.knn import balanced
from vidjax.layers.preprocess import denormalize, normalize
from vidjax.layers.transformer import patches
from vidjax.options import option
from vidjax.reports.reconstruction import PANELS, animation, sheet
from vidjax.sharding import in_mesh, mesh_hosts
from vidjax.tasks.base import Metrics
from vidjax.tasks.masked_autoencoding import draw

GREY = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReconstructionsEval(Eval):
    """Writes step_N.png and step_N.gif. It has no metrics.

    Attributes:
      clips: number of clips in the image.
    """

    type = "reconstructions"
    has_metrics = False

    clips: int = option(4, 1, 100)

    def prepare(self, exp: Any) -> None:
        super().prepare(exp)
        if not getattr(exp.model, "pretraining", False):
            raise UserError("reconstructions are those of masked autoencoders: remove this eval")

    def run(self, exp: Any, variables: Any, folder: epath.Path, step: int) -> Metrics:
        """All hosts compute, host 0 writes."""
        engine = exp.engine("predict", functools.partial(exp.task.predict, exp.model))
        together = mesh_hosts(exp.mesh)
        host = jax.process_index() if together > 1 else 0
        size = engine.batch_size(self.clips) * together // engine.hosts
        batches = eval_batches(
            _shown(exp.source(self.split), self.clips),
            exp.config.data,
            size,
            1,
            1,
            host=host,
            hosts=together,
            streams=exp.task.inputs.streams,
        )
        batch = next(iter(batches))
        placed = engine.place({"inputs": batch["inputs"], "mask": batch["mask"]})
        panels, good = jax.device_get(self._compiled(exp)(variables, placed))
        if not jax.process_index() and good.any():
            clips = [{n: panels[n][i] for n in PANELS if n in panels} for i in np.flatnonzero(good)]
            _write_images(clips, folder, step)
        return Metrics({}, "")

    def _compiled(self, exp: Any) -> Any:
        """Returns a function (variables, batch) -> panels of the first clips and their validity.

        The outputs are replicated.
        """
        whole = NamedSharding(exp.mesh, P())
        return exp.cached(
            ("reconstruct", self.clips),
            lambda: jax.jit(in_mesh(exp.mesh, self._panels(exp)), out_shardings=whole),
        )

    def _panels(self, exp: Any) -> Any:
        task = exp.task
        (stream,) = task.inputs.streams
        run = functools.partial(
            reconstruct,
            exp.model,
            rng=jax.random.PRNGKey(task.seed),
            mean=task.inputs.mean[stream],
            std=task.inputs.std[stream],
            normalized=task.normalize_targets,
        )

        def first_panels(variables: Any, batch: Any) -> Any:
            panels = run(variables, batch["inputs"][stream][:, 0])
            return jax.tree.map(lambda x: x[: self.clips], (panels, batch["mask"]))

        return first_panels


def unpatch(tokens: jax.Array, patch: Sequence[int], grid: Sequence[int]) -> jax.Array:
    """Converts tokens [B, T' H' W', p_t p_h p_w C] to pixels [B, T, H, W, C], the inverse of `patches`."""
    (t, h, w), (pt, ph, pw) = grid, patch
    x = tokens.reshape(tokens.shape[0], t, h, w, pt, ph, pw, -1).transpose(0, 1, 4, 2, 5, 3, 6, 7)
    return x.reshape(x.shape[0], t * pt, h * ph, w * pw, -1)


def reconstruct(
    model: Any,
    variables: Any,
    video: jax.Array,
    rng: jax.Array,
    mean: Sequence[float],
    std: Sequence[float],
    normalized: bool = True,
) -> dict[str, jax.Array]:
    """Reconstructs masked clips.

    Args:
      model: a masked autoencoder of `vidjax.models.masked.mae`.
      variables: variables of the model.
      video: uint8 [B, T, H, W, C]; T, H and W are multiples of the patch size.
      rng: key of the mask.
      mean, std: normalization statistics of the model.
      normalized: whether the model was trained on targets normalized per token.

    Returns:
      The `PANELS`, each float32 [B, T, H, W, C] in [0, 1]; without the last one if not `normalized`. If the
      model predicts one frame per tubelet, that frame is repeated.
    """
    clip = video.astype(jnp.float32) / 255
    grid, channels = model.token_grid(video.shape[1:]).shape, video.shape[-1]
    visible, decoded, _ = draw(model, rng, video.shape)
    predicted, _ = model.apply(variables, normalize(video, mean, std), False, visible, decoded)
    if model.predicts_one_frame:
        predicted = jnp.tile(predicted, (1, 1, model.patch[0]))
    true = patches(clip, model.patch).reshape(len(clip), -1, predicted.shape[-1])
    rows = jnp.arange(len(clip)).reshape(-1, 1)
    by_channel = lambda x: x.reshape(*x.shape[:2], -1, channels)  # noqa: E731
    shared = by_channel(true[rows, visible]).reshape(len(clip), 1, -1, channels)
    own = by_channel(true[rows, decoded])
    axes = (2, 3) if model.predicts_one_frame else 2  # statistics over the whole patch, or per channel

    def filled(pixels: jax.Array) -> jax.Array:
        pixels = jnp.clip(pixels, 0, 1).reshape(predicted.shape)
        shown = masked.at[rows, decoded].set(pixels).at[rows, visible].set(true[rows, visible])
        return unpatch(shown, *where)

    where = (model.patch, grid)
    masked = jnp.full_like(true, GREY).at[rows, visible].set(true[rows, visible])
    panels = [unpatch(true, *where), unpatch(masked, *where)]
    if normalized:
        pixels = by_channel(predicted)
        panels += [
            filled(pixels * x.std(axes, keepdims=True) + x.mean(axes, keepdims=True)) for x in (shared, own)
        ]
    elif model.predicts_one_frame:  # predicts the normalized video
        panels.append(filled(denormalize(by_channel(predicted), mean, std)))
    else:
        panels.append(filled(predicted))
    return dict(zip(PANELS, panels))


def _shown(source: Source, clips: int) -> Source:
    """Returns a few videos, of different classes if they are labeled."""
    if source.target is ClassTarget:
        return balanced(source, clips)
    chosen = np.linspace(0, len(source) - 1, min(clips, len(source))).astype(int)
    return ListSource(tuple(source[int(i)] for i in chosen), source.class_names)


def _write_images(clips: list[dict[str, np.ndarray]], folder: epath.Path, step: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    sheets = [sheet(clip) for clip in clips]
    image = Image.new("RGB", (sheets[0].width, sum(s.height + 8 for s in sheets)), "white")
    for i, one in enumerate(sheets):
        image.paste(one, (0, i * (one.height + 8)))
    _write(image, folder / f"step_{step}.png")
    first, *rest = animation(clips[0])
    _write(first, folder / f"step_{step}.gif", save_all=True, append_images=rest, duration=200, loop=0)


def _write(image: Image.Image, path: epath.Path, **options: Any) -> None:
    encoded = io.BytesIO()
    image.save(encoded, path.suffix[1:], **options)
    path.write_bytes(encoded.getvalue())
