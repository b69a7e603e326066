"""Optimizers and learning-rate schedules, chosen by config."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from vidjax.errors import UserError
from vidjax.train.sharding import path_name


def peak_lr(config: ConfigDict) -> float:
    """The learning rate after warm-up: `lr`, or `lr * batch / lr_batch` (Goyal et al., arXiv:1706.02677)."""
    rule = config.optimizer.lr_batch
    return config.optimizer.lr * (config.batch / rule if rule else 1.0)


def create_schedule(config: ConfigDict, steps: int, steps_per_epoch: float) -> optax.Schedule:
    """Step -> learning rate, over `steps` updates: a linear warm-up, then the schedule.

    Raises:
      UserError: a warm-up that does not end before training does.
    """
    c, peak = config.schedule, peak_lr(config)
    warmup = round(c.warmup_epochs * steps_per_epoch)
    if warmup >= steps:
        raise UserError(
            f"schedule.warmup_epochs is {warmup} steps, training is {steps}: lower it or train longer"
        )
    if c.name == "cosine":
        after = optax.cosine_decay_schedule(peak, steps - warmup, alpha=c.end_lr)
    elif c.name == "step":
        milestones = [round(m * steps_per_epoch) - warmup for m in c.milestones]
        after = optax.piecewise_constant_schedule(peak, dict.fromkeys(milestones, c.factor))
    else:
        after = optax.constant_schedule(peak)
    if not warmup:
        return after
    return optax.join_schedules([optax.linear_schedule(peak * c.warmup_lr, peak, warmup), after], [warmup])


def create_optimizer(
    config: ConfigDict, schedule: optax.Schedule, frozen: str | None = None
) -> optax.GradientTransformation:
    """Clipping, weight decay and the update rule. What the regex `frozen` finds in its path never changes.

    SGD adds the decay to the gradient before the momentum, as PyTorch does; AdamW decouples it (Loshchilov &
    Hutter, arXiv:1711.05101). RMSProp is TensorFlow's: `eps` under the root, the decay in the gradient.
    Unless `decay_all`, tensors with fewer than two axes (biases, norms) do not decay. `trunk_lr` and
    `layer_decay` scale updates, decay included, by where in the model they are.
    """
    c = config.optimizer
    mask = None if c.decay_all else lambda params: jax.tree.map(lambda p: p.ndim > 1, params)
    decay = optax.add_decayed_weights(c.weight_decay, mask) if c.weight_decay else optax.identity()
    clip = optax.clip_by_global_norm(c.clip_norm) if c.clip_norm else optax.identity()
    momentum = optax.trace(c.momentum, c.nesterov) if c.momentum else optax.identity()
    if c.name == "sgd":
        rule = optax.chain(decay, momentum)
    elif c.name == "rmsprop":
        rule = optax.chain(decay, optax.scale_by_rms(c.b2, c.eps), momentum)
    else:
        rule = optax.chain(optax.scale_by_adam(c.b1, c.b2, c.eps), decay)
    chain = [clip, clip_each(c.clip_each) if c.clip_each else optax.identity(), rule]
    if c.layer_decay is not None or c.trunk_lr is not None:
        chain.append(scale_by_depth(c.layer_decay or 1.0, 1.0 if c.trunk_lr is None else c.trunk_lr))
    chain.append(optax.scale_by_learning_rate(schedule))
    if frozen:  # last, since decay moves weights that have no gradient
        chain.append(optax.masked(optax.set_to_zero(), lambda params: _found(frozen, params)))
    return optax.chain(*chain)


def clip_each(bound: float) -> optax.GradientTransformation:
    """Shrinks a tensor's gradient whose Euclidean norm is above `bound` to that norm (Keras's `clipnorm`)."""

    def clip(g: jax.Array) -> jax.Array:
        return g * jnp.minimum(1.0, bound / jnp.maximum(jnp.linalg.norm(g.ravel()), 1e-12)).astype(g.dtype)

    return optax.stateless(lambda grads, params: jax.tree.map(clip, grads))


def _found(pattern: str, params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: bool(re.search(pattern, path_name(path))), params)


def scale_by_depth(layer_decay: float, trunk_lr: float) -> optax.GradientTransformation:
    """Multiplies updates by `layer_decay ** (layers above)`, and by `trunk_lr` below the classifier.

    The layer-wise decay of Clark et al. (ELECTRA, arXiv:2003.10555, section 3.1) as masked autoencoders are
    fine-tuned: what comes before the blocks is layer 0, the blocks are 1, 2, ... in the order of the model,
    and all after them (the last norm, the head) is the top layer, with the full rate.
    """

    def update(updates, state, params=None):
        layers, top = layer_ids(updates)

        def scale(path, x, layer):
            factor = jnp.asarray(layer_decay ** (top - layer), x.dtype)
            if not _HEAD.search(path_name(path)):
                factor *= trunk_lr
            return x * factor.reshape(factor.shape + (1,) * (x.ndim - factor.ndim))

        return jax.tree_util.tree_map_with_path(scale, updates, layers), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


_HEAD = re.compile(r"(^|/)head/")
# A block of any model: block3, stage2_block0; or all blocks stacked along the first axis of "blocks".
_BLOCK = re.compile(r"(?:^|/)((?:stage\d+_)?block\d+|blocks)/")
_FIRST = re.compile(r"(^|/)(stem|patch_embed|pos_embed|cls_token|mask_token)")


def layer_ids(params: Any) -> tuple[Any, int]:
    """The layer of each parameter, as `scale_by_depth` counts them, and that of the top.

    A tree of numbers; of arrays [L] for blocks that are stacked.
    """
    flat = {path_name(path): x for path, x in jax.tree_util.tree_leaves_with_path(params)}
    blocks = {m[1]: x.shape[0] for name, x in flat.items() if (m := _BLOCK.search(name))}
    depth = blocks.pop("blocks", 0)
    ids = {"blocks": 1 + np.arange(depth)}
    for block in sorted(blocks, key=lambda b: [int(n) for n in re.findall(r"\d+", b)]):
        ids[block] = len(ids)
    top = max(depth, len(blocks)) + 1

    def layer(path, _):
        name = path_name(path)
        if m := _BLOCK.search(name):
            return ids[m[1]]
        return 0 if _FIRST.search(name) else top

    return jax.tree_util.tree_map_with_path(layer, params), top
