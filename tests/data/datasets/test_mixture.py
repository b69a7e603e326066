"""Tests of mixtures: shares, epochs, labels, mirroring, evaluation, and independence of hosts and workers."""

import collections
import dataclasses
import functools

import jax
import ml_collections
import numpy as np
import pytest

from vidjax.config import resolve
from vidjax.config_schema import schema
from vidjax.data import pipeline, targets
from vidjax.data.datasets import ListSource, load_source, mixture
from vidjax.data.datasets.synthetic_motion import encode
from vidjax.data.order import order_of
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError
from vidjax.train.experiment import build

MOTION = dict(name="synthetic_motion", size=32, frames=8, train=24, val=12, test=12)
OTHER = dict(MOTION, seed=1, train=36)
SCENES = dict(name="synthetic_scenes", size=32, seconds=3.0, fps=8, train=7, val=2, test=2)


def label(record, clip, rng, train):
    return {"label": np.int32(record.target.label)}


def config(**changes):
    small = dict(frames=4, size=16, short_side=20, crop="center", grey=True, bad_limit=0.5)
    return ml_collections.ConfigDict(schema().data.to_dict() | small | changes)


@functools.cache
def motions():
    """Returns the training split of two datasets of 24 and 36 videos with the weights 3 and 1."""
    return load_source("mixture", "train", parts=[dict(MOTION, weight=3), dict(OTHER, weight=1)])


@pytest.fixture
def fakes(monkeypatch):
    """Makes `load_source` of a part return a source of a name without reading anything."""
    sources = {}

    def load(name, split, target=None, **options):
        return sources[name, split]

    monkeypatch.setattr(mixture, "load_source", load)
    return sources


def fake(count, classes=("a", "b"), directional=False, kind=ClassTarget):
    records = (Record(b"", kind(i % len(classes)), f"v{i}") for i in range(count))
    return ListSource(tuple(records), classes, directional)


def drawn(source, count, seed=0):
    return [next(source.order.candidates((seed,), g)) for g in range(count)]


@pytest.mark.parametrize(
    "weights", [(1, 1), (3, 1), (0.7, 0.2, 0.1), (1, 0, 2), (1, 1000), (2, 2, 5, 10, 100)]
)
def test_shares_are_exact_at_every_sample(weights):
    shares = mixture._shares([dict(name="x", weight=w) for w in weights], [None] * len(weights))
    order = mixture.Interleaved((), (), tuple(shares), 1)
    counts = np.zeros(len(weights), int)
    for g in range(2 * sum(shares)):
        part, n = order.place(g)
        assert n == counts[part]
        counts[part] += 1
        assert np.abs(counts - (g + 1) * np.array(weights) / sum(weights)).max() < 2
    assert [*counts] == [2 * share for share in shares]
    assert order.place(10**15)[1] == pytest.approx(
        10**15 * weights[order.place(10**15)[0]] / sum(weights), abs=3
    )


def test_without_weights_an_epoch_uses_every_record_once(fakes):
    fakes["a", "train"], fakes["b", "train"] = fake(30), fake(7)
    source = load_source("mixture", "train", parts=[dict(name="a"), dict(name="b")])
    assert order_of(source).epoch == len(source) == 37
    order = np.reshape(drawn(source, 5 * 37), (5, 37))
    np.testing.assert_array_equal(np.sort(order), np.tile(np.arange(37), (5, 1)))
    assert len({tuple(row) for row in order}) == 5
    assert np.ptp(np.flatnonzero(order[0] >= 30)) > 20  # interleaved, not one after the other


def test_each_part_has_epochs_of_its_own(fakes):
    fakes["a", "train"], fakes["b", "train"] = fake(30), fake(7)
    parts = [dict(name="a", weight=1), dict(name="b", weight=1)]
    source = load_source("mixture", "train", parts=parts, epoch=14)
    assert order_of(source).epoch == 14
    found = np.array(drawn(source, 140))
    small = found[found >= 30].reshape(10, 7)  # of 140 samples, 70
    np.testing.assert_array_equal(np.sort(small), np.tile(np.arange(30, 37), (10, 1)))
    assert len({tuple(row) for row in small}) == 10
    large = found[found < 30][:60].reshape(2, 30)
    np.testing.assert_array_equal(np.sort(large), np.tile(np.arange(30), (2, 1)))
    assert drawn(source, 140, seed=1) != [*found]


def test_part_of_weight_zero_is_only_evaluated(fakes):
    fakes.update({(n, s): fake(c, (n,)) for n, c in (("a", 5), ("b", 4)) for s in ("train", "val")})
    parts = [dict(name="a", weight=1), dict(name="b", weight=0)]
    train, val = (load_source("mixture", split, parts=parts) for split in ("train", "val"))
    assert train.class_names == val.class_names == ("a", "b")
    assert order_of(train).epoch == 5 and len(val) == 9
    assert {*drawn(train, 50)} == {*range(5)}


