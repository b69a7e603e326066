"""Memory that a training step needs for activations, by two measures.

`activation_bytes` counts what autodiff keeps between the forward and the backward pass. It is traced, which
takes a second, and is the same on every backend. It is generous: XLA recomputes what is cheap (a ReLU's mask,
a normalised input).
`compiled_bytes` asks XLA, for the backend at hand; on the CPU that includes the patches that its convolutions
are lowered to, and its scheduler frees little of what remat allows it to.
Neither holds parameters, gradients, optimizer state or the input.
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
    """Bytes of the intermediate arrays that the backward pass of a training step reads.

    Args:
      model: the model, in the dtype it trains in.
      input_shape: one input without the batch axis.
      batch: inputs in the step.
      remat: recompute each block (submodule with "block" in its name) in the backward pass and keep only its
        input.
      variables: shapes of the model's variables, where they are known already.
    """
    loss, params, state, video = _step(model, input_shape, batch, remat, variables)

    def residuals(params: Any, state: Any, video: Any) -> Callable:
        return jax.vjp(lambda p: loss(p, state, video), params)[1]

    jaxpr = graph.make_jaxpr(residuals, params, state, video)[0].jaxpr
    given = {*jaxpr.invars, *jaxpr.constvars}
    kept = {v for v in jaxpr.outvars if not isinstance(v, Literal)} - given
    return sum(v.aval.size * v.aval.dtype.itemsize for v in kept)


def compiled_bytes(model: nn.Module, input_shape: InputShape, batch: int = 1, remat: bool = False) -> int:
    """Bytes of temporary buffers of the compiled gradient on the default backend: activations and scratch.
    Compiles for seconds to minutes; computes nothing. See `activation_bytes` for the arguments."""
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
