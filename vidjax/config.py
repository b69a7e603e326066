"""Experiment configs: reading config files, overrides and checks.

A config file defines `get_config(arg="")`, which returns a ConfigDict of the values that the experiment sets.
`load` adds the defaults of `config_schema.schema()` and rejects unknown keys.
"""

import ast
import contextlib
import fnmatch
import importlib
import importlib.util
import pathlib
import re
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import vidjax
from vidjax import registry
from vidjax.config_schema import CHOICES, RANGES, TUPLES, ConfigDict, schema
from vidjax.data.auto_augment import parse
from vidjax.data.targets import ClassTarget
from vidjax.errors import UserError, unknown
from vidjax.options import check_range, complete, typed

# Sections whose keys are defined and checked by the dataset and the model.
_OPEN = ("data.options", "model.options", "task", "evals")
# Keys of how a host loads its data; the data are the same.
LOADING = ("data.workers", "data.threads", "data.timeout", "data.prefetch", "data.cache")
# Keys that may change when a run is resumed.
RESUMABLE = (
    *LOADING,
    "parallel.mode",
    "parallel.mesh",
    "parallel.rules",
    "parallel.host_timeout",
    "checkpoint.every_minutes",
    "checkpoint.keep",
    "log_every",
    "report",
    "wandb",
)


def shipped() -> pathlib.Path:
    """Returns the folder of the shipped configs, in the repository or in an installed wheel."""
    here = pathlib.Path(__file__).parent
    installed = here / "configs"
    return installed if installed.is_dir() else here.parent / "configs"


def shipped_names(pattern: str = "*") -> list[str]:
    """Returns names of shipped configs, such as "weizmann/slow_fusion_conv4", that match a shell pattern."""
    files = (p.relative_to(shipped()).with_suffix("") for p in shipped().rglob("*.py"))
    names = sorted(p.as_posix() for p in files if p.name != "__init__")
    return [n for n in names if fnmatch.fnmatch(n, pattern) or fnmatch.fnmatch(n, f"*{pattern}*")]


def find(path: str) -> pathlib.Path:
    """Returns the file of a config given as a path or as the name of a shipped config.

    Raises:
      UserError: no such file; the message suggests the closest ones.
    """
    file = pathlib.Path(path)
    name = path.removeprefix("configs/").removesuffix(".py")
    for candidate in (file, shipped() / f"{name}.py"):
        if candidate.is_file():
            return candidate
    siblings = (
        [str(p) for p in file.parent.glob("*.py") if p.is_file() and p.name != "__init__.py"]
        if file.parent.is_dir()
        else []
    )
    raise unknown("config file", path, siblings or shipped_names())


