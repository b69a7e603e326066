"""Measures the memory of streaming prediction, which is independent of the length of the video.

  python benchmarks/stream_memory.py [--model movinet_a0_stream] [--frames 200 2000 10000]

Generates a video of each length and runs `vidjax.predict.predict_stream` with random weights on each, in a
separate process. Prints the peak resident memory of the process (reached during compilation), the resident
memory after a tenth of the video and at its end, the size of the model's state, and for comparison the size
of all frames as one float32 clip.
"""

import argparse
import pathlib
import resource
import subprocess
import sys
import tempfile
import time

import av
import jax
import jax.numpy as jnp
import numpy as np

from vidjax import create_model, spec
from vidjax.checkpoint_io import save_variables
from vidjax.environment import environment
from vidjax.predict import predict_stream

HEIGHT, WIDTH, FPS = 240, 320, 25
MB = 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="movinet_a0_stream")
    parser.add_argument("--frames", type=int, nargs="+", default=[200, 2000, 10000])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # one row, in a separate process
    args = parser.parse_args()
    if args.one:
        return read(*args.one, args.model, args.frames[0])
    for key, value in environment().items():
        print(f"{key:14} {value}")
    columns = ("peak MB", "at 1/10", "at end", "state MB", "pixels MB", "s")
    print(f"{'frames':>8} {' '.join(f'{c:>9}' for c in columns)}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = pathlib.Path(folder) / "checkpoint"
        save(checkpoint, args.model)
        for frames in args.frames:
            video = pathlib.Path(folder) / f"{frames}.mp4"
            write(video, frames)
            one = ["--one", str(video), str(checkpoint), "--model", args.model, "--frames", str(frames)]
            subprocess.run([sys.executable, __file__, *one], check=True)


def read(video: str, checkpoint: str, name: str, frames: int) -> None:
    """Prints one row of the table."""
    resident, seen, start = [], 0, time.perf_counter()
    for now in predict_stream([video], checkpoint, every_frames=frames // 10):
        resident.append(_resident())
        seen = now.frames
    if seen != frames:
        raise SystemExit(f"{seen} frames of {frames} were read")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    size = spec(name).input_shape[1]
    state = sum(x.nbytes for x in jax.tree.leaves(create_model(name).init_state(1, (size, size, 3))))
    pixels = frames * size * size * 3 * 4
    columns = [f"{x / MB:9.1f}" for x in (peak, resident[0], resident[-1], state, pixels)]
    print(f"{frames:8} {' '.join(columns)} {time.perf_counter() - start:9.1f}", flush=True)


def save(folder: pathlib.Path, name: str) -> None:
    """Saves a checkpoint of the full-size model with random weights and a stride of one frame."""
    published = spec(name)
    size = published.input_shape[1]
    model = create_model(name)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2, size, size, 3)))
    data = dict(name="video_folder", size=size, short_side=size * 8 // 7, stride=1.0)
    names = [f"class {i}" for i in range(published.num_classes)]
    config = dict(epochs=1.0, data=data, model=dict(name=name))
    save_variables(folder, jax.device_get(variables), dict(config=config, class_names=names))


def write(path: pathlib.Path, frames: int) -> None:
    """Writes a video of a bright square that moves over noise."""
    ground = np.random.default_rng(0).integers(0, 200, (HEIGHT, WIDTH, 3)).astype(np.uint8)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for t in range(frames):
            image = ground.copy()
            x, y = t * 3 % (WIDTH - 40), t * 2 % (HEIGHT - 40)
            image[y : y + 40, x : x + 40] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, "rgb24")))
        container.mux(stream.encode())


def _resident() -> int:
    """Returns the resident memory of this process in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024


if __name__ == "__main__":
    main()
