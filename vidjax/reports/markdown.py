"""Tables of results in Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vidjax.metrics.uncertainty import half_width


def text_of(values: Sequence[float], percent: bool) -> str:
    """Formats the mean over runs and half the width of its 95 % t interval."""
    if not values:
        return "–"
    scale, digits = (100, 1) if percent else (1, 3)
    half = half_width(values)
    mean = f"{scale * np.mean(values):.{digits}f}"
    return mean if half is None else f"{mean} ± {scale * half:.{digits}f}"


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Returns rows as a Markdown table, with numbers right-aligned."""
    columns = list(dict.fromkeys(key for row in rows for key in row))

    def show(x: Any) -> str:
        if x is None:
            return "–"
        return f"{x:.4g}" if isinstance(x, float) else f"{x:,}" if isinstance(x, int) else str(x)

    def is_number(x: Any) -> bool:
        return x is None or isinstance(x, int | float) or x == "–" or x[:1].isdigit()

    numbers = [all(is_number(r.get(c)) for r in rows) for c in columns]
    lines = [
        columns,
        ["--:" if n else "---" for n in numbers],
        *([show(r.get(c)) for c in columns] for r in rows),
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
