"""Tests of the preprocessing declared for pretrained weights, and of its use in evaluation."""

import pathlib
import sys

import av
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors.numpy import save_file

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import load_variables
from vidjax.config import resolve
from vidjax.config_schema import schema
from vidjax.convert import convert_file
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.convert.preprocessing import DECLARED, SSV2_CLASSES, preprocessing
from vidjax.convert.table import END, START, table
from vidjax.data import sampling
from vidjax.data.clips import ClipReader
from vidjax.data.record import Record
from vidjax.data.streams import clip_moments
from vidjax.data.transforms import RESIZES, resize_short_side
from vidjax.data.transforms import test_crops as crops_of
from vidjax.data.transforms import test_views as views_of
from vidjax.errors import UserError
from vidjax.evaluation import create_evals
from vidjax.layers.preprocess import model_inputs, normalize
from vidjax.predict import predict_videos
from vidjax.registry import KINETICS_MEAN, KINETICS_STD
from vidjax.train.experiment import create_parts

DATASET = dict(epochs=1.0, data=dict(name="video_folder"))
GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
sys.path.append(str(GOLDEN))
from record_preprocessing import SAMPLES, SIZES, WEIGHTS, clip  # noqa: E402
from weights import sample  # noqa: E402


def data_of(origin, name):
    """Returns the resolved data section of a checkpoint, with the size of a test crop."""
    sections = preprocessing(origin, name).sections(vidjax.spec(name))
    data = ConfigDict(schema().data.to_dict() | sections["data"])
    data.size = sections["evals"]["val"].get("size", data.size)
    return data


@pytest.mark.parametrize("name", WEIGHTS)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_torchvision_presets_match_per_pixel(name, size):
    """Includes the rounding to bytes.

    Both interpolate in float32, but in another order, so one value in a thousand may be rounded to the next
    level, which differs by 1 / (255 std) <= 0.0182.
    """
    data = data_of("torchvision", name)
    ((view, _),) = views_of(clip(*size), data, 1)
    ours = sample(np.asarray(model_inputs(vidjax.spec(name), ("rgb",), data)({"rgb": view})), SAMPLES)
    with np.load(GOLDEN / "preprocessing/torchvision.npz") as file:
        want = file["{} {}x{}".format(name, *size)]
    off = np.abs(ours - want)
    assert (off > 1e-6).mean() < 1e-3 and off.max() < 0.0182


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_pytorchvideo_test_crops_match_within_half_a_level(size):
    """pytorchvideo resizes normalized clips without rounding; half a level is 0.5 / (255 * 0.225)."""
    data = data_of("pytorchvideo", "slow_r50_8x8")
    with np.load(GOLDEN / "preprocessing/pytorchvideo.npz") as file:
        for i, (view, _) in enumerate(views_of(clip(*size), data, 3)):
            ours = sample(np.asarray(normalize(view, data.mean, data.std)), SAMPLES)
            want = file["{}x{} {}".format(*size, i)]
            assert np.abs(ours - want).max() < 0.5 / (255 * 0.225) + 1e-4, i


def test_every_model_of_every_origin_declares_preprocessing():
    assert set(DECLARED) == {(origin, name) for origin, models in ORIGINS.items() for name in models}
    different = {repr(p): (name, p) for (_, name), p in DECLARED.items()}
    for name, p in different.values():
        assert p.source and p.options.keys() <= vidjax.registry.fields(vidjax.spec(name).module), name
        sections = p.of_classes(SSV2_CLASSES).sections(vidjax.spec(name))
        sections["data"]["name"] = "video_folder"
        resolve(sections | dict(epochs=1.0))


def test_table_in_the_docs_is_up_to_date():
    text = (pathlib.Path(__file__).parents[2] / "docs/preprocessing.md").read_text()
    written = text.split(START)[1].split(END)[0].strip()
    assert written == table(), "run `python -m vidjax.convert.table`"