def test_corrupt_videos_are_replaced_by_others_of_their_part(fakes):
    fakes["a", "train"], fakes["b", "train"] = fake(30), fake(7)
    source = load_source("mixture", "train", parts=[dict(name="a"), dict(name="b")])
    for g in range(37):
        candidates = [*source.order.candidates((0,), g)]
        assert sorted(candidates) == [*range(37)]
        part = candidates[0] < 30
        assert all((i < 30) == part for i in candidates[: 30 if part else 7])


def test_classes_of_the_same_name_are_one(fakes):
    fakes["a", "train"] = fake(4, ("run", "jump"))
    fakes["b", "train"] = fake(6, ("dive", "run", "swim"))
    source = load_source("mixture", "train", parts=[dict(name="a"), dict(name="b")])
    assert source.class_names == ("run", "jump", "dive", "swim")
    assert [r.target.label for r in source] == [0, 1, 0, 1, 2, 0, 3, 2, 0, 3]
    assert [r.id for r in source][3:5] == ["a/v3", "b/v0"]
    with pytest.raises(UserError, match="part a has no class 'dive'"):
        load_source("mixture", "train", parts=[dict(name="a"), dict(name="b")], classes="equal")


def test_labels_of_all_targets_are_replaced():
    new, box = [5, 3], (0.0, 0.0, 1.0, 1.0)
    pairs = [
        (targets.MultiLabelTarget((0, 1)), targets.MultiLabelTarget((3, 5))),
        (
            targets.SegmentsTarget((targets.Segment(0, 1, 1),), 2.0),
            targets.SegmentsTarget((targets.Segment(0, 1, 3),), 2.0),
        ),
        (
            targets.BoxesTarget(1.0, (targets.Box(box, (0, 1), 7),)),
            targets.BoxesTarget(1.0, (targets.Box(box, (3, 5), 7),)),
        ),
        (targets.AudioTarget(None, (1, 0)), targets.AudioTarget(None, (3, 5))),
        (ClassTarget(-1), ClassTarget(-1)),
        (ClassTarget(2), ClassTarget(-1)),
        (targets.TextTarget(("x",)), targets.TextTarget(("x",))),
        (None, None),
    ]
    for target, expected in pairs:
        assert targets.relabeled(target, new) == expected
    tracks = targets.TracksTarget(None)
    assert targets.relabeled(tracks, [0, 1]) is tracks
    with pytest.raises(UserError, match="tracks"):
        targets.relabeled(tracks, new)


def test_only_parts_with_directional_classes_are_not_mirrored(fakes):
    video = np.zeros((8, 40, 40, 3), np.uint8)
    video[:, :, 20:] = 255
    record = Record(encode(video, 10), ClassTarget(0), "v")
    for name, classes, directional in (
        ("a", ("left",), True), ("b", ("left", "up"), False), ("c", ("x",), False),
    ):  # fmt: skip
        fakes[name, "train"] = ListSource((record,), classes, directional)
    source = load_source("mixture", "train", parts=[dict(name=n, weight=1) for n in "abc"])
    batches = pipeline.train_batches(source, config(), 60, 0)
    batch = next(batches)
    mirrored = batch["inputs"]["rgb"][:, 0, 0, 0, 0] > 128
    assert {*batch["index"][mirrored]} == {2}

    fakes["a", "train"] = ListSource((record,), ("left", "right"), True, mirror=(1, 0))
    source = load_source("mixture", "train", parts=[dict(name=n, weight=1) for n in "abc"])
    batch = next(pipeline.train_batches(source, config(), 60, 0, example=label))
    mirrored = batch["inputs"]["rgb"][:, 0, 0, 0, 0] > 128
    assert {*batch["index"][mirrored]} == {0, 1, 2}
    expected = np.where((batch["index"] < 2) & mirrored, 1, np.where(batch["index"] < 2, 0, 3))
    np.testing.assert_array_equal(batch["targets"]["label"], expected)


def test_mirrored_labels_are_those_of_the_parts(fakes):
    def mirror(**parts):
        for name, (classes, directional, mirror) in parts.items():
            fakes[name, "train"] = dataclasses.replace(fake(4, classes, directional), mirror=mirror)
        return load_source("mixture", "train", parts=[dict(name=name) for name in parts]).mirror

    sides = (("left", "right"), True, (1, 0))
    assert mirror(a=sides) == (1, 0)
    assert mirror(a=(("up",), False, None), b=sides, c=(("right", "jump"), False, None)) == (0, 2, 1, 3)
    assert mirror(a=sides, b=(("right", "up", "left"), True, (2, 1, 0))) == (1, 0, 2)
    assert mirror(a=sides, b=(("right", "up"), True, (0, 1))) is None  # they disagree
    assert mirror(a=sides, b=(("down",), True, None)) is None
    assert mirror(a=(("up",), False, None)) is None


