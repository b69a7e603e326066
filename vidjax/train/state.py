"""The training state."""

from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import optax


class State(flax.struct.PyTreeNode):
    """The training state, input and output of a step.

    Attributes:
      step: int32, number of updates; the random key of a step is `fold_in(rng, step)`.
      params: parameters, float32.
      model_state: the other collections of the model, such as batch_stats.
      opt_state: state of the optax transformation.
      ema: exponential moving average of `params`, or None.
      rng: random key, uint32 [2].
      nonfinite: int32, number of steps with a non-finite loss or gradient.
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
        """The variables for evaluation, with the averaged parameters if `ema` is not None."""
        return {"params": self.params if self.ema is None else self.ema, **self.model_state}


def init_state(
    model: nn.Module, tx: optax.GradientTransformation, seed: int, inputs: Any, ema: bool
) -> State:
    """Returns a newly initialized state. Pure, for use with `jit` or `eval_shape`.

    Args:
      model: the linen module.
      tx: the optax transformation.
      seed: seed of the parameters and of all random numbers of the run.
      inputs: shapes and dtypes of the model's argument.
      ema: whether to average the parameters.
    """
    init_rng, rng = jax.random.split(jax.random.PRNGKey(seed))
    variables = model.init(init_rng, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs))
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
