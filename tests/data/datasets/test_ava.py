"""AVA and AVA-Kinetics in their published form."""

import pytest
from official import check, clip, refuses, write

from vidjax.data.targets import Box, BoxesTarget

TRAIN = (
    "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,80,1\n"
    "-5KQ66BBWC4,0902,0.077,0.151,0.283,0.811,9,1\n"
    "-5KQ66BBWC4,0902,0.226,0.032,0.366,0.497,12,0\n"
    "-5KQ66BBWC4,0902,0.332,0.194,0.481,0.891,2,3\n"  # an action that is not evaluated
    "-5KQ66BBWC4,0903,0.077,0.151,0.283,0.811,80,1\n"
    "-5KQ66BBWC4,0904,0.1,0.2,0.3,0.4,12,1\n"
    "_7oWZq_s_Sk,0902\n"
)
WRONG = "-5KQ66BBWC4,0905,0.1,0.2,0.1,0.4,12,1\n-5KQ66BBWC4,0905,0.1,0.2,1.3,0.4,12,1\ngone,0902\n"
ACTIONS = ((9, "lie/sleep"), (12, "stand"), (80, "watch (a person)"))
EVALUATED = "".join(f'item {{\n  name: "{name}"\n  id: {i}\n}}\n' for i, name in ACTIONS)
ALL = "".join(
    f'label {{\n  name: "{name}"\n  label_id: {i}\n  label_type: PERSON_MOVEMENT\n}}\n'
    for i, name in ((12, "stand"), (2, "crawl"), (80, "watch (a person)"), (9, "lie/sleep"))
)


@pytest.fixture
def root(tmp_path):
    lists = {
        "ava_train_v2.2.csv": TRAIN,
        "ava_val_v2.2.csv": TRAIN + WRONG,
        "ava_train_excluded_timestamps_v2.2.csv": "-5KQ66BBWC4,0903\n",
        "ava_val_excluded_timestamps_v2.2.csv": "-5KQ66BBWC4,0903\n",
        "ava_action_list_v2.2.pbtxt": ALL,
        "ava_action_list_v2.2_for_activitynet_2019.pbtxt": EVALUATED,
        "kinetics_train_v1.0.csv": "a_b-c,13,0.1,0.2,0.3,0.4,12\na_b-c,13,0.5,0.2,0.8,0.4,80\nother,2.5\n"
        "a_b-c,25,0.1,0.2,0.3,0.4,12\n",
    }
    return write(tmp_path, {f"annotations/{name}": text for name, text in lists.items()})


def test_people_of_a_frame(root):
    write(root, {"trims/-5KQ66BBWC4.mkv": clip(6, container="mkv"), "trims/_7oWZq_s_Sk.mp4": clip(3)})
    source = check("ava", "train", path=root, offset=900)
    assert source.class_names == ("lie/sleep", "stand", "watch (a person)")
    assert [(r.id, r.start, r.end, r.target) for r in source.records] == [
        (
            "-5KQ66BBWC4_0902",
            0.5,
            3.5,
            BoxesTarget(
                2,
                (
                    Box((0.077, 0.151, 0.283, 0.811), (0, 2), 1),
                    Box((0.226, 0.032, 0.366, 0.497), (1,), 0),
                ),
            ),
        ),
        ("-5KQ66BBWC4_0904", 2.5, 5.5, BoxesTarget(4, (Box((0.1, 0.2, 0.3, 0.4), (1,), 1),))),
        ("_7oWZq_s_Sk_0902", 0.5, 3.5, BoxesTarget(2, ())),
    ]
    every = check("ava", "train", path=root, offset=900, classes=80)
    assert every.class_names == ("crawl", "lie/sleep", "stand", "watch (a person)")
    assert [b.labels for b in every[0].target.boxes] == [(1, 3), (2,), (0,)]


def test_whole_movies(root):
    movie = clip(906, fps=1)
    write(root, {"-5KQ66BBWC4.mp4": movie, "_7oWZq_s_Sk.mp4": movie})
    source = check("ava", "train", path=root)
    assert [(r.target.time, r.start) for r in source.records] == [(902, 900.5), (904, 902.5), (902, 900.5)]


def test_what_is_wrong_is_reported(root):
    write(root, {"-5KQ66BBWC4.mkv": clip(6, container="mkv"), "_7oWZq_s_Sk.mp4": clip(3)})
    source = check("ava", "val", path=root, offset=900, bad_limit=0.3)
    assert [p.partition("v2.2.csv, ")[2] for p in source.problems] == [
        "line 8: the box (0.1, 0.2, 0.1, 0.4) has no area",
        "line 9: x2 '1.3' is not a number from 0 to 1",
        f"line 10: no video gone in {root}",
    ]
    assert len(source) == 3  # no frame 0905, which looks as if there were no people
    before = "line 1: timestamp 0902 is before the start of the video at 903 s"
    refuses("ava", "train", before, path=root, offset=903)
    refuses("ava", "test", "unknown split of ava 'test'", path=root)
    refuses("ava", "train", "unknown edition of AVA '2.0'", path=root, edition="2.0")
    refuses("ava", "train", "unknown number of classes of AVA '61'", path=root, classes=61)
    refuses("ava", "train", r"no annotation file ava_train_v2.1.csv", path=root, edition="2.1")
    (root / "annotations/ava_action_list_v2.2.pbtxt").write_text("")
    refuses("ava", "train", "lists no actions", path=root, classes=80)


def test_clips_of_kinetics(root):
    write(root, dict.fromkeys(("train/a_b-c_000004_000014.mp4", "a_b-c_000013_000023.mp4"), clip(11)))
    write(root, {"a_b-c_000024_000034.mp4": clip(3), "other_000000_000010.mp4": clip(5)})
    source = check("ava_kinetics", "train", path=root)
    boxes = Box((0.1, 0.2, 0.3, 0.4), (1,)), Box((0.5, 0.2, 0.8, 0.4), (2,))
    assert [(r.id, r.video.rpartition("/")[2], r.start, r.target) for r in source.records] == [
        ("a_b-c_13", "a_b-c_000004_000014.mp4", 7.5, BoxesTarget(9, boxes)),
        ("other_2.5", "other_000000_000010.mp4", 1, BoxesTarget(2.5, ())),
        ("a_b-c_25", "a_b-c_000024_000034.mp4", 0, BoxesTarget(1, boxes[:1])),
    ]
    refuses("ava_kinetics", "test", "unknown split of ava_kinetics 'test'", path=root)
