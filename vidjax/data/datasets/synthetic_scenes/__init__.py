"""Rendered scenes with sound and exact ground truth for every task.

A few striped objects rest before a slowly moving background and leave their places for short events, such as
spinning or colliding, each with a sound. The scenes are written once as MP4 files (H.264 and AAC). Ground
truth is derived from the seed of a scene: classes, segments, tracks, optical flow, captions, questions,
queries, and the sound of each object.

The appearance at rest, and the length and size of a file, are independent of what happens: classes are drawn
independently of appearance and duration, every frame is intra-coded at a fixed quantizer, so that a decoded
frame depends only on its own rendered frame, and files are padded to a length that only their duration
determines. Two limits: a frame in the middle of an event can show that an object is, say, half transparent,
but not whether it is appearing or disappearing. And inside the padding, the bytes of the sound depend on how
much of it there is, so those of colliding objects, of which both sound, are more.

  ClassTarget        class of the longest event
  MultiLabelTarget   classes of all events
  SegmentsTarget     all events
  TracksTarget       box, visibility and actions of every object at every frame; `Track.label` is its kind
  FlowTarget         optical flow and occlusion
  AudioTarget        the sound of each object, labeled with its kind
  TextTarget         captions that tell the three longest events in order
  DenseTextTarget    captions of each event
  QuestionTarget     a record for each question
  MomentsTarget      a record for each query
"""

import dataclasses
import functools
import io
import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import tensorflow_datasets as tfds

from vidjax.data import generated, targets
from vidjax.data.datasets import Source, fingerprint
from vidjax.data.datasets.synthetic_scenes import language, render, sound
from vidjax.data.datasets.synthetic_scenes.script import CLASSES, KINDS, SPLITS, Scene, make_scene
from vidjax.data.record import Record
from vidjax.errors import UserError, unknown

RATE = 16000  # Hz, of the sound
_FRAME = 1024  # samples of an AAC frame
# Bytes of a file; all scenes of 32 to 256 pixels measured are shorter.
_BASE, _PER_ROW, _PER_SECOND = 8192, 26, 7000
MOST = 10_000_000  # scenes per split


