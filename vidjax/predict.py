"""Predictions of a trained checkpoint for video files."""

import dataclasses
import functools
import itertools
import math
import operator
from collections.abc import Iterable, Iterator, Sequence
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
from vidjax.data.windows import read_windows
from vidjax.errors import UserError
from vidjax.evaluation.metrics import MetricsEval
from vidjax.inference import Engine, batched
from vidjax.models import list_models, spec
from vidjax.reports.pictures import watchable
from vidjax.sharding import create_mesh
from vidjax.tasks import Task
from vidjax.tasks.classification import Classification, best, named
from vidjax.tasks.multi_label import MultiLabel
from vidjax.train.experiment import create_parts


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The prediction for one video, or for a window of it.

    Attributes:
      path: the file.
      content: what the task decodes, see `vidjax.tasks.base.Prediction`; None if there is an error.
      frames: uint8 [T, H, W, C], the first clip, for display; see `reports.pictures.watchable`.
      error: why the video could not be read, or None.
      start, end: the window in seconds; None for the whole video.
    """

    path: str
    content: Any = None
    frames: np.ndarray | None = None
    error: str | None = None
    start: float | None = None
    end: float | None = None


@dataclasses.dataclass(frozen=True)
class StreamPrediction(Prediction):
    """The prediction for a video from its start to the current frame.

    Attributes:
      processed: number of processed frames.
      final: whether the video has ended.
    """

    processed: int = 0
    final: bool = False


@dataclasses.dataclass(frozen=True)
class Scores:
    """Scores [K] of K classes."""

    scores: np.ndarray
    class_names: tuple[str, ...]

    def top(self, n: int) -> list[tuple[str, float]]:
        """Returns the n best (class name, score), best first."""
        return best(self.scores, self.class_names, n)

    def as_json(self, top: int) -> dict[str, Any]:
        return {"top": named(self.top(top))}

    def as_text(self, top: int) -> list[str]:
        return [f"{p:6.1%}  {n}" for n, p in self.top(top)]


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
        clips, crops = self.views.clips, self.views.crops
        check_memory("--clips", clips * crops, self._reader.cfg, self._reader.streams)

        def read(path: str) -> _Item:
            try:
                return _Item(path, self._reader.views(Record(path, None, path), clips, crops))
            except DecodeError as e:
                return _Item(path, error=str(e))

        return self._predictions(map(read, map(str, paths)), 1, clips * crops)

    def windows(
        self,
        paths: Sequence[str],
        length: float | None = None,
        step: float | None = None,
        clips: int | None = None,
        batch: int = 8,
    ) -> Iterator[Prediction]:
        """Predicts window after window of videos of any length, with memory independent of the length.

        Args:
          paths: video files.
          length: seconds per window; None uses the length of a clip.
          step: seconds from one window to the next; None uses half of `length`.
          clips: clips per window; None uses as many as cover it.
          batch: windows that are computed at a time.

        Yields:
          The windows of a video in order; one with an error ends the video. See `vidjax.data.windows`.

        Raises:
          UserError: the length or step is not positive, or the clips have no length of their own.
        """
        for name, seconds in (("length", length), ("step", step)):
            if seconds is not None and not 0 < seconds < math.inf:
                raise UserError(f"the {name} of windows must be positive, got {seconds:g} s")
        reader, crops = self._reader, self.views.crops

        def read(path: str) -> Iterator[_Item]:
            try:
                for w in read_windows(Record(path, None, path), reader, length, step, clips, crops):
                    yield _Item(path, w.clips, start=w.start, end=w.end)
            except DecodeError as e:
                yield _Item(path, error=str(e))

        for path in map(str, paths):
            items = read(path)
            first = next(items)
            views = max(1, len(first.clips))
            check_memory("--window or --clips", batch * views, reader.cfg, reader.streams)
            yield from self._predictions(itertools.chain([first], items), batch, views)

    def stream(
        self,
        paths: Sequence[str],
        every: float = 1.0,
        every_frames: int | None = None,
        fps: float | None = None,
    ) -> Iterator[StreamPrediction]:
        """Predicts videos frame by frame while decoding, with memory independent of their length.

        As in training, the model processes a center crop of every `data.stride`-th frame or, if
        `data.target_fps` is set, of one frame every `data.stride / data.target_fps` seconds. The state is
        reset for each video.

        Args:
          paths: video files.
          every: seconds of video between predictions.
          every_frames: processed frames between predictions; overrides `every`.
          fps: frames per second to process; None uses the frame rate of training.

        Yields:
          A prediction at every interval, and a final one at the end of each video.

        Raises:
          UserError: the model does not support streaming.
        """
        pace = every if every_frames is None else every_frames
        if not pace > 0:
            raise UserError(f"the interval between predictions must be positive, got {pace}")
        if fps is not None and not fps > 0:
            raise UserError(f"the number of frames per second must be positive, got {fps}")
        model, task, data = self.model, self.task, self._reader.cfg
        name = self.config.model.name
        if not streams(type(model)):
            families = ", ".join(sorted({s.family for s in map(spec, list_models()) if streams(s.module)}))
            raise UserError(f"{name} does not support --stream: use a streaming model of {families}")
        if task.inputs.streams != ("rgb",):
            takes = "+".join(task.inputs.streams)
            raise UserError(f"{name} takes {takes}: --stream supports only models of rgb frames")
        if not isinstance(task, Classification | MultiLabel):
            raise UserError(f"--stream predicts classes of whole videos, and task.name={task.name} does not")
        variables = jax.device_put(self.variables, jax.local_devices()[0])  # once, not with every video
        start = model.init_state(1, (data.size, data.size, 1 if data.grey else 3))
        rate = fps or (data.target_fps and data.target_fps / data.stride)

        @functools.partial(jax.jit, donate_argnums=1)
        def step(variables, state, frame):
            (logits, _), state = model.apply(variables, state, task.inputs({"rgb": frame}), method="step")
            return logits, state

        def prediction(path: str, logits: jax.Array, now: float, **about: Any) -> StreamPrediction:
            views = Views(np.array([[[0.0, now]]]))
            content = task.decode(np.asarray(logits), Record(path, None, path), views)
            return StreamPrediction(path, content, start=0.0, end=now, **about)

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
                        frames = (
                            each for _, each in sampling.resample(enumerate(frames), 1 / data.stride, 1)
                        )
                    for now, frame in frames:
                        logits, state = step(variables, state, test_views(frame[None], data, 1)[0][0])
                        processed, seconds = processed + 1, now
                        due = math.floor((processed if every_frames else now) / pace + 1e-6)
                        if due > reported:
                            reported = due
                            yield prediction(path, logits, now, processed=processed)
            except DecodeError as e:
                yield StreamPrediction(path, error=str(e), processed=processed, final=True)
            else:
                yield prediction(path, logits, seconds, processed=processed, final=True)

    @functools.cached_property
    def _reader(self) -> ClipReader:
        return ClipReader(self.views.data(self.config), self.task.reading["streams"])

    @functools.cached_property
    def _engine(self) -> tuple[Engine, Any]:
        """The engine, and the variables on its mesh."""
        apply = functools.partial(self.task.predict, self.model)
        engine = Engine(create_mesh(devices=jax.local_devices()), apply, hosts=1)
        return engine, engine.replicate(self.variables)

    def _predictions(self, items: Iterable["_Item"], batch: int, views: int) -> Iterator[Prediction]:
        """Predicts items of `views` clips each, in batches of at least `batch`."""
        engine, variables = self._engine
        blank = [self._reader.blank()] * views
        waiting: dict[int, _Item] = {}  # items being computed

        def read() -> Iterator[dict[str, Any]]:
            for i, item in enumerate(items):
                waiting[i] = item
                yield _row(item.clips or blank, i)

        size = engine.batch_size(batch)
        empty = jax.tree.map(lambda x: np.stack([x] * size), _row(blank, -1))
        rows = batched(read(), size, empty | {"mask": np.zeros(size, bool)})
        for computed in engine.run(variables, rows):
            for row in np.flatnonzero(computed["mask"]):
                item = waiting.pop(int(computed["index"][row]))
                if item.error:
                    yield Prediction(item.path, error=item.error, start=item.start, end=item.end)
                    continue
                outputs = jax.tree.map(operator.itemgetter(row), computed["outputs"])
                record = Record(item.path, None, item.path, item.start, item.end)
                content = self.task.decode(outputs, record, Views.of(item.clips, self.views.crops))
                frames = watchable(item.clips[0].inputs)
                yield Prediction(item.path, content, frames, start=item.start, end=item.end)


@dataclasses.dataclass(frozen=True)
class _Item:
    """The clips of a video or of a window, or why they could not be read."""

    path: str
    clips: Sequence[Clip] = ()
    error: str | None = None
    start: float | None = None
    end: float | None = None


def _row(views: Sequence[Clip], i: int) -> dict[str, Any]:
    inputs = {k: np.stack([view.inputs[k] for view in views]) for k in views[0].inputs}
    return {"inputs": inputs, "index": np.int64(i)}


def per_second(windows: Iterable[Prediction]) -> Iterator[Prediction]:
    """Averages the scores of overlapping windows for each second of a video.

    A row is the mean of the scores of all windows that overlap the second, weighted by the length of the
    overlap. The scores of a frame stand for the time until halfway to the neighboring frames of its window.

    Args:
      windows: from `Predictor.windows`.

    Yields:
      The seconds of a video in order, with `Scores` as content.

    Raises:
      UserError: the predictions of the task are not scores of classes.
    """
    sums: dict[int, np.ndarray] = {}  # score times seconds, and seconds, [K + 1]
    path, start, end, names = "", 0.0, 0.0, ()

    def complete(before: float) -> Iterator[Prediction]:
        for second in sorted(s for s in sums if s + 1 <= before):
            *total, weight = sums.pop(second)
            content = Scores(np.array(total) / weight, names)
            yield Prediction(path, content, start=float(second), end=min(second + 1.0, end))

    for window in windows:
        if window.error or window.start is None or window.end is None:
            yield from complete(math.inf)
            yield window
            continue
        if window.path != path or window.start <= start:  # another video
            yield from complete(math.inf)
        path, start, end = window.path, window.start, window.end
        yield from complete(start)
        for a, b, scores in _timeline(window):
            names = window.content.class_names
            for second in range(math.floor(a), math.ceil(b)):
                weight = max(min(b, second + 1) - max(a, second), 1e-9)
                sums[second] = sums.get(second, 0) + weight * np.append(scores, 1.0)
    yield from complete(math.inf)


def _timeline(window: Prediction) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yields (start, end, scores [K]) of the parts of a window."""
    scores = getattr(window.content, "scores", None)
    if scores is None:
        raise UserError("--per-second averages the scores of classes, which this task does not predict")
    times = getattr(window.content, "times", np.zeros(1))
    edges = [window.start, *(times[1:] + times[:-1]) / 2, window.end]
    for (a, b), row in zip(itertools.pairwise(edges), np.atleast_2d(scores), strict=True):
        yield a, b, row


def predict_videos(
    paths: Sequence[str], checkpoint: epath.PathLike, clips: int | None = None
) -> Iterator[Prediction]:
    """Predicts videos one by one; see `Predictor`."""
    return Predictor.load(checkpoint, clips).videos(paths)


def _paced(video: Video, rate: float | None, data: Any) -> Iterator[tuple[float, np.ndarray]]:
    """Yields (seconds, frame) at a number of frames per second, or every `data.stride`-th frame."""
    frames = video.play(grey=data.grey)
    if rate:
        return sampling.resample(frames, rate, 1 / video.fps, max(sampling.SLACK, 2 * video.tolerance))
    return (each for _, each in sampling.resample(enumerate(frames), 1 / data.stride, 1))


def streams(module: type[nn.Module]) -> bool:
    """Returns whether a model supports frame-by-frame inference."""
    return hasattr(module, "init_state")
