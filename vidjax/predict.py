"""Predictions of a trained checkpoint for video files."""

import dataclasses
import functools
import math
import operator
from collections.abc import Iterator, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from vidjax.checkpoint_io import check_meta, load_variables
from vidjax.config import ConfigDict, resolve, restore
from vidjax.data import sampling
from vidjax.data.clips import Clip, ClipReader, Views
from vidjax.data.decode import DecodeError, Video
from vidjax.data.pipeline import check_memory
from vidjax.data.record import Record
from vidjax.data.transforms import test_views
from vidjax.errors import UserError
from vidjax.evaluation.metrics import MetricsEval
from vidjax.inference import Engine, batched
from vidjax.models import list_models, spec
from vidjax.reports.pictures import watchable
from vidjax.sharding import create_mesh
from vidjax.tasks import Task
from vidjax.tasks.classification import Classification
from vidjax.train.experiment import create_parts


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one video.

    Attributes:
      path: the file.
      content: what the task decodes, see `vidjax.tasks.base.Prediction`; None if there is an error.
      frames: uint8 [T, H, W, C], the first clip, for display; see `reports.pictures.watchable`.
      error: why the video could not be read, or None.
    """

    path: str
    content: Any = None
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


@dataclasses.dataclass(frozen=True)
class Predictor:
    """A trained model, ready to predict.

    Attributes:
      config: the config of the checkpoint.
      model, task: its parts.
      variables: on the host.
    """

    config: Any
    model: nn.Module
    task: Task
    variables: Any

    @classmethod
    def load(cls, checkpoint: epath.PathLike, clips: int | None = None) -> "Predictor":
        """Reads a checkpoint.

        Args:
          checkpoint: a workdir of `vidjax train`, or one checkpoint in it.
          clips: temporal clips per video; None uses those of the evaluation `checkpoint.best`.

        Raises:
          UserError: the checkpoint does not exist or cannot be used for prediction.
        """
        variables, meta = load_variables(checkpoint)
        check_meta(meta, checkpoint, "config", "class_names")
        config = restore(meta["config"])
        model, task = create_parts(config, meta["class_names"])
        if "features" in task.inputs.streams:
            raise UserError(f"{checkpoint} was trained on cached features and cannot classify videos")
        if getattr(model, "pretraining", False):
            raise UserError(
                f"{checkpoint} is a pretraining checkpoint without a classifier: fine-tune it first "
                f"(--config.init.path={checkpoint})"
            )
        predictor = cls(config, model, task, variables)
        return predictor if clips is None else predictor.with_clips(clips)

    def with_clips(self, clips: int) -> "Predictor":
        """Returns a predictor that samples another number of clips."""
        name = next(n for n, e in self.config.evals.items() if e == self._section)
        return dataclasses.replace(self, config=resolve(self.config, [f"evals.{name}.clips={clips}"]))

    @property
    def _section(self) -> ConfigDict:
        """The section of the evaluation whose views are used."""
        evals = self.config.evals
        sections = [evals[self.config.checkpoint.best], *evals.values()]
        return next((s for s in sections if s.type == MetricsEval.type), ConfigDict({"type": "metrics"}))

    @property
    def views(self) -> MetricsEval:
        """The evaluation whose test views are used."""
        options = {k: v for k, v in self._section.items() if k != "type"}
        return MetricsEval(**options)

    def videos(self, paths: Sequence[str]) -> Iterator[Prediction]:
        """Predicts videos one by one, from the test views of the checkpoint."""
        task, views = self.task, self.views
        data, clips, crops = views.data(self.config), views.clips, views.crops
        reader = ClipReader(data, task.reading["streams"])
        check_memory("--clips", clips * crops, data, reader.streams)
        engine = Engine(
            create_mesh(devices=jax.local_devices()), functools.partial(task.predict, self.model), hosts=1
        )
        variables = engine.replicate(self.variables)
        shown: dict[int, list[Clip]] = {}  # views of the videos being computed
        errors: dict[int, str] = {}
        blank = [reader.blank()] * (clips * crops)

        def read(i: int) -> dict[str, Any]:
            try:
                views = shown[i] = reader.views(Record(str(paths[i]), None, str(paths[i])), clips, crops)
            except DecodeError as e:
                views, errors[i] = blank, str(e)
            return _row(views, i)

        size = engine.batch_size(1)
        empty = jax.tree.map(lambda x: np.stack([x] * size), _row(blank, -1))
        batches = batched(map(read, range(len(paths))), size, empty | {"mask": np.zeros(size, bool)})
        for batch in engine.run(variables, batches):
            for row in np.flatnonzero(batch["mask"]):
                i = int(batch["index"][row])
                path = str(paths[i])
                if i in errors:
                    yield Prediction(path, error=errors.pop(i))
                    continue
                seen = shown.pop(i)
                outputs = jax.tree.map(operator.itemgetter(row), batch["outputs"])
                content = task.decode(outputs, Record(path, None, path), Views.of(seen, crops))
                yield Prediction(path, content, watchable(seen[0].inputs))


def _row(views: list[Clip], i: int) -> dict[str, Any]:
    inputs = {k: np.stack([view.inputs[k] for view in views]) for k in views[0].inputs}
    return {"inputs": inputs, "index": np.int64(i)}


def predict_videos(
    paths: Sequence[str], checkpoint: epath.PathLike, clips: int | None = None
) -> Iterator[Prediction]:
    """Predicts videos one by one; see `Predictor`."""
    return Predictor.load(checkpoint, clips).videos(paths)


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
    loaded = Predictor.load(checkpoint)
    config, model, task = loaded.config, loaded.model, loaded.task
    variables = jax.device_put(loaded.variables, jax.local_devices()[0])  # once, not with every video
    name, data = config.model.name, loaded.views.data(config)
    if not streams(type(model)):
        families = ", ".join(sorted({s.family for s in map(spec, list_models()) if streams(s.module)}))
        raise UserError(f"{name} does not support --stream: use a streaming model of {families}")
    if task.inputs.streams != ("rgb",):
        takes = "+".join(task.inputs.streams)
        raise UserError(f"{name} takes {takes}: --stream supports only models of rgb frames")
    if not isinstance(task, Classification):
        raise UserError(f"--stream predicts classes of whole videos, and {checkpoint} is for {task.name}")
    start = model.init_state(1, (data.size, data.size, 1 if data.grey else 3))
    rate = fps or (data.target_fps and data.target_fps / data.stride)

    @functools.partial(jax.jit, donate_argnums=1)
    def step(variables, state, frame):
        (logits, _), state = model.apply(variables, state, task.inputs({"rgb": frame}), method="step")
        return logits, state

    def predict(logits: jax.Array) -> list[tuple[str, float]]:
        return task.decode(np.asarray(logits), Record("", None, ""), Views(np.zeros((1, 1, 1)))).top(top)

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