def encode(scene: Scene, size: int, fps: int) -> bytes:
    """Renders a scene to an MP4 file of intra-coded H.264 frames and AAC, padded to a fixed length."""
    file = io.BytesIO()
    wave = sound.stems(scene, RATE).sum(0)
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("libx264", rate=fps)
        video.width = video.height = size
        video.pix_fmt = "yuv420p"
        video.thread_count = 1
        video.options = {"preset": "ultrafast", "qp": "22", "g": "1"}
        audio = container.add_stream("aac", rate=RATE, layout="mono")
        audio.bit_rate = 48000
        sent = 0
        for t, image in enumerate(render.frames(scene, frame_times(scene, fps), size)):
            container.mux(video.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
            while sent < len(wave) and sent / RATE <= (t + 1) / fps:  # interleaved
                part = av.AudioFrame.from_ndarray(wave[None, sent : sent + _FRAME], "fltp", "mono")
                part.sample_rate, part.pts, part.time_base = RATE, sent, Fraction(1, RATE)
                container.mux(audio.encode(part))
                sent += _FRAME
        container.mux(video.encode(None))
        container.mux(audio.encode(None))
    return _padded(file.getvalue(), t + 1, size, scene.seconds)


def frame_times(scene: Scene, fps: int) -> np.ndarray:
    """Returns the times of the frames in seconds."""
    return np.arange(round(scene.seconds * fps)) / fps


def _padded(data: bytes, frames: int, size: int, seconds: float) -> bytes:
    """Appends free space (ISO/IEC 14496-12, section 8.1.2), so that only the duration sets the length.

    The length is a bound on that of a scene's file; it doubles if a file should ever be longer.
    """
    length = _BASE + frames * size * _PER_ROW + round(seconds * _PER_SECOND)
    while length < len(data) + 8:
        length *= 2
    return data + (length - len(data)).to_bytes(4, "big") + b"free" + bytes(length - len(data) - 8)


@dataclasses.dataclass(kw_only=True)
class ScenesConfig(tfds.core.BuilderConfig):
    """Everything that the data depends on; `name` is the name of the folder."""

    size: int
    seconds: float
    longest: float | None
    fps: int
    seed: int
    counts: dict[str, int]


class SyntheticScenes(tfds.core.GeneratorBasedBuilder):
    """Renders and writes the scenes; see the module docstring."""

    VERSION = tfds.core.Version("1.0.0")
    url_infos = None  # nothing is downloaded

    def _info(self) -> tfds.core.DatasetInfo:
        features = tfds.features.FeaturesDict({"video": tfds.features.Text(), "id": tfds.features.Text()})
        # Kept in generation order, so that ground truth is known without reading the files.
        return generated.Info(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split):
        c = self.builder_config

        def make(i):
            scene = make_scene(c.seed, split, i, c.fps, c.seconds, c.longest)
            return i, {"video": encode(scene, c.size, c.fps), "id": _id(split, i)}

        yield from generated.in_parallel(make, c.counts[split])


def _id(split: str, i: int) -> str:
    return f"{split}-{i:06d}"


@dataclasses.dataclass(frozen=True)
class SceneData:
    """A reference to the ground truth of a scene that is as large as the video."""

    scene: Scene
    size: int
    fps: int


class SceneTracks(SceneData):
    def read(self) -> tuple[targets.Track, ...]:
        times = frame_times(self.scene, self.fps)
        boxes = render.boxes(self.scene, times, self.size)
        visible = render.visibility(self.scene, times, self.size)
        actions = np.zeros((len(boxes), len(times), len(CLASSES)), bool)
        for event in self.scene.events:
            actions[list(event.actors), :, event.label] |= (event.start <= times) & (times < event.end)
        rows = zip(self.scene.objects, boxes, actions, visible, strict=True)
        return tuple(targets.Track(o.kind, times, b, a, v) for o, b, a, v in rows)


class SceneFlow(SceneData):
    def read(self, times: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return render.flow(self.scene, times, self.size)


class SceneSources(SceneData):
    def read(self, rate: int) -> np.ndarray:
        return sound.stems(self.scene, rate)


def _segments(scene: Scene) -> targets.SegmentsTarget:
    rows = tuple(targets.Segment(e.start, e.end, e.label) for e in scene.events)
    return targets.SegmentsTarget(rows, scene.seconds)


def _dense(scene: Scene) -> targets.DenseTextTarget:
    rows = tuple((e.start, e.end, language.captions(scene, [e])) for e in scene.events)
    return targets.DenseTextTarget(rows, scene.seconds)


# The target of a scene by type; `size` and `fps` are those of the video.
_ONE: dict[type, Callable[[Scene, int, int], targets.Target]] = {
    targets.ClassTarget: lambda s, *_: targets.ClassTarget(s.main.label),
    targets.MultiLabelTarget: lambda s, *_: targets.MultiLabelTarget(
        tuple(sorted({e.label for e in s.events}))
    ),
    targets.SegmentsTarget: lambda s, *_: _segments(s),
    targets.TracksTarget: lambda *video: targets.TracksTarget(SceneTracks(*video)),
    targets.FlowTarget: lambda *video: targets.FlowTarget(SceneFlow(*video)),
    targets.AudioTarget: lambda s, *video: targets.AudioTarget(
        SceneSources(s, *video), tuple(o.kind for o in s.objects)
    ),
    targets.TextTarget: lambda s, *_: targets.TextTarget(language.captions(s)),
    targets.DenseTextTarget: lambda s, *_: _dense(s),
}
# Those of which a scene has several, one for each record.
_SEVERAL: dict[type, Callable[[Scene], Sequence[targets.Target]]] = {
    targets.QuestionTarget: language.questions,
    targets.MomentsTarget: language.queries,
}


@dataclasses.dataclass(frozen=True)
class ScenesSource:
    """One split of the written scenes, with targets of one type."""

    split: str
    target: type
    folder: str  # holds the array_record files
    config: ScenesConfig
    directional: bool = True
    mirror: ClassVar[None] = None

    @property
    def class_names(self) -> tuple[str, ...]:
        if self.target in (targets.ClassTarget, targets.MultiLabelTarget, targets.SegmentsTarget):
            return CLASSES
        return KINDS if self.target in (targets.TracksTarget, targets.AudioTarget) else ()

    def scene(self, i: int) -> Scene:
        """Returns scene `i` of the split."""
        c = self.config
        return make_scene(c.seed, self.split, i, c.fps, c.seconds, c.longest)

    @functools.cached_property
    def _index(self) -> list[tuple[int, int]]:
        """The scene of each record, and the number of its target."""
        scenes = range(self.config.counts[self.split])
        if self.target in _ONE:
            return [(i, 0) for i in scenes]
        return [(i, k) for i in scenes for k in range(len(_SEVERAL[self.target](self.scene(i))))]

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, i: int) -> Record:
        if not 0 <= i < len(self):
            raise IndexError(i)
        number, k = self._index[i]
        scene, group = self.scene(number), _id(self.split, number)
        if self.target in _ONE:
            id, target = group, _ONE[self.target](scene, self.config.size, self.config.fps)
        else:
            id, target = f"{group}-{k}", _SEVERAL[self.target](scene)[k]
        return Record(generated.StoredVideo(self.folder, self.split, number), target, id, group=group)

    @property
    def fingerprint(self) -> str:
        folder = Path(self.folder)  # <configuration>/<version>
        name = f"{folder.parent.name}/{folder.name}/{self.split}/{self.target.__name__}"
        return fingerprint([(name, len(self))])


def load(
    split: str,
    target: type = targets.ClassTarget,
    path: str | os.PathLike | None = None,
    size: int = 64,
    seconds: float = 10.0,
    longest: float | None = None,
    fps: int = 12,
    train: int = 800,
    val: int = 100,
    test: int = 100,
    seed: int = 0,
) -> Source:
    """Opens a split; the first call writes all three, which takes a few minutes per thousand scenes.

    Args:
      split: "train", "val" or "test", drawn from disjoint random streams.
      target: type of the targets, see the module docstring.
      path: folder of the generated data; defaults to $VIDJAX_CACHE, or ~/.cache/vidjax.
      size: height and width in pixels.
      seconds: duration, rounded to a whole number of frames.
      longest: if given, durations are uniform between `seconds` and `longest`. The number of events does not
        depend on the duration, only on `seconds`.
      fps: frames per second.
      train, val, test: number of scenes in each split.
      seed: seed of the generated data.

    Raises:
      UserError: the split or target is unknown, a size is out of range, or the folder cannot be written.
    """
    counts = {"train": train, "val": val, "test": test}
    if split not in counts:
        raise unknown("split of synthetic_scenes", split, counts)
    if target not in _ONE | _SEVERAL:
        names = [t.__name__ for t in _ONE | _SEVERAL]
        raise unknown("target of synthetic_scenes", target.__name__, names)
    if not 32 <= size <= 1024 or size % 2:
        raise UserError(f"synthetic_scenes: size must be even and from 32 to 1024, got {size}")
    if not 3 <= seconds <= (longest or seconds) <= 3600 or not 4 <= fps <= 120:
        raise UserError(
            "synthetic_scenes: needs 3 <= seconds <= longest <= 3600 and 4 to 120 fps, got "
            f"seconds={seconds}, longest={longest} and fps={fps}"
        )
    if seed < 0 or not 1 <= min(counts.values()) <= max(counts.values()) <= MOST:
        raise UserError(f"synthetic_scenes: needs seed >= 0 and 1 to {MOST:,} scenes in each split")
    duration = f"{seconds:g}s" if longest is None else f"{seconds:g}-{longest:g}s"
    name = f"{size}px_{duration}_{fps}fps_{train}-{val}-{test}_seed{seed}"
    config = ScenesConfig(
        name=name, size=size, seconds=seconds, longest=longest, fps=fps, seed=seed, counts=counts
    )
    return ScenesSource(split, target, generated.generate(SyntheticScenes, config, path), config)
