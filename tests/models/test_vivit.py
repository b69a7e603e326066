"""ViViT's four models, and their initialization from an image ViT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from safetensors.numpy import save_file

import vidjax
from vidjax.config import resolve
from vidjax.convert import load, read_weights
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.errors import UserError
from vidjax.layers.stacking import stack_blocks
from vidjax.models.transformers.vivit import SpaceThenTime, SplitHeads
from vidjax.train.experiment import build, initial_state

NAMES = ("", "_fe", "_fsa", "_fdp")
GRID = (3, 2, 2)


def model_and_variables(kind="", frames=4, **options):
    model = vidjax.create_model(f"vivit_b_16x2{kind}", 5, tiny=True, frames=frames, **options)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, frames, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)
    return model, jax.tree.map(_moved, variables), x


def _moved(p):
    return p + 0.1 * jax.random.normal(jax.random.PRNGKey(p.size), p.shape)


@pytest.mark.parametrize("kind", ["_fe", "_fsa"])
def test_scan_and_remat_keep_outputs(kind):
    model, variables, x = model_and_variables(kind)
    other, own, _ = model_and_variables(kind, scan=True, remat="full")
    stacked = {"params": stack_blocks(variables["params"])}
    assert jax.tree.structure(own) == jax.tree.structure(stacked)
    want = jax.jit(model.apply)(variables, x)[0]
    np.testing.assert_allclose(jax.jit(other.apply)(stacked, x)[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", NAMES)
def test_token_grid_and_attention_map_shapes(kind):
    model = vidjax.create_model(f"vivit_b_16x2{kind}", 5, tiny=True, return_attention=True)
    x = jnp.zeros((2, 4, 32, 32, 3))
    (_, endpoints), _ = jax.eval_shape(model.init_with_output, jax.random.PRNGKey(0), x)
    grid = model.token_grid((4, 32, 32, 3))
    assert grid.shape == (2, 4, 4) and endpoints["tokens"].shape == (2, grid.count, 16)
    # layers, then [B, heads, N, N], or B, groups, ...
    shapes = {
        "": {"attention": (2, 2, 2, 33, 33)},
        "_fe": {"attention": (2, 2, 2, 2, 17, 17), "time_attention": (1, 2, 2, 3, 3)},
        "_fsa": {"attention": (2, 2, 2, 2, 16, 16), "time_attention": (2, 2, 16, 2, 2, 2)},
        "_fdp": {"attention": (2, 2, 2, 1, 16, 16), "time_attention": (2, 2, 16, 1, 2, 2)},
    }
    assert {k: x.shape for k, x in endpoints.items() if "attention" in k} == shapes[kind]


def brute_force(params, x, h, sees):
    """Computes attention in numpy, each head restricted to the mask `sees[head]` [N, N]."""
    (b, n, d), params = x.shape, jax.tree.map(np.asarray, params)
    qkv = (x @ params["qkv"]["kernel"] + params["qkv"]["bias"]).reshape(b, n, 3, h, d // h)
    scores = np.einsum("bnhd,bmhd->bhnm", qkv[:, :, 0], qkv[:, :, 1]) / np.sqrt(d // h)
    weights = np.where(sees[None], np.exp(scores), 0.0)
    weights /= weights.sum(-1, keepdims=True)
    y = np.einsum("bhnm,bmhd->bnhd", weights, qkv[:, :, 2]).reshape(b, n, d)
    return y @ params["proj"]["kernel"] + params["proj"]["bias"]


def who_sees_whom():
    place = np.arange(12).reshape(3, 4)
    t, s = place // 4, place % 4
    same_time = t.reshape(-1, 1) == t.reshape(1, -1)
    same_place = s.reshape(-1, 1) == s.reshape(1, -1)
    return same_time, same_place


def test_dot_product_heads_split_into_space_and_time():
    layer, x = SplitHeads(GRID, 4), jax.random.normal(jax.random.PRNGKey(0), (2, 12, 8))
    params = jax.tree.map(_moved, layer.init(jax.random.PRNGKey(1), x, False))["params"]
    space, time = who_sees_whom()
    want = brute_force(params, np.asarray(x), 4, np.stack([space, space, time, time]))
    np.testing.assert_allclose(layer.apply({"params": params}, x, False)[0], want, rtol=1e-4, atol=1e-5)


def test_odd_number_of_heads_is_rejected():
    with pytest.raises(UserError, match="heads must be even, got 3"):
        vidjax.create_model("vivit_b_16x2_fdp", 3, tiny=True, heads=3).init(
            jax.random.PRNGKey(0), jnp.zeros((1, 4, 32, 32, 3))
        )


def test_factorized_attention_is_spatial_then_temporal():
    layer, x = SpaceThenTime(GRID, 2, 16), jax.random.normal(jax.random.PRNGKey(0), (2, 12, 8))
    params = jax.tree.map(_moved, layer.init(jax.random.PRNGKey(1), x))["params"]
    muted = jax.tree.map(jnp.zeros_like, params["mlp"])
    params = {**params, "mlp": muted}
    space, time = who_sees_whom()

    def norm(x, p):
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        return x * np.asarray(p["scale"]) + np.asarray(p["bias"])

    y = np.asarray(x)
    for attn, name, sees in (("attn", "norm1", space), ("time_attn", "time_norm", time)):
        y = y + brute_force(params[attn], norm(y, params[name]), 2, np.stack([sees] * 2))
    np.testing.assert_allclose(layer.apply({"params": params}, x)[0], y, rtol=1e-4, atol=1e-5)


def test_factorized_encoder_processes_slices_independently():
    """Its first encoder's tokens of a slice depend on that slice alone."""
    model, variables, x = model_and_variables("_fe")
    apply = jax.jit(model.apply)
    a, b = (apply(variables, x)[1], apply(variables, x.at[:, 2:].set(0.0))[1])
    np.testing.assert_array_equal(a["tokens"][:, :16], b["tokens"][:, :16])
    assert float(jnp.abs(a["tokens"][:, 16:] - b["tokens"][:, 16:]).max()) > 1e-2
    assert float(jnp.abs(a["time_tokens"][:, 1] - b["time_tokens"][:, 1]).max()) > 1e-3


