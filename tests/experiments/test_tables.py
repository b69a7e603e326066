"""The tables of experiments: they run at scale smoke, their cells are valid, and READMEs match results."""

import json
import pathlib

import pytest

from experiments import collect
from experiments.cells import GRID, Converted, Evaluate, Fuse, Lab, Train
from experiments.small import motion
from experiments.table import (
    SCALES,
    Column,
    Row,
    Table,
    into_readme,
    main,
    results_text,
    run,
    saved,
    top1,
)
from vidjax.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
TABLES = collect.tables()
TRAINED = [name for name, table in TABLES.items() if table.rows and table.columns]


def section(path, name):
    return path.read_text().split(f"<!-- {name} -->\n")[1].split(f"<!-- end of {name} -->")[0].rstrip("\n")


@pytest.mark.parametrize("name", TABLES)
def test_readme_matches_results(name):
    table = TABLES[name]
    readme = table.folder / "README.md"
    written = dict.fromkeys(SCALES[1:], results_text) | {e.name: e.text for e in table.extras}
    for key, text in written.items():
        if results := saved(table, key):
            assert section(readme, key) == text(results)


def test_results_page_matches_results():
    rows = section(ROOT / "docs" / "results.md", "experiments").splitlines()[2:]
    assert rows == [collect.quote(table) for table in TABLES.values()]


@pytest.mark.parametrize("name", TABLES)
def test_every_cell_is_valid_at_every_scale(name, tmp_path):
    table = TABLES[name]
    for scale in SCALES:
        lab, (rows, columns) = Lab(tmp_path, scale), table.at(scale)
        for row in rows:
            cells = table.cells(row, scale)
            assert all(cell.key(lab) and cell.commands(lab) for cell in cells.values())
        used = {key for row in rows for key in table.cells(row, scale)}
        assert scale == "smoke" or used == {c.cell for c in columns}


@pytest.mark.parametrize("name", TRAINED)
def test_every_table_runs_at_scale_smoke(name, tmp_path):
    table = TABLES[name]
    results = run(table, "smoke", tmp_path, jobs=0)
    rows, _ = table.at("smoke")
    for row, made in zip(rows, results["rows"], strict=True):
        for cell in table.cells(row, "smoke"):
            (outcome,) = made["cells"][cell]
            assert all(v >= 0 for v in outcome["values"].values()) and outcome["values"]
            assert outcome["data"]["train"]["videos"] and outcome["environment"]["commit"]


class FakeLab(Lab):
    """Records commands, and writes the results that `score` returns instead of running them."""

    def __init__(self, root, score):
        super().__init__(root, "cpu", jobs=2)
        self.score, self.words = score, []

    def _process(self, words, log):
        self.words.append(words)
        return self.score(pathlib.Path(words[2].partition("=")[2]), words)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    def score(folder, words):
        lr = float(next((w.split("=")[1] for w in words if "optimizer.lr" in w), 0))
        for where, loss in ((folder / "tune", abs(lr - GRID[1])), (folder, 1.0)):
            where.mkdir(parents=True, exist_ok=True)
            saved = {"metrics": {"video_top1": 0.5, "loss": loss}, "best": "video_top1", "table": []}
            (where / "result.json").write_text(json.dumps(saved))
        return 0

    def provenance(folder, seed, overrides=None):
        return {"seed": seed, "data": {}, "environment": {}}

    monkeypatch.setattr("experiments.cells.provenance", provenance)
    lab = FakeLab(tmp_path, score)
    yield lab
    lab.close()


def test_learning_rate_is_chosen_on_validation_videos_and_kept_for_all_seeds(fake):
    outcomes = fake.solve(motion("slow_fusion_conv4")).result()
    assert [o.seed for o in outcomes] == [0, 1, 2]
    assert len(fake.words) == len(GRID) + 2  # the chosen run of seed 0 is one of the trials
    rates = [next(w for w in words if "optimizer.lr" in w) for words in fake.words]
    assert rates[-2:] == [f"--config.optimizer.lr={GRID[1]}"] * 2
    assert [t["optimizer.lr"] for t in outcomes[0].about["tuning"]] == list(GRID)
    again = fake.solve(Evaluate(motion("slow_fusion_conv4"), {"evals.val.clips": 2})).result()
    assert again[0].about["tuning"] == outcomes[0].about["tuning"]


