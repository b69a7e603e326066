"""TSM: a 2D network whose residual blocks take some channels from neighboring frames.

Paper: Lin et al., "TSM: Temporal Shift Module for Efficient Video Understanding", ICCV 2019,
arXiv:1811.08383, sections 3 and 4, Tables 1 to 3. Input: video [B, T, H, W, C].
A TSN (tsn.py) in which the first 1/8 of the channels that enter a residual block come from the next frame and
the second 1/8 from the one before: without additional parameters or multiply-adds. In a trunk whose third
stage has 23 blocks or more every second block shifts, as in the authors' implementation but not stated in the
paper. In MobileNetV2 and EfficientNet-Lite the blocks that have a shortcut shift.
The online form shifts 1/8 from the past only, so that it can run frame by frame with `init_state` and `step`.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidjax.errors import UserError, unknown
from vidjax.layers.temporal_shift import temporal_shift
from vidjax.models.frame.frame_model import Output
from vidjax.models.frame.tsn import TSN
from vidjax.models.image import efficientnet_lite
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model, spec

State = dict[str, Any]
PLACES = ("residual", "in_place")


class TSM(TSN):
    """TSN with temporal shifts in the trunk's residual blocks.

    Attributes:
      n_div: 1 / n_div of the channels is shifted in each direction; 0 disables the shift.
      place: "residual" shifts what the residual branch of a block gets, "in_place" (Figure 3) what its
        shortcut gets as well.
      online: shift from the past only.
    """

    n_div: int = 8
    place: str = "residual"
    online: bool = False

    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K] and endpoints, see `TSN`."""
        return self.classify_clip(video, train, None)[0]

    def init_state(self, batch_size: int, frame_shape: tuple[int, int, int]) -> State:
        """The state before the first frame (H, W, C): zeros."""
        frame = jnp.zeros((batch_size, *frame_shape), self.dtype)
        run = lambda: self.init_with_output(jax.random.key(0), None, frame, method="step")  # noqa: E731
        ((_, state), _) = jax.eval_shape(run)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), state)

    def step(self, state: State, frame: jax.Array) -> tuple[Output, State]:
        """Processes the next frame [B, H, W, C], or chunk of frames [B, t, H, W, C]; online TSM only.

        Returns:
          (logits, endpoints), as of all frames so far in one clip (frame_logits are of those given now), and
          the state for the next step.
        """
        if not self.online:
            raise UserError("only the online form of TSM runs frame by frame: set online=True")
        if self.consensus != "average":
            raise UserError(f"frame by frame the consensus is the average, not {self.consensus}")
        return self.classify_clip(frame if frame.ndim == 5 else frame[:, None], False, state)

    @nn.compact
    def classify_clip(self, video: jax.Array, train: bool, state: State | None) -> tuple[Output, State]:
        """Returns logits and endpoints of the clip that `video` continues after `state`, and the next
        state."""
        if self.place not in PLACES:
            raise unknown("place of the shift", self.place, PLACES)
        b, t = video.shape[:2]
        stages = {**spec(self.trunk).preset, **self.trunk_options}.get("stage_sizes", (0,))
        every = 2 if max(stages) >= 23 else 1
        past, last = state["past"] if state else {}, {}

        def shift(name: str, x: jax.Array) -> tuple[jax.Array, jax.Array]:
            if int(name.rpartition("block")[2]) % every:
                return x, x
            clip = x.reshape(b, t, *x.shape[1:])
            if self.online and self.n_div:
                last[name] = clip[:, -1:, ..., : x.shape[-1] // self.n_div]
            y = temporal_shift(clip, self.n_div, causal=self.online, past=past.get(name)).reshape(x.shape)
            return (y if self.place == "in_place" else x), y

        features, endpoints = self.frame_features(video, train, before_block=shift)
        logits, endpoints = self.consent(features, endpoints, train)
        means, frames = dict(logits=logits, pre_logits=endpoints["pre_logits"]), jnp.float32(t)
        if state:
            frames += state["frames"]
            means = jax.tree.map(lambda old, new: old + (new - old) * (t / frames), state["means"], means)
        endpoints["pre_logits"] = means["pre_logits"]
        return (means["logits"], endpoints), dict(past=last, frames=frames, means=means)


_COMMON = dict(
    family="tsm",
    module=TSM,
    paper="TSM: Temporal Shift Module for Efficient Video Understanding",
    year=2019,
    arxiv="1811.08383",
    temporal="shifted channels in the residual blocks; average of per-frame class scores",
    order_aware=True,
)
_AUTHORS = dict(
    mean=IMAGENET_MEAN, std=IMAGENET_STD, weights="torchvision (trunk); tsm", licence="BSD-3-Clause; MIT"
)
_ZOO = "authors' model zoo"
# Backbone and frames; parameters, GMACs and results (dataset, top-1, views) as published.
PRESETS = {
    "tsm_resnet50_8f": dict(
        trunk="resnet50",
        frames=8,
        params=24_327_632,
        gmacs=32.70,
        results=(
            ("Kinetics-400", 74.1, "10x3"),
            ("Kinetics-400", 71.2, "1x1"),
            ("Something-Something v2", 61.2, "2x3"),
        ),
    ),
    "tsm_mobilenet_v2_8f": dict(
        trunk="mobilenet_v2", frames=8, params=None, gmacs=None, results=(("Kinetics-400", 69.5, "10x3"),)
    ),
    "tsm_resnet50_16f": dict(
        trunk="resnet50",
        frames=16,
        params=24_327_632,
        gmacs=65.40,
        results=(("Kinetics-400", 72.6, "1x1"), ("Something-Something v2", 63.1, "2x3")),
    ),
}

for _name, _preset in PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            preset=dict(trunk=_preset["trunk"]),
            # MobileNet's tiny preset is too narrow for an eighth.
            tiny=dict(trunk_options=dict(tiny=True), n_div=8 if _preset["trunk"] == "resnet50" else 2),
            input_shape=(_preset["frames"], 224, 224, 3),
            tiny_input_shape=(4, 32, 32, 3),
            stride=64 / _preset["frames"],
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=tuple(Result(d, top1, None, views, _ZOO) for d, top1, views in _preset["results"]),
            **_COMMON,
            **_AUTHORS,
        )
    )

register_model(
    ModelSpec(
        name="tsm_efficientnet_lite0_8f",
        preset=dict(trunk="efficientnet_lite0"),
        tiny=dict(trunk_options=dict(tiny=True), n_div=2),
        input_shape=(8, 224, 224, 3),
        tiny_input_shape=(4, 32, 32, 3),
        stride=8,
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
        **_COMMON,
    )
)
