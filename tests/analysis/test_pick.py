"""`vidjax pick`: what fits, how it is ranked, and what is said about it."""

import csv
import io
import json
import pathlib
import re

import pytest

import vidjax
from vidjax.analysis import evidence
from vidjax.analysis import pick as picking
from vidjax.analysis.pick import FEW_VIDEOS, Request, candidates, page, pick, ranked, weights_level
from vidjax.cli import main
from vidjax.cli import pick as command
from vidjax.config import load
from vidjax.convert.published import CHECKPOINTS
from vidjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
CLASSIFIERS = [n for n in vidjax.list_models() if evidence.is_classifier(vidjax.spec(n))]
SSV2 = "Something-Something v2"


def names(**request):
    return [c.spec.name for c in ranked(Request(**request))]


def row(result, name):
    return next(x for x in result["candidates"] if x["model"] == name)


@pytest.fixture(scope="module")
def shipped():
    return evidence.shipped_rows()


def test_the_evidence_is_current(shipped, monkeypatch):
    """Regenerate it by `python -m vidjax.analysis.evidence`. The tests below check its counts."""
    monkeypatch.setattr(evidence, "shipped_rows", lambda: shipped)
    assert evidence.PATH.read_text("utf-8") == evidence.evidence()


def test_the_evidence_has_the_costs_of_the_registered_inputs():
    """Compares it with the rows that test_zoo_costs.py counts again."""
    files = (ROOT / "tests/analysis/costs").glob("*.csv")
    costs = {r["model"]: r for f in files for r in csv.DictReader(f.open())}
    for name, entry in json.loads(evidence.PATH.read_text("utf-8")).items():
        assert entry["params"] == int(costs[name]["params"])
        if costs[name]["gmacs"]:
            assert entry["gmacs"] == pytest.approx(float(costs[name]["gmacs"]), rel=0.005), name


def test_the_evidence_has_the_costs_of_larger_test_crops_and_of_frames():
    entries = json.loads(evidence.PATH.read_text("utf-8"))
    figure = entries["c2d_r50_8x8"]["figures"][0]
    assert figure["shape"] == [8, 256, 256, 3] and vidjax.spec("c2d_r50_8x8").input_shape == (8, 224, 224, 3)
    assert evidence.view_gmacs("c2d_r50_8x8", figure["shape"], figure["options"]) == figure["gmacs"]
    entry = entries["cnn_gru_resnet18"]
    assert evidence.step_gmacs("cnn_gru_resnet18", entry["stream_options"]) == entry["step_gmacs"]


def test_published_accuracies_are_those_of_the_registry_the_configs_and_the_checkpoints(shipped):
    for name in CLASSIFIERS:
        mine = [c for c in candidates() if c.spec.name == name and c.figure]
        stated = {(r.dataset, r.top1) for r in vidjax.spec(name).results}
        stated |= {(r["dataset"], r["top1"]) for r in shipped if r["model"] == name}
        stated |= {(c.dataset, c.top1) for c in CHECKPOINTS.values() if c.model == name}
        assert {(c.figure["dataset"], c.figure["top1"]) for c in mine} <= stated
        assert len(mine) >= len(vidjax.spec(name).results)
        for c in mine:
            if checkpoint := CHECKPOINTS.get(c.figure["checkpoint"]):
                assert checkpoint.model == name and checkpoint.dataset == c.figure["dataset"]
                assert abs(checkpoint.top1 - c.figure["top1"]) <= evidence.ROUNDED
                assert c.weights == (f"{checkpoint.name}, {checkpoint.url}", checkpoint.licence)
    on_ssv2 = {c.spec.name for c in candidates() if c.figure and c.figure["dataset"] == SSV2}
    assert on_ssv2 >= {"tsm_resnet50_8f", "vivit_l_16x2_fe", "slowfast_r50_8x8"}  # one of each source


