"""Sports-1M in its published form."""

from official import check, refuses, write

from vidjax.data.targets import MultiLabelTarget

FILES = {
    "labels.txt": "boomerang\nice skating\ntable hockey\n",
    "original/train_partition.txt": "https://www.youtube.com/watch?v=UDqivjS-lpI 2,0\n"
    "http://www.youtube.com/watch?v=_8Vy3dlHg2w 1\nhttp://www.youtube.com/watch?v=gone 1\n",
    "original/test_partition.txt": "http://www.youtube.com/watch?v=x 3\nx 1\n",
    "videos/UDqivjS-lpI.mp4": None,
    "_8Vy3dlHg2w.webm": None,
}


def test_lists_of_a_split(tmp_path):
    write(tmp_path, FILES)
    first = check("sports1m", "train", path=tmp_path)
    assert first.class_names == ("boomerang", "ice skating", "table hockey")
    assert [(r.id, r.target.label) for r in first.records] == [("UDqivjS-lpI", 2), ("_8Vy3dlHg2w", 1)]
    assert "train_partition.txt, line 3: no video gone in" in first.problems[0]
    several = check("sports1m", "train", MultiLabelTarget, path=tmp_path)
    assert [r.target.labels for r in several.records] == [(0, 2), (1,)]


def test_what_is_wrong_is_reported(tmp_path):
    write(tmp_path, FILES)
    wrong = "line 1: '.*x 3' is not the address of a video and labels below 3; .* line 2: 'x 1' is not"
    refuses("sports1m", "test", wrong, path=tmp_path)
    refuses("sports1m", "val", "unknown split of sports1m 'val'", path=tmp_path)