def test_uniform_sampling_takes_central_frames():
    model, variables, x = model_and_variables(embedding="uniform")
    assert variables["params"]["patch_embed"]["kernel"].shape == (1, 8, 8, 3, 16)
    want = jax.jit(model.apply)(variables, x)[0]
    np.testing.assert_array_equal(jax.jit(model.apply)(variables, x.at[:, ::2].set(7.0))[0], want)
    tubes = model.clone(embedding="tubelet")
    flat = flatten_dict(variables, sep="/")
    kernel = flat["params/patch_embed/kernel"]
    flat["params/patch_embed/kernel"] = jnp.concatenate([jnp.zeros_like(kernel), kernel])
    same = unflatten_dict(flat, sep="/")
    np.testing.assert_allclose(jax.jit(tubes.apply)(same, x)[0], want, rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="did you mean uniform"):
        vidjax.create_model("vivit_b_16x2", tiny=True, embedding="uniforn").init(jax.random.PRNGKey(0), x)


@pytest.mark.parametrize(
    "name", ["vit_s_16", "vivit_b_16x2", *(f"vivit_b_16x2_{k}" for k in ("fe", "fsa", "fdp"))]
)
def test_encoder_kernels_use_glorot_uniform(name):
    model = vidjax.create_model(name, 5, tiny=True)
    x = jnp.zeros((1, *vidjax.spec(name).tiny_input_shape))
    params = flatten_dict(jax.jit(model.init)(jax.random.PRNGKey(0), x)["params"], sep="/")
    kernels = {k: p for k, p in params.items() if "block" in k and p.ndim == 2}
    assert len(kernels) >= 8
    for path, kernel in kernels.items():
        limit = (6 / sum(kernel.shape)) ** 0.5
        assert 0.95 * limit < jnp.abs(kernel).max() <= limit, path


def test_positions_transfer_to_other_clip_sizes():
    model = vidjax.create_model("vivit_b_16x2", 5, tiny=True)
    x = jnp.zeros((1, 6, 48, 32, 3))
    (_, endpoints), _ = jax.eval_shape(model.init_with_output, jax.random.PRNGKey(0), x)
    assert endpoints["tokens"].shape == (1, 1 + 3 * 6 * 4, 16)


# --- initialization from an image ViT ---


@pytest.fixture(scope="module")
def image():
    """A tiny image ViT, its variables, and its weights in timm's names."""
    model = vidjax.create_model("vit_b_16", 7, tiny=True)
    variables = jax.jit(model.init)(jax.random.PRNGKey(3), jnp.zeros((1, 32, 32, 3)))
    variables = jax.tree.map(_moved, variables)
    flat = {k: np.asarray(x) for k, x in flatten_dict(variables, sep="/").items()}
    return model.clone(num_classes=0), variables, export(flat, ORIGINS["timm"]["vit_b_16"])


def started(name, weights, **options):
    options = dict(tiny=True, **options)
    if name.startswith("vivit"):
        options["tanh_gelu"] = False
    model, variables, found = load(name, weights, 5, **options)
    return model.clone(num_classes=0), variables, " ".join(found.notes)


