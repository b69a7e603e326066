"""Targets: their form in JSON, and what is malformed."""

import dataclasses
import pickle

import numpy as np
import pytest

from vidjax.data.clips import ClipReader
from vidjax.data.datasets import ListSource, check_mirror, mirror_by_name
from vidjax.data.decode import DecodeError
from vidjax.data.record import Record
from vidjax.data.targets import (
    AudioTarget,
    Box,
    BoxesTarget,
    ClassTarget,
    DenseTextTarget,
    FlowTarget,
    MomentsTarget,
    MultiLabelTarget,
    QuestionTarget,
    Segment,
    SegmentsTarget,
    TextTarget,
    Track,
    TracksTarget,
    from_json,
    mirrored,
    problem,
    to_json,
)
from vidjax.errors import UserError

GOOD = (
    ClassTarget(3),
    MultiLabelTarget((1, 4)),
    MultiLabelTarget(()),
    SegmentsTarget((Segment(0.0, 1.5, 2), Segment(1.0, 4.0, 0)), 4.0),
    TextTarget(("a dog runs", "the dog is running")),
    DenseTextTarget(((0.0, 1.0, ("a dog",)),), 2.0),
    QuestionTarget("who runs?", "a dog", ("a cat", "a dog"), "first"),
    MomentsTarget("a dog runs", ((0.5, 1.0),), 2.0),
    BoxesTarget(902.0, (Box((0.0, 0.1, 0.5, 1.0), (3, 11), 7), Box((0.2, 0.2, 0.3, 0.3), (3,)))),
    BoxesTarget(902.0, ()),
)
BAD = (
    (
        SegmentsTarget((Segment(1.0, 9.0, 0),), 4.0),
        "the segment from 1 to 9 s is not within the video of 4 s",
    ),
    (SegmentsTarget((Segment(2.0, 2.0, 0),), 4.0), "from 2 to 2 s"),
    (SegmentsTarget((Segment(-1.0, 2.0, 0),), 4.0), "from -1 to 2 s"),
    (MomentsTarget("x", ((0.5, 3.0),), 2.0), "from 0.5 to 3 s"),
    (MomentsTarget(" ", ((0.5, 1.0),), 2.0), "a text is empty"),
    (TextTarget(()), "a text is empty"),
    (TextTarget(("a", "")), "a text is empty"),
    (DenseTextTarget(((0.0, 1.0, ()),), 2.0), "a text is empty"),
    (DenseTextTarget(((0.0, 3.0, ("a",)),), 2.0), "from 0 to 3 s"),
    (QuestionTarget("", "a"), "a text is empty"),
    (
        BoxesTarget(1.0, (Box((0.1, 0.1, 0.5, 1.2), (0,)),)),
        "the box (0.1, 0.1, 0.5, 1.2) is not within the frame of 1x1",
    ),
    (BoxesTarget(1.0, (Box((-0.1, 0.1, 0.5, 0.9), (0,)),)), "the box (-0.1, 0.1, 0.5, 0.9)"),
    (BoxesTarget(1.0, (Box((0.5, 0.1, 0.5, 0.9), (0,)),)), "the box (0.5, 0.1, 0.5, 0.9)"),
    (QuestionTarget("who?", "a", ("b", "c")), "the answer 'a' is not one of the options"),
)


@pytest.mark.parametrize("target", GOOD)
def test_targets_round_trip_through_json(target):
    import json

    assert from_json(json.loads(json.dumps(to_json(target)))) == target
    assert problem(target) is None


def test_targets_that_json_cannot_hold_are_reported():
    with pytest.raises(UserError, match="targets of type FlowTarget cannot be stored"):
        to_json(FlowTarget(None))
    with pytest.raises(UserError, match="unknown target"):
        from_json({"type": "SoundTarget"})


@pytest.mark.parametrize("target, message", BAD)
def test_malformed_targets_make_a_video_unreadable(target, message):
    assert message in problem(target)
    with pytest.raises(DecodeError, match="odd: "):
        ClipReader(None).train(Record(b"", target, "odd"), np.random.default_rng(0))


