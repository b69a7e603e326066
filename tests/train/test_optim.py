"""Schedules and optimizers against their formulas."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import vidjax
from vidjax.analysis.params import abstract_variables
from vidjax.config import resolve
from vidjax.errors import UserError
from vidjax.layers.stacking import stack_blocks, unstack_blocks
from vidjax.sharding import path_name
from vidjax.train.optim import (
    create_optimizer,
    create_schedule,
    groups_text,
    layer_ids,
    param_groups,
    peak_lr,
)


def config(*overrides):
    base = dict(epochs=10, batch=64, data=dict(name="synthetic_motion"), model=dict(name="r3d_18"))
    return resolve(base, overrides)


def test_cosine_with_warmup():
    c = config(
        "optimizer.lr=0.2", "schedule.warmup_epochs=2", "schedule.warmup_lr=0.1", "schedule.end_lr=0.01"
    )
    lr = create_schedule(c, 100, 10)
    np.testing.assert_allclose([lr(0), lr(10), lr(20)], [0.02, 0.11, 0.2], rtol=1e-6)
    half = 0.2 * (0.01 + 0.99 * 0.5 * (1 + np.cos(np.pi * 40 / 80)))
    np.testing.assert_allclose([lr(60), lr(100)], [half, 0.002], rtol=1e-5)


def test_step_schedule_counts_epochs_from_the_start():
    c = config(
        "schedule.name=step", "schedule.milestones=(4,6)", "schedule.warmup_epochs=1", "optimizer.lr=1.0"
    )
    lr = create_schedule(c, 100, 10)
    np.testing.assert_allclose([lr(39), lr(41), lr(59), lr(61)], [1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_learning_rate_scales_with_the_batch():
    assert peak_lr(config("optimizer.lr=0.1", "optimizer.lr_batch=256")) == pytest.approx(0.025)


def test_warmup_longer_than_training_is_rejected():
    with pytest.raises(UserError, match="warmup_epochs"):
        create_schedule(config("schedule.warmup_epochs=20"), 100, 10)


@pytest.mark.parametrize("name, decayed", [("sgd", 0.9 * (1 - 0.1 * 0.5)), ("adamw", 0.9 * (1 - 0.1 * 0.5))])
def test_weight_decay_applies_to_kernels_only(name, decayed):
    """With zero gradients, a step multiplies kernels by 1 - lr * weight_decay and keeps biases."""
    c = config(f"optimizer.name={name}", "optimizer.weight_decay=0.5", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda _: 0.1)
    params = {"kernel": jnp.full((2, 2), 0.9), "bias": jnp.full((2,), 0.9)}
    zero = {"kernel": jnp.zeros((2, 2)), "bias": jnp.zeros((2,))}
    updates, _ = tx.update(zero, tx.init(params), params)
    np.testing.assert_allclose(params["kernel"] + updates["kernel"], decayed, rtol=1e-6)
    np.testing.assert_array_equal(updates["bias"], 0)


def test_clip_norm_bounds_the_gradient():
    c = config("optimizer.clip_norm=1.0", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda _: 1.0)
    params = {"kernel": jnp.zeros((2, 2))}
    updates, _ = tx.update({"kernel": jnp.full((2, 2), 50.0)}, tx.init(params), params)
    np.testing.assert_allclose(np.linalg.norm(updates["kernel"]), 1.0, rtol=1e-6)


def test_clip_each_clips_tensors_separately():
    tx = create_optimizer(config("optimizer.clip_each=1.0", "optimizer.momentum=0.0"), lambda _: 1.0)
    grads = {"large": jnp.full((2, 2), 50.0), "small": jnp.full((3,), 0.1), "none": jnp.zeros(2)}
    updates, _ = tx.update(grads, tx.init(grads), grads)
    np.testing.assert_allclose(updates["large"], -0.5, rtol=1e-6)
    np.testing.assert_allclose(updates["small"], -0.1, rtol=1e-6)
    np.testing.assert_array_equal(updates["none"], 0)


def test_rmsprop_equals_tensorflow():
    c = config(
        "optimizer.name=rmsprop",
        "optimizer.b2=0.9",
        "optimizer.eps=1.0",
        "optimizer.weight_decay=0.1",
        "optimizer.momentum=0.9",
    )
    tx, w, mean, moved = create_optimizer(c, lambda _: 0.5), np.full((2, 2), 3.0), 0.0, 0.0
    state, params = tx.init({"kernel": jnp.asarray(w)}), {"kernel": jnp.asarray(w)}
    for grad in (2.0, -1.0, 0.5):
        updates, state = tx.update({"kernel": jnp.full((2, 2), grad)}, state, params)
        params = {"kernel": params["kernel"] + updates["kernel"]}
        g = grad + 0.1 * w
        mean = 0.9 * mean + 0.1 * g**2
        moved = 0.9 * moved + 0.5 * g / np.sqrt(mean + 1.0)
        w = w - moved
    np.testing.assert_allclose(params["kernel"], w, rtol=1e-5)


def test_layer_decay_equals_its_formula():
    """Embeddings are layer 0, blocks follow, and the modules after them are the top layer."""
    leaf = jnp.ones((2, 2))
    params = {
        "patch_embed": {"kernel": leaf},
        "pos_embed": leaf,
        **{f"block{i}": {"mlp": {"fc1": {"kernel": leaf}}} for i in range(12)},
        "norm": {"scale": leaf},
        "head": {"kernel": leaf},
    }
    c = config("optimizer.layer_decay=0.75", "optimizer.trunk_lr=0.1", "optimizer.momentum=0.0")
    tx = create_optimizer(c, lambda step: 1.0)
    updates, _ = tx.update(params, tx.init(params), params)
    got = {k: -float(np.ravel(next(iter(jax.tree.leaves(v))))[0]) for k, v in updates.items()}
    assert got["head"] == pytest.approx(1.0) and got["norm"] == pytest.approx(0.1)
    assert got["patch_embed"] == got["pos_embed"] == pytest.approx(0.1 * 0.75**13)
    for i in range(12):
        assert got[f"block{i}"] == pytest.approx(0.1 * 0.75 ** (12 - i))
    stacked = {"pos_embed": leaf, "blocks": {"fc1": jnp.ones((12, 3, 2))}, "head": {"kernel": leaf}}
    updates, _ = tx.update(stacked, tx.init(stacked), stacked)
    expected = [-got[f"block{i}"] for i in range(12)]
    np.testing.assert_allclose(updates["blocks"]["fc1"][:, 0, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_frozen_parameters_ignore_weight_decay(name):
    c = config(f"optimizer.name={name}", "optimizer.weight_decay=0.5", "optimizer.decay_all=True")
    params = {"trunk": {"w": jnp.ones((2, 2))}, "not_trunk": {"w": jnp.ones((2, 2))}}
    tx = create_optimizer(c, lambda step: 0.1, frozen="^trunk/")
    updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
    assert (updates["trunk"]["w"] == 0).all() and (updates["not_trunk"]["w"] < 0).all()


def tiny(name):
    """Returns the abstract parameters of a tiny preset."""
    model = vidjax.create_model(name, 3, tiny=True)
    return abstract_variables(model, vidjax.spec(name).tiny_input_shape)["params"]


@pytest.mark.parametrize(
    "options",
    [
        ["optimizer.name=adamw", "optimizer.layer_decay=0.5", "optimizer.trunk_lr=0.1"],
        ["optimizer.name=sgd", "optimizer.clip_each=0.5"],
        ["optimizer.name=sgd", "optimizer.clip_norm=0.5", "optimizer.decay_all=True"],
        ["optimizer.name=adamw", "optimizer.groups=(('g', 'norm1', {'lr': 2.0, 'weight_decay': 0.3}),)"],
    ],
)
def test_stacked_blocks_get_the_update_of_separate_blocks(options):
    c = config("model.name=vit_b_16", "optimizer.weight_decay=0.1", *options)
    keys = iter(jax.random.split(jax.random.key(0), 100))
    params = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), tiny("vit_b_16"))
    grads = jax.tree.map(lambda x: jax.random.normal(next(keys), x.shape), params)

    def update(params, grads):
        tx = create_optimizer(c, lambda _: 0.1)
        return jax.jit(lambda g, p: tx.update(g, tx.init(p), p)[0])(grads, params)

    expected, got = update(params, grads), update(stack_blocks(params), stack_blocks(grads))
    chex.assert_trees_all_close(unstack_blocks(got), expected, rtol=1e-6, atol=1e-8)


def test_groups_set_weight_decay_learning_rate_and_freezing():
    groups = (
        ("positions", "pos_embed|cls_token", {"weight_decay": 0.0}),
        ("head", "^head/", {"lr": 10.0}),
        ("patches", "^patch_embed/", {"frozen": True}),
    )
    c = config(f"optimizer.groups={groups!r}", "optimizer.weight_decay=0.5", "optimizer.momentum=0.0")
    params = jax.tree.map(lambda x: jnp.ones(x.shape), tiny("vit_b_16"))
    tx = create_optimizer(c, lambda _: 0.1)
    updates, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    moved = {path_name(path): float(x.ravel()[0]) for path, x in jax.tree_util.tree_leaves_with_path(updates)}
    assert moved["pos_embed"] == moved["cls_token"] == moved["head/bias"] == 0
    assert moved["patch_embed/kernel"] == 0
    assert moved["head/kernel"] == pytest.approx(-0.5)
    assert moved["block0/attn/qkv/kernel"] == pytest.approx(-0.05)
    line = groups_text(c, params)
    sizes = {k: sum(x.size for x in jax.tree.leaves(params[k])) for k in params}
    assert f"{sizes['patch_embed']:,} frozen" in line and "learning-rate scales 1 to 10" in line
    positions = sizes["pos_embed"] + sizes["cls_token"]
    assert f"3 groups: positions {positions:,} (weight_decay=0.0), head " in line


def test_groups_text_counts_parameters_with_weight_decay():
    params = tiny("vit_b_16")
    sizes = [x.size for x in jax.tree.leaves(params)]
    kernels = [x.size for x in jax.tree.leaves(params) if x.ndim > 1]
    stacked = jax.eval_shape(stack_blocks, params)
    expected = f"parameters: {sum(kernels):,} decayed, {sum(sizes) - sum(kernels):,} not decayed"
    c = config("optimizer.weight_decay=0.5")
    assert groups_text(c, params) == groups_text(c, stacked) == expected


@pytest.mark.parametrize(
    "groups, message",
    [
        ((("a", "pos_embd", {}),), "matches no parameter; the nearest paths are pos_embed"),
        ((("a", "^blok0/", {}),), "the nearest paths are block0/"),
        ((("a", "(", {}),), "is not a regular expression"),
        ((("a", "head", {"lrr": 2.0}),), "did you mean lr"),
        ((("a", "head", {"lr": "2"}),), "lr of 'a' is '2'; use a number"),
        ((("a", "head", {"frozen": 1}),), "use True or False"),
        ((("a", "head"),), "write (name, regex, settings)"),
        ((("a", "head", {}), ("b", "head/bias", {})), "belongs to the earlier a: put 'b' first"),
    ],
)
def test_invalid_groups_are_reported(groups, message):
    with pytest.raises(UserError) as e:
        c = config(f"optimizer.groups={groups!r}")
        param_groups(c, tiny("vit_b_16"))
    assert message in str(e.value) and "\n" not in str(e.value)


# Models without numbered blocks. All other registered models have layers in the order of computation.
UNORDERED = "attentive_probe linear_probe c3d cnn_m_* vgg16* *rcn_vgg16 karpathy_* lecture_* lrcn_cnn_m"
UNORDERED += " two_stream_cnn_m* slow_fusion_conv4"
TOP = (
    "norm fc_norm head head_fc head_norm fc final_conv final_bn last_conv last_bn rnn1 rnn1_backward mlp vlad"
)
TOP += " attention_gate attention_score attention_tanh fusion_conv time_norm decoder_norm decoder_pred"


@pytest.mark.parametrize("family", sorted({vidjax.spec(n).family for n in vidjax.list_models()}))
def test_layer_decay_orders_every_model_or_is_rejected(family):
    unordered = {name for pattern in UNORDERED.split() for name in vidjax.list_models(pattern)}
    names = [n for n in vidjax.list_models() if vidjax.spec(n).family == family]
    for name in names:
        if name in unordered:
            with pytest.raises(UserError, match=r"optimizer\.layer_decay.*optimizer\.groups"):
                layer_ids(tiny(name), name)
            continue
        ids, top = layer_ids(tiny(name), name)
        flat = {path_name(path): i for path, i in jax.tree_util.tree_leaves_with_path(ids)}
        assert set(flat.values()) == set(range(top + 1)), name
        assert {i for path, i in flat.items() if "head/" in path} <= {top}, name
        parts = {path: set(path.split("/")) for path, i in flat.items() if i == top}
        assert not [path for path, found in parts.items() if not found & set(TOP.split())], name


def test_layer_ids_of_second_encoders_and_parallel_streams():
    ids, top = layer_ids(tiny("vivit_b_16x2_fe"), "")
    first = [next(iter(jax.tree.leaves(ids[k]))) for k in ("patch_embed", "block0", "block1", "norm")]
    second = [next(iter(jax.tree.leaves(ids[k]))) for k in ("time_pos_embed", "time_block0", "time_norm")]
    assert (first, second, top) == ([0, 1, 2, 2], [2, 3, 4], 4)
    ids, top = layer_ids(tiny("vtn_vit_b_16"), "")
    got = [ids[k]["norm1"]["scale"] for k in ("block0", "block1")]
    assert [ids["trunk"][f"block{i}"]["norm1"]["scale"] for i in range(2)] + got == [1, 2, 3, 4]
    ids, top = layer_ids(tiny("slowfast_r50_8x8"), "")
    paths = ("slow_stage2_block0", "fast_stage2_block0", "lateral_stage2")
    assert {i for path in paths for i in jax.tree.leaves(ids[path])} == {2}


def test_trunk_lr_requires_a_classifier_and_a_trunk():
    for name, width in (("videomae_b_pretrain", "none"), ("linear_probe", 8)):
        changes = (f"model.name={name}", f"data.feature_width={width}", "optimizer.trunk_lr=0.1")
        with pytest.raises(UserError, match=r"optimizer\.trunk_lr does not fit"):
            param_groups(config(*changes), tiny(name))


def test_optimizer_state_has_the_structure_of_saved_checkpoints():
    """The structure must not change, because existing checkpoints would not restore."""
    params = {
        "stem": {"kernel": jnp.ones((2, 2))},
        "block0": {"bias": jnp.ones(2)},
        "head": {"b": jnp.ones(1)},
    }
    empty, masked = optax.EmptyState(), optax.MaskedState(optax.EmptyState())
    count = optax.ScaleByScheduleState(jnp.zeros([], jnp.int32))
    adam, trace = optax.scale_by_adam().init(params), optax.trace(0.9).init(params)
    decay = "optimizer.weight_decay=0.1"
    cases = {
        ("optimizer.name=sgd", decay): (empty, empty, (masked, trace), count),
        ("optimizer.name=sgd",): (empty, empty, (empty, trace), count),
        ("optimizer.name=adamw", decay): (empty, empty, (adam, masked), count),
        ("optimizer.name=adamw", decay, "optimizer.decay_all=True"): (empty, empty, (adam, empty), count),
        ("optimizer.name=adamw", decay, "optimizer.layer_decay=0.5", "optimizer.clip_norm=1.0"): (
            *(empty, empty, (adam, masked), empty, count),
        ),
    }
    for overrides, expected in cases.items():
        for frozen, last in ((None, ()), ("^stem/", (masked,))):
            state = create_optimizer(config(*overrides), lambda _: 0.1, frozen).init(params)
            chex.assert_trees_all_equal_structs(state, (*expected, *last))
