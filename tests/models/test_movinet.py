"""MoViNet: streaming equals the whole clip, is causal, and has a state of constant size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.models.conv3d.movinet import Block, StreamBlock, positions, running_mean

STREAMS = ("movinet_a0_stream", "movinet_a3_stream")  # without and with positions


def tiny(name, frames=7, **options):
    model = vidjax.create_model(name, 5, tiny=True, **options)
    video = jax.random.normal(jax.random.key(1), (2, frames, 24, 31, 3))
    variables = jax.jit(model.init)(jax.random.key(0), video)
    # Statistics and scales that differ from their initial values.
    noise = iter(jax.random.split(jax.random.key(2), 500))
    moved = lambda x: x + 0.3 * jax.random.uniform(next(noise), x.shape)  # noqa: E731
    return model, jax.tree.map(moved, variables), video


def by_steps(model, variables, video, sizes):
    step = jax.jit(lambda v, s, x: model.apply(v, s, x, method="step"))
    state, at = model.init_state(2, video.shape[2:]), 0
    answers = []
    for n in sizes:
        frames = video[:, at] if n == 1 else video[:, at : at + n]
        (logits, endpoints), state = step(variables, state, frames)
        answers.append((logits, endpoints))
        at += n
    assert at == video.shape[1] and int(state["count"]) == at
    return answers


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("sizes", [(1,) * 7, (3, 1, 2, 1), (7,)])
def test_stream_matches_whole_clip(name, sizes):
    model, variables, video = tiny(name)
    whole, endpoints = jax.jit(model.apply)(variables, video)
    answers = by_steps(model, variables, video, sizes)
    np.testing.assert_allclose(answers[-1][0], whole, rtol=1e-5, atol=1e-5 * float(jnp.abs(whole).max()))
    for stage in ("stem", "stage1", "stage2"):
        pieces = jnp.concatenate([e[stage] for _, e in answers], axis=1)
        scale = float(jnp.abs(endpoints[stage]).max())
        np.testing.assert_allclose(pieces, endpoints[stage], rtol=1e-5, atol=1e-5 * scale, err_msg=stage)


@pytest.mark.parametrize("name", STREAMS)
def test_stream_matches_every_prefix(name):
    model, variables, video = tiny(name)
    answers = by_steps(model, variables, video, (1,) * 7)
    apply = jax.jit(model.apply)
    for t in (1, 4):
        np.testing.assert_allclose(answers[t - 1][0], apply(variables, video[:, :t])[0], rtol=1e-4, atol=1e-5)


def changed(name, frame):
    """Returns the frames of the last stage that change with one frame of the clip."""
    model, variables, video = tiny(name)
    stage = jax.jit(lambda x: model.apply(variables, x)[1]["stage2"])
    return np.asarray(stage(video) != stage(video.at[:, frame].add(1.0))).any((0, 2, 3, 4))


@pytest.mark.parametrize("name", STREAMS)
def test_outputs_do_not_depend_on_later_frames(name):
    moved = changed(name, 4)
    assert not moved[:4].any() and moved[4:].all()  # the running mean carries it to the end
    assert changed("movinet_a0_base", 4)[:4].all()  # which the base model's mean spreads both ways


def test_running_mean_equals_mean_of_past_frames():
    x = np.random.default_rng(0).normal(size=(2, 9, 3)).astype(np.float32)
    total, count, found = jnp.zeros((2, 1, 3)), 0, []
    for part in (x[:, :4], x[:, 4:5], x[:, 5:]):
        means, total = running_mean(part, total, jnp.int32(count))
        count += part.shape[1]
        found.append(means)
    expected = np.stack([x[:, : t + 1].mean(1) for t in range(9)], axis=1)
    np.testing.assert_allclose(np.concatenate(found, axis=1), expected, rtol=1e-5, atol=1e-6)


def test_positions_continue_across_chunks():
    whole = positions(jnp.int32(0), 10, 6)
    np.testing.assert_allclose(positions(jnp.int32(7), 3, 6), whole[7:], atol=1e-6)
    t = 7 / 1e4 ** (np.array([0, 2, 4]) / 6)
    np.testing.assert_allclose(whole[7], np.concatenate([np.sin(t), np.cos(t)]), atol=1e-6)


def test_positions_distinguish_equal_frames():
    model, _, video = tiny("movinet_a3_stream", frames=4)
    still = jnp.repeat(video[:, :1], 4, axis=1)
    fresh = jax.jit(model.init)(jax.random.key(0), video)

    def last_two(scale):
        scaled = lambda path, x: x + scale if "position_scale" in jax.tree_util.keystr(path) else x  # noqa: E731
        params = jax.tree_util.tree_map_with_path(scaled, fresh["params"])
        stage = jax.jit(model.apply)(fresh | {"params": params}, still)[1]["stage1"]
        return float(jnp.abs(stage[:, -1] - stage[:, -2]).max())

    assert last_two(0.0) < 1e-5 < 1e-2 < last_two(1.0)


def test_state_size_is_independent_of_length():
    name = "movinet_a0_stream"
    model = vidjax.create_model(name)
    frame = vidjax.spec(name).input_shape[1:]
    state = jax.eval_shape(lambda: model.init_state(1, frame))
    video = jax.ShapeDtypeStruct((1, 1, *frame), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), video)
    for t in (1, 50):
        clip = jax.ShapeDtypeStruct((1, t, *frame), jnp.float32)
        _, new = jax.eval_shape(lambda v, s, x: model.apply(v, s, x, method="step"), variables, state, clip)
        assert new == state  # structure, shapes and dtypes
    megabytes = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(state)) / 2**20
    assert megabytes < 3


def test_block_with_alpha_zero_is_its_shortcut():
    model, _, video = tiny("movinet_a0_base", frames=4, alpha_init=0.0)
    fresh = jax.jit(model.init)(jax.random.key(0), video)
    endpoints = model.apply(fresh, video)[1]
    assert {k for k in fresh["params"] if k.startswith("stage")} == {
        "stage1_block0", "stage2_block0", "stage2_block1"
    }  # fmt: skip
    name = "stage2_block1"
    zeroed = jax.tree.map(jnp.zeros_like, fresh["params"][name])
    other = {**fresh, "params": fresh["params"] | {name: zeroed}}
    np.testing.assert_array_equal(model.apply(other, video)[1]["stage2"], endpoints["stage2"])


def test_gates_and_activations_match_each_variant():
    x = jnp.linspace(-4, 4, 33)
    np.testing.assert_allclose(Block.act(x), x / (1 + np.exp(-x)), atol=1e-6)
    np.testing.assert_allclose(StreamBlock.act(x), x * np.clip(x + 3, 0, 6) / 6, atol=1e-6)
    np.testing.assert_allclose(StreamBlock.gate(x), np.clip(0.2 * x + 0.5, 0, 1), atol=1e-6)
