"""The non-local block against Equation 1 in numpy, and inside a network."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vidjax.errors import UserError
from vidjax.layers.non_local import FORMS, NonLocal
from vidjax.models import create_model


def block(x, **options):
    module = NonLocal(zero_init=False, **options)
    return module, module.init(jax.random.key(0), x, False)


def by_hand(form, pool, params, x):
    """Computes Equation 1 position by position, in float64."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    dense = lambda name, y: y @ p[name]["kernel"][0, 0, 0] + p[name]["bias"]  # noqa: E731
    t, h, w, c = x.shape
    seen = x.reshape(t // pool[0], pool[0], h // pool[1], pool[1], w // pool[2], pool[2], c).max((1, 3, 5))
    seen = seen.reshape(-1, c)
    out = np.zeros((t * h * w, c // 2))
    for i, xi in enumerate(x.reshape(-1, c)):
        weights = []
        for xj in seen:
            if form == "gaussian":
                weights.append(np.exp(xi @ xj))
                continue
            theta, phi = dense("theta", xi), dense("phi", xj)
            if form == "embedded_gaussian":
                weights.append(np.exp(theta @ phi / np.sqrt(c // 2)))
            elif form == "dot_product":
                weights.append(theta @ phi)
            else:
                weights.append(max(0.0, np.concatenate([theta, phi]) @ p["concatenation"].reshape(-1)))
        total = sum(weights) if "gaussian" in form else len(seen)
        out[i] = sum(f * dense("g", xj) for f, xj in zip(weights, seen)) / total
    scale = p["bn"]["scale"] / np.sqrt(1 + 1e-5)
    return x + (dense("out", out) * scale + p["bn"]["bias"]).reshape(x.shape)


@pytest.mark.parametrize("pool", [(1, 2, 2), (1, 1, 1), (2, 2, 1)])
@pytest.mark.parametrize("form", FORMS)
def test_block_matches_equation_1(form, pool):
    x = jax.random.normal(jax.random.key(1), (1, 2, 4, 2, 6))
    module, variables = block(x, form=form, pool=pool)
    params = jax.tree.map(
        lambda a: jax.random.normal(jax.random.key(a.size), a.shape) * 0.5, variables["params"]
    )
    got = module.apply({**variables, "params": params}, x, False)
    np.testing.assert_allclose(
        got[0], by_hand(form, pool, params, np.asarray(x[0], np.float64)), rtol=1e-4, atol=1e-5
    )


def test_block_is_initialized_as_identity():
    x = jax.random.normal(jax.random.key(1), (1, 2, 4, 4, 8))
    module = NonLocal()
    np.testing.assert_array_equal(module.apply(module.init(jax.random.key(0), x, False), x, False), x)


def test_parameter_counts_at_512_and_1024_channels():
    for channels, count in ((512, 526_592), (1024, 2_101_760)):
        x = jax.ShapeDtypeStruct((1, 2, 4, 4, channels), jnp.float32)
        init = partial(NonLocal().init, train=False)
        params = jax.eval_shape(init, jax.random.key(0), x)["params"]
        assert sum(p.size for p in jax.tree.leaves(params)) == count


def test_unknown_form_is_rejected():
    with pytest.raises(UserError, match="did you mean gaussian"):
        block(jnp.zeros((1, 1, 2, 2, 4)), form="gausian")


@pytest.mark.parametrize("form", ["embedded_gaussian", "concatenation"])
def test_zero_scale_is_identity_and_trained_block_is_global(form):
    plain = create_model("c2d_r50_8x8", 3, tiny=True)
    places = dict(non_local=((), (0,), (), ()), non_local_form=form)
    net = create_model("c2d_r50_8x8", 3, tiny=True, **places)
    x = jax.random.normal(jax.random.key(1), (1, 4, 32, 32, 3))
    own = jax.jit(net.init)(jax.random.key(0), x)
    scale = own["params"]["stage2_nonlocal0"]["bn"]
    silent = {
        **own["params"],
        "stage2_nonlocal0": {
            **own["params"]["stage2_nonlocal0"],
            "bn": {**scale, "scale": 0 * scale["scale"]},
        },
    }
    shared = {k: {n: v for n, v in own[k].items() if "nonlocal" not in n} for k in own}
    want, _ = jax.jit(plain.apply)(shared, x)
    np.testing.assert_allclose(jax.jit(net.apply)({**own, "params": silent}, x)[0], want, rtol=1e-6)

    stage2 = jax.jit(lambda x: net.apply(own, x)[1]["stage2"])
    moved = stage2(x.at[:, 0, :2, :2].add(3.0)) - stage2(x)
    assert (jnp.abs(moved).max((0, 2, 3, 4)) > 0).all()  # one corner of one frame reaches all frames
    assert (jnp.abs(moved).max((0, 1, 4)) > 0).all()
