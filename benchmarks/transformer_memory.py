"""Measures compilation time and memory of transformers with scan and remat, and of attention backends.

    python benchmarks/transformer_memory.py
    python benchmarks/transformer_memory.py --topology v5e:2x2   # for a TPU chip; needs libtpu, no TPU

For the gradient of a model with each setting of scan and remat, prints the seconds to trace and to compile,
the activations saved for the backward pass, and the temporary memory reported by the compiler (on the CPU,
the scheduler frees little of the memory that remat could save). Also prints the memory of attention by
backend. Everything is compiled, nothing is run.
"""

import argparse
import contextlib
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from vidjax.analysis.memory import activation_bytes
from vidjax.analysis.params import abstract_variables
from vidjax.layers.attention import attention
from vidjax.layers.lowering import lowering_platform
from vidjax.layers.transformer import REMAT
from vidjax.models import create_model, spec


def compiled(fn, sharding, *args):
    """Returns the seconds to trace and to compile, and the temporary memory in MiB."""
    args = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), args)
    start = time.perf_counter()
    lowered = jax.jit(fn).lower(*args)
    traced = time.perf_counter()
    memory = lowered.compile().memory_analysis()
    return traced - start, time.perf_counter() - traced, memory.temp_size_in_bytes / 2**20


def models(name: str, batch: int, dtype, sharding) -> None:
    shape = spec(name).input_shape
    print(f"{name}, gradient, batch {batch}, {jnp.dtype(dtype)}")
    print("scan  remat  trace s  compile s   kept MiB   temporary MiB")
    for scan in (False, True):
        for remat in REMAT:
            model = create_model(name, scan=scan, remat=remat, dtype=dtype)
            variables = abstract_variables(model, shape)

            def loss(variables, x, model=model):
                return model.apply(variables, x)[0].astype(jnp.float32).sum()

            x = jax.ShapeDtypeStruct((batch, *shape), dtype)
            trace, seconds, temporary = compiled(jax.grad(loss), sharding, variables, x)
            kept = activation_bytes(model, shape, batch) / 2**20
            print(
                f"{scan!s:5} {remat:5} {trace:8.1f} {seconds:10.1f} {kept:10.0f} {temporary:15.0f}",
                flush=True,
            )


def attentions(tokens: int, dtype, sharding, backends) -> None:
    x = jax.ShapeDtypeStruct((1, tokens, 12, 64), dtype)
    print(f"\nattention, {tokens} tokens, 12 heads of 64, {jnp.dtype(dtype)}")
    print("backend    forward MiB   gradient MiB")
    for backend in backends:

        def loss(q, k, v, backend=backend):
            return attention(q, k, v, backend=backend).astype(jnp.float32).sum()

        forward, gradient = (
            compiled(fn, sharding, x, x, x)[2] for fn in (loss, jax.grad(loss, argnums=(0, 1, 2)))
        )
        print(f"{backend:9} {forward:12.0f} {gradient:14.0f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="vit_l_16")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--tokens", type=int, default=3136)
    parser.add_argument("--topology", help="TPU topology, such as v5e:2x2 (default: the CPU)")
    args = parser.parse_args()
    platform, device, dtype = "cpu", jax.devices()[0], jnp.float32
    backends = ["plain", "heads", "blockwise"]
    if args.topology:
        topology = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
        platform, device, dtype = "tpu", topology.devices[0], jnp.bfloat16
        backends = ["plain", "blockwise", "flash"]
    sharding = SingleDeviceSharding(device)
    with contextlib.ExitStack() as stack:
        if platform == "tpu":
            stack.enter_context(lowering_platform("tpu"))
        attentions(args.tokens, dtype, sharding, backends)
        models(args.model, args.batch, dtype, sharding)


if __name__ == "__main__":
    main()
