"""What a layer of a model says of videos, written to a file: to look at, to search, or to train on.

Rows are windows of the clip that the model takes, along the whole video, however long; or single frames,
where the layer looks at each frame by itself (a trunk's). Every video is resized and cropped as in testing.
"""

import collections
import dataclasses
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Var

from vidjax import registry
from vidjax.checkpoint_io import load_variables
from vidjax.config import ConfigDict, resolve
from vidjax.data import sampling, transforms
from vidjax.data.datasets import ListSource, Source, load_source
from vidjax.data.decode import DecodeError, Video
from vidjax.data.feature_file import FeatureWriter
from vidjax.data.pipeline import BadVideos, clip_offsets, clip_shape, clip_streams, span
from vidjax.data.record import Record
from vidjax.errors import UserError, unknown
from vidjax.layers.preprocess import normalize
from vidjax.models import create_model
from vidjax.train.sharding import path_name

BATCH = 8  # windows at a time
DECODED = 64  # frames of a video in memory at a time, or a single window's


@dataclasses.dataclass(frozen=True)
class Cached:
    """What was written.

    Attributes:
      meta: of the file, see `vidjax.data.feature_file`.
      videos, rows: how many.
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
      videos: paths; or "dataset:SPLIT" alone.
      checkpoint: a workdir of `vidjax train` or `vidjax convert`, or one checkpoint.
      layer: an endpoint of the model.
      out: a file ending in .npz or .array_record.
      dense: keep the layer's maps; otherwise each row is their average, [D].
      frames: a row for each frame; otherwise for each window of `data.frames` frames, `data.stride` apart.
      overlap: share of a window that the next one sees again, in [0, 1).
      overrides: of the checkpoint's config.

    Raises:
      UserError: no such checkpoint, layer, split or file; a layer that mixes frames under `frames`; more
        unreadable videos of a split than `data.bad_limit` allows, or no readable one.
    """
    if not 0 <= overlap < 1:
        raise UserError(f"overlap must be at least 0 and below 1, got {overlap}")
    variables, saved = load_variables(checkpoint)
    config = resolve(saved["config"], overrides)
    extractor = _Extractor(config, variables, len(saved["class_names"]), layer, dense, frames)
    source, split = _open(videos, config)
    about = extractor.about() | {
        "dataset": None if split is None else {"name": config.data.name, **config.data.options.to_dict()},
        "split": split,
        "dataset_fingerprint": None if split is None else source.fingerprint,
        "class_names": list(source.class_names) if split is not None else saved["class_names"],
    }
    limit = BadVideos(len(source), config.data.bad_limit, None)
    reader = _Windows(source, config.data, frames, overlap)
    with FeatureWriter(out) as writer:
        shape = None
        for i, rows, times, fps in _by_video(extractor, reader):
            writer.add(source[i].id, source[i].label, rows, times, fps)
            shape = rows.shape[1:]
            if split is not None:
                limit.tell([(id, None, error) for id, error in reader.bad])
        if split is not None:
            limit.tell([(id, None, error) for id, error in reader.bad])
        if shape is None:
            raise UserError(f"no video could be read: {reader.bad[0][1]}")
        about["shape"] = list(shape)
        writer.finish(about)
    return Cached(about, len(source) - len(reader.bad), reader.rows, reader.bad)


def weights_fingerprint(variables: Mapping[str, Any]) -> str:
    """Sixteen hex digits of named arrays. A trunk's are the same inside a video model and by itself."""
    digest = hashlib.sha256()
    leaves = jax.tree_util.tree_leaves_with_path(variables)
    named = {path_name(path).replace("/trunk/", "/"): x for path, x in leaves}
    for name in sorted(named):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(named[name]).tobytes())
    return digest.hexdigest()[:16]


