"""Extracts features from a layer of a model and writes them to a file.

A row is the feature of one window, and the windows of a video cover it from start to end. With `frames`, a
row is the feature of one frame, for layers that process each frame separately (such as those of a trunk).
Videos are resized and cropped as in evaluation.
"""

import collections
import contextlib
import dataclasses
import hashlib
import itertools
import json
import math
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import grain
import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.extend.core import Var

from vidjax import registry
from vidjax.checkpoint_io import check_meta, load_variables
from vidjax.config import ConfigDict, restore
from vidjax.data import cores, sampling, streams, transforms
from vidjax.data.clips import ClipReader, Opened, clock, span
from vidjax.data.datasets import ListSource, Source, load_source
from vidjax.data.decode import DecodeError
from vidjax.data.feature_file import FeatureWriter
from vidjax.data.record import Record
from vidjax.errors import UserError, unknown
from vidjax.inference import Engine, batched, endpoints
from vidjax.layers.preprocess import model_inputs
from vidjax.models import create_model
from vidjax.sharding import create_mesh, path_name

BATCH = 8  # windows per device and batch
DECODED = 64  # frames decoded at a time from each of `data.threads` videos, but at least one window
AHEAD = 4  # windows prefetched from each of these videos

Row = dict[str, Any]
Batch = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Cached:
    """Summary of a feature file.

    Attributes:
      meta: metadata of the file, see `vidjax.data.feature_file`.
      videos, rows: number of videos and rows.
      bad: (id, error) of the videos that could not be read.
    """

    meta: dict[str, Any]
    videos: int
    rows: int
    bad: list[tuple[str, str]]


def cache_features(
    videos: Sequence[str],
    checkpoint: str | pathlib.Path,
    layer: str,
    out: str | pathlib.Path,
    *,
    dense: bool = False,
    frames: bool = False,
    overlap: float = 0.0,
    overrides: Sequence[str] = (),
) -> Cached:
    """Writes the features of video files, or of one split of the checkpoint's dataset.

    Args:
      videos: paths of video files, or a single "dataset:SPLIT".
      checkpoint: a workdir of `vidjax train` or `vidjax convert`, or one checkpoint.
      layer: name of an endpoint of the model.
      out: output file, .npz or .array_record.
      dense: whether to write feature maps instead of their average [D].
      frames: whether a row is a single frame instead of a window of `data.frames` frames.
      overlap: fraction of a window that the next one overlaps, in [0, 1).
      overrides: overrides of the checkpoint's config.

    Raises:
      UserError: no such checkpoint, layer, split or file; `frames` with a layer that mixes frames; more
        unreadable videos in a split than `data.bad_limit` allows, or no readable one.
    """
    if not 0 <= overlap < 1:
        raise UserError(f"overlap must be at least 0 and below 1, got {overlap}")
    variables, saved = load_variables(checkpoint)
    check_meta(saved, checkpoint, "config", "class_names")
    config = restore(saved["config"], overrides)
    extractor = _Extractor(config, variables, len(saved["class_names"]), layer, dense, frames)
    source, split = _open(videos, config)
    about = extractor.about() | {
        "dataset": None if split is None else {"name": config.data.name, **config.data.options.to_dict()},
        "split": split,
        "dataset_fingerprint": None if split is None else source.fingerprint,
        "class_names": list(source.class_names) if split is not None else saved["class_names"],
    }
    limit = config.data.bad_limit if split is not None else 1.0
    windows = _Windows(source, config.data, extractor.inputs.streams, frames, overlap, limit)
    count = 0
    with contextlib.ExitStack() as stack:
        writer = stack.enter_context(FeatureWriter(out)) if jax.process_index() == 0 else None
        for i, rows, times, fps in extractor.by_video(windows):
            count += len(rows)
            about["shape"] = list(rows.shape[1:])
            if writer:
                writer.add(source[i].id, source[i].target, rows, times, fps)
        bad = windows.all_bad()
        if len(bad) == len(source):
            raise UserError(f"no video could be read: {bad[0][1]}")
        if writer:
            writer.finish(about)
    return Cached(about, len(source) - len(bad), count, bad)