def test_cells_that_tables_share_and_finished_runs_are_not_repeated(fake):
    first = fake.solve(motion("slow_fusion_conv4")).result()
    assert fake.solve(motion("slow_fusion_conv4")).result() == first
    ran = len(fake.words)
    again = FakeLab(fake.root, fake.score)
    assert [o.folder for o in again.solve(motion("slow_fusion_conv4")).result()] == [o.folder for o in first]
    again.close()
    assert not again.words and ran == len(GRID) + 2
    other = fake.solve(motion("slow_fusion_conv4", {"data.stride": 1.0})).result()
    assert not {o.folder for o in other} & {o.folder for o in first}


def test_a_cell_starts_from_the_run_of_the_same_seed(fake):
    image = motion("slow_fusion_conv4", tuned=False)
    outcomes = fake.solve(motion("c3d", start=image, tuned=False)).result()
    starts = [o.folder for o in fake.solve(image).result()]
    words = [w for w in fake.words if "model=c3d" in w[1]]
    paths = {next(w for w in ws if "init.path" in w).split("=")[1] for ws in words}
    assert paths == {str(f.resolve()) for f in starts} and len(outcomes) == 3


def test_published_weights_are_converted_once_or_named_with_their_address(fake, tmp_path, monkeypatch):
    monkeypatch.setenv("VIDJAX_WEIGHTS", str(tmp_path))
    weights = Converted("resnet50.torchvision")
    with pytest.raises(UserError, match=r"resnet50\.torchvision\.pth are missing: .* from https://"):
        fake.solve(weights).result()
    (tmp_path / "resnet50.torchvision.pth").touch()
    other = FakeLab(fake.root, lambda folder, words: 0)
    for model in ("tsn_resnet50", "tsm_resnet50_8f"):
        cell = Train(f"configs/kinetics400/{model}.py", start=weights, tuned=False, seeds=(0,))
        other.solve(cell).result()
    other.close()
    convert, *training = other.words
    assert convert[:3] == ["convert", str(tmp_path / "resnet50.torchvision.pth"), "--model=resnet50"]
    out = convert[3].removeprefix("--out=")
    assert len(training) == 2 and all(f"--config.init.path={out}" in words for words in training)


def test_a_failed_command_is_a_one_line_error_and_stops_the_others(fake):
    fake.score = lambda folder, words: 2
    solved = [fake.solve(motion(model)) for model in ("slow_fusion_conv4", "c3d")]
    for future in solved:  # also those that did not start
        with pytest.raises(UserError, match=r"failed \(exit code 2\)"):
            future.result()
    assert len(fake.words) <= 2  # those that ran side by side


def test_command_line_reports_errors_in_one_line(tmp_path, capsys):
    table = Table(tmp_path, (Row("a", {"motion": motion("c3d")}),), (Column("motion", "motion", top1),))
    with pytest.raises(SystemExit) as error:
        main(table, ["--scale", "cpu", "--rows", "b*"])
    assert error.value.code == 2 and "no row of scale cpu matches 'b*': a" in capsys.readouterr().err
    main(table, ["--scale", "cpu", "--list"])
    assert capsys.readouterr().out.startswith("vidjax train --config=configs/synthetic_motion/any_model.py")


def test_marks_that_are_missing_in_a_readme_are_reported(tmp_path):
    (tmp_path / "README.md").write_text("# title\n")
    with pytest.raises(UserError, match="no marks"):
        into_readme(tmp_path / "README.md", "cpu", "text")


def test_the_page_has_every_experiment_and_no_missing_image():
    page = collect.page()
    for readme in (ROOT / "experiments").glob("*/README.md"):
        assert f'<section id="{readme.parent.name}">' in page
    assert 'src="data:' in page and not any(
        f'src="{p.name}"' in page for p in ROOT.glob("experiments/*/*.png")
    )


def test_fused_and_evaluated_cells_run_at_scale_smoke(tmp_path):
    model = motion("slow_fusion_conv4")
    again = Evaluate(model, {"evals.val.clips": 2})
    row = Row("two", {"fused": Fuse((model, again))})
    results = run(Table(tmp_path, (row,), (Column("fused", "fused", top1),)), "smoke", tmp_path, jobs=0)
    fused = results["rows"][0]["cells"]["fused"][0]
    assert [part["views"] for part in fused["of"]] == ["1x1", "2x1"]


def test_training_at_scale_smoke_uses_the_smoke_argument_of_configs_with_other_data(tmp_path):
    lab = Lab(tmp_path, "smoke")
    cell = Train("configs/weizmann/any_model.py:model=c3d", {"data.stride": 2.0})
    assert lab.scaled(cell.config, cell.overrides) == ("configs/weizmann/any_model.py:model=c3d,smoke", {})
