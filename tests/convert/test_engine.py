"""Tests of conversion rules: exact round trips, and complete reports of mismatches."""

import doctest
import functools
import pathlib

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.convert.engine import (
    CHANNELS_LAST,
    Added,
    Dropped,
    batch_norm,
    chain,
    class_count,
    convert,
    export,
    linear,
    reshape,
    rule,
    split,
    transpose,
    unmatched,
)
from vidjax.convert.load import ORIGINS
from vidjax.errors import UserError


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize(
    "transform, arrays, shapes",
    [
        (CHANNELS_LAST, [random(4, 3)], [(3, 4)]),
        (CHANNELS_LAST, [random(4, 3, 5, 6, 7)], [(5, 6, 7, 3, 4)]),
        (transpose(2, 0, 1), [random(4, 3, 5)], [(5, 4, 3)]),
        (split(3), [random(12, 5)], [(4, 5)] * 3),
        (chain(split(2, axis=1), CHANNELS_LAST), [random(5, 8)], [(4, 5)] * 2),
        (reshape((1, -1, 5), (-1, 5)), [random(1, 9, 5)], [(9, 5)]),
        (chain(CHANNELS_LAST, reshape((2, 2, 3, 8), (-1, 8))), [random(8, 3, 2, 2)], [(12, 8)]),
    ],
)
def test_transforms_have_exact_inverses(transform, arrays, shapes):
    forward = transform.forward(tuple(arrays))
    assert [x.shape for x in forward] == shapes
    for x, restored in zip(arrays, transform.inverse(forward), strict=True):
        np.testing.assert_array_equal(x, restored)


def test_channels_last_moves_output_and_input_channels_to_the_end():
    x = random(4, 3, 5, 6)
    (y,) = CHANNELS_LAST.forward((x,))
    assert y[1, 2, 0, 3] == x[3, 0, 1, 2]


RULES = (
    rule(
        "blocks.{i}.qkv",
        tuple(f"params/block{{i}}/{n}/kernel" for n in "qkv"),
        chain(split(3), CHANNELS_LAST),
    ),
    rule(("blocks.{i}.q_bias", "blocks.{i}.v_bias"), ("params/block{i}/q/bias", "params/block{i}/v/bias")),
    Added("params/block{i}/k/bias", 0.0),
    Added("params/scale", 1.0),
    *batch_norm("{part:stem|neck}.bn", "{part:stem|neck}_bn"),
    *linear("fc", "head"),
)
SOURCE = {
    "blocks.0.qkv": random(6, 4),
    "blocks.0.q_bias": random(2),
    "blocks.0.v_bias": random(2) + 1,
    "neck.bn.weight": random(3),
    "neck.bn.bias": random(3) + 1,
    "neck.bn.running_mean": random(3) + 2,
    "neck.bn.running_var": random(3) + 3,
    "neck.bn.num_batches_tracked": np.zeros((), np.int64),
    "fc.weight": random(5, 2),
    "fc.bias": random(5),
}
SHAPES = {
    **{f"params/block0/{n}/kernel": (4, 2) for n in "qkv"},
    **{f"params/block0/{n}/bias": (2,) for n in "qkv"},
    "params/neck_bn/scale": (3,),
    "params/neck_bn/bias": (3,),
    "batch_stats/neck_bn/mean": (3,),
    "batch_stats/neck_bn/var": (3,),
    "params/scale": (3,),
    "params/head/kernel": (2, 5),
    "params/head/bias": (5,),
}


def targets(shapes):
    return {k: jax.ShapeDtypeStruct(v, np.float32) for k, v in shapes.items()}


def test_every_kind_of_rule_round_trips():
    ours = convert(SOURCE, RULES, targets(SHAPES))
    assert {k: x.shape for k, x in ours.items()} == SHAPES
    np.testing.assert_array_equal(ours["params/block0/k/kernel"], SOURCE["blocks.0.qkv"][2:4].T)
    np.testing.assert_array_equal(ours["params/block0/k/bias"], 0)
    assert class_count(SOURCE, RULES) == 5
    assert unmatched([*SOURCE, "fc.weights"], RULES) == ["fc.weights"]
    restored = export(ours, RULES)
    assert restored.keys() == SOURCE.keys()
    for name, x in SOURCE.items():
        np.testing.assert_array_equal(restored[name], x)
        assert restored[name].dtype == x.dtype


