"""Finds the origin of a non-finite loss."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.core import tracers

from vidjax.sharding import path_name
from vidjax.train.experiment import Experiment
from vidjax.train.state import State
from vidjax.train.step import make_gradients


def explain_nonfinite(exp: Experiment, state: State, batch: dict[str, Any]) -> str:
    """Describes the first non-finite value of a training step in one line.

    The value is a parameter, the input or output of a layer (in the order of computation), the loss, or a
    gradient. The step is repeated with the same code on the same devices.

    Args:
      exp: the experiment.
      state: the state before the step; donated.
      batch: the batch of the step.
    """
    if bad := _first_bad(jax.tree.map(lambda x: jnp.isfinite(x).all(), state.params)):
        return f"parameter {bad} is not finite"
    names, values, grads, metrics = _replay(exp, state, batch)
    for name, finite in zip(names, values, strict=True):
        if not finite:
            return f"loss is not finite; the first non-finite {name}"
    if not jnp.isfinite(metrics["loss"]):
        return "loss is not finite, but the output of every layer is"
    if bad := _first_bad(grads):
        return f"gradient of {bad} is not finite, but the loss is finite ({metrics['loss']:.4g})"
    return "the gradient norm overflows, but every gradient is finite"


def _first_bad(finite: Any) -> str | None:
    for path, good in jax.tree_util.tree_leaves_with_path(finite):
        if not good:
            return path_name(path)
    return None


def _is_float(x: Any) -> bool:
    return isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jnp.inexact)


def _replay(
    exp: Experiment, state: State, batch: dict[str, Any]
) -> tuple[list[str], list[bool], Any, dict[str, Any]]:
    """Repeats a step and checks its values.

    Returns:
      The names of the checked values in the order of computation; for each whether it is finite in every part
      of the batch and on every device; the same for the gradients; and the metrics of the step.
    """
    names: list[str] = []

    def watched(*args):
        names.clear()  # this function may be traced more than once
        flags: list[jax.Array] = []
        trace = tracers.current_trace()

        def check(name: str, tree: Any) -> None:
            values = [x for x in jax.tree.leaves(tree) if _is_float(x)]
            if values:
                names.append(name)
                flags.append(jnp.stack([jnp.isfinite(x).all() for x in values]).all().astype(jnp.float32))

        def check_layer(call, args, kwargs, context):
            # A flag cannot leave the trace of a scan or remat; the input of the next layer is checked instead
            if context.method_name != "__call__" or tracers.current_trace() != trace:
                return call(*args, **kwargs)
            name = "/".join(context.module.path) or "the model"
            check(f"value is the input of {name}", (args, kwargs))
            out = call(*args, **kwargs)
            check(f"layer is {name}", out)
            return out

        with nn.intercept_methods(check_layer):
            loss, aux = exp.task.loss(*args)
        return loss, {**aux, "metrics": {"metrics": aux["metrics"], "finite": flags}}

    def make(**axis):
        gradients = make_gradients(watched, exp.model, **exp.gradient_options, **axis)

        def step(state: State, batch: dict) -> tuple[State, dict]:
            grads, _, seen = gradients(state, batch)
            # The flags were averaged over accumulation steps and devices.
            seen["finite"] = [x == 1.0 for x in seen["finite"]]
            return state, {**seen, "grads": jax.tree.map(lambda g: jnp.isfinite(g).all(), grads)}

        return step

    runner = exp.make_runner(make)
    _, seen = runner.step(runner.place(state), {k: batch[k] for k in ("inputs", "targets")})
    return names, jax.device_get(seen["finite"]), jax.device_get(seen["grads"]), seen["metrics"]
