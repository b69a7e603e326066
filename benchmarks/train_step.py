"""Times the forward pass and training step of a model on the CPU, compared with PyTorch.

    python benchmarks/train_step.py r3d_18 --batch 1 --frames 16 --size 112
    python benchmarks/train_step.py tsm_resnet50_8f --against tsn_resnet50   # cost of the shift

The forward pass is in evaluation mode. Forward+backward computes the mean cross-entropy and all gradients,
with batch statistics. Both run in float32 with random weights on all available cores.

The two sides alternate in one process, so that changes in machine load affect both equally. Their thread
pools do not interfere: JAX's sleeps between runs, and PyTorch's stops spinning within milliseconds, during
the pause after each run. To verify this, time one side alone with `--only ours` or `--only peer`. Without
PyTorch and torchvision, only vidjax is timed.
"""

import argparse
import importlib.metadata
import operator
import os
import pathlib
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from vidjax.models import create_model, spec

# Maps our models to attributes of torchvision.models; None means the reference in tests/golden/oracles.
PEERS = {
    "r3d_18": "video.r3d_18",
    "mc3_18": "video.mc3_18",
    "r2plus1d_18": "video.r2plus1d_18",
    "resnet18": "resnet18",
    "resnet50": "resnet50",
    "resnet101": "resnet101",
    "vgg16": "vgg16",
    "vgg16_bn": "vgg16_bn",
    "mobilenet_v2": "mobilenet_v2",
    "inception_v1_bn": None,
    "s3d": "video.s3d",
    "mvit_v1_b_16x4": "video.mvit_v1_b",
    "mvit_v2_s_16x4": "video.mvit_v2_s",
    "swin3d_t": "video.swin3d_t",
    "c2d_r50_8x8": None,
    "i3d_r50_8x8": None,
    "i3d_nln_r50_8x8": None,
    "slow_r50_8x8": None,
    "r2plus1d_r50_16x4": None,
    "x3d_s": None,
    "csn_ir_50": None,
    "movinet_a0_base": None,
    "slowfast_r50_4x16": None,
    "slowfast_r50_8x8": None,
    "tsn_resnet50": None,
    "tsm_resnet50_8f": None,
    "tsm_mobilenet_v2_8f": None,
    "videomae_s": None,
    "videomae_b": None,
    "timesformer_b_8x32": None,
    "vivit_b_16x2": None,
}


def ours(name: str, video: np.ndarray, label: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns compiled, blocking functions of the vidjax model: forward and forward+backward."""
    model = create_model(name)
    variables = jax.jit(model.init)(jax.random.key(0), video)

    @jax.jit
    def forward(variables, video):
        return model.apply(variables, video)[0]

    @jax.jit
    def step(variables, video, label):
        def loss(params):
            rest = {k: v for k, v in variables.items() if k != "params"}
            rngs = {"dropout": jax.random.key(1)}
            (logits, _), state = model.apply(
                {"params": params, **rest}, video, train=True, mutable=list(rest), rngs=rngs
            )
            return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean(), state

        return jax.value_and_grad(loss, has_aux=True)(variables["params"])

    video, label = jnp.asarray(video), jnp.asarray(label)
    return {
        "forward": lambda: jax.block_until_ready(forward(variables, video)),
        "forward+backward": lambda: jax.block_until_ready(step(variables, video, label)),
    }


def peer(name: str, video: np.ndarray, label: np.ndarray) -> dict[str, Callable[[], object]]:
    """Returns the same functions of the reference. Raises ImportError if its package is missing."""
    import torch

    sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "golden"))
    import oracles  # declares the operators that torchvision's CPU build may lack

    torch.set_num_threads(cores())
    case = None
    if PEERS[name] is None:
        case = oracles.cases()[name]
        classes = spec(name).num_classes
        model = case.full(classes, *video.shape[1:3]) if case.full else case.build(classes)
    else:
        import torchvision

        model = operator.attrgetter(PEERS[name])(torchvision.models)()
    inputs = case.to_input(video) if case else oracles.channels_first(video)
    call = case.call if case else lambda model, x: model(x)
    labels = torch.from_numpy(label).long()

    def forward():
        model.eval()
        with torch.inference_mode():
            return call(model, inputs)

    def step():
        model.train().zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(call(model, inputs), labels).backward()

    return {"forward": forward, "forward+backward": step}


def race(sides: dict[str, dict[str, Callable[[], object]]], repeats: int) -> None:
    """Times the functions of one or two sides in alternation; prints medians, minima and their ratios."""
    for kind in next(iter(sides.values())):
        seconds = {side: [] for side in sides}
        for repeat in range(repeats + 1):  # the first one compiles and warms up
            for side, runs in sides.items():
                start = time.perf_counter()
                runs[kind]()
                if repeat:
                    seconds[side].append(time.perf_counter() - start)
                time.sleep(0.05)
        for statistic in (np.median, np.min):
            row = {side: float(statistic(times)) for side, times in seconds.items()}
            text = "  ".join(f"{side} {value * 1e3:9.1f} ms" for side, value in row.items())
            first, *second = row.values()
            ratio = f"  ratio {first / second[0]:.2f}" if second else ""
            print(f"{kind:17} {statistic.__name__:7} {text}{ratio}", flush=True)


def cores() -> int:
    return len(os.sched_getaffinity(0))


def environment() -> str:
    """Returns the processor, number of threads and package versions."""
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    versions = []
    for package in ("jax", "jaxlib", "flax", "torch", "torchvision"):
        try:
            versions.append(f"{package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            versions.append(f"{package} absent")
    return f"{cpu[0] if cpu else 'unknown CPU'}, {cores()} threads; {', '.join(versions)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="a registered name")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--frames", type=int, help="frames per clip (default: as published)")
    parser.add_argument("--size", type=int, help="height and width (default: as published)")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--against", help="registered model to compare with instead of PyTorch")
    parser.add_argument("--only", choices=("ours", "peer"), help="time one side alone")
    args = parser.parse_args()

    *frames, size, _, channels = spec(args.model).input_shape
    frames = [args.frames or frames[0]] if frames else []
    shape = (args.batch, *frames, args.size or size, args.size or size, channels)
    rng = np.random.default_rng(0)
    video = rng.standard_normal(shape, np.float32)
    label = rng.integers(0, spec(args.model).num_classes, args.batch)

    sides = {}
    if args.only != "peer":
        sides["ours"] = ours(args.model, video, label)
    if args.against:
        sides[args.against] = ours(args.against, video, label)
    elif args.only != "ours" and args.model in PEERS:
        try:
            sides["peer"] = peer(args.model, video, label)
        except ImportError as error:
            print(f"timing only vidjax: {error}")

    print(f"{args.model}, input {'x'.join(map(str, shape))} float32\n{environment()}")
    race(sides, args.repeats)


if __name__ == "__main__":
    main()
