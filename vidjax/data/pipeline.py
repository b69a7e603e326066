"""Input pipeline: sampling, augmentation and batching of clips, and their transfer to the devices.

Sample g of a run has epoch g // N and position g % N, where N is the number of records. Its record is at that
position of the epoch's seeded permutation, and its augmentation is drawn from (seed, epoch, position). It
depends on nothing else, so the stream is bit-identical for any number of hosts, processes and threads, and
when it is resumed from any batch. Samples are fetched by number, by Grain's threads or by `Workers`, so their
order does not depend on timing.
A sample consists of `data.repeats` clips of the same frames with separate augmentation (Hoffer et al.,
arXiv:1901.09335), adjacent in the batch; with `data.repeats_apart` the clips also start at separately drawn
times (Feichtenhofer et al., arXiv:2205.09113, section 3.3).

`data.modality` defines the clip, which is the `video` of a batch; S is `data.size`:
  rgb       uint8 [T, S, S, C], T = `data.frames`, C = 3, or 1 if `data.grey`.
  flow      uint8 [T, S, S, 2]: optical flow between T + 1 sampled frames, encoded by `vidjax.flow.quantise`.
  rgb+flow  dict(rgb=[T, S, S, C], flow=[L, S, S, 2]), L = `data.flow.frames`, centered on the same time.
  features  float32 [N, D], D = `data.feature_width`: T rows of the dataset "features", each of
            `data.feature_tokens` tokens, concatenated. Rows are sampled like frames and not augmented.

Flow is computed last, from the cropped, resized and flipped frames, so that both streams share one
augmentation, flipping negates the x component without special handling, and the cost is that of the crop, not
of the whole frame. Displacements and their bound are therefore in pixels of the crop, and motion from outside
the crop is not visible. (Simonyan & Zisserman, arXiv:1406.2199, section 5, precomputed the flow of whole
frames.)
"""

import dataclasses
import functools
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from vidjax import files
from vidjax.data import sampling, transforms
from vidjax.data.datasets import Source
from vidjax.data.decode import DecodeError, Video
from vidjax.data.feature_file import FeatureSequence, StoredFeatures
from vidjax.data.frame_cache import NO_CACHE, CachedVideo, CachePlan, cache_dir, plan
from vidjax.data.record import Record
from vidjax.data.workers import Workers
from vidjax.errors import UserError
from vidjax.flow import estimator, flow, quantise

Batch = dict[str, Any]
Clip = np.ndarray | dict[str, np.ndarray]  # one array, or one for each stream
BadVideo = tuple[str, str | None, str]  # id, path, error
_ENDLESS = 1 << 38  # batches; more than any run, and samples of the largest batch still fit 64 bits

# First word of a random seed, one for each purpose.
_ORDER, _CLIP, _REPLACEMENT = range(3)


