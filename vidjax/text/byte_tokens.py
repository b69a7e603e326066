"""Tokens of text: its UTF-8 bytes, numbered as by ByT5 (Xue et al., arXiv:2105.13626)."""

from collections.abc import Sequence

import numpy as np

PAD, END = 0, 1
_FIRST = 3  # of the 256 bytes; 2 is unused
VOCABULARY = _FIRST + 256


def encode(text: str, length: int) -> np.ndarray:
    """Returns the tokens of a text, int32 [length]: bytes, END, and PAD; a longer text is cut before END."""
    data = np.frombuffer(text.encode()[: length - 1], np.uint8).astype(np.int32) + _FIRST
    tokens = np.full(length, PAD, np.int32)
    tokens[: len(data)] = data
    tokens[len(data)] = END
    return tokens


def decode(tokens: Sequence[int] | np.ndarray) -> str:
    """Returns the text of tokens up to END; bytes that are not valid UTF-8 are replaced."""
    numbers = np.asarray(tokens)
    ends = np.flatnonzero(numbers == END)
    numbers = numbers[: ends[0]] if ends.size else numbers
    return bytes((numbers[numbers >= _FIRST] - _FIRST).astype(np.uint8)).decode("utf-8", "replace")
