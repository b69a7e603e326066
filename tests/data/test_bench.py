"""Tests that `vidjax data bench` measures the stages of loading and names the one to change."""

import contextlib
import json
import time

import jax
import ml_collections
import numpy as np
import pytest

from vidjax.cli import main
from vidjax.config_schema import schema
from vidjax.data import bench as bench_module
from vidjax.data import cores, transforms
from vidjax.data.bench import bench
from vidjax.data.datasets import ListSource, load_source
from vidjax.data.pipeline import train_batches
from vidjax.data.record import Record
from vidjax.data.stages import measured, stage, total
from vidjax.data.targets import ClassTarget

OPTIONS = dict(size=32, frames=8, train=24, val=12, test=12)


def config(**changes):
    small = dict(frames=4, size=16, short_side=16, color_jitter=0.4)
    return ml_collections.ConfigDict(schema().data.to_dict() | small | changes)


@pytest.fixture(scope="module")
def source():
    return load_source("synthetic_motion", "train", **OPTIONS)


def work(seconds):
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass


def test_a_stage_excludes_the_stages_within_it():
    with stage("ignored"):  # nothing is measured here
        pass
    with measured() as spent:
        work(0.01)
        with stage("outer"):
            work(0.03)
            with stage("inner"):
                work(0.02)
                time.sleep(0.05)
            with measured() as nested, stage("elsewhere"):
                work(0.04)
    assert {k: round(cpu, 2) for k, (cpu, _) in spent.items()} == {
        "other": 0.01,
        "outer": 0.03,
        "inner": 0.02,
    }
    assert spent["inner"][1] >= 0.07 and nested["elsewhere"][0] == pytest.approx(0.04, abs=0.005)
    with measured(False) as nothing, stage("x"):
        pass
    assert nothing == {}
    assert total([{"a": (1, 2)}, {"a": (3, 4), "b": (5, 6)}]) == {"a": (4, 6), "b": (5, 6)}


def test_a_stage_that_fails_ends():
    with measured() as spent:
        with contextlib.suppress(ValueError), stage("a"):
            raise ValueError
        work(0.02)
    assert spent["other"][0] > 0.015 > spent["a"][0]


@pytest.mark.parametrize("workers", [0, 1])
def test_clips_are_the_same_when_measured(source, workers):
    with contextlib.ExitStack() as stack:
        a, b = (
            stack.enter_context(
                contextlib.closing(train_batches(source, config(workers=workers), 4, 0, measure=measure))
            )
            for measure in (False, True)
        )
        for _ in range(3):
            jax.tree.map(np.testing.assert_array_equal, next(a), next(b))
        assert a.stages == {}
        assert {"read", "open", "decode", "convert", "transform", "targets", "collate"} <= b.stages.keys()
        cpu = sum(cpu for name, (cpu, _) in b.stages.items())
        assert 0.8 * b.cpu_seconds < cpu < 1.5 * b.cpu_seconds


def test_the_slowest_stage_is_named(source, monkeypatch):
    transform = transforms.train_transform

    def slow(*args):
        work(0.02)
        return transform(*args)

    monkeypatch.setattr(transforms, "train_transform", slow)
    result = bench(source, config(threads=1), 8, 0, 0.5)
    assert result.bottleneck == result.stages[0].name == "transform"
    assert result.stages[0].cpu_ms == pytest.approx(20, rel=0.15)
    assert result.cpu_ms_per_clip == pytest.approx(sum(s.cpu_ms for s in result.stages))
    assert sum(s.share for s in result.stages) == pytest.approx(1)
    assert result.clips_per_second_per_core == pytest.approx(1000 / result.cpu_ms_per_clip)
    assert 1 < result.clips_per_second < 50
    assert any("data.color_jitter is 0.4" in line for line in result.advice)
    assert "transfer" in {s.name for s in result.stages}


@pytest.mark.parametrize(
    "changes, own, busy, waiting, expected",
    [
        (dict(threads=2), 8, 0.2, 0.1, ["2 of 8 cores load data: set data.threads=8"]),
        (dict(threads=2), 64, 0.2, 0.1, ["2 of 64 cores load data: set data.workers=64"]),
        (dict(workers=3), 8, 0.2, 0.1, ["3 of 8 cores load data: set data.workers=8"]),
        (dict(workers=8), 8, 0.9, 0.1, []),
        (dict(threads=8), 8, 0.5, 0.4, ["threads wait for each other or for the disk: set data.workers=8"]),
        (
            dict(workers=8), 8, 0.3, 0.7,
            [
                "loading waits 70% of the time, for the disk or other processes: set data.workers=16, or "
                "copy the videos to a local disk"
            ],
        ),
    ],
)  # fmt: skip
def test_advice_on_workers_and_threads(changes, own, busy, waiting, expected):
    assert bench_module._parallelism(config(**changes), own, busy, waiting) == expected


@pytest.mark.parametrize(
    "stage, changes, cached, expected",
    [
        ("decode", {}, False, ["--short-side 16", "data.cache=True", "data.repeats=2"]),
        ("decode", dict(crop="short_side", short_side_range=(20, 30), repeats=2), True, ["--short-side 30"]),
        ("convert", {}, True, ["--short-side 16"]),
        ("fill cache", {}, True, ["measure again"]),
        ("transform", dict(color_jitter=0.0, auto_augment="rand-m7"), True, ["is rand-m7", "prepare"]),
        ("flow", {}, True, ["compute less flow: a smaller data.size"]),
        ("audio", {}, True, ["data.audio"]),
        ("targets", {}, True, ["`example`"]),
        ("collate", {}, True, ["data.size"]),
        ("other", {}, True, []),
    ],
)  # fmt: skip
def test_advice_on_the_slowest_stage(stage, changes, cached, expected):
    videos = ListSource((Record("a.mp4", ClassTarget(0), "a"),), ("a",))
    found = bench_module._work(stage, config(**changes), videos, cached)
    assert len(found) == len(expected) and all(e in f for e, f in zip(expected, found))


def test_generated_videos_need_no_preparation(source):
    assert not any("prepare" in line for line in bench_module._work("decode", config(), source, False))


CONFIG = """
def get_config(arg=""):
    data = dict(name="synthetic_motion", options=%s, frames=4, size=16, short_side=16, stride=1.0)
    return dict(batch=6, steps=1, data=data, model=dict(name="slow_fusion_conv4", tiny=True))
"""


@pytest.mark.parametrize("workers", [0, 1])
def test_command_prints_the_stages(tmp_path, capsys, workers):
    (tmp_path / "config.py").write_text(CONFIG % OPTIONS)
    line = ["data", "bench", str(tmp_path / "config.py"), f"--config.data.workers={workers}"]
    for json_flag in ([], ["--json"]):
        with pytest.raises(SystemExit) as e:
            main([*line, "--seconds", "0.3", *json_flag])
        assert e.value.code == 0
        out = capsys.readouterr().out
        if json_flag:
            result = json.loads(out)
            assert result["batch"] == 6 and result["clips"] >= 6 and result["clips_per_second"] > 0
            assert result["setup"].startswith("data is loaded on")
        else:
            assert " clips/s, " in out and "Most of the time: " in out and "decode" in out
            assert f"({cores.usable()} core" in out


def test_invalid_seconds_are_an_error(tmp_path, capsys):
    with pytest.raises(SystemExit) as e:
        main(["data", "bench", "synthetic_motion/any_model", "--seconds", "0"])
    assert e.value.code == 2 and "--seconds must be from 0 to 3600, not 0" in capsys.readouterr().err
