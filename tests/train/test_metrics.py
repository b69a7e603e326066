"""Timing of the training loop."""

import time

import pytest

from vidjax.train.metrics import Stopwatch, processors


def test_decode_cpu_is_a_fraction_of_all_processors():
    spent = [5.0]
    watch = Stopwatch(lambda: spent[0])
    for seconds in (0.01, 0.004, 100.0):
        start = time.perf_counter()
        watch.wait(iter("x"))
        time.sleep(0.05)
        spent[0] += seconds
        values = watch.read(batch=4)
        elapsed = time.perf_counter() - start
        assert values["decode_cpu"] == pytest.approx(min(1.0, seconds / elapsed / processors()), rel=0.1)
        assert values["step_time"] == pytest.approx(elapsed, rel=0.1)
