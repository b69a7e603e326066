"""Recurrent networks on image CNNs: the equations by numpy, streaming, truncation, freezing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import vidjax
from vidjax.errors import UserError
from vidjax.layers.recurrent import GRU, LSTM, log_mean_probability


def features(name, t=6, **options):
    """A model on features [2, t, 5], its variables and an input."""
    model = vidjax.create_model(name, 3, tiny=True, trunk=None, **options)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, t, 5))
    return model, jax.jit(model.init)(jax.random.PRNGKey(0), x), x


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("cell, reverse", [(LSTM, False), (LSTM, True), (GRU, False), (GRU, True)])
def test_layers_match_their_equations(cell, reverse):
    layer = cell(4, reverse=reverse)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype(np.float32)
    zeros = cell.zeros(2, 4)
    params = layer.init(jax.random.PRNGKey(0), x, zeros)
    params = jax.tree.map(lambda p: jax.random.normal(jax.random.PRNGKey(p.size), p.shape), params)
    y, last = jax.jit(layer.apply)(params, x, zeros)

    p = jax.tree.map(np.asarray, params["params"])
    w, b, u = p["input"]["kernel"], p["input"]["bias"], p["recurrent"]
    gates = {k: slice(4 * i, 4 * i + 4) for i, k in enumerate("ifgo" if cell is LSTM else "rzn")}
    h = c = np.zeros((2, 4))
    for t in range(5)[:: -1 if reverse else 1]:
        i = {k: x[:, t] @ w[:, s] + b[s] for k, s in gates.items()}
        r = {k: h @ u[:, s] for k, s in gates.items()}
        if cell is LSTM:
            c = sigmoid(i["f"] + r["f"]) * c + sigmoid(i["i"] + r["i"]) * np.tanh(i["g"] + r["g"])
            h = sigmoid(i["o"] + r["o"]) * np.tanh(c)
        else:
            n = np.tanh(i["n"] + sigmoid(i["r"] + r["r"]) * (r["n"] + p["recurrent_bias"]))
            z = sigmoid(i["z"] + r["z"])
            h = (1 - z) * n + z * h
        np.testing.assert_allclose(y[:, t], h, atol=1e-5)
    np.testing.assert_allclose(last[1] if cell is LSTM else last, h, atol=1e-5)


@pytest.mark.parametrize(
    "name, readout",
    [("lrcn_resnet50", "every"), ("cnn_lstm_resnet18", "mean"), ("cnn_gru_resnet18", "last")],
)
def test_stream_matches_whole_clip(name, readout):
    model, variables, x = features(name, readout=readout, layers=2)
    step = jax.jit(lambda s, f: model.apply(variables, s, f, method="step"))
    apply = jax.jit(model.apply)
    state = model.init_state(2, (5,))
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(state))
    for t in range(x.shape[1]):
        (logits, endpoints), state = step(state, x[:, t])
        if t not in (0, 2, x.shape[1] - 1):
            continue
        want, e = apply(variables, x[:, : t + 1])
        np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(endpoints["pre_logits"], e["pre_logits"], rtol=1e-5, atol=1e-5)
    state = model.init_state(2, (5,))
    for chunk in (x[:, :3], x[:, 3:]):
        (logits, _), state = step(state, chunk)
    np.testing.assert_allclose(logits, want, rtol=1e-5, atol=1e-5)


def test_stream_of_video_through_the_trunk_matches_whole_clip():
    model = vidjax.create_model("cnn_gru_resnet18", 3, tiny=True)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, 3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)
    step = jax.jit(lambda s, f: model.apply(variables, s, f, method="step"))
    state = model.init_state(2, (32, 32, 3))
    for t in range(3):
        (logits, _), state = step(state, x[:, t])
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, x)[0], rtol=1e-5, atol=1e-5)


def test_bidirectional_model_cannot_stream():
    model, variables, x = features("cnn_bilstm_resnet18")
    with pytest.raises(UserError, match="bidirectional"):
        model.init_state(2, (5,))
    with pytest.raises(UserError, match="bidirectional"):
        model.apply(variables, {}, x, method="step")


def test_backward_layer_equals_forward_layer_on_reversed_clip():
    model, variables, x = features("cnn_bilstm_resnet18")
    apply = jax.jit(model.apply)
    forth = apply(variables, x)[1]["rnn1"]
    back = apply(variables, x[:, ::-1])[1]["rnn1"]
    p = variables["params"]
    swapped = {"params": {**p, "rnn1": p["rnn1_backward"], "rnn1_backward": p["rnn1"]}}
    other = apply(swapped, x)[1]["rnn1"]
    assert not np.allclose(forth, back[:, ::-1])
    np.testing.assert_allclose(other[..., :16], back[:, ::-1, 16:], atol=1e-6)
    np.testing.assert_allclose(other[..., 16:], back[:, ::-1, :16], atol=1e-6)


def reach(model, variables, x):
    """Returns the largest gradient of the first logit with respect to each input step."""
    g = jax.jit(jax.grad(lambda x: model.apply(variables, x)[0][:, 0].sum()))(x)
    return np.abs(g).max((0, 2))


@pytest.mark.parametrize("name", ["cnn_lstm_resnet18", "cnn_gru_resnet18"])
def test_truncation_changes_only_gradients(name):
    model, variables, x = features(name, t=8, layers=2)
    cut = model.clone(truncate=3)  # before steps 0, 3 and 6
    whole, short = (jax.jit(m.apply)(variables, x)[0] for m in (model, cut))
    np.testing.assert_allclose(short, whole, rtol=1e-6)
    whole, short = (reach(m, variables, x) for m in (model, cut))
    assert (whole > 0).all()
    assert (short[:6] == 0).all() and (short[6:] > 0).all()
    np.testing.assert_allclose(short[7], whole[7], rtol=1e-5)
    with pytest.raises(UserError, match="truncate"):
        model.clone(truncate=0).apply(variables, x)


def test_truncation_of_a_backward_layer_counts_from_the_end():
    model, variables, x = features("cnn_bilstm_resnet18", t=8, readout="last", truncate=3)
    w = {"params": {**variables["params"]}}
    kernel = w["params"]["head"]["kernel"].at[:16].set(0)  # only the backward layer is read
    w["params"]["head"] = {**w["params"]["head"], "kernel": kernel}
    g = reach(model, w, x)
    assert (g[:2] > 0).all() and (g[2:] == 0).all()


def test_frozen_trunk_has_no_gradient_and_keeps_statistics():
    model = vidjax.create_model("cnn_gru_resnet18", 3, tiny=True, frozen=True)
    x = jax.random.normal(jax.random.PRNGKey(1), (2, 3, 32, 32, 3))
    variables = jax.jit(model.init)(jax.random.PRNGKey(0), x)

    @jax.jit
    def run(params):
        def loss(params):
            v = {**variables, "params": params}
            (logits, _), state = model.apply(v, x, train=True, mutable=["batch_stats"])
            return logits[:, 0].sum(), (logits, state)

        return jax.grad(loss, has_aux=True)(params)

    grads, (logits, state) = run(variables["params"])
    assert all((g == 0).all() for g in jax.tree.leaves(grads.pop("trunk")))
    assert all((g != 0).any() for g in jax.tree.leaves(grads))
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), state["batch_stats"], variables["batch_stats"])
    )
    np.testing.assert_allclose(logits, jax.jit(model.apply)(variables, x)[0], rtol=1e-6)


def test_clip_logits_average_per_frame_probabilities():
    model, variables, x = features("lrcn_resnet50")
    logits, endpoints = jax.jit(model.apply)(variables, x)
    assert endpoints["frame_logits"].shape == (2, 6, 3)
    np.testing.assert_allclose(
        jax.nn.softmax(logits), jax.nn.softmax(endpoints["frame_logits"]).mean(1), rtol=1e-5
    )
    np.testing.assert_allclose(logits, log_mean_probability(endpoints["frame_logits"], 1), rtol=1e-5)
    far = jnp.array([[[200.0, 0.0], [300.0, 0.0]]])  # probabilities below the smallest float
    assert jnp.isfinite(jax.grad(lambda x: log_mean_probability(x, 1)[0, 1])(far)).all()
    assert log_mean_probability(far, 1)[0, 1] == pytest.approx(-200 - np.log(2))


def test_wrong_input_shapes_are_rejected():
    model, variables, x = features("cnn_gru_resnet18")
    with pytest.raises(UserError, match="trunk=None takes features"):
        model.apply(variables, jnp.zeros((2, 3, 8, 8, 3)))
    with pytest.raises(UserError, match="set trunk=None"):
        model.clone(trunk="resnet18").apply(variables, x)
    with pytest.raises(UserError, match="unknown readout 'lats': did you mean last"):
        model.clone(readout="lats").apply(variables, x)
