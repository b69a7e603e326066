"""ActivityNet and ActivityNet Captions in their published form."""

import json

import pytest
from official import check, clip, refuses, write

from vidjax.data.datasets import load_source
from vidjax.data.targets import ClassTarget, DenseTextTarget, MomentsTarget, Segment, SegmentsTarget


def entry(subset, duration, *annotations):
    rows = [{"segment": [start, end], "label": label} for start, end, label in annotations]
    more = {"resolution": "320x240", "url": "https://www.youtube.com/watch?v="}
    return {"duration": duration, "subset": subset, "annotations": rows, **more}


DATABASE = {
    "---9CpRcKoU": entry("training", 3.07, (0.01, 1.2, "Drinking beer"), (1.5, 3.5, "Drinking beer")),
    "--0edUL8zmA": entry("training", 3, (2, 1, "Archery"), (0.5, 1.5, "Zumba"), (0, 1, "Drinking beer")),
    "--1DO2V4K74": entry("validation", 2, (0, 2, "Archery")),
    "--6bmFcYWIg": entry("testing", 2),
    "gone": entry("validation", 2, (0, 2, "Archery")),
}
CAPTIONS = {
    "v_---9CpRcKoU": {
        "duration": 3.07,
        "timestamps": [[0.28, 2.1], [1.13, 3.9], [2, 1], [0, 1], [1, 9]],
        "sentences": ["A man drinks.", " He  smiles. ", "Reversed.", " ", "Late."],
    },
    "v_gone": {"duration": 3.0, "timestamps": [[0, 1]], "sentences": ["Gone."]},
}


@pytest.fixture
def root(tmp_path):
    lists = {
        "activity_net.v1-3.min.json": {"database": DATABASE, "taxonomy": [], "version": "VERSION 1.3"},
        "captions/train.json": CAPTIONS,
        "captions/val_1.json": {"v_--1DO2V4K74": {"duration": 2, "timestamps": [[0, 1]], "sentences": []}},
        "captions/val_2.json": [1],
    }
    names = ("v_---9CpRcKoU.mp4", "train/v_--0edUL8zmA.mkv", "--1DO2V4K74.webm", "v_--6bmFcYWIg.mp4")
    videos = {name: clip(seconds=3, container=name.rpartition(".")[2]) for name in names}
    return write(tmp_path, {name: json.dumps(content) for name, content in lists.items()} | videos)


def test_segments_of_a_video(root):
    source = check("activitynet", "train", path=root, bad_limit=0.5)
    assert source.class_names == ("Archery", "Drinking beer", "Zumba")
    assert [(r.id, r.target) for r in source.records] == [
        ("---9CpRcKoU", SegmentsTarget((Segment(0.01, 1.2, 1), Segment(1.5, 3.07, 1)), 3.07)),
        ("--0edUL8zmA", SegmentsTarget((Segment(0.5, 1.5, 2), Segment(0, 1, 1)), 3)),
    ]
    assert [r.video for r in source.records] == [
        str(root / "v_---9CpRcKoU.mp4"),
        str(root / "train/v_--0edUL8zmA.mkv"),
    ]
    (problem,) = source.problems
    assert problem.endswith(
        "--0edUL8zmA, annotations 0: the segment from 2 to 1 s is not within the video of 3 s"
    )


def test_class_of_a_video_or_of_a_segment(root):
    whole = check("activitynet", "train", ClassTarget, path=root, bad_limit=1)
    assert [(r.id, r.target.label, r.start) for r in whole.records] == [("---9CpRcKoU", 1, None)]
    assert whole.problems[1].endswith("--0edUL8zmA: 2 classes, not one")
    trimmed = check("activitynet", "train", ClassTarget, path=root, trimmed=True, bad_limit=0.5)
    assert [(r.id, r.target.label, r.start, r.end, r.group) for r in trimmed.records] == [
        ("---9CpRcKoU_0", 1, 0.01, 1.2, "---9CpRcKoU"),
        ("---9CpRcKoU_1", 1, 1.5, 3.07, "---9CpRcKoU"),
        ("--0edUL8zmA_0", 2, 0.5, 1.5, "--0edUL8zmA"),
        ("--0edUL8zmA_1", 1, 0, 1, "--0edUL8zmA"),
    ]


def test_other_splits_and_what_is_wrong(root):
    test = load_source("activitynet", "test", path=root)
    assert [(r.id, r.target) for r in test.records] == [("--6bmFcYWIg", None)] and len(test.class_names) == 3
    assert [r.id for r in check("activitynet", "val", path=root, bad_limit=0.5)] == ["--1DO2V4K74"]
    refuses("activitynet", "val", "1 of 2 annotations .*, gone: no video v_gone or gone in", path=root)
    refuses("activitynet", "training", "unknown split of activitynet 'training'", path=root)
    (root / "activity_net.v1-3.min.json").write_text('{"version": "1.3"}')
    refuses("activitynet", "val", "has no list or object 'database'", path=root)


def test_sentences_of_a_video(root):
    source = check("activitynet_captions", "train", path=root, bad_limit=2)
    segments = (0.28, 2.1, ("A man drinks.",)), (1.13, 3.07, ("He smiles.",))
    assert [(r.id, r.target) for r in source.records] == [("---9CpRcKoU", DenseTextTarget(segments, 3.07))]
    assert [p.rpartition(": ")[2] for p in source.problems] == [
        "the segment from 2 to 1 s is not within the video of 3.07 s",
        "sentence 3 is empty",
        "the segment from 1 to 9 s is not within the video of 3.07 s",
        f"no video v_gone or gone in {root}",
    ]


def test_each_sentence_is_a_query(root):
    source = check("activitynet_captions", "train", MomentsTarget, path=root, bad_limit=2)
    assert [(r.id, r.target, r.group) for r in source.records] == [
        ("---9CpRcKoU_0", MomentsTarget("A man drinks.", ((0.28, 2.1),), 3.07), "---9CpRcKoU"),
        ("---9CpRcKoU_1", MomentsTarget("He smiles.", ((1.13, 3.07),), 3.07), "---9CpRcKoU"),
    ]


def test_malformed_captions(root):
    refuses("activitynet_captions", "val_1", "1 timestamps for 0 sentences", path=root)
    refuses("activitynet_captions", "val_2", "val_2.json, item 1: '1' is not an object", path=root)
    refuses("activitynet_captions", "val", "unknown split of activitynet_captions 'val'", path=root)
