"""Tests of the sampling rules over a grid of lengths: bounds, stride, centering, short videos."""

import itertools

import numpy as np
import pytest

from vidjax.data import sampling
from vidjax.errors import UserError

TOTALS = [1, 2, 3, 7, 16, 31, 32, 33, 100, 301]
FRAMES = [1, 2, 8, 16, 32]
STRIDES = [0.5, 1, 2, 2.5, 1.1988, 4]


def span(frames, stride):
    return int(np.floor((frames - 1) * stride + 1e-6)) + 1


@pytest.mark.parametrize("total", TOTALS)
def test_uniform_and_segments(total):
    rng = np.random.default_rng(0)
    for frames in FRAMES:
        middle = sampling.uniform(total, frames)
        assert middle.dtype == np.int64 and middle.shape == (frames,)
        assert (middle == [int((i + 0.5) * total / frames) for i in range(frames)]).all()
        np.testing.assert_array_equal(middle, sampling.segments(total, frames))
        edges = [i * total // frames for i in range(frames + 1)]
        for _ in range(20):
            drawn = sampling.segments(total, frames, rng)
            assert drawn.dtype == np.int64 and drawn.shape == (frames,)
            for index, low, high in zip(drawn, edges, edges[1:]):
                assert low <= index < max(high, low + 1)
        if total >= frames:
            assert (np.diff(middle) > 0).all() and (np.diff(drawn) > 0).all()
            # centered to within a frame
            assert abs(middle[0] - (total - 1 - middle[-1])) <= 1


def test_segments_can_select_every_frame():
    rng = np.random.default_rng(0)
    drawn = np.concatenate([sampling.segments(10, 3, rng) for _ in range(300)])
    assert set(drawn) == set(range(10))


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("short", ["loop", "hold"])
def test_window(total, short):
    rng = np.random.default_rng(0)
    for frames, stride in itertools.product(FRAMES, STRIDES):
        offsets = np.array([int(np.floor(i * stride + 1e-6)) for i in range(frames)])
        room = total - span(frames, stride)
        center = sampling.window(total, frames, stride, short=short)
        for clip in (center, *(sampling.window(total, frames, stride, rng, short) for _ in range(5))):
            assert clip.dtype == np.int64 and clip.shape == (frames,)
            assert clip.min() >= 0 and clip.max() < total
            if room >= 0:
                np.testing.assert_array_equal(clip - clip[0], offsets)
            else:
                folded = offsets % total if short == "loop" else np.minimum(offsets, total - 1)
                np.testing.assert_array_equal(clip, folded)
        if room >= 0:
            assert 0 <= (total - 1 - center[-1]) - center[0] <= 1


def test_window_starts_at_every_possible_frame():
    rng = np.random.default_rng(0)
    starts = {int(sampling.window(20, 4, 2, rng)[0]) for _ in range(400)}
    assert starts == set(range(14))  # 20 - 7 + 1 starts


def test_window_matches_hand_computed_indices():
    assert sampling.window(10, 4, 2).tolist() == [1, 3, 5, 7]
    assert sampling.window(5, 4, 2, short="loop").tolist() == [0, 2, 4, 1]
    assert sampling.window(5, 4, 2, short="hold").tolist() == [0, 2, 4, 4]
    assert np.ptp(sampling.window(400, 101, 0.29)) == 29  # although 100 * 0.29 is 28.999...


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("short", ["loop", "hold"])
def test_views(total, short):
    for frames, stride, clips in itertools.product(FRAMES, STRIDES, [1, 2, 3, 10]):
        views = sampling.test_clips(total, frames, stride, clips, short)
        assert views.dtype == np.int64 and views.shape == (clips, frames)
        assert views.min() >= 0 and views.max() < total
        room = total - span(frames, stride)
        if clips == 1 and room >= 0:
            np.testing.assert_array_equal(views[0], sampling.window(total, frames, stride))
        elif room >= 0:
            assert views[0, 0] == 0 and views[-1, -1] == total - 1
            gaps = np.diff(views[:, 0])
            assert gaps.max() - gaps.min() <= 1
        elif short == "hold":
            assert (views == views[:1]).all()
        if room >= clips - 1 or (room < 0 and short == "loop" and total >= clips):
            assert len({tuple(v) for v in views}) == clips


def test_sampling_depends_on_the_seed():
    for rule in (lambda rng: sampling.window(300, 8, 4, rng), lambda rng: sampling.segments(300, 8, rng)):
        a, b, c = (rule(np.random.default_rng(seed)) for seed in (1, 1, 2))
        assert (a == b).all() and (a != c).any()


def test_invalid_arguments_are_rejected():
    with pytest.raises(UserError, match="'lop': did you mean loop"):
        sampling.window(10, 4, 2, short="lop")
    for call in (
        lambda: sampling.window(10, 4, 0),
        lambda: sampling.window(10, 0, 1),
        lambda: sampling.test_clips(10, 4, 1, 0),
        lambda: sampling.uniform(10, -1),
        lambda: sampling.segments(0, 3, np.random.default_rng(0)),
        lambda: sampling.window(10, 4, float("nan")),
    ):
        with pytest.raises(UserError, match="must be positive"):
            call()


def ends(fps, total):
    return np.arange(total + 1) / fps


@pytest.mark.parametrize("short", ["loop", "hold"])
def test_sampling_by_time_equals_by_index_at_a_constant_rate(short):
    for fps, target, stride, total in itertools.product((24, 30, 29.97), (10, 25), (1, 2.0), (7, 90)):
        moments = sampling.steps(8, stride) / target
        offsets = sampling.offsets(8, stride * fps / target)
        clock = {"short": short, "times": 0.7 + ends(fps, total)}
        for seed in range(5):
            rngs = [np.random.default_rng(seed) for _ in range(2)]
            counted = sampling.place(total, offsets, rngs[0], short)
            np.testing.assert_array_equal(sampling.place(total, moments, rngs[1], **clock), counted)
        for clips in (1, 3, 4):
            counted = sampling.spread(total, offsets, clips, short)
            np.testing.assert_array_equal(sampling.spread(total, moments, clips, **clock), counted)


def irregular():
    """Returns times at 25 fps, then 2.5 fps, then 25 fps again, float64 [61]."""
    return np.cumsum([0] + [0.04] * 25 + [0.4] * 10 + [0.04] * 25)


def test_irregular_video_returns_the_frames_shown_at_each_time():
    times, rng = irregular(), np.random.default_rng(0)
    moments = sampling.steps(8, 1) / 5  # a frame every 0.2 s
    clips = [sampling.place(60, moments, rng, times=times) for _ in range(50)]
    starts = []
    for clip in (*clips, *sampling.spread(60, moments, 5, times=times)):
        starts.append(times[clip[0]])
        lag = times[clip] - (times[clip[0]] + moments)
        assert (lag > -0.4).all() and (lag < 0.4).all()  # the longest duration of a frame
        assert (np.diff(clip) >= 0).all() and times[clip[-1]] - times[clip[0]] > 0.9
    assert np.median(starts) == pytest.approx(times[-1] / 2 - 0.7, abs=0.8)  # uniform in time, not in frames
    looped = sampling.place(60, sampling.steps(3, 4.0), times=times)  # 0, 4 and 8 of 6 seconds
    assert looped.tolist() == sampling.shown(times, np.array([0, 4.0, 2.0])).tolist()
    held = sampling.place(60, sampling.steps(3, 4.0), short="hold", times=times)
    assert held.tolist() == [0, looped[1], 59]


@pytest.mark.parametrize("times", [irregular(), ends(25, 60), ends(3, 10), ends(25, 1)])
@pytest.mark.parametrize("rate", [5, 7.5, 25, 60])
def test_resampling_a_stream_matches_shown(times, rate):
    last = times[-2] / (len(times) - 2) if len(times) > 2 else times[-1]  # the mean distance
    end, moments = times[-2] + last, np.arange(100) / rate
    moments = moments[moments < end - 1e-6]
    came = list(sampling.resample(((t, i) for i, t in enumerate(times[:-1])), rate, times[-1]))
    np.testing.assert_allclose([t for t, _ in came[:100]], moments)
    assert [i for _, i in came[:100]] == sampling.shown(times[:-1], moments).tolist()
    assert not list(sampling.resample([], rate, 1.0))


@pytest.mark.parametrize("total", TOTALS)
@pytest.mark.parametrize("short", ["loop", "hold"])
def test_hierarchical(total, short):
    rng = np.random.default_rng(0)
    for coarse, dense, stride in itertools.product((1, 4), (1, 8), (1, 2.5)):
        offsets = sampling.offsets(dense, stride)
        fixed = sampling.hierarchical(total, coarse, offsets, 3, short=short)
        assert fixed.dtype == np.int64 and fixed.shape == (3, coarse + dense)
        np.testing.assert_array_equal(fixed[:, :coarse], [sampling.uniform(total, coarse)] * 3)
        np.testing.assert_array_equal(fixed[:, coarse:], sampling.spread(total, offsets, 3, short))
        for clip in sampling.hierarchical(total, coarse, offsets, 20, rng, short):
            edges = np.arange(coarse + 1) * total // coarse
            assert (edges[:-1] <= clip[:coarse]).all()
            assert (clip[:coarse] < np.maximum(edges[1:], edges[:-1] + 1)).all()
            if total >= span(dense, stride):
                np.testing.assert_array_equal(clip[coarse:] - clip[coarse], offsets)
    with pytest.raises(UserError, match="frames must be positive, not 0"):
        sampling.hierarchical(total, 0, offsets)


def test_hierarchical_windows_are_drawn_independently_of_the_coarse_frames():
    clips = sampling.hierarchical(100, 2, sampling.offsets(4, 1), 500, np.random.default_rng(0))
    assert set(clips[:, 2]) == set(range(97)) and set(clips[:, 0]) == set(range(50))
    assert abs(np.corrcoef(clips[:, 0], clips[:, 2])[0, 1]) < 0.15
