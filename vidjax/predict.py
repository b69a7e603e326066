"""Classifies video files with a trained checkpoint."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vidjax import registry
from vidjax.checkpoint_io import check_meta, load_variables
from vidjax.config import resolve
from vidjax.data import sampling
from vidjax.data.decode import DecodeError, Video
from vidjax.data.pipeline import check_memory, clip_shape, eval_views
from vidjax.data.record import Record
from vidjax.data.transforms import test_views
from vidjax.errors import UserError
from vidjax.inference import Engine, batched
from vidjax.layers.preprocess import normalize, statistics
from vidjax.models import list_models, spec
from vidjax.reports.pictures import watchable
from vidjax.sharding import create_mesh
from vidjax.tasks.results import ClassificationResult
from vidjax.train.experiment import build_model, evaluation_data, make_apply


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one video.

    Attributes:
      path: the file.
      top: (class name, probability) of the most likely classes, in descending order.
      clips: (start, end, class name, probability) of each clip's top class, times in seconds.
      frames: uint8 [T, H, W, C], the first clip, for display; see `reports.pictures.watchable`.
      error: why the video could not be read, or None; the other fields are then empty.
    """

    path: str
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    clips: list[tuple[float, float, str, float]] = dataclasses.field(default_factory=list)
    frames: np.ndarray | None = None
    error: str | None = None


@dataclasses.dataclass(frozen=True)
class StreamPrediction:
    """The prediction for a video up to the current frame.

    Attributes:
      path: the file.
      seconds: time of the last processed frame.
      frames: number of processed frames.
      top: (class name, probability) of the most likely classes, in descending order.
      final: whether the video has ended.
      error: why decoding failed, or None; `final` is then true and `top` empty.
    """

    path: str
    seconds: float
    frames: int
    top: list[tuple[str, float]] = dataclasses.field(default_factory=list)
    final: bool = False
    error: str | None = None


def predict_videos(
    paths: Sequence[str], checkpoint: epath.PathLike, clips: int | None = None, top: int = 5
) -> Iterator[Prediction]:
    """Classifies videos one by one, with the model, views and class names of a checkpoint.

    Args:
      paths: video files.
      checkpoint: a workdir of `vidjax train`, or one checkpoint in it.
      clips: temporal clips per video; None uses `evals.clips` of the config.
      top: number of classes to return.

    Raises:
      UserError: the checkpoint does not exist or cannot be used for prediction.
    """
    config, names, model, objective, variables = _load(checkpoint, clips)
    engine = Engine(create_mesh(devices=jax.local_devices()), make_apply(config, model, objective), hosts=1)
    variables = engine.replicate(variables)
    clips, data = config.evals.clips, evaluation_data(config)
    check_memory("--clips", clips * config.evals.crops, data)
    shown: dict[int, tuple[Any, np.ndarray]] = {}  # views and times of the videos being computed
    errors: dict[int, str] = {}
    views_shape = registry.dummy_input(clip_shape(data), clips * config.evals.crops, np.zeros, np.uint8)

    def read(i: int) -> dict[str, Any]:
        try:
            views, spans = eval_views(
                Record(str(paths[i]), 0, str(paths[i])), data, clips, config.evals.crops
            )
            shown[i] = views, spans
        except DecodeError as e:
            views, errors[i] = views_shape, str(e)
        return {"video": views, "index": np.int64(i)}

    size = engine.batch_size(1)
    empty = jax.tree.map(lambda x: np.stack([x] * size), {"video": views_shape, "index": np.int64(-1)})
    batches = batched(map(read, range(len(paths))), size, empty | {"mask": np.zeros(size, bool)})
    for batch in engine.run(variables, batches):
        for row in np.flatnonzero(batch["mask"]):
            i, logits = int(batch["index"][row]), batch["outputs"][row]
            path = str(paths[i])
            if i in errors:
                yield Prediction(path, error=errors.pop(i))
                continue
            views, spans = shown.pop(i)
            video = ClassificationResult([path], np.zeros(1, int), logits[None], names)
            by_clip = logits.reshape(clips, -1, len(names))
            each = ClassificationResult([path] * clips, np.zeros(clips, int), by_clip, names)
            yield Prediction(
                path=path,
                top=video.top(0, top),
                clips=[(float(span[0]), float(span[1]), *each.top(i, 1)[0]) for i, span in enumerate(spans)],
                frames=watchable(views)[0],
            )