def test_tracks_are_within_the_frame():
    class Stored:
        def __init__(self, box):
            self.box = box

        def read(self):
            n = np.zeros((1, 2), bool)
            return (Track(0, np.zeros(1), np.array([self.box], float), n, np.ones(1)),)

    (track,) = TracksTarget(Stored((0, 10, 320, 240))).read((240, 320))
    assert track.boxes.tolist() == [[0, 10, 320, 240]]
    with pytest.raises(DecodeError, match=r"box \(0, 10, 240, 320\) is not within the frame of 320x240"):
        TracksTarget(Stored((0, 10, 240, 320))).read((240, 320))


MIRROR = (0, 2, 1, 4, 3)


@dataclasses.dataclass(frozen=True)
class Reference:
    tracks: tuple

    def read(self):
        return self.tracks


@pytest.mark.parametrize(
    "target, image",
    [
        (ClassTarget(1), ClassTarget(2)),
        (ClassTarget(0), ClassTarget(0)),
        (ClassTarget(-1), ClassTarget(-1)),  # malformed, which the task reports
        (MultiLabelTarget((0, 2, 3)), MultiLabelTarget((0, 1, 4))),
        (
            SegmentsTarget((Segment(0.0, 1.0, 3), Segment(0.5, 2.0, 0)), 3.0),
            SegmentsTarget((Segment(0.0, 1.0, 4), Segment(0.5, 2.0, 0)), 3.0),
        ),
        (
            BoxesTarget(1.0, (Box((0.1, 0.2, 0.3, 0.4), (2, 3), 7),)),
            BoxesTarget(1.0, (Box((0.1, 0.2, 0.3, 0.4), (1, 4), 7),)),
        ),
        (AudioTarget(None, (4, 1)), AudioTarget(None, (3, 2))),
        (FlowTarget(None), FlowTarget(None)),
        (None, None),
    ],
)
def test_mirrored_labels(target, image):
    assert mirrored(target, MIRROR) == image
    assert mirrored(image, MIRROR) == target


def test_mirrored_tracks_are_read_on_demand():
    tracks = tuple(Track(k, np.zeros(1), np.zeros((1, 4)), np.eye(1), np.ones(1)) for k in (0, 1, 4))
    image = pickle.loads(pickle.dumps(mirrored(TracksTarget(Reference(tracks)), MIRROR)))
    assert [t.label for t in image.tracks.read()] == [0, 2, 3]
    assert image.tracks.read()[0].boxes.shape == (1, 4)


def test_text_cannot_be_mirrored():
    with pytest.raises(UserError, match=r"TextTarget have no labels to mirror: set data\.flip=False"):
        mirrored(TextTarget(("a car turns left",)), MIRROR)


@pytest.mark.parametrize(
    "names, mirror",
    [
        (
            (
                "Pulling something from left to right",
                "Holding something",
                "Pulling something from right to left",
                "Turning the camera right while filming something",
                "Turning something upside down",
                "Turning the camera left while filming something",
            ),
            (2, 1, 0, 5, 4, 3),
        ),
        (("Swiping Left", "Swiping Right", "Thumb Up"), (1, 0, 2)),
        (("Turning Hand Counterclockwise", "Turning Hand Clockwise"), (1, 0)),
        (("turn_left", "turn_right", "stop"), (1, 0, 2)),
        (("LEFT", "RIGHT"), (1, 0)),
        (("walk", "run"), None),
        ((), None),
        (("copyright", "copyleft"), None),  # not the words
        (("Swiping Left", "Swiping right"), None),
        (
            ("Swiping Left", "Swiping Right", "Swiping Left Twice"),
            None,
        ),  # what the last one becomes is unknown
        (("left", "right", "right"), None),
        (("Turning clockwise", "Swiping Left", "Swiping Right"), None),
    ],
)
def test_names_are_paired_by_left_and_right(names, mirror):
    assert mirror_by_name(names) == mirror_by_name(list(names)) == mirror


def test_a_mirror_is_a_permutation():
    check_mirror(ListSource((), ("a", "b"), mirror=(1, 0)))
    for wrong in ((0, 0), (0,), (1, 2)):
        with pytest.raises(UserError, match="not a permutation of the 2 labels"):
            check_mirror(ListSource((), ("a", "b"), mirror=wrong))
