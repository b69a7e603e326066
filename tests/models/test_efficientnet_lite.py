"""EfficientNet-Lite: scaling, blocks, stochastic depth, inflation in time, and weights in video models."""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.convert import read_weights
from vidjax.convert.engine import export
from vidjax.convert.load import rules_for
from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.models.image.efficientnet_lite import MEAN, STD, InvertedResidual, scaled

VIDEO = (
    "single_frame_efficientnet_lite0",
    "late_fusion_efficientnet_lite0",
    "cnn_lstm_efficientnet_lite0",
    "tsm_efficientnet_lite0_8f",
    "i3d_efficientnet_lite0",
)


def filled(name, size, seed=0, **options):
    """Returns a model and variables without zeros or ones."""
    model = vidjax.create_model(name, 7, **options)
    rng = np.random.default_rng(seed)

    def draw(x):
        fan = max(np.prod(x.shape[:-1]), 1)
        return (rng.uniform(0.5, 1.5, x.shape) * (np.sqrt(2 / fan) if x.ndim > 1 else 1)).astype(np.float32)

    variables = jax.tree.map(draw, abstract_variables(model, (size, size, 3)))
    signs = lambda x: x * rng.choice([-1, 1], x.shape).astype(np.float32) if x.ndim > 1 else x  # noqa: E731
    return model, {**variables, "params": jax.tree.map(signs, variables["params"])}


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def test_scaled_stages_match_the_reference():
    """Of lite2 in efficientnet_lite_pytorch: the first and the last stage are not deepened."""
    rows = [(c, n) for _, c, n, _, _ in scaled(1.1, 1.2)]
    assert rows == [(16, 1), (24, 3), (48, 3), (88, 4), (120, 4), (208, 5), (352, 1)]


def test_feature_sizes_match_table_1():
    model = vidjax.create_model("efficientnet_lite0")
    variables = abstract_variables(model, (224, 224, 3))
    _, ends = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32))
    sizes = [ends[f"stage{i}"].shape[1:] for i in range(1, 8)]
    assert sizes == [
        (112, 112, 16),
        (56, 56, 24),
        (28, 28, 40),
        (14, 14, 80),
        (14, 14, 112),
        (7, 7, 192),
        (7, 7, 320),
    ]
    kernels = {k: x["conv2"]["kernel"].shape[:2] for k, x in variables["params"].items() if "block0" in k}
    assert [kernels[f"stage{i}_block0"][0] for i in range(1, 8)] == [3, 3, 5, 3, 5, 5, 3]


def test_branch_hook_is_called_on_residual_blocks_only():
    model, called = vidjax.create_model("efficientnet_lite0", 3), []

    def before(name, x):
        called.append(name)
        return x, 2 * x

    x = jnp.zeros((1, 32, 32, 3))
    variables = abstract_variables(model, (32, 32, 3))
    jax.eval_shape(lambda v: model.apply(v, x, before_block=before), variables)
    assert called == [
        f"stage{i}_block{j}" for i, n in enumerate((1, 2, 2, 3, 3, 4, 1), 1) for j in range(1, n)
    ]


def test_stochastic_depth_drops_residual_branches_in_training():
    block = InvertedResidual(4, 2, (3, 3), (1, 1), 0.5, Conv, BatchNorm)
    x = random(64, 6, 6, 4)
    variables = jax.jit(block.init, static_argnums=2)(jax.random.key(0), x, False)
    run = partial(block.apply, variables, x, mutable=["batch_stats"], rngs={"dropout": jax.random.key(1)})
    dropped = lambda train: np.asarray(run(train)[0] == x).all((1, 2, 3))  # noqa: E731
    assert 0.3 < dropped(True).mean() < 0.7
    assert not dropped(False).any()


def test_stochastic_depth_rate_grows_linearly():
    rates = []

    def record(call, args, kwargs, context):
        if isinstance(context.module, InvertedResidual) and context.method_name == "__call__":
            rates.append(context.module.drop_path)
        return call(*args, **kwargs)

    with nn.intercept_methods(record):
        abstract_variables(vidjax.create_model("efficientnet_lite0"), (32, 32, 3))
    np.testing.assert_allclose(rates, 0.2 * np.arange(16) / 16)


@pytest.fixture(scope="module")
def image_and_clip():
    """Tiny weights, and the endpoints of the image network for each frame of a clip."""
    model, variables = filled("efficientnet_lite0", 32, tiny=True)
    clip = random(1, 13, 20, 23, 3)
    clip[:, 6:] = clip[:, 6:7]
    _, ends = jax.jit(model.apply)(variables, clip[0])
    return variables, clip, ends


def inflated(variables, mode):
    flat = flatten_dict(variables, sep="/")
    return vidjax.load_pretrained("i3d_efficientnet_lite0", flat, 5, tiny=True, inflation=mode)


def test_center_inflation_applies_the_image_network_to_each_frame(image_and_clip):
    variables, clip, want = image_and_clip
    model, ours = inflated(variables, "centre")
    assert ours["params"]["stage3_block0"]["conv2"]["kernel"].shape == (3, 5, 5, 1, 12)
    assert ours["params"]["head"]["bias"].shape == (5,)
    _, ends = jax.jit(model.apply)(ours, clip)
    for name in ("stem", "stage1", "stage2", "stage3"):
        np.testing.assert_allclose(ends[name][0], want[name], rtol=1e-4, atol=1e-4, err_msg=name)
    np.testing.assert_allclose(ends["pre_logits"][0], want["pre_logits"].mean(0), rtol=1e-4, atol=1e-4)


def test_average_inflation_equals_the_image_network_on_a_static_clip(image_and_clip):
    """Five windows of three frames: away from the padding of time, all frames equal the image's."""
    variables, clip, want = image_and_clip
    model, ours = inflated(variables, "average")
    still = np.repeat(clip[:, 6:7], 13, axis=1)
    _, ends = jax.jit(model.apply)(ours, still)
    for frame in (5, 6, 7):
        np.testing.assert_allclose(ends["stage3"][0, frame], want["stage3"][6], rtol=1e-4, atol=1e-4)
    assert np.abs(ends["stage3"][0, 0] - want["stage3"][6]).max() > 1e-2


@pytest.fixture(scope="module")
def source():
    """Random weights with the names of efficientnet_lite_pytorch."""
    _, variables = filled("efficientnet_lite0", 32)
    return export(
        flatten_dict(variables, sep="/"), rules_for("efficientnet_lite0", "efficientnet_lite_pytorch")
    )


@pytest.mark.parametrize("name", VIDEO)
def test_video_models_start_from_image_weights(name, source):
    weights = read_weights(name, source)
    assert weights.owner == "efficientnet_lite0" and weights.num_classes is None
    model = vidjax.create_model(name, 10)
    fresh = abstract_variables(model, vidjax.spec(name).input_shape)
    fresh = jax.tree.map(lambda x: jnp.zeros(x.shape), fresh)
    merged = flatten_dict(weights.merge_into(fresh), sep="/")
    trunk = "" if name.startswith("i3d") else "trunk/"
    kernel = merged[f"params/{trunk}stage6_block3/conv3/kernel"]
    want = source["_blocks.14._project_conv.weight"][:, :, 0, 0].T
    np.testing.assert_array_equal(np.squeeze(kernel), want)
    kept = {k for k, x in merged.items() if not np.any(x)}
    assert kept and all("/head/" in k or "/rnn1/" in k for k in kept)
    assert weights.preprocessing.differences(model, MEAN, STD) == ()
    assert (vidjax.spec(name).mean, vidjax.spec(name).std) == (MEAN, STD)
