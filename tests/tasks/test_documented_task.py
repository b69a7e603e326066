"""The task in docs/tasks.md works as written."""

import importlib.util
import json
import pathlib
import re
import sys

import pytest

from vidjax.config import resolve
from vidjax.train.loop import train

DOCS = pathlib.Path(__file__).parents[2] / "docs" / "tasks.md"
CONFIG = dict(
    batch=4,
    steps=3,
    log_every=1,
    data=dict(
        name="synthetic_scenes",
        options=dict(seconds=3.0, train=8, val=4, test=5),
        frames=4,
        size=16,
        short_side=16,
        crop="center",
    ),
    model=dict(name="slow_fusion_conv4", tiny=True),
    task=dict(name="event_count", delta=2.0),
    evals=dict(val=dict(type="metrics", clips=3)),
)


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Imports the module in the documentation."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    (code,) = (block for block in blocks if "class EventCount" in block)
    assert code.count("\n") <= 120
    file = tmp_path_factory.mktemp("tasks") / "event_count.py"
    file.write_text(code)
    spec = importlib.util.spec_from_file_location("event_count", file)
    module = importlib.util.module_from_spec(spec)
    sys.modules["event_count"] = module
    spec.loader.exec_module(module)
    return module.EventCount


def test_documented_task_trains_evaluates_and_predicts(task, tmp_path, capsys, monkeypatch):
    from vidjax.cli import main
    from vidjax.data.datasets import load_source

    monkeypatch.setenv("VIDJAX_CACHE", str(tmp_path / "cache"))
    config = resolve(CONFIG)
    results = train(config, tmp_path / "run")
    assert {*results["val"].metrics} == {"absolute_error", "median_error"}
    assert (tmp_path / "run" / "report.html").is_file()
    video = load_source("synthetic_scenes", "test", task.target, **config.data.options)[0].encoded()
    (tmp_path / "a.mp4").write_bytes(video)
    capsys.readouterr()
    with pytest.raises(SystemExit) as e:
        main(["predict", str(tmp_path / "a.mp4"), "--checkpoint", str(tmp_path / "run"), "--json"])
    assert e.value.code == 0
    assert len(json.loads(capsys.readouterr().out)["clips"]) == 3
