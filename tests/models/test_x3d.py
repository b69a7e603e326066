"""X3D: the instances are points of the expansion, whose steps double the cost; shapes of table 1."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.analysis import graph
from vidjax.analysis.macs import jaxpr_cost
from vidjax.analysis.params import count_params
from vidjax.models.conv3d.x3d import PRESETS, X3D, SqueezeExcite, network
from vidjax.models.conv3d.x3d_expansion import (
    CONTRACTED,
    STEPS,
    X2D,
    Expansion,
    candidates,
    expand,
    family,
    scale_axis,
)


def shapes(name, video_shape):
    model = vidjax.create_model(name)
    video = jax.ShapeDtypeStruct(video_shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), video)
    return variables["params"], jax.eval_shape(model.apply, variables, video)


def test_x2d_cost_and_parameters_match_paper():
    g = graph.trace(X3D(400, **network(X2D)), (1, 112, 112, 3))
    assert jaxpr_cost(g.jaxpr).macs / 1e6 == pytest.approx(20.67, rel=1e-3)
    assert count_params(g.variables["params"]) / 1e6 == pytest.approx(1.63, abs=0.005)


@pytest.mark.parametrize("name, point", family().items())
def test_registered_presets_match_expansion(name, point):
    s = vidjax.spec(name)
    assert s.input_shape == (point.frames, point.size, point.size, 3) and s.stride == point.stride
    assert s.preset == network(point)
    assert point.gmacs == pytest.approx(PRESETS[name]["gmacs"], rel=1e-3)


def test_published_instances_are_points_of_the_expansion():
    tell = lambda p: (p.frames, p.stride, p.size, p.bottleneck, p.width, p.stage_sizes)  # noqa: E731
    assert {n: tell(p) for n, p in family().items()} == {
        "x3d_xs": (4, 12, 160, 2.25, 1.0, (3, 5, 11, 7)),
        "x3d_s": (13, 6, 160, 2.25, 1.0, (3, 5, 11, 7)),
        "x3d_m": (16, 5, 224, 2.25, 1.0, (3, 5, 11, 7)),
        "x3d_l": (16, 5, 312, 2.25, 1.0, (5, 10, 25, 15)),
    }


def test_each_expansion_step_doubles_cost_along_one_axis():
    point = X2D
    for axis, change in STEPS:
        after = dataclasses.replace(point, **change)
        assert after.gmacs / point.gmacs == pytest.approx(2.0, rel=0.05), axis
        # The search's own candidate for that axis is the same network but for the paper's rounding.
        found = candidates(point)[axis]
        assert found.size == after.size and found.frames == after.frames, axis
        assert found.bottleneck == pytest.approx(after.bottleneck, rel=0.02), axis
        assert found.depth == pytest.approx(after.depth, rel=0.02), axis
        point = after
    assert dataclasses.replace(point, **CONTRACTED).frames < point.frames


def test_expansion_cost_matches_traced_network():
    for point in (X2D, Expansion(3, 2, 65, 1.4, 1.7, 1.5), Expansion(5, 1, 48, 0.3, 3.0, 0.4)):
        g = graph.trace(X3D(400, **network(point)), (point.frames, point.size, point.size, 3))
        assert jaxpr_cost(g.jaxpr).macs / 1e9 == pytest.approx(point.gmacs, rel=1e-6)


def test_forward_expansion_and_backward_contraction_match_paper():
    tried = []

    def evaluate(point):  # a judge who likes depth, then frames
        tried.append(point)
        return min(point.depth, 3.0) * 100 + point.frames

    steps = expand(evaluate, gmacs=0.25)
    axes = [axis for axis, _ in steps]
    assert axes[0] == "depth" and axes[-1] == "contract" and len(tried) == 6 * (len(steps) - 1)
    assert steps[-2][1].gmacs > 0.25 and steps[-1][1].gmacs == pytest.approx(0.25, rel=0.05)
    before, last = steps[-3][1], steps[-1][1]
    changed = {f.name for f in dataclasses.fields(last) if getattr(before, f.name) != getattr(last, f.name)}
    assert changed <= {"frames", "stride"}
    assert scale_axis(X2D, "width", X2D.gmacs).widths == X2D.widths


def test_feature_sizes_match_table_1():
    params, (logits, endpoints) = shapes("x3d_s", (2, 13, 160, 160, 3))
    for key, side, channels in zip(
        ("stem", "stage1", "stage2", "stage3", "stage4"), (80, 40, 20, 10, 5), (24, 24, 48, 96, 192)
    ):
        assert endpoints[key].shape == (2, 13, side, side, channels), key  # no step in time anywhere
    assert endpoints["pre_logits"].shape == (2, 2048) and logits.shape == (2, 400)
    assert params["stage4_block0"]["conv2"]["kernel"].shape == (3, 3, 3, 1, 432)
    assert params["final_conv"]["kernel"].shape == (1, 1, 1, 192, 432)
    with_gate = {k for k, block in params.items() if "se" in block}
    assert with_gate == {f"stage{i}_block{j}" for i, n in enumerate((3, 5, 11, 7), 1) for j in range(0, n, 2)}
    assert "down_bn" not in params["stage1_block0"] and "down_bn" in params["stage2_block0"]


def test_squeeze_excitation_gates_by_the_mean():
    x = jax.random.normal(jax.random.key(0), (2, 3, 4, 5, 6))
    gate = SqueezeExcite(8)
    p = gate.init(jax.random.key(1), x)
    w = jax.tree.map(np.asarray, p["params"])
    mean = np.asarray(x).mean((1, 2, 3))
    hidden = np.maximum(mean @ w["fc1"]["kernel"] + w["fc1"]["bias"], 0)
    scale = 1 / (1 + np.exp(-(hidden @ w["fc2"]["kernel"] + w["fc2"]["bias"])))
    np.testing.assert_allclose(gate.apply(p, x), x * scale[:, None, None, None], rtol=1e-5, atol=1e-6)
