"""Any mesh, accumulation and pmap train like one device, and each axis of the mesh shards what it is for."""

import os
import pathlib
import subprocess
import sys

import chex
import jax
import numpy as np
import pytest

from vidjax.config import pretraining_evals, resolve
from vidjax.train.experiment import build, initial_state

TESTS = pathlib.Path(__file__).parents[1]
DATA = dict(frames=4, stride=1.0, size=16, short_side=16, crop="center", flip=False)
MOTION = DATA | dict(name="synthetic_motion", options=dict(size=32, frames=8, train=24, val=12, test=12))
SCENES = DATA | dict(
    name="synthetic_scenes", options=dict(size=64, seconds=4.0, fps=12, train=24, val=12, test=12)
)
CASES = {
    "CNN with BatchNorm": dict(data=MOTION, model=dict(name="slow_fusion_conv4", tiny=True)),
    "ViT": dict(data=MOTION, model=dict(name="videomae_s", tiny=True)),
    "masked autoencoder": dict(
        data=MOTION,
        model=dict(name="videomae_s_pretrain", tiny=True),
        task=dict(name="masked_autoencoding"),
        evals=pretraining_evals(),
        checkpoint=dict(best="knn"),
    ),
    "segments": dict(
        data=SCENES,
        model=dict(name="cnn_gru_resnet18", tiny=True, options=dict(readout="every")),
        task=dict(name="frame_classification", points=8),
    ),
}
EIGHT = (
    dict(data=8),
    dict(data=2, fsdp=4),
    dict(data=4, tensor=2),
    dict(data=2, context=4),
    dict(data=1, fsdp=2, tensor=2, context=2),
)


def trained(case, devices=None, freeze_bn=False, **parallel):
    """Returns the state after three steps, and the metrics of the last one."""
    config = resolve(
        dict(
            batch=8,
            steps=3,
            seed=1,
            report=False,
            optimizer=dict(name="sgd", lr=0.1),
            schedule=dict(name="constant"),
            parallel=parallel,
        )
        | CASES[case]
        | dict(model=CASES[case]["model"] | dict(freeze_bn=freeze_bn))
    )
    with pytest.MonkeyPatch.context() as patch:
        if devices:
            patch.setattr(jax, "devices", lambda: devices)
        exp = build(config)
    batches, runner = exp.batches(config.seed, config.batch), exp.runner
    placed = runner.place(initial_state(exp))
    for _ in range(3):
        batch = jax.device_put(next(batches), runner.batch_sharding)
        placed, metrics = runner.step(placed, {k: batch[k] for k in ("inputs", "targets")})
    batches.close()
    return runner.read(placed), jax.device_get(metrics)


def assert_same(one, other):
    (a, metrics_a), (b, metrics_b) = one, other
    chex.assert_trees_all_close(
        *(jax.device_get((s.params, s.model_state)) for s in (a, b)), rtol=1e-4, atol=3e-6
    )
    np.testing.assert_allclose(metrics_a["loss"], metrics_b["loss"], rtol=1e-5)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_any_mesh_trains_like_one_device():
    assert_same(trained("ViT", jax.devices()[:1]), trained("ViT", mesh=dict(data=1, tensor=2, context=2)))


def on_eight_devices():
    """Compares all cases, meshes and modes; see the test below."""
    assert jax.device_count() == 8
    for case in CASES:
        one = trained(case, jax.devices()[:1])
        for mesh in EIGHT:
            assert_same(one, trained(case, mesh=mesh))
            print(case, mesh, flush=True)
        # BatchNorm has statistics of each part; tests/train/test_step.py compares these with groups.
        one = trained(case, jax.devices()[:1], freeze_bn=True)
        for parallel in (dict(accumulation=2, mesh=dict(data=2, fsdp=2, tensor=2)), dict(mode="pmap")):
            assert_same(one, trained(case, freeze_bn=True, **parallel))
            print(case, parallel, flush=True)


@pytest.mark.slow
def test_eight_devices_train_like_one():
    code = (
        "import conftest, sys; sys.path.insert(0, 'train'); import test_parallel as t; t.on_eight_devices()"
    )
    env = os.environ | {"TEST_DEVICES": "8"}
    done = subprocess.run([sys.executable, "-c", code], cwd=TESTS, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") == len(CASES) * (len(EIGHT) + 2)


def vit(**mesh):
    """Returns the experiment of a ViT with 512 tokens."""
    options = dict(width=32, depth=2, heads=4, mlp_width=64, patch=(1, 2, 2))
    config = dict(batch=4, steps=1, data=MOTION | dict(frames=8), parallel=dict(mesh=mesh))
    return build(resolve(config | dict(model=dict(name="videomae_s", options=options))))


def temporary_bytes(exp):
    """Returns the memory of a device for activations and gradients in the training step."""
    batches = exp.batches(0, 4)
    batch = {k: v for k, v in next(batches).items() if k in ("inputs", "targets")}
    batches.close()
    compiled = exp.runner.step.lower(exp.abstract_state(), batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_context_shards_tokens():
    """Four samples with a quarter of the tokens take little more than one sample; the keys are gathered."""
    assert temporary_bytes(vit(data=1, context=4)) < 1.3 * temporary_bytes(vit(data=4))


def test_fsdp_and_tensor_shard_parameters():
    block = vit(data=1, tensor=4).abstract_state().params["block0"]
    shapes = {("attn", "proj"): (8, 32), ("mlp", "fc1"): (32, 16), ("mlp", "fc2"): (16, 32)}
    for (layer, name), shape in shapes.items():
        kernel = block[layer][name]["kernel"]
        assert kernel.sharding.shard_shape(kernel.shape) == shape
    state = vit(data=1, fsdp=4).abstract_state()
    for tree in (state.params, state.opt_state):  # the momentum is sharded like its parameters
        leaves = [x for x in jax.tree.leaves(tree) if x.ndim == 2]
        assert leaves and all(4 * np.prod(x.sharding.shard_shape(x.shape)) == x.size for x in leaves)
