"""Weizmann under the file names of its publication, and the real videos where they are."""

import os
import pathlib

import pytest
from official import check, refuses, write

NAMES = ("bend/daria_bend.avi", "wave1/daria_wave1.avi", "eli_wave2.avi", "lena_run1.avi", "lena_run2.avi")
REAL = pathlib.Path(os.environ.get("VIDJAX_DATA", ""), "weizmann10")


def test_one_performer_is_left_out(tmp_path):
    write(tmp_path, dict.fromkeys(NAMES))
    train = check("weizmann", "train", path=tmp_path, performer="lena")
    assert [(train.class_names[r.target.label], r.group) for r in train.records] == [
        ("bend", "daria"),
        ("wave2", "eli"),
        ("wave1", "daria"),
    ]
    test = check("weizmann", "test", path=tmp_path, performer="lena")
    assert [r.id for r in test.records] == ["lena_run1", "lena_run2"] and len(test.class_names) == 10
    assert {train.class_names[r.target.label] for r in test} == {"run"}


def test_what_is_wrong_is_reported(tmp_path):
    refuses("weizmann", "test", "has no videos that are called PERFORMER_CLASS", path=tmp_path)
    write(tmp_path, {"daria_bend.avi": b"", "daria_fly.avi": b""})
    refuses("weizmann", "test", "daria_fly.avi: not called PERFORMER_CLASS", path=tmp_path)
    refuses("weizmann", "test", "unknown performer of Weizmann 'x'", path=tmp_path, performer="x")
    refuses("weizmann", "val", "unknown split of weizmann 'val'", path=tmp_path)


@pytest.mark.skipif(not REAL.is_dir(), reason="VIDJAX_DATA holds no weizmann10")
def test_real_videos():
    sizes = [len(check("weizmann", split, path=os.fspath(REAL))) for split in ("train", "test")]
    assert sizes == [80, 10]
