"""`Conv` and its padding arguments against XLA's own convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vidjax.layers.conv import Conv, conv


def arrays(x_shape, kernel_shape, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], x_shape, dtype), jax.random.normal(keys[1], kernel_shape, dtype)


def assert_same(ours, reference, tolerance):
    for a, b in zip(ours, reference):
        assert a.shape == b.shape and a.dtype == b.dtype
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert abs(a - b).max() <= tolerance * abs(b).max()


def xla(x, kernel, strides, pads, dilation=None, groups=1):
    axes = "THW"[-(x.ndim - 2) :]
    numbers = (f"N{axes}C", f"{axes}IO", f"N{axes}C")
    return lax.conv_general_dilated(
        x,
        kernel,
        strides,
        pads,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=groups,
    )


@pytest.mark.parametrize("padding", [1, (1, 1, 1), ((1, 1), (1, 1), (1, 1)), "SAME"])
def test_equivalent_padding_arguments_match(padding):
    x, kernel = arrays((1, 4, 5, 6, 3), (3, 3, 3, 3, 2))
    reference = xla(x, kernel, (1, 1, 1), ((1, 1),) * 3)
    assert_same([conv(x, kernel, padding=padding)], [reference], 3e-6)


def test_module_matches_xla_in_1d_2d_and_3d():
    for shape in ((2, 9, 4), (2, 9, 8, 4), (2, 5, 9, 8, 4)):
        n = len(shape) - 2
        x, kernel = arrays(shape, (3,) * n + (2, 6))
        module = Conv(6, (3,) * n, 2, 1, use_bias=True, feature_group_count=2, dtype=jnp.bfloat16)
        params = module.init(jax.random.key(0), x)["params"]
        shapes = jax.tree.map(lambda p: (p.shape, p.dtype.name), params)
        assert shapes == {"kernel": (kernel.shape, "float32"), "bias": ((6,), "float32")}
        bias = jnp.arange(6.0)
        y = module.apply({"params": {"kernel": kernel, "bias": bias}}, x)
        half = xla(x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16), (2,) * n, ((1, 1),) * n, groups=2)
        reference = half + bias.astype(jnp.bfloat16).reshape((1,) * (n + 1) + (6,))
        assert_same([y], [reference], 1e-2)
