"""Checks before the first training step: invalid configs are reported, and the effective batch is printed."""

import re

import jax
import numpy as np
import pytest

from vidjax.config import pretraining_evals, resolve
from vidjax.errors import UserError
from vidjax.train.experiment import batch_text, build
from vidjax.train.loop import train

MAE = dict(
    batch=8,
    steps=2,
    data=dict(name="synthetic_motion", options=dict(size=32, frames=8, train=48, val=12, test=12))
    | dict(frames=4, stride=1.0, size=16, short_side=16, crop="center"),
    model=dict(name="videomae_s_pretrain", tiny=True),
    task=dict(name="masked_autoencoding"),
    evals=pretraining_evals(every=0.0),
    checkpoint=dict(best="knn"),
    report=False,
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


CLASSIFY = ["model.name=videomae_s", "task.name=classification"]


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["model.options.mask_ratio=1.0"], "leaves no visible token of 2x2x2"),
        (["model.options.mask_ratio=0.1"], "leaves no masked token of 2x2x2"),
        (["model.options.mask='tubes'"], "did you mean tube"),
        (
            ["data.frames=5"],
            "data.frames=5 does not divide into the tubelets of 2 frames of videomae_s_pretrain",
        ),
        (["data.size=20"], "data.size=20 does not divide into the patches of 8 pixels"),
        ([*CLASSIFY, "data.frames=5"], "set it to 4 or 6"),
        ([*CLASSIFY, "data.size=4"], "set it to 8"),
        (["model.name=timesformer_b_8x32", "task.name=classification", "data.size=20"], "set it to 16 or 24"),
        (["model.name=vivit_b_16x2", "task.name=classification", "data.frames=3"], "tubelets of 2 frames"),
        (["model.name=mae_st_b_pretrain"], "its learned positions are for 8x32x32"),
    ],
)
def test_invalid_clips_and_masks_are_reported(overrides, message):
    with pytest.raises(UserError, match=re.escape(message)) as e:
        build(resolve(MAE, overrides))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "overrides, message",
    [
        (["size=12"], "evals.val.size=12 does not divide into the patches of 8 pixels"),
        (["frames=5"], "evals.val.frames=5 does not divide into the tubelets of 2 frames"),
        (["size=64"], "the evaluation val crops 64 pixels from test frames of 16: raise data.short_side"),
        (["frames=8", "size=8"], None),
    ],
)
def test_test_views_that_do_not_fit_are_reported(overrides, message, tmp_path):
    config = resolve(MAE, [*CLASSIFY, "checkpoint.best=val", *(f"evals.val.{o}" for o in overrides)])
    exp = build(config)
    if message is None:
        exp.evals["val"].prepare(exp)
        return
    with pytest.raises(UserError, match=re.escape(message)) as e:
        exp.evals["val"].prepare(exp)
    assert "\n" not in str(e.value)


def test_probe_with_unseen_classes_is_rejected_before_training(tmp_path):
    with pytest.raises(UserError, match=r"none of the 5 training videos .* is of the classes") as e:
        train(resolve(MAE, ["evals.knn.videos=5"]), tmp_path / "run")
    assert "raise evals.knn.videos" in str(e.value) and "\n" not in str(e.value)


@pytest.mark.parametrize("limit", [12, 30, 1000])
def test_probe_videos_are_balanced_over_classes(limit):
    """The classes alternate in the dataset, so that equally spaced videos would not be balanced."""
    exp = build(resolve(MAE, [f"evals.knn.videos={limit}"]))
    bank, test = exp.evals["knn"].sources(exp)
    count = np.bincount([r.target.label for r in bank], minlength=12)
    assert len(bank) == min(limit, 48) and count.max() - count.min() <= 1 and len(test) == 12
    assert len({r.id for r in bank}) == len(bank)


@pytest.mark.parametrize(
    "overrides, text",
    [
        (
            [],
            "batch 8 clips = 4 devices x 2 clips x 1 accumulation steps; peak learning rate 0.1; 2 updates",
        ),
        (
            ["batch=64", "data.repeats=4", "parallel.accumulation=2", "optimizer.lr_batch=256"],
            "batch 64 clips = 4 devices x 2 videos x 4 clips of each x 2 accumulation steps; "
            "peak learning rate 0.025; 2 updates, 3 per epoch",
        ),
        (
            ["parallel.mode=pmap", "data.repeats=2"],
            "batch 8 clips = 4 devices x 1 videos x 2 clips of each x 1",
        ),
        (["parallel.mesh.data=2", "parallel.mesh.tensor=2"], "batch 8 clips = 2 devices x 4 clips x 1"),
    ],
)
def test_batch_text_lists_every_factor(overrides, text):
    assert jax.device_count() == 4
    line = batch_text(build(resolve(MAE, overrides)))
    assert line.startswith(text)
    factors = re.findall(r"\d+", line.split(" = ")[1].split(";")[0])
    assert np.prod([int(n) for n in factors]) == int(line.split()[1])
