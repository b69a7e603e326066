"""Measures how fast training clips are loaded, and what limits it.

The stages of a clip, of which a run has those that its data needs:
  read        bytes of the file; a file that is opened for the first time is read while it is indexed
  open        parse the container, or find the frame index
  fill cache  decode a whole video to the cache of frames, in the first epoch
  decode      decompress frames
  convert     convert their colors to RGB or luma
  transform   crop, resize and augment
  flow, audio, text, ...  make a stream other than frames
  targets     `example` of the task
  collate     join clips to a batch
  transfer    copy a batch to the device
  other       sample the times of frames, seed random numbers, ...
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from rich.console import Group
from rich.table import Table

from vidjax.data import cores
from vidjax.data.datasets import Source
from vidjax.data.pipeline import Example, no_targets, prefetch_to_device, train_batches
from vidjax.data.record import Opens
from vidjax.data.stages import measured, total
from vidjax.data.streams import STREAMS

_SAMPLES = 32  # per batch, so that a few batches are loaded in the time given
_BUSY = 0.75  # share of the cores from which on they limit the throughput


@dataclasses.dataclass(frozen=True)
class StageTime:
    """A stage of loading a clip.

    Attributes:
      name: see the module docstring.
      cpu_ms: CPU time per clip.
      wait_ms: time per clip in which the thread waited, for the disk, a core or another thread.
      share: of the time of all stages.
    """

    name: str
    cpu_ms: float
    wait_ms: float
    share: float


@dataclasses.dataclass(frozen=True)
class Bench:
    """What `bench` measured.

    Attributes:
      clips_per_second: of this process.
      clips_per_second_per_core: if a core did nothing but load.
      cpu_ms_per_clip: CPU time.
      busy: share of this process's cores that loading used.
      startup_seconds: time to the first batch.
      seconds, clips: what was measured after that.
      batch: clips per batch.
      setup: what the batches were loaded on.
      stages: the longest first.
      bottleneck: the stage that takes the most time.
      advice: settings to change.
    """

    clips_per_second: float
    clips_per_second_per_core: float
    cpu_ms_per_clip: float
    busy: float
    startup_seconds: float
    seconds: float
    clips: int
    batch: int
    setup: str
    stages: tuple[StageTime, ...]
    bottleneck: str
    advice: tuple[str, ...]


def bench(
    source: Source,
    cfg: Any,
    batch_size: int,
    seed: int,
    seconds: float,
    streams: Sequence[str] = ("rgb",),
    example: Example = no_targets,
) -> Bench:
    """Loads training batches for a while, as a run on this machine alone would, and measures the stages.

    Args:
      source: the training split.
      cfg: the config's data section.
      batch_size: of a run; smaller batches are loaded, because a clip takes the same time in any of them.
      seed: of the order and the clips.
      seconds: how long to measure.
      streams: the modalities of a clip.
      example: makes the targets of a clip.

    Raises:
      UserError: as in `vidjax.data.pipeline.train_batches`.
    """
    size = max(1, min(batch_size // cfg.repeats, _SAMPLES)) * cfg.repeats
    device = NamedSharding(Mesh(np.array(jax.local_devices()[:1]), ("data",)), PartitionSpec())
    begin = time.perf_counter()
    batches = train_batches(source, cfg, size, seed, streams=streams, example=example, measure=True)
    with contextlib.closing(batches):
        on_device = prefetch_to_device(batches, device, cfg.prefetch)
        jax.block_until_ready(next(on_device))
        start, before, clips = time.perf_counter(), batches.stages, 0
        with measured() as main:
            while time.perf_counter() < start + seconds:
                jax.block_until_ready(next(on_device))
                clips += size
        elapsed, after = time.perf_counter() - start, batches.stages
    spent = {k: tuple(np.subtract(v, before.get(k, (0, 0))).tolist()) for k, v in after.items()}
    spent = total([spent, {k: v for k, v in main.items() if k == "transfer"}])
    cpu, wall = (sum(times) for times in zip(*spent.values()))
    own = max(1, cores.usable() // cores.processes())
    rows = [
        StageTime(name, 1000 * c / clips, 1000 * max(0.0, w - c) / clips, w / wall)
        for name, (c, w) in sorted(spent.items(), key=lambda item: -item[1][1])
    ]
    busy = cpu / elapsed / own
    waiting = 1 - cpu / wall
    return Bench(
        clips_per_second=clips / elapsed,
        clips_per_second_per_core=clips / cpu,
        cpu_ms_per_clip=1000 * cpu / clips,
        busy=busy,
        startup_seconds=start - begin,
        seconds=elapsed,
        clips=clips,
        batch=size,
        setup=batches.setup,
        stages=tuple(rows),
        bottleneck=rows[0].name,
        advice=(*_parallelism(cfg, own, busy, waiting), *_work(rows[0].name, cfg, source, batches.cached)),
    )


def _parallelism(cfg: Any, own: int, busy: float, waiting: float) -> list[str]:
    """Advises on the number of workers and threads, on `own` cores."""
    used = cfg.workers or cores.threads(cfg.threads)
    if used < own:
        more = f"data.workers={own}" if cfg.workers or own > cores.MOST else f"data.threads={own}"
        return [f"{used} of {own} cores load data: set {more}"]
    if busy >= _BUSY:
        return []
    if waiting > 1 - _BUSY and cfg.workers:
        return [
            f"loading waits {waiting:.0%} of the time, for the disk or other processes: set data.workers="
            f"{2 * cfg.workers}, or copy the videos to a local disk"
        ]
    return [] if cfg.workers else [f"threads wait for each other or for the disk: set data.workers={own}"]


def _work(bottleneck: str, cfg: Any, source: Source, cached: bool) -> list[str]:
    """Advises on the stage that takes the most time."""
    side = max(cfg.short_side_range) if cfg.crop == "short_side" else cfg.short_side
    video, prepare = source[0].video, []
    if not isinstance(video, Opens) and not getattr(video, "generated", False):
        prepare = [f"store videos that are smaller and open faster: vidjax data prepare --short-side {side}"]
    repeat = ["train on several clips of each decoded video: data.repeats=2"] if cfg.repeats == 1 else []
    cache = [] if cached else ["cache decoded frames, if there is disk space: data.cache=True"]
    match bottleneck:
        case "fill cache":
            return ["the cache of frames is being filled: measure again when it is, after one epoch"]
        case "read" | "open" | "decode":
            return [*prepare, *cache, *repeat]
        case "convert":
            return [*prepare, *cache]
        case "transform":
            used = [key for key in ("auto_augment", "color_jitter") if cfg[key]]
            return [*(f"augment less: data.{key} is {cfg[key]}" for key in used), *prepare]
        case "flow":
            faster = ["data.flow.method=dis"] if cfg.flow.method != "dis" else []
            return [f"compute less flow: {', '.join([*faster, 'a smaller data.size', 'fewer frames'])}"]
        case "targets":
            return ["the targets of the task take the most time, see its method `example`"]
        case "collate" | "transfer":
            return ["clips are large to copy: use a smaller data.size or fewer data.frames"]
        case name if name in STREAMS:
            return [f"the stream {name} takes the most time, see data.{name}"]
    return []


def page(result: Bench) -> Group:
    """Returns the result as text and a table for a terminal."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0))
    table.add_column("stage")
    for column in ("CPU ms/clip", "waiting ms/clip", "share"):
        table.add_column(column, justify="right")
    for row in result.stages:
        table.add_row(row.name, f"{row.cpu_ms:.2f}", f"{row.wait_ms:.2f}", f"{row.share:.0%}")
    return Group(
        f"{result.clips_per_second:.1f} clips/s, {result.clips_per_second_per_core:.1f} per core; "
        f"{result.cpu_ms_per_clip:.1f} ms of CPU time per clip",
        f"{result.clips:,} clips in {result.seconds:.1f} s, {result.batch} per batch; the first batch took "
        f"{result.startup_seconds:.1f} s; cores {result.busy:.0%} busy",
        result.setup,
        "",
        table,
        "",
        f"Most of the time: {result.bottleneck}",
        *(f"- {line}" for line in result.advice),
    )
