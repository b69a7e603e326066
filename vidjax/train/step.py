"""The training step, a pure function for `jit` over a mesh or for `pmap`."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vidjax.layers.norm import statistics
from vidjax.train.state import State

Metrics = dict[str, jax.Array]


def make_gradients(
    objective: Callable,
    model: nn.Module,
    *,
    accumulation: int = 1,
    freeze_bn: bool = False,
    frozen: Callable[[Any], Any] | None = None,
    axis_name: str | None = None,
) -> Callable[[State, dict], tuple[Any, Any, Metrics]]:
    """Makes the forward and backward pass `grads, model_state, metrics = gradients(state, batch)`.

    Gradients and metrics are means over the batch. With `accumulation`, the batch is split into that many
    equal parts that are processed in sequence; the running statistics of BatchNorm are updated once per part.
    See `make_train_step` for the arguments.
    """

    def loss_and_grads(state: State, model_state: Any, batch: dict, rng: jax.Array):
        def loss(params):
            if frozen is not None:  # skips their backward pass; their gradients are zero
                params = jax.tree.map(
                    lambda p, fixed: jax.lax.stop_gradient(p) if fixed else p, params, frozen(params)
                )
            return objective(model, params, model_state, batch, rng, True)

        with statistics("stored" if freeze_bn else "batch"):
            (_, aux), grads = jax.value_and_grad(loss, has_aux=True)(state.params)
        return aux["model_state"], (grads, aux["metrics"])

    def gradients(state: State, batch: dict) -> tuple[Any, Any, Metrics]:
        rng = jax.random.fold_in(state.rng, state.step)
        if axis_name:
            rng = jax.random.fold_in(rng, jax.lax.axis_index(axis_name))
        if accumulation == 1:
            model_state, (grads, metrics) = loss_and_grads(state, state.model_state, batch, rng)
        else:
            # Interleave the rows, so that every part is distributed over all devices.
            parts = jax.tree.map(lambda x: x.reshape(-1, accumulation, *x.shape[1:]).swapaxes(0, 1), batch)
            model_state, stacked = jax.lax.scan(
                lambda carry, part: loss_and_grads(state, carry, *part),
                state.model_state,
                (parts, jax.random.split(rng, accumulation)),
            )
            grads, metrics = jax.tree.map(lambda x: x.mean(0), stacked)
        if axis_name:
            grads, metrics, model_state = jax.lax.pmean((grads, metrics, model_state), axis_name)
        return grads, model_state, metrics

    return gradients


def make_train_step(
    objective: Callable,
    model: nn.Module,
    tx: optax.GradientTransformation,
    *,
    ema: float | None = None,
    nonfinite: str = "stop",
    **options: Any,
) -> Callable[[State, dict], tuple[State, Metrics]]:
    """Makes a training step `state, metrics = step(state, batch)`.

    Args:
      objective: the loss function, see `vidjax.tasks.Task.loss`.
      model: the linen module.
      tx: the optax transformation.
      ema: decay of the averaged parameters, or None for no averaging.
      nonfinite: action on a non-finite loss or gradient norm. "skip" continues with the next batch and
        unchanged parameters; "stop" leaves the state unchanged from this step on, so that the loop can stop.
      **options: options of `make_gradients`:
        accumulation: gradient accumulation steps per update.
        freeze_bn: whether BatchNorm normalizes with its running statistics and does not update them.
        frozen: maps parameters to a tree of bools: those without gradient, which are not part of the gradient
          norm.
        axis_name: the mapped axis under `pmap`; None under `jit`, where arrays are global.

    Returns:
      The step. Its metrics are those of the objective, `grad_norm`, and `nonfinite`, the count so far.
    """
    gradients = make_gradients(objective, model, **options)

    def step(state: State, batch: dict) -> tuple[State, Metrics]:
        grads, model_state, metrics = gradients(state, batch)
        grad_norm = optax.tree.norm(grads)
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(grad_norm)
        updates, opt_state = tx.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        averaged = state.ema
        if ema is not None:
            # The decay grows as 1 - 9 / (step + 10) up to `ema`, so that early averages are not biased.
            decay = jnp.minimum(ema, (1.0 + state.step) / (10.0 + state.step))
            averaged = jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, state.ema, params)
        new = state.replace(
            params=params, model_state=model_state, opt_state=opt_state, ema=averaged, step=state.step + 1
        )
        good = finite
        old = state
        if nonfinite == "skip":
            old = state.replace(step=state.step + 1)
        else:
            good &= state.nonfinite == 0
        new = jax.tree.map(lambda a, b: jnp.where(good, a, b), new, old)
        new = new.replace(nonfinite=state.nonfinite + (1 - finite.astype(jnp.int32)))
        return new, {**metrics, "grad_norm": grad_norm, "nonfinite": new.nonfinite}

    return step
