"""TSN: a 2D network on a few frames sampled from the whole video, with fused class scores.

Paper: Wang et al., "Temporal Segment Networks: Towards Good Practices for Deep Action Recognition", ECCV
2016, arXiv:1608.00859, equation 1 and Table 4; Kinetics figures with ResNet-50 from Lin et al.,
arXiv:1811.08383. Input: video [B, T, H, W, C], one frame per segment (config `data.sampling="segments"`).
Deviation from the paper: a ResNet-50 trunk by default in place of BN-Inception. Partial BatchNorm
(section 3.2) is the field `partial_bn`.
"""

import flax.linen as nn
import jax

from vidjax.errors import unknown
from vidjax.layers.pool import max_over
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, Result, register_model

CONSENSUS = ("average", "max", "weighted")


class TSN(FrameModel):
    """Scores every frame and fuses the scores of a class over frames by a segmental consensus.

    Attributes:
      consensus: "average" (the paper's choice), "max", or "weighted": a learned weight per frame, which fixes
        T.
    """

    consensus: str = "average"

    @nn.compact
    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K]; endpoints are the trunk's, [B, T, ...] each,
        frame_features [B, T, D], frame_logits [B, T, K] and pre_logits [B, D]."""
        features, endpoints = self.frame_features(video, train)
        return self.consent(features, endpoints, train)

    def frame_features(self, video: jax.Array, train: bool, **inputs) -> Output:
        """Returns features [B, T, D] and the backbone's endpoints; `inputs` as in `image_features`."""
        b, t = video.shape[:2]
        frames = video.reshape(b * t, *video.shape[2:])
        features, endpoints = self.image_features(frames, train, **inputs)
        endpoints = {k: x.reshape(b, t, *x.shape[1:]) for k, x in endpoints.items()}
        features = endpoints["frame_features"] = features.reshape(b, t, -1)
        return features, endpoints

    def consent(self, features: jax.Array, endpoints: dict[str, jax.Array], train: bool) -> Output:
        """Applies dropout and the classifier to frame features [B, T, D], and the consensus."""
        mean = endpoints["pre_logits"] = features.mean(1)
        if self.num_classes == 0:
            return mean, endpoints
        x = nn.Dropout(self.dropout, deterministic=not train)(features)
        scores = nn.Dense(self.num_classes, param_dtype=self.param_dtype, name="head")(x)
        endpoints["frame_logits"] = scores
        if self.consensus == "average":
            return scores.mean(1), endpoints
        if self.consensus == "max":
            return max_over(scores, 1), endpoints
        if self.consensus != "weighted":
            raise unknown("consensus", self.consensus, CONSENSUS)
        t = scores.shape[1]
        weights = self.param("consensus", nn.initializers.constant(1 / t), (t,), self.param_dtype)
        return (scores * weights.reshape(1, t, 1)).sum(1), endpoints


_COMMON = dict(
    family="tsn",
    module=TSN,
    tiny=dict(trunk_options=dict(tiny=True)),
    tiny_input_shape=(4, 32, 32, 3),
    paper="Temporal Segment Networks: Towards Good Practices for Deep Action Recognition",
    year=2016,
    arxiv="1608.00859",
    temporal="average of per-frame class scores",
    order_aware=False,
    mean=IMAGENET_MEAN,
    std=IMAGENET_STD,
)

register_model(
    ModelSpec(
        name="tsn_resnet50",
        preset=dict(trunk="resnet50"),
        input_shape=(8, 224, 224, 3),
        params=24_327_632,
        gmacs=32.70,
        results=(
            Result("Kinetics-400", 70.6, None, "10x3", "arXiv:1811.08383, authors' model zoo"),
            Result("Kinetics-400", 68.8, None, "1x1", "the same, 8 segments"),
        ),
        weights="torchvision (trunk); tsm",
        licence="BSD-3-Clause; MIT",
        **_COMMON,
    )
)

# The trunk is torchvision's GoogLeNet with BatchNorm; in the paper's BN-Inception two 3x3 convolutions stand
# for each one of 3x3 in the third branch.
register_model(
    ModelSpec(
        name="tsn_inception_v1_bn",
        preset=dict(trunk="inception_v1_bn"),
        input_shape=(3, 224, 224, 3),
        num_classes=101,
        weights="torchvision (trunk)",
        licence="BSD-3-Clause",
        **_COMMON,
    )
)
