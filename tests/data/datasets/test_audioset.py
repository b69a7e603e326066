"""AudioSet and VGGSound in their published form."""

import pytest
from official import check, clip, refuses, write

from vidjax.data.targets import ClassTarget, MultiLabelTarget

CLASSES = (
    'index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n2,/t/dd1,Hum\n'
)
HEADER = (
    "# Segments csv created Sun Mar  5 10:54:31 2017\n"
    "# num_ytids=3, num_segs=3, num_unique_labels=3, num_positive_labels=5\n"
    "# YTID, start_seconds, end_seconds, positive_labels\n"
)
BALANCED = (
    '--PJHxphWEs, 30.000, 40.000, "/t/dd1,/m/09x0r"\n--ZhevVpy1s, 5.000, 15.000, "/m/05zppz"\n'
    'gone, 0.000, 10.000, "/m/09x0r"\nother, 0.000, 10.000, "/m/00"\nshort, 0.000\n'
)
VGG = (
    "---g-f_I2yQ,1,people marching,test\n--0PQM4-hqg,30,waterfall burbling,train\n"
    '--U7joUcTCo,0,"engine accelerating, revving, vroom",train\ngone,1,people marching,train\n'
)


@pytest.fixture
def root(tmp_path):
    lists = {
        "class_labels_indices.csv": CLASSES,
        "balanced_train_segments.csv": HEADER + BALANCED,
        "unbalanced_train_segments.csv": HEADER + '---1_cCGK4M, 0.000, 10.000, "/m/05zppz"\n',
        "eval_segments.csv": HEADER,
        "vggsound.csv": VGG,
    }
    return write(tmp_path, lists)


@pytest.mark.parametrize(
    "first, second",
    [
        ("--PJHxphWEs.mp4", "Y--ZhevVpy1s.mkv"),
        ("--PJHxphWEs_30.mp4", "--ZhevVpy1s_000005.mp4"),
        ("Y--PJHxphWEs_30_40.mp4", "--ZhevVpy1s_000005_000015.mp4"),
        ("--PJHxphWEs_30.000_40.000.mp4", "train/--ZhevVpy1s_5000_15000.mp4"),
    ],
)
def test_sounds_of_a_segment(root, first, second):
    write(root, {first: None, second: None, "---1_cCGK4M_0_10.mp4": None})
    source = check("audioset", "balanced_train", path=root, bad_limit=0.6)
    assert source.class_names == ("Speech", "Male speech, man speaking", "Hum")
    assert [(r.id, r.target, r.start) for r in source.records] == [
        ("--PJHxphWEs", MultiLabelTarget((0, 2)), None),
        ("--ZhevVpy1s", MultiLabelTarget((1,)), None),
    ]
    assert [r.video for r in source.records] == [str(root / first), str(root / second)]
    assert "line 6: no video gone or gone_0 or" in source.problems[0]
    assert source.problems[1].endswith("line 7: unknown class '/m/00'")
    assert source.problems[2].endswith("line 8: end '' is not a number of at least 0")
    both = check("audioset", "train", path=root, bad_limit=0.6)
    assert [r.id for r in both.records] == ["--PJHxphWEs", "--ZhevVpy1s", "---1_cCGK4M"]


def test_segments_of_whole_videos(root):
    write(root, {"--PJHxphWEs.mp4": clip(40, fps=2), "--ZhevVpy1s.mp4": clip(15, fps=2)})
    source = check("audioset", "balanced_train", path=root, trimmed=False, bad_limit=0.6)
    assert [(r.start, r.end) for r in source.records] == [(30, 40), (5, 15)]
    refuses("audioset", "train", "4 of 6 annotations", path=root)
    refuses("audioset", "eval", "list no video of this split", path=root)
    refuses("audioset", "test", "unknown split of audioset 'test'", path=root)


@pytest.mark.parametrize(
    "names",
    [
        ("--0PQM4-hqg_000030.mp4", "--U7joUcTCo_000000.mp4"),
        ("--0PQM4-hqg_30.mp4", "video/--U7joUcTCo.mp4"),
    ],
)
def test_class_of_a_clip(root, names):
    write(root, dict.fromkeys(names))
    source = check("vggsound", "train", path=root, bad_limit=0.4)
    assert source.class_names == (
        "engine accelerating, revving, vroom",
        "people marching",
        "waterfall burbling",
    )
    assert [(r.id, r.target, r.video) for r in source.records] == [
        ("--0PQM4-hqg_000030", ClassTarget(2), str(root / names[0])),
        ("--U7joUcTCo_000000", ClassTarget(0), str(root / names[1])),
    ]
    assert "line 4: no video gone_000001 or gone_1 or gone in" in source.problems[0]
    refuses("vggsound", "test", "none is left: .*line 1: no video ---g-f_I2yQ_000001", path=root)
    refuses("vggsound", "val", "unknown split of vggsound 'val'", path=root)


def test_clips_of_whole_videos(root):
    write(root, {"--0PQM4-hqg.mp4": clip(41, fps=2), "--U7joUcTCo.mp4": clip(10, fps=2)})
    source = check("vggsound", "train", path=root, trimmed=False, bad_limit=0.4)
    assert [(r.start, r.end) for r in source.records] == [(30, 40), (0, 10)]
