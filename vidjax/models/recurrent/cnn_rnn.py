"""LRCN and variants: an image CNN on every frame and an LSTM or GRU over the frame features.

Paper: Donahue et al., "Long-term Recurrent Convolutional Networks for Visual Recognition and Description",
CVPR 2015, arXiv:1411.4389, section 4, Figure 3 (left): CNN -> LSTM of 256 units -> a label for every frame,
and the average of their probabilities for the clip; clips of 16 frames in a row, in testing 8 frames apart.
The GRU is that of Cho et al., arXiv:1406.1078.
Input: video [B, T, H, W, C]; with `trunk=None`, precomputed features [B, T, D].

  readout  "last"   many-to-one: the classifier reads the last step's output (of a backward layer, its last).
           "mean"   many-to-one: it reads the mean of all steps' outputs.
           "every"  many-to-many: it reads every step's output (endpoint frame_logits [B, T, K]). The logits
                    of the clip are the log of the mean over time of the steps' probabilities, so that their
                    softmax is the paper's average of predictions.

Deviations from the paper: the backbone is a ResNet, or CNN-M-2048 up to its last hidden layer, in place of a
CaffeNet up to its first; forget gate biases are initialized with 1.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from vidjax.errors import UserError, unknown
from vidjax.layers.recurrent import GRU, LSTM
from vidjax.models.frame.frame_model import FrameModel, Output
from vidjax.models.image import efficientnet_lite
from vidjax.registry import IMAGENET_MEAN, IMAGENET_STD, ModelSpec, register_model

READOUTS = ("last", "mean", "every")
State = dict[str, Any]


class CNNRNN(FrameModel):
    """Base of the models below, which define the recurrent layer.

    Attributes:
      trunk: registered name of an image model, or None: the input is its features.
      width: units of each recurrent layer, in each direction.
      layers: number of stacked recurrent layers.
      bidirectional: run each layer also backward and concatenate both outputs.
      readout: what the classifier reads, see above.
      truncate: stop the gradient through the state every `truncate` steps; never if None.
      feature_dropout: dropout rate before the first recurrent layer; `dropout` is the one before the
        classifier.
    """

    trunk: str | None = "resnet50"
    width: int = 256
    layers: int = 1
    bidirectional: bool = False
    readout: str = "last"
    truncate: int | None = None
    feature_dropout: float = 0.0

    recurrent = None  # class of a recurrent layer

    def __call__(self, video: jax.Array, train: bool = False) -> Output:
        """Maps video [B, T, H, W, C] to logits float32 [B, K]; endpoints are the trunk's, [B, T, ...] each,
        frame_features [B, T, D], rnn1.. [B, T, width (x 2)], frame_logits [B, T, K] where every step has a
        label, and pre_logits, what the classifier reads (of every step, the mean over time)."""
        return self.run(video, self._zeros(video.shape[0]), train)[0]

    @nn.nowrap
    def init_state(self, batch_size: int, frame_shape: tuple[int, ...]) -> State:
        """Returns the initial state of `step` for frames (H, W, C); raises UserError for a bidirectional
        model."""
        if self.bidirectional:
            raise UserError("a bidirectional model cannot be streamed; set bidirectional=False")
        return self._zeros(batch_size)

    def step(self, state: State, frame: jax.Array) -> tuple[Output, State]:
        """Processes the next frame [B, H, W, C], or chunk of frames [B, t, H, W, C]; with `trunk=None`, its
        features.

        Returns:
          Logits and endpoints of all frames so far, equal to those of `__call__`, and the new state.
        """
        if self.bidirectional:
            raise UserError("a bidirectional model cannot be streamed; set bidirectional=False")
        if frame.ndim == (2 if self.trunk is None else 4):
            frame = frame[:, None]
        return self.run(frame, state, train=False)

    @nn.nowrap
    def _zeros(self, batch: int) -> State:
        directions = 2 if self.bidirectional else 1
        return {
            "frames": jnp.zeros(()),
            "layers": [[self.recurrent.zeros(batch, self.width)] * directions] * self.layers,
            "mean": jnp.zeros((batch, self.width * directions)),
            "log_mean": jnp.zeros((batch, self.num_classes)),
        }

    @nn.compact
    def run(self, video: jax.Array, state: State, train: bool) -> tuple[Output, State]:
        """Runs the model on frames that follow `state`."""
        if self.readout not in READOUTS:
            raise unknown("readout", self.readout, READOUTS)
        x, endpoints = self._frame_features(video, train)
        x = nn.Dropout(self.feature_dropout, deterministic=not train, name="feature_drop")(x)
        layers = []
        for i, states in enumerate(state["layers"], 1):
            out = [self._layer(i, back)(x, s) for back, s in enumerate(states)]
            layers.append([s for _, s in out])
            x = endpoints[f"rnn{i}"] = jnp.concatenate([y for y, _ in out], axis=-1)

        count, total = state["frames"], state["frames"] + video.shape[1]
        mean = (state["mean"] * count + x.sum(1)) / total
        log_mean = state["log_mean"]
        if self.readout == "last":
            last = [y[:, 0 if back else -1] for back, (y, _) in enumerate(out)]
            output = self.classify(jnp.concatenate(last, axis=-1), endpoints, train)
        elif self.readout == "mean":
            output = self.classify(mean, endpoints, train)
        else:
            logits, endpoints = self.classify(x, endpoints, train)
            endpoints["pre_logits"] = mean
            if self.num_classes:
                endpoints["frame_logits"] = logits
                now = jax.nn.logsumexp(nn.log_softmax(logits), axis=1)
                log_mean = jnp.logaddexp(log_mean + jnp.log(count), now) - jnp.log(total)
            output = (log_mean if self.num_classes else mean), endpoints
        return output, {"frames": total, "layers": layers, "mean": mean, "log_mean": log_mean}

    def _frame_features(self, video: jax.Array, train: bool) -> Output:
        """Returns features [B, T, D] and the backbone's endpoints."""
        b, t = video.shape[:2]
        if self.trunk is None:
            if video.ndim != 3:
                raise UserError(f"trunk=None takes features [B, T, D], not a video of shape {video.shape}")
            return video, {"frame_features": video}
        if video.ndim != 5:
            raise UserError(f"takes a video [B, T, H, W, C], not {video.shape}: set trunk=None for features")
        features, endpoints = self.image_features(video.reshape(b * t, *video.shape[2:]), train)
        endpoints = {k: v.reshape(b, t, *v.shape[1:]) for k, v in endpoints.items()}
        endpoints["frame_features"] = features.reshape(b, t, -1)
        return endpoints["frame_features"], endpoints

    def _layer(self, i: int, back: int) -> nn.Module:
        return self.recurrent(
            self.width,
            truncate=self.truncate,
            reverse=bool(back),
            param_dtype=self.param_dtype,
            name=f"rnn{i}_backward" if back else f"rnn{i}",
        )


