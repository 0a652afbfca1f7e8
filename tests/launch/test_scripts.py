"""The shell scripts and the manifest: what they ask of SLURM, Cloud TPU and Kubernetes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path

import pytest
import yaml

from tlc_jax.cli import flags as command_line

LAUNCH = Path(__file__).parents[2] / "launch"
SCRIPTS = sorted(LAUNCH.glob("*.sh"))


def run(*command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        env={**os.environ, **environment},
        cwd=LAUNCH.parent,
        capture_output=True,
        text=True,
        timeout=120,
    )


def put_on_path(folder: Path, name: str, code: str) -> str:
    """A program called `name` in `folder`, and the PATH on which it comes first."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(code)
    (folder / name).chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script) -> None:
    assert os.access(script, os.X_OK)
    assert run("bash", "-n", script).returncode == 0
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    checked = run("shellcheck", script)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("script", "arguments", "message"),
    [
        ("slurm_study.sh", [], "write launch/slurm_study.sh submit"),
        (
            "slurm_study.sh",
            ["submit", "--config=configs/demo.py", "--config.seed=1"],
            "--workdir=DIR is missing",
        ),
        ("tpu_vm.sh", [], "write TPU=NAME"),
        ("tpu_vm.sh", ["pretrain", "--workdir=/mnt/runs/x"], "TPU or ZONE is not set"),
        ("xpk.sh", [], "write CLUSTER=NAME"),
        ("xpk.sh", ["pretrain", "--workdir=gs://b/x"], "CLUSTER or IMAGE is not set"),
    ],
)
def test_a_wrong_command_gets_one_line(tmp_path, script, arguments, message) -> None:
    path = put_on_path(tmp_path, "sbatch", "#!/bin/sh\nexit 1\n")
    ended = run(LAUNCH / script, *arguments, PATH=path, TPU="", ZONE="")
    assert ended.returncode == 2
    assert len(ended.stderr.splitlines()) == 1
    assert message in ended.stderr


LISTED = """\
0\tdone\tpretrain-a\t-
1\tready\tpretrain-b\t-
2\tready\tfinetune-a\t0
3\twaiting\tfinetune-b\t1
4\twaiting\tcompress-a-dense\t2
5\twaiting\tcompress-b-dense\t3
6\twaiting\tcompress-b-small\t3
"""
SBATCH = """#!/bin/sh
echo "$@" >>"$CALLS"
wc -l <"$CALLS"
"""


def test_a_study_is_submitted_as_arrays_that_wait_for_what_they_need(tmp_path) -> None:
    path = put_on_path(tmp_path / "bin", "sbatch", SBATCH)
    put_on_path(tmp_path / "bin", "tlc", f"#!/bin/sh\nprintf '{LISTED}'\n")
    workdir, calls = tmp_path / "study", tmp_path / "calls"
    settings = {
        "PATH": path,
        "CALLS": str(calls),
        "SBATCH_FLAGS": "--gres=gpu:1 --time=60",
        "REPORT_FLAGS": "--mem=4G",
    }
    ended = run(
        LAUNCH / "slurm_study.sh", "submit", "--config=c.py", f"--workdir={workdir}", **settings
    )
    assert ended.returncode == 0, ended.stderr
    submitted = [line.split() for line in calls.read_text().splitlines()]
    chosen = [
        [word for word in words if re.match("--(array|dependency|gres|mem|kill)", word)]
        for words in submitted
    ]
    assert chosen == [
        ["--array=1,2", "--gres=gpu:1"],
        ["--array=3", "--dependency=afterok:1_1", "--kill-on-invalid-dep=yes", "--gres=gpu:1"],
        ["--array=4", "--dependency=afterok:1_2", "--kill-on-invalid-dep=yes", "--gres=gpu:1"],
        ["--array=5,6", "--dependency=afterok:2_3", "--kill-on-invalid-dep=yes", "--gres=gpu:1"],
        ["--dependency=afterany:1:2:3:4", "--mem=4G"],
    ]
    assert [words[-3] for words in submitted] == ["element"] * 4 + ["report"]
    assert (workdir / "slurm").is_dir()


def test_logs_of_a_study_in_a_bucket_lie_where_it_was_submitted(tmp_path) -> None:
    path = put_on_path(tmp_path / "bin", "sbatch", SBATCH)
    put_on_path(tmp_path / "bin", "tlc", "#!/bin/sh\nprintf '0\tready\ta\t-\n'\n")
    command = [LAUNCH / "slurm_study.sh", "submit", "--config=c.py", "--workdir=gs://BUCKET/s1"]
    settings = {"PATH": path, "CALLS": str(tmp_path / "calls")}
    ended = subprocess.run(command, env={**os.environ, **settings}, cwd=tmp_path)
    assert ended.returncode == 0
    element, _ = (tmp_path / "calls").read_text().splitlines()
    assert f"--output={tmp_path}/s1/slurm/%A-%a.log" in element
    assert "--workdir=gs://BUCKET/s1" in element
    assert (tmp_path / "s1" / "slurm").is_dir() and not (tmp_path / "gs:").exists()


