"""Plans: memory, operations and communication of compiled steps, for devices here and TPUs that are not."""

import dataclasses
import importlib.util
import json
import subprocess
import types

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from vidjax.cli import main
from vidjax.config import load
from vidjax.errors import UserError
from vidjax.plan import devices, run, table
from vidjax.plan.collectives import _replica_groups, collectives
from vidjax.plan.step import Plan, compile_step, meshes, stand_ins, text
from vidjax.plan.table import planned
from vidjax.sharding import create_mesh
from vidjax.train.experiment import build

CONFIGS = table.ROOT / "configs"
SMALL = [
    "model.tiny=True",
    "data.frames=4",
    "data.size=32",
    "data.short_side=32",
    "batch=8",
    "steps=1",
    "epochs=0",
]


def config(*overrides):
    """Returns the config of a published recipe, made small; its dataset is not here."""
    small = [*SMALL, "schedule.warmup_epochs=0", "schedule.name=constant"]
    return load("kinetics400/tsm_resnet50_8f", [*small, *overrides])


def test_collectives_are_read_with_their_axes_bytes_and_repetitions():
    """A product whose inner dimension is sharded is summed over that axis, here in each turn of a loop."""
    mesh = create_mesh(data=2, tensor=2, devices=jax.devices()[:4])
    place = lambda *spec: NamedSharding(mesh, P(*spec))  # noqa: E731

    def step(x, w):
        return jax.lax.scan(lambda x, _: (jnp.sin(x @ w), None), x, length=5)[0]

    shapes = jax.ShapeDtypeStruct((8, 16), jnp.float32), jax.ShapeDtypeStruct((16, 16), jnp.float32)
    shardings = place("data", "tensor"), place("tensor", None)
    compiled = jax.jit(step, in_shardings=shardings, out_shardings=shardings[0]).lower(*shapes).compile()
    found = collectives(compiled.as_text(), dict(mesh.shape))
    assert {c.axes for c in found} == {"tensor"}
    assert sum(c.bytes for c in found if c.kind in ("all-reduce", "reduce-scatter")) >= 5 * 4 * 16 * 4 / 2
    reduced = [c for c in found if c.kind == "all-reduce"]
    if reduced:  # each device has 4 rows of 16 columns, and sends as much: 2 * (2 - 1) / 2
        assert reduced[0].bytes == reduced[0].wire == 5 * 4 * 16 * 4


def test_replica_groups_in_all_forms():
    assert _replica_groups("replica_groups={{0,1},{2,3}}, x", 4) == [[0, 1], [2, 3]]
    assert _replica_groups("replica_groups=[2,2]<=[4]", 4) == [[0, 1], [2, 3]]
    assert _replica_groups("replica_groups=[2,2]<=[2,2]T(1,0)", 4) == [[0, 2], [1, 3]]
    assert _replica_groups("replica_groups={}", 4) == [[0, 1, 2, 3]]
    mesh = "replica_groups=mesh['axis_0'=2,'axis_1'=2] "
    assert _replica_groups(mesh + "{'axis_1'}, x", 4) == [[0, 1], [2, 3]]
    assert _replica_groups(mesh + "{'axis_0'}, x", 4) == [[0, 2], [1, 3]]
    assert _replica_groups(mesh + "{'axis_0','axis_1'}, x", 4) == [[0, 1, 2, 3]]


HLO = """
ENTRY %main (x: f32[8]) -> f32[8] {
  %a = (bf16[4]{0}, bf16[8]{0}) all-gather-start(%x), replica_groups={{0,1},{2,3}}, dimensions={0}
  %b = f32[2]{0} reduce-scatter(%x), replica_groups={{0,2},{1,3}}, to_apply=%add
  %c = f32[8]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %d = f32[8]{0} all-reduce(%x), replica_groups={{0},{1},{2},{3}}, to_apply=%add
}
"""


