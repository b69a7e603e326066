"""Synthetic videos of twelve motion classes that cannot be told apart from single frames.

The state of a clip is a point on a five-dimensional torus, u = (x, y, angle, hue, scale) in [0, 1)^5. Its
initial value is drawn uniformly for every class; the class sets its velocity:

    u(t) = u(0) + t * velocity   (mod 1)

A translation preserves the uniform distribution on a torus, so at every t the state, and therefore any single
frame, has the same distribution for all classes. Videos are all-intra H.264 at a fixed quantizer: a decoded
frame depends only on its own rendered frame, so compression does not leak motion into it.
A single-frame classifier is at chance (1/12) by construction; higher accuracy requires temporal information.

The videos are generated once and stored as H.264 MP4 bytes in array_record files by tensorflow-datasets,
without TensorFlow.
"""

import dataclasses
import io
import os
from pathlib import Path
from typing import ClassVar

import av
import cv2
import numpy as np
import tensorflow_datasets as tfds

from vidjax.data import generated
from vidjax.data.datasets import Source, fingerprint
from vidjax.data.record import Record
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown

# Turns of the torus per frame. The three translation speeds differ by a factor of at least 2.4, so the
# "speed" classes remain distinct from the "move" classes in every direction. Each hue lasts 4 frames.
SLOW, MEDIUM, FAST = 1 / 96, 1 / 40, 1 / 16
SPIN, HUE, SCALE = 1 / 32, 1 / 12, 1 / 16

# Velocity (x, y, angle, hue, scale) of each class; a scalar is a speed in a random direction of the plane.
# y increases downwards, and the angle increases clockwise.
CLASSES: dict[str, tuple[float, ...] | float] = {
    "move_left": (-MEDIUM, 0, 0, 0, 0),
    "move_right": (MEDIUM, 0, 0, 0, 0),
    "move_up": (0, -MEDIUM, 0, 0, 0),
    "move_down": (0, MEDIUM, 0, 0, 0),
    "spin_clockwise": (0, 0, SPIN, 0, 0),
    "spin_counterclockwise": (0, 0, -SPIN, 0, 0),
    "colours_forward": (0, 0, 0, HUE, 0),
    "colours_backward": (0, 0, 0, -HUE, 0),
    "speed_slow": SLOW,
    "speed_fast": FAST,
    "grow_then_snap": (0, 0, 0, 0, SCALE),
    "shrink_then_snap": (0, 0, 0, 0, -SCALE),
}
COLOURS = np.array([(235, 45, 40), (40, 200, 60), (60, 90, 250)], np.uint16)
RADIUS = (
    0.20,
    0.42,
)  # fractions of the frame's side; below 1/2, so that a shape does not overlap itself at the edges
# Asymmetric outlines, so that every angle looks different: F, L, flag, arrow with one barb.
SHAPES = tuple(
    np.array(outline.split(), float).reshape(-1, 2)
    for outline in (
        "-.6 -.9 .7 -.9 .7 -.5 -.1 -.5 -.1 -.15 .45 -.15 .45 .2 -.1 .2 -.1 .9 -.6 .9",
        "-.6 -.9 -.1 -.9 -.1 .4 .8 .4 .8 .85 -.6 .85",
        "-.5 -.9 .9 -.4 -.15 .1 -.15 .95 -.5 .95",
        "0 -.95 .75 -.1 .25 -.1 .25 .9 -.25 .9 -.25 -.5",
    )
)
SPLITS = ("train", "val", "test")

MOST = 10_000_000  # clips per split


def states(label: int, start: np.ndarray, rng: np.random.Generator, frames: int) -> np.ndarray:
    """Returns the states (x, y, angle, hue, scale) of a clip's frames.

    Args:
      label: class index.
      start: state of the first frame, [5].
      rng: draws the direction of the classes that have only a speed.
      frames: number of frames.

    Returns:
      float64 [frames, 5], in turns.
    """
    velocity = tuple(CLASSES.values())[label]
    if isinstance(velocity, float):
        theta = rng.uniform(0, 2 * np.pi)
        velocity = (velocity * np.cos(theta), velocity * np.sin(theta), 0, 0, 0)
    return (start + np.arange(frames)[:, None] * velocity) % 1.0


