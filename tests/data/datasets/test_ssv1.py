"""Something-Something v1 and Jester: lists and folders of frames in their published form."""

import io

import numpy as np
import pytest
from official import check, refuses, write
from PIL import Image

from vidjax.config_schema import schema
from vidjax.data.clips import ClipReader
from vidjax.data.decode import DecodeError
from vidjax.data.frame_folder import FrameFolder


def jpeg(value, size=(24, 16)):
    file = io.BytesIO()
    Image.new("RGB", size, (value, 0, 0)).save(file, "jpeg", quality=100)
    return file.getvalue()


def frames(folder, count=3):
    return {f"{folder}/{i:05}.jpg": jpeg(20 * i) for i in range(1, count + 1)}


@pytest.mark.parametrize(
    "name, prefix, level",
    [
        ("ssv1", "something-something-v1", "20bn-something-something-v1/"),
        ("jester", "jester-v1", "data/20bn-jester-v1/"),
        ("jester", "jester-v1", ""),
    ],
)
def test_lists_and_frames(tmp_path, name, prefix, level):
    lists = {
        f"{prefix}-labels.csv": "Swiping Left\nDoing other things\nSwiping Right\n",
        f"{prefix}-train.csv": "gone;Swiping Left\n34870;Doing other things\n5;Swiping Left\n",
        f"{prefix}-validation.csv": "34870;Swiping\n5;Swiping Left\n",
    }
    write(tmp_path, lists | frames(f"{level}34870") | frames(f"{level}5"))
    train = check(name, "train", path=tmp_path, bad_limit=0.4)
    assert train.directional and train.class_names == (
        "Swiping Left",
        "Doing other things",
        "Swiping Right",
    )
    assert train.mirror == (2, 1, 0)
    assert [(r.id, r.target.label) for r in train.records] == [("34870", 1), ("5", 0)]
    assert train.records[1].video == FrameFolder(str(tmp_path / f"{level}5"), 12.0)
    assert "line 1: no folder of frames gone in" in train.problems[0]
    refuses(name, "val", "validation.csv, line 1: unknown class 'Swiping'", path=tmp_path)
    refuses(name, "test", "unknown split of .* 'test'", path=tmp_path)


def test_frames_are_read_in_order(tmp_path):
    write(tmp_path, frames("a", 12) | {"a/Thumbs.db": b"", "a/.00000.jpg": b""})
    with FrameFolder(str(tmp_path / "a"), 12.0).open() as video:
        assert video.num_frames == 12 and video.times[-1] == pytest.approx(11 / 12)
        clip = video.frames(np.array([10, 0, 10]))
        assert clip.shape == (3, 16, 24, 3) and clip.dtype == np.uint8
        np.testing.assert_allclose(clip[:, 0, 0, 0], [220, 20, 220], atol=2)
        luma = video.frames(np.array([10]), grey=True)
        np.testing.assert_allclose(luma, np.full((1, 16, 24, 1), 0.299 * 220), atol=2)


def test_frames_that_cannot_be_read(tmp_path):
    write(tmp_path, frames("a", 2) | {"a/00003.jpg": b"x", "a/00004.jpg": jpeg(1, (8, 8)), "b/x.txt": b""})
    video = FrameFolder(str(tmp_path / "a"), 12.0).open()
    with pytest.raises(DecodeError, match=r"00003.jpg: not a readable image"):
        video.frames(np.array([0, 2]))
    with pytest.raises(DecodeError, match="the frames differ in size"):
        video.frames(np.array([0, 3]))
    with pytest.raises(DecodeError, match=r"b: no frames \(.jpg"):
        FrameFolder(str(tmp_path / "b"), 12.0).open()
    with pytest.raises(DecodeError, match="c: No such file"):
        FrameFolder(str(tmp_path / "c"), 12.0).open()


def test_frame_rate_of_a_clip(tmp_path):
    """Half of the 12 frames per second are every other frame."""
    lists = {"jester-v1-labels.csv": "a\n", "jester-v1-train.csv": "5;a\n"}
    (record,) = check("jester", "train", path=write(tmp_path, lists | frames("x/5", 12))).records
    cfg = schema().data
    cfg.update(frames=6, stride=1.0, target_fps=6.0, size=16, short_side=16)
    (view,) = ClipReader(cfg).views(record, 1, 1)
    np.testing.assert_allclose(view.inputs["rgb"][:, 8, 8, 0], np.arange(20, 260, 40), atol=3)
    with pytest.raises(DecodeError, match="5 is a folder of frames"):
        record.encoded()
