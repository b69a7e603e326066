"""Every CPU lowering of a convolution against XLA's own: values, gradients, shapes and dtypes."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from vidjax.layers.conv import conv
from vidjax.layers.cpu.winograd import winograd


def arrays(x_shape, kernel_shape, dtype=jnp.float32):
    keys = jax.random.split(jax.random.key(0), 2)
    return jax.random.normal(keys[0], x_shape, dtype), jax.random.normal(keys[1], kernel_shape, dtype)


def run(f, x, kernel):
    """Returns the output and both gradients for a fixed random output gradient.

    Compiled with XLA's default fusion emitters, which tests/conftest.py turns off.
    """

    @partial(jax.jit, compiler_options={"xla_cpu_use_fusion_emitters": True})
    def both(x, kernel):
        y, vjp = jax.vjp(f, x, kernel)
        return y, *vjp(jax.random.normal(jax.random.key(1), y.shape, y.dtype))

    return both(x, kernel)


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


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 3e-6), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    "x, kernel, strides, pads, dilation, groups",
    [
        ((2, 5, 9, 7, 4), (3, 3, 3, 4, 6), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), (1, 1, 1), 1),
        ((2, 6, 9, 10, 3), (3, 5, 5, 3, 5), (2, 2, 2), ((1, 0), (2, 1), (0, 2)), (1, 1, 1), 1),
        ((1, 8, 7, 7, 4), (3, 3, 3, 4, 4), (1, 2, 1), ((2, 2), (1, 1), (3, 3)), (2, 1, 3), 1),
        ((2, 5, 8, 6, 6), (3, 3, 3, 2, 9), (2, 1, 2), ((1, 1), (1, 1), (0, 0)), (1, 1, 1), 3),
        ((1, 5, 6, 6, 4), (5, 1, 1, 1, 4), (1, 1, 1), ((4, 0), (0, 0), (0, 0)), (1, 1, 1), 4),
        ((2, 6, 9, 8, 5), (1, 1, 1, 5, 7), (2, 2, 2), ((0, 0), (0, 0), (0, 0)), (1, 1, 1), 1),
        ((2, 7, 6, 5, 6), (3, 1, 1, 6, 4), (1, 1, 2), ((1, 1), (0, 1), (1, 0)), (2, 1, 1), 1),
        ((1, 7, 6, 5, 5), (3, 1, 1, 5, 2), (2, 1, 3), ((1, 1), (1, 0), (0, 2)), (2, 1, 1), 1),
        ((2, 9, 7, 3), (3, 3, 3, 5), (2, 1), ((1, 1), (0, 2)), (1, 2), 1),
        ((2, 9, 7, 3), (1, 1, 3, 5), (2, 2), ((0, 0), (0, 0)), (1, 1), 1),
    ],
)
def test_taps_equal_xla(x, kernel, strides, pads, dilation, groups, dtype, tolerance):
    x, kernel = arrays(x, kernel, dtype)

    def ours(x, kernel):
        return conv(x, kernel, strides, pads, dilation=dilation, groups=groups, lowering="taps")

    reference = run(lambda x, kernel: xla(x, kernel, strides, pads, dilation, groups), x, kernel)
    assert_same(run(ours, x, kernel), reference, tolerance)


@pytest.mark.parametrize(
    "x, kernel, pads",
    [
        ((2, 5, 13, 10, 4), (3, 3, 3, 4, 6), ((1, 1), (1, 1), (1, 1))),
        ((1, 37, 8, 8, 3), (3, 3, 3, 3, 5), ((1, 1), (1, 1), (1, 1))),  # several blocks, the last one short
        ((2, 4, 30, 33, 3), (1, 3, 3, 3, 2), ((0, 0), (1, 1), (1, 1))),
        ((1, 6, 3, 9, 3), (2, 3, 3, 3, 2), ((1, 0), (0, 0), (2, 0))),
        ((1, 7, 1, 2, 3), (5, 3, 3, 3, 2), ((4, 0), (1, 1), (0, 1))),
        ((3, 13, 10, 4), (3, 3, 4, 6), ((1, 1), (0, 2))),
    ],
)
def test_winograd_equals_xla(x, kernel, pads):
    x, kernel = arrays(x, kernel)
    ours = run(lambda x, kernel: conv(x, kernel, 1, pads, lowering="winograd"), x, kernel)
    assert_same(ours, run(lambda x, kernel: xla(x, kernel, (1,) * len(pads), pads), x, kernel), 8e-6)


@pytest.mark.parametrize("channels", [15, 20])  # few are joined across the taps
@pytest.mark.parametrize("window", [(3, 1, 1), (2, 3, 3)])
def test_taps_equal_xla_with_and_without_concatenated_channels(channels, window):
    x, kernel = arrays((2, 7, 6, 5, channels), (*window, channels, 4))
    pads = ((1, 0), (1, 1), (0, 1))
    ours = run(lambda x, kernel: conv(x, kernel, (2, 1, 2), pads, lowering="taps"), x, kernel)
    assert_same(ours, run(lambda x, kernel: xla(x, kernel, (2, 1, 2), pads), x, kernel), 3e-6)


@pytest.mark.parametrize("dtype, tolerance", [(jnp.float32, 3e-6), (jnp.bfloat16, 2e-2)])
@pytest.mark.parametrize(
    "x, window, strides, pads, dilation",
    [
        ((2, 5, 9, 7, 6), (3, 3, 3), (1, 1, 1), ((1, 1), (1, 1), (1, 1)), (1, 1, 1)),
        ((1, 8, 9, 7, 6), (5, 3, 1), (2, 2, 1), ((4, 0), (1, 1), (0, 1)), (1, 2, 1)),
        ((3, 9, 7, 6), (3, 5), (1, 2), ((1, 1), (2, 0)), (1, 1)),
        (
            (2, 6, 10, 11, 6),
            (1, 3, 5),
            (2, 3, 2),
            ((0, 0), (1, 1), (2, 2)),
            (1, 2, 1),
        ),  # phases without a tap
    ],
)
def test_shifts_equal_xla(x, window, strides, pads, dilation, dtype, tolerance):
    x, kernel = arrays(x, (*window, 1, 6), dtype)

    def ours(x, kernel):
        return conv(x, kernel, strides, pads, dilation=dilation, groups=6, lowering="shifts")

    reference = run(lambda x, kernel: xla(x, kernel, strides, pads, dilation, 6), x, kernel)
    assert_same(run(ours, x, kernel), reference, tolerance)


def test_winograd_rounding_error_is_below_2e_6():
    x, kernel = arrays((1, 4, 16, 16, 64), (3, 3, 3, 64, 64))
    y = np.asarray(jax.jit(lambda x, k: winograd(x, k, ((1, 1),) * 3))(x, kernel))
    padded = np.pad(np.asarray(x, np.float64), ((0, 0), (1, 1), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3, 3), (1, 2, 3))
    exact = np.einsum("bthwcijk,ijkcd->bthwd", windows, np.asarray(kernel, np.float64), optimize=True)
    assert np.sqrt(np.mean((y - exact) ** 2) / np.mean(exact**2)) < 2e-6


def test_winograd_on_a_sharded_batch_matches_one_device():
    mesh = jax.make_mesh((4,), ("data",), axis_types=(AxisType.Auto,))
    x, kernel = arrays((8, 3, 9, 9, 4), (3, 3, 3, 4, 5))
    f = lambda x, kernel: winograd(x, kernel, ((1, 1),) * 3)  # noqa: E731
    spread = jax.device_put(x, NamedSharding(mesh, PartitionSpec("data")))
    assert_same(run(f, spread, kernel), run(f, x, kernel), 1e-6)


@pytest.mark.parametrize(
    "x, kernel, strides, padding",
    [
        ((1, 16, 56, 56, 64), (3, 3, 3, 64, 64), 1, 1),
        ((1, 8, 28, 28, 128), (3, 3, 3, 128, 256), 2, 1),
        ((1, 16, 112, 112, 3), (3, 7, 7, 3, 64), (1, 2, 2), (1, 3, 3)),
    ],
)
def test_no_3d_convolution_reaches_xla_on_the_cpu(x, kernel, strides, padding):
    def step(x, kernel):
        y, vjp = jax.vjp(lambda x, kernel: conv(x, kernel, strides, padding), x, kernel)
        return vjp(y)

    text = str(jax.make_jaxpr(step)(*(jax.ShapeDtypeStruct(s, jnp.float32) for s in (x, kernel))))
    assert "lhs_spec=(0, 4, 1, 2, 3)" not in text
    native = str(jax.make_jaxpr(lambda x, kernel: conv(x, kernel, strides, padding, lowering="native"))(
        *(jax.ShapeDtypeStruct(s, jnp.float32) for s in (x, kernel))
    ))  # fmt: skip
    assert "lhs_spec=(0, 4, 1, 2, 3)" in native
