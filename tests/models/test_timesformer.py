"""TimeSformer: attention schemes, class token and zero-initialized layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.errors import UserError
from vidjax.models.transformers.timesformer import GROUPS, SCHEMES, SchemeBlock

GRID = (4, 4, 6)
WHO_SEES_WHOM = {
    "time": lambda a, b: a[1:] == b[1:],
    "space": lambda a, b: a[0] == b[0],
    "joint": lambda a, b: True,
    "width": lambda a, b: a[:2] == b[:2],
    "height": lambda a, b: a[0] == b[0] and a[2] == b[2],
    "local": lambda a, b: (a[1] // 2, a[2] // 3) == (b[1] // 2, b[2] // 3),
    "global": lambda a, b: all((i - j) % 2 == 0 for i, j in zip(a, b)),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_attention_groups_match_their_definition(kind):
    number = jnp.arange(np.prod(GRID)).reshape(1, *GRID, 1)
    groups = GROUPS[kind].gather(number)
    assert (GROUPS[kind].scatter(groups, GRID) == number).all()
    place = list(np.ndindex(GRID))
    for group in np.asarray(groups)[0, :, :, 0]:
        members = {place[i] for i in group}
        assert members == {b for b in place if WHO_SEES_WHOM[kind](place[group[0]], b)}


def model_and_variables(scheme, frames=4, **options):
    model = vidjax.create_model(f"timesformer_b_8x32{scheme}", 5, tiny=True, frames=frames, **options)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, frames, 32, 32, 3))
    return model, jax.jit(model.init)(jax.random.PRNGKey(0), x), x


def blocks_on(scheme, seed=0):
    block = SchemeBlock(scheme, GRID, 2, 16)
    frames = GRID[0] if scheme == "space" else 1
    x = jax.random.normal(jax.random.PRNGKey(2), (2, frames + 96, 8))
    variables = block.init(jax.random.PRNGKey(seed), x)
    noise = lambda p: p + 0.2 * jax.random.normal(jax.random.PRNGKey(3), p.shape)  # noqa: E731
    return block, jax.tree.map(noise, variables), x, frames


@pytest.mark.parametrize("scheme", ["divided", "joint", "space"])
def test_dense_schemes_are_equivariant_to_spatial_permutations(scheme):
    block, variables, x, frames = blocks_on(scheme)
    order = np.random.default_rng(0).permutation(24)

    def permute(x):
        patches = x[:, frames:].reshape(2, 4, 24, 8)[:, :, order]
        return jnp.concatenate([x[:, :frames], patches.reshape(2, 96, 8)], axis=1)

    got, want = block.apply(variables, permute(x))[0], permute(block.apply(variables, x)[0])
    np.testing.assert_allclose(got, want, atol=2e-5)


@pytest.mark.parametrize("scheme", ["local_global", "axial"])
def test_sparse_schemes_are_not_equivariant(scheme):
    block, variables, x, _ = blocks_on(scheme)
    order = np.random.default_rng(0).permutation(24)
    y = jnp.concatenate([x[:, :1], x[:, 1:].reshape(2, 4, 24, 8)[:, :, order].reshape(2, 96, 8)], axis=1)
    want = block.apply(variables, x)[0][:, 1:].reshape(2, 4, 24, 8)[:, :, order].reshape(2, 96, 8)
    assert float(jnp.abs(block.apply(variables, y)[0][:, 1:] - want).max()) > 1e-2


def test_still_clip_matches_image_model_at_initialization():
    """Space-only on one frame equals the image ViT, as does divided attention at initialization."""
    divided, variables, x = model_and_variables("")
    still = jnp.repeat(x[:, :1], 4, axis=1)
    image = vidjax.create_model("timesformer_b_8x32_space", 5, tiny=True, frames=1)
    params = {k: v for k, v in variables["params"].items() if k != "time_embed"}
    params = {
        k: {n: p for n, p in v.items() if not n.startswith("time_")} if k.startswith("block") else v
        for k, v in params.items()
    }
    want, _ = image.apply({"params": params}, x[:, :1])
    np.testing.assert_allclose(divided.apply(variables, still)[0], want, rtol=1e-5, atol=1e-6)
    loud = jax.tree_util.tree_map_with_path(
        lambda path, p: (
            p + jnp.sin(jnp.arange(p.size)).reshape(p.shape) if "time_fc" in jax.tree_util.keystr(path) else p
        ),
        variables,
    )
    assert float(jnp.abs(divided.apply(loud, still)[0] - want).max()) > 1e-3


def test_joint_attention_on_one_frame_equals_space_only():
    joint, variables, x = model_and_variables("_joint", frames=1)
    space, _, _ = model_and_variables("_space", frames=1)
    params = {k: v for k, v in variables["params"].items() if k != "time_embed"}
    np.testing.assert_allclose(
        joint.apply(variables, x)[0], space.apply({"params": params}, x)[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize("scheme", ["", pytest.param("_axial", marks=pytest.mark.slow)])
def test_scan_and_remat_keep_outputs(scheme):
    from vidjax.layers.stacking import stack_blocks

    model, variables, x = model_and_variables(scheme)
    stacked = {"params": stack_blocks(variables["params"])}
    want = model.apply(variables, x)[0]
    for options in (dict(scan=True), dict(scan=True, remat="full"), dict(remat="dots")):
        other, own, _ = model_and_variables(scheme, **options)
        params = stacked if options.get("scan") else variables
        assert jax.tree.structure(own) == jax.tree.structure(params)
        np.testing.assert_allclose(other.apply(params, x)[0], want, rtol=1e-5, atol=1e-6)


def test_return_attention_shapes():
    model, variables, x = model_and_variables("", return_attention=True)
    _, endpoints = model.apply(variables, x)
    assert endpoints["time_attention"].shape == (2, 2, 16, 2, 4, 4)  # layers, B, places, heads, T, T
    assert endpoints["attention"].shape == (2, 2, 4, 2, 17, 17)
    np.testing.assert_allclose(endpoints["attention"].sum(-1), 1, rtol=1e-5)
    grid = model.token_grid((4, 32, 32, 3))
    assert grid.count == endpoints["tokens"].shape[1] == 65


def test_odd_grid_and_unknown_scheme_are_rejected():
    model = vidjax.create_model("timesformer_b_8x32_local_global", 5, tiny=True)
    with pytest.raises(UserError, match="even grid"):
        jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, 3, 32, 32, 3)))
    model = vidjax.create_model("timesformer_b_8x32", 5, tiny=True, scheme="divide")
    with pytest.raises(UserError, match="did you mean divided"):
        jax.eval_shape(model.init, jax.random.PRNGKey(0), jnp.zeros((1, 4, 32, 32, 3)))
    assert set(SCHEMES) == {"divided", "joint", "space", "local_global", "axial"}