LOOP = """
%cond (p: (s32[], f32[4])) -> pred[] {
  %limit = s32[]{:T(128)} constant(12)
  ROOT %lt = pred[] compare(%i, %limit), direction=LT
}
%body (p: (s32[], f32[4])) -> (s32[], f32[4]) {
  %sum = f32[4]{0} all-reduce(%x), replica_groups={{0,1}}, to_apply=%add
}
ENTRY %main (x: f32[4]) -> f32[4] {
  %loop = (s32[], f32[4]) while(%tuple), condition=%cond, body=%body
}
"""


def test_loops_without_a_known_count_run_as_often_as_their_condition_says():
    (found,) = collectives(LOOP, {"data": 2})
    assert (found.axes, found.bytes, found.wire) == ("data", 12 * 16, 12 * 16)


def test_bytes_sent_on_a_ring():
    found = {c.kind: c for c in collectives(HLO, {"data": 2, "fsdp": 2})}
    gather, scatter, move = (found[k] for k in ("all-gather", "reduce-scatter", "collective-permute"))
    assert (gather.axes, gather.bytes, gather.wire) == ("fsdp", 16, 8)
    assert (scatter.axes, scatter.bytes, scatter.wire) == ("data", 8, 8)
    assert (move.axes, move.bytes, move.wire) == ("fsdp", 32, 32)
    assert "all-reduce" not in found  # it is over single devices


def test_step_is_compiled_without_the_dataset():
    """Arguments are the state and a share of the batch; gradients are summed over the data axis."""
    cfg = config()
    found = compile_step(cfg, "cpu:4", jax.devices()[:4], None)
    exp = build(cfg, stand_ins(cfg), jax.devices()[:4])
    assert len(exp.train_source.class_names) == 400
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(jax.eval_shape(exp.init)))
    batch = 8 // 4 * (4 * 32 * 32 * 3 + 4)
    assert found.state == pytest.approx(state + batch, abs=64)
    params = sum(4 * x.size for x in jax.tree.leaves(jax.eval_shape(exp.init).params))
    reduced = sum(c.bytes for c in found.communication if c.kind == "all-reduce")
    assert params <= reduced < 1.2 * params and {c.axes for c in found.communication} == {"data"}
    assert found.temporary > 0 and found.flops > 0 and found.fits and found.bound == 0
    assert "4 devices (data 4), batch 8 = 2 clips at a time on each" in text(found)
    assert "least effort" not in text(found)
    quick = compile_step(cfg, "cpu:4", jax.devices()[:4], None, quick=True)
    assert quick.quick and "with the least effort" in text(quick)
    assert (quick.state, quick.flops) == (found.state, found.flops)


PLAN = Plan(
    "m", "v5e:2x2", 4, {"data": 4, "fsdp": 1, "tensor": 1, "context": 1}, 8, 1, None, 2**30, 2**31, 2**34,
    1e12, 1e9, (), {"operations": 0.005, "memory": 0.002, "communication": 0.0}, 3.0,
)  # fmt: skip