@pytest.mark.parametrize(
    ("status", "state", "restarts", "requeued"),
    [
        (75, "RUNNING", 0, True),
        (143, "RUNNING", 3, True),
        (75, "COMPLETING", 0, False),
        (75, "RUNNING", 50, False),
    ]
    + [(code, "RUNNING", 0, False) for code in (0, 1, 2)],
)
def test_an_element_is_requeued_when_it_was_stopped_early(
    tmp_path, status, state, restarts, requeued
) -> None:
    path = put_on_path(tmp_path, "srun", f'#!/bin/sh\necho "$@"\nexit {status}\n')
    put_on_path(tmp_path, "squeue", f"#!/bin/sh\necho {state}\n")
    put_on_path(tmp_path, "scontrol", '#!/bin/sh\necho scontrol "$@"\n')
    slurm = {
        "SLURM_ARRAY_JOB_ID": "7",
        "SLURM_ARRAY_TASK_ID": "4",
        "SLURM_RESTART_COUNT": str(restarts),
    }
    ended = run(
        LAUNCH / "slurm_study.sh", "element", "--config=c.py", "--workdir=w", PATH=path, **slurm
    )
    assert ended.returncode == status
    assert "tlc study --config=c.py --workdir=w --job=4" in ended.stdout
    assert ("scontrol requeue 7_4" in ended.stdout) == requeued


@pytest.mark.parametrize(
    ("state", "status", "said"), [("done", 0, "the study is complete"), ("failed", 1, "4\tfailed")]
)
def test_the_report_names_missing_jobs(tmp_path, state, status, said) -> None:
    path = put_on_path(
        tmp_path,
        "tlc",
        f"#!/bin/sh\n[ $1 = report ] || printf '0\tdone\ta\t-\n4\t{state}\tb\t0\n'\n",
    )
    ended = run(LAUNCH / "slurm_study.sh", "report", "--config=c.py", "--workdir=w", PATH=path)
    assert ended.returncode == status
    assert said in ended.stdout + ended.stderr


# A host is a folder that is its $HOME; the slice's state is a file.
GCLOUD = f"""#!{sys.executable}
import os, pathlib, shutil, subprocess, sys
root = pathlib.Path(os.environ["CLOUD"])
words = [word for word in sys.argv[3:] if not word.startswith("--")]
flags = dict(word.split("=", 1) for word in sys.argv if word.startswith("--") and "=" in word)
with (root / "calls").open("a") as file:
    print(*words[:2], flags.get("--worker", ""), file=file)
kind, verb, *rest = words
hosts = sorted(root.glob("host-*"))
if "--worker" in flags and flags["--worker"] != "all":
    hosts = [root / ("host-" + flags["--worker"])]
if verb == "describe":
    state = (root / "state").read_text()
    if kind == "queued-resources":
        state = "ACTIVE"
    sys.exit(print(state) if state != "GONE" else "ERROR: NOT_FOUND: no such resource")
if verb == "create":
    (root / "state").write_text("READY")
if verb == "ssh":
    running = [
        subprocess.Popen(
            ["bash", "-c", flags["--command"]],
            cwd=host,
            env={{**os.environ, "HOME": str(host)}},
            start_new_session=True,  # what is killed here goes on there
        )
        for host in hosts
    ]
    sys.exit(max(process.wait() for process in running))
if verb == "scp":
    source, target = rest
    for host in hosts:
        here, there = (
            str(host / name.split(":", 1)[1]) if name.startswith("slice:") else name
            for name in (source, target)
        )
        shutil.copy(here, there)
"""
PYTHON = """#!/bin/sh
mkdir -p .venv/bin
printf '#!/bin/sh\\n' >.venv/bin/python && chmod +x .venv/bin/python
cp "$CLOUD/tlc" .venv/bin/tlc
"""


@pytest.fixture
def cloud(tmp_path) -> dict[str, str]:
    """A slice of two hosts, and the environment in which gcloud finds it."""
    for index in range(2):
        (tmp_path / f"host-{index}").mkdir()
    (tmp_path / "state").write_text("READY")
    (tmp_path / "tlc").touch()
    path = put_on_path(tmp_path / "bin", "gcloud", GCLOUD)
    put_on_path(tmp_path / "bin", "python-of-host", PYTHON)
    return {
        "PATH": path,
        "CLOUD": str(tmp_path),
        "TPU": "slice",
        "ZONE": "here",
        "PYTHON": "python-of-host",
        "POLL": "0.1",
        "RESULTS": str(tmp_path / "results"),
    }