def weights_fingerprint(variables: Mapping[str, Any]) -> str:
    """Returns a hash of arrays and their paths, 16 hex digits, equal for a trunk in and outside a model."""
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    named = {path_name(path).replace("/trunk/", "/"): x for path, x in leaves}
    for name in sorted(named):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(named[name]).tobytes())
    return digest.hexdigest()[:16]


class _Extractor:
    """Applies the model up to a layer: uint8 [b, T, S, S, C] -> [b, ...], or [b, T, ...] for frames."""

    def __init__(self, config: ConfigDict, variables, classes: int, layer: str, dense: bool, frames: bool):
        name = config.model.name
        self.spec = registry.spec(name)
        self.config, self.layer, self.dense, self.frames = config, layer, dense, frames
        options = config.model.options.to_dict()
        takes = registry.model_streams(name, options)
        if "features" in takes:
            raise UserError("the checkpoint was trained on features: use the one that computed the features")
        if frames and takes != ("rgb",):
            raise UserError(f"--frames requires a model of rgb frames, and {name} takes {'+'.join(takes)}")
        streams.check(config.data, takes)
        self.inputs = model_inputs(self.spec, takes, config.data)
        self.model: nn.Module = create_model(
            name, classes, tiny=config.model.tiny, dtype=config.model.dtype, **options
        )
        self._image = takes == ("rgb",) and len(self.spec.input_shape) == 3
        self._host_variables = variables
        self.engine = Engine(create_mesh(), lambda variables, batch: self._rows(variables, batch["inputs"]))

    def _rows(self, variables, inputs):
        video = self.inputs(inputs)
        if self._image:
            b, t = video.shape[:2]
            video = video.reshape(b * t, *video.shape[2:])
        layers = endpoints(self.model, variables, video)
        if self.layer not in layers:
            raise unknown(f"layer of {self.spec.name}", self.layer, layers)
        x = layers[self.layer].astype(jnp.float32)
        if self._image:
            x = x.reshape(b, t, *x.shape[1:])
        keep = 2 if self.frames else 1
        if self.frames and (x.ndim < 3 or x.shape[1] != self.config.data.frames):
            raise UserError(
                f"layer {self.layer} of {self.spec.name} has shape {x.shape[1:]}, without an axis for the "
                f"{self.config.data.frames} frames: leave out --frames"
            )
        return x if self.dense else x.mean(tuple(range(keep, x.ndim - 1)))

    def by_video(self, windows: "_Windows") -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
        """Yields (video, rows [N, ...], times [N, 2], rows per second) of each readable video, in order."""
        size = self.engine.batch_size(BATCH * self.engine.batch_size(1)) // self.engine.hosts
        empty = windows.empty(size)
        batches = batched(windows.share(jax.process_index(), self.engine.hosts), size, empty)
        variables = self.engine.replicate(self._host_variables)
        if self.frames:
            first = next(batches, empty)
            self._check_frames(variables, first, empty)
            batches = itertools.chain([first], batches)
        parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = collections.defaultdict(list)
        ended: dict[int, float] = {}  # rows per second; NaN for videos that cannot be read
        position = 0
        for batch in self.engine.run(variables, batches, empty):
            for row in np.flatnonzero(batch["mask"]):
                i, count = int(batch["index"][row]), int(batch["count"][row])
                rows = batch["outputs"][row]
                parts[i].append((rows[:count] if self.frames else rows[None], batch["times"][row][:count]))
                if batch["last"][row]:
                    ended[i] = float(batch["fps"][row])
            while position in ended:  # with several hosts, videos finish out of order
                fps, done = ended.pop(position), parts.pop(position)
                if not np.isnan(fps):
                    yield position, *(np.concatenate(x) for x in zip(*done)), fps
                position += 1

    def _check_frames(self, variables: Any, batch: Batch, empty: Batch) -> None:
        """Raises `UserError` if the features of a frame depend on other frames."""
        clips = batch["inputs"]["rgb"]
        stills = [np.repeat(clips[:, t][:, None], clips.shape[1], axis=1) for t in (0, -1)]
        trials = [{**batch, "inputs": {"rgb": video}} for video in (clips, *stills)]
        rows, *still_rows = (out["outputs"] for out in self.engine.run(variables, trials, empty))
        for t, still in zip((0, -1), still_rows):
            actual, expected = rows[:, t], still[:, t]
            if not np.allclose(actual, expected, rtol=1e-3, atol=1e-3 * np.abs(expected).max()):
                raise UserError(
                    f"layer {self.layer} of {self.spec.name} mixes frames: leave out --frames, or use a "
                    "layer of its trunk"
                )

    def about(self) -> dict[str, Any]:
        """Returns metadata on the model, layer and input of the rows."""
        data = self.config.data
        size = {"size": data.size, "short_side": data.short_side, "grey": data.grey}
        if not self.frames:
            size |= {"frames": data.frames, "stride": data.stride, "target_fps": data.target_fps}
        return {
            "model": self.spec.name,
            "layer": self.layer,
            "weights": weights_fingerprint(self._used()),
            "rows": "frames" if self.frames else "windows",
            "dense": self.dense,
            "input": size | {"modality": "+".join(self.inputs.streams)},
        }

    def _used(self) -> dict[str, Any]:
        """Returns the variables that the layer depends on, so that the fingerprint ignores later layers."""
        blank = streams.zeros(self.config.data, self.inputs.streams)
        abstract = {k: jax.ShapeDtypeStruct((1, *x.shape), x.dtype) for k, x in blank.items()}
        traced = jax.make_jaxpr(self._rows)(self._host_variables, abstract).jaxpr
        needed = {*traced.outvars}
        for eqn in reversed(traced.eqns):
            if not needed.isdisjoint(eqn.outvars):
                needed.update(v for v in eqn.invars if isinstance(v, Var))
        leaves = jax.tree_util.tree_leaves_with_path(self._host_variables)
        return {path_name(path): x for v, (path, x) in zip(traced.invars, leaves) if v in needed}


