"""HMDB51 in its published form."""

from official import check, refuses, write

SPLITS = "testTrainMulti_7030_splits"
FILES = {
    f"{SPLITS}/brush_hair_test_split1.txt": "April_09_brush_hair_u_nm_np1_ba_goo_0.avi 1 \r\n"
    "a#b_(x)_brush_hair_1.avi 2 \r\nunused_brush_hair.avi 0 \r\n",
    f"{SPLITS}/wave_test_split1.txt": "same.avi 1 \n",
    f"{SPLITS}/wave_test_split2.txt": "same.avi 2 \n",
    "brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi": None,
    "brush_hair/a#b_(x)_brush_hair_1.avi": None,
    "brush_hair/same.avi": None,
    "wave/same.avi": None,
}


def test_lists_of_a_fold(tmp_path):
    write(tmp_path, FILES)
    train = check("hmdb51", "train", path=tmp_path)
    assert train.class_names == ("brush_hair", "wave")
    assert [(r.id, r.target.label) for r in train.records] == [
        ("brush_hair/April_09_brush_hair_u_nm_np1_ba_goo_0.avi", 0),
        ("wave/same.avi", 1),
    ]
    assert train.records[1].video == str(tmp_path / "wave/same.avi")
    assert [r.id for r in check("hmdb51", "test", path=tmp_path).records] == [
        "brush_hair/a#b_(x)_brush_hair_1.avi"
    ]
    assert len(check("hmdb51", "test", path=tmp_path, fold=2)) == 1


def test_what_is_wrong_is_reported(tmp_path):
    write(tmp_path, FILES | {f"{SPLITS}/wave_test_split1.txt": "same.avi 3\ngone.avi 1\nsame.avi 1\n"})
    refuses(
        "hmdb51",
        "train",
        "split1.txt, line 1: 'same.avi 3' does not end in 0, 1 or 2; .*line 2: no video wave/gone.avi",
        path=tmp_path,
    )
    refuses("hmdb51", "train", "no annotation file .*_test_split3.txt", path=tmp_path, fold=3)
    refuses("hmdb51", "train", "unknown fold of HMDB51 '0'", path=tmp_path, fold=0)
    refuses("hmdb51", "val", "unknown split of hmdb51 'val'", path=tmp_path)