def features(model, variables, x):
    return jax.jit(model.apply)(variables, x)[0]


@pytest.fixture(scope="module")
def frames():
    return jax.random.normal(jax.random.PRNGKey(5), (2, 4, 32, 32, 3))


@pytest.mark.parametrize(
    "name, options",
    [("timesformer_b_8x32_joint", dict(frames=1)), ("vivit_b_16x2", dict(frames=1, tubelet=1))],
)
def test_joint_attention_on_one_frame_equals_image_model(name, options, image, frames):
    vit, variables, weights = image
    model, ours, _ = started(name, weights, **options)
    want = features(vit, variables, frames[:, 0])
    np.testing.assert_allclose(features(model, ours, frames[:, :1]), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["timesformer_b_8x32", "timesformer_b_8x32_space"])
def test_timesformer_matches_image_model_on_still_clip_at_initialization(name, image, frames):
    vit, variables, weights = image
    model, ours, told = started(name, weights)
    want = features(vit, variables, frames[:, 0])
    still = jnp.repeat(frames[:, :1], 4, axis=1)
    np.testing.assert_allclose(features(model, ours, still), want, rtol=1e-4, atol=1e-5)
    if name.endswith("x32"):
        block = ours["params"]["block1"]
        np.testing.assert_array_equal(block["time_attn"]["qkv"]["kernel"], block["attn"]["qkv"]["kernel"])
        assert "time_embed is zero" in told and "time_fc is zero" in told and "copy of attn" in told


@pytest.mark.parametrize("inflation", ["centre", "average"])
@pytest.mark.parametrize("kind", NAMES)
def test_vivit_is_initialized_from_image_model(kind, inflation, image, frames):
    """Tubelet embeddings equal those of the image model's central frame, or of the repeated frame of a still
    clip; with a zero or separate temporal path, the tokens equal the image model's."""
    vit, variables, weights = image
    model, ours, told = started(f"vivit_b_16x2{kind}", weights, inflation=inflation)
    assert f"inflated to 2 frames ({inflation})" in told and "head" in told
    clip = frames if inflation == "centre" else jnp.repeat(frames[:, ::2], 2, axis=1)
    seen = clip[:, 1::2]  # the central frame of each tubelet
    kernel, patch = ours["params"]["patch_embed"]["kernel"], variables["params"]["patch_embed"]["kernel"]
    tubes = jnp.einsum("bthwc,thwcd->bd", clip[:, :2, :8, :8], kernel)
    np.testing.assert_allclose(tubes, jnp.einsum("bhwc,hwcd->bd", seen[:, 0, :8, :8], patch), atol=1e-4)
    if kind in ("_fe", "_fsa"):
        tokens = jax.jit(model.apply)(ours, clip)[1]["tokens"].reshape(2, 2, 16, 16)
        if kind == "_fe":
            for t in range(2):
                want = jax.jit(vit.apply)(variables, seen[:, t])[1]["tokens"][:, 1:]
                np.testing.assert_allclose(tokens[:, t], want, rtol=1e-4, atol=1e-4)
            assert "time_blocks" in told
        else:  # zero temporal attention: slices are independent; the class token is dropped
            other = jax.jit(model.apply)(ours, clip.at[:, 2:].set(0.0))[1]["tokens"].reshape(2, 2, 16, 16)
            np.testing.assert_allclose(other[:, 0], tokens[:, 0], atol=1e-6)
            assert "time_attn/proj is zero" in told and "class token is left out" in told
    if kind == "":
        pos = ours["params"]["pos_embed"]
        np.testing.assert_array_equal(pos[0, 1:17], pos[0, 17:])
        np.testing.assert_array_equal(pos[0, :17], variables["params"]["pos_embed"][0])


def test_image_weights_of_other_resolution_and_layout_load(image):
    _, variables, weights = image
    _, ours, _ = started("vivit_b_16x2", weights, size=64, scan=True)
    assert ours["params"]["pos_embed"].shape == (1, 1 + 2 * 64, 16) and "blocks" in ours["params"]
    own = {k: np.asarray(x) for k, x in flatten_dict(variables, sep="/").items()}
    found = read_weights("timesformer_b_8x32", own, tiny=True)
    assert (found.owner, found.origin) == ("vit_b_16", "vidjax")
    np.testing.assert_array_equal(found.variables["params"]["norm"]["scale"], own["params/norm/scale"])
    with pytest.raises(UserError, match="averag"):
        started("vivit_b_16x2", weights, inflation="averag")