def test_streaming_returns_only_models_that_run_frame_by_frame():
    found = names(streaming=True)
    assert found and all(hasattr(vidjax.spec(n).module, "init_state") for n in found)
    assert not any(vidjax.spec(n).preset.get("bidirectional") for n in found)
    assert "cnn_lstm_resnet18" in found and "cnn_bilstm_resnet18" not in found
    # The published accuracy of TSM is that of the form that shifts from the future as well.
    result = pick(Request(streaming=True, top=100))
    assert row(result, "tsm_resnet50_8f")["options"] == {"online": True}
    assert not row(result, "tsm_resnet50_8f")["published"]["comparable"]
    assert found.index("movinet_a0_stream") < found.index("tsm_resnet50_8f")


@pytest.mark.parametrize("unit", [{}, {"per": "view"}, {"streaming": True}], ids=["video", "view", "frame"])
@pytest.mark.parametrize("gmacs", [2.0, 60.0])
def test_the_budget_is_respected(unit, gmacs):
    result = pick(Request(gmacs=gmacs, params=1e7, top=200, **unit))
    assert result["candidates"]
    for x in result["candidates"]:
        assert x["params"] <= 1e7
        cost = x["gmacs"]
        if result["unit"] != "frame":
            assert cost == x["gmacs_per_view"] * (x["views"] if result["unit"] == "video" else 1)
        assert cost <= gmacs


def test_a_budget_selects_the_protocol_that_it_affords():
    affordable = {g: row(pick(Request(gmacs=g, top=200)), "tsm_resnet50_8f") for g in (50, 5000)}
    assert affordable[50]["published"]["views"] == "1x1"
    assert affordable[5000]["published"]["views"] == "10x3"
    assert affordable[50]["published"]["top1"] < affordable[5000]["published"]["top1"]


def test_motion_ranks_only_order_aware_models_and_by_something_something():
    found = ranked(Request(cue="motion"))
    assert all(c.spec.order_aware for c in found)
    assert {"single_frame_resnet50", "tsn_resnet50", "timesformer_b_8x32_space"}.isdisjoint(
        c.spec.name for c in found
    )
    on_ssv2 = [c.figure["top1"] for c in found if c.figure and c.figure["dataset"] == SSV2]
    assert len(on_ssv2) > 3 and on_ssv2 == sorted(on_ssv2, reverse=True)
    assert all(c.figure["dataset"] == SSV2 for c in found[: len(on_ssv2)])
    assert "tsn_resnet50" in names(cue="appearance")


@pytest.mark.parametrize("cue", picking.CUES)
def test_accuracies_of_different_datasets_are_not_interleaved(cue):
    datasets = [c.figure and c.figure["dataset"] for c in ranked(Request(cue=cue))]
    blocks = [d for i, d in enumerate(datasets) if i == 0 or d != datasets[i - 1]]
    assert len(blocks) == len(set(blocks)) and blocks[0] == picking.REFERENCE[cue] and blocks[-1] is None


def test_few_videos_rank_models_with_weights_first():
    levels = [weights_level(c) for c in ranked(Request(cue="appearance", videos=500))]
    assert levels == sorted(levels) and set(levels) == {0, 1, 2}
    many = [weights_level(c) for c in ranked(Request(cue="appearance", videos=FEW_VIDEOS))]
    assert many != sorted(many)
    result = pick(Request(cue="appearance", videos=500, top=200))
    assert all(x["weights"] for x in result["candidates"][:10])
    assert "mae_st_b_pretrain" in " ".join(row(result, "mae_st_b")["reasons"])
    assert "ucf101/videomae_b_pretrain" in " ".join(row(result, "videomae_b")["reasons"])
    assert row(result, "videomae_b")["config"] == "ucf101/videomae_b_finetune"
    assert "resnet18 (torchvision" in " ".join(row(result, "late_fusion_resnet18")["reasons"])


