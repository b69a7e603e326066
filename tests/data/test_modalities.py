"""Tests of clips of optical flow and of several streams: shapes, times and determinism."""

import cv2
import numpy as np
import pytest
from test_pipeline import broken, config, exact, frame_numbers, source

from vidjax.data.datasets.synthetic_motion import encode
from vidjax.data.pipeline import clip_shape, eval_batches, train_batches
from vidjax.errors import UserError


def flowing(**changes):
    return config(**(dict(modality="flow", size=24, short_side=28) | changes))


def both(**changes):
    return flowing(**(dict(modality="rgb+flow", frames=2, stride=3) | changes))


def sliding(dx=2, frames=20, size=48):
    """Encodes a texture that slides right by dx pixels per frame."""
    noise = np.random.default_rng(0).random((size, size + dx * frames)).astype(np.float32)
    wide = cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 2), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    starts = dx * np.arange(frames)[::-1]
    return encode(np.repeat(np.stack([wide[:, s : s + size] for s in starts])[..., None], 3, -1), 10)


@pytest.fixture(scope="module")
def good():
    return source([sliding(dx) for dx in (1, 2, 3, 1, 2, 3)])


def leaves(batch):
    """{"video/rgb": …, "label": …}."""
    out = {k: v for k, v in batch.items() if k != "video"}
    video = batch["video"]
    streams = {f"video/{k}": v for k, v in video.items()} if isinstance(video, dict) else {"video": video}
    return out | streams


def take(batches, n):
    try:
        rows = [leaves(next(batches)) for _ in range(n)]
    finally:
        batches.close()
    return {k: np.concatenate([r[k] for r in rows]) for k in rows[0]}


def same(a, b):
    assert a.keys() == b.keys()
    for key in a:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)


def test_clip_shapes_and_dtypes(good):
    assert clip_shape(config(grey=True)) == (4, 16, 16, 1)
    assert clip_shape(flowing()) == (4, 24, 24, 2)
    assert clip_shape(both()) == {"rgb": (2, 24, 24, 3), "flow": (3, 24, 24, 2)}
    for cfg in (flowing(), both(), both(grey=True)):
        shapes = clip_shape(cfg)
        shapes = (
            {f"video/{k}": s for k, s in shapes.items()} if isinstance(shapes, dict) else {"video": shapes}
        )
        train = take(train_batches(good, cfg, 2, seed=0), 1)
        test = take(iter(eval_batches(good, cfg, 4, clips=2, crops=3)), 2)
        for key, shape in shapes.items():
            assert train[key].shape == (2, *shape) and train[key].dtype == np.uint8
            assert test[key].shape == (8, 6, *shape) and test[key].dtype == np.uint8


@pytest.mark.parametrize("crop", ["center", "multi_scale"])
def test_flow_of_a_sliding_texture_and_its_mirror(good, crop):
    """Resizing 48 to 32 pixels scales the flow by 2/3; mirroring reverses its direction."""
    cfg = flowing(crop=crop, flip=crop != "center", stride=1, size=32, short_side=32, color_jitter=0.0)
    batch = take(train_batches(good, cfg, 24, seed=0), 1)
    middle = np.median(batch["video"][:, :, 8:-8, 8:-8].astype(float) - 128, axis=(1, 2, 3)) * 20 / 127
    slide = 1 + batch["index"] % 3
    if crop == "center":
        np.testing.assert_allclose(middle[:, 0], slide * 2 / 3, atol=0.2)
    else:
        assert {*np.sign(middle[:, 0])} == {-1, 1}
        assert (np.abs(middle[:, 0]) > 0.5 * slide).all()
    assert np.abs(middle[:, 1]).max() < 0.2


def test_stride_sets_the_distance_of_flow_frames(good):
    cfg = flowing(crop="center", flip=False, stride=2, size=32, short_side=32)
    video = next(iter(eval_batches(good, cfg, 6, 1, 1)))["video"].astype(float) - 128
    middle = np.median(video[:, 0, :, 8:-8, 8:-8, 0], axis=(1, 2, 3)) * 20 / 127
    np.testing.assert_allclose(middle, np.array([1, 2, 3, 1, 2, 3]) * 4 / 3, atol=0.3)


def test_streams_have_the_same_center():
    """Gray levels encode frame numbers, which flow would not show. The longer stream starts the window."""
    clip = np.repeat((20 + 8 * np.arange(20, dtype=np.uint8)).reshape(-1, 1, 1, 1), 3, -1)
    videos = source([encode(np.broadcast_to(clip, (20, 48, 48, 3)), 10)])
    cfg = exact(modality="rgb+flow", frames=1, size=16, short_side=16)
    cfg.flow.update(frames=6, stride=1.0)
    rgb = take(train_batches(videos, cfg, 60, seed=0), 1)["video/rgb"]
    assert {*frame_numbers(rgb)[:, 0]} == {*range(3, 17)}  # the fourth frame of windows of 7 frames
    views = next(iter(eval_batches(videos, cfg, 1, clips=2, crops=1)))["video"]["rgb"][0]
    assert frame_numbers(views)[:, 0].tolist() == [3, 16]
    cfg.update(frames=5, stride=4)  # now the RGB stream is longer than the flow stream
    numbers = frame_numbers(take(train_batches(videos, cfg, 20, seed=0), 1)["video/rgb"])
    assert {*numbers[:, 0]} == {0, 1, 2, 3} and (np.diff(numbers) == 4).all()


@pytest.mark.parametrize("make", [flowing, both])
def test_samples_depend_only_on_their_number(good, make, tmp_path):
    cfg = make(bad_limit=0.5)
    some = broken(good, {4}, tmp_path)
    reference = take(train_batches(some, cfg, 4, seed=3), 4)
    same(reference, take(train_batches(some, make(bad_limit=0.5, threads=1, prefetch=0), 4, seed=3), 4))
    same({k: v[8:] for k, v in reference.items()}, take(train_batches(some, cfg, 4, 3, start_batch=2), 2))
    shares = [take(train_batches(some, cfg, 4, 3, host=h, hosts=2), 4) for h in range(2)]
    parts = {k: np.stack([s[k].reshape(4, 2, *s[k].shape[1:]) for s in shares], 1) for k in reference}
    same(reference, {k: v.reshape(-1, *v.shape[3:]) for k, v in parts.items()})
    workers = make(bad_limit=0.5, workers=2)
    same(reference, take(train_batches(some, workers, 4, seed=3), 4))
    other = take(train_batches(some, cfg, 4, seed=4), 4)
    assert any((reference[k] != other[k]).any() for k in reference)


def test_corrupt_videos_are_masked_in_every_stream(good, tmp_path):
    batch = take(iter(eval_batches(broken(good, {4}, tmp_path), both(bad_limit=0.5), 4, 1, 1)), 2)
    assert batch["mask"].tolist() == [True] * 4 + [False, True, False, False]
    for key in ("video/rgb", "video/flow"):
        assert (batch[key].max((1, 2, 3, 4, 5)) > 0).tolist() == batch["mask"].tolist()


def test_unavailable_flow_method_is_reported_before_the_first_batch(good):
    cfg = flowing()
    cfg.flow.method = "tvl2"
    for make in (lambda: train_batches(good, cfg, 2, 0), lambda: eval_batches(good, cfg, 2, 1, 1)):
        with pytest.raises(UserError, match="unknown flow method 'tvl2': did you mean tvl1"):
            make()
