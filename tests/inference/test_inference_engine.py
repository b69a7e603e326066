"""The engine that applies models to batches: order, padding, masks and the mesh context."""

import jax
import numpy as np
import pytest

from vidjax import interrupts
from vidjax.inference import Engine, batched
from vidjax.sharding import create_mesh


def rows(n):
    return [
        {"inputs": {"x": np.full((2,), i, np.float32)}, "index": np.int64(i), "seconds": i / 7}
        for i in range(n)
    ]


def empty(size):
    return {
        "inputs": {"x": np.zeros((size, 2), np.float32)},
        "index": np.full(size, -1),
        "seconds": np.zeros(size),
        "mask": np.zeros(size, bool),
    }


def double(variables, batch):
    return {"twice": batch["inputs"]["x"] * variables["scale"], "index": batch["index"]}


@pytest.mark.parametrize("n", [1, 4, 9])
def test_every_row_comes_out_once_in_order_without_the_padding(n):
    engine = Engine(create_mesh(), double)
    assert jax.device_count() == 4 and engine.batch_size(1) == engine.batch_size(4) == 4
    variables = engine.replicate({"scale": np.float32(2)})
    out = list(engine.run(variables, batched(rows(n), 4, empty(4))))
    assert [len(b["mask"]) for b in out] == [4] * -(-n // 4)
    kept = {k: np.concatenate([b[k][b["mask"]] for b in out]) for k in ("index", "seconds")}
    np.testing.assert_array_equal(kept["index"], np.arange(n))
    np.testing.assert_array_equal(kept["seconds"], np.arange(n) / 7)  # float64 on the host stays float64
    twice = np.concatenate([b["outputs"]["twice"][b["mask"]] for b in out])
    np.testing.assert_array_equal(twice, np.repeat(2.0 * np.arange(n)[:, None], 2, 1))
    np.testing.assert_array_equal(out[-1]["outputs"]["index"], out[-1]["index"])


def test_the_function_is_traced_in_the_context_of_its_mesh():
    """Attention kernels that partition themselves over devices read the mesh from there."""
    seen = []

    def apply(variables, batch):
        seen.append(dict(jax.sharding.get_abstract_mesh().shape))
        return batch["inputs"]["x"]

    engine = Engine(create_mesh(2, 2, 1), apply)
    list(engine.run({}, batched(rows(4), 4, empty(4))))
    list(engine.run({}, batched(rows(4), 4, empty(4))))
    assert seen == [{"data": 2, "fsdp": 2, "tensor": 1, "context": 1}]  # and compiled once


def test_a_request_to_stop_ends_an_evaluation(monkeypatch):
    engine = Engine(create_mesh(), double)
    variables = engine.replicate({"scale": np.float32(2)})
    results = engine.run(variables, batched(rows(40), 4, empty(4)))
    next(results)
    monkeypatch.setattr(interrupts, "requested", lambda: True)
    with pytest.raises(interrupts.Stopped):
        list(results)
