"""Extracting features, and training on them instead of videos."""

import json

import jax
import numpy as np
import pytest

import vidjax
from vidjax.checkpoint_io import load_variables, save_variables
from vidjax.config import resolve
from vidjax.data.datasets import load_source
from vidjax.data.decode import DecodeError, Video
from vidjax.data.feature_file import FeatureFile, FeatureWriter
from vidjax.data.pipeline import train_batches
from vidjax.data.targets import ClassTarget, to_json
from vidjax.data.transforms import test_views as center_views
from vidjax.errors import UserError
from vidjax.features import cache_features
from vidjax.layers.preprocess import normalize
from vidjax.train.loop import train
from vidjax.train.metrics import read_metrics

OPTIONS = dict(size=32, frames=11, train=24, val=12, test=12)
CONFIG = dict(
    batch=4,
    steps=4,
    seed=3,
    data=dict(
        name="synthetic_motion",
        options=OPTIONS,
        frames=4,
        stride=2.0,
        size=16,
        short_side=16,
        crop="center",
        flip=False,
    ),
    model=dict(name="cnn_gru_resnet18", tiny=True, options=dict(frozen=True, dropout=0.5, width=8)),
    optimizer=dict(name="adamw", lr=1e-2, weight_decay=0.1),
    evals=dict(val=dict(type="metrics", every=0.0)),
    log_every=1,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Returns a folder with a checkpoint of an untrained model and the cached data."""
    folder = tmp_path_factory.mktemp("features")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(folder / "cache"))
        model = vidjax.create_model("cnn_gru_resnet18", 12, tiny=True, width=8)
        variables = jax.jit(model.init)(jax.random.PRNGKey(7), np.zeros((1, 4, 16, 16, 3), np.float32))
        classes = load_source("synthetic_motion", "train", **OPTIONS).class_names
        meta = {"config": CONFIG, "class_names": list(classes)}
        save_variables(folder / "start", jax.device_get(variables), meta)
        for split in ("train", "test"):
            cache(folder, f"dataset:{split}", f"{split}.npz", frames=True)
        yield folder


def cache(place, videos, out, layer="frame_features", **options):
    videos = [videos] if isinstance(videos, str) else videos
    return cache_features(videos, place / "start", layer, place / out, **options)


def rows(workdir):
    keys = ("step", "split", "loss", "top1", "grad_norm", "video_top1")
    return [{k: r[k] for k in keys if k in r} for r in read_metrics(workdir)]


def on_features(place, **data):
    config = resolve(CONFIG).to_dict()
    config["model"]["options"] = dict(trunk=None, dropout=0.5, width=8)
    config["data"] |= dict(name="features", options=dict(path=str(place / "{split}.npz")))
    config["data"] |= dict(feature_width=64) | data
    return config


def test_training_on_features_equals_training_on_a_frozen_trunk(place):
    """Training on cached features gives the same losses and metrics as training on videos."""
    frozen = resolve({**CONFIG, "init": dict(path=str(place / "start"), skip=("^params/(rnn|head)",))})
    train(frozen, place / "frozen")
    train(resolve(on_features(place)), place / "cached")
    videos, cached = rows(place / "frozen"), rows(place / "cached")
    assert [r["step"] for r in cached] == [r["step"] for r in videos] == [1, 2, 3, 4, 4]
    assert len({r["loss"] for r in videos}) == 5
    for a, b in zip(cached, videos):
        assert a.pop("split") == b.pop("split") and a == pytest.approx(b, rel=2e-4)
    start, end = (load_variables(place / run)[0] for run in ("start", "frozen"))
    same = jax.tree.map(np.array_equal, start["params"]["trunk"], end["params"]["trunk"])
    assert all(jax.tree.leaves(same))
    same = jax.tree.map(np.array_equal, start["batch_stats"], end["batch_stats"])
    assert all(jax.tree.leaves(same))
    again = place / "again.npz"
    cache_features(["dataset:test"], place / "frozen", "frame_features", again, frames=True)
    one, two = (FeatureFile(f).meta for f in (place / "test.npz", again))
    assert one["weights"] == two["weights"]  # only layers above it were trained


def model_rows(place, clips, layer):
    variables, _ = load_variables(place / "start")
    model = vidjax.create_model("cnn_gru_resnet18", 12, tiny=True, width=8)
    spec = vidjax.spec("cnn_gru_resnet18")
    return np.asarray(jax.jit(model.apply)(variables, normalize(clips, spec.mean, spec.std))[1][layer])


def test_corrupt_feature_record_is_a_bad_video(place):
    """One flipped byte in the second video's array."""
    whole = (place / "test.npz").read_bytes()
    at = whole.index(b"features_000001.npy") + 1000
    (place / "damaged.npz").write_bytes(whole[:at] + bytes([whole[at] ^ 255]) + whole[at + 1 :])
    source = load_source("features", "test", path=str(place / "damaged.npz"))
    source[0].video.open()
    with pytest.raises(DecodeError, match="cannot read video 1"):
        source[1].video.open()


@pytest.mark.parametrize("out", ["loose.npz", "loose.array_record"])
def test_windows_of_a_video_file(place, out):
    """Windows of eleven frames are 0, 2, 4, 6 and 4, 6, 8, 10; the last one ends with the video."""
    path, bad = place / "a.mp4", place / "bad.mp4"
    path.write_bytes(load_source("synthetic_motion", "test", **OPTIONS)[3].encoded())
    bad.write_bytes(b"no video")
    done = cache(place, [str(path), str(bad)], out, layer="stage1", overlap=0.5)
    assert (done.videos, done.rows, [id for id, _ in done.bad]) == (1, 2, [str(bad)])
    file = FeatureFile(place / out)
    features, times = file.read(0)
    np.testing.assert_allclose(times, np.array([[0, 6], [4, 10]]) / 25)
    assert file.meta["ids"] == [str(path)] and file.meta["targets"] == [None]

    with Video(path) as video:
        clips = video.frames([0, 2, 4, 6, 4, 6, 8, 10])
    clips = center_views(clips, resolve(CONFIG).data, 1)[0][0].reshape(2, 4, 16, 16, 3)
    expected = model_rows(place, clips, "stage1")
    np.testing.assert_allclose(features, expected.mean((1, 2, 3)), rtol=1e-4, atol=1e-5)
    cache(place, str(path), "dense.npz", layer="stage1", dense=True)
    dense, times = FeatureFile(place / "dense.npz").read(0)
    np.testing.assert_allclose(times, np.array([[0, 6], [4, 10]]) / 25)
    np.testing.assert_allclose(dense, expected, rtol=1e-4, atol=1e-5)


def test_frame_rows_and_metadata(place):
    file = FeatureFile(place / "test.npz")
    source = load_source("synthetic_motion", "test", **OPTIONS)
    meta = file.meta
    assert meta["ids"] == [r.id for r in source] and meta["targets"] == [to_json(r.target) for r in source]
    assert meta["lengths"] == [11] * 12 and meta["shape"] == [64] and meta["fps"] == [25.0] * 12
    assert (meta["model"], meta["layer"], meta["split"]) == ("cnn_gru_resnet18", "frame_features", "test")
    assert meta["dataset_fingerprint"] == source.fingerprint
    assert meta["class_names"] == list(source.class_names)
    np.testing.assert_allclose(file.read(2)[1][:, 0], np.arange(11) / 25)


def test_files_with_integer_labels_are_read(place):
    """Before there were other targets, the metadata had `labels`."""
    with np.load(place / "test.npz") as file:
        arrays = dict(file)
    meta = json.loads(str(arrays.pop("meta")))
    meta["labels"] = [target["label"] for target in meta.pop("targets")]
    np.savez(place / "old.npz", meta=np.array(json.dumps(meta)), **arrays)
    old, new = (load_source("features", "test", path=str(place / f"{name}.npz")) for name in ("old", "test"))
    assert [r.target for r in old] == [r.target for r in new] and old.fingerprint == new.fingerprint


def test_array_record_equals_npz(place):
    cache(place, "dataset:test", "test.array_record", frames=True)
    a, b = FeatureFile(place / "test.npz"), FeatureFile(place / "test.array_record")
    assert a.meta == b.meta
    for i in range(12):
        for x, y in zip(a.read(i), b.read(i)):
            np.testing.assert_array_equal(x, y)


def test_workers_read_the_same_batches(place):
    for name in ("test.npz", "test.array_record"):
        batches = []
        for workers in (0, 1):
            cfg = resolve(on_features(place, workers=workers)).data
            source = load_source("features", "test", path=str(place / name))
            iterator = train_batches(source, cfg, 4, seed=1, streams=("features",))
            batches.append([next(iterator) for _ in range(4)])
            iterator.close()
        read, parallel = ([b["inputs"]["features"] for b in each] for each in batches)
        assert read[0].shape == (4, 4, 64) and read[0].dtype == np.float32
        for a, b in zip(read, parallel):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "layer, options, message",
    [
        (
            "frame_featurs",
            {},
            "unknown layer of cnn_gru_resnet18 'frame_featurs': did you mean frame_features",
        ),
        ("rnn1", dict(frames=True), "mixes frames"),
        ("pre_logits", dict(frames=True), "without an axis for the 4 frames"),
        ("stage1", dict(overlap=1.0), "overlap"),
        ("stage1", dict(out="x.pkl"), "the suffix must be"),
        ("stage1", dict(out="start/state/x.npz/y.npz"), "cannot write"),
        ("stage1", dict(videos="dataset:trian"), "unknown split of synthetic_motion 'trian'"),
        ("stage1", dict(videos=["no.mp4"]), "no video could be read"),
    ],
)
def test_invalid_feature_requests_are_reported(place, layer, options, message):
    options = dict(videos="dataset:test", out="refused.npz") | options
    (place / "start" / "state" / "x.npz").touch()
    with pytest.raises(UserError, match=message) as e:
        cache(place, options.pop("videos"), options.pop("out"), layer, **options)
    assert "\n" not in str(e.value)
    assert not list(place.glob("refused*")) and not list(place.glob("*.part"))


