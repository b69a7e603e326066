"""Tests of loading pretrained weights: into models, backbones and training runs, and on the command line."""

import hashlib

import av
import chex
import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.checkpoint_io import load_variables
from vidjax.cli import main
from vidjax.config import resolve
from vidjax.convert import convert_file, export_file, load, read_weights
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.errors import UserError
from vidjax.predict import predict_videos
from vidjax.train.experiment import build, initial_state


def random_variables(name, classes, tiny=True):
    spec = vidjax.spec(name)
    shape = spec.tiny_input_shape if tiny else spec.input_shape
    abstract = abstract_variables(vidjax.create_model(name, classes, tiny=tiny), shape)
    rng = np.random.default_rng(classes)
    return jax.tree.map(lambda x: rng.uniform(0.1, 0.2, x.shape).astype(np.float32), abstract)


def foreign(name, classes, tiny=True):
    """Returns random weights with torchvision's names."""
    variables = random_variables(name, classes, tiny)
    named = export(flatten_dict(variables, sep="/"), ORIGINS["torchvision"][name])
    return {k: x.copy() for k, x in named.items()}  # safetensors cannot store views


@pytest.fixture(scope="module")
def image_weights():
    return foreign("resnet18", 7)


@pytest.fixture(scope="module")
def image_file(image_weights, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file({f"module.{k}": x for k, x in image_weights.items()}, path)
    return path


@pytest.fixture(scope="module")
def full_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "full.safetensors"
    save_file(foreign("resnet18", 5, tiny=False), path)
    return path


@pytest.mark.parametrize("name", ["resnet18", "r3d_18", "mc3_18"])
def test_model_takes_classes_and_weights_of_the_source(name):
    model, variables = vidjax.load_pretrained(name, foreign(name, 7), tiny=True)
    assert model.num_classes == 7
    chex.assert_trees_all_equal(jax.device_get(variables), random_variables(name, 7))


def test_changing_the_classes_reinitializes_only_the_head(image_weights):
    model, variables, weights = load("resnet18", image_weights, num_classes=3, tiny=True)
    assert model.num_classes == 3
    assert weights.notes == ("3 classes, 7 in the source: the head is newly initialized",)
    again = load("resnet18", image_weights, num_classes=3, tiny=True)[1]
    chex.assert_trees_all_equal(variables, again)
    head = variables["params"].pop("head")
    assert head["kernel"].shape[-1] == 3 and np.asarray(head["kernel"]).std() > 0
    want = random_variables("resnet18", 7)
    del want["params"]["head"]
    chex.assert_trees_all_equal(jax.device_get(variables), want)
    features, _ = load("resnet18", image_weights, num_classes=0, tiny=True)[:2]
    assert features.num_classes == 0


def test_a_source_without_classifier(image_weights):
    source = {k: x for k, x in image_weights.items() if not k.startswith("fc.")}
    model, variables, weights = load("resnet18", source, tiny=True)
    assert model.num_classes == 1000 and variables["params"]["head"]["bias"].shape == (1000,)
    assert "no classifier" in weights.notes[0]


def test_missing_batch_counts_are_accepted(image_weights):
    """Early files of torchvision have no batch counts."""
    source = {k: x for k, x in image_weights.items() if "num_batches" not in k}
    assert vidjax.load_pretrained("resnet18", source, tiny=True)[0].num_classes == 7


def test_pytorch_tensors_are_accepted(image_weights):
    torch = pytest.importorskip("torch", reason="tensors are PyTorch's")
    tensors = {k: torch.nn.Parameter(torch.tensor(x), requires_grad=False) for k, x in image_weights.items()}
    _, variables = vidjax.load_pretrained("resnet18", tensors, tiny=True)
    chex.assert_trees_all_equal(jax.device_get(variables), random_variables("resnet18", 7))


def test_origin_is_detected_or_checked(image_weights):
    assert read_weights("resnet18", image_weights, tiny=True).origin == "torchvision or timm"
    assert read_weights("resnet18", image_weights, "timm", tiny=True).origin == "timm"
    assert read_weights("r3d_18", foreign("r3d_18", 7), tiny=True).origin == "torchvision"
    with pytest.raises(UserError, match=r"unknown origin of weights 'tim'.*timm"):
        read_weights("resnet18", image_weights, "tim", tiny=True)
    with pytest.raises(UserError, match="no rules to read r3d_18 from timm"):
        read_weights("r3d_18", image_weights, "timm", tiny=True)


def test_ambiguous_origin_is_an_error(image_weights, monkeypatch):
    monkeypatch.setitem(ORIGINS, "timm", {"resnet18": tuple(ORIGINS["timm"]["resnet18"])[:-2]})
    assert read_weights("resnet18", image_weights, tiny=True).origin == "torchvision"
    monkeypatch.setitem(ORIGINS, "timm", {"resnet18": [*ORIGINS["torchvision"]["resnet18"]]})
    with pytest.raises(UserError, match="naming of both torchvision and timm: set origin"):
        read_weights("resnet18", image_weights, tiny=True)


def test_weights_of_another_model_are_rejected(image_weights):
    with pytest.raises(UserError, match=r"does not fit slow_fusion|no rules to read slow_fusion_conv4") as e:
        vidjax.load_pretrained("slow_fusion_conv4", image_weights)
    assert "resnet18" in str(e.value)
    with pytest.raises(UserError, match="does not fit resnet18 in the naming of timm, torchvision") as e:
        vidjax.load_pretrained("resnet18", {f"blocks.{i}.attn": np.ones(2) for i in range(9)}, tiny=True)
    assert "9 of its 9 arrays, such as blocks.0.attn" in str(e.value)
    with pytest.raises(UserError, match=r"problems: .*conv3.weight.*the model has no") as e:
        vidjax.load_pretrained("resnet18", foreign("resnet50", 7), tiny=True)
    assert "\n" not in str(e.value)


@pytest.fixture(scope="module")
def image_and_features(image_weights):
    """Returns images [2, 32, 32, 3] and the output of the image network's last stage."""
    model, variables = vidjax.load_pretrained("resnet18", image_weights, tiny=True)
    image = np.random.default_rng(0).normal(size=(2, 32, 32, 3)).astype(np.float32)
    return image, jax.jit(model.apply)(variables, image)[1]["stage4"]


@pytest.mark.parametrize(
    "name", ["single_frame_resnet18", "late_fusion_resnet18_mlp", "early_fusion_resnet18"]
)
def test_image_weights_are_loaded_into_the_trunk_of_a_video_model(name, image_weights, image_and_features):
    video_model, variables, weights = load(name, image_weights, num_classes=5, tiny=True)
    assert weights.owner == "resnet18" and "loaded into the trunk" in weights.notes[0]
    assert variables["params"]["head"]["bias"].shape == (5,)
    image, want = image_and_features
    got = jax.jit(video_model.apply)(variables, np.repeat(image[:, None], 4, axis=1))[1]["stage4"]
    if got.ndim > want.ndim:
        got = got[:, 2]
    # Early fusion repeats the first kernel over the frames, so a static clip is equivalent to the image.
    np.testing.assert_allclose(got, want, rtol=1e-4 if "early" in name else 1e-6)


def test_checkpoints_are_accepted_like_files(image_weights, image_file, tmp_path):
    convert_file(image_file, "resnet18", tmp_path / "image", tiny=True)
    for name in ("resnet18", "single_frame_resnet18"):
        a = load(name, image_weights, tiny=True)[1]
        b = load(name, tmp_path / "image", tiny=True)[1]
        chex.assert_trees_all_equal(a, b)
    convert_file(image_file, "single_frame_resnet18", tmp_path / "video", num_classes=5, tiny=True)
    model, variables, weights = load("single_frame_resnet18", tmp_path / "video", tiny=True)
    assert model.num_classes == 5 and not weights.notes and weights.owner == "single_frame_resnet18"
    chex.assert_trees_all_equal(jax.device_get(variables), load_variables(tmp_path / "video")[0])
    with pytest.raises(UserError, match="does not fit the model"):
        vidjax.load_pretrained("r3d_18", tmp_path / "video", tiny=True)


def motion(init, **options):
    return build(
        resolve(
            dict(
                batch=4,
                steps=1,
                data=dict(
                    name="synthetic_motion",
                    options=dict(size=32, frames=4, train=12, val=12, test=12),
                    frames=4,
                    size=32,
                    short_side=32,
                ),
                model=dict(tiny=True, **options),
                init=init,
            )
        )
    )


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VIDJAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def test_init_path_accepts_a_file_of_another_project(image_file):
    state = initial_state(motion(dict(path=str(image_file)), name="single_frame_resnet18"))
    want = random_variables("resnet18", 7)
    del want["params"]["head"]
    chex.assert_trees_all_equal(jax.device_get(state.params["trunk"]), want["params"])
    chex.assert_trees_all_equal(
        jax.device_get(state.model_state["batch_stats"]["trunk"]), want["batch_stats"]
    )
    assert state.params["head"]["bias"].shape == (12,)


def test_class_count_mismatch_suggests_skipping_the_head(tmp_path):
    save_file(foreign("r3d_18", 7), tmp_path / "w.safetensors")
    init = dict(path=str(tmp_path / "w.safetensors"))
    with pytest.raises(UserError, match=r"init.skip.*params/head/bias: \(7,\) in the checkpoint, \(12,\) in"):
        initial_state(motion(init, name="r3d_18"))
    state = initial_state(motion(init | dict(skip=("params/head",)), name="r3d_18"))
    want = random_variables("r3d_18", 7)["params"]["stem_conv"]["kernel"]
    np.testing.assert_array_equal(state.params["stem_conv"]["kernel"], want)


def write_video(path):
    with av.open(str(path), "w") as out:
        stream = out.add_stream("mpeg4", rate=10)
        stream.width = stream.height = 48
        for i in range(24):
            pixels = np.full((48, 48, 3), 10 * i, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
        out.mux(stream.encode())


def test_converted_checkpoint_predicts_and_records_its_source(tmp_path):
    file, video = tmp_path / "w.safetensors", tmp_path / "v.mp4"
    save_file(foreign("r3d_18", 7), file)
    names = [f"action {c}" for c in "abcdefg"]
    convert_file(file, "r3d_18", tmp_path / "ckpt", class_names=names, tiny=True)
    meta = load_variables(tmp_path / "ckpt")[1]
    assert meta["class_names"] == names
    assert meta["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert meta["source"]["origin"] == "torchvision"
    assert meta["source"]["licence"].startswith("BSD-3-Clause")
    assert meta["config"]["evals"] == {"val": {"type": "metrics", "clips": 5, "crops": 1}}
    write_video(video)
    (prediction,) = predict_videos([str(video)], tmp_path / "ckpt")
    assert prediction.error is None and prediction.frames.shape == (8, 32, 32, 3)
    assert len(prediction.content.as_json(5)["clips"]) == 5
    assert {n for n, _ in prediction.content.top(5)} <= set(names)


def test_cli_converts_and_exports_bit_for_bit(full_file, tmp_path, capsys):
    """Uses the full-size model, without options."""
    source = load_file(full_file)
    (tmp_path / "names.txt").write_text("a\nb\nc\nd\ne\n")
    ckpt, out = tmp_path / "ckpt", tmp_path / "out.safetensors"
    run(
        "convert",
        full_file,
        "--model=resnet18",
        "--out",
        ckpt,
        "--class-names",
        tmp_path / "names.txt",
    )
    assert "torchvision or timm" in capsys.readouterr().out
    run("export", ckpt, "--to=timm", "--out", out)
    back = load_file(out)
    assert back.keys() == source.keys()
    for name, x in source.items():
        np.testing.assert_array_equal(back[name], x)
        assert back[name].dtype == x.dtype
    with safe_open(out, "numpy") as file:
        assert file.metadata()["model"] == "resnet18" and "BSD" in file.metadata()["licence"]


def run(*args, code=0):
    with pytest.raises(SystemExit) as e:
        main(list(map(str, args)))
    assert e.value.code == code


def test_cli_errors_are_one_line(image_file, full_file, tmp_path, capsys):
    convert_file(image_file, "single_frame_resnet18", tmp_path / "ckpt", num_classes=2, tiny=True)
    (tmp_path / "names.txt").write_text("a\nb\n")
    (tmp_path / "cut.safetensors").write_bytes(image_file.read_bytes()[:5000])
    (tmp_path / "text.npz").write_text("hello")
    convert = ("convert", "--out", tmp_path / "out", "--model")
    export_to = ("export", tmp_path / "ckpt", "--to")
    cases = [
        ((*convert, "resnet18", tmp_path / "none.npz"), "no such file"),
        ((*convert, "resnet81", image_file), "did you mean resnet18"),
        ((*convert, "resnet18", tmp_path / "cut.safetensors"), "truncated"),
        ((*convert, "resnet18", tmp_path / "text.npz"), "truncated"),
        ((*convert, "resnet50", full_file), "problems"),
        ((*convert, "r3d_18", full_file), "does not fit r3d_18"),
        ((*convert, "resnet18", image_file), "101 problems: "),  # the tiny preset's
        (
            (*convert, "resnet18", full_file, "--class-names", tmp_path / "names.txt"),
            "2 class names for 5 classes",
        ),
        ((*convert, "resnet18", full_file, "--class-names", tmp_path), "class names"),
        ((*convert, "resnet18", full_file, "--origin=keras"), "unknown origin"),
        (
            ("convert", "--out", tmp_path / "ckpt", "--model=resnet18", full_file),
            "exists",
        ),
        (
            (*export_to, "torchvision", "--out", tmp_path / "x.safetensors"),
            "no rules for single_frame_resnet18",
        ),
        ((*export_to, "huggingface", "--out", tmp_path / "x.safetensors"), "unknown origin of weights"),
        (("export", tmp_path / "none", "--to=timm", "--out", tmp_path / "x.safetensors"), "no such folder"),
    ]
    for args, message in cases:
        run(*args, code=2)
        out, err = capsys.readouterr()
        assert message in err and err.startswith("vidjax: ") and err.count("\n") == 1 and not out, (args, err)
    assert not (tmp_path / "out").exists() and not (tmp_path / "x.safetensors").exists()


def test_export_writes_the_weights_of_the_checkpoint(tmp_path):
    """The exported weights are those of the checkpoint, not of the file it was converted from."""
    save_file(foreign("mc3_18", 3), tmp_path / "w.safetensors")
    convert_file(tmp_path / "w.safetensors", "mc3_18", tmp_path / "a", tiny=True, num_classes=4)
    assert export_file(tmp_path / "a", "torchvision", tmp_path / "x.safetensors") == "mc3_18"
    out = load_file(tmp_path / "x.safetensors")
    assert out["fc.weight"].shape[0] == 4 and sorted(out) == sorted(foreign("mc3_18", 3))
    np.testing.assert_array_equal(
        out["fc.weight"].T, load_variables(tmp_path / "a")[0]["params"]["head"]["kernel"]
    )
