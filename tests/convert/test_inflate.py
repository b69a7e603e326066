"""Tests that inflated networks are equivalent to their image networks."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.convert.inflate import (
    adapt_channels,
    factorise_positions,
    inflate,
    inflate_kernel,
    interpolate_positions,
    tile_positions,
)
from vidjax.errors import UserError
from vidjax.layers.conv import Conv
from vidjax.layers.norm import BatchNorm


class Net(nn.Module):
    """Two convolutions, a norm and a classifier; for images if `frames` is empty, else for clips."""

    frames: tuple[int, ...] = ()
    pad_time: int = 0

    @nn.compact
    def __call__(self, x):
        for i, stride in enumerate((2, 1)):
            time = [(n if i == 0 else 1) for n in self.frames]
            pad = (*[self.pad_time * (n // 2) for n in time], 1, 1)
            steps = (*[1 for _ in time], stride, stride)
            x = Conv(5, (*time, 3, 3), steps, pad, use_bias=True, name=f"conv{i}")(x)
            x = nn.relu(BatchNorm(name=f"bn{i}")(x, False))
        return x, nn.Dense(4, name="head")(x)


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def filled(model, x):
    variables = jax.eval_shape(model.init, jax.random.PRNGKey(0), x)
    return jax.tree.map(lambda s: np.abs(random(*s.shape)) + 0.1, variables)


@pytest.mark.parametrize("mode", ["average", "centre"])
@pytest.mark.parametrize("frames", [2, 3])
def test_inflated_network_equals_image_network_on_a_static_clip(mode, frames):
    image = random(2, 11, 9, 3)
    weights = filled(Net(), image)
    clip = np.repeat(image[:, None], 5, axis=1)
    net = Net((frames,))
    inflated = inflate(weights, jax.eval_shape(net.init, jax.random.PRNGKey(0), clip), mode)
    got, want = net.apply(inflated, clip), Net().apply(weights, image)
    for g, w in zip(got, want):
        assert g.shape[1] == 6 - frames  # the window stays inside the clip
        np.testing.assert_allclose(g, np.broadcast_to(w[:, None], g.shape), rtol=1e-4, atol=1e-4)


def test_centre_applies_the_image_network_to_each_frame():
    clip = random(1, 5, 11, 9, 3)
    weights = filled(Net(), clip[:, 0])
    net = Net((3,), pad_time=1)
    target = jax.eval_shape(net.init, jax.random.PRNGKey(0), clip)
    want = np.stack([Net().apply(weights, clip[:, t])[1] for t in range(5)], axis=1)
    np.testing.assert_allclose(net.apply(inflate(weights, target, "centre"), clip)[1], want, rtol=1e-4)
    average = net.apply(inflate(weights, target, "average"), clip)[1]
    assert np.abs(average - want).max() > 0.1


def test_inflate_lists_all_mismatches():
    weights, clip = filled(Net(), random(1, 8, 8, 3)), random(1, 4, 8, 8, 3)
    target = jax.eval_shape(Net((3,)).init, jax.random.PRNGKey(0), clip)
    weights["params"]["old"] = {"kernel": random(2, 2)}
    weights["params"]["conv0"]["kernel"] = random(3, 3, 3, 7)
    del weights["batch_stats"]["bn1"]
    with pytest.raises(UserError) as e:
        inflate(weights, target)
    for part in (
        "params/old/kernel (2, 2): only in the image network",
        "batch_stats/bn1/mean (5,): only in the video network",
        "params/conv0/kernel: (3, 3, 3, 7) cannot be inflated to (3, 3, 3, 3, 5)",
    ):
        assert part in str(e.value)
    with pytest.raises(UserError, match="average"):
        inflate_kernel(random(3, 3), 2, "averag")


def test_inflate_omits_skipped_paths():
    weights = filled(Net(), random(1, 8, 8, 3))
    del weights["params"]["head"]
    target = jax.eval_shape(Net((3,)).init, jax.random.PRNGKey(0), random(1, 4, 8, 8, 3))
    assert "head" not in inflate(weights, target, skip=("params/head",))["params"]


def test_tubelet_embedding_equals_patch_embedding_on_a_static_clip():
    patch, image = random(4, 4, 3, 6), random(8, 12, 3)
    tokens = lambda x, k: jnp.einsum("...i,io->...o", x, k.reshape(-1, k.shape[-1]))  # noqa: E731
    cut = image.reshape(2, 4, 3, 4, 3).transpose(0, 2, 1, 3, 4)  # [2, 3 patches, 4, 4, 3]
    want = tokens(cut.reshape(2, 3, -1), patch)
    tubes = np.repeat(cut[:, :, None], 2, axis=2).reshape(2, 3, -1)
    for mode in ("average", "centre"):
        np.testing.assert_allclose(tokens(tubes, inflate_kernel(patch, 2, mode)), want, rtol=1e-4, atol=1e-5)


def test_adapted_channels_preserve_the_output():
    kernel = random(3, 3, 3, 8)
    gray = random(5, 3, 3, 1)
    apply = lambda x, k: np.einsum("bhwi,hwio->bo", x, k)  # noqa: E731
    want = apply(np.repeat(gray, 3, axis=-1), kernel)
    for channels in (1, 2, 20):
        adapted = adapt_channels(kernel, channels)
        assert adapted.shape == (3, 3, channels, 8) and adapted.dtype == np.float32
        np.testing.assert_allclose(
            apply(np.repeat(gray, channels, axis=-1), adapted), want, rtol=1e-4, atol=1e-4
        )
    frame = random(5, 3, 3, 3)
    tiled = apply(np.tile(frame, 4), adapt_channels(kernel, 12, "tile"))
    np.testing.assert_allclose(tiled, apply(frame, kernel), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match="not a multiple"):
        adapt_channels(kernel, 10, "tile")
    with pytest.raises(UserError, match="average"):
        adapt_channels(kernel, 10, "mean")


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("grid", [(6,), (4, 5), (3, 4, 2)])
def test_positions_survive_upsampling_and_downsampling(grid, method):
    positions = random(1 + int(np.prod(grid)), 7)
    np.testing.assert_array_equal(interpolate_positions(positions, grid, grid, 1, method), positions)
    finer = tuple(3 * n for n in grid)
    up = interpolate_positions(positions, grid, finer, 1, method)
    assert up.shape == (1 + np.prod(finer), 7)
    np.testing.assert_array_equal(up[0], positions[0])
    np.testing.assert_allclose(interpolate_positions(up, finer, grid, 1, method), positions, atol=1e-5)


def test_interpolation_preserves_the_order_of_axes():
    rows, columns = np.meshgrid(np.arange(4.0), np.arange(6.0), indexing="ij")
    positions = np.stack([rows, columns], axis=-1).reshape(-1, 2).astype(np.float32)
    halved = interpolate_positions(positions, (4, 6), (2, 3), method="linear").reshape(2, 3, 2)
    np.testing.assert_allclose(halved[:, :, 0], np.broadcast_to([[0.5], [2.5]], (2, 3)), atol=1e-6)
    np.testing.assert_allclose(halved[:, :, 1], np.broadcast_to([[0.5, 2.5, 4.5]], (2, 3)), atol=1e-6)


@pytest.mark.parametrize("grid, new", [((4, 5), (8, 8)), ((4, 6), (8,))])
def test_positions_that_do_not_match_the_grid_are_rejected(grid, new):
    with pytest.raises(UserError, match="24 positions"):
        interpolate_positions(random(24, 3), grid, new)


def test_tiled_and_factorized_positions():
    image = random(1 + 6, 4)
    tiled = tile_positions(image, 3, prefix=1)
    assert tiled.shape == (1 + 18, 4)
    np.testing.assert_array_equal(tiled[1:].reshape(3, 6, 4), np.broadcast_to(image[None, 1:], (3, 6, 4)))
    space, time = factorise_positions(tiled[1:], 3)
    np.testing.assert_allclose(space, image[1:], atol=1e-6)
    np.testing.assert_allclose(time, np.zeros((3, 4)), atol=1e-6)
    joint = random(1, 6, 4) + random(3, 1, 4)
    space, time = factorise_positions(joint.reshape(18, 4), 3)
    np.testing.assert_allclose(space[None] + time[:, None], joint, atol=1e-6)