@pytest.mark.parametrize("modality", picking.MODALITIES)
def test_modality(modality):
    found = names(modality=modality)
    assert found and all("+".join(vidjax.spec(n).streams) == modality for n in found)


def test_every_config_loads_and_names_the_model(shipped):
    named = {r["config"]: r["model"] for r in shipped}  # loaded by the fixture
    for cue, videos in (("appearance", None), ("motion", 100)):
        for modality in picking.MODALITIES:
            for x in pick(Request(cue=cue, videos=videos, modality=modality, top=200))["candidates"]:
                fallback = x["config"] not in named
                model = load(x["config"]).model.name if fallback else named[x["config"]]
                assert model == x["model"]
                assert fallback == any("tiny preset" in reason for reason in x["reasons"])


def test_motion_starts_from_recipes_that_do_not_mirror():
    result = pick(Request(cue="motion", videos=500, top=200))
    x = row(result, "videomae_b")
    assert x["config"] == "ssv2/videomae_b_finetune" and not load(x["config"]).data.flip
    assert "(videomae_b_pretrain with ssv2/videomae_b_pretrain)" in " ".join(x["reasons"])
    for x in result["candidates"]:
        assert ("data.flip=False" in " ".join(x["reasons"])) != x["config"].startswith("ssv2/")


@pytest.mark.parametrize(
    "request_, message",
    [
        (dict(streaming=True, gmacs=0.01), r"which needs 0\.05\d* GMACs per frame: change --gmacs$"),
        (
            dict(streaming=True, modality="flow"),
            "i3d_inception_flow, which does not run frame by frame: change --st",
        ),
        (dict(gmacs=1e-3, params=100), "and has .* parameters: change --gmacs and --params$"),
    ],
)
def test_a_request_that_nothing_fits_names_the_nearest_model(request_, message):
    with pytest.raises(UserError, match=message) as e:
        pick(Request(**request_))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "request_",
    [
        dict(videos=0),
        dict(gmacs=float("nan")),
        dict(params=float("inf")),
        dict(top=-1),
        dict(cue="sound"),
        dict(streaming=True, per="view"),
    ],
)
def test_unusable_values_are_errors(request_):
    with pytest.raises(UserError, match=f"{next(reversed(request_))}[ =]"):
        Request(**request_)


class _Clock:
    """Stands in for vidjax.analysis.latency: every model takes a second per 100 GMACs."""

    @staticmethod
    def forward_seconds(name, shape, options):
        return next(c.view_gmacs for c in candidates() if (c.spec.name, c.view_shape) == (name, shape)) / 100

    @staticmethod
    def matmul_gmacs_per_second():
        return 100.0


def test_a_latency_budget_returns_measured_models_that_meet_it(monkeypatch):
    monkeypatch.setattr(picking, "latency", _Clock)
    limit, lines = 50.0, []  # up to 20 GMACs cannot be excluded, and 5 fit
    result = pick(Request(latency=limit, params=8e6, per="view", top=2), lines.append)
    assert len(result["candidates"]) == 2
    for x in result["candidates"]:
        assert x["latency_ms"] == pytest.approx(10 * x["gmacs"]) and x["latency_ms"] <= limit
    names_ = [x["model"] for x in result["candidates"]]
    assert names_ == [n for n in names(gmacs=5, params=8e6, per="view") if n in names_][:2]
    timed = [line for line in lines if line.startswith("timing ")]
    assert len(timed) > 2 and timed[-1] == f"timing {names_[-1]}"
    assert result["notes"][0].startswith(f"{len(timed)} of ")
    with pytest.raises(UserError, match=r"\(0 of \d+ were timed\); the nearest is \w+, which takes at least"):
        pick(Request(latency=1e-6, params=4e6, per="view"))
    with pytest.raises(UserError, match=r"the nearest is lecture_early_fusion, which takes 0\.2\d+ ms"):
        pick(Request(latency=0.1, params=4e6, per="view", cue="motion"))


