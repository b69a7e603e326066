"""pytorchvideo's X3D and CSN, with heads that take clips of any size."""

from functools import partial

import torch
from pytorchvideo.models import hub
from pytorchvideo.models.csn import create_csn

from oracles import Case

CLIPS = [(400, (1, 8, 64, 64, 3)), (11, (2, 5, 57, 49, 3)), (3, (1, 9, 33, 71, 3)), (101, (1, 1, 96, 64, 3))]


def _x3d(name, classes):
    model = getattr(hub, name)(model_num_class=classes, head_activation=None)
    model.blocks[5].pool.pool = torch.nn.AdaptiveAvgPool3d(1)
    return model.eval()


def _csn(depth, classes):
    pools = dict(stem_pool=torch.nn.MaxPool3d, head_pool=torch.nn.AdaptiveAvgPool3d)
    return create_csn(model_depth=depth, model_num_class=classes, **pools).eval()


STAGES = {f"blocks.{i}": f"stage{i}" if i else "stem" for i in range(5)} | {"blocks.5.pool": "pre_logits"}


def _case(build, shape):
    return Case(build, shape, STAGES, CLIPS, package="pytorchvideo")


CASES = {
    "x3d_s": _case(partial(_x3d, "x3d_s"), (1, 5, 64, 64, 3)),
    "x3d_l": _case(partial(_x3d, "x3d_l"), (1, 5, 64, 64, 3)),
    "csn_ir_50": _case(partial(_csn, 50), (1, 8, 64, 64, 3)),
    "csn_ir_101": _case(partial(_csn, 101), (1, 8, 64, 64, 3)),
}
