"""experiments/imported: every command is complete, and one runs end to end on a tiny model and dataset."""

import dataclasses
import functools
import json
import pathlib
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from experiments.imported import run as imported
from vidjax.analysis.params import abstract_variables
from vidjax.config import load
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.convert.published import CHECKPOINTS, SSV2
from vidjax.data.datasets import card, kinetics, option_names

ROOT = pathlib.Path(__file__).parents[2]
sys.path += [str(ROOT / "tests/data/datasets"), str(ROOT / "tests/convert")]
from official import write  # noqa: E402
from test_formats import python2_pickle  # noqa: E402

EVALUATED = [c for c in CHECKPOINTS.values() if not imported.reason(c)]
# Their test clips have other frames than the training clips of the model's config.
OTHER_CLIPS = {
    "s3d.torchvision",
    "slow_r50_8x8.pytorchvideo.4x16",
    "slow_r50_8x8.pyslowfast_caffe2.4x16",
    "r2plus1d_34.torchvision.ig65m_8f",
    "tsn_resnet50.tsm",
    "tsn_resnet50.tsm.uniform",
    "vtn_vit_b_16.vtn",
    *(c.name for c in EVALUATED if c.model.startswith("i3d_inception_")),
}


@functools.cache
def shipped(name):
    return load(name)


def seconds(stride, fps):
    return stride / (fps or 30)  # Kinetics is mostly at 30


@pytest.mark.parametrize("c", EVALUATED, ids=lambda c: c.name)
def test_config_is_that_of_the_model_with_the_clips_and_views_of_the_protocol(c):
    full, ours = shipped(imported.config_name(c)), imported.evaluation_config(c, "/data")
    s, p = vidjax.spec(c.model), c.preprocessing
    assert full.model.name == ours.model.name == c.model
    frames, stride = full.evals.val.frames or full.data.frames, p.stride or s.stride
    same = frames == ours.data.frames and (
        ours.data.sampling == "uniform"
        or full.data.stride == stride
        or seconds(full.data.stride, full.data.target_fps) == seconds(stride, p.target_fps)
    )
    assert same == (c.name not in OTHER_CLIPS)
    assert f"{ours.evals.val.clips}x{ours.evals.val.crops}" == c.views(s)
    assert ours.model.options.to_dict() == dict(p.options) and ours.model.dtype == "float32"
    about = card(ours.data.name)
    assert ours.data.options.path == "/data" and {*ours.data.options} <= {*option_names(ours.data.name)}
    assert ours.data.eval_split == ours.data.train_split and ours.data.eval_split in about.splits
    if ours.data.name == "kinetics":
        assert c.dataset == f"Kinetics-{ours.data.options.classes}"
    else:
        assert ours.data.name == {SSV2: "ssv2", "UCF101": "ucf101", "Sports-1M": "sports1m"}[c.dataset]


def test_readme_lists_every_checkpoint():
    text = (ROOT / "experiments/imported/README.md").read_text()
    written = text.split("<!-- results -->\n")[1].split("\n<!-- end of results -->")[0]
    assert written == imported.tables(), "run `python experiments/imported/run.py --readme`"
    assert all(f"| `{name}` |" in written for name in CHECKPOINTS)


@pytest.mark.parametrize(
    "evaluated, total, limit",
    [(20_000, 20_000, 0.5), (19_000, 20_000, 0.638), (10_000, 20_000, 1.1), (1_000, 20_000, 3.116)],
)
def test_tolerance_widens_with_the_videos_that_are_left_out(evaluated, total, limit):
    """By hand, for p = 0.75 and half of 20,000: 0.5 + 1.96 * 100 * sqrt(0.1875 / 10,000 / 2) = 1.1."""
    c = dataclasses.replace(CHECKPOINTS["r3d_18.torchvision"], top1=75.0)
    assert imported.allowed(c, evaluated, total) == pytest.approx(limit, abs=1e-3)
    unverified = CHECKPOINTS["vivit_b_16x2.scenic"]
    assert unverified.preprocessing.unverified and imported.allowed(unverified, total, total) == 1.0


NAME = "i3d_nln_r50_8x8.pyslowfast_caffe2"
HEADER = "label,youtube_id,time_start,time_end,split,is_cc\n"
VAL = "jumping,video0,0,10,validate,0\nzumba,video1,0,10,validate,0\njumping,video2,0,10,validate,0\n"


@pytest.fixture
def root(tmp_path, monkeypatch):
    """Writes Kinetics with two classes and one missing video; the script uses tiny models and this folder."""
    monkeypatch.setattr(kinetics, "EDITIONS", (2,))
    lists = {"train.csv": HEADER + VAL, "val.csv": HEADER + VAL + "zumba,gone,0,10,validate,0\n"}
    write(tmp_path / "data", {**lists, **{f"val/video{i}.mp4": None for i in range(3)}})
    monkeypatch.setitem(
        imported.DATASETS, "Kinetics-400", (dict(name="kinetics", options=dict(classes=2)), "val")
    )
    monkeypatch.setattr(imported, "FOLDER", tmp_path)
    (tmp_path / "README.md").write_text("Before\n<!-- results -->\nold\n<!-- end of results -->\nAfter\n")
    monkeypatch.setattr(imported, "run", functools.partial(imported.run, tiny=True))
    return tmp_path


