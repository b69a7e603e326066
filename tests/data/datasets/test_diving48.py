"""Diving48 in its published form."""

import json

from official import check, refuses, write

VOCAB = [["Back", "15som", "05Twis", "FREE"], ["Forward", "25som", "NoTwis", "TUCK"]]
TRAIN = [
    {"vid_name": "_8Vy3dlHg2w_00000", "label": 1, "start_frame": 0, "end_frame": 158},
    {"vid_name": "8mSKJ5Oq_DU_00012", "label": 0, "start_frame": 0, "end_frame": 99},
]
TEST = [{"vid_name": "a", "label": 2}, {"vid_name": "b", "label": 0}, {"vid_name": "c", "label": "x"}]


def test_lists_of_a_split(tmp_path):
    write(tmp_path, {"Diving48_vocab.json": json.dumps(VOCAB), "Diving48_V2_train.json": json.dumps(TRAIN)})
    write(tmp_path, {"rgb/_8Vy3dlHg2w_00000.mp4": None, "rgb/8mSKJ5Oq_DU_00012.mp4": None})
    source = check("diving48", "train", path=tmp_path)
    assert source.class_names == ("Back+15som+05Twis+FREE", "Forward+25som+NoTwis+TUCK")
    assert not source.directional
    assert [(r.id, r.target.label) for r in source.records] == [
        ("_8Vy3dlHg2w_00000", 1),
        ("8mSKJ5Oq_DU_00012", 0),
    ]


def test_what_is_wrong_is_reported(tmp_path):
    write(tmp_path, {"Diving48_vocab.json": json.dumps(VOCAB), "Diving48_V2_test.json": json.dumps(TEST)})
    wrong = "item 1: label '2' is not a label below 2; .*item 2: no video b.mp4 .*item 3: label 'x'"
    refuses("diving48", "test", wrong, path=tmp_path)
    refuses("diving48", "train", "no annotation file Diving48_V2_train.json", path=tmp_path)
    refuses("diving48", "val", "unknown split of diving48 'val'", path=tmp_path)
    write(tmp_path, {"Diving48_vocab.json": "[1]"})
    refuses("diving48", "test", "is not a list of the parts of each class", path=tmp_path)
