"""UCF101 in its published form."""

from official import check, refuses, write

FILES = {
    "ucfTrainTestlist/classInd.txt": "1 ApplyEyeMakeup\n2 Archery\n10 HandstandPushups\n",
    "ucfTrainTestlist/trainlist02.txt": "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi 1\r\n"
    "HandstandPushups/v_HandStandPushups_g08_c02.avi 10\r\n",
    "ucfTrainTestlist/testlist02.txt": "Archery/v_Archery_g02_c07.avi\n",
    "UCF-101/ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi": None,
    "UCF-101/HandstandPushups/v_HandStandPushups_g08_c02.avi": None,
    "flat/v_Archery_g02_c07.mp4": None,
}


def test_lists_of_a_fold(tmp_path):
    write(tmp_path, FILES)
    train = check("ucf101", "train", path=tmp_path, fold=2)
    assert train.class_names == ("ApplyEyeMakeup", "Archery", "HandstandPushups") and not train.directional
    assert [(r.id, r.target.label, r.group) for r in train.records] == [
        ("ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi", 0, "v_ApplyEyeMakeup_g01"),
        ("HandstandPushups/v_HandStandPushups_g08_c02.avi", 2, "v_HandStandPushups_g08"),
    ]
    (test,) = check("ucf101", "test", path=tmp_path, fold=2).records
    assert test.target.label == 1 and test.video == str(tmp_path / "flat/v_Archery_g02_c07.mp4")


def test_what_is_wrong_is_reported(tmp_path):
    lists = {"testlist01.txt": "Archery/v_Archery_g09_c01.avi\nRowing/v_Rowing_g01_c01.avi\nArchery/x.avi\n"}
    write(tmp_path, FILES | lists | {"videos/v_Archery_g09_c01.avi": None})
    refuses(
        "ucf101", "test", "testlist01.txt, line 2: unknown class 'Rowing'; .* line 3: 'Arch", path=tmp_path
    )
    assert len(check("ucf101", "test", path=tmp_path, bad_limit=0.7)) == 1
    refuses("ucf101", "train", "no annotation file trainlist03.txt", path=tmp_path, fold=3)
    refuses("ucf101", "train", "unknown fold of UCF101 '4'", path=tmp_path, fold=4)
    refuses("ucf101", "val", "unknown split of ucf101 'val'", path=tmp_path)