class _Extractor:
    """The model up to a layer: clips uint8 [b, T, S, S, C] to rows, [b, ...] or, of frames, [b, T, ...]."""

    def __init__(self, config: ConfigDict, variables, classes: int, layer: str, dense: bool, frames: bool):
        name = config.model.name
        self.spec = registry.spec(name)
        self.config, self.layer, self.dense, self.frames = config, layer, dense, frames
        if config.data.modality == "features":
            raise UserError("the checkpoint was trained on features: give the one that they were made with")
        if frames and self.spec.modality != "rgb":
            raise UserError(f"{name} takes {self.spec.modality}, which has no rows of single frames")
        if config.data.modality != self.spec.modality:
            raise UserError(f"{name} takes {self.spec.modality}, and data.modality is {config.data.modality}")
        options = config.model.options.to_dict()
        self.model: nn.Module = create_model(
            name, classes, tiny=config.model.tiny, dtype=config.model.dtype, **options
        )
        self._image = self.spec.modality == "rgb" and len(self.spec.input_shape) == 3
        self.variables = jax.device_put(variables, jax.local_devices()[0])
        self._apply = jax.jit(self._rows)
        self._checked = False

    def _rows(self, variables, video):
        video = normalize(video, self.spec.mean, self.spec.std)
        if self._image:
            b, t = video.shape[:2]
            video = video.reshape(b * t, *video.shape[2:])
        if self.spec.task == "pretrain":
            endpoints = self.model.apply(variables, video, method="encode")
        else:
            _, endpoints = self.model.apply(variables, video, train=False)
        if self.layer not in endpoints:
            raise unknown(f"layer of {self.spec.name}", self.layer, endpoints)
        x = endpoints[self.layer].astype(jnp.float32)
        if self._image:
            x = x.reshape(b, t, *x.shape[1:])
        keep = 2 if self.frames else 1
        if self.frames and (x.ndim < 3 or x.shape[1] != self.config.data.frames):
            raise UserError(
                f"layer {self.layer} of {self.spec.name} has no row for each of "
                f"{self.config.data.frames} frames, its shape is {x.shape[1:]}: leave out --frames"
            )
        return x if self.dense else x.mean(tuple(range(keep, x.ndim - 1)))

    def __call__(self, clips: Any) -> jax.Array:
        if self.frames and not self._checked:
            self._checked = True
            self._check_frames(clips)
        return self._apply(self.variables, clips)

    def _check_frames(self, clips: np.ndarray) -> None:
        """A frame's row must be the same whatever comes before and after it."""
        rows = np.asarray(self._apply(self.variables, clips))
        for t in (0, -1):
            still = np.repeat(clips[:, t][:, None], clips.shape[1], axis=1)
            alone = np.asarray(self._apply(self.variables, still))[:, t]
            if not np.allclose(rows[:, t], alone, rtol=1e-3, atol=1e-3 * np.abs(alone).max()):
                raise UserError(
                    f"layer {self.layer} of {self.spec.name} mixes frames: leave out --frames, or take a "
                    "layer of its trunk"
                )

    def about(self) -> dict[str, Any]:
        """Where the rows come from."""
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
            "input": size | {"modality": data.modality},
        }

    def _used(self) -> dict[str, Any]:
        """The variables that the layer depends on: training what lies above it leaves them as they are."""
        shape = clip_shape(self.config.data)
        traced = jax.make_jaxpr(self._rows)(
            self.variables, registry.dummy_input(shape, dtype=jnp.uint8)
        ).jaxpr
        needed = {*traced.outvars}
        for eqn in reversed(traced.eqns):
            if not needed.isdisjoint(eqn.outvars):
                needed.update(v for v in eqn.invars if isinstance(v, Var))
        leaves = jax.tree_util.tree_leaves_with_path(self.variables)
        return {path_name(path): x for v, (path, x) in zip(traced.invars, leaves) if v in needed}


