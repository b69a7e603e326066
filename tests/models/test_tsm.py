"""TSN and TSM: cost of the shift, its receptive field, and streaming."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from safetensors.numpy import save_file

import vidjax
from vidjax.analysis.describe import describe
from vidjax.analysis.params import abstract_variables
from vidjax.analysis.receptive_field import receptive_fields
from vidjax.config import resolve
from vidjax.convert.engine import export
from vidjax.convert.load import ORIGINS
from vidjax.errors import UserError
from vidjax.models.image.resnet import Block
from vidjax.train.experiment import build, initial_state

TINY = dict(tiny=True)


def video(frames=5, batch=2):
    return jax.random.normal(jax.random.key(1), (batch, frames, 32, 32, 3))


@pytest.fixture(scope="module")
def variables():
    """Variables of a tiny TSN with statistics that differ from their initial values; they fit every TSM."""
    model = vidjax.create_model("tsn_resnet50", 7, **TINY)
    variables = jax.jit(model.init)(jax.random.key(0), video())
    rng = np.random.default_rng(0)
    stats = jax.tree.map(
        lambda x: x + rng.uniform(-0.1, 0.1, x.shape).astype(np.float32), variables["batch_stats"]
    )
    return {**variables, "batch_stats": stats}


def run(variables, x, name="tsm_resnet50_8f", **options):
    model = vidjax.create_model(name, 7, **TINY, **options)
    return jax.jit(model.apply)(variables, x)


@pytest.fixture(scope="module")
def described():
    return {name: describe(name) for name in ("tsn_resnet50", "tsm_resnet50_8f")}


def test_shift_adds_no_parameters_or_macs(described):
    tsn, tsm = described.values()
    assert tsm["params"] == tsn["params"] == 24_327_632
    assert tsm["gmacs"] == tsn["gmacs"] and tsm["uncounted"] == tsn["uncounted"] == {}
    assert tsm["gmacs_by_module"] == tsn["gmacs_by_module"]


def test_temporal_receptive_field_grows_per_shifted_block(described):
    """A frame each way per block that shifts: of ResNet-50 all 3, 4, 6 and 3."""
    field = described["tsm_resnet50_8f"]["receptive_field"]
    assert [field[f"stage{i}"]["unclipped"][0] for i in (1, 2, 3, 4)] == [7, 15, 27, 33]
    model = vidjax.create_model("tsm_resnet50_8f", trunk="resnet101")
    fields = receptive_fields(model, (8, 64, 64, 3))
    # 23 blocks in the third stage: every second block shifts, 2 + 2 + 12 + 2 of them.
    assert [fields[f"stage{i}"].unclipped[0] for i in (1, 2, 3, 4)] == [5, 9, 33, 37]


def test_shift_of_no_channels_equals_tsn(variables):
    x = video()
    want, _ = run(variables, x, "tsn_resnet50")
    got, _ = run(variables, x, n_div=0)
    np.testing.assert_array_equal(got, want)
    moved, _ = run(variables, x)
    assert float(jnp.abs(moved - want).max()) > 1e-3


def test_first_block_matches_residual_and_inplace_shift(variables):
    """A residual shift applies to the branch only, an in-place shift to the shortcut also."""
    x = video()
    p, s = (variables[k]["trunk"]["stage1_block0"] for k in ("params", "batch_stats"))
    block = Block(8, 1, True, 1, jnp.float32, jnp.float32)
    for place in ("residual", "in_place"):
        _, ends = run(variables, x, place=place)
        stem = np.asarray(ends["stem"])
        shifted = stem.copy()
        shifted[..., 0] = 0
        shifted[..., 1] = 0
        shifted[:, :-1, ..., 0] = stem[:, 1:, ..., 0]
        shifted[:, 1:, ..., 1] = stem[:, :-1, ..., 1]
        fold = lambda v: v.reshape(-1, *v.shape[2:])  # noqa: E731
        shortcut = shifted if place == "in_place" else stem
        want = block.apply({"params": p, "batch_stats": s}, fold(shortcut), False, fold(shifted))
        np.testing.assert_allclose(fold(ends["stage1"]), want, rtol=1e-4, atol=1e-5)


def test_only_the_offline_model_depends_on_later_frames(variables):
    x = video()
    changed = x.at[:, -1].add(1.0)
    for online in (False, True):
        a, b = (run(variables, v, online=online)[1]["frame_logits"] for v in (x, changed))
        early = float(jnp.abs(a - b)[:, :-1].max())
        assert early == 0 if online else early > 1e-4


@pytest.mark.parametrize("place", ["residual", "in_place"])
def test_stream_matches_whole_clip(variables, place):
    x = video(frames=6)
    model = vidjax.create_model("tsm_resnet50_8f", 7, **TINY, online=True, place=place)
    want, ends = jax.jit(model.apply)(variables, x)
    step = jax.jit(lambda state, frame: model.apply(variables, state, frame, method="step"))
    for chunks in ([1] * 6, [2, 1, 3]):
        state, start, seen = model.init_state(2, (32, 32, 3)), 0, []
        assert not any(leaf.any() for leaf in jax.tree.leaves(state))
        for n in chunks:
            chunk = x[:, start] if n == 1 else x[:, start : start + n]
            (logits, e), state = step(state, chunk)
            seen.append(e["frame_logits"])
            start += n
            so_far = ends["frame_logits"][:, :start].mean(1)
            np.testing.assert_allclose(logits, so_far, atol=1e-5 * float(jnp.abs(so_far).max()))
        scale = float(jnp.abs(ends["frame_logits"]).max())
        np.testing.assert_allclose(jnp.concatenate(seen, 1), ends["frame_logits"], atol=1e-5 * scale)
        np.testing.assert_allclose(logits, want, atol=1e-5 * scale)
        np.testing.assert_allclose(e["pre_logits"], ends["pre_logits"], rtol=1e-4, atol=1e-5)


def test_consensus_averages_frame_logits(variables):
    x = video()
    _, ends = run(variables, x, "tsn_resnet50")
    scores = ends["frame_logits"]
    weights = jnp.array([0.1, 0.5, 0.2, 0.15, 0.05])
    weighted = {**variables, "params": {**variables["params"], "consensus": weights}}
    for name, v, want in (
        ("average", variables, scores.mean(1)),
        ("max", variables, scores.max(1)),
        ("weighted", weighted, (scores * weights[None, :, None]).sum(1)),
    ):
        got, _ = run(v, x, "tsn_resnet50", consensus=name)
        np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_partial_batch_norm_updates_only_the_stem(variables):
    """In training only the stem's statistics change; the blocks normalize with their running statistics."""
    model = vidjax.create_model("tsn_resnet50", 7, **TINY, partial_bn=True)
    rngs = {"dropout": jax.random.key(0)}
    apply = jax.jit(lambda x: model.apply(variables, x, train=True, mutable=["batch_stats"], rngs=rngs))
    _, state = apply(video())
    old, new = variables["batch_stats"]["trunk"], state["batch_stats"]["trunk"]
    for name in old:
        same = jax.tree.map(lambda a, b: bool((a == b).all()), old[name], new[name])
        assert all(jax.tree.leaves(same)) == (name != "stem_bn"), name


