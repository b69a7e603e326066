"""The command `vidjax data`: list, prepare, check, stats and show."""

import json

import numpy as np
import pytest

from vidjax.cli import main
from vidjax.data.datasets.synthetic_motion import encode, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns videos in train/ and test/, of which one is in both, one is corrupt, and one is short."""
    root = tmp_path_factory.mktemp("videos")
    for split, label, names in (
        ("train", "a", ("0", "1")),
        ("train", "b", ("2", "3")),
        ("test", "a", ("4", "5")),
        ("test", "b", ("6",)),
    ):
        (root / split / label).mkdir(parents=True)
        for name in names:
            (root / split / label / f"{name}.mp4").write_bytes(clip(int(name)))
    (root / "test" / "b" / "copy.mp4").write_bytes(clip(2))
    (root / "train" / "a" / "bad.mp4").write_bytes(clip(1)[:600])
    (root / "train" / "b" / "short.mp4").write_bytes(clip(7, frames=1))
    return root


def clip(seed, frames=8):
    return encode(render(seed % 12, np.random.default_rng(seed), 32, frames), 10)


def data(*words):
    """Runs the command and returns its exit code."""
    with pytest.raises(SystemExit) as e:
        main(["data", *map(str, words)])
    return e.value.code


def test_list_names_every_dataset(capsys):
    assert data("list", "--json") == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["ava"]["targets"] == ["BoxesTarget"] and "train" in rows["kinetics"]["splits"]
    assert data("list") == 0
    assert len(capsys.readouterr().out.splitlines()) == len(rows)


def test_check_finds_what_is_wrong(folder, capsys):
    assert data("check", "video_folder", "--source", folder, "--json", "--workers", 0) == 1
    splits = json.loads(capsys.readouterr().out)["splits"]
    found = {(split, p["kind"], p["id"]) for split in splits for p in splits[split]["problems"]}
    assert found == {
        ("train", "corrupt", "train/a/bad.mp4"),
        ("train", "short", "train/b/short.mp4"),
        ("test", "duplicate", "test/b/copy.mp4"),
    }
    assert splits["train"]["classes"] == {"a": 3, "b": 3} and len(splits["test"]["fingerprint"]) == 16
    assert data("check", "video_folder", "--source", folder) == 1
    text = capsys.readouterr().out
    assert "the same content as train/b/2.mp4 of split train" in text and "problems found" in text
    sound = folder / "train"
    assert data("check", "video_folder", "--source", sound, "--split", "all", "--frames", 99) == 1
    assert "8 frames, fewer than 99" in capsys.readouterr().out


def test_check_of_a_sound_dataset_succeeds(folder, tmp_path, capsys):
    for name in ("a/0.mp4", "b/2.mp4"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes((folder / "train" / name).read_bytes())
    assert data("check", "video_folder", "--source", tmp_path) == 0
    assert "no problems found" in capsys.readouterr().out


def test_stats_and_contact_sheets(folder, tmp_path, capsys):
    assert data("stats", "video_folder", "--source", folder, "--out", tmp_path, "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == json.loads((tmp_path / "stats.json").read_text())
    assert rows["train"]["unreadable"] == 1 and rows["test"]["seconds"]["max"] == pytest.approx(0.8)
    assert rows["test"]["sizes"] == {"32x32": 4}
    assert data("show", "video_folder", "--source", folder, "--out", tmp_path, "--clips", 1) == 0
    for split in ("train", "test"):
        assert (tmp_path / f"{split}.png").read_bytes().startswith(b"\x89PNG")
        page = (tmp_path / f"{split}.html").read_text()
        assert page.count("<img") >= 2 and "http" not in page.replace("http://www.w3.org", "")
    assert (tmp_path / "stats.png").read_bytes().startswith(b"\x89PNG")


def test_prepared_folder_takes_the_place_of_the_source(folder, tmp_path, capsys):
    words = ("prepare", "video_folder", "--source", folder, "--out", tmp_path / "out", "--workers", 0)
    assert data(*words, "--bad-limit", 0.4) == 0
    out = capsys.readouterr().out
    assert "train: 5 records, 5 videos" in out and "1 unreadable (see bad_videos.jsonl)" in out
    assert data("check", "video_folder", "--source", tmp_path / "out", "--split", "test") == 0
    assert "test: 4 records" in capsys.readouterr().out


def test_failures_of_an_object_store_are_one_line(monkeypatch, capsys):
    class NoCredentialsError(Exception):
        __module__ = "botocore.exceptions"

    def fail(path):
        raise NoCredentialsError("Unable to locate credentials")

    monkeypatch.setattr("vidjax.data.prepare.read.find", fail)
    assert data("check", "video_folder", "--source", "s3://bucket/videos") == 2
    error = capsys.readouterr().err
    assert "Unable to locate credentials" in error and error.count("\n") == 1


@pytest.mark.parametrize(
    "words, message",
    [
        (("check", "video_foldr"), "unknown dataset 'video_foldr': did you mean video_folder"),
        (("check", "video_folder"), "dataset video_folder needs --source DIR"),
        (("check", "video_folder", "--source", "nowhere"), "nowhere does not exist"),
        (("prepare", "video_folder", "--source", ".", "--out", "x", "--gop", 0), "--gop must be at least 1"),
        (("prepare", "video_folder", "--source", ".", "--out", "x", "--option", "csv"), "is KEY=VALUE"),
        (("prepare", "kinetics", "--out", "x", "--storage", "features"), "run `vidjax features"),
        (("show", "video_folder", "--source", ".", "--out", "x", "--target", "Box"), "type of targets 'Box'"),
    ],
)
def test_what_cannot_work_is_one_line(words, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert data(*words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
