"""Starts a vidjax command on a cluster, from a template of this folder.

  python launch/render.py TARGET --set NAME=VALUE ... -- vidjax train --config CONFIG --workdir DIR

`--dry-run` prints the file instead of starting it. README.md lists the targets and the values that they need.
"""

import argparse
import dataclasses
import hashlib
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence

import jinja2
import jinja2.meta

from vidjax.environment import git_commit
from vidjax.errors import UserError, unknown

HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of templates that `--set` gives.

    Attributes:
      about: what it is.
      pattern: regex of valid values.
      default: None if it must be given; "" if it is made from the command.
    """

    about: str
    pattern: str = r"\S+"
    default: str | None = None


_NUMBER = r"[1-9]\d{0,5}"
VALUES = {
    "name": Value("name of the job (default: from the workdir)", r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?", ""),
    "cache": Value("compilation cache that all hosts share (default: WORKDIR/.jax_cache)", default=""),
    "restarts": Value("restarts after a failure", r"\d{1,4}", "20"),
    "grace": Value("seconds to save a checkpoint before the job is killed", _NUMBER, "120"),
    "image": Value("container image, built from launch/Dockerfile"),
    "hosts": Value("number of hosts", _NUMBER),
    "gpus": Value("GPUs per host", _NUMBER),
    "cpus": Value("cores per process", _NUMBER, "8"),
    "partition": Value("Slurm partition", r"[\w,-]+"),
    "time": Value("time limit of Slurm; the job continues in a new one", r"[\d:-]+", "1-00:00:00"),
    "project": Value("Google Cloud project", r"[\w.:-]+"),
    "zone": Value("zone, such as us-west4-a", r"[\w-]+"),
    "region": Value("region, such as us-central1", r"[\w-]+"),
    "cluster": Value("GKE cluster", r"[\w-]+"),
    "tpu_type": Value("TPU type, such as v5litepod-16", r"[\w-]+"),
    "runtime": Value("TPU software version, such as v2-alpha-tpuv5-lite", r"[\w.-]+"),
    "spot": Value("yes for spot capacity, which may be preempted", r"yes|no", "no"),
    "slices": Value("number of TPU slices", _NUMBER, "1"),
    "accelerator": Value("type of accelerator, such as tpu-v5-lite-podslice or nvidia-h100-80gb", r"[\w-]+"),
    "topology": Value("TPU topology, such as 4x4", r"\d+(x\d+){1,2}"),
    "chips": Value("TPU chips per host", _NUMBER, "4"),
    "machine": Value("machine type, such as a3-highgpu-8g", r"[\w-]+"),
}
# The template of each target, and the command that starts the rendered file.
TARGETS = {
    "gpu_box": ("gpu_box.sh", "bash {file}"),
    "slurm": ("slurm.sh", "sbatch {file}"),
    "tpu_vm": ("tpu_vm.sh", "bash {file}"),
    "xpk": ("xpk.sh", "bash {file}"),
    "gke_tpu": ("gke_tpu.yaml", "kubectl create --filename={file}"),
    "gke_gpu": ("gke_gpu.yaml", "kubectl create --filename={file}"),
    "vertex": (
        "vertex.yaml",
        "gcloud ai custom-jobs create --region={region} --display-name={name} --config={file}",
    ),
}


def needed(target: str) -> set[str]:
    """Returns the names of `VALUES` that a target uses."""
    template, start = TARGETS[target]
    used = jinja2.meta.find_undeclared_variables(_environment().parse((HERE / template).read_text()))
    return (used | set(re.findall(r"{(\w+)}", start))) & VALUES.keys()


def render(target: str, given: Mapping[str, str], command: Sequence[str]) -> tuple[str, list[str]]:
    """Renders a template.

    Args:
      target: one of `TARGETS`.
      given: values by name.
      command: a command of vidjax, ["vidjax", "train", ...].

    Returns:
      The text of the file, and the words of the command that starts it, with {file} for its path.

    Raises:
      UserError: a value is missing, invalid or not used by the target, or the command is not one of vidjax.
    """
    if target not in TARGETS:
        raise unknown("target", target, TARGETS)
    if list(command[:1]) != ["vidjax"]:
        raise UserError("give the command after --, such as -- vidjax train --config CONFIG --workdir DIR")
    names = needed(target)
    for name in given:
        if name not in names:
            raise unknown(f"value of target {target}", name, names)
    workdir = _workdir(command)
    values = {n: v.default for n, v in VALUES.items() if n in names and v.default is not None}
    values |= {"name": _job_name(workdir), "cache": f"{workdir}/.jax_cache" if workdir else ""} | given
    for name in (n for n in VALUES if n in names):
        value, about = values.get(name), VALUES[name].about
        if not value:
            raise UserError(f"target {target} needs {name}, {about}: add --set {name}=VALUE")
        if not re.fullmatch(VALUES[name].pattern, value):
            raise UserError(f"--set {name}={value} is not valid: {about}")
    if target == "tpu_vm" and not workdir.startswith("gs://"):
        raise UserError(
            f"target tpu_vm needs a --workdir on gs://, that all hosts can write, not {workdir!r}"
        )
    template, start = TARGETS[target]
    text = (
        _environment()
        .get_template(template)
        .render(
            **values,
            command=list(command),
            commit=git_commit(),
            bin=os.path.dirname(sys.executable),
            here=os.getcwd(),
            exit_file=f"{workdir}/exit_code",
            registry=values.get("image", "").partition("/")[0],
        )
    )
    return text, [word.format(file="{file}", **values) for word in start.split()]


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE), undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    environment.filters["sh"] = lambda x: shlex.quote(x) if isinstance(x, str) else shlex.join(x)
    environment.filters["distributed"] = lambda words: [*words, *{"--distributed"}.difference(words)]
    return environment


def _workdir(command: Sequence[str]) -> str:
    """Returns the value of --workdir in a command, or "" if it has none."""
    for word, following in zip(command, [*command[1:], ""]):
        if word == "--workdir":
            return following.rstrip("/")
        if word.startswith("--workdir="):
            return word.partition("=")[2].rstrip("/")
    return ""


def _job_name(workdir: str) -> str:
    """Returns the last part of a path as a name that all schedulers accept."""
    name = re.sub(r"[^a-z0-9]+", "-", workdir.rpartition("/")[2].lower()).strip("-")
    name = re.sub(r"^(?=\d)", "run-", name)
    if len(name) <= 40:
        return name
    return f"{name[:33]}-{hashlib.sha256(workdir.encode()).hexdigest()[:6]}"


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    options, command = (
        (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    )
    parser = argparse.ArgumentParser(
        description="Starts a vidjax command on a cluster, from a template.",
        usage="%(prog)s TARGET ... -- COMMAND",
    )
    parser.add_argument("target", help=", ".join(TARGETS))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="see README.md")
    parser.add_argument("--dry-run", action="store_true", help="print the file instead of starting it")
    args = parser.parse_args(options)
    try:
        if odd := [x for x in args.set if "=" not in x]:
            raise UserError(f"--set {odd[0]}: write NAME=VALUE")
        text, start = render(args.target, dict(x.split("=", 1) for x in args.set), command)
        if args.dry_run:
            print(text, end="")
            return 0
        suffix = pathlib.Path(TARGETS[args.target][0]).suffix
        with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
            file.write(text)
            file.flush()
            return subprocess.run([word.replace("{file}", file.name) for word in start]).returncode
    except FileNotFoundError as e:
        error = UserError(
            f"cannot run {e.filename}: install it, or use --dry-run and start the file elsewhere"
        )
    except UserError as e:
        error = e
    print(f"launch: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
