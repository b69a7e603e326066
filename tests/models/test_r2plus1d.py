"""R(2+1)D: intermediate widths and factorized convolutions."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.layers.conv import Conv, conv
from vidjax.models import create_model
from vidjax.models.conv3d.r2plus1d import Conv2Plus1D, middle_width


def params(name, **options):
    model = create_model(name, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))["params"]


def test_intermediate_widths_match_equation():
    pairs = [(64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    assert [middle_width(*p) for p in pairs] == [144, 230, 288, 460, 576, 921, 1152]


def test_factorized_parameter_counts():
    factors = lambda middle: 9 * 64 * middle + 3 * middle * 64  # noqa: E731
    assert factors(64) == 49_152 and 27 * 64 * 64 == 110_592 == factors(144)
    block = params("r2plus1d_18")["stage1_block0"]["conv1"]
    assert block["space"]["kernel"].size + block["time"]["kernel"].size == factors(144)


def test_width_rules_differ_where_a_block_widens():
    for rule, width in (("torchvision", 230), ("paper", 288)):
        p = params("r2plus1d_18", rule=rule)
        assert p["stage2_block0"]["conv1"]["space"]["kernel"].shape == (1, 3, 3, 64, 230)
        assert p["stage2_block0"]["conv2"]["time"]["kernel"].shape == (3, 1, 1, width, 128)
        assert p["stage2_block1"]["conv2"]["time"]["kernel"].shape == (3, 1, 1, 288, 128)
    with pytest.raises(UserError, match="did you mean paper"):
        params("r2plus1d_18", rule="papre")


def test_34_layers_with_torchvision_widths():
    counts = {
        r: sum(p.size for p in jax.tree.leaves(params("r2plus1d_34", rule=r)))
        for r in ("paper", "torchvision")
    }
    assert counts == {"paper": 63_697_175, "torchvision": 61_831_661}


def test_temporal_convolution_position_in_blocks():
    basic, bottleneck = params("r2plus1d_18")["stage2_block0"], params("r2plus1d_r50_16x4")["stage2_block0"]
    entering = lambda conv, part: conv[part]["kernel"].shape[-2]  # noqa: E731
    assert entering(basic["conv1"], "space") == 64 and entering(basic["conv1"], "time") == 230
    assert entering(bottleneck["conv2"], "time") == 128 == entering(bottleneck["conv2"], "space")
    model = create_model("r2plus1d_r50_16x4")
    video = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
    e = jax.eval_shape(model.apply, jax.eval_shape(model.init, jax.random.key(0), video), video)[1]
    sizes = [e[k].shape[1:3] for k in ("stem", "stage1", "stage2", "stage3", "stage4")]
    assert sizes == [(16, 112), (16, 56), (16, 28), (8, 14), (4, 7)]


def test_stem_is_factorized():
    p = params("r2plus1d_18")
    assert p["stem_conv"]["kernel"].shape == (1, 7, 7, 3, 45)
    assert p["stem_time_conv"]["kernel"].shape == (3, 1, 1, 45, 64)


def test_linear_factors_equal_a_product_kernel():
    """Without norm and ReLU, the two factors are a 3D convolution with the product kernel."""
    x = jax.random.uniform(jax.random.key(1), (1, 5, 9, 7, 4))
    stats = lambda name: lambda y, train: y  # noqa: E731
    module = Conv2Plus1D(6, 10, partial(Conv, kernel_init=jax.nn.initializers.uniform(1.0)), stats, (2, 2, 2))
    variables = module.init(jax.random.key(0), x, False)
    p = variables["params"]  # positive numbers, which the ReLU leaves alone
    product = jnp.einsum("hwim,tmo->thwio", p["space"]["kernel"][0], p["time"]["kernel"][:, 0, 0])
    np.testing.assert_allclose(module.apply(variables, x, False), conv(x, product, (2, 2, 2), 1), rtol=1e-5)
