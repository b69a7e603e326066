"""The metrics of the task, from the predictions for a split."""

import collections
import dataclasses
import functools
import operator
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from vidjax.data.clips import Views
from vidjax.data.datasets import ListSource, Source
from vidjax.data.geometry import Geometry
from vidjax.data.pipeline import eval_batches
from vidjax.data.record import Record
from vidjax.data.streams import zeros
from vidjax.data.windows import parts
from vidjax.errors import UserError
from vidjax.evaluation.base import Eval
from vidjax.options import option
from vidjax.tasks.base import Prediction, Result, Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class MetricsEval(Eval):
    """Predicts every video from several views, and scores the predictions.

    Attributes:
      clips, crops: test views: temporal clips per video, and spatial crops per clip.
      size: side of a test crop in pixels; None uses `data.size`.
      frames: frames of a test clip; None uses `data.frames`.
      videos: evaluates so many videos, at equal distances in the split; None evaluates all.
      cover: if set, seconds of video per clip; at most the time from the first to the last frame of a clip
        leaves no part of a video unseen. A video is divided into overlapping parts of `clips` clips, each
        part is a row of a batch, and the rows of a video are joined before it is scored. Shapes are thus
        static and no view is padding, whatever the lengths of the videos, and memory is that of `clips`, not
        of the longest video.
    """

    type = "metrics"

    clips: int = option(1, 1, 1000)
    crops: int = option(1, 1, 100)
    size: int | None = option(None, 1, 2**13)
    frames: int | None = option(None, 1, 2**16)
    videos: int | None = option(None, 1, 2**31)
    cover: float | None = option(None, 1e-3, 1e6)

    def data(self, config: ConfigDict) -> ConfigDict:
        """Returns the data section of a config with the size and frames of the test views."""
        data = config.data.copy_and_resolve_references()
        data.size = self.size or data.size
        data.frames = self.frames or data.frames
        if self.cover:
            data.starts = "ends"
        return data

    def prepare(self, exp: Any) -> None:
        """Raises `UserError` if the test views do not fit the frames, the model or the task."""
        super().prepare(exp)
        data, streams = self.data(exp.config), exp.task.inputs.streams
        name = next(name for name, each in exp.evals.items() if each is self)
        if self.cover and not exp.task.any_clips:
            raise UserError(
                f"evals.{name}.cover={self.cover:g} gives longer videos more clips, which task.name="
                f"{exp.task.name} does not support: set evals.{name}.clips and leave out cover"
            )
        short = min(data.resize_to or (data.short_side,))
        if "features" not in streams and data.size > short:
            raise UserError(
                f"the evaluation {name} crops {data.size} pixels from test frames of {short}: raise "
                "data.short_side or data.resize_to, or lower the size"
            )
        if self.size or self.frames:
            clip = exp.task.inputs.abstract(zeros(data, streams))
            exp.check_clip(clip, f"evals.{name}.")

    def run(self, exp: Any, variables: Any, folder: epath.Path, step: int) -> Result:
        source, task = self._part(exp.source(self.split)), exp.task
        engine = exp.engine("predict", functools.partial(task.predict, exp.model))
        rows, videos = parts(source, self.clips * self.cover) if self.cover else (source, range(len(source)))
        batches = eval_batches(
            rows,
            self.data(exp.config),
            engine.batch_size(self.batch or exp.config.batch),
            self.clips,
            self.crops,
            host=jax.process_index(),
            hosts=engine.hosts,
            report_dir=folder,
            videos=len(source),
            **task.reading,
        )
        predictions, records = collect(engine.run(variables, batches), task, source, self.clips, videos)
        return task.evaluate(predictions, records)

    def _part(self, source: Source) -> Source:
        """Returns the videos to evaluate."""
        if self.videos is None or self.videos >= len(source):
            return source
        chosen = np.arange(self.videos) * len(source) // self.videos
        return ListSource(tuple(source[int(i)] for i in chosen), source.class_names)


def collect(
    batches: Iterable[Mapping[str, Any]],
    task: Task,
    source: Source,
    clips: int,
    videos: Sequence[int] | None = None,
) -> tuple[list[Prediction], list[Record]]:
    """Decodes the outputs of an evaluation, one prediction per readable video, in the order of the source.

    Args:
      batches: from `Engine.run`, with `outputs`, `index`, `mask`, `times` and `geometry`.
      task: decodes the outputs.
      source: the evaluated split.
      clips: clips per row.
      videos: the video of each row, whose rows are joined; None if each row is a video.

    Raises:
      ValueError: a row occurs twice.
    """
    videos = range(len(source)) if videos is None else videos
    rows_of = collections.Counter(videos)
    waiting: dict[int, dict[int, tuple[Any, Views]]] = collections.defaultdict(dict)
    found: dict[int, tuple[Prediction, Record]] = {}
    for batch in batches:
        for row in np.flatnonzero(batch["mask"]):
            i = int(batch["index"][row])
            video = videos[i]
            if video in found or i in waiting[video]:
                raise ValueError(f"record {i} was evaluated twice")
            times, numbers = batch["times"][row], batch["geometry"][row]
            geometry = tuple(Geometry.from_array(x) if len(x) else None for x in numbers)
            views = Views(times.reshape(clips, -1, times.shape[-1]), geometry)
            waiting[video][i] = jax.tree.map(operator.itemgetter(row), batch["outputs"]), views
            if len(waiting[video]) == rows_of[video]:
                outputs, seen = zip(*(each for _, each in sorted(waiting.pop(video).items())), strict=True)
                joined = jax.tree.map(lambda *x: np.concatenate(x), *outputs) if len(seen) > 1 else outputs[0]
                record = source[video]
                found[video] = task.decode(joined, record, Views.join(seen)), record
    pairs = [found[i] for i in sorted(found)]
    return [prediction for prediction, _ in pairs], [record for _, record in pairs]
