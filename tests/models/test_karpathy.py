"""The four fusions of Karpathy et al. (2014) and the three lecture networks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.analysis.describe import describe
from vidjax.analysis.params import abstract_variables

KINDS = ("single_frame", "early_fusion", "late_fusion", "slow_fusion")


def full(kind):
    s = vidjax.spec(f"karpathy_{kind}")
    model = vidjax.create_model(s.name)
    variables = abstract_variables(model, s.input_shape)
    _, endpoints = jax.eval_shape(
        model.apply, variables, jax.ShapeDtypeStruct((1, *s.input_shape), "float32")
    )
    return variables["params"], {k: x.shape[1:] for k, x in endpoints.items()}


def test_feature_sizes_match_section_3_1():
    """Section 3.1: 170x170 pixels, filters of 11 pixels with stride 3, maxima over 2x2 thrice: 6x6x256."""
    kernels = {kind: full(kind)[0]["stem_conv"]["kernel"].shape for kind in KINDS}
    assert kernels["single_frame"] == kernels["late_fusion"] == (11, 11, 3, 96)
    assert kernels["early_fusion"] == (11, 11, 30, 96)
    assert kernels["slow_fusion"] == (4, 11, 11, 3, 96)
    for kind in KINDS:
        params, sizes = full(kind)
        assert sizes["stage4"][-3:] == (6, 6, 256) and sizes["pre_logits"] == (4096,)
        towers = 2 if kind == "late_fusion" else 1
        assert params["fc6"]["kernel"].shape == (towers * 6 * 6 * 256, 4096)
        assert params["head"]["kernel"].shape == (4096, 487)


def test_slow_fusion_temporal_sizes_match_paper():
    """Temporal sizes are 10, 4, 2 and 1; the third layer covers all frames."""
    sizes = full("slow_fusion")[1]
    assert [sizes[k][0] for k in ("stem", "stage1", "stage2", "stage3")] == [4, 2, 1, 1]
    field = describe("karpathy_slow_fusion")["receptive_field"]
    assert [field[k]["clipped"][0] for k in ("stem", "stage1", "stage2")] == [4, 6, 10]


@pytest.fixture(scope="module")
def answers():
    """kind -> a function of the clip [2, 8, 48, 48, 3], tiny."""
    out = {}
    for kind in KINDS:
        model = vidjax.create_model(f"karpathy_{kind}", 5, tiny=True)
        variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 8, 48, 48, 3)))
        run = jax.jit(model.apply)
        out[kind] = lambda x, run=run, variables=variables: run(variables, x)[0]
    return out


@pytest.mark.parametrize(
    "kind, seen",
    [("single_frame", [4]), ("early_fusion", range(8)), ("late_fusion", [0, 7]), ("slow_fusion", range(8))],
)
def test_output_depends_on_expected_frames(answers, kind, seen):
    video = jax.random.normal(jax.random.key(1), (2, 8, 48, 48, 3))
    logits = answers[kind](video)
    changes = [bool((answers[kind](video.at[:, t].multiply(-1)) != logits).any()) for t in range(8)]
    assert np.flatnonzero(changes).tolist() == list(seen)


def test_late_fusion_shares_tower_weights(answers):
    """Reversing two frames swaps the outputs of the two towers."""
    model = vidjax.create_model("karpathy_late_fusion", 5, tiny=True)
    video = jax.random.normal(jax.random.key(1), (2, 2, 48, 48, 3))
    variables = jax.jit(model.init)(jax.random.key(0), video)
    towers = jax.jit(lambda x: model.apply(variables, x)[1]["stage4"])
    np.testing.assert_allclose(towers(video)[:, 0], towers(video[:, ::-1])[:, 1], rtol=1e-5)


def test_dropout_follows_both_hidden_layers():
    model = vidjax.create_model("karpathy_single_frame", 5, tiny=True, dropout=0.9)
    video = jax.random.normal(jax.random.key(1), (2, 1, 48, 48, 3))
    variables = jax.jit(model.init)(jax.random.key(0), video)

    def run(seed, train=True):
        return model.apply(variables, video, train=train, rngs={"dropout": jax.random.key(seed)})

    (a, ends_a), (b, ends_b) = run(0), run(1)
    assert (a != b).any() and (ends_a["pre_logits"] != ends_b["pre_logits"]).any()
    assert (run(0, train=False)[0] == run(1, train=False)[0]).all()


@pytest.mark.parametrize("kind", ["late_fusion", "early_fusion", "conv3d"])
def test_lecture_networks_accept_their_clip(kind):
    model = vidjax.create_model(f"lecture_{kind}")
    shape = jax.ShapeDtypeStruct((2, 20, 64, 64, 3), "float32")
    (logits, ends), _ = jax.eval_shape(model.init_with_output, jax.random.key(0), shape)
    time = {"late_fusion": (20, 20), "early_fusion": (1, 1), "conv3d": (20, 5)}[kind]
    assert logits.shape == (2, 10) and ends["pre_logits"].shape == (2, 24)
    assert ends["stem"].shape == (2, time[0], 64, 64, 12)
    assert ends["stage2"].shape == (2, time[1], 16, 16, 24)
