"""VTN as its authors' release puts it together: timm's ViT and transformers' Longformer, here small."""

import timm
import torch
from torch import nn
from transformers import LongformerConfig, LongformerModel

from oracles import Case

WIDTH, HEADS, WINDOW, ROWS = 192, 3, 8, 32


class Reference(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.backbone = timm.create_model(
            "vit_base_patch16_224", img_size=32, embed_dim=WIDTH, depth=2, num_heads=HEADS, num_classes=0
        )
        self.cls_token = nn.Parameter(torch.zeros(1, 1, WIDTH))
        config = LongformerConfig(
            hidden_size=WIDTH,
            num_hidden_layers=3,
            num_attention_heads=HEADS,
            intermediate_size=4 * WIDTH,
            attention_window=[WINDOW] * 3,
            max_position_embeddings=ROWS,
            type_vocab_size=2,
            pad_token_id=0,
        )
        self.temporal_encoder = LongformerModel(config, add_pooling_layer=False)
        self.temporal_encoder.embeddings.word_embeddings = None
        self.mlp_head = nn.Sequential(
            nn.LayerNorm(WIDTH),
            nn.Linear(WIDTH, WIDTH),
            nn.GELU(),
            nn.Dropout(0.5),
            nn.Linear(WIDTH, classes),
        )

    def forward(self, video):
        b, t = video.shape[:2]
        x = self.backbone(video.flatten(0, 1)).unflatten(0, (b, t))
        x = torch.cat([self.cls_token.expand(b, -1, -1), x], dim=1)
        fill = -(1 + t) % WINDOW  # Longformer takes whole windows
        x = nn.functional.pad(x, (0, 0, 0, fill))
        real = (torch.arange(x.shape[1]) <= t).long().expand(b, -1)
        is_class = (torch.arange(x.shape[1]) == 0).long().expand(b, -1)
        places = (torch.arange(x.shape[1]) - 1) % (ROWS - 2)
        places[0], places[1 + t :] = ROWS - 2, ROWS - 1
        y = self.temporal_encoder(
            inputs_embeds=x,
            attention_mask=real,
            global_attention_mask=is_class,
            token_type_ids=is_class,
            position_ids=places.expand(b, -1),
        ).last_hidden_state
        return self.mlp_head(y[:, 0])


CASES = {
    "vtn_vit_b_16": Case(
        lambda classes: Reference(classes).eval(),
        (1, 21, 32, 32, 3),
        {},
        [(5, (2, 7, 32, 32, 3)), (400, (1, 40, 32, 32, 3)), (3, (2, 1, 32, 32, 3))],
        options=dict(
            trunk_options=dict(width=WIDTH, depth=2, heads=HEADS, position_grid=(2, 2)),
            heads=HEADS,
            mlp_width=4 * WIDTH,
            window=WINDOW,
            positions=ROWS,
        ),
        to_input=lambda x: torch.from_numpy(x.transpose(0, 1, 4, 2, 3).copy()),
        package="transformers",
    ),
}