def install_tlc(cloud: dict[str, str], code: str) -> None:
    """What `tlc` does on a host. `$HOME` ends in the host's number, `$ATTEMPT` is 1, 2, ..."""
    note = 'echo x >>"$HOME/attempts"\nATTEMPT=$(wc -l <"$HOME/attempts")\nHOST=${HOME##*-}\n'
    put_on_path(Path(cloud["CLOUD"]), "tlc", f"#!/bin/bash\n{note}{code}\n")


def train(cloud: dict[str, str], *more: str) -> subprocess.CompletedProcess[str]:
    return run(
        LAUNCH / "tpu_vm.sh", "pretrain", f"--workdir={cloud['CLOUD']}/shared run", *more, **cloud
    )


def test_results_in_a_bucket_stay_there(cloud) -> None:
    install_tlc(cloud, "true")
    ended = run(LAUNCH / "tpu_vm.sh", "pretrain", "--workdir=gs://BUCKET/run", **cloud)
    assert ended.returncode == 0, ended.stderr
    assert "results are in gs://BUCKET/run" in ended.stderr
    assert not Path(cloud["RESULTS"]).exists()
    ended = run(LAUNCH / "tpu_vm.sh", "pretrain", "--workdir=run", **cloud)
    assert ended.returncode == 2 and "must be gs://BUCKET/FOLDER" in ended.stderr


def attempts_of(cloud: dict[str, str], host: int) -> int:
    return len(Path(cloud["CLOUD"], f"host-{host}", "attempts").read_text().split())


def test_a_slice_runs_the_same_command_until_it_is_done(cloud) -> None:
    install_tlc(
        cloud,
        'mkdir -p "$CLOUD/shared run"; echo "on $HOST: $*"; [ "$ATTEMPT" -ge 2 ] || exit 75\n'
        '[ "$HOST" -ne 0 ] || echo "{}" >"$CLOUD/shared run/result.json"',
    )
    ended = train(cloud, "--config.study.sizes=('1x64', '2x64')")
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [attempts_of(cloud, host) for host in range(2)] == [2, 2]
    for host in range(2):
        assert (
            f"on {host}: pretrain --workdir={cloud['CLOUD']}/shared run "
            "--config.study.sizes=('1x64', '2x64')" in (ended.stdout)
        )
    assert (Path(cloud["RESULTS"]) / "result.json").read_text() == "{}\n"


@pytest.mark.parametrize("status", [1, 2])
def test_a_slice_does_not_repeat_what_no_retry_mends(cloud, status) -> None:
    install_tlc(cloud, f'[ "$HOST" -eq 1 ] && exit {status} || exit 75')
    assert train(cloud).returncode == status
    assert attempts_of(cloud, 1) == 1


def test_a_slice_that_is_gone_is_reported_or_replaced(cloud) -> None:
    install_tlc(cloud, 'mkdir -p "$CLOUD/shared run"; touch "$CLOUD/shared run/result.json"')
    (Path(cloud["CLOUD"]) / "state").write_text("PREEMPTED")
    ended = train(cloud)
    assert ended.returncode == 75
    assert "the slice slice is PREEMPTED: create it again" in ended.stderr
    ended = train({**cloud, "CREATE": "--accelerator-type=v5litepod-16 --spot"})
    assert ended.returncode == 0, ended.stderr
    calls = (Path(cloud["CLOUD"]) / "calls").read_text()
    assert (
        calls.index("queued-resources delete")
        < calls.index("queued-resources create")
        < calls.index("tpu-vm ssh")
    )


UNTIL_STOPPED = (
    'trap "echo stopping; exit 75" TERM; echo started; '
    "for ((i = 0; i < 900; i++)); do sleep 0.1; done"
)


