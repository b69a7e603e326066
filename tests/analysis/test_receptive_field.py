"""Receptive fields against closed forms, the Jacobian, and gradients of whole models."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from vidjax import create_model
from vidjax.analysis.intervals import outputs
from vidjax.analysis.receptive_field import computed, measured, receptive_fields
from vidjax.layers.conv import Conv

SHAPE = (1, 4, 6, 5, 2)  # B, T, H, W, C
WEIGHTS = np.random.default_rng(0).uniform(0.5, 1.5, (3, 3, 3, 2, 2)).astype(np.float32)


def _conv(x, **options):
    return lax.conv_general_dilated(
        x, WEIGHTS, **dict(dimension_numbers=("NTHWC", "THWIO", "NTHWC"), window_strides=(1, 1, 1)) | options
    )


def _recurrent(x):
    """Convolves the state at every step, so the field grows with time."""
    kernel = jnp.ones((3, 2, 2))
    rows = x.mean(3).transpose(1, 0, 2, 3)  # [T, B, H, C]

    def turn(h, now):
        h = lax.conv_general_dilated(h, kernel, (1,), "SAME", dimension_numbers=("NWC", "WIO", "NWC")) + now
        return h, h

    last, every = lax.scan(turn, jnp.zeros_like(rows[0]), rows)
    return every + last[None]


def _shift(x):
    """A temporal shift of one channel, as of TSM."""
    late = jnp.pad(x[:, :-1, ..., :1], ((0, 0), (1, 0), (0, 0), (0, 0), (0, 0)))
    return jnp.concatenate([late, x[..., 1:]], -1)


def _windows(x):
    """Attention within halves of the rows."""
    x = x.reshape(1, 4, 2, 3, 5, 2).transpose(0, 2, 1, 3, 4, 5).reshape(2, 60, 2)
    x = jax.nn.softmax(jnp.einsum("bnc,bmc->bnm", x, x)) @ x
    return x.reshape(1, 2, 4, 3, 5, 2).transpose(0, 2, 1, 3, 4, 5).reshape(SHAPE)


EXACT = {
    "same": lambda x: _conv(x, padding="SAME"),
    "strided": lambda x: _conv(x, padding=[(1, 1), (0, 2), (2, 0)], window_strides=(1, 2, 2)),
    "dilated": lambda x: _conv(x, padding=[(1, 1), (2, 2), (2, 1)], rhs_dilation=(1, 2, 2)),
    "transposed": lambda x: _conv(x, padding=[(1, 1)] * 3, lhs_dilation=(1, 2, 3)),
    "cropped": lambda x: _conv(x, padding=[(1, 1), (-1, 1), (1, -1)]),
    "two": lambda x: _conv(_conv(x, padding="SAME", window_strides=(1, 2, 1)), padding="SAME"),
    "average pool": lambda x: nn.avg_pool(x, (2, 3, 2), (1, 2, 2), "SAME"),
    "pad between": lambda x: lax.pad(x, 0.0, ((0, 0, 0), (1, 0, 1), (0, -1, 2), (-1, 2, 0), (0, 0, 0))),
    "slices": lambda x: x[:, 1:, ::2, 4:1:-1] * 2,
    "middle frame": lambda x: x[:, 2] + 1,
    "frames apart": lambda x: jnp.stack([x[:, 0] + x[:, 1], x[:, 3]], 1),
    "channels": lambda x: x.transpose(0, 2, 3, 1, 4).reshape(1, 6, 5, 8) @ jnp.ones((8, 3)),
    "folded": lambda x: x.reshape(4, 30, 2).sum(-1, keepdims=True).reshape(1, 4, 6, 5, 1) + x,
    "flat": lambda x: x.reshape(1, -1)[:, 7:50],
    "sums": lambda x: x.sum((2, 4)) * 2 + x.mean((2, 3, 4))[..., None],
    "running": lambda x: jnp.cumsum(x, 1) + jnp.flip(jnp.cumsum(jnp.flip(x, 2), 2), 2),
    "rolled": lambda x: jnp.roll(x, 2, 2) + x,
    "recurrent": _recurrent,
    "shift": lambda x: _shift(_shift(x)),
    "windows": _windows,
    "unstack": lambda x: jnp.stack([y + 1 for y in jnp.unstack(x, axis=2)][::-1], 1),
    "tiled": lambda x: jnp.tile(x, (1, 2, 1, 3, 2)) * jnp.repeat(x[:, :1], 8, 1)[:, :, :, :1, :1],
    "split": lambda x: sum(jnp.split(x, [1, 3], 2)[1:2]) * 2,
    "branches": lambda x: lax.cond(True, lambda x: x[:, 1:], lambda x: x[:, 1:] * 2, x),
    "nested": jax.jit(jax.checkpoint(lambda x: nn.relu(nn.gelu(_conv(x, padding="SAME"))))),
    "dynamic start": lambda x: lax.dynamic_slice_in_dim(x, 0, 4, 1),
    "outer": lambda x: jnp.einsum("bthwc,bshwc->btshw", x, x),
}
# These may name too much, never too little.
BOUNDED = {
    "sorted": lambda x: jnp.sort(x, 1).sum(-1),
    "largest": lambda x: x.max((2, 4)) + x.max(),
    "gather": lambda x: x[:, jnp.array([0, 2]), :, jnp.array([1, 3])],
    "dynamic slice": lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(2), 2, 1),
    "update": lambda x: lax.dynamic_update_slice(x, x[:, 1:2] * 2, (0, 3, 0, 0, 0)),
    "while": lambda x: lax.while_loop(lambda c: c[1] < 2, lambda c: (c[0] * 2, c[1] + 1), (x, 0))[0],
    "top": lambda x: lax.top_k(x.sum(-1), 2)[0],
}


def _by_jacobian(fn):
    """Returns the first and last position on each input axis for every output element."""
    x = jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, SHAPE), jnp.float32)
    jacobian = np.asarray(jax.jit(jax.jacfwd(fn))(x)) != 0
    n = jacobian.ndim - x.ndim
    for axis in (1, 2, 3):
        seen = jacobian.any(tuple(n + a for a in range(x.ndim) if a != axis))
        last = seen.shape[-1] - 1 - seen[..., ::-1].argmax(-1)
        yield seen.any(-1), seen.argmax(-1), last


def _by_graph(fn):
    x = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
    jaxpr, out = jax.make_jaxpr(fn, return_shape=True)(x)
    for first, last in outputs(jaxpr.jaxpr, (1, 2, 3))[0]:
        yield np.broadcast_to(first, out.shape), np.broadcast_to(last, out.shape)


@pytest.mark.parametrize("name", EXACT)
def test_intervals_match_the_jacobian(name):
    for (some, first, last), (low, high) in zip(_by_jacobian(EXACT[name]), _by_graph(EXACT[name])):
        assert some.any()
        np.testing.assert_array_equal(low[some], first[some])
        np.testing.assert_array_equal(high[some], last[some])


@pytest.mark.parametrize("name", BOUNDED)
def test_intervals_contain_the_jacobian(name):
    for (some, first, last), (low, high) in zip(_by_jacobian(BOUNDED[name]), _by_graph(BOUNDED[name])):
        assert (low[some] <= first[some]).all()
        assert (high[some] >= last[some]).all()


@pytest.mark.parametrize(
    ("name", "shape", "options"),
    [
        ("r3d_18", (12, 40, 40, 3), dict(tiny=True)),
        ("mc3_18", (12, 40, 40, 3), dict(tiny=True)),
        ("slow_fusion_conv4", (20, 40, 40, 3), dict(widths=(4, 4, 4, 4))),
        ("early_fusion_resnet18", (4, 64, 64, 3), dict(trunk_options=dict(tiny=True))),
        ("late_fusion_resnet18_attention", (4, 64, 64, 3), dict(trunk_options=dict(tiny=True))),
        ("single_frame_resnet18", (5, 64, 64, 3), dict(trunk_options=dict(tiny=True))),
    ],
)
def test_computed_and_measured_fields_agree(name, shape, options):
    model = create_model(name, 3, **options)
    graph = computed(model, shape)
    assert graph == measured(model, shape)
    assert len(graph) > 3


def test_fields_of_r3d_18_match_closed_form():
    """Convolution by convolution: the field grows by (window - 1) x the product of the strides so far."""
    fields = receptive_fields(create_model("r3d_18"), (16, 112, 112, 3))
    assert [(name, f.unclipped) for name, f in fields.items()] == [
        ("stem", (3, 7, 7)),
        ("stage1", (11, 23, 23)),
        ("stage2", (25, 51, 51)),
        ("stage3", (53, 107, 107)),
        ("stage4", (109, 219, 219)),
        ("pre_logits", (None, None, None)),
    ]
    assert fields["stage1"].clipped == (11, 23, 23)
    assert fields["stage2"].clipped == (16, 51, 51)
    assert fields["pre_logits"].clipped == (16, 112, 112)


def test_stage_at_which_frames_are_fused():
    time = {}
    for name in ("single_frame_resnet18", "early_fusion_resnet18", "late_fusion_resnet18"):
        fields = receptive_fields(create_model(name), (8, 224, 224, 3))
        time[name] = [fields[k].clipped[0] for k in ("stem", "stage4", "pre_logits")]
        assert fields["stage4"].unclipped[1:] == (435, 435)
    assert list(time.values()) == [[1, 1, 1], [8, 8, 8], [1, 1, 8]]


class Tokens(nn.Module):
    @nn.compact
    def __call__(self, video, train=False):
        x = Conv(6, (2, 4, 4), (2, 4, 4), name="patches")(video)
        b, t, h, w, d = x.shape
        ends = {"tokens": x.reshape(b, t * h * w, d)}
        space = x.reshape(b * t, h * w, d)
        space = nn.MultiHeadDotProductAttention(2, name="space")(space, space)
        ends["space"] = space.reshape(b, t * h * w, d)
        x = ends["all"] = nn.MultiHeadDotProductAttention(2, name="all")(ends["space"], ends["space"])
        return nn.Dense(3, name="head")(x.mean(1)), ends


def test_tokens_are_local_until_attention():
    fields = receptive_fields(Tokens(), (8, 16, 12, 3), unclipped=False)
    expected = {"tokens": (2, 4, 4), "space": (2, 16, 12), "all": (8, 16, 12)}
    assert {k: f.clipped for k, f in fields.items()} == expected
    assert fields["all"].unclipped is None


class RunningMean(nn.Module):
    @nn.compact
    def __call__(self, video, train=False):
        x = Conv(4, (3, 3, 3), padding=((2, 0), (1, 1), (1, 1)), name="stem_conv")(video)
        ends = {"stem": x, "mean": jnp.cumsum(x.mean((2, 3)), 1)}
        return nn.Dense(3, name="head")(ends["mean"][:, -1]), ends


def test_running_mean_depends_on_the_past():
    fields = receptive_fields(RunningMean(), (8, 16, 12, 3))
    assert fields["stem"].clipped == fields["stem"].unclipped == (3, 3, 3)
    assert fields["mean"].clipped == (5, 16, 12) and fields["mean"].unclipped == ("past", None, None)
