"""I3D: Inception-v1 inflated in time.

Paper: Carreira & Zisserman, "Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset", CVPR 2017,
arXiv:1705.07750, Figure 3. Input: 64 frames at 25 fps, 224x224, RGB [B, T, H, W, 3] or optical
flow [B, T, H, W, 2]; whole videos in evaluation (section 3).

It is `inception_v1_same` with windows as long as they are wide; time is halved by the stem and by the pooling
before the last two stages, and the first two poolings are spatial. BatchNorm has no scale, as in the
authors' release. The network is convolutional to the end: the maps are averaged over windows of 2x7x7, each
is classified, and the logits are averaged. The classifier is linear, so here it follows the average.
"""

import dataclasses
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidjax.layers.pool import avg_pool
from vidjax.models.image.inception import TINY, Inception
from vidjax.registry import FLOW_MEAN, FLOW_STD, ModelSpec, Result, register_model

Output = tuple[jax.Array, dict[str, jax.Array]]
STREAMS = ("rgb", "flow")


class I3D(Inception):
    """Inception-v1 of clips. The attributes are those of `Inception`."""

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps [B, T, H, W, C] to logits float32 [B, K] and endpoints (stem, stage1-4; pre_logits [B, D])."""
        x, endpoints = self.trunk_features(video, train)
        # A map smaller than the window, from a clip or crop smaller than the paper's, is averaged completely.
        window = [min(k, n) for k, n in zip((2, 7, 7), x.shape[1:-1])]
        x = avg_pool(x.astype(jnp.float32), window, 1)
        endpoints["pre_logits"] = x.mean((1, 2, 3))
        if not self.num_classes:
            return endpoints["pre_logits"], endpoints
        x = nn.Dropout(self.dropout, deterministic=not train)(x).mean((1, 2, 3))
        return nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x), endpoints


class TwoStreamI3D(Inception):
    """Adds the logits of an RGB I3D and a flow I3D, which share all attributes."""

    @nn.compact
    def __call__(self, video: dict[str, jax.Array], train: bool = False) -> Output:
        """{"rgb": [B, T, H, W, 3], "flow": [B, T', H, W, 2]} -> logits float32 [B, K] and the endpoints of
        I3D per stream ("rgb/stage1"), and the concatenated pre_logits [B, 2 D]."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(Inception)} | {"parent": self}
        logits, endpoints = 0.0, {}
        for stream in STREAMS:
            out, ends = I3D(**own | {"name": stream})(video[stream], train)
            logits += out
            endpoints |= {f"{stream}/{name}": x for name, x in ends.items()}
        x = endpoints["pre_logits"] = jnp.concatenate([endpoints[f"{s}/pre_logits"] for s in STREAMS], -1)
        return (logits if self.num_classes else x), endpoints


_SOURCE = "the authors' repository, Kinetics-400 test set, from ImageNet weights"
_CHANNELS = {"rgb": 3, "flow": 2}
_MEAN = {"rgb": (0.5,) * 3, "flow": FLOW_MEAN}
_STD = {"rgb": (0.5,) * 3, "flow": FLOW_STD}


def _register(
    name: str, module: type[nn.Module], of: Callable, temporal: str, top1: float, top5: float, **more
):
    """Registers a model; `of` selects its stream, or both, from a dict of streams."""
    register_model(
        ModelSpec(
            name=name,
            family="i3d",
            module=module,
            preset=dict(norm_scale=False, momentum=0.999, dropout=0.5),
            tiny=TINY,
            input_shape=of({k: (64, 224, 224, c) for k, c in _CHANNELS.items()}),
            tiny_input_shape=of({k: (8, 32, 32, c) for k, c in _CHANNELS.items()}),
            mean=of(_MEAN),
            std=of(_STD),
            paper="Quo Vadis, Action Recognition? A New Model and the Kinetics Dataset",
            year=2017,
            arxiv="1705.07750",
            temporal=temporal,
            order_aware=True,
            fps=25,
            results=(Result("Kinetics-400", top1, top5, "whole video", _SOURCE),),
            weights="github.com/google-deepmind/kinetics-i3d, data/checkpoints",
            licence="Apache-2.0",
            **more,
        )
    )


_register(
    "i3d_inception_rgb",
    module=I3D,
    of=lambda streams: streams["rgb"],
    temporal="3D convolutions, inflated",
    top1=71.1,
    top5=89.3,
    params=12_689_984,
    gmacs=111.15,
    inflates="inception_v1_same",
)
_register(
    "i3d_inception_flow",
    module=I3D,
    of=lambda streams: streams["flow"],
    temporal="3D convolutions, inflated, on optical flow",
    top1=63.4,
    top5=84.9,
    params=12_668_032,
    gmacs=102.34,
    inflates="inception_v1_same",
)
_register(
    "i3d_inception_two_stream",
    module=TwoStreamI3D,
    of=lambda streams: streams,
    temporal="3D convolutions, inflated, on RGB frames and optical flow",
    top1=74.2,
    top5=91.3,
)
