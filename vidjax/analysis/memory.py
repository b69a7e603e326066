"""Activation memory of a training step, by two measures.

`activation_bytes` counts the arrays saved for the backward pass. It is traced, which takes a second, and is
the same on every backend. It is an upper estimate: XLA recomputes cheap arrays (the mask of a ReLU, a
normalized input).
`compiled_bytes` is reported by XLA for the default backend. On the CPU it includes the patches that
convolutions are lowered to, and the scheduler frees little of the memory that remat allows it to.
Neither includes parameters, gradients, optimizer state or the input.
"""

import contextlib
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
from jax.extend.core import Literal

from vidjax.analysis import graph
from vidjax.registry import InputShape, dummy_input


def activation_bytes(
    model: nn.Module,
    input_shape: InputShape,
    batch: int = 1,
    remat: bool = False,
    variables: dict[str, Any] | None = None,
) -> int:
    """Returns the bytes of activations saved for the backward pass of a training step.

    Args:
      model: the model, in its training dtype.
      input_shape: shape of one input without the batch axis.
      batch: number of inputs in the step.
      remat: recompute each block (submodule with "block" in its name) in the backward pass and save only its
        input.
      variables: shapes of the variables of the model; traced if None.
    """
    loss, params, state, video = _step(model, input_shape, batch, remat, variables)

    def residuals(params: Any, state: Any, video: Any) -> Callable:
        return jax.vjp(lambda p: loss(p, state, video), params)[1]

    jaxpr = graph.make_jaxpr(residuals, params, state, video)[0].jaxpr
    given = {*jaxpr.invars, *jaxpr.constvars}
    saved = {v for v in jaxpr.outvars if not isinstance(v, Literal)} - given
    return sum(v.aval.size * v.aval.dtype.itemsize for v in saved)


def compiled_bytes(model: nn.Module, input_shape: InputShape, batch: int = 1, remat: bool = False) -> int:
    """Returns the bytes of temporary buffers of the compiled gradient on the default backend.

    Compiling takes seconds to minutes; nothing is computed. See `activation_bytes` for the arguments.
    """
    loss, params, state, video = _step(model, input_shape, batch, remat, None)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, state, video).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def _step(model: nn.Module, input_shape: InputShape, batch: int, remat: bool, variables: Any):
    state = dict(variables or graph.abstract_variables(model, input_shape))
    params = state.pop("params")
    video = dummy_input(input_shape, batch)

    def loss(params: Any, state: Any, video: jax.Array) -> jax.Array:
        rngs = {"dropout": jax.random.key(0)}
        variables = {"params": params, **state}
        with nn.intercept_methods(_recompute_blocks()) if remat else contextlib.nullcontext():
            (logits, _), _ = model.apply(variables, video, train=True, rngs=rngs, mutable=list(state))
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    return loss, params, state, video


def _recompute_blocks() -> Callable:
    inside: set[tuple[str, ...]] = set()

    def intercept(call: Callable, args: tuple, kwargs: dict, context: nn.module.InterceptorContext) -> Any:
        module = context.module
        if context.method_name != "__call__" or "block" not in (module.name or "") or module.path in inside:
            return call(*args, **kwargs)
        inside.add(module.path)
        flags = tuple(i for i, a in enumerate(args, 1) if isinstance(a, bool))
        try:
            run = nn.remat(lambda m, *a: type(m).__call__(m, *a, **kwargs), static_argnums=flags)
            return run(module, *args)
        finally:
            inside.remove(module.path)

    return intercept
