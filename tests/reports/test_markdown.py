"""Markdown tables, and the text of a mean over runs."""

import pytest

from vidjax.metrics.uncertainty import half_width
from vidjax.reports.markdown import markdown, text_of


def test_intervals_are_those_of_student():
    # Mean 2, standard deviation 1, n = 3: t(0.975, 2) / sqrt(3) = 4.3027 / 1.7321.
    assert half_width([1.0, 2.0, 3.0]) == pytest.approx(2.4841, abs=1e-4)
    assert half_width([1.0]) is None
    assert text_of([0.5, 0.5, 0.5], percent=True) == "50.0 ± 0.0"
    assert text_of([], percent=True) == "–" and text_of([0.25], percent=False) == "0.250"


def test_markdown_aligns_numbers_and_shows_gaps():
    text = markdown([{"a": "x", "b": 1234}, {"a": "y", "c": 0.5}])
    assert text.splitlines() == [
        "| a | b | c |", "| --- | --: | --: |", "| x | 1,234 | – |", "| y | – | 0.5 |"
    ]  # fmt: skip
