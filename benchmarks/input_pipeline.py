"""Compares the loading of clips with other readers, on one core.

    python benchmarks/input_pipeline.py [--videos FILE ...] [--clips 12] [--rounds 5] [--gop 8]

A clip is loaded as for training: frames are decoded to RGB, cropped at random and resized to 224x224, and
half of the clips are flipped. Two kinds of clips are loaded: `window` is 16 frames at stride 4 from a random
start, and `segments` is one random frame from each of 16 equal parts of a video (TSN). Both are loaded from
the files as they are (`raw`) and from copies as `vidjax data prepare` writes them (`prepared`).

Without --videos, three videos are generated in the format in which Kinetics is usually stored: 340x256,
H.264, 10 s at 30 fps. All readers load the same clips, with the same transforms, on one core and with one
thread. They reopen the file for each clip, as in training. vidjax has indexed the files before, as from the
second epoch on; the time of indexing is printed. Where a library can be used in two ways, both are measured.

Readers alternate within a round, and the median over rounds of the processor time per clip is printed. The
last column is the maximum over clips of the mean absolute difference (0-255) to decoding the whole file,
which reveals wrong frames; the benchmark fails if vidjax has any. Libraries that cannot be imported are
reported and skipped.
"""

import argparse
import importlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np

from vidjax.data import transforms
from vidjax.data.decode import Video
from vidjax.data.prepare.encode import Settings, encode
from vidjax.data.record import Record

Reader = Callable[[str, np.ndarray], np.ndarray]
Clip = tuple[int, np.ndarray]  # number of the video, indices of the frames

FRAMES, STRIDE, SIZE = 16, 4, 224
NOISE = 5  # standard deviation of the noise in generated videos


def write_video(path: str, seed: int, seconds: int = 10, fps: int = 30) -> None:
    """Writes a video like those of Kinetics, at about 700 kbit/s.

    A hand-held camera moves over a textured background, before which objects move. A scene lasts 100 to 300
    frames.
    """
    rng, (height, width), left = np.random.default_rng(seed), (256, 340), 0
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for _ in range(seconds * fps):
            if not left:
                left = int(rng.integers(100, 300))
                wall, *things = (_texture(rng, 512), *(_texture(rng, 96) for _ in range(3)))
                camera, speed = np.zeros(4), np.zeros(4)  # x, y, rotation, zoom
                place, drift = rng.uniform(0, 160, (3, 2)), rng.normal(0, 1.5, (3, 2))
            left -= 1
            speed = 0.7 * speed + rng.normal(0, (1.2, 1.2, 0.004, 0.004))
            camera = 0.99 * camera + speed
            view = cv2.getRotationMatrix2D((256, 256), np.degrees(camera[2]), 1.2 * np.exp(camera[3]))
            view[:, 2] += camera[:2] - (256 - width / 2, 256 - height / 2)
            frame = cv2.warpAffine(wall, view, (width, height), borderMode=cv2.BORDER_REFLECT)
            place += drift + rng.normal(0, 2, place.shape)
            drift[(place < 0) | (place > 160)] *= -1
            for thing, (x, y) in zip(things, place.clip(0, 160).astype(int)):
                frame[y : y + 96, x : x + 96] = thing
            frame = np.clip(frame + rng.normal(0, NOISE, frame.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, "rgb24")))
        container.mux(stream.encode())


