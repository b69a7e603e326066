"""Tests that a video that crashes or stalls its data worker costs no more than that video."""

import dataclasses
import json
import os
import signal
import time

import numpy as np
import pytest

from tests.data.test_pipeline import broken, config, eval_batches, join, same, take, train_batches
from tests.data.test_pipeline import good as good
from vidjax.data.datasets import ListSource
from vidjax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A video that does something else than to return its contents, and counts how often in a file."""

    action: str
    count: str = os.devnull

    def read(self):
        with open(self.count, "a") as file:
            file.write("x")
        match self.action:
            case "sleep":
                time.sleep(100)
            case "exit":
                os._exit(3)
            case name:
                os.kill(os.getpid(), signal.Signals[name])


@dataclasses.dataclass(frozen=True)
class Late:
    """A video that takes long to read the first time."""

    contents: bytes
    marker: str

    def read(self):
        if not os.path.exists(self.marker):
            open(self.marker, "w").close()
            time.sleep(100)
        return self.contents


def replaced(source, i, video):
    records = list(source)
    records[i] = dataclasses.replace(records[i], video=video)
    return ListSource(tuple(records), source.class_names)


def rows(folder):
    return [json.loads(line) for line in (folder / "bad_videos.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(
    "action, reason",
    [
        ("SIGSEGV", "v4: the data worker that read it died of SIGSEGV"),
        ("exit", "v4: the data worker that read it ended with exit code 3"),
        ("sleep", "v4: reading it took longer than data.timeout=1 seconds"),
    ],
)
def test_video_that_ends_its_worker_is_replaced_like_a_corrupt_one(good, tmp_path, action, reason):
    expected = take(train_batches(broken(good, {4}, tmp_path), config(bad_limit=0.1), 4, seed=0), 10)
    hostile, cfg = (
        replaced(good, 4, Hostile(action)),
        config(bad_limit=0.1, workers=2, timeout=1.0, cache=False),
    )
    batches = train_batches(hostile, cfg, 4, seed=0, report_dir=tmp_path)
    same(expected, take(batches, 10))
    assert rows(tmp_path) == [{"id": "v4", "path": None, "error": reason}]


@pytest.mark.parametrize("action, times", [("SIGSEGV", 1), ("sleep", 2)])
def test_video_that_ends_its_worker_is_masked_in_evaluations(good, tmp_path, action, times):
    expected = join(list(eval_batches(broken(good, {4}, tmp_path), config(bad_limit=0.1), 4, 2, 1)))
    video = Hostile(action, str(tmp_path / "count"))
    hostile, cfg = replaced(good, 4, video), config(bad_limit=0.1, workers=1, timeout=1.0, cache=False)
    batches = eval_batches(hostile, cfg, 4, 2, 1, report_dir=tmp_path)
    result = join(list(batches))
    same(expected, result)
    np.testing.assert_array_equal(result["mask"], [i not in (4, 10, 11) for i in range(12)])
    same(expected, join(list(batches)))
    assert (tmp_path / "count").stat().st_size == times  # the second pass does not read it again
    assert [row["id"] for row in rows(tmp_path)] == ["v4"]


def test_video_that_is_late_once_is_read_again(good, tmp_path):
    expected = take(train_batches(good, config(), 4, seed=0), 5)
    late = replaced(good, 4, Late(good[4].video, str(tmp_path / "marker")))
    same(expected, take(train_batches(late, config(workers=1, timeout=1.0), 4, 0, report_dir=tmp_path), 5))
    assert (tmp_path / "marker").exists() and not (tmp_path / "bad_videos.jsonl").exists()


def test_out_of_memory_names_the_video(good):
    batches = train_batches(replaced(good, 4, Hostile("SIGKILL")), config(workers=1, cache=False), 4, seed=0)
    with pytest.raises(UserError, match=r"killed while it read v4 \(out of memory\?\): lower data.workers"):
        take(batches, 5)


def test_too_many_dead_workers_are_an_error(good, monkeypatch):
    monkeypatch.setattr("vidjax.data.workers._DEATHS", 3)
    hostile = good
    for i in range(10):
        hostile = replaced(hostile, i, Hostile("SIGSEGV"))
    with pytest.raises(
        UserError, match=r"a data worker died of SIGSEGV while it read v\d: set data.workers=0"
    ):
        take(train_batches(hostile, config(workers=1, bad_limit=1.0, cache=False), 4, seed=0), 1)


def test_slow_video_on_a_thread_is_named_in_a_warning(good, monkeypatch, caplog):
    class Slow:
        def read(self):
            time.sleep(1)
            return good[4].video

    expected = take(train_batches(good, config(), 4, seed=0), 5)
    same(expected, take(train_batches(replaced(good, 4, Slow()), config(timeout=0.5), 4, seed=0), 5))
    texts = [record.getMessage() for record in caplog.records]
    assert texts and set(texts) == {
        "reading v4 takes longer than data.timeout=0.5 seconds; data.workers=1 would skip it"
    }
