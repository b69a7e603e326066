"""What an audit reports, and what its checks share."""

import dataclasses
from collections.abc import Iterable
from typing import Any

import numpy as np

from vidjax.data.audit.observe import Observed, Seen

RARE = 0.1  # share of videos below which a property of the data is only noted
WHOLE = ("uniform", "segments")  # rules of sampling whose clips span a whole video


@dataclasses.dataclass(frozen=True)
class Shown:
    """A clip that shows a fault.

    Attributes:
      id, view: of the clip, see `Seen`.
      frames: its frames in the video.
      times: of these frames in seconds.
      text: what is wrong with this clip.
      clip: what was read; None if reading failed.
    """

    id: str
    view: str
    frames: tuple[int, ...]
    times: tuple[float, ...]
    text: str = ""
    clip: Seen | None = None

    @classmethod
    def of(cls, clip: Seen, text: str = "") -> "Shown":
        return cls(clip.id, clip.view, tuple(clip.index.tolist()), tuple(clip.times.tolist()), text, clip)


@dataclasses.dataclass(frozen=True)
class Finding:
    """A fault.

    Attributes:
      check: name of the check.
      severity: "error" (results are wrong), "warning" (they probably suffer) or "note" (a choice that papers
        make on purpose, or a property of a few videos).
      part: "train" or the name of an evaluation.
      message: what is wrong.
      change: what to do.
      clips: that show it, the clearest first.
    """

    check: str
    severity: str
    part: str
    message: str
    change: str
    clips: tuple[Shown, ...] = ()


def videos_text(ids: Iterable[str], seen: Observed) -> str:
    """Returns "3 of 32 videos"."""
    return f"{len({*ids})} of {len(seen.records)} videos"


def padding(clip: Seen, cfg: Any) -> str:
    """Returns how the frames of a clip repeat: "loop", "hold", "repeat" (in place), or "" if they do not.

    Of a hierarchical clip, the dense window is judged.
    """
    index = clip.index
    if cfg.sampling == "hierarchical":
        index = index[cfg.frames - (cfg.dense_frames or cfg.frames // 2) :]
    gaps = np.diff(index)
    if (gaps > 0).all():
        return ""
    if (gaps < 0).any():
        return "loop"
    held = bool((gaps[np.argmin(gaps > 0) :] == 0).all())  # from the first repeated frame on
    return "hold" if held and cfg.sampling not in WHOLE else "repeat"