def render(label: int, rng: np.random.Generator, size: int, frames: int) -> np.ndarray:
    """Renders one clip of a class, uint8 [frames, size, size, 3]."""
    # Draw everything static first, so that it cannot depend on the class.
    background, sprite, start = _background(rng, size), _sprite(rng, size), rng.random(5)
    x, y, angle, hue, scale = states(label, start, rng, frames).T

    # Map each pixel's offset from the shape's center, the short way around the torus, to sprite coordinates.
    pixel = np.arange(size) + 0.5
    dx, dy = ((pixel - size * c[:, None] + size / 2) % size - size / 2 for c in (x, y))
    radius = size * (RADIUS[0] + (RADIUS[1] - RADIUS[0]) * scale)[:, None]
    cos, sin = (f(2 * np.pi * angle)[:, None] * size / (2 * radius) for f in (np.cos, np.sin))
    center = size / 2 - 0.5
    map_x = ((cos * dx)[:, None, :] + (sin * dy)[:, :, None] + center).astype(np.float32)
    map_y = ((-sin * dx)[:, None, :] + (cos * dy)[:, :, None] + center).astype(np.float32)
    stack = (frames * size, size)
    drawn = cv2.remap(sprite, map_x.reshape(stack), map_y.reshape(stack), cv2.INTER_LINEAR)
    drawn = drawn.reshape(frames, size, size, 2).astype(np.uint16)

    color = COLOURS[(3 * hue).astype(int)][:, None, None, :]
    opacity, paint = drawn[..., :1], drawn[..., 1:]
    return ((background * (255 - opacity) + color * paint + 127) // 255).astype(np.uint8)


def _background(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns smooth, nearly gray noise at two scales, uint16 [size, size, 3]."""
    coarse, fine = (
        cv2.resize(rng.random((n, n, 3)).astype(np.float32), (size, size), interpolation=cv2.INTER_CUBIC)
        for n in (5, 16)
    )
    mix = 0.6 * coarse + 0.4 * fine
    gray = mix.mean(axis=-1, keepdims=True)
    return np.clip(60 + 110 * (gray + 0.35 * (mix - gray)), 0, 255).astype(np.uint16)


def _sprite(rng: np.random.Generator, size: int) -> np.ndarray:
    """Returns a randomly mirrored, striped shape, uint8 [size, size, 2].

    The two channels are the opacity, and the opacity times the brightness.
    """
    outline = SHAPES[rng.integers(len(SHAPES))] * (rng.choice((-1, 1)), 1)
    fine = 4 * size  # supersampled, then averaged, for smooth edges
    opacity = np.zeros((fine, fine), np.uint8)
    cv2.fillPoly(opacity, [np.round((outline * 0.95 + 1) / 2 * fine).astype(np.int32)], 255)
    opacity = cv2.resize(opacity, (size, size), interpolation=cv2.INTER_AREA)
    theta, phase, waves = rng.uniform((0, 0, 1.5), (2 * np.pi, 2 * np.pi, 3))
    row, column = np.mgrid[:size, :size] / size
    along = np.cos(theta) * column + np.sin(theta) * row
    brightness = 0.8 + 0.2 * np.sin(2 * np.pi * waves * along + phase)
    return np.stack([opacity, opacity * brightness], axis=-1).astype(np.uint8)


def encode(video: np.ndarray, fps: int) -> bytes:
    """Encodes a video, uint8 [T, H, W, 3], as an MP4 of intra-coded H.264 frames at a fixed quantizer."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.thread_count = 1
        stream.options = {"preset": "ultrafast", "qp": "22", "g": "1"}
        for frame in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return file.getvalue()


def make_clip(label: int, split: str, i: int, size: int, frames: int, seed: int = 0) -> np.ndarray:
    """Renders clip `i` of a split, uint8 [frames, size, size, 3], deterministically from the arguments."""
    return render(label, np.random.default_rng([seed, SPLITS.index(split), i]), size, frames)


@dataclasses.dataclass(kw_only=True)
class MotionConfig(tfds.core.BuilderConfig):
    """Everything that the data depends on; `name` is the name of the folder."""

    size: int
    frames: int
    fps: int
    seed: int
    counts: dict[str, int]


class SyntheticMotion(tfds.core.GeneratorBasedBuilder):
    """Generates and writes the clips; see the module docstring."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict(
            {
                "video": tfds.features.Text(),  # encoded bytes; tfds.features.Video requires TensorFlow
                "label": tfds.features.ClassLabel(names=list(CLASSES)),
                "id": tfds.features.Text(),
            }
        )
        # Kept in generation order, so that labels and ids are known without reading the files.
        return generated.Info(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        c = self.builder_config

        def make(i):
            clip = make_clip(i % len(CLASSES), split, i, c.size, c.frames, c.seed)
            return i, {"video": encode(clip, c.fps), "label": i % len(CLASSES), "id": _id(split, i)}

        yield from generated.in_parallel(make, c.counts[split])


def _id(split: str, i: int) -> str:
    return f"{split}-{i:06d}"


@dataclasses.dataclass(frozen=True)
class MotionSource:
    """One split of the written dataset, whose labels are known without reading it."""

    split: str
    count: int
    folder: str  # holds the array_record files
    target: ClassVar[type] = ClassTarget
    class_names: tuple[str, ...] = tuple(CLASSES)
    directional: bool = True
    mirror: ClassVar[None] = None

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < self.count:
            raise IndexError(i)
        video = generated.StoredVideo(self.folder, self.split, i)
        return Record(video, ClassTarget(i % len(CLASSES)), _id(self.split, i))

    @property
    def fingerprint(self) -> str:
        folder = Path(self.folder)  # <configuration>/<version>
        labels = ((_id(self.split, i), ClassTarget(i % len(CLASSES))) for i in range(self.count))
        return fingerprint([(f"{folder.parent.name}/{folder.name}", -1), *labels])


def load(
    split: str,
    path: str | os.PathLike | None = None,
    size: int = 64,
    frames: int = 32,
    fps: int = 25,
    train: int = 1200,
    val: int = 240,
    test: int = 240,
    seed: int = 0,
) -> Source:
    """Opens a split; the first call writes all three, which takes a few seconds per thousand small clips.

    Args:
      split: "train", "val" or "test", drawn from disjoint random streams.
      path: folder of the generated data; defaults to $VIDJAX_CACHE, or ~/.cache/vidjax.
      size, frames, fps: height and width in pixels, frames per clip, frames per second.
      train, val, test: number of clips in each split; class counts differ by at most one.
      seed: seed of the generated data.

    Raises:
      UserError: the split is unknown, a size is out of range, or the folder cannot be written.
    """
    counts = {"train": train, "val": val, "test": test}
    if split not in counts:
        raise unknown("split of synthetic_motion", split, counts)
    if not 32 <= size <= 1024 or size % 2:
        raise UserError(f"synthetic_motion: size must be even and from 32 to 1024, got {size}")
    if frames < 2 or fps < 1 or seed < 0 or not 1 <= min(counts.values()) <= max(counts.values()) <= MOST:
        raise UserError(
            f"synthetic_motion: needs frames >= 2, fps >= 1, seed >= 0 and 1 to {MOST:,} clips in each split"
        )
    name = f"{size}px_{frames}f_{fps}fps_{train}-{val}-{test}_seed{seed}"
    config = MotionConfig(name=name, size=size, frames=frames, fps=fps, seed=seed, counts=counts)
    return MotionSource(split, counts[split], generated.generate(SyntheticMotion, config, path))
