"""Charades in its published form."""

import pytest
from official import check, refuses, write

from vidjax.data.targets import MultiLabelTarget, Segment, SegmentsTarget, TextTarget

CLASSES = "c000 Holding some clothes\nc001 Putting clothes somewhere\nc002 Taking some clothes\n"
HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length\n"
TRAIN = (
    '46GP8,HR43,Kitchen,6,7,Yes,"A person cooks, and waits.",food;stove,'
    '"A person cooks food, on a stove.;A person walks; ",c002 11.90 21.20;c000 0.00 12.60;c002 2 3,24.83\n'
    "N11GT,0KZ7,Stairs,6,7,Yes,Someone.,,Someone stands.,,18.33\n"
    # ends one second late, ends before it starts, ends long after the video
    'WGDXX,HR43,Hall,6,7,No,"",,"",c001 9.00 11.00;c000 4.00 3.00;c002 1.00 99.00,10.00\n'
)
TEST = "GONE1,XXXX,Hall,6,7,Yes,s,,d,c000 0.00 1.00,10.00\n"


@pytest.fixture
def root(tmp_path):
    lists = {"Charades_v1_classes.txt": CLASSES}
    lists |= {f"Charades_v1_{s}.csv": HEADER + rows for s, rows in (("train", TRAIN), ("test", TEST))}
    videos = dict.fromkeys(f"Charades_v1_480/{id}.mp4" for id in ("46GP8", "N11GT", "WGDXX"))
    return write(tmp_path, {f"Charades/{name}": text for name, text in lists.items()} | videos)


def test_actions_of_a_video(root):
    source = check("charades", "train", path=root)
    assert source.class_names == (
        "Holding some clothes",
        "Putting clothes somewhere",
        "Taking some clothes",
    )
    assert [(r.id, r.group, r.target) for r in source.records] == [
        ("46GP8", "HR43", MultiLabelTarget((0, 2))),
        ("N11GT", "0KZ7", MultiLabelTarget(())),
        ("WGDXX", "HR43", MultiLabelTarget((0, 1, 2))),
    ]
    assert source.problems == ()


def test_times_of_actions_are_clipped_to_the_video(root):
    source = check("charades", "train", SegmentsTarget, path=root, bad_limit=0.7)
    assert [r.target for r in source.records] == [
        SegmentsTarget((Segment(11.9, 21.2, 2), Segment(0, 12.6, 0), Segment(2, 3, 2)), 24.83),
        SegmentsTarget((), 18.33),
        SegmentsTarget((Segment(9, 10, 1),), 10),
    ]
    first, second = source.problems
    assert first.endswith("train.csv, line 4: the segment from 4 to 3 s is not within the video of 10 s")
    assert second.endswith("line 4: the segment from 1 to 99 s is not within the video of 10 s")
    refuses("charades", "train", "2 of 3 annotations", target=SegmentsTarget, path=root, bad_limit=0.5)


def test_descriptions(root):
    source = check("charades", "train", TextTarget, path=root, bad_limit=0.4)
    assert source.class_names == ()
    assert [r.target.texts for r in source.records] == [
        ("A person cooks food, on a stove.", "A person walks"),
        ("Someone stands.",),
    ]
    assert source.problems == ("WGDXX: a text is empty",)


def test_what_is_wrong_is_reported(root):
    refuses("charades", "test", "none is left: .*test.csv, line 2: no video GONE1 in", path=root)
    refuses("charades", "val", "unknown split of charades 'val'", path=root)
    (root / "Charades/Charades_v1_classes.txt").write_text("c002 Taking some clothes\n")
    refuses("charades", "train", "line 2: unknown class 'c000'", path=root)