def changed(place, name, **meta):
    """Copies the rows of a file and changes its metadata."""
    file = FeatureFile(place / "train.npz")
    with FeatureWriter(place / name) as writer:
        for i in range(3):
            writer.add(file.meta["ids"][i], ClassTarget(i), *file.read(i), 25.0)
        writer.finish({**file.meta, **meta})


def test_incompatible_features_are_rejected(place):
    def refusal(config):
        with pytest.raises(UserError) as e:
            train(resolve(config), place / "refused")
        assert "\n" not in str(e.value)
        return str(e.value)

    def path(name):
        return dict(options=dict(path=str(place / name)))

    changed(place, "odd_train.npz")
    changed(place, "odd_test.npz", split="test", weights="0123456789abcdef")
    assert "weights" in refusal(on_features(place, **path("odd_{split}.npz")))
    changed(place, "odd_test.npz", split="test", dataset={"name": "video_folder"})
    assert "dataset" in refusal(on_features(place, **path("odd_{split}.npz")))
    assert "width 64" in refusal(on_features(place, feature_width=512))
    assert "has 11 rows, fewer than data.frames=12" in refusal(on_features(place, frames=12))
    assert "holds the split 'train', not 'test'" in refusal(on_features(place, **path("train.npz")))
    assert "none.npz does not exist" in refusal(on_features(place, **path("none.npz")))
    (place / "text.npz").write_text("text")
    assert "is not a feature file" in refusal(on_features(place, **path("text.npz")))
    other = on_features(place)
    other["data"]["options"]["weights"] = "0123456789abcdef"
    assert "with weights" in refusal(other)
    both = "a model of cached features and data.feature_width go together"
    assert both in refusal(on_features(place, feature_width=None))
    video = resolve(CONFIG).to_dict()
    video["model"]["options"] = dict(trunk=None)
    video["data"]["feature_width"] = 64
    assert "takes features: set data.name=features, not synthetic_motion" in refusal(video)
    three_d = on_features(place, feature_width=None) | dict(model=dict(name="slow_fusion_conv4", tiny=True))
    assert "slow_fusion_conv4 takes rgb" in refusal(three_d)


