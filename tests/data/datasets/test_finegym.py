"""FineGym in its published form: elements of events of videos."""

import json

import pytest
from official import check, clip, refuses, write

EVENT = "_-A2_gym0_1_E_000001_000004"
TIMES = {
    "_-A2_gym0_1": {
        "E_000001_000004": {
            "event": 1,
            "timestamps": [[1.5, 4.0]],
            "segments": {
                "A_0000_0001": {"stages": 1, "timestamps": [[0.25, 0.75]]},
                "A_0001_0002": {"stages": 3, "timestamps": [[1.0, 1.2], [1.2, 1.6], [1.6, 2.0]]},
            },
        },
        "E_000005_000006": {"event": 1, "timestamps": [[5.0, 6.0]], "segments": None},
    }
}
LISTS = {
    "finegym_annotation_info_v1.1.json": json.dumps(TIMES),
    "gym99_categories.txt": "".join(
        f"Clabel: {i}; set: {i // 2}; Glabel: {i + 7}; (VT) element {i}; tuck\n" for i in range(99)
    ),
    "gym99_train_element_v1.0.txt": "",
    "gym99_train_element_v1.1.txt": f"{EVENT}_A_0000_0001 98\n{EVENT}_A_0001_0002 3\n",
    "gym99_val_element.txt": f"{EVENT}_A_0009_0010 1\n_-A2_gym0_1_E_000005_000006_A_0000_0001 1\n"
    f"{EVENT}_A_0000_0001 99\n",
}


def test_elements_of_whole_videos(tmp_path):
    write(tmp_path, LISTS | {"videos/_-A2_gym0_1.mp4": clip(4.5)})
    source = check("finegym", "train", path=tmp_path)
    assert source.class_names[98] == "(VT) element 98; tuck" and len(source.class_names) == 99
    assert [(r.id, r.target.label, r.start, r.end) for r in source.records] == [
        (f"{EVENT}_A_0000_0001", 98, 1.75, 2.25),
        (f"{EVENT}_A_0001_0002", 3, 2.5, 3.5),
    ]
    assert {r.group for r in source} == {"_-A2_gym0_1"}


@pytest.mark.parametrize(
    "name, spans", [(EVENT, [(0.25, 0.75), (1.0, 2.0)]), (f"{EVENT}_A_0001_0002", [(None, None)])]
)
def test_elements_of_cut_videos(tmp_path, name, spans):
    write(tmp_path, LISTS | {f"cut/{name}.mp4": clip(2.5)})
    source = check("finegym", "train", path=tmp_path, bad_limit=0.5)
    assert [(r.start, r.end) for r in source.records] == spans


def test_what_is_wrong_is_reported(tmp_path):
    write(tmp_path, LISTS | {"_-A2_gym0_1.mp4": b""})
    wrong = (
        "line 1: no timestamps of A_0009_0010 .* line 2: no timestamps .* line 3: '.* 99' is not an element"
    )
    refuses("finegym", "val", wrong, path=tmp_path)
    refuses("finegym", "val", "no annotation file gym288_categories.txt", path=tmp_path, classes=288)
    refuses("finegym", "val", "unknown number of classes of FineGym '100'", path=tmp_path, classes=100)
    refuses("finegym", "test", "unknown split of finegym 'test'", path=tmp_path)
    write(tmp_path, {"gym99_categories.txt": "Clabel: 0; set: 1; Glabel: 1; (VT) x\n"})
    refuses("finegym", "val", "has not 99 lines such as", path=tmp_path)