def caffe2_file(path, model="i3d_nln_r50_8x8"):
    """Writes weights of a tiny model that always predicts class 0, in the format of PySlowFast's zoo."""
    s = vidjax.spec(model)
    abstract = abstract_variables(vidjax.create_model(model, 2, tiny=True), s.tiny_input_shape)
    flat = {k: np.full(x.shape, 0.1, np.float32) for k, x in flatten_dict(abstract, sep="/").items()}
    flat["params/head/kernel"] *= 0
    flat["params/head/bias"] = np.array([1, 0], np.float32)
    blobs = {k: np.array(x) for k, x in export(flat, ORIGINS["pyslowfast_caffe2"][model]).items()}
    blobs |= {"conv1_w_momentum": blobs["conv1_w"], "lr": np.ones(1), "model_iter": np.ones(1)}
    path.write_bytes(python2_pickle({"blobs": blobs}))
    return path


def published(monkeypatch, **fields):
    monkeypatch.setitem(CHECKPOINTS, NAME, dataclasses.replace(CHECKPOINTS[NAME], **fields))


@pytest.mark.parametrize(
    "top1, videos, measured, allowed, code",
    [(66.0, (), 66.667, 31.45, 0), (10.0, ("--videos=2",), 50.0, 34.45, 1)],
    ids=["within", "outside"],
)
def test_a_checkpoint_is_converted_evaluated_and_compared(
    root, monkeypatch, capsys, top1, videos, measured, allowed, code
):
    """All but the second of three videos are of the predicted class."""
    file = caffe2_file(root / "w.pkl")
    published(monkeypatch, top1=top1)
    args = ["--checkpoint", str(file), "--data", str(root / "data"), *videos]
    assert imported.main([NAME, *args, "--config.evals.val.clips=1"]) == code
    record = json.loads((root / f"results/{NAME}.json").read_text())
    assert record["label"] == "imported" and record["within"] is (code == 0)
    assert record["measured"] == {"top1": measured, "top5": 100.0}
    seen = 2 if videos else 3
    assert (record["videos"]["evaluated"], record["videos"]["of"], record["views"]) == (seen, 4, "1x3")
    assert record["difference"] == pytest.approx(measured - top1)
    assert record["allowed"] == pytest.approx(allowed, abs=0.01)
    assert record["overrides"] == ["evals.val.clips=1"] and len(record["file"]["sha256"]) == 64
    said = capsys.readouterr().out
    assert f"top-1 {measured:.2f} on {seen} videos ({4 - seen} of 4 are missing or left out)" in said
    assert f"published {top1}, {'OUTSIDE' if code else 'within'}" in said
    page = (root / "README.md").read_text()
    assert page.startswith("Before\n<!-- results -->\n**Run: 1 of") and page.endswith("-->\nAfter\n")
    assert f"| {measured:.2f} |" in next(line for line in page.splitlines() if f"`{NAME}`" in line)


def test_mistakes_end_in_one_line_and_code_2(root, monkeypatch, capsys):
    file = caffe2_file(root / "w.pkl")
    other = caffe2_file(root / "other.pkl", "slow_r50_8x8")
    good = [NAME, "--checkpoint", str(file), "--data", str(root / "data")]
    cases = [
        (["i3d_nln"], "unknown checkpoint 'i3d_nln': did you mean"),
        ([], "name a checkpoint, see --list"),
        (good[:3], "set --data"),
        ([*good[:2], str(root / "none.pkl"), *good[3:]], "none.pkl: download I3D_NLN_8x8_R50.pkl from https"),
        ([*good[:2], str(other), *good[3:]], "problems"),
        ([*good[:-1], str(root / "nowhere")], "does not exist"),
        ([*good[:-1], str(root / "results")], "does not exist"),
        ([*good, "--config.evals.val.clip=1"], "did you mean evals.val.clips"),
        (["videomae_b_pretrain.videomae", *good[1:]], "cannot be evaluated: pretraining"),
        (["resnet18.torchvision", *good[1:]], "cannot be evaluated: weights of an image model"),
    ]
    for args, message in cases:
        assert imported.main(args) == 2, args
        err = capsys.readouterr().err.splitlines()
        assert message in err[-1] and err[-1].startswith("run.py: "), (args, err)
    published(monkeypatch, sha256="0123abcd")
    assert imported.main(good) == 2
    assert "its SHA-256 starts with" in (err := capsys.readouterr().err) and "not 0123abcd" in err
    assert not (root / "results").exists()


def test_a_name_alone_prints_the_address_and_the_command(capsys):
    assert imported.main(["r3d_18.torchvision"]) == 0
    out = capsys.readouterr().out
    assert "https://download.pytorch.org/models/r3d_18-b3b3357e.pth" in out and "BSD-3-Clause" in out
    assert "run.py r3d_18.torchvision --checkpoint r3d_18-b3b3357e.pth --data DIR" in out
