"""Plans in child processes with a time limit, kept on disk; and the search for a mesh that fits."""

import dataclasses
import hashlib
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

from vidjax import files, registry
from vidjax.config import ConfigDict, restore
from vidjax.data.cache_folder import cache_dir
from vidjax.environment import digest_of_modules
from vidjax.errors import UserError
from vidjax.plan import devices
from vidjax.plan.collectives import Collective
from vidjax.plan.step import Plan, meshes

# Keys that no compiled step depends on.
_BESIDE = (
    "seed",
    "log_every",
    "report",
    "wandb",
    "checkpoint",
    "evals",
    "init",
    "expected",
    "epochs",
    "steps",
)


def plan(config: ConfigDict, name: str, limit: float = 1800.0, quick: bool = False) -> Plan:
    """Plans a config for a slice, in a child process. Plans are kept in the cache folder of vidjax.

    Args:
      config: a resolved config.
      name: of the slice, see `vidjax.plan.devices`.
      limit: seconds after which the child process is stopped.
      quick: see `vidjax.plan.step.compile_step`.

    Raises:
      UserError: the config does not fit the slice, or compiling failed or took too long.
    """
    devices.check(name)
    values = config.to_dict()
    path = cache_dir() / "plans" / f"{_key(values, name, quick)}.json"
    if path.is_file():
        return _from_json(json.loads(path.read_text()))
    local = devices.LOCAL.fullmatch(name)
    env = {**os.environ, "TPU_SKIP_MDS_QUERY": "1"}
    if not (local and local[1] == "gpu"):
        env["JAX_PLATFORMS"] = "cpu"
    if local and local[1] == "cpu":
        env["JAX_NUM_CPU_DEVICES"] = str(devices.count(name))
    command = [sys.executable, "-m", "vidjax.plan.child", name, *(["--quick"] if quick else [])]
    try:
        done = subprocess.run(
            command, input=json.dumps(values), env=env, capture_output=True, text=True, timeout=limit
        )
    except subprocess.TimeoutExpired:
        raise UserError(f"compiling {config.model.name} for {name} took longer than {limit:g} s") from None
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            last.removeprefix("vidjax: ") if done.returncode == 2 else f"compiling failed: {last}"
        )
    found = done.stdout.strip().splitlines()[-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, found)
    return _from_json(json.loads(found))


def search(
    config: ConfigDict, name: str, limit: float = 1800.0, most: int = 12, quick: bool = False
) -> Iterator[Plan | UserError]:
    """Plans other meshes, accumulation steps and remat policies of a config; yields each as it is found.

    The batch stays the same. A policy that recomputes more is tried only where a cheaper one does not fit.

    Args:
      config: a resolved config.
      name: of the slice.
      limit: seconds for each.
      most: the number of plans.
      quick: see `vidjax.plan.step.compile_step`.
    """
    options = registry.fields(registry.spec(config.model.name).module)
    policies = ("none", "dots", "full") if "remat" in options else (None,)
    tried = 0
    count = devices.count(name)
    for mesh, accumulation in itertools.product(meshes(count), (1, 2, 4, 8)):
        if config.batch % (count * accumulation):
            continue
        for policy in policies:
            if tried == most:
                return
            tried += 1
            changed = config.to_dict()
            changed["parallel"] |= {"mesh": mesh, "accumulation": accumulation}
            if policy:
                changed["model"]["options"] = changed["model"]["options"] | {"remat": policy}
            try:
                found = plan(restore(changed), name, limit, quick)
            except UserError as e:
                yield e
                continue
            yield found
            if found.fits:
                break


def best(plans: Sequence[Plan], count: int = 5) -> list[Plan]:
    """Returns the plans that fit, the fastest bound first; those without published rates by memory."""
    fitting = [p for p in plans if p.fits]
    return sorted(fitting, key=lambda p: (p.bound, p.used))[:count]


def _key(values: dict[str, Any], name: str, quick: bool) -> str:
    """Returns a digest of everything that a plan depends on."""
    import importlib.metadata as metadata

    versions = []
    for package in ("jax", "jaxlib", "libtpu", "flax", "optax"):
        try:
            versions.append(metadata.version(package))
        except metadata.PackageNotFoundError:
            versions.append("")
    kept = {k: v for k, v in values.items() if k not in _BESIDE}
    parts = [kept, name, quick, versions, digest_of_modules()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:20]


def _from_json(values: dict[str, Any]) -> Plan:
    names = {f.name for f in dataclasses.fields(Plan)}
    values = {k: v for k, v in values.items() if k in names}
    return Plan(**values | {"communication": tuple(Collective(**c) for c in values["communication"])})
