"""Checks that flipped clips have the right labels."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from vidjax.data.audit.findings import Finding, Shown
from vidjax.data.audit.observe import Observed
from vidjax.data.prepare.check import labels_of

_OPPOSITE = {
    "left": "right",
    "right": "left",
    "clockwise": "counterclockwise",
    "counterclockwise": "clockwise",
}
_WORDS = re.compile(rf"\b({'|'.join(_OPPOSITE)})(wards?|hand|handed)?\b")
_OTHER_SPELLINGS = re.compile(r"\b(anti|counter) ?clockwise\b")
# Horizontal flips do not change up and down, but vertical ones do.
_UPRIGHT = re.compile(r"\b(up|down|upwards?|downwards?|top|bottom|above|below|under)\b")


def words(name: str) -> str:
    """Returns the words of a name in lower case: "SwipeLeft" and "swipe_left" are "swipe left"."""
    spaced = re.sub(r"[\W_]+", " ", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)).strip().lower()
    return _OTHER_SPELLINGS.sub("counterclockwise", spaced)


def directional(names: Sequence[str]) -> list[int]:
    """Returns the labels of classes that are named with left, right or a sense of rotation."""
    return [i for i, name in enumerate(names) if _WORDS.search(words(name))]


def mirrored_words(name: str) -> str:
    """Returns the `words` of a name after mirroring."""
    return _WORDS.sub(lambda word: _OPPOSITE[word[1]] + (word[2] or ""), words(name))


def flips(seen: Observed) -> Iterator[Finding]:
    """Flips of training clips that their labels do not follow."""
    source = seen.part.source
    names = source.class_names
    kept: list[Shown] = []
    wrong: list[Shown] = []
    vertical, forbidden = [], []
    for clip in seen.clips:
        if clip.geometry is None or not (clip.geometry.flipped or clip.geometry.scale[0] < 0):
            continue
        record = seen.records[clip.id]
        before, after = _texts(record.target, names), _texts(clip.target, names)
        if clip.geometry.scale[0] < 0:
            if any(_UPRIGHT.search(words(text)) for text in before):
                vertical.append(Shown.of(clip, f"flipped vertically, '{before[0]}'"))
        elif directional([*before, *after]) and {*map(words, after)} != {*map(mirrored_words, before)}:
            text = f"flipped, '{after[0] if after else ''}'"
            same = {*after} == {*before}
            (kept if same else wrong).append(
                Shown.of(clip, text if same else f"{text} instead of '{before[0]}'")
            )
        elif record.directional or (source.directional and source.mirror is None):
            forbidden.append(Shown.of(clip, "flipped"))
    for shown, message, change in (
        (
            kept,
            "flipped clips of classes with a direction in their name keep their labels",
            "set data.flip=False, or tell the dataset how labels are mirrored (data.options.mirror=True of "
            "video_folder, `Source.mirror`)",
        ),
        (
            wrong,
            "flipped clips get labels that are not the mirror image of theirs",
            "correct `Source.mirror` of the dataset",
        ),
        (
            vertical,
            "clips of classes with up or down in their name are flipped vertically",
            "flip horizontally only",
        ),
        (
            forbidden,
            "clips are flipped, although mirroring can change the classes of their dataset",
            "do not flip where `flip_ok` is False",
        ),
    ):
        if shown:
            yield Finding("flip", "error", seen.part.name, message, change, tuple(shown))


def _texts(target: Any, names: Sequence[str]) -> list[str]:
    """Returns the class names or the texts of a target."""
    if labels := labels_of(target):
        return [names[i] for i in sorted(labels)]
    texts = [*getattr(target, "texts", ()), *(getattr(target, k, "") for k in ("query", "question"))]
    return [text for text in texts if text]
