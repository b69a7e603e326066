"""Modalities of a clip: which frames each is made from, its shape and its dtype.

A model or task names the streams that it takes; S is `data.size`:
  rgb       uint8 [T, S, S, C], T = `data.frames`, C = 3, or 1 if `data.grey`.
  flow      uint8 [T, S, S, 2]: optical flow between T + 1 sampled frames, encoded by `vidjax.flow.quantise`.
            T is `data.frames`, or `data.flow.frames` beside rgb.
  audio     float32 [N], the waveform at `data.audio.rate` Hz, `data.audio.seconds` long and centered on the
            frames of the clip, mono. `data.audio.stream` is the track: its number among the audio tracks, or
            its language; None is ffmpeg's best. A video without the track counts as corrupt if
            `data.audio.absent` is "error"; if it is "mask", its waveform is zeros.
  audio_mask  bool [], whether the video has the track. With `data.audio.absent="mask"`, it is in the inputs
            of every batch beside audio; a model receives it if it takes a stream of this name.
  text      int32 [`data.text.length`], the tokens of `vidjax.text.byte_tokens` of the record's query or
            question.
  features  float32 [N, D], D = `data.feature_width`: T rows of the dataset "features", each of
            `data.feature_tokens` tokens, concatenated. Rows are sampled like frames and not augmented.
A new modality is an entry of `STREAMS`.

Flow is computed last, from the cropped, resized and flipped frames, so that all streams share one
augmentation, flipping negates the x component without special handling, and the cost is that of the crop, not
of the whole frame. Displacements and their bound are therefore in pixels of the crop, and motion from outside
the crop is not visible. (Simonyan & Zisserman, arXiv:1406.2199, section 5, precomputed the flow of whole
frames.)
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from vidjax.data import sampling
from vidjax.data.audio import NoTrack, has_audio, read_audio
from vidjax.data.decode import DecodeError
from vidjax.data.record import Record
from vidjax.data.stages import stage
from vidjax.data.targets import MomentsTarget, QuestionTarget
from vidjax.errors import UserError, unknown
from vidjax.flow import estimator, flow, quantise
from vidjax.text import byte_tokens

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Stream:
    """How a modality is made from a video. `cfg` is the config's data section.

    Attributes:
      shape: (cfg, alone) -> shape of a clip; `alone` is whether no other stream is made from frames.
      dtype: of a clip.
      moments: (cfg, alone) -> times of the frames it is made from, in source frames at the target frame rate;
        None if it is not made from frames.
      convert: (frames at `moments`, cfg) -> the clip.
      check: raises `UserError` if the modality cannot be made with a config.
      require: raises `UserError` if a library that it is made with is missing.
      read: (record, times of the clip's frames in seconds, cfg) -> the clip, for a modality that is not made
        from frames. Raises `DecodeError` if the record does not have it.
    """

    shape: Callable[[Any, bool], Shape]
    dtype: type[np.generic]
    moments: Callable[[Any, bool], np.ndarray] | None = None
    convert: Callable[[np.ndarray, Any], np.ndarray] = lambda frames, cfg: frames
    check: Callable[[Any], Any] = lambda cfg: None
    require: Callable[[Any], Any] = lambda cfg: None
    read: Callable[[Record, np.ndarray, Any], np.ndarray] | None = None


def _flow_shape(cfg: Any, alone: bool) -> Shape:
    return cfg.frames if alone else cfg.flow.frames, cfg.size, cfg.size, 2


def _flow_moments(cfg: Any, alone: bool) -> np.ndarray:
    return sampling.steps(_flow_shape(cfg, alone)[0] + 1, cfg.stride if alone else cfg.flow.stride)


def _flow_check(cfg: Any) -> None:
    if cfg.sampling != "window":
        raise UserError("optical flow requires adjacent frames: set data.sampling=window")


def _frame_moments(cfg: Any, alone: bool) -> np.ndarray:
    return sampling.steps(cfg.frames, cfg.stride)


def _features_check(cfg: Any) -> None:
    if not cfg.feature_width:
        raise UserError("the model takes cached features: set data.name=features and data.feature_width")


def _audio_shape(cfg: Any, alone: bool) -> Shape:
    return (round(cfg.audio.seconds * cfg.audio.rate),)


def _read_sound(record: Record, times: np.ndarray, cfg: Any) -> np.ndarray:
    rate, (length,) = cfg.audio.rate, _audio_shape(cfg, False)
    start = (times.min() + times.max() - length / rate) / 2
    try:
        return read_audio(record.encoded(), start, start + length / rate, rate, cfg.audio.stream)
    except NoTrack:
        if cfg.audio.absent == "error":
            raise
        return np.zeros(length, np.float32)


def _read_text(record: Record, times: np.ndarray, cfg: Any) -> np.ndarray:
    match record.target:
        case MomentsTarget(query=text):
            pass
        case QuestionTarget(question=question, options=options):
            text = "\n".join((question, *options))
        case _:
            raise DecodeError(f"{record.id} has neither a query nor a question")
    return byte_tokens.encode(text, cfg.text.length)


STREAMS = {
    "rgb": Stream(
        lambda cfg, alone: (cfg.frames, cfg.size, cfg.size, 1 if cfg.grey else 3), np.uint8, _frame_moments
    ),
    "flow": Stream(
        _flow_shape,
        np.uint8,
        _flow_moments,
        lambda frames, cfg: quantise(flow(frames, cfg.flow.method), cfg.flow.bound),
        _flow_check,
        lambda cfg: estimator(cfg.flow.method),
    ),
    "audio": Stream(_audio_shape, np.float32, read=_read_sound),
    "audio_mask": Stream(
        lambda cfg, alone: (),
        np.bool_,
        read=lambda record, times, cfg: np.array(has_audio(record.encoded(), cfg.audio.stream)),
    ),
    "text": Stream(lambda cfg, alone: (cfg.text.length,), np.int32, read=_read_text),
    "features": Stream(
        lambda cfg, alone: (cfg.frames * cfg.feature_tokens, cfg.feature_width),
        np.float32,
        _frame_moments,
        lambda rows, cfg: rows.reshape(-1, rows.shape[-1]),
        _features_check,
    ),
}


def stream(name: str) -> Stream:
    """Returns a stream by name. Raises `UserError` if it is unknown."""
    if name not in STREAMS:
        raise unknown("stream", name, STREAMS)
    return STREAMS[name]


def carried(cfg: Any, streams: Sequence[str]) -> tuple[str, ...]:
    """Returns the streams of a clip, with the mask of audio that may be absent."""
    masks = ("audio_mask",) if "audio" in streams and cfg.audio.absent == "mask" else ()
    return tuple(dict.fromkeys((*streams, *masks)))


def check(cfg: Any, streams: Sequence[str]) -> None:
    """Raises `UserError` if streams cannot be made with a config, or not together."""
    for name in streams:
        stream(name).check(cfg)
    if "features" in streams and len(streams) > 1:
        raise UserError(f"cached features cannot be combined with other streams: {', '.join(streams)}")
    if not any(stream(name).moments for name in streams):
        raise UserError(f"a clip needs a stream that is made from frames, not only {', '.join(streams)}")


def require(cfg: Any, streams: Sequence[str]) -> None:
    """Raises `UserError` if a library that a stream is made with is missing."""
    for name in streams:
        stream(name).require(cfg)


def clip_shapes(cfg: Any, streams: Sequence[str]) -> dict[str, Shape]:
    """Returns the shape of each stream of a clip."""
    alone = _alone(streams)
    return {name: stream(name).shape(cfg, alone) for name in streams}


def zeros(cfg: Any, streams: Sequence[str]) -> dict[str, np.ndarray]:
    """Returns a clip of zeros."""
    return {k: np.zeros(s, stream(k).dtype) for k, s in clip_shapes(cfg, streams).items()}


def clip_moments(cfg: Any, streams: Sequence[str]) -> np.ndarray:
    """Returns the times of a clip's frames relative to its first frame, stream after stream.

    The unit is seconds if `cfg.target_fps` is set, else frames of the video. All streams are centered on the
    same time.
    """
    unit = 1 / cfg.target_fps if cfg.target_fps else 1
    parts = _moments(cfg, streams).values()
    longest = max(part[-1] for part in parts)
    return unit * np.concatenate([part + (longest - part[-1]) / 2 for part in parts])


def split(frames: np.ndarray, cfg: Any, streams: Sequence[str]) -> dict[str, np.ndarray]:
    """Converts the frames at `clip_moments` to the streams that are made from frames."""
    parts, start = {}, 0
    for name, moments in _moments(cfg, streams).items():
        with stage(name):
            parts[name] = stream(name).convert(frames[start : start + len(moments)], cfg)
        start += len(moments)
    return parts


def read(record: Record, times: np.ndarray, cfg: Any, streams: Sequence[str]) -> dict[str, np.ndarray]:
    """Reads the streams that are not made from frames.

    Args:
      record: the video.
      times: times of the clip's frames in seconds.
      cfg: the config's data section.
      streams: the modalities of a clip.

    Raises:
      DecodeError: the record lacks one of them, or it cannot be decoded.
    """
    clip = {}
    for name in streams:
        if read := stream(name).read:
            with stage(name):
                clip[name] = read(record, times, cfg)
    return clip


def grey(cfg: Any, streams: Sequence[str]) -> bool:
    """Returns whether the frames are decoded to luma."""
    return cfg.grey or not {"rgb", "features"} & {*streams}


def _moments(cfg: Any, streams: Sequence[str]) -> dict[str, np.ndarray]:
    alone = _alone(streams)
    made = {name: stream(name).moments for name in streams}
    return {name: moments(cfg, alone) for name, moments in made.items() if moments}


def _alone(streams: Sequence[str]) -> bool:
    return sum(stream(name).moments is not None for name in streams) == 1
