"""Targets: their form in JSON, and what is malformed."""

import numpy as np
import pytest

from vidjax.data.clips import ClipReader
from vidjax.data.decode import DecodeError
from vidjax.data.record import Record
from vidjax.data.targets import (
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
