"""SlowFast: a slow pathway with few frames and many channels, a fast one with many frames and few channels.

Feichtenhofer et al., "SlowFast Networks for Video Recognition", ICCV 2019, arXiv:1812.03982, Table 1 and
Sections 3.1 to 3.3. The input is one clip at the frame rate of the fast pathway: 32x224x224 for TxS = 4x16
and 8x8, 64x224x224 for 16x8. The slow pathway takes every alpha-th frame. PySlowFast and pytorchvideo spread
the slow frames evenly from the first to the last instead; loading or converting their weights sets
`slow_frames="linspace"`.

Lateral connections after the stem and the first three stages concatenate features of the fast pathway to the
slow channels. The 16-frame R101 has temporal kernels in the first six blocks of stage 3 only, the published
8-frame R101 in all of them. `slow_r50_8x8` is the slow pathway alone (Section 4.1).
"""

from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from vidjax.errors import UserError, unknown
from vidjax.layers.conv import Conv
from vidjax.layers.non_local import NonLocal
from vidjax.layers.norm import BatchNorm
from vidjax.models.conv3d.resnet3d import (
    GREY,
    R50,
    TINY,
    ZOO,
    Bottleneck,
    ResNet3D,
    classify,
    run_stage,
    run_stem,
)
from vidjax.registry import ModelSpec, Result, register_model

LATERAL = ("conv", "sample", "channels", "sum", "none")
SLOW_FRAMES = ("stride", "linspace")
Kernels = tuple[int | tuple[int, ...], ...]