class _Windows:
    """The windows of all videos. Each host reads its share of the videos, several at a time."""

    def __init__(
        self,
        source: Source,
        data: ConfigDict,
        takes: tuple[str, ...],
        frames: bool,
        overlap: float,
        limit: float,
    ):
        self.source, self.data, self.frames, self.overlap = source, data, frames, overlap
        self.reader = ClipReader(data, takes)
        self._bad: dict[int, str] = {}
        self._allowed = limit * len(source)

    def share(self, host: int, hosts: int) -> Iterator[Row]:
        """Yields the windows of videos `host`, `host + hosts`, ..., interleaved.

        A window is a dict of `inputs` (streams), `index` (of the video), `times` [n, 2] in seconds, of
        which `count` are valid, `last` (whether it is the last window of its video), and `fps`, rows per
        second. An unreadable video ends with a row whose fps is NaN.
        """
        datasets = [_VideoWindows(self, i) for i in range(host, len(self.source), hosts)]
        if not datasets:
            return
        threads = cores.threads(self.data.threads)
        together = grain.experimental.InterleaveIterDataset(
            datasets, cycle_length=threads, num_make_iter_threads=1, iter_buffer_size=AHEAD
        )
        iterator = iter(together)
        try:
            yield from iterator
        finally:
            iterator.close()

    def empty(self, size: int) -> Batch:
        """Returns a batch of `size` padding rows."""
        rows = [self._row(-1, None, np.zeros((0, 2)), False, 0.0)] * size
        return jax.tree.map(lambda *x: np.stack(x), *rows) | {"mask": np.zeros(size, bool)}

    def all_bad(self) -> list[tuple[str, str]]:
        """Returns (id, error) of the unreadable videos of all hosts. Every host must call this method."""
        mine = json.dumps(self._bad).encode()
        if jax.process_count() > 1:
            length = multihost_utils.process_allgather(np.int32(len(mine)))
            padded = np.frombuffer(mine.ljust(int(length.max())), np.uint8)
            texts = [bytes(row) for row in multihost_utils.process_allgather(padded)]
        else:
            texts = [mine]
        merged = {int(i): error for text in texts for i, error in json.loads(text).items()}
        return [(self.source[i].id, merged[i]) for i in sorted(merged)]

    def of_video(self, i: int) -> Iterator[Row]:
        record = self.source[i]
        try:
            with self.reader.open(record) as video:
                yield from self._video(i, video, record)
        except DecodeError as e:
            self._bad[i] = str(e)
            if len(self._bad) > self._allowed:
                raise UserError(
                    f"{len(self._bad)} of {len(self.source)} videos cannot be read, more than data.bad_limit="
                    f"{self.data.bad_limit:g} allows: one is {record.id} ({e})"
                ) from None
            yield self._row(i, None, np.zeros((0, 2)), True, np.nan)

    def _row(self, i: int, clip: Any, times: np.ndarray, last: bool, fps: float) -> Row:
        clip = self.reader.blank().inputs if clip is None else clip
        padded = np.zeros((self.data.frames if self.frames else 1, 2))
        padded[: len(times)] = times
        return {
            "inputs": clip,
            "index": np.int64(i),
            "times": padded,
            "count": np.int64(len(times)),
            "last": np.bool_(last),
            "fps": np.float64(fps),
        }

    def _video(self, i: int, video: Opened, record: Record) -> Iterator[Row]:
        data = self.data
        first, total, rate = span(video, record, data)
        if self.frames:
            windows = np.arange(0, total, data.frames)[:, None] + np.arange(data.frames)[None]
            hop, fps = data.frames, video.fps
        else:
            moments = streams.clip_moments(data, self.reader.streams)
            unit = rate * data.target_fps if data.target_fps else 1
            extent = math.floor(moments.max() * unit + sampling.SLACK) + 1  # frames
            hop = max(1, round(extent * (1 - self.overlap)))
            starts = np.arange(0, max(total - extent, 0) + 1, hop)
            if starts[-1] + extent < total:  # align the last window with the end of the video
                starts = np.append(starts, total - extent)
            times = clock(video, first, total, data)
            windows = sampling.shown_from(times["times"][starts, None], moments, short="hold", **times)
            if total < extent:
                windows = sampling.place(total, moments, short=data.short, **times)[None]
            fps = video.fps / hop
        together = max(1, DECODED // windows.shape[1])
        done = 0
        for group in np.split(windows, range(together, len(windows), together)):
            index = first + np.minimum(group, total - 1)
            frames = video.frames(index.ravel(), grey=self.reader.grey)
            for real, shown, clip in zip(group, index, frames.reshape(*index.shape, *frames.shape[1:])):
                at = video.times[shown]
                ((view, geometry),) = transforms.test_views(clip, data, 1)
                inputs = self.reader.clip(view, at, geometry, self.reader.beside(record, at)).inputs
                times = np.array([[at.min(), at.max()]])
                if self.frames:
                    times = np.stack([at, at], axis=1)[real < total]
                done += 1
                yield self._row(i, inputs, times, done == len(windows), fps)


class _VideoWindows(grain.IterDataset):
    """The windows of one video as a Grain dataset."""

    def __init__(self, windows: _Windows, i: int):
        super().__init__()
        self._windows, self._i = windows, i

    def __iter__(self) -> grain.DatasetIterator:
        return _VideoIterator(self._windows.of_video(self._i))


class _VideoIterator(grain.DatasetIterator):
    def __init__(self, rows: Iterator[Row]):
        super().__init__()
        self._rows = rows

    def __next__(self) -> Row:
        return next(self._rows)

    def get_state(self) -> dict[str, Any]:
        return {}

    def set_state(self, state: dict[str, Any]) -> None:
        raise NotImplementedError("features are computed in one pass")


def _open(videos: Sequence[str], config: ConfigDict) -> tuple[Source, str | None]:
    """Returns the videos and, for videos of a dataset, the split."""
    kind, _, split = videos[0].partition(":")
    if kind == "dataset" and len(videos) == 1:
        return load_source(config.data.name, split, **config.data.options), split
    return ListSource(tuple(Record(v, None, v) for v in videos), ()), None
