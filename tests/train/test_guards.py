"""Training steps cause no implicit transfers and no recompilation."""

import jax
import numpy as np
import pytest

from vidjax.config import pretraining_evals, resolve
from vidjax.train import loop
from vidjax.train.experiment import build, initial_state
from vidjax.train.metrics import MetricsWriter

DATA = dict(
    name="synthetic_motion",
    options=dict(size=32, frames=8, train=24, val=12, test=12),
    frames=4,
    stride=1.0,
    size=16,
    short_side=16,
)
CNN = dict(
    batch=4,
    steps=8,
    data=DATA,
    model=dict(name="slow_fusion_conv4", tiny=True, precise_bn_batches=2),
    optimizer=dict(name="adamw", weight_decay=0.1, ema=0.9, clip_norm=1.0),
    evals=dict(val=dict(type="metrics", every=0.34)),  # 6 steps per epoch
    report=False,
    log_every=1,
)
MAE = dict(
    batch=4,
    steps=8,
    data=DATA,
    model=dict(name="videomae_s_pretrain", tiny=True),
    task=dict(name="masked_autoencoding"),
    optimizer=dict(name="adamw", weight_decay=0.1),
    evals=pretraining_evals(every=0.34),
    checkpoint=dict(best="knn"),
    report=False,
    log_every=1,
)


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.mark.parametrize("mode", ["jit", "pmap"])
@pytest.mark.parametrize("config", [CNN, MAE], ids=["cnn", "mae"])
def test_step_has_no_implicit_transfers(config, mode):
    exp = build(resolve(config, [f"parallel.mode={mode}"]))
    rng = np.random.default_rng(0)
    batch = {
        "inputs": {"rgb": rng.integers(0, 256, (4, 4, 16, 16, 3), np.uint8)},
        "targets": {k: rng.integers(0, 3, 4).astype(np.int32) for k in ("label", "mask_seed")},
    }
    placed = exp.runner.place(initial_state(exp))
    with jax.transfer_guard("disallow"):
        for _ in range(2):
            data = jax.device_put(batch, exp.runner.batch_sharding)
            placed, metrics = exp.runner.step(placed, data)
    assert np.isfinite(metrics["loss"])


@pytest.mark.parametrize("config", [CNN, MAE], ids=["cnn", "mae"])
def test_no_recompilation_after_the_first_checkpoint(config, tmp_path, monkeypatch):
    compiled, at_evaluations = [], []

    def count(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(duration)

    write = MetricsWriter.write

    def count_at_evaluation(self, step, split, *args):
        write(self, step, split, *args)
        if split == "val":
            at_evaluations.append(len(compiled))

    monkeypatch.setattr(MetricsWriter, "write", count_at_evaluation)
    jax.monitoring.register_event_duration_secs_listener(count)
    try:
        loop.train(resolve(config), tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(count)
    first, second, *later = at_evaluations
    assert 0 < first <= second and later == [second] * 2, at_evaluations
