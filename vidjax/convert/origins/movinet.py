"""Rules for MoViNet-pytorch (Atze00/MoViNet-pytorch), which ported the authors' TensorFlow weights."""

from vidjax.convert.engine import CHANNELS_LAST, Rules, batch_norm, chain, per_array, rule
from vidjax.convert.origins.x3d_csn import dense
from vidjax.convert.preprocessing import declare
from vidjax.convert.published import publish
from vidjax.models import spec
from vidjax.models.conv3d.movinet import STRIDES

# Stream models use 2D convolutions over (H, W) and over (T, 1); both are over (T, H, W) in vidjax.
_SPACE = chain(CHANNELS_LAST, per_array(lambda x: x[None], lambda x: x[0]))
_TIME = chain(CHANNELS_LAST, per_array(lambda x: x[:, :, None], lambda x: x[:, :, 0]))


def _rules(name: str) -> Rules:
    stream = name.endswith("stream")
    kind, window, layout = ("conv2d", 2, _SPACE) if stream else ("conv3d", 3, CHANNELS_LAST)

    def layer(source: str, conv: str, norm: str) -> Rules:
        weight = rule(f"{source}.conv_1.{kind}.weight", f"params/{conv}/kernel", layout)
        return [weight, *batch_norm(f"{source}.conv_1.norm", norm)]

    rules = [
        *layer("conv1", "stem_conv", "stem_bn"),
        *layer("conv7", "final_conv", "final_bn"),
        *dense(f"classifier.0.conv_1.{kind}", "fc", window),
        *dense(f"classifier.3.conv_1.{kind}", "head", window),
    ]
    for i in range(len(spec(name).preset["stages"])):
        source, ours = f"blocks.b{i}_l{{block}}", f"stage{i + 1}_block{{block}}"
        rules += layer(f"{source}.expand", f"{ours}/conv1", f"{ours}/bn1")
        rules += layer(f"{source}.deep", f"{ours}/conv2", f"{ours}/bn2")
        rules += layer(f"{source}.project", f"{ours}/conv3", f"{ours}/bn3")
        place = 1 if STRIDES[i] > 1 else 0  # after the pooling
        rules += layer(f"{source}.res.{place}", f"{ours}/down_conv", f"{ours}/down_bn")
        if stream:
            time = f"{source}.deep.conv_2"
            rules += [rule(f"{time}.{kind}.weight", f"params/{ours}/conv2_time/kernel", _TIME)]
            rules += batch_norm(f"{time}.norm", f"{ours}/bn2_time")
        for n in (1, 2):
            rules += dense(f"{source}.se.fc{n}.conv_1.{kind}", f"{ours}/se_fc{n}", window)
        rules += [rule(f"{source}.alpha", f"params/{ours}/alpha")]
    return tuple(rules)


# The port lacks the positional encoding that the stream models from A3 on have.
RULES = {
    name: _rules(name)
    for name in (
        *(f"movinet_a{i}_base" for i in range(6)),
        *(f"movinet_a{i}_stream" for i in range(3)),
    )
}

for _name, _side in zip((f"movinet_a{i}" for i in range(6)), (192, 192, 256, 288, 320, 368)):
    declare(
        "movinet_pytorch",
        (n for n in RULES if n.startswith(_name)),
        source="tensorflow/models, movinet/configs/yaml/*_k600_8x8.yaml, vision/ops/preprocess_ops_3d.py",
        unverified="25 fps: 250 frames in ten seconds",
        target_fps=25,
        short_side=_side,
        resize="tensorflow",
        clips=1,
        crops=1,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )

# Top-1 and top-5 of the TensorFlow weights on Kinetics-600.
for _name, *_accuracy in (
    ("A0", 72.28, 90.92),
    ("A1", 76.69, 93.40),
    ("A2", 78.62, 94.17),
    ("A3", 81.79, 95.67),
    ("A4", 83.48, 96.16),
    ("A5", 84.27, 96.39),
    ("A0_stream", 72.05, 90.63),
    ("A1_stream", 76.45, 93.25),
    ("A2_stream", 78.40, 94.05),
):
    publish(
        "movinet_pytorch",
        f"movinet_{_name.lower()}" + ("" if "_" in _name else "_base"),
        f"https://github.com/Atze00/MoViNet-pytorch/blob/main/weights/model{_name}_statedict_v3?raw=true",
        "Kinetics-600",
        *_accuracy,
        file=f"model{_name}_statedict_v3.pth",
        licence="MIT, of weights under Apache-2.0",
        source="TensorFlow Model Garden, before the conversion",
    )
