"""MoViNet-pytorch (Atze00/MoViNet-pytorch, which has no version), padded as in the TensorFlow original."""

from functools import partial

from movinets import MoViNet
from movinets.config import _C

from oracles import Case

# Its average pooling takes squares alone.
CLIPS = [(600, (1, 8, 64, 64, 3)), (11, (2, 5, 57, 57, 3)), (3, (1, 9, 75, 75, 3)), (101, (1, 1, 96, 96, 3))]


def _build(size, causal, classes):
    form = dict(causal=causal, conv_type="2plus1d" if causal else "3d", tf_like=True)
    return MoViNet(_C.MODEL[f"MoViNet{size}"], num_classes=classes, **form).eval()


def _call(model, x):
    model.clean_activation_buffers()
    return model(x)


def _case(size, causal):
    last = {i: len(blocks) - 1 for i, blocks in enumerate(_C.MODEL[f"MoViNet{size}"].blocks)}
    stages = {f"blocks.b{i}_l{j}": f"stage{i + 1}" for i, j in last.items()}
    stages = {"conv1": "stem", **stages, "classifier.1": "pre_logits"}
    build = partial(_build, size, causal)
    return Case(build, (1, 6, 64, 64, 3), stages, CLIPS, call=_call, package="torch")


CASES = {f"movinet_{size.lower()}_base": _case(size, False) for size in ("A0", "A3")}
CASES |= {f"movinet_{size.lower()}_stream": _case(size, True) for size in ("A0", "A2")}
