"""SlowFast: one pathway sees few frames in many channels, the other many frames in few.

"SlowFast Networks for Video Recognition", Feichtenhofer et al., ICCV 2019, arXiv:1812.03982, table 1 and
sections 3.1 to 3.3. Input: one clip at the fast rate, 32x224x224 for TxS = 4x16 and 8x8 and 64x224x224 for
16x8; the slow pathway takes every alpha-th frame of it. PySlowFast and pytorchvideo, whose published weights
fit, spread the slow frames evenly from the first to the last instead: `slow_frames="linspace"`, which their
weights set when they are loaded or converted.
Lateral connections lead from fast to slow after the stem and the first three stages; what they bring is put
beside the slow channels. The R101 of 16 frames has kernels in time in the first six blocks of stage 3 only,
the published R101 of 8 frames in all of them. `slow_r50_8x8` is the slow pathway alone (section 4.1).
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
from vidjax.models.resnet3d import GREY, R50, TINY, ZOO, Bottleneck, ResNet3D, classify, run_stage, run_stem
from vidjax.registry import ModelSpec, Result, register_model

LATERAL = ("conv", "sample", "channels", "sum", "none")
SLOW_FRAMES = ("stride", "linspace")
Kernels = tuple[int | tuple[int, ...], ...]


def slow_indices(frames: int, alpha: int, rule: str) -> slice | np.ndarray:
    """Returns the frames of a clip that the slow pathway takes, a slice or int64, ascending.

    "stride": every alpha-th from the first (Feichtenhofer et al., arXiv:1812.03982, table 1). "linspace": T /
    alpha of them evenly from the first to the last, truncated (PySlowFast, slowfast/datasets/utils.py,
    pack_pathway_output; pytorchvideo, transforms/functional.py, uniform_temporal_subsample_repeated).

    Raises:
      UserError: unknown rule, or fewer frames than `alpha`.
    """
    if rule not in SLOW_FRAMES:
        raise unknown("slow_frames of SlowFast", rule, SLOW_FRAMES)
    if frames < alpha:
        raise UserError(
            f"a clip of {frames} frames is too short for SlowFast of alpha={alpha}: give it {alpha}"
        )
    if rule == "stride":
        return slice(None, None, alpha)
    return np.linspace(0, frames - 1, frames // alpha).astype(np.int64)


class Lateral(nn.Module):
    """What the fast pathway tells the slow one (section 3.2, "lateral connections").

    Attributes:
      form: "conv" (the paper's "time-strided convolution"): a convolution over `kernel` frames at stride
        `alpha` to `ratio` times the channels, a norm and a ReLU; "sample" ("time-strided sampling"): every
        alpha-th frame; "channels" ("time-to-channel"): alpha frames side by side in the channels; "sum": the
        same, added to the slow channels, of which there must be as many; "none": nothing.
      alpha: fast frames to a slow one.
    """

    form: str
    alpha: int
    kernel: int
    ratio: int
    conv: Callable[..., nn.Module]
    norm: Callable[..., nn.Module]

    @nn.compact
    def __call__(self, slow: jax.Array, fast: jax.Array, train: bool) -> jax.Array:
        """`slow` [B, T, H, W, C] with what it is told by `fast` [B, alpha T, H, W, beta C].

        Raises `UserError` for a form that is none, or frames or channels that do not fit it.
        """
        if self.form not in LATERAL:
            raise unknown("lateral connection", self.form, LATERAL)
        if self.form == "none":
            return slow
        if self.form == "conv":
            k, a = self.kernel, self.alpha
            told = self.conv(self.ratio * fast.shape[-1], (k, 1, 1), (a, 1, 1), (k // 2, 0, 0), name="conv")(
                fast
            )
            told = nn.relu(self.norm(name="bn")(told, train))
        elif self.form == "sample":
            told = fast[:, :: self.alpha]
        else:
            b, t, h, w, c = fast.shape
            if t % self.alpha:
                raise UserError(f"{t} frames cannot go to the channels by {self.alpha}")
            told = fast.reshape(b, -1, self.alpha, h, w, c).transpose(0, 1, 3, 4, 2, 5)
            told = told.reshape(*told.shape[:4], -1)
        if self.form == "sum":
            if told.shape != slow.shape:
                raise UserError(
                    f"a lateral sum needs alpha * beta = 1: {told.shape[-1]} and {slow.shape[-1]} channels"
                )
            return slow + told
        return jnp.concatenate([slow, told], axis=-1)


class SlowFast(nn.Module):
    """Two bottleneck ResNets with lateral connections, global averages of both and one linear layer.

    Attributes:
      num_classes: size of the last layer; 0 leaves it out and returns the pooled features of both pathways.
      stage_sizes: blocks per stage, of both.
      width: channels inside the slow first stage's blocks.
      alpha: fast frames to a slow one.
      slow_frames: which frames are slow ones, "stride" or "linspace", see `slow_indices`.
      beta: fast channels to a slow one.
      lateral: form of the lateral connections, see `Lateral`.
      lateral_kernel, lateral_ratio: frames of a lateral convolution, and its channels by those of the fast
        pathway.
      slow_kernels, fast_kernels: frames that the blocks of each stage see, as in `ResNet3D`.
      spatial_strides, dilations: of the 3x3 convolutions at the start of each stage and in all of it; with
        (1, 2, 2, 1) and (1, 1, 1, 2) the last stage keeps its size, for detection (section 5).
      non_local: for each stage, the slow blocks after which there is a non-local block.
      non_local_form: see `NonLocal`.
      zero_init: start every residual branch at zero.
      dropout: rate before the last layer.
      bn_groups: see `BatchNorm`.
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
          Logits [B, K], and the endpoints stem, stage1.. of the slow pathway [B, T / alpha, H, W, C], before
          the lateral connection; fast_stem, fast_stage1.. of the fast one [B, T, H, W, beta C]; pre_logits.
        """
        types = dict(dtype=self.dtype, param_dtype=self.param_dtype)
        conv = partial(Conv, **types)
        norm = partial(BatchNorm, groups=self.bn_groups, **types)
        parts = dict(conv=conv, norm=norm)
        lateral = partial(Lateral, self.lateral, self.alpha, self.lateral_kernel, self.lateral_ratio, **parts)
        attend = partial(NonLocal, self.non_local_form, zero_init=self.zero_init, **parts)
        thin = lambda channels: max(1, round(self.beta * channels))  # noqa: E731

        slow = video[:, slow_indices(video.shape[1], self.alpha, self.slow_frames)]
        slow = run_stem(slow, train, self.width, 1, True, **parts, to="slow_")
        fast = run_stem(video, train, thin(self.width), 5, True, **parts, to="fast_")
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
                block=partial(block, thin(width)),
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
_SIX = (3,) * 6 + (1,) * 17
_R101_16 = _R101 | dict(slow_kernels=(1, 1, _SIX, 3), fast_kernels=(3, 3, _SIX, 3))
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
# name: (fields, frames, parameters, GMACs at 224, top-1, top-5, pytorchvideo's checkpoint)
_PRESETS = {
    "slowfast_r50_4x16": ({}, 32, 34_480_216, 27.64, 75.6, 92.1, "4x16_R50"),
    "slowfast_r50_8x8": (dict(alpha=4, lateral_kernel=7), 32, 34_566_488, 50.31, 77.0, 92.6, "8x8_R50"),
    "slowfast_r101_8x8": (_R101, 32, 62_826_968, 96.4, 77.9, 93.2, "8x8_R101"),
    "slowfast_r101_16x8": (_R101_16, 64, 53_774_808, 163.1, 78.9, 93.5, "16x8_R101_50_50"),
    "slowfast_r101_16x8_nl": (_R101_16 | _NL, 64, 60_080_088, None, 79.8, 93.9, ""),
}

for _name, (_fields, _frames, _params, _gmacs, _top1, _top5, _weights) in _PRESETS.items():
    register_model(
        ModelSpec(
            name=_name,
            family="slowfast",
            module=SlowFast,
            preset=_fields,
            tiny=_TINY | (dict(non_local=((), (), (0,), ())) if "non_local" in _fields else {}),
            input_shape=(_frames, 224, 224, 3),
            tiny_input_shape=(8, 32, 32, 3),
            stride=2,
            fps=30,
            temporal="two frame rates, 3D kernels, lateral connections",
            order_aware=True,
            params=_params,
            gmacs=_gmacs,
            results=(Result("Kinetics-400", _top1, _top5, "10x3", f"{_PAPER}, 256x256"),),
            weights=f"pytorchvideo model zoo, SLOWFAST_{_weights}" if _weights else "",
            licence="Apache-2.0" if _weights else "",
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
