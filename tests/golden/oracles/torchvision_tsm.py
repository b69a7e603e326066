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

    def __init__(self, classes: int, shift: bool):
        super().__init__()
        self.base_model = torchvision.models.resnet50(weights=None)
        self.base_model.fc = torch.nn.Identity()
        self.new_fc = torch.nn.Linear(2048, classes)
        for i in range(1, 5) if shift else ():
            for block in getattr(self.base_model, f"layer{i}"):
                block.conv1 = Shifted(block.conv1, self)

    def forward(self, video):
        """[B, C, T, H, W] -> [B, K]."""
        self.count = video.shape[2]
        frames = video.transpose(1, 2).flatten(0, 1)
        return self.new_fc(self.base_model(frames)).unflatten(0, (-1, self.count)).mean(1)


def _build(classes: int, shift: bool) -> torch.nn.Module:
    return FrameScores(classes, shift).eval()


STAGES = {
    "base_model.maxpool": "stem",
    **{f"base_model.layer{i}": f"stage{i}" for i in range(1, 5)},
    "base_model.avgpool": "frame_features",
    "new_fc": "frame_logits",
}
CLIPS = [
    (400, (1, 8, 224, 224, 3)),
    (3, (2, 5, 65, 97, 3)),
    (174, (1, 1, 64, 64, 3)),
    (11, (3, 2, 33, 71, 3)),
]
CASES = {
    "tsn_resnet50": Case(partial(_build, shift=False), (1, 3, 64, 64, 3), STAGES, CLIPS),
    "tsm_resnet50_8f": Case(partial(_build, shift=True), (2, 4, 64, 64, 3), STAGES, CLIPS),
}
