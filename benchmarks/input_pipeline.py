"""Measures video loading on one core: clips per second by stage, and compared with other readers.

    python benchmarks/input_pipeline.py [--video FILE] [--frames 16] [--stride 2] [--clips 40] [--rounds 5]

Without --video, a video is generated in the format in which Kinetics is usually stored: 340x256, H.264, 10 s
at 30 fps. All readers load the same clips with random starts. The process is pinned to one core, and every
reader decodes with one thread and reopens the file for each clip, as in training.

Readers alternate within a round. The table shows the median over rounds of the time of each reader, and of
its ratio to vidjax in the same round. Readers that cannot be imported are skipped. The last column is the
maximum over clips of the mean absolute difference (0-255) to sequential decoding, which reveals wrong frames.
"""

import argparse
import contextlib
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from vidjax.data import transforms
from vidjax.data.decode import Video

Reader = Callable[[str, np.ndarray], np.ndarray]
BATCH = 8


def write_video(path: str, seconds: int = 10, fps: int = 30, height: int = 256, width: int = 340) -> None:
    """Writes a video of two moving textures with cuts and noise, about 1 Mbit/s."""
    rng = np.random.default_rng(0)
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(seconds * fps):
            if i % 110 == 0:
                noise = rng.integers(0, 256, (2, 3 * height, 3 * width, 3), np.uint8)
                scene = [cv2.GaussianBlur(n, (0, 0), s) for n, s in zip(noise, (4, 16))]
                scene = [cv2.normalize(s, None, 0, 255, cv2.NORM_MINMAX) for s in scene]
            y, x = 2 * (i % 110), 3 * (i % 110)
            frame = scene[1][y : y + height, x : x + width].copy()
            top, left = 60 + i % 90, 40 + 2 * (i % 90)
            frame[top : top + 90, left : left + 70] = scene[0][2 * y : 2 * y + 90, x : x + 70]
            frame = cv2.add(frame, rng.integers(0, 6, frame.shape, np.uint8))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def read_vidjax(path: str, indices: np.ndarray) -> np.ndarray:
    with Video(path) as video:
        return video.frames(indices)


