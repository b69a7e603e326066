"""Preprocessing and test views under which the published accuracy of pretrained weights was measured.

The modules with the conversion rules declare it by `declare`. `vidjax convert` writes it to the checkpoint,
so that evaluation and prediction use it. `python -m vidjax.convert.table` writes the table in
docs/preprocessing.md.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

import flax.linen as nn

from vidjax.registry import ModelSpec

SSV2_CLASSES = 174  # classes of Something-Something V2, whose clips span the whole video


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """Evaluation settings of pretrained weights; None stands for the value of the model's spec.

    Attributes:
      source: file, paper or page that documents the settings.
      unverified: description of undocumented settings; "" if there are none.
      frames: frames per clip.
      stride: distance between the frames of a clip, in frames at `target_fps`, or in frames of the video if
        that is None.
      linspace: whether the frames are spread evenly from the first to the last of frames x stride, at a
        distance of (frames * stride - 1) / (frames - 1) (PySlowFast, slowfast/datasets/decoder.py,
        temporal_sampling).
      sampling, starts, short: see `config.schema`.
      short_side, resize_to, resize: the test resize, see `config.schema`.
      size: size of a test crop, if it differs from training.
      clips, crops: test views.
      mean, std: per-channel statistics of RGB values in [0, 1].
      options: fields of the model.
      ssv2: fields that differ for Something-Something V2, that is, for weights with 174 classes.
    """

    source: str
    unverified: str = ""
    frames: int | None = None
    stride: float | None = None
    target_fps: float | None = None
    linspace: bool = False
    sampling: str = "window"
    starts: str = "ends"
    short: str = "loop"
    short_side: int | None = None
    resize_to: tuple[int, int] | None = None
    resize: str = "area"
    size: int | None = None
    clips: int | None = None
    crops: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    ssv2: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def of_classes(self, classes: int | None) -> "Preprocessing":
        """Returns the settings for weights with `classes` classes, see `ssv2`."""
        return dataclasses.replace(self, **self.ssv2, ssv2={}) if classes == SSV2_CLASSES else self

    def sections(self, s: ModelSpec, tiny: bool = False) -> dict[str, dict[str, Any]]:
        """Returns the sections `data`, `model` and `evals` of a config; the tiny preset scales the sizes."""
        shapes = (s.input_shape, s.tiny_input_shape)
        full, own = (x if isinstance(x, Mapping) else {s.streams[0]: x} for x in (shapes[0], shapes[tiny]))
        published, ours = (next(iter(x.values())) for x in (full, own))
        scaled = lambda n: n * ours[-2] // published[-2]  # noqa: E731
        chosen = None if tiny else self.frames
        frames = chosen or (ours[0] if len(ours) == 4 else 1)
        stride = float(s.stride if self.stride is None else self.stride)
        if self.linspace and frames > 1:
            stride = (frames * stride - 1) / (frames - 1)
        views = s.results[0].views.split("x") if s.results else ()
        clips, crops = map(int, views if len(views) == 2 else (1, 1))
        size = {"size": scaled(self.size)} if self.size else {}
        return {
            "data": {
                "frames": frames,
                "stride": stride,
                "target_fps": self.target_fps,
                "sampling": self.sampling,
                "starts": self.starts,
                "short": self.short,
                "size": ours[-2],
                "short_side": scaled(self.short_side or published[-2] * 8 // 7),  # 256 for 224, 128 for 112
                "resize_to": self.resize_to and tuple(map(scaled, self.resize_to)),
                "resize": self.resize,
                "crop": "center",
                "mean": self.mean,
                "std": self.std,
                "grey": ours[-1] == 1,
                "flow": {"frames": chosen or own["flow"][0]} if "flow" in own else {},
            },
            "model": {"name": s.name, "tiny": tiny, "options": dict(self.options)},
            "evals": {
                "val": {"type": "metrics", "clips": self.clips or clips, "crops": self.crops or crops} | size
            },
        }

    def differences(self, model: nn.Module, mean: Any, std: Any) -> tuple[str, ...]:
        """Returns a sentence for each setting of a model that differs from what the weights expect."""
        found = []
        for key, value in self.options.items():
            if (ours := getattr(model, key)) != value:
                found.append(
                    f"the weights were trained with {key}={value}, but the model has {key}={ours}: set "
                    f"model.options.{key}={value} to match them"
                )
        if self.mean is not None and (tuple(self.mean), tuple(self.std)) != (tuple(mean), tuple(std)):
            found.append(
                f"the weights were trained with mean {self.mean} and std {self.std}, not {mean} and {std}: "
                "set data.mean and data.std to match them"
            )
        return tuple(found)


DECLARED: dict[tuple[str, str], Preprocessing] = {}


def declare(origin: str, names: str | Iterable[str], **fields: Any) -> None:
    """Declares the `Preprocessing` of models of an origin. Raises ValueError if one is already declared."""
    for name in (names,) if isinstance(names, str) else tuple(names):
        if (origin, name) in DECLARED:
            raise ValueError(f"preprocessing declared twice: {name} of {origin}")
        DECLARED[origin, name] = Preprocessing(**fields)


def preprocessing(origin: str, name: str) -> Preprocessing | None:
    """Returns the preprocessing of an origin, of the first for "torchvision or timm"; None if undeclared."""
    return next((p for o in origin.split(" or ") if (p := DECLARED.get((o, name)))), None)


def of_spec(s: ModelSpec) -> Preprocessing:
    """Returns the preprocessing given by a model's spec, for weights of unknown origin."""
    return Preprocessing(source=f"arXiv:{s.arxiv}", target_fps=s.fps)
