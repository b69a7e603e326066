"""Tests that RandAugment and AutoAugment equal timm's, with one draw per clip and the right geometry."""

import json
import math
import pathlib
import runpy

import numpy as np
import pytest
from PIL import Image

from vidjax.data.auto_augment import INTERPOLATIONS, OPERATIONS, POLICIES, auto_augment, parse, warp
from vidjax.errors import UserError

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TIMM = json.loads((GOLDEN / "auto_augment.json").read_text())
RECORDED = runpy.run_path(str(GOLDEN / "record_auto_augment.py"))
RNG = np.random.default_rng(0)
FRAME = RNG.integers(0, 256, (24, 32, 3), np.uint8)
VIDEO = np.repeat(FRAME[None], 3, 0)


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_equals_timm(name):
    """The argument of each level and sign, and every pixel."""
    frames, seen, operation = [Image.fromarray(x) for x in RECORDED["images"]()], 0, OPERATIONS[name]
    for recorded, level, sign, interpolation, arguments, hashes in TIMM["operations"]:
        if recorded != name:
            continue
        # timm limits the level to 10 or mmax before this, so that 13 stands for mmax=13 or more.
        argument = operation.argument(level / 10, sign)
        assert [argument] == (arguments or [None]) and type(argument) is type((arguments or [None])[0])
        if name == "GaussianBlurRand":
            argument = (0.1 + 2.0 * argument) / 2
        if not hashes:  # no bits, which is black where Pillow accepts it
            assert name.startswith("Posterize") and not np.any(operation.apply(frames[0], argument))
        for frame, expected in zip(frames, hashes):
            if operation.warp:
                read_at = operation.warp(argument, *frame.size)
                out = warp(frame, read_at, INTERPOLATIONS[interpolation][0], TIMM["fill"])
            else:
                out = operation.apply(frame, argument)
            assert RECORDED["digest"](np.asarray(out)) == expected, (level, sign, interpolation)
        seen += 1
    assert seen == 2 * 2 * len(RECORDED["LEVELS"])


def test_all_operations_are_recorded():
    assert {row[0] for row in TIMM["operations"]} == {*OPERATIONS}


@pytest.mark.parametrize("text", TIMM["policies"])
def test_a_policy_equals_timm(text):
    policy, recorded = parse(text), TIMM["policies"][text]
    steps = [
        [[s.name, s.probability, s.magnitude, "inf" if s.deviation == math.inf else s.deviation, s.limit]
         for s in choice]
        for choice in policy.choices
    ]  # fmt: skip
    assert steps == recorded["steps"] and policy.count == recorded["count"]
    if recorded["weights"] is None:
        assert policy.weights is None
    else:
        np.testing.assert_allclose(policy.weights, recorded["weights"])


def test_weights_of_earlier_versions():
    policy = parse("rand-m9-n3-w0-inc1")
    weights = {choice[0].name: w for choice, w in zip(policy.choices, policy.weights)}
    assert weights["Rotate"] == pytest.approx(0.3) and weights["TranslateYRel"] == pytest.approx(0.1)
    assert weights["PosterizeIncreasing"] == weights["Invert"] == 0
    for seed in range(20):
        names = [step.name for step in policy.draw(np.random.default_rng(seed))]
        assert len({*names}) == 3 and "Invert" not in names


@pytest.mark.parametrize(
    "text, message",
    [
        ("randaugment", "unknown policy of data.auto_augment 'randaugment': did you mean rand"),
        ("rand-m7-x3", "unknown part 'x3'; rand takes m, n, p"),
        ("v0-m7", "unknown part 'm7'; v0 takes mstd"),
        ("rand-mseven", "unknown part 'mseven'"),
        ("rand-m101", "the part 'm101' must be m and a number from 0 to 100"),
        ("rand-n2.5", "the part 'n2.5' must be n and an integer from 1 to 100"),
        ("rand-inc0", "the part 'inc0' must be inc1"),
        ("rand-t4a", "unknown set of operations in data.auto_augment=rand-t4a: '4a'"),
        ("rand-w0-t3a", "use w0 or t, not both"),
        ("rand-n15-tweights-n16", "16 different operations cannot be drawn from 15"),
        (7.0, "data.auto_augment must be a text such as rand-m7-n4-mstd0.5-inc1, got 7.0"),
    ],
)
def test_malformed_policies_are_reported(text, message):
    with pytest.raises(UserError, match=message):
        parse(text)


