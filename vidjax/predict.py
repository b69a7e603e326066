"""Prediction on loose video files with a trained checkpoint."""

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from vidjax.checkpoint_io import load_variables
from vidjax.config import resolve
from vidjax.data.decode import DecodeError
from vidjax.data.pipeline import eval_views
from vidjax.data.record import Record
from vidjax.errors import UserError
from vidjax.evals.classification import ClassificationResult
from vidjax.evals.pictures import watchable
from vidjax.train.experiment import build_model, make_predict
from vidjax.train.sharding import create_mesh


@dataclasses.dataclass(frozen=True)
class Prediction:
    """What a model says of one video.

    Attributes:
      path: the file.
      top: (class name, probability), the likeliest first.
      clips: (start, end, class name, probability) of each clip's likeliest class, times in seconds.
      frames: uint8 [T, H, W, C], the first clip, for pictures; see `evals.pictures.watchable`.
      error: why the video could not be read; the rest is empty then.
    """

    path: str
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    clips: list[tuple[float, float, str, float]] = dataclasses.field(default_factory=list)
    frames: np.ndarray | None = None
    error: str | None = None


def predict_videos(
    paths: Sequence[str], checkpoint: str | pathlib.Path, clips: int | None = None, top: int = 5
) -> Iterator[Prediction]:
    """Classifies videos one by one, with the model, views and class names of a checkpoint.

    Args:
      paths: video files.
      checkpoint: a workdir of `vidjax train`, or one checkpoint in it.
      clips: test clips in time per video; the config's where None.
      top: how many classes to name.

    Raises:
      UserError: no usable checkpoint there.
    """
    variables, meta = load_variables(checkpoint)
    variables = jax.device_put(variables, jax.local_devices()[0])  # once, not with every video
    config, names = resolve(meta["config"]), tuple(meta["class_names"])
    if config.data.modality == "features":
        raise UserError(f"{checkpoint} was trained on cached features: it takes those, not videos")
    model, _ = build_model(config, len(names))
    one_device = create_mesh(1, devices=jax.local_devices()[:1])  # files come one at a time
    predict = make_predict(model, config.model.name, one_device)
    clips = clips or config.evals.clips
    for path in paths:
        try:
            views, spans = eval_views(Record(str(path), 0, str(path)), config.data, clips, config.evals.crops)
        except DecodeError as e:
            yield Prediction(str(path), error=str(e))
            continue
        logits = np.asarray(predict(variables, jax.tree.map(lambda x: x[None], views)))
        video = ClassificationResult([str(path)], np.zeros(1, int), logits, names)
        by_clip = logits[0].reshape(clips, -1, len(names))
        each = ClassificationResult([str(path)] * clips, np.zeros(clips, int), by_clip, names)
        yield Prediction(
            path=str(path),
            top=video.top(0, top),
            clips=[(*map(float, span), *each.top(i, 1)[0]) for i, span in enumerate(spans)],
            frames=watchable(views)[0],
        )
