"""`vidjax describe`: the keys of its JSON, its overrides, its page and its errors."""

import json

import pytest

from vidjax.analysis.describe import clip_seconds
from vidjax.cli import main


def run(capsys, *args):
    with pytest.raises(SystemExit) as stop:
        main(["describe", *args])
    out, err = capsys.readouterr()
    return stop.value.code, out, err


def test_json(capsys):
    code, out, _ = run(capsys, "r3d_18", "--json")
    row = json.loads(out)
    assert code == 0
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
    _, out, _ = run(capsys, "slow_fusion_conv4", "--json")
    small = json.loads(out)
    args = ("--frames", "32", "--size", "128", "--classes", "7", "--depth", "2", "--memory")
    _, out, _ = run(capsys, "slow_fusion_conv4", *args, "--json")
    large = json.loads(out)
    assert large["input_shape"] == [32, 128, 128, 3]
    heads = [r["gmacs_by_module"]["head"] for r in (small, large)]
    assert large["gmacs"] - heads[1] == pytest.approx(8 * (small["gmacs"] - heads[0]))
    assert large["params"] == small["params"] - 129 * (400 - 7)
    assert large["compiled_bytes"] > 0 and large["compiled_for"] == "cpu"
    assert large["activation_bytes"] > 7 * small["activation_bytes"]


def test_page(capsys):
    _, out, _ = run(capsys, "r3d_18")
    for text in ("33,371,472  (published: 33,371,472)", "40.697  (published: 40.697)", "FLOPs = 2 x MACs"):
        assert text in out
    assert "1.07 s" in out and "109x219x219" in out and "top-1 63.2" in out
    _, out, _ = run(capsys, "resnet18", "--size", "64", "--classes", "10")
    assert "published:" not in out and "64x64x3" in out


def test_streams(capsys):
    row = json.loads(run(capsys, "two_stream_resnet18", "--size", "64", "--json")[1])
    assert row["input_shape"] == {"rgb": [1, 64, 64, 3], "flow": [10, 64, 64, 2]}
    parts = [
        json.loads(run(capsys, f"two_stream_resnet18_{part}", "--size", "64", "--json")[1])
        for part in ("spatial", "temporal")
    ]
    assert row["params"] == sum(p["params"] for p in parts)
    assert row["gmacs"] == pytest.approx(sum(p["gmacs"] for p in parts))
    assert not row["receptive_field"] and "stage4" in parts[1]["receptive_field"]
    _, out, _ = run(capsys, "two_stream_resnet18", "--size", "64")
    assert "rgb 1x64x64x3, flow 10x64x64x2" in out and "receptive field" not in out


def test_errors(capsys):
    for args, message in (
        (("r3d_19",), "did you mean r3d_18"),
        (("resnet18", "--frames", "8"), "image model"),
        (("r3d_18", "--size", "0"), "at least 1"),
        (("r3d_18", "--classes", "-3"), "negative"),
        (("two_stream_resnet18", "--frames", "8"), "several streams"),
        (("two_stream_resnet18_temporal", "--frames", "8"), "does not take an input of 8x224x224x2"),
    ):
        code, _, err = run(capsys, *args)
        assert code == 2 and message in err and err.count("\n") == 1


def test_clip_seconds():
    assert clip_seconds(16, 4, 30) == pytest.approx(64 / 30)