def test_training_starts_from_image_weights(image, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    _, variables, weights = image
    save_file({k: np.ascontiguousarray(x) for k, x in weights.items()}, tmp_path / "vit.safetensors")
    config = dict(
        smoke=True,
        data=dict(name="synthetic_motion"),
        model=dict(name="vivit_b_16x2_fe"),
        init=dict(path=str(tmp_path / "vit.safetensors"), inflation="average"),
    )
    params = initial_state(build(resolve(config))).params
    patch = variables["params"]["patch_embed"]["kernel"] / 2
    np.testing.assert_allclose(params["patch_embed"]["kernel"], jnp.stack([patch, patch]), rtol=1e-6)
    want = variables["params"]["block1"]["norm2"]["bias"]
    np.testing.assert_array_equal(params["block1"]["norm2"]["bias"], want)
    assert params["time_block0"]["attn"]["qkv"]["kernel"].std() > 0


# --- the release in Flax ---


def release(kind, encoders):
    """The names of a checkpoint of scenic, nested as its training state, with small random arrays."""
    rng = np.random.default_rng(0)
    d, h, m = 16, 2, 32
    make = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    norm = lambda: {"scale": make(d), "bias": make(d)}  # noqa: E731
    params = {
        "embedding": {"kernel": make(2, 8, 8, 3, d), "bias": make(d)},
        "output_projection": {"kernel": make(d, 5), "bias": make(5)},
    }
    for encoder, (cls, depth, tokens) in encoders.items():
        params[cls] = make(1, 1, d)
        params[encoder] = {"posembed_input": {"pos_embedding": make(1, tokens, d)}, "encoder_norm": norm()}
        for i in range(depth):
            heads = {"kernel": make(d, h, d // h), "bias": make(h, d // h)}
            params[encoder][f"encoderblock_{i}"] = {
                "LayerNorm_0": norm(),
                "MultiHeadDotProductAttention_0": {
                    **{
                        n: jax.tree.map(lambda x, k=k: x + k, heads)
                        for k, n in enumerate(("query", "key", "value"))
                    },
                    "out": {"kernel": make(h, d // h, d), "bias": make(d)},
                },
                "LayerNorm_1": norm(),
                "MlpBlock_0": {
                    "Dense_0": {"kernel": make(d, m), "bias": make(m)},
                    "Dense_1": {"kernel": make(m, d), "bias": make(d)},
                },
            }
    return {"global_step": 1, "optimizer": {"state": {"step": 3}, "target": params}, "rng": [0, 1]}


@pytest.mark.parametrize(
    "kind, encoders",
    [
        ("", {"Transformer": ("cls", 2, 33)}),
        (
            "_fe",
            {
                "SpatialTransformer": ("cls_SpatialTransformer", 2, 17),
                "TemporalTransformer": ("cls_TemporalTransformer", 1, 3),
            },
        ),
    ],
)
def test_scenic_checkpoints_load(kind, encoders):
    state = release(kind, encoders)
    found = read_weights(f"vivit_b_16x2{kind}", state, tiny=True)
    assert (found.origin, found.num_classes, found.fresh) == ("scenic", 5, ())
    _, variables = vidjax.load_pretrained(f"vivit_b_16x2{kind}", state, tiny=True)
    encoder = list(encoders)[-1]
    prefix = "time_" if kind else ""
    theirs = state["optimizer"]["target"][encoder]["encoderblock_0"]["MultiHeadDotProductAttention_0"]
    attn = jax.tree.map(np.asarray, variables["params"][f"{prefix}block0"]["attn"])
    x = np.random.default_rng(1).normal(size=(3, 16)).astype(np.float32)
    q, k, v = np.split(x @ attn["qkv"]["kernel"] + attn["qkv"]["bias"], 3, axis=-1)
    for ours, name in ((q, "query"), (k, "key"), (v, "value")):
        want = np.einsum("nd,dhk->nhk", x, theirs[name]["kernel"]) + theirs[name]["bias"]
        np.testing.assert_allclose(ours.reshape(3, 2, 8), want, rtol=1e-4, atol=1e-5)
    want = np.einsum("nhk,hkd->nd", q.reshape(3, 2, 8), theirs["out"]["kernel"])
    np.testing.assert_allclose(q @ attn["proj"]["kernel"], want, rtol=1e-4, atol=1e-4)
    flat = {k: np.asarray(x) for k, x in flatten_dict(found.variables, sep="/").items()}
    back = export(flat, ORIGINS["scenic"][f"vivit_b_16x2{kind}"])
    for path, x in flatten_dict(state["optimizer"]["target"], sep="/").items():
        np.testing.assert_array_equal(back[path], x)
