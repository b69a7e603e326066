"""TSN and TSM as their papers describe them, on torchvision's ResNet-50, with the names of the authors'
checkpoints."""

from functools import partial

import torch
import torchvision

from oracles import Case


class Shifted(torch.nn.Module):
    """A convolution of frames [B * T, C, H, W], the first eighth of whose channels comes from the next frame
    and the second from the one before."""

    def __init__(self, net: torch.nn.Module, frames: "FrameScores"):
        super().__init__()
        self.net = net
        self.count = lambda: frames.count

    def forward(self, x):
        clips = x.unflatten(0, (-1, self.count()))
        ahead, behind, still = clips.split([x.shape[1] // 8, x.shape[1] // 8, x.shape[1] * 6 // 8], dim=2)
        nothing = torch.zeros_like(ahead[:, :1])
        ahead, behind = torch.cat([ahead[:, 1:], nothing], 1), torch.cat([nothing, behind[:, :-1]], 1)
        return self.net(torch.cat([ahead, behind, still], 2).flatten(0, 1))


class FrameScores(torch.nn.Module):
    """The average over frames of an image network's scores."""

    def __init__(self, classes: int, trunk: str, shift: bool):
        super().__init__()
        self.base_model = getattr(torchvision.models, trunk)(weights=None)
        if trunk == "mobilenet_v2":
            self.base_model.classifier = torch.nn.Identity()
            for block in self.base_model.features[1:-1]:
                # The authors' blocks are flat lists.
                parts = [p if isinstance(p, torch.nn.Sequential) else [p] for p in block.conv]
                block.conv = torch.nn.Sequential(*[layer for part in parts for layer in part])
                if shift and block.use_res_connect:
                    block.conv[0] = Shifted(block.conv[0], self)
        else:
            self.base_model.fc = torch.nn.Identity()
            for i in range(1, 5) if shift else ():
                for block in getattr(self.base_model, f"layer{i}"):
                    block.conv1 = Shifted(block.conv1, self)
        self.new_fc = torch.nn.Linear(1280 if trunk == "mobilenet_v2" else 2048, classes)

    def forward(self, video):
        """[B, C, T, H, W] -> [B, K]."""
        self.count = video.shape[2]
        frames = video.transpose(1, 2).flatten(0, 1)
        return self.new_fc(self.base_model(frames)).unflatten(0, (-1, self.count)).mean(1)


def _build(classes: int, trunk: str, shift: bool) -> torch.nn.Module:
    return FrameScores(classes, trunk, shift).eval()


RESNET = {
    "base_model.maxpool": "stem",
    **{f"base_model.layer{i}": f"stage{i}" for i in range(1, 5)},
    "base_model.avgpool": "frame_features",
    "new_fc": "frame_logits",
}
LAST_BLOCKS = (1, 3, 6, 10, 13, 16, 17)
MOBILENET = {f"base_model.features.{at}": f"stage{i}" for i, at in enumerate(LAST_BLOCKS, 1)}
MOBILENET |= {"base_model.features.0": "stem", "new_fc": "frame_logits"}
CLIPS = [
    (400, (1, 8, 224, 224, 3)),
    (3, (2, 5, 65, 97, 3)),
    (174, (1, 1, 64, 64, 3)),
    (11, (3, 2, 33, 71, 3)),
]
CASES = {
    name: Case(partial(_build, trunk=trunk, shift=name[:3] == "tsm"), shape, stages, CLIPS)
    for name, trunk, shape, stages in (
        ("tsn_resnet50", "resnet50", (1, 3, 64, 64, 3), RESNET),
        ("tsm_resnet50_8f", "resnet50", (2, 4, 64, 64, 3), RESNET),
        ("tsm_mobilenet_v2_8f", "mobilenet_v2", (2, 4, 64, 64, 3), MOBILENET),
    )
}
