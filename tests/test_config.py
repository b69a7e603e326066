"""Config files load and dry-run, and invalid values are reported."""

import copy
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

from vidjax.config import differences, flatten, load, parse_arg, resolve, restore
from vidjax.config_schema import RANGES, schema
from vidjax.data.clips import ClipReader
from vidjax.data.datasets import card, load_source
from vidjax.errors import UserError
from vidjax.evaluation import create_evals, kinds
from vidjax.options import option_fields
from vidjax.registry import fields, spec
from vidjax.tasks import tasks
from vidjax.train.experiment import build

ROOT = pathlib.Path(__file__).parent.parent
FILES = sorted(p for p in (ROOT / "configs").rglob("*.py") if p.name != "__init__.py")
BASE = dict(epochs=1, data=dict(name="synthetic_motion"), model=dict(name="r3d_18"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize("file", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_every_config_loads_and_its_smoke_variant_dry_runs(file, cache, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(cache))
    full = load(str(file))
    assert full.epochs or full.steps
    assert str(file.relative_to(ROOT)) in file.read_text() or "recipe is that of" in file.read_text()
    exp = build(load(f"{file}:smoke"))
    state = exp.abstract_state()
    blank = ClipReader(exp.config.data, exp.task.reading["streams"]).blank()
    targets = exp.task.example(exp.train_source[0], blank, np.random.default_rng(0), True)
    batch = {"inputs": blank.inputs, "targets": targets}
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((4, *x.shape), x.dtype), batch)
    new, metrics = jax.eval_shape(exp.runner.step, state, batch)
    assert jax.tree.map(lambda x: x.shape, new) == jax.tree.map(lambda x: x.shape, state)
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("file", FILES, ids=[str(p.relative_to(ROOT)) for p in FILES])
def test_every_config_has_valid_dataset_options(file, monkeypatch):
    """Only the folder of a real dataset is missing, and its splits and number of classes are published."""
    monkeypatch.setenv("VIDJAX_DATA", "/nonexistent")
    data = load(str(file)).data
    if about := card(data.name):
        assert {data.train_split, data.eval_split} <= {*about.splits}
    if "path" in data.options:
        with pytest.raises(UserError, match=r"folder /nonexistent/.* does not exist: set data.options.path"):
            load_source(data.name, data.train_split, **data.options)


@pytest.mark.parametrize(
    "override, message",
    [
        ("optimizer.lrr=1", "did you mean optimizer.lr"),
        ("optimizr.lr=1", "unknown config key 'optimizr'"),
        ("data=3", "'data' is a section"),
        ("data.options=3", "'data.options' is a section"),
        ("optimizer.lr=fast", "'optimizer.lr' must be of type float, got 'fast'"),
        ("batch=2.5", "must be of type int"),
        ("batch=0", "'batch' must be an integer from 1 to"),
        ("data.threads=none", "'data.threads' must be an integer from 1 to 1024, got 'none'"),
        ("data.threads=0", "'data.threads' must be an integer from 1 to 1024, got 0"),
        ("data.threads=True", "'data.threads' must be an integer from 1 to 1024, got True"),
        ("data.workers=-1", "'data.workers' must be an integer from 0 to 1024, got -1"),
        ("data.scale=(0.5,)", "'data.scale' must have 2 numbers, got"),
        ("data.ratio=(2, 1)", "'data.ratio' must be (low, high), got"),
        ("data.target_fps=fast", "'data.target_fps' must be a number from 0.001 to 10000, got 'fast'"),
        ("data.std=(0, 1, 1)", "'data.std' must be a number from 1e-06 to 1000, got 0"),
        ("data.mean=('a', 1, 2)", "'data.mean' must be a number from -1000 to 1000, got 'a'"),
        ("data.resize_to=(20.5, 20)", "'data.resize_to' must be an integer from 1 to 8192, got 20.5"),
        ("model.options.num_classes=3", "model.options.num_classes cannot be set"),
        ("model.options.name=a", "model.options.name cannot be set: set model.name"),
        ("data.cache=maybe", "unknown value of data.cache 'maybe': one of False, True, auto"),
        ("optimizer.name=adam", "did you mean adamw"),
        ("task=3", "'task' is a section"),
        ("evals=3", "'evals' is a section"),
        ("task.mixupp=1", "unknown config key 'task.mixupp': did you mean task.mixup"),
        ("task.mixup=high", "'task.mixup' must be of type float, got 'high'"),
        ("task.mixup=-1", "'task.mixup' must be a number from 0 to 1000, got -1"),
        ("task.normalize_targets=True", "unknown config key 'task.normalize_targets'"),
        ("task.name=clasification", "unknown task 'clasification': did you mean classification"),
        ("task.name=[1]", "'task.name' must be of type str, got [1]"),
        ("evals.val.clip=3", "unknown config key 'evals.val.clip': did you mean evals.val.clips"),
        ("evals.val.clips=0", "'evals.val.clips' must be an integer from 1 to 1000, got 0"),
        ("evals.val.neighbors=3", "unknown config key 'evals.val.neighbors'"),
        ("evals.val.split=3", "'evals.val.split' must be of type str, got 3"),
        ("evals.val.type=metric", "unknown type of evaluation 'metric': did you mean metrics"),
        ("evals.val.type=none", "unknown type of evaluation 'none'"),
        ("evals.val.type=3", "'evals.val.type' must be of type str, got 3"),
        (
            "evals.knn.videos=3",
            "'evals.knn' must be a section with a type, such as dict(type='metrics'), got {",
        ),
        ("evals.clips=3", "'evals.clips' must be a section with a type, such as dict(type='metrics'), got 3"),
        ("evals.train.type=metrics", "the evaluation 'train' needs another name"),
        ("evals.a/b.type=metrics", "the evaluation 'a/b' needs another name"),
        ("checkpoint.best=vall", "unknown value of checkpoint.best 'vall': did you mean val"),
        ("checkpoint.best=knn", "unknown value of checkpoint.best 'knn': one of val"),
        (
            "evals.val.type=reconstructions",
            "checkpoint.best=val: evaluations of type reconstructions have no",
        ),
        ("steps=10", "one of epochs and steps"),
        ("seed", "has no value"),
    ],
)
def test_invalid_overrides_are_reported(override, message):
    with pytest.raises(UserError) as e:
        resolve(BASE, [override])
    assert message in str(e.value)


@pytest.mark.parametrize("text, value", [("auto", "auto"), ("True", True), ("false", False)])
def test_data_cache_accepts_auto_and_booleans(text, value):
    config = resolve({**BASE, "data": {**BASE["data"], "cache": value}})
    for cache in (config.data.cache, resolve(BASE, [f"data.cache={text}"]).data.cache):
        assert cache == value and type(cache) is type(value)
    assert not differences(config, resolve(BASE, ["data.cache_gb=1"]))  # a resumed run may change it


def test_overrides_are_converted_to_the_type_of_the_default():
    c = resolve(
        BASE,
        [
            "optimizer.lr=1",
            "data.scale=(0.5, 1)",
            "optimizer.ema=0.99",
            "data.options.path=x",
            "data.flip=false",
        ],
    )
    assert c.optimizer.lr == 1.0 and isinstance(c.optimizer.lr, float)
    assert c.data.scale == (0.5, 1) and c.optimizer.ema == 0.99 and c.data.options.path == "x"
    assert c.data.flip is False


def test_changing_the_dataset_removes_the_old_options():
    config = {**BASE, "data": dict(name="video_folder", options=dict(path="x", csv="y.csv"))}
    same = resolve(config, ["data.name=video_folder", "data.options.csv=z.csv"])
    assert same.data.options.to_dict() == dict(path="x", csv="z.csv")
    other = resolve(config, ["data.options.size=32", "data.name=synthetic_motion"])
    assert other.data.options.to_dict() == dict(size=32)


def test_override_resets_an_optional_value_to_none():
    for none in ("None", "none"):
        assert resolve({**BASE, "optimizer": dict(ema=0.9)}, [f"optimizer.ema={none}"]).optimizer.ema is None


def test_model_option_may_be_the_string_none():
    options = resolve(BASE, ["model.options.lateral=none", "model.options.depth=None"]).model.options
    assert options.lateral == "none" and options.depth is None


def test_config_survives_json_and_resolving_twice():
    import json

    c = resolve(BASE, ["data.options.path=x"])
    again = resolve(json.loads(json.dumps(c.to_dict())))
    assert flatten(again) == flatten(c) and differences(again, c) == []


def test_differences_ignore_resumable_keys():
    a = resolve(BASE, ["parallel.mesh.data=2", "data.workers=3", "log_every=7"])
    b = resolve(BASE, ["optimizer.lr=0.5"])
    assert differences(a, b) == ["optimizer.lr: 0.1 -> 0.5"]


def evaluation_data(config):
    return create_evals(config.evals)["val"].data(config)


def test_test_views_may_exceed_training_clips():
    data = evaluation_data(resolve(BASE, ["data.frames=8", "evals.val.frames=20", "evals.val.size=128"]))
    assert (data.frames, data.size) == (20, 128)
    data = evaluation_data(resolve(BASE, ["data.frames=8", "data.size=96"]))
    assert (data.frames, data.size) == (8, 96)


VARIANTS = {
    "kinetics400/x3d.py": [f"model={m}" for m in ("xs", "s", "m", "l")],
    "kinetics400/csn.py": [f"model={m}" for m in ("ir_50", "ir_101", "ir_152", "ip_152")],
    "kinetics600/movinet.py": [f"model=a{i}_{form}" for i in range(6) for form in ("base", "stream")],
}


@pytest.mark.parametrize("file", VARIANTS)
def test_config_variants_match_the_published_input(file):
    """Test clips have the length, stride and size of the published input."""
    for arg in VARIANTS[file]:
        c = load(f"{ROOT / 'configs' / file}:{arg}")
        s, data = spec(c.model.name), evaluation_data(c)
        assert c.model.name.endswith(arg.removeprefix("model="))
        assert (data.frames, c.data.stride, c.data.size) == (s.input_shape[0], s.stride, s.input_shape[1])
        assert (
            c.data.size <= data.size <= data.short_side and c.batch % c.model.options.get("bn_groups", 1) == 0
        )
        assert c.expected.top1 == (s.results[0].top1 if s.results else None)
        assert f"{c.evals.val.clips}x{c.evals.val.crops}" == (s.results[0].views if s.results else "10x3")
        assert not {*c.model.options} - fields(s.module)
    with pytest.raises(UserError, match="unknown model"):
        load(f"{ROOT / 'configs' / file}:model=xxl")


def test_parse_arg():
    assert parse_arg("fold=3,smoke", fold=1) == parse_arg("smoke=True,fold=3", fold=0)
    with pytest.raises(UserError, match="unknown config argument 'flod': did you mean fold"):
        parse_arg("flod=1", fold=0)
    with pytest.raises(UserError, match="must be of type int"):
        parse_arg("fold=x", fold=0)


def test_invalid_config_files_are_reported(tmp_path):
    with pytest.raises(UserError, match="unknown config file"):
        load(str(tmp_path / "nothing.py"))
    (tmp_path / "broken.py").write_text("def get_config(:\n")
    with pytest.raises(UserError, match="line 1"):
        load(str(tmp_path / "broken.py"))
    (tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(UserError, match="no get_config"):
        load(str(tmp_path / "empty.py"))


NUMBERS = (-1, 0, 2**40, 2**70, 10**400, -0.5, 1e300, float("nan"), float("inf"))
VALUES = (*NUMBERS, "", "word", None, True, (), (1,), ("a", "b"), (0.5, float("nan")), [None], {"a": 1}, b"x")


def open_options():
    """Returns {key: (section that selects the options, field)} of every task and type of evaluation."""
    found = {}
    for name, cls in tasks().items():
        for key, field in option_fields(cls).items():
            found[f"{name}: task.{key}"] = {"task": {"name": name}}, field
    for name, cls in kinds().items():
        for key, field in option_fields(cls).items():
            found[f"{name}: evals.other.{key}"] = (
                {"evals": {"val": {"type": "metrics"}, "other": {"type": name}}},
                field,
            )
    return found


def test_every_number_of_the_schema_has_a_range():
    numbers = {k for k, v in flatten(schema()).items() if type(v) in (int, float)}
    assert numbers <= RANGES.keys() <= flatten(schema()).keys()
    for key, (_, field) in open_options().items():
        assert field.metadata["range"] or type(field.default) not in (int, float), key


def schema_options():
    """Returns {key: (closed range or None, whether None is accepted, base config)} of all keys."""
    found = {k: (RANGES.get(k), default is None, {}) for k, default in flatten(schema()).items()}
    for key, (base, field) in open_options().items():
        found[key] = field.metadata["range"], field.metadata["optional"], base
    found |= {"task.name": (None, False, {}), "evals.val.type": (None, False, {})}
    return found


def test_any_value_of_any_key_is_accepted_or_reported():
    """Accepted values are in range and survive JSON, in which checkpoints store the config."""
    refused = accepted = 0
    for label, (limits, optional, base) in schema_options().items():
        key = label.rpartition(" ")[2]
        for value in VALUES:
            *sections, name = key.split(".")
            config = copy.deepcopy(base)
            change = config
            for section in sections:
                change = change.setdefault(section, {})
            change[name] = value
            try:
                full = resolve({**BASE, **config, "data": BASE["data"] | config.get("data", {})})
            except UserError as e:
                assert "\n" not in str(e)
                refused += 1
                continue
            accepted += 1
            got = flatten(full)[key]
            assert repr(json.loads(json.dumps(got))) == repr(got)
            if limits and not (got is None and optional):
                low, high = limits
                assert all(low <= x <= high for x in (got if isinstance(got, list) else [got])), (key, got)
    assert refused > 3 * accepted > 0


OLD = dict(
    seed=3,
    batch=8,
    epochs=2.0,
    data=dict(name="synthetic_motion", options=dict(size=32), frames=8, modality="rgb", size=32),
    model=dict(name="r3d_18", tiny=True, dtype="float32", freeze_bn=False, options=dict(dropout=0.5)),
    objective=dict(
        name="classify",
        label_smoothing=0.1,
        mixup=0.8,
        cutmix=1.0,
        random_erasing=0.25,
        per_frame=False,
        normalize_targets=True,
    ),
    evals=dict(
        every_epochs=0.5,
        clips=10,
        crops=3,
        size=40,
        frames=16,
        batch=4,
        precise_bn_batches=7,
        report=False,
        probe_videos=1000,
    ),
    checkpoint=dict(every_epochs=1.0, keep=2),
)
NEW = OLD | dict(
    data={k: v for k, v in OLD["data"].items() if k != "modality"},
    model=OLD["model"] | dict(precise_bn_batches=7),
    task=dict(name="classification", label_smoothing=0.1, mixup=0.8, cutmix=1.0, random_erasing=0.25),
    evals=dict(val=dict(type="metrics", every=0.5, clips=10, crops=3, size=40, frames=16, batch=4)),
    checkpoint=dict(every_epochs=1.0, keep=2, best="val"),
    report=False,
)
del NEW["objective"]
OLD_MAE = OLD | dict(
    model=OLD["model"] | dict(name="videomae_s_pretrain", options={}),
    objective=dict(
        name="mae", label_smoothing=0.0, mixup=0.0, cutmix=0.0, random_erasing=0.0, per_frame=False
    )
    | dict(normalize_targets=False),
    evals=OLD["evals"] | dict(precise_bn_batches=0, report=True, probe_videos=13, clips=1, crops=1),
)
NEW_MAE = NEW | dict(
    model=OLD_MAE["model"] | dict(precise_bn_batches=0),
    task=dict(name="masked_autoencoding", normalize_targets=False),
    evals=dict(
        val=dict(type="metrics", every=0.5, batch=4, clips=1, crops=1),
        knn=dict(type="knn", every=0.5, batch=4, videos=13, neighbors=20),
        reconstructions=dict(type="reconstructions", every=0.5, batch=4, clips=4),
    ),
    checkpoint=dict(every_epochs=1.0, keep=2, best="knn"),
    report=True,
)
# As stored by `vidjax convert`: only the sections of the preprocessing and the model.
OLD_CONVERTED = dict(
    epochs=1.0, data=dict(name="video_folder"), model=dict(name="r3d_18"), evals=dict(clips=10)
)
NEW_CONVERTED = OLD_CONVERTED | dict(evals=dict(val=dict(type="metrics", clips=10)))


@pytest.mark.parametrize(
    "old, new",
    [(OLD, NEW), (OLD_MAE, NEW_MAE), (OLD_CONVERTED, NEW_CONVERTED)],
    ids=["class", "mae", "convert"],
)
def test_configs_of_old_checkpoints_are_upgraded(old, new):
    old, given = json.loads(json.dumps(old)), copy.deepcopy(old)  # as in a checkpoint
    restored, expected = restore(old).to_dict(), resolve(new).to_dict()
    assert restored == expected and list(restored["evals"]) == list(expected["evals"])
    assert old == json.loads(json.dumps(given))  # the argument is not changed
    assert restore(restored).to_dict() == restored  # and a new config is kept
    if "modality" in given["data"]:
        with pytest.raises(UserError, match=r"unknown config key 'data\.modality'"):
            resolve(old)


@pytest.mark.parametrize(
    "old, new", [(0.0, None), (7.0, "rand-m7-n4-mstd0.5-inc1"), (6.5, "rand-m6.5-n4-mstd0.5-inc1")]
)
def test_a_magnitude_of_rand_augment_is_upgraded(old, new):
    stored = json.loads(json.dumps(NEW)) | {"data": NEW["data"] | dict(rand_augment=old)}
    assert restore(stored) == resolve(NEW | dict(data=NEW["data"] | dict(auto_augment=new)))


@pytest.mark.parametrize(
    "overrides",
    [
        ["batch=16777216"],
        ["seed=4294967295"],
        ["data.frames=1"],
        ["data.size=1"],
        ["data.stride=1000000.0"],
        ["epochs=1000000.0"],
        ["optimizer.lr=0.0", "optimizer.weight_decay=1e30"],
        ["evals.val.clips=1000", "evals.val.crops=100"],
        ["parallel.mesh.data=0"],
        ["parallel.rules=(('a', 3),)"],
        ["parallel.rules=(('a', 'b'),)"],
        ["schedule.name=step", "schedule.milestones=(5, 1)"],
        ["schedule.warmup_epochs=1000000.0"],
        ["data.options.size=-1"],
        ["data.options.train=100000000"],
        ["model.options.dropout='a'"],
        ["model.options.dropout=2.0"],
        ["model.options.bn_groups=0"],
        ["model.options.bn_groups=3"],
        ["optimizer.groups=(('a', '.*', {'lr': -1}),)"],
        ["data.options.size=100000000"],
        ["init.path=''"],
        ["task.name=''"],
    ],
)
def test_extreme_values_build_or_are_reported(overrides, cache, monkeypatch):
    monkeypatch.setenv("VIDJAX_CACHE", str(cache))
    base = dict(
        epochs=1,
        data=dict(name="synthetic_motion", options=dict(size=32, frames=8, train=24, val=12, test=12)),
    )
    base["model"] = dict(name="slow_fusion_conv4", tiny=True)
    try:
        build(resolve(base, overrides)).abstract_state()
    except UserError as e:
        assert "\n" not in str(e)


def test_a_config_must_be_a_python_file(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(UserError, match=r"must end in \.py"):
        load(str(tmp_path / "config.json"))


@pytest.mark.parametrize("root", ["vidjax", "project/vidjax"])
def test_shipped_configs_are_found_in_a_clone_and_in_a_wheel(root, tmp_path):
    """A clone is usually a folder called vidjax too; a wheel has the configs inside of the package."""
    package = tmp_path / root
    shutil.copytree(ROOT / "configs", package / "configs")
    if root == "vidjax":  # as installed
        shutil.copytree(ROOT / "vidjax", package, dirs_exist_ok=True)
        path = tmp_path
    else:
        shutil.copytree(ROOT / "vidjax", package / "vidjax")
        path = package
    code = "import vidjax.config as c; print(c.__file__, c.load('weizmann/videomae_finetune').model.name)"
    env = {**os.environ, "PYTHONPATH": str(path)}
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.stdout.split()[0].startswith(str(path)), done.stderr
    assert done.stdout.split()[1] == "videomae_s", done.stderr
