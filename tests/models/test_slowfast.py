"""SlowFast: cost and inputs of each pathway, lateral connections, and other frame rates."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.analysis.macs import model_cost
from vidjax.errors import UserError
from vidjax.models import create_model
from vidjax.models.conv3d.slowfast import SLOW_FRAMES, Lateral, slow_indices


def tiny(**options):
    options = {"num_classes": 3, "tiny": True, **options}
    return create_model("slowfast_r50_4x16", **options)


def shapes(model, video_shape):
    video = jax.ShapeDtypeStruct(video_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), video)
    return variables["params"], *jax.eval_shape(model.apply, variables, video)


def test_feature_sizes_match_table_1():
    _, logits, e = shapes(create_model("slowfast_r50_4x16"), (2, 32, 224, 224, 3))
    sizes = {"stem": (56, 64), "stage1": (56, 256), "stage2": (28, 512), "stage3": (14, 1024)}
    for name, (side, channels) in {**sizes, "stage4": (7, 2048)}.items():
        assert e[name].shape == (2, 4, side, side, channels)
        assert e[f"fast_{name}"].shape == (2, 32, side, side, channels // 8)
    assert e["pre_logits"].shape == (2, 2304) and logits.shape == (2, 400)


def test_detection_preset_keeps_resolution_of_last_stage():
    model = create_model("slowfast_r50_4x16", spatial_strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2))
    _, _, e = shapes(model, (1, 32, 224, 224, 3))
    assert e["stage4"].shape == (1, 4, 14, 14, 2048) and e["fast_stage4"].shape == (1, 32, 14, 14, 256)


def test_fast_pathway_macs_are_alpha_beta_squared_of_slow():
    """alpha beta^2 of the slow pathway where both have the same kernels and no lateral channels enter."""
    cost = model_cost(create_model("slowfast_r50_4x16"), (32, 224, 224, 3)).by_module()
    for block in ("stage3_block1", "stage3_block5", "stage4_block2"):
        assert cost[f"fast_{block}"] * 8 == cost[f"slow_{block}"]
    with_half = model_cost(create_model("slowfast_r50_4x16", alpha=4), (32, 224, 224, 3)).by_module()
    assert with_half["fast_stage4_block2"] * 16 == with_half["slow_stage4_block2"]
    # "typically about 20 % of the total computation" (section 3.2)
    fast = sum(n for name, n in cost.items() if name.startswith("fast_"))
    assert 0.15 < fast / sum(cost.values()) < 0.25


@pytest.mark.parametrize("form", ["conv", "sample", "channels", "sum", "none"])
def test_lateral_forms_have_expected_channels(form):
    model = tiny(lateral=form, alpha=8, width=16)
    params, _, e = shapes(model, (1, 16, 32, 32, 3))
    slow_in = params["slow_stage2_block0"]["conv1"]["kernel"].shape[-2]
    fast = e["fast_stage1"].shape[-1]
    assert slow_in == 64 + {"conv": 2 * fast, "sample": fast, "channels": 8 * fast}.get(form, 0)
    assert ("lateral_stage1" in params) == (form == "conv")
    assert e["stage4"].shape[1] == 2 and e["fast_stage4"].shape[1] == 16


def test_lateral_values_of_each_form():
    slow, fast = jnp.zeros((1, 2, 1, 1, 6)), jnp.arange(12.0).reshape(1, 6, 1, 1, 2)
    fuse = lambda form, x=slow: np.ravel(Lateral(form, 3, 5, 2, None, None).apply({}, x, fast, False))  # noqa: E731
    assert fuse("sample").reshape(2, 8)[:, 6:].tolist() == [[0, 1], [6, 7]]
    assert fuse("channels").reshape(2, 12)[:, 6:].tolist() == [[0, 1, 2, 3, 4, 5], [6, 7, 8, 9, 10, 11]]
    assert fuse("sum").tolist() == list(range(12))
    assert fuse("none").tolist() == [0] * 12
    with pytest.raises(UserError, match="alpha \\* beta = 1"):
        fuse("sum", slow[..., :5])
    with pytest.raises(UserError, match="did you mean sample"):
        fuse("sampel")


def test_fast_only_frames_do_not_reach_the_slow_pathway():
    model = tiny(lateral="none", stage_sizes=(1, 1))
    video = jax.random.normal(jax.random.key(1), (1, 8, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.key(0), video)
    apply = jax.jit(lambda x: model.apply(variables, x)[1])
    before, after = apply(video), apply(video.at[:, 3].add(1.0))
    for stage in ("stem", "stage1", "stage2"):
        np.testing.assert_array_equal(before[stage], after[stage])
        assert np.abs(before[f"fast_{stage}"] - after[f"fast_{stage}"]).max() > 1e-3
    other = apply(video.at[:, 4].add(1.0))
    assert np.abs(before["stem"] - other["stem"])[:, 1].max() > 1e-3
    np.testing.assert_array_equal(before["stem"][:, 0], other["stem"][:, 0])


@pytest.mark.parametrize("alpha, frames", [(2, 8), (8, 16), (4, 10)])
def test_other_alpha_and_frame_counts(alpha, frames):
    _, logits, e = shapes(tiny(alpha=alpha), (2, frames, 32, 32, 3))
    assert e["stage4"].shape[1] == -(-frames // alpha) and e["fast_stage4"].shape[1] == frames
    assert logits.shape == (2, 3)


def test_residual_branches_are_zero_initialized():
    model = tiny(zero_init=True, stage_sizes=(1, 1))
    video = jax.random.normal(jax.random.key(1), (1, 8, 32, 32, 3))
    params = jax.jit(model.init)(jax.random.key(0), video)["params"]
    assert create_model("slowfast_r50_4x16").zero_init and not tiny().zero_init
    for name, block in params.items():
        if "_block" in name:
            assert not block["bn3"]["scale"].any() and block["bn2"]["scale"].all()


def test_r101_16x8_has_temporal_kernels_in_six_blocks_of_stage_3():
    model = create_model("slowfast_r101_16x8_nl")
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 32, 32, 3)))["params"]
    for pathway in ("slow", "fast"):
        frames = [params[f"{pathway}_stage3_block{i}"]["conv1"]["kernel"].shape[0] for i in range(23)]
        assert frames == [3] * 6 + [1] * 17
    places = [name for name in params if "nonlocal" in name]
    assert places == [f"slow_stage3_nonlocal{i}" for i in (13, 20, 6)]


@pytest.mark.parametrize("name, frames", [("4x16", 32), ("8x8", 32), ("16x8", 64)])
def test_linspace_slow_frames_match_published_code(name, frames):
    slow = int(name.split("x")[0])
    alpha = frames // slow
    want = [int(i * (frames - 1) / (slow - 1)) for i in range(slow)]
    assert slow_indices(frames, alpha, "linspace").tolist() == want
    assert want[-1] == frames - 1 and np.arange(frames)[slow_indices(frames, alpha, "stride")][-1] < want[-1]
    # PySlowFast's packed slow pathway, torch.linspace(0, T - 1, T // alpha).long(), as PyTorch prints it
    torch = {
        "4x16": [0, 10, 20, 31],
        "8x8": [0, 4, 8, 13, 17, 22, 26, 31],
        "16x8": [0, 4, 8, 12, 16, 21, 25, 29, 33, 37, 42, 46, 50, 54, 58, 63],
    }
    assert want == torch[name]


def test_slow_frames_rule_changes_only_the_slow_pathway():
    models = [tiny(lateral="none", stage_sizes=(1, 1), slow_frames=rule) for rule in ("stride", "linspace")]
    video = jax.random.normal(jax.random.key(1), (1, 8, 32, 32, 3))
    variables = jax.jit(models[0].init)(jax.random.key(0), video)
    stride, linspace = (jax.jit(m.apply)(variables, video)[1] for m in models)
    np.testing.assert_array_equal(stride["fast_stage2"], linspace["fast_stage2"])
    packed = jax.jit(models[0].apply)(variables, video[:, jnp.array([0, 0, 0, 0, 7, 7, 7, 7])])[1]
    np.testing.assert_allclose(packed["stage2"], linspace["stage2"], rtol=1e-6)
    with pytest.raises(UserError, match="did you mean linspace"):
        slow_indices(8, 4, "linspac")
    for rule in SLOW_FRAMES:
        with pytest.raises(UserError, match="a clip of 3 frames is too short for SlowFast with alpha=4"):
            slow_indices(3, 4, rule)