def _texture(rng: np.random.Generator, side: int) -> np.ndarray:
    """Returns an image uint8 [side, side, 3] with edges and with details of all sizes."""
    layers = [cv2.resize(rng.normal(0, n**0.5, (side // n, side // n)), (side, side)) for n in (2, 8, 32)]
    gray = cv2.normalize(sum(layers), None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)
    return rng.integers(0, 256, (8, 3), np.uint8)[gray // 32]


def prepare(path: str, to: str, settings: Settings) -> None:
    """Encodes a video as `vidjax data prepare` does."""
    Path(to).write_bytes(encode([Record(path, None, path)], settings).video)


def read_vidjax(path: str, indices: np.ndarray) -> np.ndarray:
    with Video(path) as video:
        return video.frames(indices)


def read_pyav(path: str, indices: np.ndarray, seek_each: bool = False) -> np.ndarray:
    """Seeks to the first frame by its time, or to each, and decodes up to the last."""
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        ticks = 1 / (stream.average_rate * stream.time_base)
        start, clip = stream.start_time or 0, []
        for group in [[i] for i in indices.tolist()] if seek_each else [indices.tolist()]:
            container.seek(start + int(group[0] * ticks), stream=stream)
            requested = set(group)
            for frame in container.decode(stream):
                index = round((frame.pts - start) / ticks)
                if index in requested:
                    clip.append(frame.to_ndarray(format="rgb24"))
                if index >= group[-1]:
                    break
        return np.stack(clip)


def read_pyav_seeking(path: str, indices: np.ndarray) -> np.ndarray:
    return read_pyav(path, indices, seek_each=True)


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


def read_opencv_seeking(path: str, indices: np.ndarray) -> np.ndarray:
    capture = cv2.VideoCapture(path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    clip = []
    for index in indices.tolist():
        capture.set(cv2.CAP_PROP_POS_FRAMES, index)
        clip.append(cv2.cvtColor(capture.read()[1], cv2.COLOR_BGR2RGB))
    capture.release()
    return np.stack(clip)


def read_decord(path: str, indices: np.ndarray) -> np.ndarray:
    import decord

    return decord.VideoReader(path, num_threads=1).get_batch(indices.tolist()).asnumpy()


def read_torchcodec(path: str, indices: np.ndarray, seek_mode: str = "exact") -> np.ndarray:
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, num_ffmpeg_threads=1, dimension_order="NHWC", seek_mode=seek_mode)
    return decoder.get_frames_at(indices.tolist()).data.numpy()


def read_torchcodec_approximate(path: str, indices: np.ndarray) -> np.ndarray:
    return read_torchcodec(path, indices, "approximate")


def read_pytorchvideo(path: str, indices: np.ndarray) -> np.ndarray:
    """Decodes every frame between the first and the last, since a clip is given by its start and end."""
    from pytorchvideo.data.encoded_video import EncodedVideo

    video = EncodedVideo.from_path(path, decode_audio=False)
    tick = 1 / float(video._container.streams.video[0].average_rate)
    clip = video.get_clip((indices[0] - 0.5) * tick, (indices[-1] + 0.5) * tick)["video"]
    video.close()
    return clip[:, indices - indices[0]].permute(1, 2, 3, 0).byte().numpy()


READERS = {  # name: the module that is required, reader
    "vidjax": ("vidjax", read_vidjax),
    "PyAV loop": ("av", read_pyav),
    "PyAV loop, seeking": ("av", read_pyav_seeking),
    "OpenCV loop": ("cv2", read_opencv),
    "OpenCV loop, seeking": ("cv2", read_opencv_seeking),
    "decord": ("decord", read_decord),
    "torchcodec": ("torchcodec.decoders", read_torchcodec),
    "torchcodec, approximate": ("torchcodec.decoders", read_torchcodec_approximate),
    "pytorchvideo": ("pytorchvideo.data.encoded_video", read_pytorchvideo),
}


def readers() -> dict[str, Reader]:
    found = {}
    for name, (module, reader) in READERS.items():
        try:
            importlib.import_module(module)
            found[name] = reader
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name}: skipped, {module} cannot be imported ({type(error).__name__})")
    return found


def load(read: Reader, path: str, indices: np.ndarray) -> np.ndarray:
    """Loads a training clip, uint8 [T, 224, 224, 3]."""
    rng = np.random.default_rng(int(indices.sum()))
    clip, _ = transforms.random_resized_crop(read(path, indices), SIZE, rng)
    return transforms.flip(clip) if rng.random() < 0.5 else clip


def sample(kind: str, counts: list[int], clips: int) -> list[Clip]:
    """Draws `clips` clips from each video, given the numbers of frames."""
    rng, drawn = np.random.default_rng(0), []
    for n, count in enumerate(counts):
        for _ in range(clips):
            if kind == "window":
                start = rng.integers(count - (FRAMES - 1) * STRIDE)
                drawn.append((n, start + STRIDE * np.arange(FRAMES)))
            else:
                ends = np.linspace(0, count, FRAMES + 1).astype(int)
                drawn.append((n, rng.integers(ends[:-1], ends[1:])))
    return drawn


def decode_all(path: str) -> np.ndarray:
    """Decodes all frames in order, without `Video`: uint8 [N, H, W, 3]."""
    with av.open(path) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def difference(read: Reader, paths: list[str], truth: list[np.ndarray], clips: list[Clip]) -> float:
    """Returns the maximum over clips of the mean absolute difference to decoding the whole file."""
    worst = 0.0
    for n, indices in clips:
        expected, frames = truth[n][indices].astype(int), read(paths[n], indices)
        worst = max(worst, np.abs(frames - expected).mean() if frames.shape == expected.shape else np.inf)
    return worst


def measure(found: dict[str, Reader], paths: list[str], clips: list[Clip], rounds: int) -> dict[str, float]:
    """Returns the milliseconds of processor time per clip of each reader."""
    spent = {name: [] for name in found}
    for _ in range(rounds):
        for name, read in found.items():
            start = time.process_time()
            for n, indices in clips:
                load(read, paths[n], indices)
            spent[name].append(1e3 * (time.process_time() - start) / len(clips))
    return {name: statistics.median(times) for name, times in spent.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--videos", nargs="+")
    parser.add_argument("--clips", type=int, default=12, help="clips per video")
    parser.add_argument("--rounds", type=int, default=5)
    text = "of the prepared copies, as in `vidjax data prepare`"
    for name, default in (("--gop", 8), ("--crf", 23), ("--short-side", 256)):
        parser.add_argument(name, type=int, default=default, help=text)
    args = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)

    with tempfile.TemporaryDirectory() as folder:
        os.environ["VIDJAX_CACHE"] = str(Path(folder, "cache"))
        raw = args.videos or [str(Path(folder, f"kinetics_like_{n}.mp4")) for n in range(3)]
        for seed, path in enumerate([] if args.videos else raw):
            write_video(path, seed)
        prepared = [str(Path(folder, f"prepared_{n}.mp4")) for n in range(len(raw))]
        for path, to in zip(raw, prepared):
            prepare(path, to, Settings("video", args.short_side, args.gop, args.crf))
        report({"raw": raw, "prepared": prepared}, args)


def report(files: dict[str, list[str]], args: argparse.Namespace) -> None:
    sizes = {name: sum(map(os.path.getsize, paths)) for name, paths in files.items()}
    truth = {name: [decode_all(path) for path in paths] for name, paths in files.items()}
    error = np.mean([(np.square(a[::9] - b[::9].astype(float))).mean() for a, b in zip(*truth.values())])
    print(f"{len(files['raw'])} videos, {args.clips} clips of each, {args.rounds} rounds, one core")
    print(
        f"prepared: {sizes['prepared'] / sizes['raw']:.2f} times the size,"
        f" PSNR {10 * np.log10(255**2 / error):.1f} dB, --gop {args.gop} --crf {args.crf}"
    )
    start = time.process_time()
    for path in files["raw"]:
        Video(path).close()
    print(f"indexing a file: {1e3 * (time.process_time() - start) / len(files['raw']):.1f} ms, once")

    found, best = readers(), {}
    for kind in ("window", "segments"):
        clips = sample(kind, [len(frames) for frames in truth["raw"]], args.clips)
        used = {name: read for name, read in found.items() if kind == "window" or name != "pytorchvideo"}
        for name, paths in files.items():
            wrong = {
                reader: difference(read, paths, truth[name], clips[:: args.clips // 4 or 1])
                for reader, read in used.items()
            }
            wrong["vidjax"] = difference(read_vidjax, paths, truth[name], clips)
            if wrong["vidjax"]:
                raise SystemExit(f"vidjax returned wrong frames of {name} files: {wrong['vidjax']}")
            times = measure(used, paths, clips, args.rounds)
            peers = {reader: t for reader, t in times.items() if reader != "vidjax"}
            best[kind, name] = times["vidjax"], min(peers.values()), min(peers, key=peers.get)
            print(f"\n{kind}, {name}")
            print(f"{'reader':<26}{'ms/clip':>9}{'clips/s':>9}{'time/vidjax':>13}{'difference':>12}")
            for reader, t in times.items():
                print(
                    f"{reader:<26}{t:>9.2f}{1e3 / t:>9.0f}{t / times['vidjax']:>13.2f}{wrong[reader]:>12.2f}"
                )

    print(f"\n{'clips':<12}{'vidjax reads':<14}{'fastest peer':<40}{'speedup':>8}")
    for kind in ("window", "segments"):
        for ours, theirs in (("raw", "raw"), ("prepared", "raw"), ("prepared", "prepared")):
            (mine, *_), (_, t, peer) = best[kind, ours], best[kind, theirs]
            print(f"{kind:<12}{ours:<14}{f'{peer} on {theirs}':<40}{t / mine:>8.2f}")


if __name__ == "__main__":
    main()
