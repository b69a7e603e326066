"""Measures augmentation on one core: milliseconds per clip, and clips per second with and without it.

    python benchmarks/augmentation.py [--video FILE] [--frames 16] [--stride 4] [--size 224] [--clips 24]

Without --video, a video is generated in the format in which Kinetics is usually stored, see
input_pipeline.py. The baseline reads a clip, crops it at random and resizes it. "clips/s with" adds one
operation to it, or a whole policy of RandAugment or AutoAugment, whose cost is the mean over random draws.

One core of a 2-core virtual machine, CPU milliseconds per clip (clips/s of the baseline with the operation):

    (decode, crop, resize)      16.4  (61.1)     Sharpness                    6.1  (44.6)
    flip                         0.1  (60.7)     AutoContrast, Equalize     5-5.7  (45-47)
    color jitter                 0.5  (59.4)     other colors               3-4.3  (48-52)
    Rotate, bicubic             40.0  (17.8)     GaussianBlur                28.7  (22.2)
    Rotate, bilinear            21.5  (26.4)     rand-m7-n4-mstd0.5-inc1     34.8  (19.5)
    ShearX, bicubic             40.1  (17.7)     rand-m7-mstd0.5-inc1        14.2  (32.7)
    TranslateXRel, bicubic      31.9  (20.7)     v0                          16.2  (30.7)

Jitter and flips are too cheap to be worth moving to the device. Rotations, shears and translations are what
costs; they stay with Pillow on the host, since OpenCV's interpolation and a device's arithmetic round
differently.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from input_pipeline import write_video
from PIL import Image

from vidjax.data import auto_augment as aa
from vidjax.data import transforms
from vidjax.data.decode import Video

DRAWS = 64
POLICIES = ("rand-m7-n4-mstd0.5-inc1", "rand-m7-mstd0.5-inc1", "v0", "3a")


def operation(name: str, method: Image.Resampling) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function of a clip that applies an operation of RandAugment at level 7."""
    op = aa.OPERATIONS[name]
    argument = op.argument(0.7, 1)

    def apply(clip: np.ndarray) -> np.ndarray:
        frames = [Image.fromarray(f) for f in clip]
        if op.warp:
            read_at = op.warp(argument, *frames[0].size)
            frames = [aa.warp(f, read_at, method, (128, 128, 128)) for f in frames]
        else:
            frames = [op.apply(f, argument) for f in frames]
        return np.stack([np.asarray(f) for f in frames])

    return apply


def operations() -> dict[str, Callable[[np.ndarray], np.ndarray]]:
    """Returns what is measured, by name."""
    rng = np.random.default_rng(0)
    bilinear, bicubic = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
    found = {"flip": transforms.flip}
    found["color jitter"] = lambda clip: transforms.color_jitter(clip, rng, 0.4, 0.4, 0.4, 0.1)
    for name, op in aa.OPERATIONS.items():
        found[name] = operation(name, bicubic)
        if op.warp:
            found[f"{name} (bilinear)"] = operation(name, bilinear)
    return found


def policy(name: str) -> Callable[[np.ndarray], list[np.ndarray]]:
    """Returns a function of a clip that applies a policy `DRAWS` times, with the same draws in every call."""

    def apply(clip: np.ndarray) -> list[np.ndarray]:
        return [aa.auto_augment(clip, np.random.default_rng(seed), name)[0] for seed in range(DRAWS)]

    return apply


def seconds(function: Callable[[np.ndarray], object], inputs: list) -> float:
    """Returns the mean CPU time of a call, of the fastest of three passes."""
    passes = []
    for _ in range(3):
        start = time.process_time()
        for x in inputs:
            function(x)
        passes.append(time.process_time() - start)
    return min(passes) / len(inputs)


def report(path: str, args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    with Video(path) as video:
        span = (args.frames - 1) * args.stride + 1
        starts = rng.integers(video.num_frames - span + 1, size=args.clips)
    indices = [start + args.stride * np.arange(args.frames) for start in starts]

    def read(index: np.ndarray) -> np.ndarray:
        with Video(path) as video:
            return transforms.random_resized_crop(video.frames(index), args.size, rng)[0]

    base, clips = seconds(read, indices), [read(i) for i in indices]
    print(f"{args.clips} clips of {args.frames}x{args.size}x{args.size}, stride {args.stride}, one core")
    print(f"\n{'operation':<28}{'ms/clip':>9}{'clips/s with':>14}")
    print(f"{'(decode, crop, resize)':<28}{1e3 * base:>9.1f}{1 / base:>14.1f}")
    costs = {name: seconds(function, clips) for name, function in operations().items()}
    costs |= {name: seconds(policy(name), clips[:1]) / DRAWS for name in POLICIES}
    for name, cost in costs.items():
        print(f"{name:<28}{1e3 * cost:>9.1f}{1 / (base + cost):>14.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=4)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--clips", type=int, default=24)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as folder:
        path = args.video or str(Path(folder, "kinetics_like.mp4"))
        if not args.video:
            write_video(path)
        report(path, args)


if __name__ == "__main__":
    main()
