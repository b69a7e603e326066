"""THUMOS14 in its published form."""

import pytest
from official import check, clip, refuses, write

from vidjax.data.datasets.thumos14 import CLASSES
from vidjax.data.targets import Segment, SegmentsTarget

VAL = {
    "CliffDiving": "video_validation_0000051  0.5 1.5\nvideo_validation_0000051  2.0 4.1\n",
    "Diving": "video_validation_0000051  0.5 1.5\nvideo_validation_0000052  0.1 0.9\n",
    "Ambiguous": "video_validation_0000053  0.1 0.9\n",
}
TEST = {
    "BaseballPitch": "video_test_0000004  0.2 1.1\nvideo_test_0000004  9.2 9.8\n",
    "Billiards": "video_test_0000270  0.1 0.5\n",
    "VolleyballSpiking": "video_test_0001496  0.1 0.5\nvideo_test_0000004  0.7\n",
}


@pytest.fixture
def root(tmp_path):
    lists = {"TH14_Temporal_annotations_validation/annotation/Ambiguous_val.txt": VAL["Ambiguous"]}
    for name in CLASSES:
        lists[f"TH14_Temporal_annotations_validation/annotation/{name}_val.txt"] = VAL.get(name, "")
        lists[f"TH14_Temporal_Annotations_Test/annotations/annotation/{name}_test.txt"] = TEST.get(name, "")
    names = ("validation_0000051", "validation_0000052", "test_0000004", "test_0000270", "test_0001496")
    return write(tmp_path, lists | {f"videos/video_{name}.mp4": clip(3) for name in names})


def test_segments_of_a_video(root):
    source = check("thumos14", "train", path=root)
    assert len(source.class_names) == 20 and source.class_names == tuple(sorted(source.class_names))
    cliff, diving = (source.class_names.index(name) for name in ("CliffDiving", "Diving"))
    both = (Segment(0.5, 1.5, cliff), Segment(0.5, 1.5, diving), Segment(2, 3, cliff), Segment(2, 3, diving))
    assert [(r.id, r.target) for r in source.records] == [
        ("video_validation_0000051", SegmentsTarget(both, 3)),
        ("video_validation_0000052", SegmentsTarget((Segment(0.1, 0.9, diving),), 3)),
    ]
    assert source.problems == ()


def test_wrong_annotations(root):
    source = check("thumos14", "test", path=root, bad_limit=0.4)
    assert [r.id[-4:] for r in source.records] == ["0004", "0270", "1496"]
    assert source[0].target.segments == (Segment(0.2, 1.1, 0),)
    first, second = source.problems
    assert "Pitch_test.txt, line 2: the segment from 9.2 to 9.8 s is not within the video of 3 s" in first
    assert second.endswith("VolleyballSpiking_test.txt, line 2: ['0.7'] is not a start and an end")
    fewer = check("thumos14", "test", path=root, bad_limit=0.4, without_wrong=True)
    assert [r.id[-4:] for r in fewer.records] == ["0004"]


def test_what_is_wrong_is_reported(root):
    (root / "videos/video_validation_0000051.mp4").write_bytes(b"no video")
    refuses("thumos14", "train", "line 1: .*0051.mp4 is not a readable video", path=root)
    refuses("thumos14", "val", "unknown split of thumos14 'val'", path=root)
    (root / "TH14_Temporal_annotations_validation/annotation/Shotput_val.txt").unlink()
    refuses("thumos14", "train", "no annotation file Shotput_val.txt", path=root)