def read_pyav(path: str, indices: np.ndarray) -> np.ndarray:
    """Seeks to the first frame by timestamp, decodes up to the last, and keeps the requested frames."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        ticks = 1 / (stream.average_rate * stream.time_base)
        start = stream.start_time or 0
        requested, clip = set(indices.tolist()), []
        container.seek(start + int(indices[0] * ticks), stream=stream)
        for frame in container.decode(stream):
            index = round((frame.pts - start) / ticks)
            if index in requested:
                clip.append(frame.to_ndarray(format="rgb24"))
            if index >= indices[-1]:
                return np.stack(clip)


def read_opencv(path: str, indices: np.ndarray) -> np.ndarray:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    capture.set(cv2.CAP_PROP_POS_FRAMES, int(indices[0]))
    requested, clip = set(indices.tolist()), []
    for index in range(indices[0], indices[-1] + 1):
        capture.grab()
        if index in requested:
            clip.append(cv2.cvtColor(capture.retrieve()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(clip)


def read_decord(path: str, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(indices.tolist()).asnumpy()


def read_torchcodec(path: str, indices: np.ndarray) -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC")
    return decoder.get_frames_at(indices.tolist()).data.numpy()


def readers() -> dict[str, Reader]:
    found = {"vidjax": read_vidjax, "PyAV loop": read_pyav, "OpenCV loop": read_opencv}
    for name, reader in {"decord": read_decord, "torchcodec.decoders": read_torchcodec}.items():
        try:
            importlib.import_module(name)
            found[name.split(".")[0]] = reader
        except (ImportError, OSError, RuntimeError):
            print(f"{name} cannot be imported: skipped")
    return found


@contextlib.contextmanager
def adding_to(total: dict[str, float], name: str) -> Iterator[None]:
    start = time.perf_counter()
    yield
    total[name] = total.get(name, 0.0) + time.perf_counter() - start


def stages(path: str, clips: list[np.ndarray], size: int) -> dict[str, float]:
    """Returns the seconds per clip of each stage."""
    total, rng, batch = {}, np.random.default_rng(0), []
    for indices in clips:
        with adding_to(total, "open"):
            video = Video(path)
        start = video._starts[np.searchsorted(video._starts, video._pts[indices[0]], "right") - 1]
        with adding_to(total, "seek"):
            next(video._packets_from(start))
        with adding_to(total, "decode"):  # seeks again
            frames = [frame for _, frame in video._seek_frames(indices)]
        with adding_to(total, "to RGB"):
            clip = np.stack([video._image(frame, grey=False) for frame in frames])
        with adding_to(total, "crop and resize"):
            clip, _ = transforms.random_resized_crop(clip, size, rng)
        with adding_to(total, "augment"):
            clip = transforms.color_jitter(transforms.flip(clip), rng, 0.4, 0.4, 0.4, 0.1)
        batch.append(clip)
        with adding_to(total, "batch"):
            if len(batch) == BATCH:
                np.stack(batch)
                batch.clear()
        video.close()
    total["decode"] -= total["seek"]
    return {name: seconds / len(clips) for name, seconds in total.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--video")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--stride", type=int, default=2)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--clips", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})

    with tempfile.TemporaryDirectory() as folder:
        path = args.video or str(Path(folder, "kinetics_like.mp4"))
        if not args.video:
            write_video(path)
        report(path, args)


def report(path: str, args: argparse.Namespace) -> None:
    with Video(path) as video:
        truth = [
            video._image(frame, grey=False) for _, frame in video._count_frames(np.arange(video.num_frames))
        ]
        span = (args.frames - 1) * args.stride + 1
        if span > video.num_frames:
            raise SystemExit(f"{path} has {video.num_frames} frames, a clip needs {span}")
        starts = np.random.default_rng(0).integers(video.num_frames - span + 1, size=args.clips)
        size = f"{video.width}x{video.height}, {os.path.getsize(path) / 1024:.0f} KiB"
        print(f"{path}: {size}, {video.num_frames} frames, {video.fps:.2f} fps")
    clips = [start + args.stride * np.arange(args.frames) for start in starts]
    print(f"{args.clips} clips of {args.frames} frames, stride {args.stride}, {args.rounds} rounds, one core")

    rounds = [stages(path, clips, args.size) for _ in range(args.rounds)]
    spent = {name: statistics.median(r[name] for r in rounds) for name in rounds[0]}
    print(f"\n{'stage':<18}{'ms/clip':>9}{'clips/s':>9}{'share':>8}")
    for name, seconds in [*spent.items(), ("all", sum(spent.values()))]:
        print(f"{name:<18}{1e3 * seconds:>9.2f}{1 / seconds:>9.0f}{seconds / sum(spent.values()):>8.1%}")

    found = readers()
    differs = {
        name: max(np.abs(read(path, i).astype(int) - [truth[j] for j in i]).mean() for i in clips[:8])
        for name, read in found.items()
    }
    rounds = []
    for _ in range(args.rounds):
        rounds.append({})
        for name, read in found.items():
            for indices in clips:
                with adding_to(rounds[-1], name):
                    read(path, indices)
    print(f"\n{'file to RGB clip':<18}{'ms/clip':>9}{'clips/s':>9}{'time/vidjax':>13}{'difference':>12}")
    for name in found:
        seconds = statistics.median(r[name] for r in rounds) / len(clips)
        ratio = statistics.median(r[name] / r["vidjax"] for r in rounds)
        print(f"{name:<18}{1e3 * seconds:>9.2f}{1 / seconds:>9.0f}{ratio:>13.2f}{differs[name]:>12.2f}")


if __name__ == "__main__":
    main()
