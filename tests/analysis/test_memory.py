"""Activation memory: closed forms, remat, and what XLA allocates."""

import chex
import flax.linen as nn
import jax

from vidjax import create_model
from vidjax.analysis import memory
from vidjax.layers.norm import BatchNorm


class Chain(nn.Module):
    """Dense layers without bias; each saves its input for the backward pass."""

    layers: int
    width: int = 64

    @nn.compact
    def __call__(self, x, train=False):
        for i in range(self.layers):
            x = nn.Dense(self.width, use_bias=False, name=f"dense{i}")(x)
        return x, {}


def test_activation_bytes_of_a_chain_of_dense_layers():
    """Each layer saves its input, [32, 64] float32, except the first, whose input is the model's. The loss
    saves
    its softmax, of the size of the output."""
    size = 32 * 64 * 4
    found = [memory.activation_bytes(Chain(n), (64,), batch=32) for n in (1, 2, 6)]
    assert found[1] - found[0] == size and found[2] - found[1] == 4 * size
    assert size <= found[0] < 3 * size


def test_activation_bytes_grow_with_batch_and_shrink_with_remat():
    model, shape = create_model("r3d_18", 10, width=8), (8, 32, 32, 3)
    one, four = (memory.activation_bytes(model, shape, batch=b) for b in (1, 4))
    assert one * 3.5 < four < one * 4.1
    less = memory.activation_bytes(model, shape, remat=True)
    assert less < 0.4 * one


class Part(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = BatchNorm(name="bn")(nn.Dense(8, name="dense")(x), train)
        return x + nn.Dense(8, name="out")(nn.relu(x))


class Blocks(nn.Module):
    @nn.compact
    def __call__(self, x, train=False):
        for i in range(3):
            x = Part(name=f"block{i}")(x, train=train) if i else Part(name="block0")(x, train)
        return x, {}


def test_remat_saves_block_inputs_and_keeps_gradients():
    x = jax.random.normal(jax.random.key(0), (16, 8))
    state = dict(Blocks().init(jax.random.key(1), x))
    params = state.pop("params")
    steps = [memory._step(Blocks(), (8,), 16, remat, None)[0] for remat in (False, True)]
    options = {"xla_cpu_use_fusion_emitters": True}  # as outside of the tests: the same rounding in both
    plain, again = (
        jax.jit(jax.value_and_grad(step), compiler_options=options)(params, state, x) for step in steps
    )
    chex.assert_trees_all_close(plain, again, rtol=1e-5)
    size = 16 * 8 * 4
    # Two blocks' inputs (the first one's is the model's), and the loss's softmax with its scalars.
    assert 2 * size <= memory.activation_bytes(Blocks(), (8,), 16, remat=True) < 5 * size
    assert memory.activation_bytes(Blocks(), (8,), 16) > 10 * size


def test_compiled_bytes_are_close_to_activation_bytes():
    """A chain leaves nothing to recompute, so the compiled size is near the saved activations."""
    kept = memory.activation_bytes(Chain(6), (64,), batch=512)
    assert 0.6 * kept < memory.compiled_bytes(Chain(6), (64,), batch=512) < 3 * kept
