"""Cells of a table: what is trained, evaluated or combined, and how one machine runs it.

A cell runs as commands of vidjax, one process per core. Each command has a folder named after its resolved
config, so cells that several tables share run once, finished ones are not repeated, and a command that was
interrupted resumes.
"""

import abc
import concurrent.futures
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import queue
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import vidjax.convert.load  # noqa: F401  # fills the list of published checkpoints
from vidjax.checkpoint_io import find_checkpoint, load_meta
from vidjax.config import ConfigDict, load, restore
from vidjax.convert.packages import PACKAGES
from vidjax.convert.published import CHECKPOINTS
from vidjax.data.datasets import load_source
from vidjax.errors import UserError
from vidjax.tasks import fusion, task_class
from vidjax.tasks.base import Result
from vidjax.tasks.results import read_result

ROOT = pathlib.Path(__file__).parents[1]
SEEDS = (0, 1, 2)
GRID = (1e-3, 4e-3)  # learning rates, tried for every cell that is tuned
# Replaces the budget of a cell whose data are embedded; others use the argument "smoke" of their config.
SMOKE = {
    "steps": 3,
    "epochs": 0.0,
    "batch": 4,
    "schedule.warmup_epochs": 0.0,
    "data.options.train": 12,
    "data.options.val": 12,
    "data.options.test": 12,
    "data.cache": False,
    "log_every": 1,
}


@dataclasses.dataclass(frozen=True)
class Outcome:
    """A finished seed of a cell.

    Attributes:
      folder: holds the results of the evaluation.
      seed: of training.
      about: JSON-compatible provenance, see `provenance`.
    """

    folder: pathlib.Path
    seed: int
    about: Mapping[str, Any]

    @functools.cached_property
    def result(self) -> Result:
        """The result of the evaluation."""
        return read_result(self.folder)


class Cell(abc.ABC):
    """One entry of a table, for all seeds."""

    @abc.abstractmethod
    def run(self, lab: "Lab") -> list[Outcome]:
        """Returns one outcome per seed, on a thread of its own."""

    @abc.abstractmethod
    def key(self, lab: "Lab") -> str:
        """Returns what identifies the results; cells with the same key run once."""

    @abc.abstractmethod
    def commands(self, lab: "Lab") -> list[str]:
        """Returns the commands of the first seed, without the choice of a learning rate."""


