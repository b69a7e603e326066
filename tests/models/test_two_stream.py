"""Two-stream networks: stream inputs, averaging, fusion, and initialization from image weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from vidjax.checkpoint_io import save_variables
from vidjax.config import resolve
from vidjax.errors import UserError
from vidjax.models import create_model, spec
from vidjax.registry import dummy_input
from vidjax.train.experiment import build, initial_state

FLOW = jax.random.normal(jax.random.key(1), (2, 4, 32, 32, 2))
RGB = jax.random.normal(jax.random.key(2), (2, 1, 32, 32, 3))


@functools.cache
def tiny(name, **options):
    """Variables of the tiny preset, whose BatchNorm is not the identity, and its function."""
    model = create_model(name, 5, tiny=True, **options)
    x = {"flow": FLOW, "rgb": RGB} if len(spec(name).streams) == 2 else FLOW
    variables = jax.jit(model.init)(jax.random.key(0), x)
    stats = jax.tree.map(lambda s: 0.3 * s, variables["batch_stats"])
    return variables | {"batch_stats": stats}, jax.jit(model.apply)


def test_temporal_stream_input_is_mean_subtracted_flow_stack():
    variables, apply = tiny("two_stream_resnet18_temporal")
    logits, endpoints = apply(variables, FLOW)
    stacked = np.empty((2, 32, 32, 8), np.float32)
    for k in range(4):
        for axis in range(2):
            field = np.asarray(FLOW[:, k, ..., axis])
            stacked[..., 2 * k + axis] = field - field.mean((1, 2), keepdims=True)
    trunk = {k: v["trunk"] for k, v in variables.items()}
    plain, _ = create_model("resnet18", 0, tiny=True).apply(trunk, stacked)
    np.testing.assert_allclose(endpoints["pre_logits"], plain, rtol=1e-4, atol=1e-5)
    assert jnp.abs(plain).max() > 0.1
    moved, _ = apply(variables, FLOW + jnp.array([3.0, -2.0]).reshape(1, 1, 1, 1, 2))  # a panning camera
    np.testing.assert_allclose(moved, logits, rtol=1e-4, atol=1e-4)


def test_spatial_stream_uses_the_middle_frame():
    model = create_model("two_stream_resnet18_spatial", 5, tiny=True)
    clip = jax.random.normal(jax.random.key(0), (2, 5, 32, 32, 3))
    variables = model.init(jax.random.key(0), clip)
    np.testing.assert_array_equal(model.apply(variables, clip)[0], model.apply(variables, clip[:, 2:3])[0])


def test_flow_stack_of_wrong_depth_is_rejected():
    with pytest.raises(ValueError, match="the input has 5 flow fields, but flow_frames is 4"):
        create_model("two_stream_resnet18_temporal", tiny=True).init(
            jax.random.key(0), jnp.zeros((1, 5, 32, 32, 2))
        )


@pytest.mark.parametrize("average", ["softmax", "logits"])
def test_scores_are_averaged_over_streams(average):
    variables, apply = tiny("two_stream_resnet18", average=average)
    logits, endpoints = apply(variables, {"rgb": RGB, "flow": FLOW})
    each = []
    for stream, x in (("spatial", RGB), ("temporal", FLOW)):
        part = {k: v[stream] for k, v in variables.items()}
        each.append(create_model(f"two_stream_resnet18_{stream}", 5, tiny=True).apply(part, x))
    (a, left), (b, right) = each
    assert jnp.abs(a - b).max() > 0.1
    if average == "softmax":
        np.testing.assert_allclose(
            jax.nn.softmax(logits), (jax.nn.softmax(a) + jax.nn.softmax(b)) / 2, rtol=1e-4
        )
    else:
        np.testing.assert_allclose(logits, (a + b) / 2, rtol=1e-4, atol=1e-5)
    both = jnp.concatenate([left["pre_logits"], right["pre_logits"]], -1)
    np.testing.assert_allclose(endpoints["pre_logits"], both, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stage", [1, 3])
def test_fusion_changes_the_spatial_stream_from_its_stage(stage):
    variables, apply = tiny("two_stream_resnet18_fused", fuse_after=stage, average="logits")
    _, before = apply(variables, {"rgb": RGB, "flow": FLOW})
    _, moved = apply(variables, {"rgb": RGB, "flow": 2 * FLOW})
    _, other = apply(variables, {"rgb": RGB + 1, "flow": FLOW})
    for i in range(1, 5):
        same = np.allclose(before[f"stage{i}"], moved[f"stage{i}"], rtol=1e-4, atol=1e-5)
        assert same == (i <= stage), i
        np.testing.assert_array_equal(before[f"flow_stage{i}"], other[f"flow_stage{i}"])


def test_fusion_forms_match_their_equations():
    variables, conv = tiny("two_stream_resnet18_fused")
    streams = {k: {s: v[s] for s in ("spatial", "temporal")} for k, v in variables.items()}
    added, _ = create_model("two_stream_resnet18_fused", 5, tiny=True, fusion="add").apply(
        streams, {"rgb": RGB, "flow": FLOW}
    )
    convolved, _ = conv(variables, {"rgb": RGB, "flow": FLOW})  # begins as the sum
    np.testing.assert_allclose(convolved, added, rtol=1e-4, atol=1e-5)
    apart, _ = create_model("two_stream_resnet18", 5, tiny=True).apply(streams, {"rgb": RGB, "flow": FLOW})
    assert jnp.abs(apart - added).max() > 1e-3
    stacked, _ = tiny("two_stream_resnet18_fused", fusion="concat")
    kernels = [
        v["params"]["spatial"]["trunk"]["stage4_block0"]["conv1"]["kernel"] for v in (stacked, variables)
    ]
    assert [k.shape[-2] for k in kernels] == [64, 32]
    with pytest.raises(UserError, match="unknown fusion 'sum': one of add, concat, conv"):
        tiny("two_stream_resnet18_fused", fusion="sum")


def config(name, **data):
    return resolve(
        dict(
            steps=1,
            batch=4,
            data=dict(name="synthetic_motion", options=dict(train=12, val=12, test=12), size=32, **data),
            model=dict(name=name, tiny=True),
        )
    )


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))


OTHER_LENGTHS = {
    "temporal of 8": ("the input has 8 flow fields, but flow_frames is 4", dict(frames=8)),
    "joint of 10": ("the input has 10 flow fields", dict(frames=1)),
}
MODELS = dict(temporal="two_stream_resnet18_temporal", joint="two_stream_resnet18")


@pytest.mark.parametrize("case", OTHER_LENGTHS)
def test_another_number_of_flow_fields_is_a_one_line_error(cache, case):
    message, data = OTHER_LENGTHS[case]
    with pytest.raises(UserError, match=message) as e:
        build(config(MODELS[case.split()[0]], **data))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("name", ["two_stream_resnet18_temporal", "two_stream_resnet18"])
def test_image_weights_initialize_every_stream(cache, name, tmp_path):
    """The first kernel is averaged over RGB and scaled by 3 / 8, so equal channels give the same output."""
    image = create_model("resnet18", 7, tiny=True)
    weights = jax.jit(image.init)(jax.random.key(5), jnp.zeros((1, 32, 32, 3)))
    save_variables(tmp_path / "image", jax.device_get(weights), {"config": {}, "class_names": []})
    c = config(name, **(dict(frames=4) if "temporal" in name else dict(frames=1, flow=dict(frames=4))))
    c.init.path = str(tmp_path / "image")
    state = initial_state(build(c))
    ours = flatten_dict(state.params, sep="/")
    theirs = flatten_dict(weights["params"], sep="/")
    kernel = np.asarray(theirs.pop("stem_conv/kernel"))
    streams = {"": 8} if "temporal" in name else {"spatial/": 3, "temporal/": 8}
    for stream, channels in streams.items():
        stem = ours[f"{stream}trunk/stem_conv/kernel"]
        expected = kernel if channels == 3 else np.repeat(kernel.mean(2, keepdims=True) * 3 / 8, 8, axis=2)
        np.testing.assert_allclose(stem, expected, rtol=1e-6)
        for path, x in theirs.items():
            if not path.startswith("head"):
                np.testing.assert_array_equal(ours[f"{stream}trunk/{path}"], x, err_msg=path)


def test_first_kernel_parameters_at_full_size():
    model = create_model("two_stream_resnet50_temporal")
    x = dummy_input(spec("two_stream_resnet50_temporal").input_shape)
    params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
    assert params["trunk"]["stem_conv"]["kernel"].shape == (7, 7, 20, 64)
    assert params["head"]["kernel"].shape == (2048, 101)