@contextmanager
def started(cloud: dict[str, str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """The running launcher. At the end it is killed with what it started here, not on the hosts."""
    command = [str(LAUNCH / "tpu_vm.sh"), "pretrain", f"--workdir={cloud['CLOUD']}/run"]
    with output.open("wb") as file:
        process = subprocess.Popen(
            command, env={**os.environ, **cloud}, stdout=file, stderr=file, start_new_session=True
        )
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_until(there: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not there():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_lost_connection_does_not_stop_the_run(cloud, tmp_path) -> None:
    install_tlc(cloud, UNTIL_STOPPED)
    output = tmp_path / "output"

    def all_started() -> bool:
        return output.read_text().count("started") == 2

    with started(cloud, output):
        wait_until(all_started)
    with started({**cloud, "RETRIES": "0"}, output) as process:
        wait_until(all_started)  # seen again from the start of the run's log
        assert run(LAUNCH / "tpu_vm.sh", "stop", **cloud).returncode == 0
        assert process.wait(timeout=60) == 75
        wait_until(lambda: output.read_text().count("stopping") == 2)
    assert [attempts_of(cloud, host) for host in range(2)] == [1, 1]


def test_a_signal_stops_the_hosts(cloud, tmp_path) -> None:
    install_tlc(cloud, UNTIL_STOPPED)
    output = tmp_path / "output"
    with started(cloud, output) as process:
        wait_until(lambda: output.read_text().count("started") == 2)
        process.terminate()
        assert process.wait(timeout=60) == 75
    assert output.read_text().count("stopping\n") == 3  # the launcher says so too
    assert [attempts_of(cloud, host) for host in range(2)] == [1, 1]


def test_the_manifest_starts_one_pod_for_each_host_and_retries_what_a_retry_mends() -> None:
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    assert manifest["spec"]["network"] == {
        "enableDNSHostnames": True,
        "subdomain": manifest["metadata"]["name"],
    }
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = replicated["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]

    chips = container["resources"]["limits"]["google.com/tpu"]
    assert container["resources"]["requests"]["google.com/tpu"] == chips
    topology = pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"]
    hosts = prod(int(side) for side in topology.split("x")) // chips
    assert (replicated["replicas"], job["completionMode"]) == (1, "Indexed")
    assert job["completions"] == job["parallelism"] == hosts

    # Status 1 and 2 end the JobSet, by the reason that its rule names. Every other failure starts
    # all hosts again.
    (rule,) = job["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"] == {
        "containerName": container["name"],
        "operator": "In",
        "values": [1, 2],
    }
    assert (job["backoffLimit"], pod["restartPolicy"]) == (0, "Never")
    failure = manifest["spec"]["failurePolicy"]
    assert failure["maxRestarts"] > 0
    assert failure["restartStrategy"] == "BlockingRecreate"
    (jobset_rule,) = failure["rules"]
    assert (jobset_rule["action"], jobset_rule["onJobFailureReasons"]) == (
        "FailJobSet",
        ["PodFailurePolicy"],
    )


def test_the_manifest_runs_a_command_that_tlc_takes() -> None:
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["command"] == ["tlc"]
    command = command_line.parse(container["args"])
    assert command.name == "pretrain"
    assert command.config.impl.processes == "auto"
    # Pods have no disk that outlives them.
    for path in (command.workdir, command.config.data.cache):
        assert str(path).startswith("gs://BUCKET/")


def test_skypilot_runs_a_command_that_tlc_takes_and_repeats_status_75_alone() -> None:
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    assert {"name", "resources", "workdir", "setup", "run"} == task.keys()
    assert task["resources"]["job_recovery"] == {
        "max_restarts_on_errors": 0,
        "recover_on_exit_codes": [75],
    }
    for code in (task["setup"], task["run"]):
        assert run("bash", "-n", "-c", code).returncode == 0
    start, program, *arguments = shlex.split(task["run"].replace("\\\n", " "))
    assert (start, program) == ("exec", "~/tlc/bin/tlc")
    command = command_line.parse(arguments)
    assert str(command.workdir).startswith("gs://BUCKET/")
    assert command.config.impl.processes == "auto"


def test_xpk_gets_the_command_in_one_word_and_repeats_status_75(tmp_path) -> None:
    path = put_on_path(tmp_path, "xpk", '#!/bin/sh\nprintf "%s\\n" "$@"\n')
    arguments = ["study", "--config=configs/demo.py", "--workdir=gs://BUCKET/demo"]
    arguments.append("--config.study.sizes=('1x64', '2x64')")
    xpk = {"CLUSTER": "c", "IMAGE": "i", "XPK": "--project=p --spot"}
    ended = run(LAUNCH / "xpk.sh", *arguments, PATH=path, **xpk)
    assert ended.returncode == 0, ended.stderr
    words = ended.stdout.splitlines()
    assert words[:2] == ["workload", "create"]
    assert {"--cluster=c", "--docker-image=i", "--project=p", "--spot"} <= set(words)
    assert {"--restart-on-exit-codes=75", "--max-restarts=50"} <= set(words)
    assert words[-1].startswith("--command=exec tlc ")
    given = shlex.split(words[-1].removeprefix("--command=exec tlc "))
    assert given == arguments
    assert command_line.parse(given).config.study.sizes == ("1x64", "2x64")
    ended = run(LAUNCH / "xpk.sh", "study", "--workdir=/runs/x", PATH=path, **xpk)
    assert ended.returncode == 2 and "--workdir=gs://BUCKET/FOLDER is missing" in ended.stderr
