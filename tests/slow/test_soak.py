"""Soak: loading many clips takes no more memory than loading some."""

import contextlib
import multiprocessing
import pathlib

import ml_collections
import pytest

from tests.data import test_decode
from tests.slow.memory import children, resident
from vidjax.config_schema import schema
from vidjax.data.datasets import ListSource
from vidjax.data.pipeline import train_batches
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget

pytestmark = pytest.mark.slow

CLIPS, WARM, BATCH = 20_000, 2_000, 20  # memory is compared between these two
SETUPS = {
    "threads": {"threads": 2},
    "workers": {"workers": 2},
    "audio": {"threads": 2},
}


def soak(folder, setup, connection):
    """Loads clips of videos of every kind, some of them corrupt, and sends the memory after each batch."""
    paths = []
    for name, options in test_decode.KINDS.items():
        paths.append(test_decode.write(folder / name, **options))
    data = paths[0].read_bytes()
    for i in range(2):
        (folder / f"truncated_{i}.mp4").write_bytes(data[: len(data) // (i + 2)])
        paths.append(folder / f"truncated_{i}.mp4")
    records = tuple(Record(str(p), ClassTarget(i % 3), p.name) for i, p in enumerate(paths))
    small = dict(frames=8, size=32, short_side=40, cache=False, color_jitter=0.2, bad_limit=0.2)
    cfg = ml_collections.ConfigDict(schema().data.to_dict() | small | SETUPS[setup])
    cfg.audio.absent = "mask"
    streams = ("rgb", "audio") if setup == "audio" else ("rgb",)
    batches = train_batches(
        ListSource(records, ("a", "b", "c")), cfg, BATCH, seed=0, report_dir=folder, streams=streams
    )
    for _ in range(CLIPS // BATCH):
        next(batches)
        connection.send(resident() + children())
    batches.close()


@pytest.mark.parametrize("setup", SETUPS)
def test_memory_after_many_clips_is_that_after_some(tmp_path, setup):
    spawn = multiprocessing.get_context("spawn")
    here, there = spawn.Pipe()
    process = spawn.Process(target=soak, args=(pathlib.Path(tmp_path), setup, there))
    process.start()
    there.close()
    memory = []
    with contextlib.suppress(EOFError):
        while True:
            memory.append(here.recv())
    process.join()
    assert process.exitcode == 0
    shown = [memory[i // BATCH - 1] for i in (WARM, CLIPS // 2, CLIPS)]
    print(setup, ", ".join(f"{x / 2**20:.0f} MiB" for x in shown))
    # Single batches vary with what the workers hold just then.
    first, last = (min(memory[i // BATCH - 10 : i // BATCH]) for i in (WARM, CLIPS))
    assert last <= 1.05 * first
