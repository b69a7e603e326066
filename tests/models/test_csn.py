"""CSN: channels meet in 1x1x1 convolutions alone; shapes and strides of table 1."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm
from vidjax.models.conv3d.csn import PreservedBottleneck, ReducedBottleneck


def shapes(name, video_shape, **options):
    model = vidjax.create_model(name, **options)
    video = jax.ShapeDtypeStruct(video_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), video)
    return variables["params"], jax.eval_shape(model.apply, variables, video)[1]


@pytest.mark.parametrize("preserved", [False, True])
def test_window_convolutions_are_depthwise(preserved):
    params, _ = shapes("csn_ir_50", (1, 8, 64, 64, 3), preserved=preserved)
    kernels = {
        (block, layer): p["kernel"].shape
        for block, layers in params.items()
        if block.startswith("stage")
        for layer, p in layers.items()
        if "kernel" in p
    }
    windows = {k for k, shape in kernels.items() if shape[:3] == (3, 3, 3)}
    assert {layer for _, layer in windows} == {"conv2"}
    assert all(kernels[k][3] == 1 for k in windows)
    assert all(shape[:3] == (1, 1, 1) for k, shape in kernels.items() if k not in windows)


def test_ip_adds_a_pointwise_convolution_and_norm_to_ir():
    ir, ip = (shapes("csn_ir_50", (1, 8, 64, 64, 3), preserved=p)[0] for p in (False, True))
    for block in ir:
        more = {"conv2_point", "bn2_point"} if block.startswith("stage") else set()
        assert ip[block].keys() == ir[block].keys() | more


def test_feature_sizes_match_table_1():
    _, endpoints = shapes("csn_ir_101", (2, 32, 224, 224, 3))
    sizes = [(32, 56, 64), (32, 56, 256), (16, 28, 512), (8, 14, 1024), (4, 7, 2048)]
    for key, (t, s, c) in zip(("stem", "stage1", "stage2", "stage3", "stage4"), sizes):
        assert endpoints[key].shape == (2, t, s, s, c), key


@pytest.mark.parametrize("block, mixes", [(ReducedBottleneck, False), (PreservedBottleneck, True)])
def test_channels_interact_only_in_pointwise_convolutions(block, mixes):
    """Between the first and the last convolution of a block, ir keeps channels apart and ip mixes them."""
    block = block(2, Conv, BatchNorm)
    x = jax.random.normal(jax.random.key(0), (1, 4, 5, 5, 8))
    variables = block.init(jax.random.key(1), x, False)
    eye = jnp.eye(8, 2).reshape(1, 1, 1, 8, 2)
    kernels = {"conv1": {"kernel": eye}, "conv3": {"kernel": eye.swapaxes(3, 4)}}
    variables = {**variables, "params": variables["params"] | kernels}
    x = jnp.abs(x)  # so that ReLU lets all of it through
    added = lambda x: block.apply(variables, x, False)  # noqa: E731
    moved = np.asarray(added(x) != added(x.at[..., 0].add(5.0))).any((0, 1, 2, 3))
    assert moved[0] and moved[1] == mixes and not moved[2:].any()
