"""Tests that models match recorded outputs of the reference for the same random weights, stage by stage."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

import vidjax

GOLDEN = pathlib.Path(__file__).parent.parent / "golden"
sys.path.append(str(GOLDEN))
from weights import draw_all, draw_input, relative_error, sample  # noqa: E402

TOLERANCE = 1e-5  # float32 against the reference in float64, unless the recording sets another


def load(name):
    """Returns the recorded outputs, the settings of the recording, and the source weights."""
    with np.load(GOLDEN / f"{name}.npz") as file:
        golden = dict(file)
    about = json.loads(str(golden.pop("about")))
    return golden, about, draw_all(about["shapes"], about["seed"])


def differing(name, golden, about, source):
    """Returns the stages that differ, in order, and the relative errors of all stages."""
    model, variables = vidjax.load_pretrained(name, source, **about.get("options", {}))
    assert model.num_classes == about["classes"]
    x = draw_input(tuple(about["input_shape"]), about["input_seed"])
    logits, endpoints = jax.jit(model.apply)(variables, x)
    ours = {**endpoints, "logits": logits}
    errors = {s: relative_error(sample(ours[s]), want) for s, want in golden.items()}  # as computed
    return [s for s in errors if not errors[s] < about.get("tolerance", TOLERANCE)], errors


@pytest.mark.parametrize("name", sorted(p.stem for p in GOLDEN.glob("*.npz")))
def test_outputs_match_the_reference(name):
    golden, about, source = load(name)
    wrong, errors = differing(about["model"], golden, about, source)
    assert not wrong, f"{name} first differs at {wrong[0]}: relative errors {errors}"


def test_first_differing_stage_is_reported():
    golden, about, source = load("resnet18")
    source["layer2.0.downsample.1.bias"] = source["layer2.0.downsample.1.bias"] + 0.01
    wrong, _ = differing("resnet18", golden, about, source)
    assert wrong[0] == "stage2"


def test_goldens_are_small():
    assert all(p.stat().st_size < 200_000 for p in GOLDEN.glob("*.npz"))
