"""What training carries from step to step."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from vidjax.registry import InputShape, dummy_input


class State(flax.struct.PyTreeNode):
    """Everything a step reads and writes.

    Attributes:
      step: int32, updates done; the random key of a step is `fold_in(rng, step)`.
      params: trained parameters, float32.
      model_state: the model's other collections, e.g. batch_stats.
      opt_state: of the optax transformation.
      ema: exponential moving average of `params`, or None.
      rng: uint32 [2].
      nonfinite: int32, steps whose loss or gradient was not finite.
    """

    step: jax.Array
    params: Any
    model_state: Any
    opt_state: Any
    ema: Any
    rng: jax.Array
    nonfinite: jax.Array

    @property
    def eval_variables(self) -> dict[str, Any]:
        """The variables to evaluate with: averaged parameters where there are any."""
        return {"params": self.params if self.ema is None else self.ema, **self.model_state}


def init_state(
    model: nn.Module, tx: optax.GradientTransformation, seed: int, shape: InputShape, ema: bool
) -> State:
    """A fresh state, for one input of `shape`. Pure: jit it, or look at it with `eval_shape`."""
    init_rng, rng = jax.random.split(jax.random.PRNGKey(seed))
    variables = model.init(init_rng, dummy_input(shape, make=jnp.zeros))
    params = variables.pop("params")
    return State(
        step=jnp.int32(0),
        params=params,
        model_state=variables,
        opt_state=tx.init(params),
        # A copy: the step donates its state, and one buffer cannot be donated twice.
        ema=jax.tree.map(jnp.copy, params) if ema else None,
        rng=rng,
        nonfinite=jnp.int32(0),
    )
