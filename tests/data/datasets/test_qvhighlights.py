"""QVHighlights in its published form."""

import json

from official import check, clip, refuses, write

from vidjax.data.targets import MomentsTarget

ID = "bP5KfdFJzC4_660.0_810.0"


def row(qid, windows, **more):
    base = {"qid": qid, "query": "A family is playing.", "duration": 3, "vid": ID}
    return json.dumps(base | {"relevant_windows": windows, "saliency_scores": [[4, 1, 1]]} | more)


def test_moments_of_a_query(tmp_path):
    lines = [
        row(8737, [[2, 4], [0, 1]]),
        row(8738, [[0, 2]], query=" "),
        row(8739, []),
        row(8740, [[0, 9]]),
        row(8741, [[0, 2]], vid="gone_0.0_3.0"),
        "{",
        row(8742, [[1, 2]]),
    ]
    write(tmp_path, {"highlight_val_release.jsonl": "\n".join(lines) + "\n", f"videos/{ID}.mp4": clip(3)})
    source = check("qvhighlights", "val", path=tmp_path, bad_limit=0.8)
    assert [(r.id, r.target, r.group) for r in source.records] == [
        ("8737", MomentsTarget("A family is playing.", ((0, 1), (2, 3)), 3), ID),
        ("8742", MomentsTarget("A family is playing.", ((1, 2),), 3), ID),
    ]
    assert [p.partition("release.jsonl, ")[2] or p for p in source.problems] == [
        "line 3: there are no moments",
        "line 4: the segment from 0 to 9 s is not within the video of 3 s",
        f"line 5: no video gone_0.0_3.0 in {tmp_path}",
        "line 6: not JSON (Expecting property name enclosed in double quotes)",
        "8738: a text is empty",
    ]
    refuses("qvhighlights", "val", "5 of 7 annotations", path=tmp_path)
    refuses("qvhighlights", "train", "no annotation file highlight_train_release.jsonl", path=tmp_path)
    refuses("qvhighlights", "dev", "unknown split of qvhighlights 'dev'", path=tmp_path)
    write(tmp_path, {"highlight_test_with_gt.jsonl": row(1, [[0, 2]])})
    write(tmp_path, {"highlight_test_release.jsonl": '{"qid": 1, "query": "no moments"}'})
    assert [r.id for r in check("qvhighlights", "test", path=tmp_path)] == ["1"]
