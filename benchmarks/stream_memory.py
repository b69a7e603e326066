"""Measures the memory of predicting long videos, which is independent of their length.

  python benchmarks/stream_memory.py [--model movinet_a0_stream] [--frames 200 2000 10000]
  python benchmarks/stream_memory.py --window 10 --model mc3_18 [--frames 3000 90000]

Generates a video of each length at 25 frames per second and predicts each in a separate process, with random
weights: frame by frame with `Predictor.stream`, or with --window in windows of that many seconds
without overlap, of one clip each. --tiny takes the tiny preset of the model.
Prints the peak resident memory of the process (reached during compilation), the resident memory after a tenth
of the video and at its end, the size of the model's state, and for comparison the size of all frames, as one
float32 clip of the model's input size.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time
from fractions import Fraction

import av
import jax
import jax.numpy as jnp
import numpy as np

from vidjax import create_model, spec
from vidjax.checkpoint_io import save_variables
from vidjax.environment import environment
from vidjax.predict import Predictor

HEIGHT, WIDTH, FPS = 240, 320, 25
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="movinet_a0_stream")
    parser.add_argument("--window", type=float)
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--frames", type=int, nargs="+")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # one row, in a separate process
    args = parser.parse_args()
    if args.one:
        return read(*args.one, args.frames[0], args.window)
    args.frames = args.frames or ([3000, 90000] if args.window else [200, 2000, 10000])
    for key, value in environment().items():
        print(f"{key:14} {value}")
    columns = ("peak MB", "at 1/10", "at end", "state MB", "pixels MB", "s")
    print(f"{'frames':>8} {' '.join(f'{c:>9}' for c in columns)}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder) / "checkpoint"
        save(checkpoint, args.model, args.tiny)
        for frames in args.frames:
            video = pathlib.Path(folder) / f"{frames}.mp4"
            write(video, frames)
            one = ["--one", str(video), str(checkpoint), "--frames", str(frames)]
            one += ["--window", str(args.window)] if args.window else []
            subprocess.run([sys.executable, __file__, *one], check=True)


def read(video: str, checkpoint: str, frames: int, window: float | None) -> None:
    """Prints one row of the table."""
    resident, start = [], time.perf_counter()
    predictor = Predictor.load(checkpoint)
    if window:
        state = 0
        for now in predictor.windows([video], window, window, clips=1):
            seen = round(now.end * FPS)
            resident += [_resident()] * (seen >= frames // 10 * (len(resident) + 1))
    else:
        size = predictor.config.data.size
        state = sum(x.nbytes for x in jax.tree.leaves(predictor.model.init_state(1, (size, size, 3))))
        for now in predictor.stream([video], every_frames=frames // 10):
            resident.append(_resident())
            seen = now.processed
    if seen != frames:
        raise SystemExit(f"{seen} frames of {frames} were read")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    pixels = frames * predictor.config.data.size**2 * 3 * 4
    columns = [f"{x / MB:9.1f}" for x in (peak, resident[0], resident[-1], state, pixels)]
    print(f"{frames:8} {' '.join(columns)} {time.perf_counter() - start:9.1f}", flush=True)


def save(folder: pathlib.Path, name: str, tiny: bool) -> None:
    """Saves a checkpoint of a model with random weights and a stride of one frame."""
    published = spec(name)
    frames, size, *_ = published.tiny_input_shape if tiny else published.input_shape
    model = create_model(name, tiny=tiny)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, frames, size, size, 3)))
    data = dict(name="video_folder", frames=frames, size=size, short_side=size * 8 // 7, stride=1.0)
    names = [f"class {i}" for i in range(model.num_classes)]
    config = dict(epochs=1.0, data=data, model=dict(name=name, tiny=tiny))
    save_variables(folder, jax.device_get(variables), dict(config=config, class_names=names))


def write(path: pathlib.Path, frames: int) -> None:
    """Writes a video of a bright square that moves over noise, repeated every ten seconds."""
    ground = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        options = {"preset": "ultrafast", "g": str(10 * FPS)}
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        group = []
        for t in range(10 * FPS):
            image = ground.copy()
            x, y = t * 3 % (WIDTH - 40), t * 2 % (HEIGHT - 40)
            image[y : y + 40, x : x + 40] = 255
            group += stream.encode(av.VideoFrame.from_ndarray(image, "rgb24"))
        group += stream.encode()
        for t in range(frames):
            packet = av.Packet(bytes(group[t % len(group)]))
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, t, t, Fraction(1, FPS)
            packet.is_keyframe = t % len(group) == 0
            container.mux(packet)


def _resident() -> int:
    """Returns the resident memory of this process in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