def load(path: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Loads a config and applies overrides.

    Args:
      path: a file or the name of a shipped config, with an optional argument, such as
        "configs/weizmann/slow_fusion_conv4.py:smoke" or "weizmann/slow_fusion_conv4:smoke".
      overrides: values to set, such as "optimizer.lr=1e-3".

    Raises:
      UserError: no such file, a file without `get_config`, an unknown key (the message suggests the closest
        ones), or a value of the wrong type, out of range, or not among the choices.
    """
    path, _, arg = path.partition(":")
    file = find(path)
    # Lets a config import others of its package, `from configs.weizmann import …`, from any directory.
    root = file.resolve().parent
    while (root / "__init__.py").is_file():
        root = root.parent
    if file.is_relative_to(shipped()) and shipped().parent == pathlib.Path(__file__).parent:
        sys.modules.setdefault("configs", importlib.import_module("vidjax.configs"))
    elif str(root) not in sys.path:
        sys.path.append(str(root))
    module_spec = importlib.util.spec_from_file_location(f"vidjax_config_{file.stem}", file)
    if not module_spec or not module_spec.loader:
        raise UserError(f"config file {path} is not a Python file: its name must end in .py")
    module = importlib.util.module_from_spec(module_spec)
    with _executing(path, file):
        module_spec.loader.exec_module(module)
        if not hasattr(module, "get_config"):
            raise UserError(f"config file {path} has no get_config(arg)")
        config = module.get_config(arg)
    if not isinstance(config, Mapping | ConfigDict):
        raise UserError(f"get_config of config file {path} must return a ConfigDict, got {config!r}")
    return resolve(config, overrides)


@contextlib.contextmanager
def _executing(path: str, file: pathlib.Path) -> Iterator[None]:
    """Turns what the code of a config file raises into a one-line `UserError` with the line in that file."""
    try:
        yield
    except UserError:
        raise
    except Exception as e:
        lines = [f.lineno for f in traceback.extract_tb(e.__traceback__) if f.filename == str(file)]
        line = e.lineno if isinstance(e, SyntaxError) else (lines or [None])[-1]
        reason = e.msg if isinstance(e, SyntaxError) else f"{type(e).__name__}: {e}".partition("\n")[0]
        raise UserError(f"config file {path}{f', line {line}' if line else ''}: {reason}") from e


def resolve(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> ConfigDict:
    """Adds the defaults of the schema, applies the smoke preset and overrides, and checks every value.

    An override of `data.name` or `task.name` removes the options of the previous dataset or task.
    """
    full = schema()
    _merge(full, ConfigDict(config).to_dict(), "")
    if not full.evals:
        full.evals = ConfigDict({"val": {"type": "metrics"}})
    if full.smoke or any(o.lower() in ("smoke=true", "smoke=1") for o in overrides):
        _smoke(full)
        overrides = [o for o in overrides if not o.startswith("smoke=")]
    # Apply names first, because they remove the options of the previous dataset and task.
    for override in sorted(overrides, key=lambda o: not o.startswith(("data.name=", "task.name="))):
        key, equals, text = override.partition("=")
        if not equals:
            raise UserError(f"config override '{override}' has no value: write {key}=VALUE")
        if key == "data.name" and text != full.data.name:
            full.data.options = ConfigDict()
        if key == "task.name" and text != full.task.name:
            full.task = ConfigDict({"name": text})
        _merge(full, _nest(key, _literal(text)), "")
    _complete(full)
    _check(full)
    return full


def restore(config: Mapping[str, Any], overrides: Sequence[str] = ()) -> ConfigDict:
    """Resolves the config of a checkpoint, which may have been written by an earlier version."""
    return resolve(_upgraded(ConfigDict(config).to_dict()), overrides)


def _complete(config: ConfigDict) -> None:
    """Adds and checks the options of the task and of the evaluations."""
    from vidjax.evaluation import eval_class  # not at the top, because they import JAX and all tasks
    from vidjax.tasks import task_class

    with config.unlocked():
        task = config.task.to_dict()
        name = _text("task.name", task.pop("name"))
        config.task = ConfigDict({"name": name, **complete(task_class(name), task, "task")})
        for key, section in config.evals.to_dict().items():
            _check_eval_name(key)
            kind = _text(f"evals.{key}.type", section.pop("type"))
            options = complete(eval_class(kind), section, f"evals.{key}")
            config.evals[key] = ConfigDict({"type": kind, **options})
    best = _text("checkpoint.best", config.checkpoint.best)
    if best not in config.evals:
        raise unknown("value of checkpoint.best", best, config.evals)
    if not eval_class(config.evals[best].type).has_metrics:
        raise UserError(
            f"checkpoint.best={best}: evaluations of type {config.evals[best].type} have no metrics to rank "
            "checkpoints by; name another one"
        )


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str):
        raise UserError(f"config key '{key}' must be of type str, got {value!r}")
    return value


# Split of the training metrics in metrics.jsonl, and folders of a workdir.
_RESERVED = ("train", "checkpoints", "tensorboard", "eval")


def _check_eval_name(name: Any) -> None:
    """Raises `UserError` unless the name of an evaluation can name a folder of its results."""
    if not isinstance(name, str) or not re.fullmatch(r"[\w-]+", name) or name in _RESERVED:
        raise UserError(
            f"the evaluation {name!r} needs another name: letters, digits, - and _, and none of "
            f"{', '.join(_RESERVED)}"
        )


def _upgraded(config: dict[str, Any]) -> dict[str, Any]:
    """Converts the config of an earlier version; changes the dict."""
    old, data = config.get("evals", {}), config.get("data", {})
    if magnitude := data.pop("rand_augment", None):
        data["auto_augment"] = f"rand-m{magnitude:g}-n4-mstd0.5-inc1"
    named = all(isinstance(section, Mapping) for section in old.values())
    if "objective" not in config and "modality" not in data and named:
        return config
    objective = {"name": "classify", **config.pop("objective", {})}
    name, normalize_targets = objective.pop("name"), objective.pop("normalize_targets", True)
    every, videos = old.pop("every_epochs", 1.0), old.pop("probe_videos", 1000)
    data.pop("modality", None)
    config.setdefault("model", {})["precise_bn_batches"] = old.pop("precise_bn_batches", 0)
    config["report"] = old.pop("report", True)
    if name == "mae":
        config["task"] = {"name": "masked_autoencoding", "normalize_targets": normalize_targets}
        config["evals"] = pretraining_evals(every=every, batch=old.get("batch"), videos=videos)
        config.setdefault("checkpoint", {})["best"] = "knn"
    else:
        config["task"] = {"name": "classification", **objective}
        config["evals"] = {"val": {"type": "metrics", "every": every, **old}}
    return config


def pretraining_evals(videos: int = 1000, **shared: Any) -> dict[str, dict[str, Any]]:
    """Returns the usual evaluations of masked pretraining: the loss, a kNN probe, and reconstructions.

    Args:
      videos: maximum number of videos of the probe per split.
      **shared: options of all three, such as `every`.
    """
    return {
        "val": {"type": "metrics", **shared},
        "knn": {"type": "knn", "videos": videos, **shared},
        "reconstructions": {"type": "reconstructions", **shared},
    }


def parse_arg(arg: str, **defaults: Any) -> ConfigDict:
    """Parses the argument of a config file, such as "smoke" or "fold=shahar,smoke=True".

    Args:
      arg: comma-separated names or name=value pairs.
      **defaults: accepted names with their defaults, whose types the values must have. `smoke` is always
        accepted.

    Raises:
      UserError: an unknown name, or a value of the wrong type.
    """
    out = {"smoke": False, **defaults}
    for part in filter(None, arg.split(",")):
        key, equals, text = part.partition("=")
        if key not in out:
            raise unknown("config argument", key, out)
        out[key] = typed(f"config argument '{key}'", _literal(text) if equals else True, out[key])
    return ConfigDict(out)


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens a nested config to {"optimizer.lr": 0.1, …}, with tuples converted to lists as in JSON."""
    flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping | ConfigDict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = _plain(value)
    return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lists the differences of two configs as "key: old -> new", except for keys in `RESUMABLE`."""
    a, b = flatten(old), flatten(new)
    return [
        f"{key}: {a.get(key)} -> {b.get(key)}"
        for key in sorted(a | b)
        if a.get(key) != b.get(key) and not key.startswith(RESUMABLE)
    ]


def comparable(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the values that all hosts of a run must share, by key: how each loads its data is its own."""
    return {key: value for key, value in flatten(config).items() if not key.startswith(LOADING)}


def _merge(target: ConfigDict, source: Mapping[str, Any], prefix: str) -> None:
    for key, value in source.items():
        name = prefix + key
        if key not in target:
            raise unknown("config key", name, [k for k in flatten(schema()) if k not in _OPEN])
        if name in _OPEN:
            if not isinstance(value, Mapping):
                raise UserError(f"config key '{name}' is a section: set {name}.KEY")
            with target.unlocked():
                target[key] = ConfigDict(_deep_merged(target[key].to_dict(), value))
            if name == "evals":
                _check_sections(target[key])
        elif isinstance(target[key], ConfigDict):
            if not isinstance(value, Mapping):
                raise UserError(f"config key '{name}' is a section: set {name}.KEY")
            _merge(target[key], value, name + ".")
        else:
            with target.ignore_type():
                target[key] = typed(f"config key '{name}'", value, target[key])


def _check_sections(evals: ConfigDict) -> None:
    for key, section in evals.items():
        if not isinstance(section, ConfigDict) or "type" not in section:
            given = section.to_dict() if isinstance(section, ConfigDict) else section
            raise UserError(
                f"config key 'evals.{key}' must be a section with a type, such as dict(type='metrics'), got "
                f"{given!r}"
            )


def _deep_merged(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    out = dict(a)
    for key, value in b.items():
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = _deep_merged(out[key], value) if both else value
    return out


def _nest(key: str, value: Any) -> dict[str, Any]:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return {"true": True, "false": False}.get(text.lower(), text)


def _plain(value: Any) -> Any:
    return [_plain(v) for v in value] if isinstance(value, list | tuple) else value


# Arguments of `create_model` that have a key or a source of their own.
_NOT_OPTIONS = {
    "name": "set model.name",
    "tiny": "set model.tiny",
    "dtype": "set model.dtype",
    "num_classes": "it is the number of classes of the dataset",
}


def _check_range(key: str, value: Any, default: Any) -> None:
    low, high = RANGES[key]
    numbers = value if isinstance(default, list) or (key in TUPLES and isinstance(value, list)) else [value]
    if isinstance(default, list) and default and len(numbers) != len(default):
        raise UserError(f"config key '{key}' must have {len(default)} numbers, got {value}")
    for x in numbers:
        check_range(key, x, low, high)


def _check(config: ConfigDict) -> None:
    flat = flatten(config)
    defaults = flatten(schema())
    for key in ("data.name", "model.name"):
        if not flat[key]:
            raise UserError(f"the config does not set {key}")
    for key, default in defaults.items():
        if key.startswith(_OPEN):
            continue
        if flat[key] is None:
            if default is not None:
                raise UserError(f"config key '{key}' must be of type {type(default).__name__}, got None")
        elif key in RANGES and not default == flat[key] == "auto":
            _check_range(key, flat[key], default)
        elif key in CHOICES and str(flat[key]) not in CHOICES[key]:
            raise unknown(f"value of {key}", str(flat[key]), CHOICES[key])
    for key in ("data.scale", "data.ratio", "data.short_side_range"):
        if flat[key][0] > flat[key][1]:
            raise UserError(f"config key '{key}' must be (low, high), got {tuple(flat[key])}")
    for key in _NOT_OPTIONS.keys() & config.model.options.keys():
        raise UserError(f"model.options.{key} cannot be set: {_NOT_OPTIONS[key]}")
    for pattern in flat["init.skip"]:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as e:
            raise UserError(f"init.skip: {pattern!r} is not a regular expression: {e}") from None
    if not isinstance(rules := flat["parallel.rules"], list | None):
        raise UserError(f"parallel.rules must be None or (regex, spec) pairs, got {rules!r}")
    for rule in rules or ():
        if not (isinstance(rule, list) and len(rule) == 2 and isinstance(rule[0], str)):
            raise UserError(f"parallel.rules must contain (regex, spec) pairs, got {rule!r}")
    if bool(config.epochs > 0) == bool(config.steps > 0):
        raise UserError(f"set one of epochs and steps, got epochs={config.epochs:g}, steps={config.steps}")
    if (config.data.mean is None) != (config.data.std is None):
        raise UserError("data.mean and data.std go together: set both or neither")
    frames, dense = config.data.frames, config.data.dense_frames or config.data.frames // 2
    if config.data.sampling == "hierarchical" and not 0 < dense < frames:
        raise UserError(
            f"data.sampling=hierarchical divides data.frames={frames} into coarse and dense frames: set "
            f"data.dense_frames below it, not to {dense}"
        )
    track = config.data.audio.stream
    if not (track is None or type(track) is str or (type(track) is int and track >= 0)):
        raise UserError(
            f"data.audio.stream={track!r}: use the number of an audio track from 0, or a language such as eng"
        )
    takes = model_streams(config)
    alone = takes[0] if len(takes) == 1 else ""
    channels = {"rgb": 3, "flow": 2}.get(alone)
    for key in ("mean", "std"):
        values = config.data[key]
        if values is not None and not (isinstance(values, tuple | list) and len(values) == channels):
            what = f"has one value for each of the {channels} channels" if channels else "must be None"
            raise UserError(f"data.{key} for a model of {'+'.join(takes)} {what}, not {values!r}")
    if config.data.resize_to is not None and not (
        isinstance(config.data.resize_to, tuple | list) and len(config.data.resize_to) == 2
    ):
        raise UserError(f"data.resize_to is (height, width), not {config.data.resize_to!r}")
    if config.data.auto_augment is not None:
        parse(config.data.auto_augment)
        if config.data.grey or alone == "flow":
            raise UserError(
                "data.auto_augment requires color frames: set it to none for gray frames and for flow"
            )
    if ("features" in takes) != bool(config.data.feature_width):
        raise UserError(
            "a model of cached features and data.feature_width go together: set both or neither, with "
            "data.name=features"
        )
    crops = {n: e.crops for n, e in config.evals.items() if e.get("crops", 1) != 1}
    if "features" in takes and crops:
        name, number = crops.popitem()
        raise UserError(f"cached features have one crop: set evals.{name}.crops=1, not {number}")
    if config.model.freeze_bn and config.model.precise_bn_batches:
        raise UserError(
            "model.freeze_bn and model.precise_bn_batches are mutually exclusive: BatchNorm statistics are "
            "either frozen or recomputed"
        )


def model_streams(config: ConfigDict) -> tuple[str, ...]:
    """Returns the modalities of the model's input, see `vidjax.data.streams`."""
    vidjax.spec(config.model.name)  # registers the models
    return registry.model_streams(config.model.name, config.model.options)


def _smoke(config: ConfigDict) -> None:
    """Replaces the model by its tiny preset and the data by a few embedded clips."""
    config.smoke = False  # the result is an ordinary config
    shape = vidjax.spec(config.model.name).tiny_input_shape
    shape = shape["flow"] if isinstance(shape, Mapping) else shape
    size = max(32, shape[-2])
    config.model.tiny = True
    config.steps, config.epochs, config.batch = 4, 0.0, 4
    config.parallel.accumulation = 1
    config.optimizer.lr_batch = None
    config.schedule.update(warmup_epochs=0.0, milestones=())
    from vidjax.tasks import task_class  # not at the top, because it imports JAX and all tasks

    scenes = task_class(config.task.name).target not in (None, ClassTarget)
    config.data.update(
        name="synthetic_scenes" if scenes else "synthetic_motion",
        train_split="train",
        eval_split="test",
        size=size,
        short_side=size + 4,
        resize_to=None,
        short_side_range=(size, size + 8),
        frames=min(config.data.frames, 8),
        dense_frames=None,
        stride=2.0,
        target_fps=None,
        workers=0,
    )
    takes = model_streams(config)
    if "flow" in takes:  # models require a fixed number of flow fields
        config.data.flow.frames = shape[0]
        if takes == ("flow",):
            config.data.frames = shape[0]
        if "flow_frames" in config.model.options:
            config.model.options.flow_frames = shape[0]
    small = dict(train=24, val=12, test=12)
    config.data.options = ConfigDict(small | (dict(seconds=3.0) if scenes else {}))
    for section in config.evals.values():
        section.batch = 4
        views = dict(clips=1, crops=1, size=None, frames=None)
        section.update({k: v for k, v in views.items() if k in section})
    config.model.precise_bn_batches = min(config.model.precise_bn_batches, 2)
    if "bn_groups" in config.model.options:
        config.model.options.bn_groups = 1
    config.log_every = 1
    print("smoke: tiny preset, embedded clips, 4 steps", file=sys.stderr)