class _Windows:
    """The windows of all videos, in order.

    Attributes:
      bad: (id, error) of the videos that could not be read, so far.
      rows: how many rows there were.
    """

    def __init__(self, source: Source, data: ConfigDict, frames: bool, overlap: float):
        self.source, self.data, self.frames, self.overlap = source, data, frames, overlap
        self.bad: list[tuple[str, str]] = []
        self.rows = 0

    def __iter__(self) -> Iterator[tuple[int, Any, np.ndarray | None, float | None]]:
        """(video, clip, times [rows, 2] of its rows, None) for each window; then (video, None, None, rows a
        second), or without the last where the video cannot be read: what came of it is void."""
        for i in range(len(self.source)):
            record, before = self.source[i], self.rows
            try:
                with Video(record.video) as video:
                    fps = yield from self._video(i, video, record)
            except DecodeError as e:
                self.bad.append((record.id, str(e)))
                self.rows, fps = before, None
            yield i, None, None, fps

    def _video(self, i: int, video: Video, record: Record):
        data = self.data
        first, total, rate = span(video, record, data)
        if self.frames:
            windows = np.arange(0, total, data.frames)[:, None] + np.arange(data.frames)[None]
            hop, fps = data.frames, video.fps
        else:
            offsets = clip_offsets(data, rate)
            extent = int(offsets.max()) + 1
            hop = max(1, round(extent * (1 - self.overlap)))
            starts = np.arange(0, max(total - extent, 0) + 1, hop)
            if starts[-1] + extent < total:  # the last window ends with the video
                starts = np.append(starts, total - extent)
            windows = starts[:, None] + offsets[None]
            if total < extent:
                windows = sampling.place(total, offsets, short=data.short)[None]
            fps = video.fps / hop
        together = max(1, DECODED // windows.shape[1])
        for group in np.split(windows, range(together, len(windows), together)):
            index = first + np.minimum(group, total - 1)
            frames = video.frames(index.ravel(), grey=data.grey or data.modality == "flow")
            for real, shown, clip in zip(group, index, frames.reshape(*index.shape, *frames.shape[1:])):
                view = clip_streams(transforms.test_views(clip, data, 1)[0], data)
                at = video.times[shown]
                times = np.array([[at.min(), at.max()]])
                if self.frames:
                    times = np.stack([at, at], axis=1)[real < total]
                self.rows += len(times)
                yield i, view, times, None
        return fps


def _by_video(
    extractor: _Extractor, windows: _Windows
) -> Iterator[tuple[int, np.ndarray, np.ndarray, float]]:
    """(video, rows [N, ...], times [N, 2], rows a second) of each video that can be read, in order."""
    waiting: list[tuple[int, Any, np.ndarray]] = []
    parts: dict[int, list[tuple[np.ndarray, np.ndarray]]] = collections.defaultdict(list)
    ended: list[tuple[int, float]] = []

    def run():
        clips = [clip for _, clip, _ in waiting]
        clips += clips[-1:] * (BATCH - len(clips))
        out = np.asarray(extractor(jax.tree.map(lambda *x: np.stack(x), *clips)))
        for (i, _, times), rows in zip(waiting, out):
            parts[i].append((rows[: len(times)] if extractor.frames else rows[None], times))
        waiting.clear()

    def finished():
        for i, fps in ended:
            rows, times = (np.concatenate(x) for x in zip(*parts.pop(i)))
            yield i, rows, times, fps
        ended.clear()

    for i, clip, times, fps in windows:
        if clip is not None:
            waiting.append((i, clip, times))
        elif fps is not None:
            ended.append((i, fps))
        else:
            waiting[:] = [w for w in waiting if w[0] != i]
            parts.pop(i, None)
        if len(waiting) == BATCH:
            run()
            yield from finished()
    if waiting:
        run()
    yield from finished()


def _open(videos: Sequence[str], config: ConfigDict) -> tuple[Source, str | None]:
    """The videos and, where they are those of a dataset, the split."""
    kind, _, split = videos[0].partition(":")
    if kind == "dataset" and len(videos) == 1:
        return load_source(config.data.name, split, **config.data.options), split
    return ListSource(tuple(Record(v, -1, v) for v in videos), ()), None