def predict_stream(
    paths: Sequence[str],
    checkpoint: epath.PathLike,
    every: float = 1.0,
    every_frames: int | None = None,
    fps: float | None = None,
    top: int = 5,
) -> Iterator[StreamPrediction]:
    """Classifies videos frame by frame while decoding, with memory independent of their length.

    As in training, the model processes a center crop of every `data.stride`-th frame or, if `data.target_fps`
    is set, of one frame every `data.stride / data.target_fps` seconds. The state is reset for each video.

    Args:
      paths: video files.
      checkpoint: see `predict_videos`; its model must have `init_state` and `step`.
      every: seconds of video between predictions.
      every_frames: processed frames between predictions; overrides `every`.
      fps: frames per second to process; None uses the frame rate of training.
      top: number of classes to return.

    Yields:
      A prediction at every interval, and a final one at the end of each video.

    Raises:
      UserError: the checkpoint does not exist, or its model does not support streaming.
    """
    pace = every if every_frames is None else every_frames
    if not pace > 0:
        raise UserError(f"the interval between predictions must be positive, got {pace}")
    if fps is not None and not fps > 0:
        raise UserError(f"the number of frames per second must be positive, got {fps}")
    config, names, model, _, variables = _load(checkpoint)
    variables = jax.device_put(variables, jax.local_devices()[0])  # once, not with every video
    name, data = config.model.name, evaluation_data(config)
    if not streams(type(model)):
        families = ", ".join(sorted({s.family for s in map(spec, list_models()) if streams(s.module)}))
        raise UserError(f"{name} does not support --stream: use a streaming model of {families}")
    if data.modality != "rgb":
        raise UserError(f"{name} takes {data.modality}: --stream supports only models of rgb frames")
    scale = statistics(spec(name), data)
    start = model.init_state(1, (data.size, data.size, 1 if data.grey else 3))
    rate = fps or (data.target_fps and data.target_fps / data.stride)

    @functools.partial(jax.jit, donate_argnums=1)
    def step(variables, state, frame):
        (logits, _), state = model.apply(variables, state, normalize(frame, **scale), method="step")
        return logits, state

    def predict(logits: jax.Array) -> list[tuple[str, float]]:
        return ClassificationResult([""], np.zeros(1, int), np.asarray(logits)[None], names).top(0, top)

    for path in map(str, paths):
        processed, seconds, reported = 0, 0.0, 0  # frames, time of the last one, predictions
        state = jax.tree.map(jnp.array, start)  # copies: donated, and zeros may be shared
        try:
            with Video(path, indexed=False) as video:
                frames = video.play(grey=data.grey)
                if rate:
                    slack = max(sampling.SLACK, 2 * video.tolerance)
                    frames = sampling.resample(frames, rate, 1 / video.fps, slack)
                else:
                    frames = (each for _, each in sampling.resample(enumerate(frames), 1 / data.stride, 1))
                for now, frame in frames:
                    logits, state = step(variables, state, test_views(frame[None], data, 1)[0][0])
                    processed, seconds = processed + 1, now
                    due = math.floor((processed if every_frames else now) / pace + 1e-6)
                    if due > reported:
                        reported = due
                        yield StreamPrediction(path, seconds, processed, predict(logits))
        except DecodeError as e:
            yield StreamPrediction(path, seconds, processed, final=True, error=str(e))
        else:
            yield StreamPrediction(path, seconds, processed, predict(logits), final=True)


def streams(module: type[nn.Module]) -> bool:
    """Returns whether a model supports frame-by-frame inference."""
    return hasattr(module, "init_state")


def _load(
    checkpoint: epath.PathLike, clips: int | None = None
) -> tuple[Any, tuple[str, ...], nn.Module, Any, Any]:
    """Returns the config, class names, model, objective and variables (on the host) of a checkpoint."""
    variables, meta = load_variables(checkpoint)
    check_meta(meta, checkpoint, "config", "class_names")
    overrides = [] if clips is None else [f"evals.clips={clips}"]
    config, names = resolve(meta["config"], overrides), tuple(meta["class_names"])
    if config.data.modality == "features":
        raise UserError(f"{checkpoint} was trained on cached features and cannot classify videos")
    if registry.spec(config.model.name).task == "pretrain":
        raise UserError(
            f"{checkpoint} is a pretraining checkpoint without a classifier: fine-tune it first "
            f"(--config.init.path={checkpoint})"
        )
    return config, names, *build_model(config, len(names)), variables
