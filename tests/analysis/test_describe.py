"""`vidjax describe`: the keys of its JSON, its overrides, its page and its errors."""

import json

import pytest
from rich.console import Console

import vidjax
from vidjax.analysis import graph, index
from vidjax.analysis.describe import clip_seconds, describe, page
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params
from vidjax.cli import main


def run(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["describe", *args])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def text(row):
    console = Console(soft_wrap=True, width=200)
    with console.capture() as captured:
        console.print(page(row))
    return captured.get()


@pytest.fixture(scope="module")
def r3d_18():
    return json.loads(json.dumps(describe("r3d_18")))


def test_row(r3d_18):
    row = r3d_18
    assert row["params"] == row["published_params"] == 33_371_472
    assert row["gmacs"] == pytest.approx(40.697, rel=1e-4)
    assert sum(row["gmacs_by_module"].values()) == pytest.approx(row["gmacs"])
    assert sum(row["params_by_module"].values()) == row["params"]
    assert list(row["gmacs_by_module"])[:3] == ["stem_conv", "stem_bn", "stage1_block0"]
    assert row["tokens"] is None and row["uncounted"] == {}
    assert row["clip_seconds"] == pytest.approx(16 / 15)
    assert row["receptive_field"]["stage2"] == {
        "shape": [8, 28, 28, 128],
        "clipped": [16, 51, 51],
        "unclipped": [25, 51, 51],
    }
    assert row["activation_bytes"] > 1e8
    assert row["compiled_bytes"] is None and "--memory" in row["compiled_for"]
    assert "multiply-add" in row["convention"] and "FLOPs = 2 x MACs" in row["convention"]


def test_overrides(capsys):
    name, published = "lecture_early_fusion", (20, 64, 64, 3)
    args = ("--size", "128", "--classes", "7", "--depth", "2", "--memory", "--json")
    code, out, _ = run(capsys, name, *args)
    large = json.loads(out)
    assert code == 0 and large["input_shape"] == [20, 128, 128, 3]
    model = vidjax.create_model(name)
    g = graph.trace(model, published)
    small, head = jaxpr_cost(g.jaxpr), jaxpr_cost(g.jaxpr).by_module(1)["head"]
    rest = large["gmacs"] - large["gmacs_by_module"]["head"]
    assert rest == pytest.approx(4 * (small.macs - head) / 1e9)
    width = g.variables["params"]["head"]["kernel"].shape[0]
    fewer = (width + 1) * (model.num_classes - 7)
    assert large["params"] == count_params(g.variables["params"]) - fewer
    assert large["compiled_bytes"] > 0 and large["compiled_for"] == "cpu"
    assert large["activation_bytes"] >= large["activation_bytes_remat"] > 0


def test_frames_are_replaced(capsys):
    row = json.loads(run(capsys, "lecture_conv3d", "--frames", "40", "--json")[1])
    assert row["input_shape"] == [40, 64, 64, 3] and row["receptive_field"]["stem"]["shape"][0] == 40


def test_page(capsys, r3d_18):
    out = text(r3d_18)
    for part in ("33,371,472  (published: 33,371,472)", "40.697  (published: 40.697)", "FLOPs = 2 x MACs"):
        assert part in out
    assert "1.07 s" in out and "109x219x219" in out and "top-1 63.2" in out and "field " not in out[:900]
    changed = text(r3d_18 | {"input_shape": [16, 64, 64, 3], "num_classes": 10})
    assert "published:" not in changed and "16x64x64x3" in changed
    assert text(describe("lecture_conv3d")).split() == run(capsys, "lecture_conv3d")[1].split()


def test_streams():
    row = describe("two_stream_resnet18", size=64)
    assert row["input_shape"] == {"rgb": [1, 64, 64, 3], "flow": [10, 64, 64, 2]}
    macs, params = 0, 0
    for part, shape in (("spatial", (1, 64, 64, 3)), ("temporal", (10, 64, 64, 2))):
        g = graph.trace(vidjax.create_model(f"two_stream_resnet18_{part}"), shape)
        macs += jaxpr_cost(g.jaxpr).macs
        params += count_params(g.variables["params"])
    assert row["params"] == params and row["gmacs"] == pytest.approx(macs / 1e9)
    out = text(row)
    assert "rgb 1x64x64x3, flow 10x64x64x2" in out and "receptive field" not in out
    assert "differs by stream" in out


def test_models_on_tokens_tell_their_numbers_and_what_is_not_computed(r3d_18):
    field = {"stage1": {"shape": [25089, 96], "clipped": [16, 224, 224], "unclipped": None}}
    out = text(r3d_18 | {"tokens": [25089, 393], "receptive_field": field})
    assert "25089, then 393" in out and "not computed for an unbounded input" in out


def test_errors(capsys):
    for args, message in (
        (("r3d_19",), "did you mean r3d_18"),
        (("resnet18", "--frames", "8"), "image model"),
        (("r3d_18", "--size", "0"), "at least 1"),
        (("r3d_18", "--classes", "-3"), "negative"),
        (("two_stream_resnet18", "--frames", "8"), "several streams"),
        (("two_stream_resnet18_temporal", "--frames", "8"), "does not take an input of 8x224x224x2"),
        (
            ("slowfast_r50_4x16", "--frames", "7"),
            "7 frames is too short for SlowFast with alpha=8; use at least 8",
        ),
        (
            ("vivit_b_16x2", "--frames", "33", "--size", "225"),
            "frames=33 does not divide into the tubelets of 2 frames of vivit_b_16x2: set it to 32 or 34",
        ),
        (("vivit_b_16x2", "--size", "225"), "size=225 does not divide into the patches of 16 pixels"),
        (("vit_b_16", "--size", "225"), "size=225 does not divide into the patches of 16 pixels of vit_b_16"),
        (("c3d", "--size", "8"), "nothing is left of them at"),
    ):
        code, _, err = run(capsys, *args)
        assert code == 2 and message in err and err.count("\n") == 1


def test_clip_seconds():
    assert clip_seconds(16, 4, 30) == pytest.approx(64 / 30)


def test_the_index_of_models_is_current():
    """Regenerate it by `python -m vidjax.analysis.index`."""
    assert index.PATH.read_text("utf-8") == index.index()