def train_batches(
    source: Source,
    cfg: Any,
    batch_size: int,
    seed: int,
    start_batch: int = 0,
    host: int = 0,
    hosts: int = 1,
    report_dir: epath.PathLike | None = None,
) -> "BatchIterator":
    """Iterates endlessly over shuffled, augmented batches; batch k starts at sample k * batch_size.

    Args:
      source: the training split.
      cfg: the config's data section.
      batch_size: size of the global batch, of which this host loads `batch_size / hosts` contiguous rows.
      seed: seed of the order, the clips and the augmentation.
      start_batch: index of the first batch, for resuming a run.
      host, hosts: index of this host and number of hosts.
      report_dir: folder of bad_videos.jsonl, which lists the corrupt videos; None only logs them.

    Returns:
      Iterator of dict(video uint8 [b, T, S, S, C], label int32 [b], index int64 [b]). If there are several
      streams, `video` is a dict of arrays. `index` is the record that was used, which differs from the one in
      the permutation if that is a corrupt video.

    Raises:
      UserError: the batch size is not divisible by the hosts or repeats; raised by the iterator if more than
        `cfg.bad_limit` of the videos are corrupt.
    """
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    if batch_size % cfg.repeats:
        raise UserError(f"batch size {batch_size} is not divisible by data.repeats={cfg.repeats}")
    check_memory("batch", batch_size // hosts, cfg)
    cache = plan(source, cfg, _grey(cfg))
    loader = _Loader(_TrainSample(source, cfg, seed, cache), cfg, batch_size // cfg.repeats, host, hosts)
    bad = BadVideos(len(source), cfg.bad_limit, report_dir)
    return BatchIterator(loader, bad, start_batch, _ENDLESS)


def eval_batches(
    source: Source,
    cfg: Any,
    batch_size: int,
    clips: int,
    crops: int,
    host: int = 0,
    hosts: int = 1,
    report_dir: epath.PathLike | None = None,
) -> "EvalBatches":
    """Returns batches of every record once, in order, as `clips` x `crops` views, clip by clip.

    The last batch is padded, so that every host returns the same number of batches of the same size.

    Args:
      source: the evaluated split.
      cfg: the config's data section.
      batch_size: size of the global batch, of which this host loads `batch_size / hosts` contiguous rows.
      clips, crops: clips per video, and crops per clip.
      host, hosts: index of this host and number of hosts.
      report_dir: folder of bad_videos.jsonl, which lists the corrupt videos; None only logs them.

    Returns:
      Re-iterable of dict(video uint8 [b, clips * crops, T, S, S, C], label int32 [b], index int64 [b],
      mask bool [b]). The mask is False for corrupt videos, whose pixels are 0, and for padding, whose index
      and label are -1.

    Raises:
      UserError: as in `train_batches`.
    """
    check_memory("evals.batch, evals.clips or evals.crops", batch_size // hosts * clips * crops, cfg)
    cache = plan(source, cfg, _grey(cfg))
    loader = _Loader(_EvalSample(source, cfg, clips, crops, cache), cfg, batch_size, host, hosts)
    bad = BadVideos(len(source), cfg.bad_limit, report_dir)
    return EvalBatches(loader, bad, -(-len(source) // batch_size))


def check_memory(what: str, clips: int, cfg: Any) -> None:
    """Checks that decoded clips fit into the memory of this host.

    Args:
      what: the keys to lower, for the message.
      clips: how many are in memory at a time.
      cfg: the config's data section.

    Raises:
      UserError: the clips alone take more than the host has.
    """
    shape = clip_shape(cfg)
    size = clips * sum(map(math.prod, shape.values() if isinstance(shape, dict) else [shape]))
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if size > memory:
        raise UserError(
            f"{clips:,} clips of {shape} take {size / 2**30:,.1f} GiB at a time, and this host has "
            f"{memory / 2**30:,.1f} GiB: lower {what}"
        )


def clip_shape(cfg: Any) -> tuple[int, ...] | dict[str, tuple[int, ...]]:
    """Returns the shape (T, S, S, C) of a clip, or a dict of the shapes of its streams."""
    size = cfg.size
    if cfg.modality == "features":
        return cfg.frames * cfg.feature_tokens, cfg.feature_width
    if cfg.modality == "flow":
        return cfg.frames, size, size, 2
    rgb = cfg.frames, size, size, 1 if cfg.grey else 3
    return rgb if cfg.modality == "rgb" else {"rgb": rgb, "flow": (cfg.flow.frames, size, size, 2)}


def eval_views(
    record: Record, cfg: Any, clips: int, crops: int, cache: CachePlan = NO_CACHE
) -> tuple[Clip, np.ndarray]:
    """Returns the test views of one video.

    Args:
      record: the video.
      cfg: the config's data section.
      clips, crops: clips per video, and crops per clip.
      cache: whether decoded frames are cached.

    Returns:
      The views uint8 [clips * crops, T, S, S, C], clip by clip (a dict of arrays for several streams), and
      the times of the first and last frame of each clip in seconds, [clips, 2].

    Raises:
      DecodeError: the video cannot be read.
    """
    with _open(record, cache, _grey(cfg)) as video:
        first, total, _ = span(video, record, cfg)
        if cfg.sampling == "window":
            times = clock(video, first, total, cfg)
            index = sampling.spread(total, clip_moments(cfg), clips, cfg.short, where=cfg.starts, **times)
        else:  # each clip spans the whole video; neighboring clips take neighboring frames
            spread = sampling.segments if cfg.sampling == "segments" else sampling.uniform
            index = spread(total, cfg.frames * clips).reshape(cfg.frames, clips).T
        unique, index_in = np.unique(index, return_inverse=True)
        frames = video.frames(first + unique, grey=_grey(cfg))
        # A looped clip may end before it starts, so use its earliest and its latest frame.
        spans = np.stack([video.times[first + index.min(1)], video.times[first + index.max(1)]], 1)
    index = index_in.reshape(index.shape)
    if cfg.modality == "features":
        return frames[index].reshape(clips, *clip_shape(cfg)), spans
    views = []
    for each in index:
        clip, inverse = _without_repeats(frames, each)
        views += [clip_streams(view[inverse], cfg) for view, _ in transforms.test_views(clip, cfg, crops)]
    return _join(views), spans


def prefetch_to_device(batches: Iterable[Batch], sharding: Any, size: int = 2) -> Iterator[Batch]:
    """Transfers batches to the devices ahead of their use.

    Args:
      batches: this host's dicts of arrays [b, ...].
      sharding: a `jax.sharding.NamedSharding` that splits the first axis.
      size: number of batches on the devices, including the one in use.

    Yields:
      The batches as dicts of global `jax.Array`s.
    """
    import jax  # not at the top, because data workers import this module and do not need JAX

    ready: deque[Batch] = deque()
    for batch in batches:
        ready.append(jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch))
        if len(ready) == size:
            yield ready.popleft()
    yield from ready


class BatchIterator(Iterator[Batch]):
    """Checkpointable iterator of batches. `close` stops its worker processes.

    Attributes:
      cpu_seconds: CPU time spent on the batches returned so far, over all threads and processes.
    """

    def __init__(self, loader: "_Loader", bad: "BadVideos", start: int, stop: int):
        self._loader, self._bad = loader, bad
        self._next, self._stop = start, stop
        self._iterator = loader.batches(start, stop)
        self.cpu_seconds = 0.0

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self.cpu_seconds += batch.pop("cpu")
        self._bad.report(batch.pop("bad"))
        self._next += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns the state for `set_state`: the index of the next batch and the ids of corrupt videos."""
        return {"next_batch": self._next, "bad": sorted(self._bad.ids)}

    def set_state(self, state: dict[str, Any]) -> None:
        self.close()
        self._bad.ids = set(state["bad"])
        self._next = state["next_batch"]
        self._iterator = self._loader.batches(self._next, self._stop)

    def close(self) -> None:
        self._iterator.close()

    @property
    def note(self) -> str | None:
        """A message for the user if frames are cached automatically, else None."""
        cache = self._loader.sample.cache
        if cache.use and cache.optional:
            size = f"about {cache.gigabytes:.2g} GB"
            return f"decoded frames are cached in {cache_dir()}, {size} (data.cache=auto)"
        return None

    def advice(self) -> str | None:
        """Returns a hint on how to lower the CPU time, or None if there is none yet."""
        cfg, sample = self._loader.cfg, self._loader.sample
        if not sample.cache.use:
            if not (sample.cache.gigabytes or cfg.cache is False):
                return None
            size = f", about {sample.cache.gigabytes:.2g} GB," if sample.cache.gigabytes else ""
            return f"data.cache=True caches decoded frames{size} in {cache_dir()}"
        if self._next * self._loader.batch_size < len(sample.source):  # the cache is being filled
            return None
        if "flow" in cfg.modality:
            return "flow is computed for every clip; a smaller data.size or fewer frames take less CPU time"
        return f"videos stored at about data.short_side={cfg.short_side} pixels take less CPU time"


@dataclasses.dataclass(frozen=True)
class EvalBatches:
    """The batches of one evaluation; iterating again starts a new pass."""

    loader: "_Loader"
    bad: "BadVideos"
    batches: int

    def __len__(self) -> int:
        return self.batches

    def __iter__(self) -> BatchIterator:
        return BatchIterator(self.loader, self.bad, 0, self.batches)


class BadVideos:
    """Reports each corrupt video once, in the log and in a file, and raises if there are too many.

    Attributes:
      ids: ids of the corrupt videos found so far.
    """

    def __init__(self, total: int, limit: float, report_dir: epath.PathLike | None):
        self.ids: set[str] = set()
        self._total, self._limit = total, limit
        self._file = epath.Path(report_dir) / "bad_videos.jsonl" if report_dir else None
        self._listed = {row.get("id") for row in files.read_rows(self._file)} if self._file else set()

    def report(self, found: list[BadVideo]) -> None:
        """Reports the corrupt videos of a batch. Raises `UserError` if there are more than the limit."""
        for id, path, error in found:
            if id in self.ids:
                continue
            self.ids.add(id)
            if id not in self._listed:
                logging.warning("bad video %s: %s", id, error)
                self._list({"id": id, "path": path, "error": error})
        if len(self.ids) > _allowed(self._limit, self._total):
            where = f"see {self._file}" if self._file else f"one is {min(self.ids)}"
            share = f"{len(self.ids)} of {self._total} videos cannot be read"
            raise UserError(f"{share}, more than data.bad_limit={self._limit:g} allows: {where}")

    def _list(self, row: dict[str, str | None]) -> None:
        self._listed.add(row["id"])
        if self._file:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            if files.is_remote(self._file):
                rows = [*files.read_rows(self._file), row]
                files.write(self._file, "".join(json.dumps(r) + "\n" for r in rows))
                return
            with self._file.open("a") as file:
                file.write(json.dumps(row) + "\n")


def _allowed(limit: float, total: int) -> int:
    return min(int(limit * total + 1e-9), total - 1)  # at least one video must be readable


@dataclasses.dataclass(frozen=True)
class _Loader:
    """Loads this host's share of the global batches; `batch_size` is in samples."""

    sample: Callable[[int], Batch]
    cfg: Any
    batch_size: int
    host: int
    hosts: int

    def __post_init__(self):
        if self.batch_size < 1 or self.batch_size % self.hosts:
            raise UserError(f"batch size {self.batch_size} is not divisible by {self.hosts} hosts")
        if "flow" in self.cfg.modality:
            estimator(self.cfg.flow.method)  # raises if it is unknown or unavailable

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yields batches start..stop-1. Threads load single samples, worker processes whole batches."""
        threads, prefetch = self.cfg.threads, max(1, self.cfg.prefetch)
        if self.cfg.workers:
            return Workers(self._batch, start, stop, self.cfg.workers, prefetch)
        import grain  # not at the top, because it imports JAX, which data workers do not need

        local = self.batch_size // self.hosts
        pool = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, prefetch * local))
        samples = grain.MapDataset.range(start * local, stop * local).map(self._row)
        return iter(samples.to_iter_dataset(pool).batch(local, batch_fn=_collate))

    def _row(self, i: int) -> Batch:
        """Loads the i-th of this host's samples."""
        local = self.batch_size // self.hosts
        batch, row = divmod(i, local)
        start = time.thread_time()
        sample = self.sample(batch * self.batch_size + self.host * local + row)
        return sample | {"cpu": time.thread_time() - start}

    def _batch(self, batch: int) -> Batch:
        local = self.batch_size // self.hosts
        return _collate([self._row(i) for i in range(batch * local, (batch + 1) * local)])


def _collate(samples: list[Batch]) -> Batch:
    about = {"bad": [row for s in samples for row in s["bad"]], "cpu": sum(s["cpu"] for s in samples)}
    if any(s["video"] is None for s in samples):  # no readable video: `BadVideos.report` will raise
        return about
    return about | {k: _join([s[k] for s in samples], np.concatenate) for k in samples[0] if k not in about}


def _join(arrays: list[Clip], how: Callable = np.stack) -> Clip:
    if isinstance(arrays[0], dict):
        return {k: how([a[k] for a in arrays]) for k in arrays[0]}
    return how(arrays)


@dataclasses.dataclass(frozen=True)
class _TrainSample:
    source: Source
    cfg: Any
    seed: int
    cache: CachePlan

    def __call__(self, g: int) -> Batch:
        total = len(self.source)
        epoch, position = divmod(g, total)
        bad = []
        for attempt, i in enumerate(self._candidates(epoch, position)):
            record = self.source[i]
            rng = np.random.default_rng([_CLIP, self.seed, epoch, position, attempt])
            try:
                video = _train_clips(record, self.cfg, rng, not self.source.directional, self.cache)
            except DecodeError as e:
                bad.append(_bad(record, e))
                if len(bad) > _allowed(self.cfg.bad_limit, total):
                    break
                continue
            label, index = (np.full(self.cfg.repeats, x) for x in (np.int32(record.label), np.int64(i)))
            return {"video": video, "label": label, "index": index, "bad": bad}
        return {"video": None, "bad": bad}

    def _candidates(self, epoch: int, position: int) -> Iterator[int]:
        """Yields the record of a position, then the others in an order that depends on the position."""
        first = int(_permutation(self.seed, epoch, len(self.source))[position])
        yield first
        rng = np.random.default_rng([_REPLACEMENT, self.seed, epoch, position])
        yield from (int(i) for i in rng.permutation(len(self.source)) if i != first)


@functools.lru_cache(maxsize=2)
def _permutation(seed: int, epoch: int, total: int) -> np.ndarray:
    return np.random.default_rng([_ORDER, seed, epoch]).permutation(total)


@dataclasses.dataclass(frozen=True)
class _EvalSample:
    source: Source
    cfg: Any
    clips: int
    crops: int
    cache: CachePlan

    def __call__(self, g: int) -> Batch:
        if g >= len(self.source):
            return self._sample(-1, -1, None, [])
        record = self.source[g]
        try:
            views, _ = eval_views(record, self.cfg, self.clips, self.crops, self.cache)
            return self._sample(g, record.label, views, [])
        except DecodeError as e:
            return self._sample(g, record.label, None, [_bad(record, e)])

    def _sample(self, index: int, label: int, video: Clip | None, bad: list) -> Batch:
        row = {"label": np.int32(label), "index": np.int64(index), "mask": np.bool_(video is not None)}
        if video is None:
            shape, views = clip_shape(self.cfg), self.clips * self.crops
            if isinstance(shape, dict):
                video = {k: np.zeros((views, *s), np.uint8) for k, s in shape.items()}
            else:
                video = np.zeros((views, *shape), np.float32 if len(shape) == 2 else np.uint8)
        return {k: _join([v]) for k, v in ({"video": video} | row).items()} | {"bad": bad}


def _bad(record: Record, error: DecodeError) -> BadVideo:
    return record.id, record.video if isinstance(record.video, str) else None, str(error)


def _train_clips(
    record: Record, cfg: Any, rng: np.random.Generator, flip_ok: bool, cache: CachePlan = NO_CACHE
) -> Clip:
    """Returns separately augmented random clips of a video, uint8 [repeats, T, S, S, C].

    The clips are of the same frames, or start at separately drawn times if `cfg.repeats_apart`.
    """
    with _open(record, cache, _grey(cfg)) as video:
        first, total, _ = span(video, record, cfg)
        times = clock(video, first, total, cfg)
        moments = cfg.repeats if cfg.repeats_apart else 1
        index = np.stack([_train_frames(total, times, cfg, rng) for _ in range(moments)])
        unique, index_in = np.unique(index, return_inverse=True)
        frames = video.frames(first + unique, grey=_grey(cfg))
    index = index_in.reshape(index.shape)[np.arange(cfg.repeats) % moments]
    if cfg.modality == "features":
        return frames[index].reshape(cfg.repeats, *clip_shape(cfg))
    clips = []
    for each in index:
        clip, inverse = _without_repeats(frames, each)
        clip, _ = transforms.train_transform(clip, cfg, rng, flip_ok)
        clips.append(clip_streams(clip[inverse], cfg))
    return _join(clips)


def _without_repeats(frames: np.ndarray, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns the distinct frames at `index` [T], and the inverse indices [T] that restore the clip.

    The clip of a short video repeats frames, which are cheaper to transform once and to repeat afterwards.
    """
    unique, inverse = np.unique(index, return_inverse=True)
    return frames if len(unique) == len(frames) else frames[unique], inverse


def _train_frames(total: int, times: dict[str, Any], cfg: Any, rng: np.random.Generator) -> np.ndarray:
    """Samples the frame indices of one random clip from `total` frames with the `times` of `clock`."""
    if cfg.sampling == "window":
        return sampling.place(total, clip_moments(cfg), rng, cfg.short, **times)
    if cfg.sampling == "segments":
        return sampling.segments(total, cfg.frames, rng)
    return sampling.uniform(total, cfg.frames)


def _open(record: Record, cache: CachePlan, grey: bool) -> Video | CachedVideo | FeatureSequence:
    if isinstance(record.video, StoredFeatures):
        return record.video.open()
    return cache.open(record.encoded(), grey)


def _grey(cfg: Any) -> bool:
    return cfg.grey or cfg.modality == "flow"


def clip_moments(cfg: Any) -> np.ndarray:
    """Returns the times of a clip's frames relative to its first frame.

    The unit is seconds if `cfg.target_fps` is set, else frames of the video.
    The frames of the rgb stream come first, then those of the flow stream, one more than its flow fields. The
    shorter stream is centered in the longer one.
    """
    unit = 1 / cfg.target_fps if cfg.target_fps else 1
    if cfg.modality == "flow":
        return unit * sampling.steps(cfg.frames + 1, cfg.stride)
    rgb = sampling.steps(cfg.frames, cfg.stride)
    if cfg.modality in ("rgb", "features"):
        return unit * rgb
    fields = sampling.steps(cfg.flow.frames + 1, cfg.flow.stride)
    ahead = fields[-1] - rgb[-1]
    return unit * np.concatenate([rgb + max(0, ahead) / 2, fields + max(0, -ahead) / 2])


def clock(video: Video, first: int, total: int, cfg: Any) -> dict[str, Any]:
    """Returns the arguments `times` and `slack` of `sampling`, which match the unit of `clip_moments`."""
    if not cfg.target_fps:
        return {"times": np.arange(total + 1.0), "slack": sampling.SLACK}
    times = np.append(video.times, video.times[-1] + 1 / video.fps)[first : first + total + 1]
    return {
        "times": times,
        "slack": max(sampling.SLACK, 2 * video.tolerance),
    }  # two times, each off by up to half a tick


def clip_offsets(cfg: Any, rate: float) -> np.ndarray:
    """Returns `clip_moments` in frames of a video with `rate` times the target frame rate."""
    unit = rate * cfg.target_fps if cfg.target_fps else 1
    return np.floor(clip_moments(cfg) * unit + sampling.SLACK).astype(np.int64)


def clip_streams(clip: np.ndarray, cfg: Any) -> Clip:
    """Converts the sampled frames, at `clip_moments`, to a clip of shape `clip_shape`."""
    if cfg.modality == "rgb":
        return clip
    frames = clip if cfg.modality == "flow" else clip[cfg.frames :]
    fields = quantise(flow(frames, cfg.flow.method), cfg.flow.bound)
    return fields if cfg.modality == "flow" else {"rgb": clip[: cfg.frames], "flow": fields}


def span(video: Video, record: Record, cfg: Any) -> tuple[int, int, float]:
    """Returns a record's first frame, its number of frames, and the ratio of its to the target frame rate.

    Raises:
      DecodeError: no frame is shown between the record's start and end.
    """
    first, last, end = 0, video.num_frames, video.times[-1] + 1 / video.fps
    frame = np.median(np.diff(video.times, append=end))
    near = np.clip(0.001, 0.1 * frame, 0.4 * frame)  # seconds, tolerance for rounded times in a CSV file
    if record.start is not None:
        if record.start > end - near:
            raise DecodeError(f"the segment starts at {record.start} s, after the video's end at {end:.3f} s")
        first = int(sampling.shown(video.times, record.start, near))
    if record.end is not None:
        last = int(np.searchsorted(video.times, record.end - near))
    if last <= first:
        raise DecodeError(f"no frame between {record.start} and {record.end} s")
    return first, last - first, video.fps / cfg.target_fps if cfg.target_fps else 1.0
