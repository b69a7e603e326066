"""MSR-VTT and MSRVTT-QA in their published form."""

import json

import pytest
from official import check, refuses, write

from vidjax.data.targets import QuestionTarget


def info(splits, *sentences):
    videos = [
        {
            "category": 9,
            "url": "",
            "video_id": f"video{i}",
            "start time": 1,
            "end time": 9,
            "split": s,
            "id": i,
        }
        for i, s in splits.items()
    ]
    rows = [{"caption": c, "video_id": f"video{i}", "sen_id": n} for n, (i, c) in enumerate(sentences)]
    return json.dumps({"info": {"contributor": "Microsoft"}, "videos": videos, "sentences": rows})


SPLITS = {0: "train", 1: "train", 2: "validate", 3: "test", 4: "test"}
SENTENCES = (0, "a car is shown"), (2, "a dog"), (0, " a  man drives "), (1, ""), (3, "a cat"), (4, "a cook")


@pytest.fixture(params=["together", "apart"])
def root(tmp_path, request):
    if request.param == "together":
        lists = {"MSRVTT_data.json": info(SPLITS, *SENTENCES)}
    else:
        first = {i: s for i, s in SPLITS.items() if s != "test"}
        rest = {i: s for i, s in SPLITS.items() if s == "test"}
        lists = {
            "train_val_annotation/train_val_videodatainfo.json": info(first, *SENTENCES[:4]),
            "test_videodatainfo.json": info(rest, *SENTENCES[4:]),
        }
    lists |= {
        "MSRVTT_train.9k.csv": "video_id\nvideo0\nvideo2\nvideo4\n",
        "MSRVTT_train.7k.csv": "video_id\nvideo0\nvideo2\n",
        "MSRVTT_JSFUSION_test.csv": 'key,vid_key,video_id,sentence\nret0,msr3,video3,"a cat, asleep"\n',
    }
    return write(tmp_path, lists | {f"TrainValVideo/video{i}.mp4": None for i in (0, 1, 2, 3)})


def texts(source):
    return {r.id: r.target.texts for r in source.records}


def test_captions_of_a_video(root):
    source = check("msrvtt", "train", path=root, bad_limit=1)
    assert texts(source) == {"video0": ("a car is shown", "a man drives")}
    assert source.problems[0].endswith("the caption is empty")
    assert source.problems[1] == "video1: a text is empty"
    assert texts(check("msrvtt", "val", path=root)) == {"video2": ("a dog",)}
    assert texts(check("msrvtt", "test", path=root, bad_limit=0.5)) == {"video3": ("a cat",)}


def test_splits_of_retrieval(root):
    source = check("msrvtt", "train", path=root, edition="1k-A", bad_limit=0.4)
    assert list(texts(source)) == ["video0", "video2"] and "no video video4 in" in source.problems[0]
    assert list(texts(check("msrvtt", "train", path=root, edition="7k"))) == ["video0", "video2"]
    for edition in ("1k-A", "7k"):
        assert texts(check("msrvtt", "test", path=root, edition=edition)) == {"video3": ("a cat, asleep",)}


def test_what_is_wrong_is_reported(root):
    refuses("msrvtt", "test", "1 of 2 annotations cannot be used, more than", path=root)
    refuses("msrvtt", "val", "unknown split of MSR-VTT 1k-A 'val'", path=root, edition="1k-A")
    refuses("msrvtt", "test", "unknown edition of MSR-VTT '1k-B'", path=root, edition="1k-B")


def test_questions(tmp_path):
    row = {"answer": "couch", "category_id": 14, "id": 7, "question": "what is it on?", "video_id": 0}
    rows = [row, row | {"id": 8, "answer": "tv"}, row | {"id": 9, "answer": ""}, {"video_id": 0}]
    write(tmp_path, {"val_qa.json": json.dumps(rows), "video0.mp4": None})
    source = check("msrvtt_qa", "val", path=tmp_path, bad_limit=0.5)
    assert [(r.id, r.target) for r in source.records] == [
        ("video0_7", QuestionTarget("what is it on?", "couch")),
        ("video0_8", QuestionTarget("what is it on?", "tv")),
    ]
    assert [p.rpartition(": ")[2] for p in source.problems] == ["there is no 'question'", "a text is empty"]
    refuses("msrvtt_qa", "validate", "unknown split of msrvtt_qa 'validate'", path=tmp_path)
