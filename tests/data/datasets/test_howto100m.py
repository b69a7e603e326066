"""HowTo100M in its published form."""

import json
import pickle

import pytest
from official import check, clip, refuses, write

from vidjax.data.datasets import load_source
from vidjax.data.targets import DenseTextTarget

HEADER = "video_id,category_1,category_2,rank,task_id\n"
LIST = "nVbIUDjzWY4,Cars & Other Vehicles,Motorcycles,27,52907\nCTPAZ2euJ2Q,Cars & Other Vehicles,Cars,3,1\n"
CAPTIONS = {
    "nVbIUDjzWY4": {
        "start": [0.0, 0.5, 1.5, 2.0, 9.0],
        "end": [1.0, 0.5, 9.5, 3.0, 10.0],
        "text": ["hi  there", "no duration", "until the end", float("nan"), "after the end"],
    },
    "CTPAZ2euJ2Q": {"start": [0.5], "end": [1.0], "text": ["brakes"]},
    "silent": {"start": [0.5], "end": [1.0], "text": [" "]},
    "short": {"start": [0.5], "end": [], "text": ["a"]},
}


@pytest.fixture
def root(tmp_path):
    more = "silent,a,b,1,1\nshort,a,b,1,1\ngone,a,b,1,1\nunknown,a,b,1,1\n"
    raw = CAPTIONS | {"CTPAZ2euJ2Q": {"start": [0], "end": [2], "text": ["the brakes"]}, "gone": {}}
    raw["gone"] = raw["CTPAZ2euJ2Q"]
    lists = {
        "HowTo100M_v1.csv": HEADER + LIST + more,
        "caption.json": json.dumps(CAPTIONS | {"gone": raw["gone"]}),
        "raw_caption.json": json.dumps(raw),
    }
    videos = {"nVbIUDjzWY4.mp4": clip(3), "CTPAZ2euJ2Q.webm": clip(3, container="webm")}
    return write(tmp_path, lists | videos)


def test_captions_within_the_video(root):
    source = check("howto100m", "train", path=root, bad_limit=0.7)
    assert [(r.id, r.target.segments) for r in source] == [
        ("nVbIUDjzWY4", ((0, 1, ("hi there",)), (1.5, 3, ("until the end",)))),
        ("CTPAZ2euJ2Q", ((0.5, 1, ("brakes",)),)),
    ]
    assert [r.target.duration for r in source] == pytest.approx([3, 3], abs=0.01)
    assert pickle.loads(pickle.dumps(source))[0] == source[0]
    assert [p.partition("v1.csv, ")[2] for p in source.problems] == [
        "line 4: there are no captions with text",
        "line 5: 1 starts, 0 ends and 1 texts of captions",
        f"line 6: no video gone in {root}",
        "line 7: caption.json has no unknown",
    ]


def test_raw_captions(root):
    source = check("howto100m", "train", path=root, raw=True, bad_limit=0.7)
    assert source[1].target.segments == ((0, 2, ("the brakes",)),)
    assert source.fingerprint != load_source("howto100m", "train", path=root, bad_limit=0.7).fingerprint


def test_what_is_wrong_is_reported(root):
    refuses("howto100m", "train", "4 of 6 annotations cannot be used", path=root)
    refuses("howto100m", "val", "unknown split of howto100m 'val'", path=root)
    source = load_source("howto100m", "train", path=root, bad_limit=0.7)
    (root / "nVbIUDjzWY4.mp4").write_bytes(b"not a video")
    assert source[0].target == DenseTextTarget((*source[0].target.segments,), 10.0)
    (root / "caption.json").write_text("[]")
    refuses("howto100m", "train", "caption.json is not an object", path=root)
