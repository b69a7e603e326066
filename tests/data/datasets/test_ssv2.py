"""Something-Something v2 in its published form."""

import json

import pytest
from official import check, refuses, write

LABELS = {"Holding something": "1", "Pushing something from left to right": "0"}
TRAIN = [
    {
        "id": "78687",
        "label": "pushing a cup from left to right",
        "template": "Pushing [something] from left to right",
        "placeholders": ["a cup"],
    },
    {"id": "7", "label": "holding potato", "template": "Holding [something]", "placeholders": ["potato"]},
]
ANSWERS = "12;Holding something\n3;Pushing something from left to right\n"


@pytest.mark.parametrize("prefix", ["labels/", "something-something-v2-"])
def test_lists_of_a_split(tmp_path, prefix):
    lists = {"labels.json": json.dumps(LABELS), "train.json": json.dumps(TRAIN), "test-answers.csv": ANSWERS}
    write(tmp_path, {f"{prefix}{name}": text for name, text in lists.items()})
    write(tmp_path, {f"20bn-something-something-v2/{i}.webm": None for i in (78687, 7, 12, 3)})
    train = check("ssv2", "train", path=tmp_path)
    assert train.directional and train.class_names == (
        "Pushing something from left to right",
        "Holding something",
    )
    assert train.mirror is None  # there is no other direction
    assert [(r.id, r.target.label) for r in train.records] == [("78687", 0), ("7", 1)]
    assert train.records[1].video.endswith("/20bn-something-something-v2/7.webm")
    assert [(r.id, r.target.label) for r in check("ssv2", "test", path=tmp_path).records] == [
        ("12", 1),
        ("3", 0),
    ]


def test_what_is_wrong_is_reported(tmp_path):
    bad = [
        {"id": "7"},
        {"id": "8", "template": "Eating [something]"},
        {"id": "9", "template": "Holding [something]"},
    ]
    write(tmp_path, {"labels.json": json.dumps(LABELS), "validation.json": json.dumps(bad)})
    wrong = ("1: there is no 'template'", "2: unknown class 'Eating something'", "3: no video 9.webm in")
    refuses("ssv2", "val", "; .* item ".join(("item " + wrong[0], *wrong[1:])), path=tmp_path)
    refuses(
        "ssv2", "train", "no annotation file train.json or something-something-v2-train.json", path=tmp_path
    )
    refuses("ssv2", "dev", "unknown split of ssv2 'dev'", path=tmp_path)
    write(tmp_path, {"labels.json": '["a"]', "train.json": "1"})
    refuses("ssv2", "val", "labels.json does not map classes", path=tmp_path)
    write(tmp_path, {"labels.json": json.dumps(LABELS)})
    refuses("ssv2", "train", "train.json is not a list or object", path=tmp_path)
