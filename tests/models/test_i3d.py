"""Inception on images and clips: inflation to I3D, S3D, and the heads."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables, count_params
from vidjax.analysis.receptive_field import computed, receptive_fields
from vidjax.convert.inflate import inflate
from vidjax.convert.load import HEAD, read_weights
from vidjax.errors import UserError


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def _nest(flat):
    return unflatten_dict(flat, sep="/")


def filled(model, shape):
    """Variables with statistics, offsets and kernels that are all different from zero and one."""
    flat = flatten_dict(abstract_variables(model, shape), sep="/")
    rng = np.random.default_rng(0)
    out = {}
    for path, x in flat.items():
        fan = np.prod(x.shape[:-1]) if len(x.shape) > 1 else 1
        draw = rng.normal(size=x.shape) * np.sqrt(2 / fan)
        out[path] = (
            np.abs(draw) + 0.5 if path.endswith(("var", "scale")) else draw * 0.5 ** (len(x.shape) == 1)
        )
        out[path] = out[path].astype(np.float32)
    return out


IMAGE, SIZE = (48, 40, 3), (48, 40)


def image_net(**options):
    model = vidjax.create_model("inception_v1_same", 7, tiny=True, **options)
    flat = filled(model, IMAGE)
    return model, flat


@pytest.fixture(scope="module")
def answers():
    """The image network's stages on an image, and its weights."""
    model, flat = image_net()
    image = random(1, *IMAGE)
    logits, ends = jax.jit(model.apply)(_nest(flat), image)
    return flat, image, {**ends, "logits": logits}


def inflated(flat, mode, frames):
    model = vidjax.create_model("i3d_inception_rgb", 7, tiny=True)
    variables = inflate(_nest(flat), abstract_variables(model, (frames, *IMAGE)), mode)
    return model, variables


def test_center_inflation_matches_image_network_on_still_clip(answers):
    flat, image, want = answers
    model, variables = inflated(flat, "centre", 11)
    logits, ends = jax.jit(model.apply)(variables, np.repeat(image[:, None], 11, 1))
    for name in ("stem", "stage1", "stage2", "stage3", "stage4"):
        x = np.asarray(ends[name])
        spread = np.broadcast_to(np.asarray(want[name])[:, None], x.shape)
        np.testing.assert_allclose(x, spread, atol=1e-5 * np.abs(spread).max(), err_msg=name)
    # The image head averages all places, the video head windows of 7x7: here the map is smaller than one.
    np.testing.assert_allclose(logits, want["logits"], atol=1e-5 * np.abs(want["logits"]).max())