@pytest.mark.parametrize(
    "origin, name, frames, rate, clips",
    [
        ("pytorchvideo", "slow_r50_8x8", 8, 8, 10),
        ("pyslowfast", "slowfast_r50_4x16", 32, 2, 10),
        ("pytorchvideo", "x3d_s", 13, 6, 10),
        ("timesformer", "timesformer_b_8x32", 8, 32, 1),
    ],
)
def test_clips_match_pyslowfast(origin, name, frames, rate, clips):
    """slowfast/datasets/decoder.py, get_start_end_idx and temporal_sampling, for 300 frames at 30 fps."""
    data, total = data_of(origin, name), 300
    delta = total - frames * rate
    starts = [delta * i / clips for i in range(clips)]
    want = [np.linspace(s, s + frames * rate - 1, frames).clip(0, total - 1).astype(int) for s in starts]
    ours = sampling.spread(total, 30 * clip_moments(data, ("rgb",)), clips, data.short, where=data.starts)
    np.testing.assert_array_equal(ours, want)
    short = sampling.spread(5, 30 * clip_moments(data, ("rgb",)), clips, data.short, where=data.starts)
    held = np.linspace(0, frames * rate - 1, frames).clip(0, 4).astype(int)
    np.testing.assert_array_equal(short, [held] * clips)


def test_video_swin_clips_start_at_the_center_of_their_part():
    """mmaction/datasets/pipelines/loading.py, SampleFrames, whose last start is one frame earlier."""
    data = data_of("video_swin", "swin3d_t")
    ours = sampling.spread(300, clip_moments(data, ("rgb",)), 4, data.short, where=data.starts)
    interval = (300 - 64 + 1) / 4
    want = [int(i * interval + interval / 2) for i in range(4)]
    assert (np.diff(ours) == 2).all() and np.abs(ours[:, 0] - want).max() <= 1


@pytest.mark.parametrize(
    "rule, longer, top",
    [("torchvision", 85, 0), ("pyslowfast", 85, 1), ("tensorflow", 85, 0), ("mmaction", 86, 0)],
)
def test_resize_rules_round_as_their_library(rule, longer, top):
    video = np.random.default_rng(0).integers(0, 256, (1, 70, 94, 3), np.uint8)
    resized = resize_short_side(video, 64, rule)
    assert resized.shape == (1, 64, longer, 3)  # 64 * 94 / 70 = 85.94
    ((crop, _),) = crops_of(resized, 63, 1, rule)
    np.testing.assert_array_equal(crop, resized[:, top : top + 63, 11 : 11 + 63])


def test_tensorflow_truncates_where_pytorch_rounds():
    video = np.array([[0, 1], [0, 1]], np.uint8).reshape(1, 2, 2, 1) * 3
    across = {rule: RESIZES[rule].frames(video, 2, 4)[0, 0, :, 0].tolist() for rule in RESIZES}
    assert across["tensorflow"] == [0, 0, 2, 3]  # 0, 0.75, 2.25, 3
    assert across["torchvision"] == [0, 1, 2, 3]


def foreign(name, origin, classes=3):
    """Returns random weights of the tiny preset with the names of an origin."""
    s = vidjax.spec(name)
    abstract = abstract_variables(vidjax.create_model(name, classes, tiny=True), s.tiny_input_shape)
    rng = np.random.default_rng(0)
    flat = {
        k: rng.uniform(0.1, 0.2, x.shape).astype(np.float32)
        for k, x in flatten_dict(abstract, sep="/").items()
    }
    return {k: x.copy() for k, x in export(flat, ORIGINS[origin][name]).items()}


