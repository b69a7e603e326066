"""Recurrence over time: a scan with truncated backpropagation, and LSTM and GRU layers.

Every layer computes the product with its input for all steps at once before the scan; a step computes only
the product with the state. The recurrence runs in float32 for any compute dtype of the backbone, since
rounding errors accumulate over steps.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

from vidjax.errors import UserError


def scan_time(
    step: Callable[[Any, jax.Array], tuple[Any, jax.Array]],
    state: Any,
    x: jax.Array,
    truncate: int | None = None,
    reverse: bool = False,
) -> tuple[Any, jax.Array]:
    """Runs `state, y = step(state, x[:, t])` over the time axis of `x` [B, T, ...].

    Args:
      step: function of one step.
      state: initial state, a pytree.
      x: inputs of all steps.
      truncate: stop the gradient through the state every `truncate` steps; never if None.
      reverse: run from the last step to the first.

    Returns:
      The final state, and y [B, T, ...] in the order of `x`.

    Raises:
      UserError: `truncate` is less than 1.
    """
    if truncate is not None and truncate < 1:
        raise UserError(f"truncate must be at least 1 step, got {truncate}")

    def truncated_step(state, inputs):
        x, cut = inputs
        if truncate is not None:
            state = jax.tree.map(lambda s: jnp.where(cut, lax.stop_gradient(s), s), state)
        return step(state, x)

    count = jnp.arange(x.shape[1])
    cut = (count[::-1] if reverse else count) % (truncate or 1) == 0
    state, y = lax.scan(truncated_step, state, (x.swapaxes(0, 1), cut), reverse=reverse)
    return state, y.swapaxes(0, 1)


class Recurrent(nn.Module):
    """Base of the layers below: maps [B, T, D] and a state to outputs [B, T, width] and the final state.

    Attributes:
      width: size of the state.
      truncate, reverse: see `scan_time`.
      param_dtype: of the parameters.
    """

    width: int
    truncate: int | None = None
    reverse: bool = False
    param_dtype: DTypeLike = jnp.float32

    @staticmethod
    def zeros(batch: int, width: int) -> Any:
        """Returns the state before the first step."""
        return jnp.zeros((batch, width))

    def _parameters(self, gates: int, bias: jax.Array, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Returns input products [B, T, gates * width] with initial bias `bias`, and the state's kernel."""
        n = gates * self.width
        bias_init = lambda key, shape, dtype: jnp.asarray(bias, dtype)  # noqa: E731
        inputs = nn.Dense(n, bias_init=bias_init, param_dtype=self.param_dtype, name="input")(
            x.astype(jnp.float32)
        )
        each = nn.initializers.orthogonal()

        def orthogonal(key, shape, dtype):
            keys = jax.random.split(key, gates)
            return jnp.concatenate([each(k, (self.width, self.width), dtype) for k in keys], axis=1)

        return inputs, self.param("recurrent", orthogonal, (self.width, n), self.param_dtype)


class LSTM(Recurrent):
    """Long short-term memory (Hochreiter & Schmidhuber 1997, with Gers' forget gate).

    i, f, o = sigmoid, g = tanh of W x_t + b + U h_{t-1};  c_t = f c_{t-1} + i g;  h_t = o tanh(c_t).
    Columns are in the order i, f, g, o. The bias of the forget gate is initialized with 1 (Jozefowicz et al.
    2015).
    """

    @staticmethod
    def zeros(batch: int, width: int) -> tuple[jax.Array, jax.Array]:
        """(c, h), each [B, width]."""
        return jnp.zeros((batch, width)), jnp.zeros((batch, width))

    @nn.compact
    def __call__(self, x: jax.Array, state: Any) -> tuple[jax.Array, Any]:
        """x [B, T, D], state (c, h) -> h [B, T, width], state."""
        w = self.width
        bias = jnp.zeros(4 * w).at[w : 2 * w].set(1.0)
        inputs, kernel = self._parameters(4, bias, x)

        def step(state, x):
            c, h = state
            i, f, g, o = jnp.split(x + h @ kernel, 4, axis=-1)
            c = nn.sigmoid(f) * c + nn.sigmoid(i) * jnp.tanh(g)
            h = nn.sigmoid(o) * jnp.tanh(c)
            return (c, h), h

        state, y = scan_time(step, state, inputs, self.truncate, self.reverse)
        return y, state


class GRU(Recurrent):
    """Gated recurrent unit (Cho et al., arXiv:1406.1078), in cuDNN's form.

    One step has one product with the state.
    r, z = sigmoid(W x_t + b + U h_{t-1});  n = tanh(W_n x_t + b_n + r (U_n h_{t-1} + c_n));
    h_t = (1 - z) n + z h_{t-1}. Columns are in the order r, z, n.
    """

    @nn.compact
    def __call__(self, x: jax.Array, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        """x [B, T, D], state h [B, width] -> h [B, T, width], state."""
        inputs, kernel = self._parameters(3, jnp.zeros(3 * self.width), x)
        bias = self.param("recurrent_bias", nn.initializers.zeros, (self.width,), self.param_dtype)

        def step(h, x):
            xr, xz, xn = jnp.split(x, 3, axis=-1)
            hr, hz, hn = jnp.split(h @ kernel, 3, axis=-1)
            z = nn.sigmoid(xz + hz)
            n = jnp.tanh(xn + nn.sigmoid(xr + hr) * (hn + bias[None]))
            h = (1 - z) * n + z * h
            return h, h

        state, y = scan_time(step, state, inputs, self.truncate, self.reverse)
        return y, state


def log_mean_probability(logits: jax.Array, axis: int) -> jax.Array:
    """Returns the log of the softmax of `logits` [..., K] averaged over `axis`.

    The result can be used as logits: its softmax is the averaged probability.
    """
    logs = nn.log_softmax(logits.astype(jnp.float32))
    return jax.nn.logsumexp(logs, axis=axis) - jnp.log(logits.shape[axis])
