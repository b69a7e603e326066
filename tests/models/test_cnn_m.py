"""CNN-M-2048: feature sizes of Table 1, and the placement of local response normalization."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.models import create_model


def test_feature_sizes_match_table_1():
    model, image = create_model("cnn_m_2048"), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), image)
    _, endpoints = jax.eval_shape(model.apply, variables, image)
    sides = [endpoints[k].shape[1:] for k in ("stem", "stage1", "stage2", "stage3", "stage4")]
    assert sides == [(54, 54, 96), (13, 13, 256), (13, 13, 512), (13, 13, 512), (6, 6, 512)]
    kernels = {k: v["kernel"].shape for k, v in variables["params"].items()}
    assert kernels["stem_conv"] == (7, 7, 3, 96) and kernels["conv2"] == (5, 5, 96, 256)
    assert kernels["fc6"] == (6 * 6 * 512, 4096) and kernels["fc7"] == (4096, 2048)


@pytest.mark.parametrize("norms", [0, 1, 2])
def test_network_is_homogeneous_only_without_norms(norms):
    model = create_model("cnn_m_2048", 5, tiny=True, norms=norms)
    image = 50 * jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    variables = model.init(jax.random.key(0), image)
    apply = jax.jit(model.apply)
    (_, one), (_, two) = apply(variables, image), apply(variables, 2 * image)
    scales = {k: np.allclose(two[k], 2 * one[k], rtol=1e-4) for k in ("stem", "pre_logits")}
    assert scales == {"stem": norms == 0, "pre_logits": norms == 0}


def test_second_norm_follows_second_convolution():
    image = 50 * jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    one, two = (create_model("cnn_m_2048", 5, tiny=True, norms=n) for n in (1, 2))
    variables = one.init(jax.random.key(0), image)
    (_, a), (_, b) = one.apply(variables, image), two.apply(variables, image)
    np.testing.assert_array_equal(a["stem"], b["stem"])
    assert (np.asarray(b["stage1"]) <= np.asarray(a["stage1"])).all()
    assert not np.allclose(a["stage1"], b["stage1"])


def test_dropout_acts_on_both_hidden_layers_only_in_training():
    model = create_model("cnn_m_2048", 5, tiny=True, dropout=0.5)
    image = jax.random.normal(jax.random.key(1), (2, 64, 64, 3))
    variables = model.init(jax.random.key(0), image)
    runs = [model.apply(variables, image, True, rngs={"dropout": jax.random.key(i)})[1] for i in (0, 0, 1)]
    np.testing.assert_array_equal(runs[0]["pre_logits"], runs[1]["pre_logits"])
    assert not np.array_equal(runs[0]["pre_logits"], runs[2]["pre_logits"])
    np.testing.assert_array_equal(runs[0]["stage4"], runs[2]["stage4"])
    still = [model.apply(variables, image)[0] for _ in range(2)]
    np.testing.assert_array_equal(*still)