@pytest.fixture
def video(tmp_path):
    """Writes a video of 40 frames at 10 fps, 48 x 64 pixels."""
    with av.open(str(tmp_path / "v.mp4"), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width, stream.height = 64, 48
        rng = np.random.default_rng(0)
        for _ in range(40):
            pixels = np.kron(rng.integers(0, 255, (6, 8, 3)), np.ones((8, 8, 1))).astype(np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())
    return tmp_path / "v.mp4"


def test_converted_checkpoint_predicts_with_the_preprocessing_of_its_source(tmp_path, video):
    """VMZ's statistics for CSN differ from those of the model, which are pytorchvideo's."""
    save_file(foreign("csn_ir_50", "vmz"), tmp_path / "w.safetensors")
    convert_file(tmp_path / "w.safetensors", "csn_ir_50", tmp_path / "ckpt", origin="vmz", tiny=True)
    variables, meta = load_variables(tmp_path / "ckpt")
    config = resolve(meta["config"])
    assert tuple(config.data.mean) == KINETICS_MEAN != vidjax.spec("csn_ir_50").mean
    val = config.evals.val
    assert (val.clips, val.crops, val.size, config.data.resize) == (10, 3, 36, "opencv")
    assert "av_input_op.h" in meta["source"]["preprocessing"]

    reader = ClipReader(create_evals(config.evals)["val"].data(config))
    views = np.stack([v.inputs["rgb"] for v in reader.views(Record(str(video), None, "v"), 10, 3)])
    assert views.shape[2:] == (36, 36, 3)
    model = vidjax.create_model("csn_ir_50", 3, tiny=True)
    scaled = (views / 255 - np.array(KINETICS_MEAN)) / np.array(KINETICS_STD)
    logits = jax.jit(model.apply)(variables, scaled.astype(np.float32))[0]
    want = np.asarray(jax.nn.softmax(logits)).mean(0)
    (prediction,) = predict_videos([str(video)], tmp_path / "ckpt")
    got = dict(prediction.content.top(5))
    np.testing.assert_allclose([got[f"class {i}"] for i in range(3)], want, rtol=1e-4)


def test_slowfast_uses_the_slow_frames_of_its_weights(tmp_path):
    name, source = "slowfast_r50_4x16", foreign("slowfast_r50_4x16", "pytorchvideo")
    assert vidjax.load_pretrained(name, source, tiny=True)[0].slow_frames == "linspace"
    assert vidjax.load_pretrained(name, source, tiny=True, slow_frames="stride")[0].slow_frames == "stride"
    save_file(source, tmp_path / "w.safetensors")
    convert_file(tmp_path / "w.safetensors", name, tmp_path / "ckpt", tiny=True)
    config = resolve(load_variables(tmp_path / "ckpt")[1]["config"])
    assert create_parts(config, "ab")[0].slow_frames == "linspace"
    assert vidjax.load_pretrained(name, tmp_path / "ckpt", tiny=True)[0].slow_frames == "linspace"
    convert_file(tmp_path / "ckpt", name, tmp_path / "again", tiny=True)
    assert load_variables(tmp_path / "again")[1]["config"] == load_variables(tmp_path / "ckpt")[1]["config"]


def test_config_without_slow_frames_uses_stride():
    old = dict(model=dict(name="slowfast_r50_8x8", tiny=True), **DATASET)
    assert create_parts(resolve(old), "ab")[0].slow_frames == "stride"


def test_differences_from_the_weights_are_reported():
    found = preprocessing("pytorchvideo", "slowfast_r50_8x8")
    model = vidjax.create_model("slowfast_r50_8x8")
    (note,) = found.differences(model, found.mean, found.std)
    assert "slow_frames=linspace, but the model has slow_frames=stride: set model.options.slow_frames" in note
    (note,) = preprocessing("vtn", "vtn_vit_b_16").differences(None, (0.5,) * 3, (0.5,) * 3)
    assert "mean (0.45, 0.45, 0.45)" in note and "set data.mean and data.std" in note


def test_174_classes_select_the_something_something_v2_settings():
    p = preprocessing("videomae", "videomae_b")
    assert p.of_classes(400) is p and p.of_classes(174).sampling == "uniform"


@pytest.mark.parametrize(
    "override, message",
    [
        ("data.mean=(0.5,0.5,0.5)", "data.mean and data.std go together"),
        ("data.resize=bicubic", "unknown value of data.resize"),
        ("data.starts=end", "did you mean ends"),
        ("data.resize_to=64", r"data.resize_to is \(height, width\), not 64"),
    ],
)
def test_invalid_preprocessing_is_rejected(override, message):
    with pytest.raises(UserError, match=message):
        resolve(dict(model=dict(name="r3d_18"), **DATASET), [override])


def test_statistics_require_one_value_per_channel():
    with pytest.raises(UserError, match=r"data\.mean for a model of rgb has one value for each of the 3"):
        resolve(dict(model=dict(name="r3d_18"), **DATASET), ["data.std=(1.0,1.0,1.0)", "data.mean=(0.5,)"])