@dataclasses.dataclass(frozen=True)
class Train(Cell):
    """A model that is trained and evaluated.

    Attributes:
      config: config file below the repository, with its argument.
      overrides: config values by key, {"data.stride": 4.0}.
      start: the cell whose checkpoint of the same seed initializes the model; if it has one checkpoint,
        this one initializes all.
      tuned: whether `optimizer.lr` is chosen from `GRID`, by the headline metric on validation videos, then
        by the loss.
      validation: overrides of the runs that choose it. With an evaluation named "tune", which becomes part of
        every run, the run of seed 0 serves both purposes.
      seeds: seeds of the runs; None uses those of the scale.
    """

    config: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: Cell | None = None
    tuned: bool = True
    validation: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    seeds: tuple[int, ...] | None = None

    def key(self, lab: "Lab") -> str:
        start = self.start.key(lab) if self.start else ""
        parts = [self.resolved(lab), self.tuned and lab.grid, self.validation, self.seeds, start]
        return json.dumps(parts, sort_keys=True, default=str)

    def resolved(self, lab: "Lab", extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns the config with its overrides as a dict."""
        config, overrides = lab.scaled(self.config, {**self.overrides, **(extra or {})})
        return resolve(config, *as_text(overrides)).to_dict()

    def run(self, lab: "Lab") -> list[Outcome]:
        seeds = self.seeds or lab.seeds
        starts = {o.seed: o for o in lab.solve(self.start).result()} if self.start else {}
        chosen: dict[str, Any] = {}
        trials: list[dict[str, Any]] = []
        if self.tuned and len(lab.grid) > 1:
            rates = [{"optimizer.lr": lr} for lr in lab.grid]
            tries = lab.gather(
                [lambda r=r: self.train(lab, seeds[0], {**r, **self.validation}, starts) for r in rates]
            )
            trials = [r | validation_score(o) for r, o in zip(rates, tries, strict=True)]
            chosen = rates[max(range(len(rates)), key=lambda i: (trials[i]["score"], -trials[i]["loss"]))]
        outcomes = lab.gather([lambda s=s: self.train(lab, s, chosen, starts) for s in seeds])
        return [dataclasses.replace(o, about={**o.about, "tuning": trials}) for o in outcomes]

    def train(
        self, lab: "Lab", seed: int, extra: Mapping[str, Any], starts: Mapping[int, Outcome]
    ) -> Outcome:
        """Runs one seed. Returns once it is finished."""
        start = (starts.get(seed) or next(iter(starts.values()))).folder if starts else None
        folder, words = self.command(lab, seed, extra, start)
        lab.command(folder, words)
        return Outcome(folder, seed, provenance(folder, seed))

    def command(
        self, lab: "Lab", seed: int, extra: Mapping[str, Any], start: pathlib.Path | None
    ) -> tuple[pathlib.Path, list[str]]:
        """Returns the workdir and the command of a seed that starts from the run `start`."""
        config, overrides = lab.scaled(self.config, {**self.overrides, **extra, "seed": seed})
        resolved = self.resolved(lab, {**extra, "seed": seed})
        if start:
            overrides["init.path"] = str(start.absolute())
        folder = lab.folder(resolved["model"]["name"], [resolved, start and str(start)[len(str(lab.root)) :]])
        words = ["train", f"--config={ROOT / config}", f"--workdir={folder}"]
        return folder, [*words, *(f"--config.{text}" for text in as_text({"report": False, **overrides}))]

    def commands(self, lab: "Lab") -> list[str]:
        before = self.start.commands(lab) if self.start else []
        start = pathlib.Path("CHECKPOINT") if self.start else None
        words = self.command(lab, (self.seeds or lab.seeds)[0], {}, start)[1]
        return [*before, lab.shown(words)]


@dataclasses.dataclass(frozen=True)
class Converted(Cell):
    """A published checkpoint, converted for `Train.start`.

    It is an installed package (`vidjax.convert.packages`), or a file that the user has saved in the folder
    $VIDJAX_WEIGHTS under the name of the checkpoint.

    Attributes:
      name: one of `vidjax.convert.published`, such as "resnet50.torchvision".
    """

    name: str

    def key(self, lab: "Lab") -> str:
        return self.name

    def source(self) -> str:
        """Returns the model whose weights are a package, or the path of the file."""
        published = CHECKPOINTS[self.name]
        if published.model in PACKAGES:
            return published.model
        folder = pathlib.Path(os.environ.get("VIDJAX_WEIGHTS", "weights"))
        return str(folder / f"{self.name}{pathlib.Path(published.file).suffix}")

    def words(self, lab: "Lab") -> tuple[pathlib.Path, list[str]]:
        folder, model = lab.folder("converted", [self.name]), CHECKPOINTS[self.name].model
        return folder, ["convert", self.source(), f"--model={model}", f"--out={folder / 'checkpoint'}"]

    def run(self, lab: "Lab") -> list[Outcome]:
        folder, words = self.words(lab)
        source, done = self.source(), (folder / "run.json").is_file()
        if not done and source not in PACKAGES and not os.path.isfile(source):
            raise UserError(
                f"the weights {source} are missing: save them there from {CHECKPOINTS[self.name].url}"
            )
        lab.gather([lambda: lab.command(folder, words)])
        return [Outcome(folder / "checkpoint", 0, run_facts(folder))]

    def commands(self, lab: "Lab") -> list[str]:
        return [lab.shown(self.words(lab)[1])]


@dataclasses.dataclass(frozen=True)
class Evaluate(Cell):
    """Another evaluation of trained models: other views, another split, a streaming form of the model.

    Attributes:
      of: the trained models.
      overrides: config values that replace those of training.
    """

    of: Train
    overrides: Mapping[str, Any]

    def key(self, lab: "Lab") -> str:
        return json.dumps([self.of.key(lab), self.overrides], sort_keys=True, default=str)

    def run(self, lab: "Lab") -> list[Outcome]:
        def evaluate(trained: Outcome) -> Outcome:
            folder = lab.folder("eval", [trained.folder.name, self.overrides])
            words = ["eval", f"--checkpoint={trained.folder}", f"--out={folder}"]
            lab.command(folder, [*words, *(f"--config.{text}" for text in as_text(self.overrides))])
            about = provenance(trained.folder, trained.seed, self.overrides)
            return Outcome(folder, trained.seed, {**trained.about, **about, **run_facts(folder)})

        return lab.gather([functools.partial(evaluate, o) for o in lab.solve(self.of).result()])

    def commands(self, lab: "Lab") -> list[str]:
        overrides = " ".join(f"--config.{text}" for text in as_text(self.overrides))
        return [*self.of.commands(lab), f"vidjax eval --checkpoint=WORKDIR --out=DIR {overrides}"]


@dataclasses.dataclass(frozen=True)
class Fuse(Cell):
    """Late fusion of several cells, seed by seed.

    Attributes:
      of: the cells.
      fitted_to: cells with results of the same models on the training videos, to which a linear SVM is
        fitted; without them, scores are averaged.
    """

    of: tuple[Cell, ...]
    fitted_to: tuple[Cell, ...] = ()

    def key(self, lab: "Lab") -> str:
        return json.dumps([c.key(lab) for c in self.of + self.fitted_to])

    def run(self, lab: "Lab") -> list[Outcome]:
        solved = [lab.solve(c) for c in self.of + self.fitted_to]
        by_seed = zip(*(f.result() for f in solved), strict=True)
        return [self.fuse(lab, *outcomes) for outcomes in by_seed]

    def commands(self, lab: "Lab") -> list[str]:
        svm = " --svm RESULT ..." if self.fitted_to else ""
        before = [line for c in self.of + self.fitted_to for line in c.commands(lab)]
        return [*dict.fromkeys(before), f"vidjax fuse RESULT ... --out DIR{svm}"]

    def fuse(self, lab: "Lab", *outcomes: Outcome) -> Outcome:
        models, fitted = outcomes[: len(self.of)], outcomes[len(self.of) :]
        folder = lab.folder("fuse", [o.folder.name for o in outcomes])
        results = [o.result for o in models]
        fused = fusion.svm([o.result for o in fitted], results) if fitted else fusion.average(results)
        folder.mkdir(parents=True, exist_ok=True)
        fused.save(folder / "result.npz")
        parts = [o.about for o in models]
        about = {**parts[0], "command": "linear SVM" if fitted else "mean of softmax scores", "of": parts}
        return Outcome(folder, models[0].seed, about)


class Lab:
    """Runs cells on this machine.

    Attributes:
      root: folder of all runs.
      scale: "smoke", "cpu" or "full".
      jobs: commands at a time.
      seeds, grid: seeds and learning rates of the scale.
    """

    def __init__(self, root: pathlib.Path, scale: str, jobs: int = 0):
        """`jobs`: commands at a time, each on its own core; 0 runs them one by one in this process."""
        self.root, self.scale, self.jobs = root, scale, jobs
        self.seeds = SEEDS if scale == "cpu" else SEEDS[:1]
        self.grid = GRID if scale == "cpu" else ()  # a recipe at full scale has its learning rate
        self._failure = ""  # of the first command that failed, which all others report
        self._lock, self._solved, self._stopped = threading.Lock(), dict[str, Future](), threading.Event()
        self._cells = concurrent.futures.ThreadPoolExecutor(1000) if jobs else None
        cores: queue.SimpleQueue[int] = queue.SimpleQueue()
        available = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
        for core in available if jobs > 1 else []:
            cores.put(core)
        self._jobs = concurrent.futures.ThreadPoolExecutor(jobs, "job", _pin, (cores,)) if jobs else None

    def solve(self, cell: Cell) -> Future:
        """Starts a cell, if it was not started before. Returns the future of its outcomes."""
        key = f"{type(cell).__name__} {cell.key(self)}"
        with self._lock:
            if self._cells and key not in self._solved:
                self._solved[key] = self._cells.submit(cell.run, self)
        if key not in self._solved:
            self._solved[key] = _done(lambda: cell.run(self))
        return self._solved[key]

    def gather(self, calls: Sequence[Callable[[], Any]]) -> list[Any]:
        """Calls functions side by side; each waits for its commands."""
        futures = [self._jobs.submit(c) if self._jobs else _done(c) for c in calls]
        return [f.result() for f in futures]

    def scaled(self, config: str, overrides: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
        """Returns the config and the overrides of a training run at this scale."""
        if self.scale != "smoke":
            return config, dict(overrides)
        path, _, arg = config.partition(":")
        if resolve(config).data.name.startswith("synthetic_"):
            return config, {**overrides, **SMOKE}
        kept = {k: v for k, v in overrides.items() if not k.startswith(("data.", "model.", "evals."))}
        return f"{path}:{arg},smoke" if arg else f"{path}:smoke", kept

    def folder(self, name: str, parts: Sequence[Any]) -> pathlib.Path:
        """Returns the folder of a command that is identified by `parts`."""
        digest = hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()
        return self.root / f"{name}-{digest[:10]}"

    def shown(self, words: Sequence[str]) -> str:
        """Returns a command as it would be typed in the repository."""
        return shlex.join(["vidjax", *words]).replace(f"{ROOT}/", "").replace(f"{self.root}/", "runs/")

    def command(self, folder: pathlib.Path, words: Sequence[str]) -> None:
        """Runs a vidjax command unless it is finished, and records it with its time in run.json.

        Args:
          folder: of the results.
          words: the command and its arguments.

        Raises:
          UserError: it failed; the message ends with its last line.
        """
        note, log = folder / "run.json", folder / "log.txt"
        before = json.loads(note.read_text()) if note.is_file() else {"seconds": 0.0}
        if before.get("finished"):
            return
        if self._stopped.is_set():
            raise UserError(self._failure or "stopped")
        folder.mkdir(parents=True, exist_ok=True)
        print(f"{folder.name} ...", flush=True)
        start = time.perf_counter()
        code = self._process(words, log) if self.jobs else _inline(words)
        seconds = round(before["seconds"] + time.perf_counter() - start, 1)
        about = {"command": self.shown(words), "seconds": seconds, "finished": code == 0}
        note.write_text(json.dumps(about, indent=1) + "\n")
        if code:
            last = log.read_text().strip().splitlines()[-1:] if log.is_file() else []
            self._failure = f"{folder.name} failed (exit code {code}): {''.join(last)}; see {log}"
            self._stopped.set()
            raise UserError(self._failure)
        print(f"{folder.name}: {seconds:.0f} s", flush=True)

    def _process(self, words: Sequence[str], log: pathlib.Path) -> int:
        defaults = {
            "JAX_COMPILATION_CACHE_DIR": str(self.root.resolve() / ".jax_cache"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        }
        if self.scale != "full":  # on CPUs, the older fusion emitters of XLA compile faster
            defaults["XLA_FLAGS"] = "--xla_cpu_use_fusion_emitters=false"
        with log.open("w") as file:
            command = [sys.executable, "-m", "vidjax", *words]
            return subprocess.run(
                command, stdout=file, stderr=subprocess.STDOUT, cwd=ROOT, env={**defaults, **os.environ}
            ).returncode

    def close(self) -> None:
        """Cancels the commands that have not started and waits for the others."""
        self._stopped.set()
        for pool in (self._cells, self._jobs):
            if pool:
                pool.shutdown(cancel_futures=True)


@functools.cache
def resolve(config: str, *overrides: str) -> ConfigDict:
    """Returns a config below the repository with overrides; read-only, since calls share it."""
    return load(str(ROOT / config), overrides)


def as_text(overrides: Mapping[str, Any]) -> list[str]:
    """Returns overrides in the form of the command line, without "--config."."""
    return [f"{k}={v}" for k, v in overrides.items()]


def validation_score(outcome: Outcome) -> dict[str, float]:
    """Returns the headline metric and the loss on the validation videos of a run."""
    tune = outcome.folder / "tune"
    result = read_result(tune) if tune.is_dir() else outcome.result
    return {"score": round(result.headline, 4), "loss": round(result.metrics["loss"], 4)}


def run_facts(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the command of a folder, and its wall-clock time in seconds."""
    return {k: v for k, v in json.loads((folder / "run.json").read_text()).items() if k != "finished"}


def provenance(folder: pathlib.Path, seed: int, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Returns where a result of a training run comes from.

    Args:
      folder: of the run.
      seed: of the run.
      overrides: config values of the evaluation, where they differ from training.

    Returns:
      The task, the command and its wall-clock time, the seed, the fingerprint and number of training and test
      videos, the test views, the pretrained weights with their license, and the environment (commit,
      versions, hardware).
    """
    meta = load_meta(find_checkpoint(folder))
    config = restore(meta["config"], as_text(overrides or {}))
    target = task_class(config.task.name).target
    sources = {
        use: load_source(config.data.name, split, target, **config.data.options)
        for use, split in (("train", config.data.train_split), ("test", config.data.eval_split))
    }
    views = config.evals[config.checkpoint.best]
    return {
        "task": config.task.name,
        **run_facts(folder),
        "seed": seed,
        "data": {
            "name": config.data.name,
            **{use: {"videos": len(s), "fingerprint": s.fingerprint} for use, s in sources.items()},
        },
        "views": f"{views.clips}x{views.crops}" if "clips" in views else None,
        "weights": weights_of(config.init.path),
        "environment": meta["environment"],
    }


def weights_of(path: str | None) -> dict[str, Any] | None:
    """Returns the source and license of pretrained weights, or the name of the run they come from."""
    if not path:
        return None
    meta = load_meta(find_checkpoint(path))
    if source := meta.get("source"):
        return {k: source[k] for k in ("origin", "sha256", "licence")}
    return {"run": pathlib.Path(path).name}


def _inline(words: Sequence[str]) -> int | str | None:
    from vidjax.cli import main

    try:
        main(list(words))
    except SystemExit as e:
        return e.code
    return 0


def _pin(cores: "queue.SimpleQueue[int]") -> None:
    """Binds this thread, and so the processes that it starts, to a core of its own."""
    if not cores.empty():
        os.sched_setaffinity(0, {cores.get()})


def _done(call: Callable[[], Any]) -> Future:
    future: Future = Future()
    future.set_result(call())
    return future
