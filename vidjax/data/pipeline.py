"""Input pipeline: batches of clips with their targets, and their transfer to the devices.

Sample g of a run has epoch g // N and position g % N, where N is the number of samples per epoch. Its record
is at that position of the epoch's seeded permutation, or is given by the `order` of the source, and its
augmentation is drawn from (seed, epoch, position). It depends on nothing else, so the stream is bit-identical
for any number of hosts, processes and threads, and when it is resumed from any batch. Samples are fetched by
number, by Grain's threads or by `Workers`, so their order does not depend on timing. With `data.host_shards`,
each host has its own part of the records instead, and the stream depends on the number of hosts.
A sample consists of `data.repeats` clips of the same frames with separate augmentation (Hoffer et al.,
arXiv:1901.09335), adjacent in the batch; with `data.repeats_apart` the clips also start at separately drawn
times (Feichtenhofer et al., arXiv:2205.09113, section 3.3).

The `inputs` of a batch are a dict of streams, see `vidjax.data.streams`, and its `targets` what `example` of
the task returns for each clip.
"""

import dataclasses
import functools
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import logging
from etils import epath

from vidjax import files
from vidjax.data import cores
from vidjax.data import streams as modalities
from vidjax.data.cache_folder import cache_dir
from vidjax.data.clips import Clip, ClipReader
from vidjax.data.datasets import Source, check_mirror
from vidjax.data.decode import DecodeError, name_of
from vidjax.data.frame_cache import plan
from vidjax.data.order import OfHosts, Order, order_of, part_of
from vidjax.data.record import Record
from vidjax.data.stages import Spent, measured, stage, total
from vidjax.data.targets import mirrored
from vidjax.data.workers import Workers, reading
from vidjax.errors import UserError

Batch = dict[str, Any]
Example = Callable[[Record, Clip, np.random.Generator, bool], dict[str, np.ndarray]]
BadVideo = tuple[str, str | None, str]  # id, path, error
_ENDLESS = 1 << 38  # batches; more than any run, and samples of the largest batch still fit 64 bits

_CLIP, _EVAL = 1, 3  # first words of random seeds; the others are in `order`


def no_targets(record: Record, clip: Clip, rng: np.random.Generator, train: bool) -> dict[str, np.ndarray]:
    """Returns no targets, for passes that need the inputs only."""
    return {}