def test_what_does_not_fit_is_said_with_the_difference():
    assert "3.00 GiB" in text(PLAN) and "fits 16.00 GiB, by 13.00 GiB" in text(PLAN)
    assert "at least        5 ms by operations" in text(PLAN) and "at most 1600 clips/s" in text(PLAN)
    large = dataclasses.replace(PLAN, temporary=2**34)
    assert not large.fits and "DOES NOT FIT 16.00 GiB, by 1.00 GiB" in text(large)


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Replaces the child process. Returns the list of its inputs, and its answer."""
    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path))
    state = types.SimpleNamespace(calls=[], answer=lambda values: (0, json.dumps(PLAN.to_json()), ""))

    def child(command, input, **_):
        state.calls.append(json.loads(input))
        state.command = command
        return types.SimpleNamespace(
            **dict(zip(("returncode", "stdout", "stderr"), state.answer(state.calls[-1])))
        )

    monkeypatch.setattr(subprocess, "run", child)
    return state


def test_plans_are_kept_until_something_that_matters_changes(fake):
    assert run.plan(config(), "v5e:2x2") == run.plan(config("seed=5", "log_every=3"), "v5e:2x2") == PLAN
    assert len(fake.calls) == 1
    run.plan(config("batch=16"), "v5e:2x2")
    run.plan(config(), "v5e:4x4")
    assert len(fake.calls) == 3 and "--quick" not in fake.command
    run.plan(config(), "v5e:4x4", quick=True)
    assert len(fake.calls) == 4 and "--quick" in fake.command


def test_failures_of_the_child_are_one_line(fake, monkeypatch):
    fake.answer = lambda values: (2, "", "warning\nvidjax: batch of 8 does not divide")
    with pytest.raises(UserError, match=r"^batch of 8 does not divide$"):
        run.plan(config(), "v5e:2x2")
    fake.answer = lambda values: (-9, "", "")
    with pytest.raises(UserError, match="compiling failed"):
        run.plan(config(), "v5e:2x2")

    def late(*args, timeout, **_):
        raise subprocess.TimeoutExpired("x", timeout)

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(UserError, match="took longer than 5 s"):
        run.plan(config(), "v5e:2x2", 5)


def test_search_recomputes_more_only_where_it_has_to(fake):
    def answer(values):
        fits = values["model"]["options"]["remat"] == "full"
        return 0, json.dumps(dataclasses.replace(PLAN, temporary=0 if fits else 2**40).to_json()), ""

    fake.answer = answer
    cfg = load("kinetics400/videomae_b_finetune", ["batch=8", "parallel.mesh.data=-1"])
    found = list(run.search(cfg, "v5e:2x2", most=6))
    policies = [c["model"]["options"]["remat"] for c in fake.calls]
    assert policies == ["none", "dots", "full"] * 2 and len(found) == 6
    assert [p.fits for p in found] == [False, False, True] * 2
    assert run.best(found) == [p for p in found if p.fits]


def test_search_tries_only_what_divides(fake):
    assert [(m["data"], m["fsdp"]) for m in meshes(12)] == [(12, 1), (6, 2), (3, 4)]
    assert not list(run.search(config("batch=6"), "v5e:2x2"))
    assert len(list(run.search(config("batch=8"), "v5e:2x2"))) == 3 * 2  # one or two accumulation steps


@pytest.mark.parametrize("name", ["v5e", "v9:2x2", "v5e:", "tpu:4", "cpu", "v5e:2x2x2x2"])
def test_unknown_slice_is_reported(name):
    with pytest.raises(UserError, match=r"no slice .*v5e:16x16.*cpu:8"):
        devices.check(name)


@pytest.mark.skipif(bool(importlib.util.find_spec("libtpu")), reason="libtpu is installed")
def test_missing_libtpu_is_reported():
    with pytest.raises(UserError, match=r"pip install 'jax\[tpu\]'"):
        devices.devices("v5e:2x2")


def test_command_line(fake, capsys):
    words = ["plan", "kinetics400/tsm_resnet50_8f", "--topology"]
    with pytest.raises(SystemExit) as e:
        main([*words, "v5e:2x2", "--json"])
    assert e.value.code == 0 and json.loads(capsys.readouterr().out)["fits"] is True
    with pytest.raises(SystemExit) as e:
        main([*words, "v5e:16"])
    assert e.value.code == 2 and capsys.readouterr().err.count("\n") == 1


def test_page_of_slices_has_the_plans_that_configs_name():
    """All of them are configs that load and steps that fit; pretraining and fine-tuning name a slice each."""
    named = planned()
    assert {p.slice for p in named} >= {"v5e:16x16", "v6e:8x8"}
    files = [*CONFIGS.rglob("*finetune.py"), *CONFIGS.rglob("*pretrain.py")]
    recipes = {f"configs/{p.relative_to(CONFIGS)}" for p in files}
    assert len(recipes) > 15 and recipes <= {p.config for p in named}
    rows = [line.split(" | ") for line in table.PAGE.read_text().splitlines() if line.startswith("| [")]
    assert len(rows) == len(named)
    for one, cells in zip(named, rows, strict=True):
        loaded = load(one.config, one.overrides)
        devices.check(one.slice)
        path, _, arg = one.config.partition(":")
        assert f"(../{path})" in cells[0] and arg in cells[0]
        assert cells[1:3] == [loaded.model.name, one.slice] and cells[4] == f"{loaded.batch:,}"
        assert "does not fit" not in cells[6] and " of " in cells[6]