def test_incompatible_options_are_rejected(variables):
    frame = video()[:, 0]
    for options, told in (
        (dict(), "set online=True"),
        (dict(online=True, consensus="max"), "consensus is the average"),
        (dict(online=True, place="inplace"), "did you mean in_place"),
    ):
        model = vidjax.create_model("tsm_resnet50_8f", 7, **TINY, **options)
        with pytest.raises(UserError, match=told):
            model.init_state(1, frame.shape[1:])
    with pytest.raises(UserError, match="did you mean average"):
        run(variables, video(), "tsn_resnet50", consensus="averge")


def test_training_starts_from_image_weights(tmp_path, monkeypatch):
    """Weights with torchvision's names load into the trunk, and a step with partial BatchNorm runs."""
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    image = vidjax.create_model("resnet50", 7, tiny=True)
    shapes = abstract_variables(image, (32, 32, 3))
    rng = np.random.default_rng(0)
    source = jax.tree.map(lambda x: rng.uniform(0.1, 0.2, x.shape).astype(np.float32), shapes)
    named = export(flatten_dict(source, sep="/"), ORIGINS["torchvision"]["resnet50"])
    save_file({k: np.ascontiguousarray(x) for k, x in named.items()}, tmp_path / "resnet50.safetensors")
    data = dict(
        name="synthetic_motion",
        options=dict(size=32, frames=8, train=4, val=12, test=12),
        sampling="segments",
        frames=4,
        size=32,
        short_side=32,
        crop="center",
    )
    del source["params"]["head"]
    model = dict(name="tsm_resnet50_8f", tiny=True, options=dict(partial_bn=True))
    init = dict(path=str(tmp_path / "resnet50.safetensors"))
    exp = build(resolve(dict(batch=4, steps=1, data=data, model=model, init=init)))
    state = initial_state(exp)
    chex.assert_trees_all_equal(jax.device_get(state.params["trunk"]), source["params"])
    before = jax.device_get(state.model_state["batch_stats"]["trunk"])
    chex.assert_trees_all_equal(before, source["batch_stats"])
    video = rng.integers(0, 255, (4, 4, 32, 32, 3)).astype(np.uint8)
    state, metrics = exp.runner.step(
        state, {"inputs": {"rgb": video}, "targets": {"label": np.arange(4, dtype=np.int32)}}
    )
    after = jax.device_get(state.model_state["batch_stats"]["trunk"])
    changed = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
    moved = {k for k, layer in changed.items() if any(jax.tree.leaves(layer))}
    assert moved == {"stem_bn"} and np.isfinite(metrics["loss"])
