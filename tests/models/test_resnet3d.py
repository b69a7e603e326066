"""R3D and MC3: parameter counts, shapes of Table 1, and temporal kernels."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vidjax.convert import load_pretrained
from vidjax.convert.inflate import inflate
from vidjax.models import create_model, spec


def shapes(name, video_shape, **options):
    """Returns the shapes of the variables and of the outputs."""
    model, video = create_model(name, **options), jax.ShapeDtypeStruct(video_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), video)
    return variables, jax.eval_shape(model.apply, variables, video)


@pytest.mark.parametrize("name, count", [("r3d_18", 33_371_472), ("mc3_18", 11_695_440)])
def test_parameter_count(name, count):
    variables, _ = shapes(name, (1, *spec(name).input_shape))
    assert sum(p.size for p in jax.tree.leaves(variables["params"])) == count == spec(name).params


@pytest.mark.parametrize("name, frames", [("r3d_18", (16, 16, 8, 4, 2)), ("mc3_18", (16,) * 5)])
def test_feature_sizes_match_table_1(name, frames):
    _, (logits, endpoints) = shapes(name, (2, 16, 112, 112, 3))
    sizes = [(56, 64), (56, 64), (28, 128), (14, 256), (7, 512)]
    for key, t, (s, c) in zip(("stem", "stage1", "stage2", "stage3", "stage4"), frames, sizes):
        assert endpoints[key].shape == (2, t, s, s, c), key
    assert endpoints["pre_logits"].shape == (2, 512) and logits.shape == (2, 400)


def test_odd_sizes_round_up():
    _, (_, endpoints) = shapes("r3d_18", (1, 13, 100, 90, 3))
    assert endpoints["stage4"].shape == (1, 2, 7, 6, 512)


def test_parameter_names_and_kernel_shapes():
    r3d, mc3 = (shapes(name, (1, 16, 112, 112, 3))[0]["params"] for name in ("r3d_18", "mc3_18"))
    blocks = {f"stage{i}_block{j}" for i in (1, 2, 3, 4) for j in (0, 1)}
    narrowing = {f"stage{i}_block0" for i in (2, 3, 4)}
    assert r3d.keys() == mc3.keys() == blocks | {"stem_conv", "stem_bn", "head"}
    plain = {"conv1", "bn1", "conv2", "bn2"}
    for block in blocks:
        entry = {"down_conv", "down_bn"} if block in narrowing else set()
        assert r3d[block].keys() == mc3[block].keys() == plain | entry
    kernel = lambda params, block: params[block]["conv1"]["kernel"].shape  # noqa: E731
    assert kernel(r3d, "stage2_block0") == (3, 3, 3, 64, 128)
    assert kernel(mc3, "stage2_block0") == (1, 3, 3, 64, 128)
    assert kernel(mc3, "stage1_block1") == kernel(r3d, "stage1_block1") == (3, 3, 3, 64, 64)


def test_temporal_receptive_field_of_mc3():
    """MC3 looks along time in the stem and the first stage only: three windows, each one frame further."""
    for name, reach in (("r3d_18", 2), ("mc3_18", 4)):  # of R3D's two frames, each eight of the input's
        model = create_model(name, tiny=True)
        video = jnp.zeros((1, 16, 16, 16, 3))
        variables = jax.jit(model.init)(jax.random.key(0), video)
        stage4 = jax.jit(lambda v, x, model=model: model.apply(v, x)[1]["stage4"])
        still, moved = (stage4(variables, video.at[:, 0].set(value)) for value in (0.0, 5.0))
        touched = jnp.any(still != moved, axis=(0, 2, 3, 4))
        assert touched[:reach].all() and not touched[reach:].any(), name


@pytest.mark.parametrize("name", ["c2d_r50_8x8", "i3d_r50_8x8", "slow_r50_8x8"])
def test_inflated_weights_match_image_network_on_static_clip(name):
    """Compared in the middle of a clip that is long enough to exclude the temporal padding."""
    options = dict(stage_sizes=(1, 2, 1, 1), width=8)
    image_net = create_model("resnet50", 5, **options)
    net = create_model(name, 5, **options)
    image = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    frames = 24 if name != "c2d_r50_8x8" else 4
    clip = jnp.repeat(image[:, None], frames, axis=1)
    weights = jax.tree.map(
        lambda s: (
            0.3 + jnp.abs(jax.random.normal(jax.random.key(s.size), s.shape)) * 0.3
            if len(s.shape) == 1
            else jax.random.normal(jax.random.key(s.size), s.shape) * (2 / (s.size / s.shape[-1])) ** 0.5
        ),
        jax.eval_shape(image_net.init, jax.random.key(0), image),
    )
    target = jax.eval_shape(net.init, jax.random.key(0), clip)
    got = jax.jit(net.apply)(inflate(weights, target), clip)[1]
    want, other = jax.jit(image_net.apply)(weights, image)
    for stage in ("stem", "stage1", "stage2", "stage3", "stage4"):
        middle = got[stage][:, got[stage].shape[1] // 2]
        error = float(jnp.abs(middle - other[stage]).max() / jnp.abs(other[stage]).max())
        assert error < 1e-5, (stage, error)
    if name == "c2d_r50_8x8":  # never looks past a frame: equal everywhere, logits included
        logits = jax.jit(net.apply)(inflate(weights, target), clip)[0]
        assert float(jnp.abs(logits - want).max() / jnp.abs(want).max()) < 1e-5


def test_i3d_temporal_kernels_alternate():
    params = shapes("i3d_r50_8x8", (1, 8, 64, 64, 3))[0]["params"]
    frames = [
        [params[f"stage{s}_block{b}"]["conv1"]["kernel"].shape[0] for b in range(n)]
        for s, n in enumerate((3, 4, 6, 3), 1)
    ]
    assert frames == [[3, 3, 3], [3, 1, 3, 1], [3, 1, 3, 1, 3, 1], [1, 3, 1]]
    assert params["stem_conv"]["kernel"].shape[0] == 5


@pytest.mark.parametrize("name", ["c2d_r50_8x8", "i3d_nln_r50_8x8"])
def test_image_weights_are_inflated_on_loading(name):
    image = create_model("resnet50", 5, tiny=True)
    weights = jax.jit(image.init)(jax.random.key(3), jnp.zeros((1, 32, 32, 3)))
    source = {"/".join(k): np.asarray(x) for k, x in flatten_dict(weights).items()}
    model, variables = load_pretrained(name, source, num_classes=3, tiny=True)
    frame = jax.random.normal(jax.random.key(1), (1, 32, 32, 3))
    stage1 = model.apply(variables, jnp.repeat(frame[:, None], 16, axis=1))[1]["stage1"][:, 8]
    np.testing.assert_allclose(stage1, image.apply(weights, frame)[1]["stage1"], rtol=1e-4, atol=1e-4)
    assert "head" in variables["params"] and ("stage2_nonlocal0" in variables["params"]) == ("nln" in name)