def test_levels_are_drawn_as_documented():
    def levels(text, seeds=400):
        rng = np.random.default_rng(0)
        step = next(c[0] for c in parse(text).choices if c[0].name == "Rotate")
        return np.abs([step.draw(rng) for _ in range(seeds)]) / 3, [step.draw(rng) > 0 for _ in range(seeds)]

    fixed, signs = levels("rand-m7")
    assert (fixed == fixed[0]).all() and 140 < sum(signs) < 260
    normal, _ = levels("rand-m7-mstd0.5")
    assert abs(normal.mean() - 7) < 0.1 and abs(normal.std() - 0.5) < 0.1
    assert levels("rand-m12")[0].max() == 10 and levels("rand-m12-mmax20")[0].max() == pytest.approx(12)
    uniform, _ = levels("rand-m8-mstd101")
    assert uniform.min() < 0.5 and uniform.max() > 7.5 and abs(uniform.mean() - 4) < 0.5


@pytest.mark.parametrize("text", ["rand-m7-n4-mstd0.5-inc1", "rand-m9-n5-p1-tweights", *POLICIES])
def test_one_draw_per_clip_that_depends_only_on_the_seed(text):
    outs = [auto_augment(VIDEO, np.random.default_rng(s), text) for s in (1, 1, *range(2, 12))]
    for out, _ in outs:
        assert out.shape == VIDEO.shape and out.dtype == np.uint8
        assert (out == out[:1]).all()
    assert (outs[0][0] == outs[1][0]).all() and outs[0][1] == outs[1][1]
    assert sum((out != VIDEO).any() for out, _ in outs) >= 5


def test_probability_of_an_operation():
    changed = [
        (auto_augment(VIDEO, np.random.default_rng(s), "rand-m9-n1-p0.3-inc1-t3a")[0] != VIDEO).any()
        for s in range(200)
    ]
    assert 40 < sum(changed) < 80


def test_fill_and_interpolation():
    white = np.full((1, 40, 40, 3), 255, np.uint8)
    colors = set()
    for seed in range(30):
        out, _ = auto_augment(white, np.random.default_rng(seed), "rand-m9-n1-p1-inc1", fill=(1, 2, 3))
        colors |= {tuple(c) for c in out.reshape(-1, 3).tolist()}
    assert (1, 2, 3) in colors
    smooth, sharp, either = (
        [
            auto_augment(VIDEO, np.random.default_rng(seed), "rand-m9-n3-p1", interpolation=kind)[0]
            for seed in range(9)
        ]
        for kind in ("bilinear", "bicubic", "random")
    )
    assert any((a != b).any() for a, b in zip(smooth, sharp))
    assert len({x.tobytes() for x in either}) == 9


def test_the_geometry_follows_the_pixels():
    """A drawn disc lands where the geometry of several operations maps it."""
    y, x = np.mgrid[:120, :160] + 0.5
    center, seen = np.array([70.0, 66.0]), 0
    disc = (255 * np.clip(6 - np.hypot(x - center[0], y - center[1]), 0, 1)).astype(np.uint8)
    video = np.repeat(disc[None, ..., None], 3, -1)
    for seed in range(60):
        out, geometry = auto_augment(video, np.random.default_rng(seed), "rand-m6-n3-p0.6-w0", fill=(0, 0, 0))
        mass = out[0, ..., 0] * (out[0, ..., 0] > 200.0)
        if geometry.clip_boxes([*(center - 7), *(center + 7)])[1] < 1 or not 60 < (mass > 0).sum() < 160:
            continue  # partly outside, or its colors were changed
        found = (mass * x).sum() / mass.sum(), (mass * y).sum() / mass.sum()
        np.testing.assert_allclose(found, geometry.points(center), atol=0.5)
        seen += (np.abs(geometry.points(center) - center) > 3).any()
    assert seen > 15
