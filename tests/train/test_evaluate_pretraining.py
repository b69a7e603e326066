"""Evaluation of pretraining: only readable clips count, however they are batched."""

import tempfile

import jax
import numpy as np
import pytest
from etils import epath

from vidjax.config import pretraining_evals, resolve
from vidjax.data.datasets import load_source
from vidjax.train.experiment import build, initial_state

OPTIONS = dict(size=32, frames=8, train=12, val=12, test=13)
MAE = dict(
    batch=4,
    steps=1,
    data=dict(name="synthetic_motion", options=OPTIONS, frames=4, stride=1.0, size=16, short_side=16),
    model=dict(name="videomae_s_pretrain", tiny=True),
    task=dict(name="masked_autoencoding"),
    evals=pretraining_evals(),
    checkpoint=dict(best="knn"),
)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def evaluate(*overrides):
    exp = build(resolve(MAE, overrides))
    variables, folder = initial_state(exp).eval_variables, epath.Path(tempfile.mkdtemp())
    results = [exp.evals[name].run(exp, variables, folder, 0) for name in ("val", "knn")]
    return {**results[0].metrics, **results[1].metrics}


def batch(size):
    return [f"evals.val.batch={size}", f"evals.knn.batch={size}"]


def test_metrics_do_not_depend_on_padding_or_batch_size():
    """Thirteen clips in batches of 4 end with three rows of padding; one batch of 16 does too."""
    four, sixteen = evaluate(*batch(4)), evaluate(*batch(16))
    one = evaluate(*batch(13), "parallel.mesh.data=1", "parallel.mesh.tensor=4")
    for other in (sixteen, one):
        np.testing.assert_allclose(list(other.values()), list(four.values()), rtol=1e-4)


def test_a_corrupt_video_does_not_enter_the_loss(tmp_path):
    """The loss over two folders that differ by a corrupt video is the same."""
    source = load_source("synthetic_motion", "test", **OPTIONS)
    for i in range(9):
        for split in ("train", "test"):
            path = tmp_path / "videos" / split / "ab"[i % 2] / f"{i}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source[i].encoded())
    folder = ["data.name=video_folder", f"data.options.path={tmp_path / 'videos'}", "data.bad_limit=0.5"]
    whole = evaluate(*folder, *batch(12))
    last = tmp_path / "videos" / "test" / "b" / "9.mp4"  # last in order, so no other clip's mask changes
    last.write_bytes(b"no video")
    with_corrupt = evaluate(*folder, *batch(12))
    assert jax.device_count() == 4
    np.testing.assert_allclose(list(with_corrupt.values()), list(whole.values()), rtol=1e-5)
