"""pytorchvideo's bottleneck ResNets, with heads that take clips of any size."""

from functools import partial

import torch
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models import hub
from pytorchvideo.models.slowfast import create_slowfast

from oracles import Case, channels_first

CLIPS = [(400, (1, 8, 64, 64, 3)), (11, (2, 5, 57, 49, 3)), (3, (1, 9, 33, 71, 3)), (101, (1, 2, 48, 64, 3))]
LONGER = [(400, (1, 32, 64, 64, 3)), (11, (2, 19, 57, 49, 3)), (3, (1, 9, 33, 71, 3))]


def _build(name, classes, **options):
    return getattr(hub, name)(model_num_class=classes, head_pool=torch.nn.AdaptiveAvgPool3d, **options).eval()


def _i3d_nln(classes):
    model = _build("i3d_r50", classes)
    for stage, blocks, width in ((3, (3, 1), 512), (4, (5, 3, 1), 1024)):
        layers = list(model.blocks[stage].res_blocks)
        for block in blocks:
            layers.insert(block + 1, create_nonlocal(dim_in=width, dim_inner=width // 2, pool_size=(1, 2, 2)))
        model.blocks[stage].res_blocks = torch.nn.ModuleList(layers)
    return model.eval()


def _stages(stem, *stages, head):
    names = {f"blocks.{b}": f"stage{i}" for i, b in enumerate(stages, 1)}
    return {f"blocks.{stem}": "stem", **names, f"blocks.{head}.pool": "pre_logits"}


PLAIN, POOLED = _stages(0, 1, 2, 3, 4, head=5), _stages(0, 1, 3, 4, 5, head=6)
BOTH = {
    f"blocks.{i}.multipathway_blocks.{p}": f"{to}{f'stage{i}' if i else 'stem'}"
    for i in range(5)
    for p, to in enumerate(("", "fast_"))
} | {"blocks.5": "pre_logits"}


def _strided(x, alpha):
    return [channels_first(x[:, ::alpha]), channels_first(x)]


def _packed(x, alpha):
    """As the published weights were trained and measured: transforms/functional.py's
    uniform_temporal_subsample, whose module does not import with this torchvision."""
    frames = channels_first(x)
    indices = torch.linspace(0, x.shape[1] - 1, x.shape[1] // alpha).long()
    return [torch.index_select(frames, 2, indices), frames]


def _slowfast(build, alpha, input_shape=(1, 16, 64, 64, 3), live=LONGER, rule="stride", model=""):
    to_input = partial({"stride": _strided, "linspace": _packed}[rule], alpha=alpha)
    call = lambda model, x: model(list(x))  # noqa: E731  the model overwrites its list
    return Case(
        build,
        input_shape,
        BOTH,
        live,
        options={"slow_frames": rule} if rule == "stride" else {},
        to_input=to_input,
        call=call,
        package="pytorchvideo",
        model=model,
    )


def _linspace(build, alpha, model):
    """The pathways as pytorchvideo packs them; the origin of the weights alone sets the rule."""
    return _slowfast(build, alpha, live=LONGER[:1], rule="linspace", model=model)


def _resnet(build, stages, input_shape=(1, 4, 64, 64, 3), **options):
    return Case(build, input_shape, stages, CLIPS, package="pytorchvideo", **options)


def _slowfast_4x16(classes):
    lateral = dict(slowfast_fusion_conv_kernel_size=(5, 1, 1), slowfast_fusion_conv_stride=(8, 1, 1))
    return create_slowfast(model_num_class=classes, head_pool=torch.nn.AdaptiveAvgPool3d, **lateral).eval()


CASES = {
    "c2d_r50_8x8": _resnet(partial(_build, "c2d_r50"), POOLED),
    "i3d_r50_8x8": _resnet(partial(_build, "i3d_r50"), POOLED),
    # The drawn weights put hundreds into the softmax, whose rounding the exponential enlarges: the reference
    # itself differs by 6e-5 between float32 and float64.
    "i3d_nln_r50_8x8": _resnet(_i3d_nln, POOLED, tolerance=1e-4),
    "slow_r50_8x8": _resnet(partial(_build, "slow_r50"), PLAIN),
    "r2plus1d_r50_16x4": _resnet(
        partial(_build, "r2plus1d_r50", head_activation=None), PLAIN, (1, 8, 64, 64, 3)
    ),
    "slowfast_r50_4x16": _slowfast(_slowfast_4x16, 8),
    "slowfast_r50_8x8": _slowfast(partial(_build, "slowfast_r50"), 4),
    "slowfast_r50_4x16_packed": _linspace(_slowfast_4x16, 8, "slowfast_r50_4x16"),
    "slowfast_r50_8x8_packed": _linspace(partial(_build, "slowfast_r50"), 4, "slowfast_r50_8x8"),
    "slowfast_r101_8x8": _slowfast(partial(_build, "slowfast_r101"), 4, live=LONGER[1:]),
    "slowfast_r101_16x8": _slowfast(partial(_build, "slowfast_16x8_r101_50_50"), 4, live=LONGER[1:]),
}