def test_all_mismatches_are_listed_with_names_and_shapes():
    source = dict(SOURCE)
    source["extra.weight"] = random(7)
    source["fc.weight"] = random(5, 9)
    source["blocks.1.q_bias"] = source["blocks.0.q_bias"]
    del source["neck.bn.running_mean"], source["blocks.0.qkv"]
    source["neck.bn.weight"] = random(3, 3)
    source["blocks.2.qkv"] = random(7, 4)  # not three equal parts
    rules = (*RULES, rule("fc.{x:[a-z]+}", "params/other/{x:[a-z]+}"), rule("blocks.0.q_bias2", "params/x"))
    rules = (*rules, rule("alias", "params/neck_bn/bias"))
    source["alias"] = random(3)
    with pytest.raises(UserError) as e:
        convert(source, rules, targets(SHAPES), "the file")
    message = str(e.value)
    assert message.startswith("the file: ") and "\n" not in message
    for part in (
        "extra.weight (7,): no rule matches it",
        "fc.weight (5, 9): matches several rules, fc.weight and fc.{x:[a-z]+}",
        "blocks.1.q_bias (2,): blocks.1.v_bias is missing",
        "batch_stats/neck_bn/mean (3,): not in the source (expected from neck.bn.running_mean)",
        "params/block0/q/kernel (4, 2): not in the source (expected from blocks.0.qkv)",
        "neck.bn.weight (3, 3) -> params/neck_bn/scale: (3, 3) here, (3,) in the model",
        "blocks.2.qkv (7, 4) -> params/block2/q/kernel",
        "params/neck_bn/bias (3,): filled twice, from neck.bn.bias (3,) and from alias (3,)",
    ):
        assert part in message, part


def test_source_arrays_missing_from_the_model_are_reported():
    shapes = {k: v for k, v in SHAPES.items() if "head" not in k}
    with pytest.raises(UserError, match=r"fc.weight \(5, 2\): the model has no params/head/kernel \(2, 5\)"):
        convert(SOURCE, RULES, targets(shapes))


def test_export_rejects_arrays_that_the_format_cannot_store():
    ours = convert(SOURCE, RULES, targets(SHAPES))
    ours["params/block0/k/bias"] = np.ones(2, np.float32)
    ours["params/new/kernel"] = random(2, 2)
    del ours["params/block0/v/bias"]
    with pytest.raises(UserError) as e:
        export(ours, RULES)
    for part in (
        "block0/k/bias (2,): must be 0.0",
        "params/new/kernel (2, 2): no rule",
        "v/bias is missing",
    ):
        assert part in str(e.value)


def test_long_lists_of_problems_are_truncated():
    with pytest.raises(UserError, match=r"200 problems.*and 180 more") as e:
        convert({f"x{i}": random(2) for i in range(200)}, (), {})
    assert len(str(e.value)) < 2000


MODELS = [(o, m) for o, models in ORIGINS.items() for m in models]


@functools.cache
def full_size(name):
    shape = vidjax.spec(name).input_shape
    return flatten_dict(abstract_variables(vidjax.create_model(name), shape), sep="/")


@pytest.mark.parametrize("origin, name", MODELS)
def test_rules_cover_each_model_and_round_trip(origin, name):
    """Uses full-size models, with values that vary only along the last axis and few compared rows."""
    shapes = full_size(name)
    rng = np.random.default_rng(0)
    ours = {
        k: np.broadcast_to(rng.integers(1 << 16, size=x.shape[-1:], dtype=np.uint16), x.shape)
        for k, x in shapes.items()
    }
    rules = ORIGINS[origin][name]
    restored = convert(export(ours, rules), rules, shapes)
    assert {k: x.shape for k, x in restored.items()} == {k: x.shape for k, x in ours.items()}
    for k, x in ours.items():
        rows = np.ix_(*(sorted({*range(0, n, max(1, n // 4)), n - 1}) for n in x.shape[:-1]))
        np.testing.assert_array_equal(restored[k][rows], x[rows])
    counts = [r for r in rules if isinstance(r, Dropped) and r.beside]
    assert all(r.value.dtype == np.int64 for r in counts)


def test_doctests_of_the_weights_page_pass():
    doc = pathlib.Path(__file__).parents[2] / "docs" / "weights.md"
    result = doctest.testfile(str(doc), module_relative=False, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert result.attempted > 5 and not result.failed
