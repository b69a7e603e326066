"""Ego4D natural language queries and EgoSchema in their published form."""

import json

import pytest
from official import check, clip, refuses, write

from vidjax.data.targets import MomentsTarget, QuestionTarget

CLIP = {"clip_uid": "c-1", "video_start_sec": 100.0, "video_end_sec": 103.0, "clip_start_sec": 0}


def query(start, end, text):
    return {
        "clip_start_sec": start,
        "clip_end_sec": end,
        "video_start_sec": 100 + start,
        "video_end_sec": 100 + end,
        "template": "Objects: Where is object X before / after event Y?",
        "query": text,
    }


@pytest.fixture
def nlq(tmp_path):
    first = [query(0.5, 1.5, "Where was  the knife? "), query(1, 1, "When?"), query(0, 1, None)]
    second = [query(2, 3.01, "What did I pour?"), {"clip_start_sec": 0, "clip_end_sec": 1}]
    annotations = [
        {"language_queries": first, "annotation_uid": "a"},
        {"language_queries": second, "annotation_uid": "b"},
    ]
    gone = {**CLIP, "clip_uid": "gone", "annotations": [{**annotations[0], "language_queries": first[:1]}]}
    videos = [{"video_uid": "v", "clips": [{**CLIP, "annotations": annotations}, gone]}, {"video_uid": "w"}]
    content = json.dumps({"version": "v2", "videos": videos})
    return write(tmp_path, {"v2/annotations/nlq_val.json": content, "v2/clips/c-1.mp4": clip(3)})


def test_queries_of_a_clip(nlq):
    source = check("ego4d_nlq", "val", path=nlq, bad_limit=1)
    assert [(r.id, r.target, r.group) for r in source.records] == [
        ("c-1_a_0", MomentsTarget("Where was the knife?", ((0.5, 1.5),), 3), "c-1"),
        ("c-1_b_0", MomentsTarget("What did I pour?", ((2, 3),), 3), "c-1"),
    ]
    shown = [p.partition("nlq_val.json, ")[2] or p for p in source.problems]
    assert [p.replace("language_queries", "queries") for p in shown] == [
        "item 1, clips 0, annotations 0, queries 1: the segment from 1 to 1 s is not within the video of 3 s",
        "item 1, clips 0, annotations 0, queries 2: query 'None' is not text",
        "item 1, clips 0, annotations 1, queries 1: there is no 'query'",
        f"item 1, clips 1, annotations 0, queries 0: no video gone in {nlq}",
        "item 2: there is no 'clips'",
    ]
    refuses("ego4d_nlq", "val", "5 of 6 annotations", path=nlq)
    refuses("ego4d_nlq", "test", "unknown split of ego4d_nlq 'test'", path=nlq)


def question(uid):
    return {"q_uid": uid, "google_drive_id": "x", "question": f"Why {uid}?"} | {
        f"option {i}": f"because {i}" for i in range(5)
    }


def test_questions_with_answers(tmp_path):
    questions = json.dumps([question(uid) for uid in ("u1", "unknown", "u2", "u3")])
    answers = json.dumps({"u1": 3, "u2": 0, "u3": 5})
    write(tmp_path, {"questions.json": questions, "subset_answers.json": answers})
    write(tmp_path, {"videos/u1.mp4": None, "videos/u2.mp4": None, "videos/u3.mp4": None})
    source = check("egoschema", "subset", path=tmp_path, bad_limit=0.3)
    options = tuple(f"because {i}" for i in range(5))
    assert [(r.id, r.target) for r in source.records] == [
        ("u1", QuestionTarget("Why u1?", "because 3", options)),
        ("u2", QuestionTarget("Why u2?", "because 0", options)),
    ]
    assert source.problems[0].endswith("questions.json, item 4: the answer 5 is not from 0 to 4")
    refuses("egoschema", "test", "unknown split of egoschema 'test'", path=tmp_path)
    (tmp_path / "subset_answers.json").write_text("[]")
    refuses("egoschema", "subset", "subset_answers.json is not an object", path=tmp_path)