def test_the_command(place, capsys):
    from vidjax.cli import main

    line = ["features", "dataset:test", "--checkpoint", place / "start", "--out", place / "by_command.npz"]
    with pytest.raises(SystemExit) as e:
        main([str(x) for x in [*line, "--layer", "stage1", "--config.data.frames=5"]])
    assert e.value.code == 0
    out = capsys.readouterr().out
    assert "12 videos, 24 rows of 8" in out and "weights" in out
    with pytest.raises(SystemExit) as e:
        main([str(x) for x in [*line, "--layer", "stag1"]])
    assert e.value.code == 2 and "did you mean stage1" in capsys.readouterr().err
    text = str(np.load(place / "by_command.npz")["meta"])
    assert json.loads(text)["layer"] == "stage1"


def test_image_model_equals_trunk(place):
    """An image model gives the same features and fingerprint as inside a video model."""
    variables, meta = load_variables(place / "start")
    alone = {kind: tree["trunk"] for kind, tree in variables.items()}
    alone["params"]["head"] = {"kernel": np.zeros((64, 12), np.float32), "bias": np.zeros(12, np.float32)}
    config = {**CONFIG, "model": dict(name="resnet18", tiny=True)}
    save_variables(place / "image", alone, {**meta, "config": config})
    cache_features(["dataset:test"], place / "image", "pre_logits", place / "image.npz", frames=True)
    one, two = FeatureFile(place / "image.npz"), FeatureFile(place / "test.npz")
    assert one.meta["weights"] == two.meta["weights"]
    np.testing.assert_allclose(one.read(4)[0], two.read(4)[0], rtol=1e-4, atol=1e-5)


def test_evaluation_requires_the_features_of_training(place, capsys):
    from vidjax.cli import main

    changed(place, "eval_train.npz", weights="0123456789abcdef")
    changed(place, "eval_test.npz", weights="0123456789abcdef", split="test")
    train(resolve(on_features(place) | dict(steps=1)), place / "one_step")
    line = ["eval", "--checkpoint", place / "one_step"]
    for path, code, text in (("{split}.npz", 0, "video_top1"), ("eval_{split}.npz", 2, "weights")):
        with pytest.raises(SystemExit) as e:
            main([str(x) for x in [*line, f"--config.data.options.path={place / path}"]])
        out = capsys.readouterr()
        assert e.value.code == code and text in out.out + out.err and "Traceback" not in out.err
    (place / "b.mp4").write_bytes(load_source("synthetic_motion", "test", **OPTIONS)[0].encoded())
    with pytest.raises(SystemExit) as e:
        main(["predict", str(place / "b.mp4"), "--checkpoint", str(place / "one_step")])
    err = capsys.readouterr().err
    assert e.value.code == 2 and "cached features" in err and err.count("\n") == 1
