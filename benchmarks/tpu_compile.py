"""Compiles a training step for a TPU slice ahead of time, on a machine without a TPU.

  pip install libtpu
  python benchmarks/tpu_compile.py r3d_18 late_fusion_resnet50 --topology v5e:4x4 --batch 256

For each model, prints the compilation time of the sharded step in bfloat16, and its memory (arguments and
temporaries) and floating-point operations per chip.
"""

import argparse
import functools
import os
import time

os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")

import jax
import jax.numpy as jnp
import optax
from jax.experimental import topologies

import vidjax
from vidjax.layers.lowering import lowering_platform
from vidjax.layers.preprocess import model_inputs
from vidjax.registry import dummy_input
from vidjax.sharding import JitRunner, create_mesh, state_shardings
from vidjax.tasks import create_task
from vidjax.train.state import init_state
from vidjax.train.step import make_train_step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--batch", type=int, default=256, help="videos per step, over all chips")
    parser.add_argument("--fsdp", type=int, default=1)
    args = parser.parse_args()
    topology = topologies.get_topology_desc(platform="tpu", topology_name=args.topology)
    mesh = create_mesh(fsdp=args.fsdp, devices=topology.devices)
    print(f"{args.topology}: {mesh.size} chips, batch {args.batch}, bfloat16")
    for name in args.models:
        spec = vidjax.spec(name)
        model = vidjax.create_model(name, dtype=jnp.bfloat16)
        tx = optax.sgd(0.1, 0.9)
        inputs = model_inputs(spec, spec.streams)
        clip = dummy_input(spec.input_shape, args.batch)
        state = jax.eval_shape(functools.partial(init_state, model, tx, 0, clip, False))
        task = create_task("classification", inputs=inputs, class_names=map(str, range(model.num_classes)))
        rules = ((".*", "fsdp"),) if args.fsdp > 1 else ()
        runner = JitRunner(make_train_step(task.loss, model, tx), mesh, state_shardings(state, mesh, rules))
        video = dummy_input(spec.input_shape, args.batch, dtype=jnp.uint8)
        batch = {
            "inputs": video if isinstance(video, dict) else {spec.streams[0]: video},
            "targets": {"label": jax.ShapeDtypeStruct((args.batch,), jnp.int32)},
        }
        start = time.perf_counter()
        with lowering_platform("tpu"):  # trace as on a TPU host
            compiled = runner.step.lower(state, batch).compile()
        memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
        print(
            f"{name}: compiled in {time.perf_counter() - start:.0f} s; per chip "
            f"{memory.argument_size_in_bytes / 2**20:.0f} MiB of arguments, "
            f"{memory.temp_size_in_bytes / 2**20:.0f} MiB of temporaries, {cost['flops'] / 1e9:.0f} GFLOP"
        )


if __name__ == "__main__":
    main()
