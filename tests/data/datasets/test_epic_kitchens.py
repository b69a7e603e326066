"""EPIC-Kitchens-100 in its published form: actions are segments of long videos."""

import pytest
from official import check, clip, refuses, write

from vidjax.data.datasets import epic_kitchens

HEADER = (
    "narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,start_frame,"
    "stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n"
)


def line(id, start, stop, verb, noun):
    video = id.rpartition("_")[0]
    cells = (id, video[:3], video, "00:00:00.560", start, stop, 1, 2, "x", "x", verb, "x", noun)
    return ",".join(map(str, cells)) + ",\"['a', 'b']\",\"[1, 2]\"\n"


FILES = {
    "EPIC_100_verb_classes.csv": "id,key,instances,category\n0,take,\"['take', 'get']\",x\n1,open,[],x\n",
    "EPIC_100_noun_classes_v2.csv": "id,key,instances,category\n0,tap,[],a\n1,door,[],b\n2,plate,[],c\n",
    "EPIC_100_train.csv": HEADER
    + line("P01_01_0", "00:00:00.14", "00:00:03.37", 1, 1)
    + line("P01_01_1", "00:01:01.50", "00:01:02.00", 0, 2),
    "EPIC_100_validation.csv": HEADER + line("P01_11_0", "00:00:00.00", "00:00:01.89", 0, 0),
    "EPIC-KITCHENS/P01/videos/P01_01.MP4": clip(63, 4),
    "EPIC-KITCHENS/P01/videos/P01_11.MP4": clip(2, 4),
}


@pytest.mark.parametrize(
    "label, names, labels",
    [
        ("action", ("take tap", "take plate", "open door"), [2, 1]),
        ("verb", ("take", "open"), [1, 0]),
        ("noun", ("tap", "door", "plate"), [1, 2]),
    ],
)
def test_actions_of_a_split(tmp_path, label, names, labels):
    write(tmp_path, FILES)
    source = check("epic_kitchens", "train", path=tmp_path, label=label)
    assert source.class_names == names and [r.target.label for r in source.records] == labels
    assert [(r.id, r.start, r.end, r.group) for r in source.records] == [
        ("P01_01_0", 0.14, 3.37, "P01_01"),
        ("P01_01_1", 61.5, 62.0, "P01_01"),
    ]
    assert check("epic_kitchens", "val", path=tmp_path, label=label).class_names == names


def test_times_of_more_than_an_hour():
    assert epic_kitchens._seconds("01:02:03.50") == 3723.5


def test_what_is_wrong_is_reported(tmp_path):
    bad = (
        line("P01_11_0", "00:00:01.00", "00:00:01.00", 0, 0)
        + line("P01_11_1", "0:01", "00:00:02.00", 0, 0)
        + line("P01_11_2", "00:00:00.00", "00:00:01.00", 2, 0)
        + line("P09_11_3", "00:00:00.00", "00:00:01.00", 0, 0)
    )
    write(tmp_path, FILES | {"EPIC_100_validation.csv": HEADER + bad})
    wrong = (
        "line 2: stop_timestamp .* is not after .*line 3: '0:01' is not a time .*line 4: verb_class '2' "
        "is not a label below 2; .*line 5: no video P09_11.MP4"
    )
    refuses("epic_kitchens", "val", wrong, path=tmp_path)
    refuses("epic_kitchens", "val", "unknown label of EPIC-Kitchens-100 'x'", path=tmp_path, label="x")
    refuses("epic_kitchens", "test", "unknown split of epic_kitchens 'test'", path=tmp_path)
    write(tmp_path, {"EPIC_100_verb_classes.csv": "id,key\n1,take\n"})
    refuses("epic_kitchens", "val", "does not have the classes 0, 1, 2", path=tmp_path)
