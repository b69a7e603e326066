"""Kinetics in its published form: lists of clips, and videos in several layouts."""

import pytest
from official import check, refuses, write

from vidjax.data.datasets import kinetics

HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
TRAIN = (
    "abseiling,-3B32lodo2M,59,69,train,0\nzumba,-7kbO0v4hag,107,117,train,0\nabseiling,gone,0,10,train,0\n"
)
VAL = "zumba,0aaaaaaaaaa,3,13,validate,0\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    monkeypatch.setattr(kinetics, "EDITIONS", (2, 600))
    lists = {"annotations/train.csv": HEADER + TRAIN, "annotations/val.csv": HEADER + VAL}
    return write(tmp_path, lists)


@pytest.mark.parametrize(
    "videos",
    [
        ("train/abseiling/-3B32lodo2M_000059_000069.mp4", "train/zumba/-7kbO0v4hag_000107_000117.mp4"),
        ("train/-3B32lodo2M_000059_000069.mp4", "train/-7kbO0v4hag_000107_000117.mkv"),
        ("-3B32lodo2M.mp4", "-7kbO0v4hag.webm"),
    ],
)
def test_clips_of_a_split(root, videos):
    write(root, dict.fromkeys(videos))
    source = check("kinetics", "train", path=root, classes=2, bad_limit=0.4)
    assert source.class_names == ("abseiling", "zumba") and not source.directional
    assert [(r.id, r.target.label) for r in source.records] == [
        ("-3B32lodo2M_000059_000069", 0),
        ("-7kbO0v4hag_000107_000117", 1),
    ]
    assert [r.video for r in source.records] == [str(root / v) for v in videos]
    assert "train.csv, line 4: no video abseiling/gone_000000_000010 or" in source.problems[0]


def test_what_is_wrong_is_reported(root):
    missing = r"1 of 1 annotations cannot be used, so none is left: .*val.csv, line 2"
    refuses("kinetics", "val", missing, path=root, classes=2)
    refuses("kinetics", "train", "unknown edition of Kinetics '500'", path=root, classes=500)
    refuses("kinetics", "train", "have 2 classes, not 600", path=root, classes=600)
    refuses("kinetics", "dev", "unknown split of kinetics 'dev'", path=root)
    no_list = r"no annotation file test.csv or .* expected train.csv, val.csv"
    refuses("kinetics", "test", no_list, path=root, classes=2)


@pytest.fixture
def editions(tmp_path):
    """Three editions: a clip is in two of them, in a class that has another name in the later one."""
    return write(
        tmp_path,
        {
            "kinetics400/train.csv": HEADER
            + "tying tie,-3B32lodo2M,59,69,train,0\ntying tie,leaked,0,10,train,0\n",
            "kinetics400/validate.csv": HEADER + "zumba,0aaaaaaaaaa,3,13,validate,0\n",
            "kinetics600/annotations/train.csv": HEADER + "tying necktie,-3B32lodo2M,59,69,train,0\n",
            "kinetics600/annotations/val.csv": HEADER + "zumba,0aaaaaaaaaa,3,13,validate,0\n",
            "kinetics700_2020/train.csv": HEADER + "bowling,-7kbO0v4hag,7,17,train,0\n",
            "kinetics700_2020/val.csv": HEADER + "bowling,leaked,0,10,validate,0\n",
            "kinetics400/videos/-3B32lodo2M.mp4": None,
            "kinetics400/videos/leaked.mp4": None,
            "kinetics700_2020/train/-7kbO0v4hag_000007_000017.mp4": None,
            "kinetics600/val/0aaaaaaaaaa_000003_000013.mp4": None,
            "label_map.txt": "zumba\ntying tie\nbowling\n",
        },
    )


def test_merged_editions(editions, monkeypatch):
    monkeypatch.setattr(kinetics, "MERGED", 3)
    train = check("kinetics", "train", path=editions, classes=3, bad_limit=0.0)
    assert train.class_names == ("bowling", "tying necktie", "zumba")
    assert [(r.id, r.target.label) for r in train.records] == [
        ("-3B32lodo2M_000059_000069", 1),
        ("-7kbO0v4hag_000007_000017", 0),
    ]
    val = check("kinetics", "val", path=editions, classes=3, bad_limit=0.0, label_map="label_map.txt")
    assert val.class_names == ("zumba", "tying necktie", "bowling")
    assert [(r.id[:6], r.target.label) for r in val.records] == [("0aaaaa", 0), ("leaked", 2)]


def test_label_map_of_other_classes_is_refused(editions, monkeypatch):
    monkeypatch.setattr(kinetics, "MERGED", 3)
    write(editions, {"map.txt": "zumba\ntying tie\nrunning\n"})
    refuses(
        "kinetics",
        "val",
        "map.txt does not have the classes .* 'bowling'",
        path=editions,
        classes=3,
        label_map="map.txt",
    )