def slow_indices(frames: int, alpha: int, rule: str) -> slice | np.ndarray:
    """Returns the indices of the slow pathway's frames.

    Args:
      frames: T, frames in the clip.
      alpha: ratio of the frame rates of the fast and the slow pathway.
      rule: "stride" takes every alpha-th frame from the first (Feichtenhofer et al., arXiv:1812.03982,
        Table 1). "linspace" takes T // alpha frames at even distances from the first to the last, with
        truncated indices (PySlowFast, slowfast/datasets/utils.py, pack_pathway_output; pytorchvideo,
        transforms/functional.py, uniform_temporal_subsample_repeated).

    Returns:
      A slice, or ascending int64 indices.

    Raises:
      UserError: `rule` is unknown, or there are fewer frames than `alpha`.
    """
    if rule not in SLOW_FRAMES:
        raise unknown("slow_frames of SlowFast", rule, SLOW_FRAMES)
    if frames < alpha:
        raise UserError(
            f"a clip of {frames} frames is too short for SlowFast with alpha={alpha}; use at least {alpha}"
        )
    if rule == "stride":
        return slice(None, None, alpha)
    return np.linspace(0, frames - 1, frames // alpha).astype(np.int64)


class Lateral(nn.Module):
    """Lateral connection from the fast to the slow pathway (Section 3.2).

    Attributes:
      form: "conv" ("time-strided convolution" in the paper): a convolution over `kernel` frames with stride
        `alpha` to `ratio` times the channels, batch normalization and ReLU. "sample" ("time-strided
        sampling"): every alpha-th frame. "channels" ("time-to-channel"): alpha frames concatenated along the
        channels. "sum": as "channels", but added to the slow pathway, which must have as many channels.
        "none": no connection.
      alpha: ratio of the frame rates of the fast and the slow pathway.
      kernel: temporal kernel size of the convolution.
      ratio: output channels of the convolution, as a multiple of its input channels.
      conv, norm: constructors of the convolution and of the normalization.
    """

    form: str
    alpha: int
    kernel: int
    ratio: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, slow: jax.Array, fast: jax.Array, train: bool) -> jax.Array:
        """Fuses the fast pathway into the slow one.

        Args:
          slow: [B, T, H, W, C].
          fast: [B, alpha T, H, W, beta C].
          train: whether the normalization uses batch statistics.

        Returns:
          [B, T, H, W, C + lateral channels]; [B, T, H, W, C] for "sum" and "none".

        Raises:
          UserError: `form` is unknown, or does not fit the number of frames or channels.
        """
        if self.form not in LATERAL:
            raise unknown("lateral connection", self.form, LATERAL)
        if self.form == "none":
            return slow
        if self.form == "conv":
            channels, k = self.ratio * fast.shape[-1], self.kernel
            conv = self.conv(channels, (k, 1, 1), (self.alpha, 1, 1), (k // 2, 0, 0), name="conv")
            lateral = nn.relu(self.norm(name="bn")(conv(fast), train))
        elif self.form == "sample":
            lateral = fast[:, :: self.alpha]
        else:
            b, t, h, w, c = fast.shape
            if t % self.alpha:
                raise UserError(
                    f"lateral {self.form!r}: {t} fast frames are not divisible by alpha={self.alpha}"
                )
            lateral = fast.reshape(b, -1, self.alpha, h, w, c).transpose(0, 1, 3, 4, 2, 5)
            lateral = lateral.reshape(*lateral.shape[:4], -1)
        if self.form == "sum":
            if lateral.shape != slow.shape:
                raise UserError(
                    f"lateral 'sum' requires alpha * beta = 1, got {lateral.shape[-1]} lateral and "
                    f"{slow.shape[-1]} slow channels"
                )
            return slow + lateral
        return jnp.concatenate([slow, lateral], axis=-1)


class SlowFast(nn.Module):
    """Two bottleneck ResNets with lateral connections, global average pooling and one linear layer.

    Attributes:
      num_classes: K; 0 omits the classifier and returns the pooled features of both pathways.
      stage_sizes: blocks per stage, in both pathways.
      width: bottleneck channels of the slow pathway's first stage.
      alpha: ratio of the frame rates of the fast and the slow pathway.
      slow_frames: which frames the slow pathway takes, "stride" or "linspace", see `slow_indices`.
      beta: ratio of the channels of the fast and the slow pathway.
      lateral: form of the lateral connections, see `Lateral`.
      lateral_kernel, lateral_ratio: `kernel` and `ratio` of `Lateral`.
      slow_kernels, fast_kernels: temporal kernel sizes per stage, as in `ResNet3D`.
      spatial_strides: stride of each stage's first 3x3 convolution.
      dilations: spatial dilation of each stage's 3x3 convolutions. With strides (1, 2, 2, 1) and dilations
        (1, 1, 1, 2) the last stage keeps its resolution, for detection (Section 5).
      non_local: per stage, the blocks of the slow pathway that a non-local block follows.
      non_local_form: see `NonLocal`.
      zero_init: initialize the last scale of every residual branch to zero.
      dropout: dropout rate before the classifier.
      bn_groups: see `BatchNorm`.
      dtype, param_dtype: dtypes of the computation and of the parameters.
    """

    num_classes: int
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    width: int = 64
    alpha: int = 8
    slow_frames: str = "stride"
    beta: float = 1 / 8
    lateral: str = "conv"
    lateral_kernel: int = 5
    lateral_ratio: int = 2
    slow_kernels: Kernels = (1, 1, 3, 3)
    fast_kernels: Kernels = (3, 3, 3, 3)
    spatial_strides: tuple[int, ...] = (1, 2, 2, 2)
    dilations: tuple[int, ...] = (1, 1, 1, 1)
    non_local: tuple[tuple[int, ...], ...] = ((), (), (), ())
    non_local_form: str = "dot_product"
    zero_init: bool = True
    dropout: float = 0.0
    bn_groups: int = 1
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Classifies `video` [B, T, H, W, C].

        Returns:
          Logits float32 [B, K], and endpoints: stem, stage1, ... of the slow pathway before the lateral
          connection [B, T / alpha, H, W, C]; fast_stem, fast_stage1, ... of the fast pathway
          [B, T, H, W, beta C]; pre_logits [B, D].
        """
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, **types)
        norm = partial(BatchNorm, groups=self.bn_groups, **types)
        parts = dict(conv=conv, norm=norm)
        lateral = partial(Lateral, self.lateral, self.alpha, self.lateral_kernel, self.lateral_ratio, **parts)
        attend = partial(NonLocal, self.non_local_form, zero_init=self.zero_init, **parts)
        fast_width = lambda channels: max(1, round(self.beta * channels))  # noqa: E731

        slow = video[:, slow_indices(video.shape[1], self.alpha, self.slow_frames)]
        slow = run_stem(slow, train, self.width, 1, True, **parts, to="slow_")
        fast = run_stem(video, train, fast_width(self.width), 5, True, **parts, to="fast_")
        endpoints = {"stem": slow, "fast_stem": fast}
        slow = lateral(name="lateral_stem")(slow, fast, train)
        for i, blocks in enumerate(self.stage_sizes):
            stage, width, space = f"stage{i + 1}", self.width * 2**i, self.spatial_strides[i]
            block = partial(Bottleneck, dilation=self.dilations[i], zero_init=self.zero_init, **parts)
            run = partial(run_stage, train=train, blocks=blocks, strides=(1, space, space))
            slow = run(
                slow,
                name=f"slow_{stage}",
                block=partial(block, width),
                temporal_kernels=self.slow_kernels[i],
                non_local=self.non_local[i],
                attend=attend,
            )
            fast = run(
                fast,
                name=f"fast_{stage}",
                block=partial(block, fast_width(width)),
                temporal_kernels=self.fast_kernels[i],
            )
            endpoints |= {stage: slow, f"fast_{stage}": fast}
            if i + 1 < len(self.stage_sizes):
                slow = lateral(name=f"lateral_{stage}")(slow, fast, train)

        pooled = [x.astype(jnp.float32).mean((1, 2, 3)) for x in (slow, fast)]
        x = endpoints["pre_logits"] = jnp.concatenate(pooled, axis=-1)
        return classify(x, self.num_classes, self.dropout, train, self.param_dtype), endpoints


_FEICHTENHOFER = dict(paper="SlowFast Networks for Video Recognition", year=2019, arxiv="1812.03982")
_R101 = dict(stage_sizes=(3, 4, 23, 3), alpha=4)
_FIRST_SIX = (3,) * 6 + (1,) * 17
_R101_16 = _R101 | dict(slow_kernels=(1, 1, _FIRST_SIX, 3), fast_kernels=(3, 3, _FIRST_SIX, 3))
_TINY = dict(
    stage_sizes=(1, 1, 1, 1),
    width=16,
    alpha=4,
    lateral_kernel=5,
    slow_kernels=(1, 1, 3, 3),
    fast_kernels=(3, 3, 3, 3),
    zero_init=False,
)
_PAPER = "arXiv:1812.03982, table 2"

_NL = dict(non_local=((), (), (6, 13, 20), ()))
# gmacs are for 224x224; checkpoint is the name in pytorchvideo's model zoo.
_PRESETS = {
    "slowfast_r50_4x16": dict(
        fields={}, frames=32, params=34_480_216, gmacs=27.64, top1=75.6, top5=92.1, checkpoint="4x16_R50"
    ),
    "slowfast_r50_8x8": dict(
        fields=dict(alpha=4, lateral_kernel=7),
        frames=32,
        params=34_566_488,
        gmacs=50.31,
        top1=77.0,
        top5=92.6,
        checkpoint="8x8_R50",
    ),
    "slowfast_r101_8x8": dict(
        fields=_R101, frames=32, params=62_826_968, gmacs=96.4, top1=77.9, top5=93.2, checkpoint="8x8_R101"
    ),
    "slowfast_r101_16x8": dict(
        fields=_R101_16,
        frames=64,
        params=53_774_808,
        gmacs=163.1,
        top1=78.9,
        top5=93.5,
        checkpoint="16x8_R101_50_50",
    ),
    "slowfast_r101_16x8_nl": dict(
        fields=_R101_16 | _NL, frames=64, params=60_080_088, gmacs=None, top1=79.8, top5=93.9, checkpoint=""
    ),
}

for _name, _preset in _PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="slowfast",
            module=SlowFast,
            preset=_preset["fields"],
            tiny=_TINY | (dict(non_local=((), (), (0,), ())) if "non_local" in _preset["fields"] else {}),
            input_shape=(_preset["frames"], 224, 224, 3),
            tiny_input_shape=(8, 32, 32, 3),
            stride=2,
            fps=30,
            temporal="two frame rates, 3D kernels, lateral connections",
            order_aware=True,
            params=_preset["params"],
            gmacs=_preset["gmacs"],
            results=(Result("Kinetics-400", _preset["top1"], _preset["top5"], "10x3", f"{_PAPER}, 256x256"),),
            weights=_preset["checkpoint"] and f"pytorchvideo model zoo, SLOWFAST_{_preset['checkpoint']}",
            licence="Apache-2.0" if _preset["checkpoint"] else "",
            **_FEICHTENHOFER,
            **GREY,
        )
    )

register_model(
    ModelSpec(
        name="slow_r50_8x8",
        family="slowfast",
        module=ResNet3D,
        preset=dict(**R50, temporal_kernels=(1, 1, 3, 3)),
        tiny=TINY,
        input_shape=(8, 224, 224, 3),
        tiny_input_shape=(4, 32, 32, 3),
        stride=8,
        fps=30,
        inflates="resnet50",
        temporal="3D kernels in the last two stages",
        order_aware=True,
        params=32_454_096,
        gmacs=41.74,
        results=(Result("Kinetics-400", 74.58, 91.63, "10x3", ZOO.format(8, 8)),),
        weights="pytorchvideo model zoo, SLOW_8x8_R50",
        licence="Apache-2.0",
        **_FEICHTENHOFER,
        **GREY,
    )
)