def test_evaluation_reads_the_split_of_every_part_once(fakes):
    fakes.update({(n, "train"): fake(9) for n in "abc"})
    fakes["a", "val"], fakes["b", "test"] = fake(3), fake(2)
    parts = [
        dict(name="a"), dict(name="b", splits=dict(val="test")), dict(name="c", splits=dict(val=None)),
        dict(name="a"),
    ]  # fmt: skip
    source = load_source("mixture", "val", parts=parts)
    assert [r.id for r in source] == [
        *("a/v0", "a/v1", "a/v2", "b/v0", "b/v1"), *("a-2/v0", "a-2/v1", "a-2/v2"),
    ]  # fmt: skip


def test_evaluation_passes_every_record_once():
    batches = pipeline.eval_batches(motions(), config(), 16, 1, 1, example=label)
    index = np.concatenate([b["index"][b["mask"]] for b in batches])
    np.testing.assert_array_equal(index, np.arange(60))


def join(batches):
    return jax.tree.map(lambda *x: np.concatenate(x), *batches)


def test_stream_is_the_same_for_any_hosts_and_workers_and_when_resumed():
    reference = pipeline.train_batches(motions(), config(), 8, 3, example=label)
    expected = [next(reference) for _ in range(6)]
    counts = collections.Counter(join(expected)["index"] < 24)
    assert counts == {True: 36, False: 12}
    np.testing.assert_array_equal(
        join(expected)["targets"]["label"], [motions()[i].target.label for i in join(expected)["index"]]
    )
    for workers, hosts in ((0, 2), (1, 1)):
        shares = [
            pipeline.train_batches(
                motions(), config(workers=workers), 8, 3, start_batch=2, host=h, hosts=hosts, example=label
            )
            for h in range(hosts)
        ]
        jax.tree.map(
            np.testing.assert_array_equal,
            join([join([next(share) for share in shares]) for _ in range(4)]),
            join(expected[2:]),
        )
        for share in shares:
            share.close()


def test_targets_are_of_one_type():
    parts = [dict(SCENES), dict(SCENES, seed=1)]
    source = load_source("mixture", "train", targets.SegmentsTarget, parts=parts)
    assert source.target is targets.SegmentsTarget and len(source) == 14
    with pytest.raises(UserError, match="MultiLabelTarget, and dataset synthetic_motion has Cl"):
        load_source("mixture", "train", targets.MultiLabelTarget, parts=[dict(SCENES), dict(MOTION)])


def test_fingerprint_depends_on_parts_weights_and_epoch():
    def fingerprint(*parts, **options):
        return load_source("mixture", "train", parts=parts, **options).fingerprint

    one, other = dict(MOTION, weight=1), dict(OTHER, weight=1)
    found = [
        fingerprint(one, other), fingerprint(other, one), fingerprint(one, dict(other, weight=2)),
        fingerprint(one, other, epoch=5), fingerprint(one),
    ]  # fmt: skip
    assert len({*found}) == 5 and found[0] == fingerprint(one, other)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(parts=[]), "a mixture needs parts"),
        (dict(parts=["kinetics"]), "'parts' of dataset mixture must be a list of dict, not"),
        (dict(parts=[dict(path="x")]), "a part of a mixture is a dict with the name of a dataset"),
        (dict(parts=[dict(name="a", splits="val")]), "a part of a mixture is a dict"),
        (dict(parts=[dict(name="a", weight=1), dict(name="a")]), "the weight of a must be .* not None"),
        (dict(parts=[dict(name="a", weight=-1)]), "the weight of a must be a number from 0, not -1"),
        (dict(parts=[dict(name="a", weight=float("nan"))]), "not nan"),
        (dict(parts=[dict(name="a", weight=0)]), "have the weight 0"),
        (dict(parts=[dict(name="a", splits=dict(train=None))]), "no part of the mixture has a split 'train'"),
        (dict(parts=[dict(name="a"), dict(name="t")]), "ClassTarget of a, TextTarget of t"),
        (dict(parts=[dict(name="a")], epoch=0), "data.options.epoch is a number of samples, not 0"),
        (dict(parts=[dict(name="a")], classes="both"), "unknown value of data.options.classes 'both'"),
    ],
)  # fmt: skip
def test_errors_name_the_option(fakes, options, message):
    fakes["a", "train"], fakes["t", "train"] = fake(3), fake(3, kind=targets.TextTarget)
    with pytest.raises(UserError, match=message):
        load_source("mixture", "train", **options)


def test_steps_per_epoch_follow_the_epoch_of_the_mixture():
    for options, steps in (({}, 15), ({"epoch": 40}, 10)):
        data = dict(name="mixture", options=dict(parts=[MOTION, OTHER], **options), frames=4, size=16)
        model = dict(name="slow_fusion_conv4", tiny=True)
        exp = build(resolve(dict(batch=4, epochs=2.0, data=dict(data, short_side=16), model=model)))
        assert exp.steps_per_epoch == steps and exp.steps == 2 * steps


def test_unknown_option_of_a_part_is_an_error():
    with pytest.raises(UserError, match="unknown option of dataset synthetic_motion 'sise'"):
        load_source("mixture", "train", parts=[dict(name="synthetic_motion", sise=32)])