def train_batches(
    source: Source,
    cfg: Any,
    batch_size: int,
    seed: int,
    start_batch: int = 0,
    host: int = 0,
    hosts: int = 1,
    report_dir: epath.PathLike | None = None,
    streams: Sequence[str] = ("rgb",),
    example: Example = no_targets,
    measure: bool = False,
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
      streams: the modalities of a clip.
      example: makes the targets of a clip, see `vidjax.tasks.Task.example`.
      measure: whether to measure the stages of loading, see `BatchIterator.stages`.

    Returns:
      Iterator of dict(inputs, targets, index int64 [b]), where inputs and targets are dicts of arrays
      [b, ...]. `index` is the record that was used, which differs from the one in the permutation if that is
      a corrupt video.

    Raises:
      UserError: the batch size is not divisible by the hosts or repeats; raised by the iterator if more than
        `cfg.bad_limit` of the videos are corrupt.
    """
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    if batch_size % cfg.repeats:
        raise UserError(f"batch size {batch_size} is not divisible by data.repeats={cfg.repeats}")
    check_mirror(source)
    reader = _reader(source, cfg, streams)
    check_memory("batch", batch_size // hosts, cfg, streams)
    samples = batch_size // cfg.repeats
    order = order_of(source)
    if cfg.host_shards:
        check_shards(source, hosts)
        order = OfHosts(len(source), samples, hosts)
    sample = TrainSample(source, reader, example, order, seed)
    loader = _Loader(sample, samples, host, hosts, measure)
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
    streams: Sequence[str] = ("rgb",),
    example: Example = no_targets,
    videos: int | None = None,
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
      streams: the modalities of a clip.
      example: makes the targets of a video from its first view, see `vidjax.tasks.Task.example`.
      videos: number of videos that the records are parts of; None if each is a video of its own.

    Returns:
      Re-iterable of dict(inputs, targets, index int64 [b], mask bool [b], times float64 [b, V, T], geometry
      float64 [b, V, 14]). Inputs are a dict of streams [b, V, ...], V = clips * crops; times and geometry are
      those of `vidjax.data.clips.Clip`, the latter as numbers and without any for cached features. The mask
      is False for corrupt videos, whose inputs are 0, and for padding, whose index is -1.

    Raises:
      UserError: as in `train_batches`.
    """
    sample = EvalSample(source, _reader(source, cfg, streams), example, clips, crops)
    check_memory("the batch, clips or crops of the eval", batch_size // hosts * clips * crops, cfg, streams)
    if cfg.host_shards:
        check_shards(source, hosts)
    part = part_of(len(source), host, hosts) if cfg.host_shards else None
    loader = _Loader(sample, batch_size, host, hosts, part=part)
    bad = BadVideos(videos or len(source), cfg.bad_limit, report_dir)
    return EvalBatches(loader, bad, -(-len(source) // batch_size))


def check_shards(source: Source, hosts: int) -> None:
    """Raises `UserError` if a source cannot be divided between hosts."""
    if getattr(source, "order", None):
        raise UserError("data.host_shards does not fit this dataset, which has an order of its own")
    if len(source) < hosts:
        raise UserError(f"data.host_shards: {len(source)} videos are too few for {hosts} hosts")


def _reader(source: Source, cfg: Any, streams: Sequence[str]) -> ClipReader:
    streams = tuple(streams)
    modalities.check(cfg, streams)
    modalities.require(cfg, streams)
    return ClipReader(cfg, streams, plan(source, cfg, modalities.grey(cfg, streams)))


def check_memory(what: str, clips: int, cfg: Any, streams: Sequence[str]) -> None:
    """Checks that decoded clips fit into the memory of this host.

    Args:
      what: the keys to lower, for the message.
      clips: how many are in memory at a time.
      cfg: the config's data section.
      streams: the modalities of a clip.

    Raises:
      UserError: the clips alone take more than the host has.
    """
    size, memory = clips * _clip_bytes(cfg, streams), _host_bytes()
    if size > memory:
        shapes = modalities.clip_shapes(cfg, streams)
        text = ", ".join(f"{k} {'x'.join(map(str, s))}" for k, s in shapes.items())
        raise UserError(
            f"{clips:,} clips of {text} take {size / 2**30:,.1f} GiB at a time, and this host has "
            f"{memory / 2**30:,.1f} GiB: lower {what}"
        )


def _clip_bytes(cfg: Any, streams: Sequence[str]) -> int:
    shapes = modalities.clip_shapes(cfg, streams)
    return sum(math.prod(s) * modalities.stream(k).dtype().nbytes for k, s in shapes.items())


def _host_bytes() -> int:
    """Returns the memory of this host."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


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
        with stage("transfer"):
            ready.append(jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch))
        if len(ready) == size:
            yield ready.popleft()
    yield from ready


class BatchIterator(Iterator[Batch]):
    """Checkpointable iterator of batches. `close` stops its worker processes.

    Attributes:
      cpu_seconds: CPU time spent on the batches returned so far, over all threads and processes.
      stages: the time of each stage, if it is measured.
    """

    def __init__(self, loader: "_Loader", bad: "BadVideos", start: int, stop: int):
        self._loader, self._bad = loader, bad
        self._next, self._stop = start, stop
        self._iterator = loader.batches(start, stop)
        self.cpu_seconds = 0.0
        self.stages: Spent = {}

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self.cpu_seconds += batch.pop("cpu")
        self.stages = total([self.stages, batch.pop("stages")])
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
    def setup(self) -> str:
        """Describes in one line on what the batches are loaded."""
        return self._loader.setup

    @property
    def cached(self) -> bool:
        """Whether decoded frames are cached."""
        return self._loader.sample.reader.cache.use

    @property
    def note(self) -> str | None:
        """A message for the user if frames are cached automatically, else None."""
        cache = self._loader.sample.reader.cache
        if cache.use and cache.optional:
            size = f"about {cache.gigabytes:.2g} GB"
            return f"decoded frames are cached in {cache_dir()}, {size} (data.cache=auto)"
        return None

    def advice(self) -> str | None:
        """Returns a hint on how to lower the CPU time, or None if there is none yet."""
        cfg, sample, cache = self._loader.cfg, self._loader.sample, self._loader.sample.reader.cache
        if not cache.use:
            if not (cache.gigabytes or cfg.cache is False):
                return None
            size = f", about {cache.gigabytes:.2g} GB," if cache.gigabytes else ""
            return f"data.cache=True caches decoded frames{size} in {cache_dir()}"
        if self._next * self._loader.batch_size < len(sample.source):  # the cache is being filled
            return None
        if "flow" in sample.reader.streams:
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
    """Loads this host's share of the global batches.

    Attributes:
      batch_size: of the global batch, in samples.
      measure: whether to measure the stages of loading.
      part: the records that an evaluation reads on this host; None: its rows of the global batches.
      lost: indices of the records that killed a worker process, and how.
    """

    sample: "TrainSample | EvalSample"
    batch_size: int
    host: int
    hosts: int
    measure: bool = False
    part: range | None = None
    lost: dict[int, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.batch_size < 1 or self.batch_size % self.hosts:
            raise UserError(f"batch size {self.batch_size} is not divisible by {self.hosts} hosts")

    @property
    def cfg(self) -> Any:
        return self.sample.reader.cfg

    @property
    def ahead(self) -> int:
        """Number of batches that each worker, or the threads together, load in advance.

        Workers load `data.prefetch` batches together, and one each, unless these would take more than a
        quarter of the host's memory.
        """
        cfg, prefetch = self.cfg, max(1, self.cfg.prefetch)
        if not cfg.workers:
            return prefetch
        local, size = self.batch_size // self.hosts, _clip_bytes(cfg, self.sample.reader.streams)
        fitting = _host_bytes() // (4 * cores.processes() * cfg.workers * local * self.sample.clips * size)
        return max(1, min(1 + -(-prefetch // cfg.workers), fitting))

    @property
    def setup(self) -> str:
        """Describes in one line on what the batches are loaded."""
        usable, processes, workers = cores.usable(), cores.processes(), self.cfg.workers
        threads = cores.threads(self.cfg.threads)
        if workers:
            where = f"{workers} worker{'s' * (workers > 1)}, {_batches(workers * self.ahead)}"
        else:
            where = f"{threads} thread{'s' * (threads > 1)}, {_batches(self.ahead)}"
        shared = f" shared by {processes} processes" if processes > 1 else ""
        over = (workers or threads) * processes > usable
        advice = f"; lower data.{'workers' if workers else 'threads'} to the number of cores" if over else ""
        return f"data is loaded on {where} ({usable} core{'s' * (usable > 1)}{shared}){advice}"

    def batches(self, start: int, stop: int) -> Iterator[Batch]:
        """Yields batches start..stop-1. Threads load single samples, worker processes whole batches."""
        if self.cfg.workers:
            return Workers(self._batch, start, stop, self.cfg.workers, self.ahead, self.lost)
        import grain  # not at the top, because it imports JAX, which data workers do not need

        local, threads = self.batch_size // self.hosts, cores.threads(self.cfg.threads)
        pool = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=max(threads, self.ahead * local))
        samples = grain.MapDataset.range(start * local, stop * local).map(self._row)
        return iter(samples.to_iter_dataset(pool).batch(local, batch_fn=_collate))

    def _row(self, i: int) -> Batch:
        """Loads the i-th of this host's samples."""
        start = time.thread_time()
        with measured(self.measure) as stages:
            sample = self.sample(self._number(i))
        return sample | {"cpu": time.thread_time() - start, "stages": stages}

    def _number(self, i: int) -> int:
        """Returns the number of the i-th of this host's samples, for `sample`."""
        if self.part is not None:
            return self.part[i] if i < len(self.part) else len(self.sample.source)  # padding
        batch, row = divmod(i, self.batch_size // self.hosts)
        return batch * self.batch_size + self.host * (self.batch_size // self.hosts) + row

    def _batch(self, batch: int) -> Batch:
        local = self.batch_size // self.hosts
        return _collate([self._row(i) for i in range(batch * local, (batch + 1) * local)])


def _batches(count: int) -> str:
    return f"{count} batch{'es' * (count > 1)} ahead"


def _collate(samples: list[Batch]) -> Batch:
    about = {"bad": [row for s in samples for row in s["bad"]], "cpu": sum(s["cpu"] for s in samples)}
    about["stages"] = total(s["stages"] for s in samples)
    if any("inputs" not in s for s in samples):  # no readable video: `BadVideos.report` will raise
        return about
    with measured(bool(about["stages"])) as stages, stage("collate"):
        arrays = {k: _join([s[k] for s in samples], np.concatenate) for k in samples[0] if k not in about}
    return about | arrays | {"stages": total([about["stages"], stages])}


def _join(trees: Sequence[Any], how: Callable = np.stack) -> Any:
    """Joins dicts of arrays, nested to any depth, along the first axis."""
    if isinstance(trees[0], dict):
        return {k: _join([t[k] for t in trees], how) for k in trees[0]}
    return how(trees)


@dataclasses.dataclass(frozen=True)
class TrainSample:
    """Loads sample g of a run, see the module docstring; what it returns is collated to `train_batches`."""

    source: Source
    reader: ClipReader
    example: Example
    order: Order
    seed: int

    @property
    def clips(self) -> int:
        """Number of clips per sample."""
        return self.reader.cfg.repeats

    def __call__(self, g: int) -> Batch:
        total, cfg = len(self.source), self.reader.cfg
        epoch, position = divmod(g, self.order.epoch)
        bad = []
        for attempt, i in enumerate(self.order.candidates((self.seed,), g)):
            record = self.source[i]
            rng = np.random.default_rng([_CLIP, self.seed, epoch, position, attempt])
            try:
                with reading(i, _name(record), cfg.timeout):
                    clips = self.reader.train(record, rng, self._flip_ok(record))
                    with stage("targets"):
                        targets = [self.example(self._seen(record, c), c, rng, True) for c in clips]
            except DecodeError as e:
                bad.append(_bad(record, e))
                if len(bad) > _allowed(cfg.bad_limit, total):
                    break
                continue
            with stage("collate"):
                inputs, targets = _join([clip.inputs for clip in clips]), _join(targets)
            index = np.full(cfg.repeats, np.int64(i))
            return {"inputs": inputs, "targets": targets, "index": index, "bad": bad}
        return {"bad": bad}

    def _flip_ok(self, record: Record) -> bool:
        source = self.source
        return not record.directional and (source.mirror is not None or not source.directional)

    def _seen(self, record: Record, clip: Clip) -> Record:
        """Returns the record with the target of the clip, which may be mirrored."""
        if self.source.mirror is None or clip.geometry is None or not clip.geometry.flipped:
            return record
        return dataclasses.replace(record, target=mirrored(record.target, self.source.mirror))


@dataclasses.dataclass(frozen=True)
class EvalSample:
    """Loads the views of record g; what it returns is collated to `eval_batches`."""

    source: Source
    reader: ClipReader
    example: Example
    views: int
    crops: int

    @property
    def clips(self) -> int:
        """Number of clips per sample."""
        return self.views * self.crops

    def __call__(self, g: int) -> Batch:
        if g >= len(self.source):
            return self._blank(-1, [])
        record = self.source[g]
        try:
            with reading(g, _name(record), self.reader.cfg.timeout):
                views = self.reader.views(record, self.views, self.crops)
                targets = self.example(record, views[0], np.random.default_rng([_EVAL, g]), False)
        except DecodeError as e:
            return self._blank(g, [_bad(record, e)])
        return self._sample(g, views, targets, True, [])

    def _blank(self, index: int, bad: list[BadVideo]) -> Batch:
        """Returns a row of zeros, for padding and corrupt videos."""
        if self._no_targets is None:
            return {"bad": bad}
        views = [self.reader.blank()] * self.clips
        return self._sample(index, views, self._no_targets, False, bad)

    @functools.cached_property
    def _no_targets(self) -> Batch | None:
        """Targets of zeros, with the shapes of those of the first record that has some; None if none has."""
        blank = self.reader.blank()
        for i in range(len(self.source)):
            try:
                targets = self.example(self.source[i], blank, np.random.default_rng(0), False)
            except DecodeError:  # its annotation is malformed
                continue
            return {k: np.zeros_like(x) for k, x in targets.items()}
        return None

    def _sample(self, index: int, views: list[Clip], targets: Batch, valid: bool, bad: list) -> Batch:
        row = {
            "inputs": _join([view.inputs for view in views]),
            "targets": targets,
            "index": np.int64(index),
            "mask": np.bool_(valid),
            "times": np.stack([view.times for view in views]),
            "geometry": np.array([view.geometry.to_array() if view.geometry else () for view in views]),
        }
        return _join([row]) | {"bad": bad}


def _name(record: Record) -> str:
    return name_of(record.video) if isinstance(record.video, str) else record.id


def _bad(record: Record, error: DecodeError) -> BadVideo:
    return record.id, record.video if isinstance(record.video, str) else None, str(error)
