"""Notebooks run at their small setting, and are committed with the outputs of a complete run."""

import json
import re

import pytest

from notebooks import run

SETUP = run.code_cells("getting_started")[0]["source"]
TEXT = ("stream", "execute_result", "display_data")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("name", run.NAMES)
def test_notebook_runs_and_has_the_outputs_of_its_cells(name, cache, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(cache))
    monkeypatch.delenv("VIDJAX_DATA", raising=False)
    cells = run.code_cells(name)
    stored = [any(output.get("name") != "stderr" for output in cell["outputs"]) for cell in cells]
    assert stored == run.execute_small(name)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))


@pytest.mark.parametrize("name", run.NAMES)
def test_outputs_are_small_and_free_of_errors_and_local_paths(name):
    path = run.FOLDER / f"{name}.ipynb"
    assert path.stat().st_size < 300_000
    for cell in run.code_cells(name):
        for output in cell["outputs"]:
            assert output["output_type"] in TEXT
            text = json.dumps({k: v for k, v in output.get("data", output).items() if k != "image/png"})
            assert not re.search(r"(?<![\w.])/(?:home|root|tmp|work|usr|opt|mnt|content|Users)\b", text)
            assert not re.search(r"Traceback|Warning:|WARNING:|\\u001b", text)


@pytest.mark.parametrize("name", run.NAMES)
def test_notebook_starts_with_the_common_setup_and_is_listed(name):
    assert run.code_cells(name)[0]["source"] == SETUP
    readme = (run.FOLDER / "README.md").read_text()
    assert f"[{name}]({name}.ipynb)" in readme


def test_small_setting():
    source = 'N = 300  # tests: 4\nif x:\n    %pip install {y}\n!vidjax data show \\\n  --out {N} --a "b c"\n'
    python = run.to_python(source)
    called = []
    scope = {"x": False, "_vidjax": called.append}
    exec(python, scope)
    assert scope["N"] == 4
    assert called == ['data show --out 4 --a "b c"']