def test_a_model_is_timed_at_full_size():
    (x,) = pick(Request(params=4000, measure=True))["candidates"]
    assert x["model"] == "lecture_late_fusion" and 0 < x["latency_ms"] < 60_000


def test_a_streaming_model_is_timed_per_frame(monkeypatch):
    seen = []
    step_seconds = lambda *args: seen.append(args) or 0.25  # noqa: E731
    assert 0 < picking.latency.step_seconds("cnn_gru_resnet18", (4, 8), {"trunk": None}) < 60
    monkeypatch.setattr(picking.latency, "step_seconds", step_seconds)
    (x,) = pick(Request(streaming=True, params=3e6, measure=True))["candidates"]
    assert x["latency_ms"] == 250 and seen == [("tsm_mobilenet_v2_8f", (8, 224, 224, 3), {"online": True})]


def run(capsys, *line):
    with pytest.raises(SystemExit) as e:
        main([str(word) for word in ("pick", *line)])
    return e.value.code, *capsys.readouterr()


def test_json_and_text_agree(capsys):
    flags = ("--cue", "motion", "--videos", 2000, "--gmacs", 500)
    _, text, _ = run(capsys, *flags)
    code, out, _ = run(capsys, *flags, "--json")
    result = json.loads(out)
    assert code == 0 and text.rstrip("\n") == page(result)
    assert re.findall(r"^\d+\. (\w+)$", text, re.M) == [x["model"] for x in result["candidates"]]
    for x in result["candidates"]:
        for value in (x["config"], f"{x['params']:,}", f"{x['published']['top1']:g} top-1", *x["reasons"]):
            assert value in text
        assert f"published  {x['published']['top1']:g}" in text and x["published"]["source"] in text
        assert not x["weights"] or f"{x['weights']} ({x['licence']})" in text
    for x in result["elsewhere"]:
        assert x["published"]["dataset"] not in {c["published"]["dataset"] for c in result["candidates"]}
        assert f"{x['model']}: published {x['published']['top1']:g}" in text


class _Terminal(io.StringIO):
    def isatty(self):
        return True


def test_questions_are_asked_on_a_terminal_for_missing_flags(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdin", _Terminal("sound\nmot\n1,000\nn\n-1\n500\n"))
    code, text, err = run(capsys)
    assert code == 0 and err.count("(Enter: skip)") == 6 and "'sound' is not an answer" in err
    _, same, silent = run(capsys, "--cue=motion", "--videos=1000", "--no-streaming", "--gmacs=500")
    assert text == same and silent == ""
    monkeypatch.setattr("sys.stdin", _Terminal("\n"))
    _, _, err = run(capsys, "--cue=motion", "--videos=1000", "--streaming")
    assert err.count("(Enter: skip)") == 1 and "GMACs per frame" in err


def test_no_question_is_asked_without_a_terminal_or_with_json(capsys, monkeypatch):
    monkeypatch.setattr(command, "_ask", lambda *args: pytest.fail("asked"))
    monkeypatch.setattr("sys.stdin", io.StringIO("motion\n"))
    code, text, _ = run(capsys)
    assert code == 0 and "No cue was given (--cue)" in text
    monkeypatch.setattr("sys.stdin", _Terminal("motion\n"))
    assert run(capsys, "--json")[0] == 0


def test_errors_of_the_command_are_one_line(capsys):
    code, _, err = run(capsys, "--streaming", "--gmacs", "0.01", "--cue", "motion", "--videos", "9")
    assert code == 2 and err.startswith("vidjax: no registered model") and err.count("\n") == 1


def test_the_documented_output_is_current(capsys):
    text = (ROOT / "docs/choosing.md").read_text()
    command_, output = re.search(r"```\n\$ vidjax pick (.*?)\n(.*?)```", text, re.S).groups()
    _, out, _ = run(capsys, *command_.split())
    assert out == output