def test_average_inflation_matches_away_from_temporal_padding(answers):
    flat, image, want = answers
    frames = 160
    model, variables = inflated(flat, "average", frames)
    for path, x in flatten_dict(variables, sep="/").items():  # temporal kernels equal after inflation
        if x.ndim == 5:
            np.testing.assert_array_equal(x, np.broadcast_to(x[:1], x.shape), err_msg=path)
    _, ends = jax.jit(model.apply)(variables, np.repeat(image[:, None], frames, 1))
    fields = computed(model, (frames, *IMAGE))
    for name in ("stem", "stage1", "stage2", "stage3", "stage4"):
        x = np.asarray(ends[name])[:, ends[name].shape[1] // 2]
        first, last = fields[name][0]
        assert first > 0 and last < frames - 1, name
        np.testing.assert_allclose(x, want[name], atol=1e-5 * np.abs(want[name]).max(), err_msg=name)
        edge = np.asarray(ends[name])[:, 0]
        assert np.abs(edge - want[name]).max() > 1e-2 * np.abs(want[name]).max()


def test_trunk_of_a_frame_model_is_inflated(answers):
    flat, _, _ = answers
    heads = {k: x for k, x in flat.items() if "/head/" in k}
    trunk = {k.replace("/", "/trunk/", 1): x for k, x in flat.items() if k not in heads}
    _, want = vidjax.load_pretrained("i3d_inception_rgb", flat, 5, tiny=True)
    _, got = vidjax.load_pretrained("i3d_inception_rgb", trunk | heads, 5, tiny=True)
    jax.tree.map(np.testing.assert_array_equal, got, want)


def test_image_weights_are_inflated_on_loading(answers):
    flat, _, _ = answers
    _, variables = vidjax.load_pretrained("i3d_inception_rgb", flat, 5, tiny=True)
    got = flatten_dict(variables, sep="/")
    kernel = flat["params/stem_conv/kernel"]
    np.testing.assert_allclose(got["params/stem_conv/kernel"].sum(0), kernel, rtol=1e-5, atol=1e-6)
    assert got["params/head/kernel"].shape[-1] == 5  # image classes are no video classes
    np.testing.assert_array_equal(got["batch_stats/stem_bn/var"], flat["batch_stats/stem_bn/var"])
    _, flow = vidjax.load_pretrained("i3d_inception_flow", flat, tiny=True)
    assert flow["params"]["stem_conv"]["kernel"].shape == (7, 7, 7, 2, 4)
    want = np.repeat(kernel.mean(2, keepdims=True), 2, 2) * 1.5 / 7
    np.testing.assert_allclose(flow["params"]["stem_conv"]["kernel"][3], want, rtol=1e-5)
    grey = {**flat, "params/stem_conv/kernel": kernel.sum(2, keepdims=True)}
    weights = read_weights("i3d_inception_rgb", grey, tiny=True)
    fresh = vidjax.create_model("i3d_inception_rgb", tiny=True)
    fresh = jax.eval_shape(fresh.init, jax.random.key(0), jnp.zeros((1, 16, 32, 32, 1)))
    merged = weights.merge_into(fresh, (HEAD,))["params"]["stem_conv"]["kernel"]
    np.testing.assert_allclose(merged.sum(0), grey["params/stem_conv/kernel"], rtol=1e-5, atol=1e-6)
    flat = {**flat, "params/odd/kernel": random(1, 1, 2, 2)}
    with pytest.raises(UserError, match=r"params/odd/kernel .*only in the image network"):
        vidjax.load_pretrained("i3d_inception_rgb", flat, tiny=True)


def test_googlenet_weights_inflate_into_matching_network():
    from vidjax.convert.engine import export
    from vidjax.convert.load import rules_for

    options = dict(norm_scale=True, padding="ceil")
    _, flat = image_net(**options)
    source = export(flat, rules_for("inception_v1_bn", "torchvision"))
    _, variables = vidjax.load_pretrained("i3d_inception_rgb", source, 3, tiny=True, **options)
    assert "scale" in variables["params"]["stem_bn"]
    with pytest.raises(UserError, match="no params/stem_bn/scale"):
        vidjax.load_pretrained("i3d_inception_rgb", source, 3, tiny=True)


# Names and shapes as in the authors' index of rgb_imagenet: 57 convolutions, four arrays each, and the head.
ODD = "Mixed_5b/Branch_2/Conv3d_0a_3x3"


def deepmind_names(prefix, channels, classes, vector, momentum=False):
    rows = """3b 64 96 128 16 32 32, 3c 128 128 192 32 96 64, 4b 192 96 208 16 48 64, 4c 160 112 224 24 64 64,
        4d 128 128 256 24 64 64, 4e 112 144 288 32 64 64, 4f 256 160 320 32 128 128,
        5b 256 160 320 32 128 128, 5c 384 192 384 48 128 128"""
    units = {"Conv3d_1a_7x7": (7, channels, 64), "Conv3d_2b_1x1": (1, 64, 64), "Conv3d_2c_3x3": (3, 64, 192)}
    width = 192
    for row in rows.split(","):
        block, *widths = row.split()
        a, b, c, d, e, f = map(int, widths)
        units |= {
            f"Mixed_{block}/Branch_0/Conv3d_0a_1x1": (1, width, a),
            f"Mixed_{block}/Branch_1/Conv3d_0a_1x1": (1, width, b),
            f"Mixed_{block}/Branch_1/Conv3d_0b_3x3": (3, b, c),
            f"Mixed_{block}/Branch_2/Conv3d_0a_1x1": (1, width, d),
            ODD if block == "5b" else f"Mixed_{block}/Branch_2/Conv3d_0b_3x3": (3, d, e),
            f"Mixed_{block}/Branch_3/Conv3d_0b_1x1": (1, width, f),
        }
        width = a + c + e + f
    shapes = {}
    for unit, (k, cin, cout) in units.items():
        shapes[f"{unit}/conv_3d/w"] = (k, k, k, cin, cout)
        for name in ("beta", "moving_mean", "moving_variance"):
            shapes[f"{unit}/batch_norm/{name}"] = (*vector, cout)
    head = "Logits/Conv3d_0c_1x1/conv_3d"
    shapes |= {f"{head}/w": (1, 1, 1, 1024, classes), f"{head}/b": (classes,)}
    if momentum:
        shapes |= {f"{k}/Momentum": v for k, v in shapes.items() if "moving" not in k}
    return {prefix + k: np.broadcast_to(random(*v[-1:]), v) for k, v in shapes.items()}


@pytest.mark.parametrize(
    "name, source, classes",
    [
        ("i3d_inception_rgb", deepmind_names("RGB/inception_i3d/", 3, 400, ()), 400),
        ("i3d_inception_flow", deepmind_names("Flow/inception_i3d/", 2, 400, (1, 1, 1, 1)), 400),
        ("i3d_inception_rgb", deepmind_names("", 3, 600, (1, 1, 1, 1), momentum=True), 600),
        (
            "i3d_inception_two_stream",
            deepmind_names("RGB/inception_i3d/", 3, 9, ()) | deepmind_names("Flow/inception_i3d/", 2, 9, ()),
            9,
        ),
    ],
)
def test_authors_checkpoints_load(name, source, classes):
    assert len(source) in (230, 346, 460)
    model, variables = vidjax.load_pretrained(name, source)
    assert model.num_classes == classes
    flat, stream = flatten_dict(variables, sep="/"), "flow/" if "two_stream" in name else ""
    prefix = (
        {"i3d_inception_rgb": "RGB/inception_i3d/"}.get(name, "Flow/inception_i3d/") if classes != 600 else ""
    )
    for ours, theirs in (
        ("params/{}stage4_block0/branch2_conv/kernel", f"{ODD}/conv_3d/w"),
        ("batch_stats/{}stage1_block0/branch1_bn/mean", "Conv3d_2c_3x3/batch_norm/moving_mean"),
        ("params/{}stage2_block1/branch3_bn/bias", "Mixed_3c/Branch_3/Conv3d_0b_1x1/batch_norm/beta"),
        ("params/{}head/kernel", "Logits/Conv3d_0c_1x1/conv_3d/w"),
    ):
        got = flat[ours.format(stream)]
        np.testing.assert_array_equal(np.ravel(got), np.ravel(source[prefix + theirs]))


def test_parameter_counts_match_published():
    for classes, count in ((400, 12_689_984), (600, 12_894_984)):
        model = vidjax.create_model("i3d_inception_rgb", classes)
        assert count_params(abstract_variables(model, (16, 64, 64, 3))["params"]) == count
    scaled = vidjax.create_model("i3d_inception_rgb", norm_scale=True)
    assert count_params(abstract_variables(scaled, (16, 64, 64, 3))["params"]) == 12_697_264


def test_receptive_fields_match_closed_form():
    """The field grows by (window - 1) x the product of the previous strides.

    Windows: stem 7, pool (1,)3, conv 3, pool (1,)3, two blocks of 3, pool 3, five blocks, pool 2, two blocks.
    """
    fields = receptive_fields(vidjax.create_model("i3d_inception_rgb"), (64, 224, 224, 3))
    assert {k: f.unclipped for k, f in fields.items()} == {
        "stem": (7, 7 + 4, 11),
        "stage1": (7 + 4, 11 + 8, 19),
        "stage2": (11 + 2 * 4, 19 + 8 + 2 * 16, 59),
        "stage3": (19 + 4 + 5 * 8, 59 + 16 + 5 * 32, 235),
        "stage4": (63 + 4 + 2 * 16, 235 + 16 + 2 * 64, 379),
        "pre_logits": (None, None, None),
    }


@pytest.mark.parametrize("name", ["i3d_inception_rgb", "s3d"])
def test_head_pools_overlapping_windows(name):
    """Windows of two frames at stride 1: the frames at both ends count half as much as those between."""
    model = vidjax.create_model(name, 5, tiny=True)
    video = random(1, 40, 32, 32, 3)
    variables = _nest(filled(model, video.shape[1:]))
    logits, ends = jax.jit(model.apply)(variables, video)
    steps = np.asarray(ends["stage4"]).mean((2, 3))[0]
    assert len(steps) == 5
    weights = np.array([1, 2, 2, 2, 1]) / 8
    np.testing.assert_allclose(ends["pre_logits"][0], weights @ steps, rtol=1e-5, atol=1e-6)
    head = variables["params"]["head"]
    np.testing.assert_allclose(
        logits[0], weights @ (steps @ head["kernel"] + head["bias"]), rtol=1e-4, atol=1e-5
    )


def test_other_lengths_and_sizes_run():
    model = vidjax.create_model("i3d_inception_rgb", tiny=True)
    for shape in ((1, 16, 16, 3), (3, 33, 40, 3), (250, 32, 32, 3), (64, 256, 340, 3)):
        variables = abstract_variables(model, shape)
        logits, _ = jax.eval_shape(model.apply, variables, jax.ShapeDtypeStruct((1, *shape), jnp.float32))
        assert logits.shape == (1, 400)


def test_two_stream_logits_are_the_sum_of_streams():
    model = vidjax.create_model("i3d_inception_two_stream", 5, tiny=True)
    x = {"rgb": random(2, 8, 32, 32, 3), "flow": random(2, 8, 32, 32, 2)}
    variables = jax.jit(model.init)(jax.random.key(0), x)
    logits, ends = jax.jit(model.apply)(variables, x)
    total = 0.0
    for stream, video in x.items():
        one = vidjax.create_model(f"i3d_inception_{stream}", 5, tiny=True)
        part = {k: v[stream] for k, v in variables.items()}
        out, features = jax.jit(one.apply)(part, video)
        total += out
        np.testing.assert_allclose(ends[f"{stream}/stage3"], features["stage3"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(logits, total, rtol=1e-5, atol=1e-6)
    assert ends["pre_logits"].shape == (2, 2 * features["pre_logits"].shape[-1])


def test_separable_convolutions_factorize_space_and_time():
    params = abstract_variables(vidjax.create_model("s3d"), (16, 64, 64, 3))["params"]
    windows = {
        k[-2]: x.shape[:3] for k, x in flatten_dict(params).items() if k[-1] == "kernel" and x.ndim == 5
    }
    assert windows["stem_conv"] == (1, 7, 7) and windows["stem_time_conv"] == (7, 1, 1)
    assert windows["branch2_conv"] == (1, 3, 3) and windows["branch2_time_conv"] == (3, 1, 1)
    assert all(w[0] == 1 or w[1:] == (1, 1) for w in windows.values())


def test_branch_channel_order_matches_table():
    """An offset of a branch changes only the channel slice of that branch."""
    model = vidjax.create_model("inception_v1", 3, tiny=True)
    image = random(1, 32, 32, 3)
    flat = filled(model, image.shape[1:])
    stage2 = jax.jit(lambda flat: model.apply(_nest(flat), image)[1]["stage2"])
    before = np.asarray(stage2(flat))
    starts = {"branch0": (0, 4), "branch1": (4, 8), "branch2": (8, 11), "branch3": (11, 14)}
    for branch, (a, b) in starts.items():
        path = f"params/stage2_block0/{branch}_conv/bias"
        after = np.asarray(stage2({**flat, path: flat[path] + 9}))
        moved = np.flatnonzero((before != after).any((0, 1, 2)))
        np.testing.assert_array_equal(moved, np.arange(a, b))