class CNNLSTM(CNNRNN):
    """A CNN and LSTM layers."""

    recurrent = LSTM


class CNNGRU(CNNRNN):
    """A CNN and GRU layers."""

    recurrent = GRU


_LRCN = dict(
    paper="Long-term Recurrent Convolutional Networks for Visual Recognition and Description",
    year=2015,
    arxiv="1411.4389",
)
_GRU = dict(
    paper="Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
    year=2014,
    arxiv="1406.1078",
)
# Class, its fields, the clip, the temporal mechanism and the paper.
_VARIANTS = {
    "lrcn_resnet50": dict(
        module=CNNLSTM,
        fields=dict(trunk="resnet50", readout="every", dropout=0.5, feature_dropout=0.9),
        frames=16,
        stride=1,
        temporal="LSTM on frame features, a prediction for every frame",
        paper=_LRCN,
    ),
    "lrcn_cnn_m": dict(
        module=CNNLSTM,
        fields=dict(trunk="cnn_m_2048", readout="every", dropout=0.5, feature_dropout=0.9),
        frames=16,
        stride=1,
        temporal="LSTM on frame features, a prediction for every frame",
        paper=_LRCN,
    ),
    "cnn_lstm_resnet18": dict(
        module=CNNLSTM,
        fields=dict(trunk="resnet18"),
        frames=16,
        stride=2,
        temporal="LSTM on frame features",
        paper=_LRCN,
    ),
    "cnn_lstm_efficientnet_lite0": dict(
        module=CNNLSTM,
        fields=dict(trunk="efficientnet_lite0"),
        frames=16,
        stride=2,
        temporal="LSTM on frame features",
        paper=_LRCN,
        mean=efficientnet_lite.MEAN,
        std=efficientnet_lite.STD,
    ),
    "cnn_gru_resnet18": dict(
        module=CNNGRU,
        fields=dict(trunk="resnet18"),
        frames=16,
        stride=2,
        temporal="GRU on frame features",
        paper=_GRU,
    ),
    "cnn_bilstm_resnet18": dict(
        module=CNNLSTM,
        fields=dict(trunk="resnet18", bidirectional=True, readout="mean"),
        frames=16,
        stride=2,
        temporal="bidirectional LSTM on frame features",
        paper=_LRCN,
    ),
}

for _name, _preset in _VARIANTS.items():
    _size = 64 if _preset["fields"]["trunk"] == "cnn_m_2048" else 32  # its pooling reduces 32 pixels to none
    register_model(
        ModelSpec(
            name=_name,
            family="cnn_rnn",
            module=_preset["module"],
            preset=_preset["fields"],
            tiny=dict(trunk_options=dict(tiny=True), width=16, feature_dropout=0.0),
            input_shape=(_preset["frames"], 224, 224, 3),
            tiny_input_shape=(4, _size, _size, 3),
            stride=_preset["stride"],
            num_classes=101,
            temporal=_preset["temporal"],
            order_aware=True,
            mean=_preset.get("mean", IMAGENET_MEAN),
            std=_preset.get("std", IMAGENET_STD),
            **_preset["paper"],
        )
    )
