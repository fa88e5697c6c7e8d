"""On a real Slurm, set up for it: `make test-slurm`. Each test ends with the tables that an undisturbed sweep has."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchrunner.launch.processes import marked_pids
from slurm_cluster import NODES, SlurmCluster, missing, node_pids

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif("BENCH_TEST_SLURM" not in os.environ, reason="make test-slurm"),
]

BENCH = [sys.executable, "-m", "benchrunner"]
WINDOW = ["measure.steps=2", "measure.warmup_steps=1", "model=debug"]
LONGER = ["measure.steps=40", "measure.warmup_steps=1", "model=debug"]
"""So long that whatever happens after the first cell has ended happens before the last one has."""
NUM_STRUCK = 5
TOLD = ("slug", "status", "reason_code", "checks", "num_parameters", "world_size", "nodes", "first_loss", "final_loss")
"""Columns of the tables that no clock has a say in."""


@pytest.fixture(scope="module")
def slurm():
    if why := missing():
        pytest.skip(why)
    with SlurmCluster() as cluster:
        yield cluster


class Bench:
    """A sweep, started in the background."""

    def __init__(self, home, words, **variables):
        self.home, self.log = home, home / "bench.log"
        self.process = subprocess.Popen(
            [*BENCH, *words], cwd=home, stdout=subprocess.DEVNULL, stderr=self.log.open("a"), env=os.environ | variables
        )

    @property
    def sweep(self):
        return self.home / "outputs" / "latest"

    def jobs(self):
        path = self.sweep / "allocations.json"
        return json.loads(path.read_text())["jobs"] if path.exists() else []

    def records(self):
        found = [json.loads(path.read_text()) for path in self.sweep.glob("cells/*/record.json")]
        return {one["slug"]: one for one in found}

    def table(self):
        """What the final table says, but for what is a matter of time."""
        with (self.sweep / "results.csv").open() as file:
            return [[row[name] for name in TOLD] for row in csv.DictReader(file)]

    def wait_for(self, is_so, limit_s=240):
        end = time.monotonic() + limit_s
        while not is_so():
            assert time.monotonic() < end and self.process.poll() is None, self.log.read_text()
            time.sleep(0.3)

    def wait(self, limit_s=500):
        return self.process.wait(limit_s)


def cells(count, *more, window=WINDOW):
    return ["-m", "launcher=slurm", f"seed=range(0,{count})", "strategy=single", *window, *more]


@pytest.fixture(scope="module")
def undisturbed(slurm, tmp_path_factory):
    """The table of a sweep to which nothing happens."""
    bench = Bench(tmp_path_factory.mktemp("undisturbed"), cells(NUM_STRUCK, window=LONGER))
    assert bench.wait() == 0, bench.log.read_text()
    hold_complete(bench, NUM_STRUCK)
    return sorted(bench.table())


def resume(home):
    done = subprocess.run(
        [*BENCH, "resume", "outputs/latest"], cwd=home, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


def hold_complete(bench, count, before=()):
    """Every cell was measured once, those finished before have not changed, and nothing is left anywhere."""
    records = bench.records()
    assert [one["status"] for one in records.values()] == ["ok"] * count
    assert all(records[slug] == one for slug, one in dict(before).items())
    assert [row[1] for row in bench.table()] == ["ok"] * count
    assert times_measured(bench) == dict.fromkeys(records, 1)
    hold_nothing_left(bench)


def hold_same(bench, undisturbed, before):
    """The same, and the table is that of a sweep to which nothing happened."""
    hold_complete(bench, NUM_STRUCK, before)
    assert sorted(bench.table()) == undisturbed


def times_measured(bench):
    """Slug → attempts in which a rank came to its result."""
    found = {}
    for path in bench.sweep.glob("cells/*/attempt-*/rank0.json"):
        found[path.parts[-3]] = found.get(path.parts[-3], 0) + bool(json.loads(path.read_text()).get("result"))
    return found


def hold_nothing_left(bench):
    """No job, no process of one, and no name of a host in any file."""
    time.sleep(2)
    alive = subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout
    assert alive == "" and [node_pids(node) for node in NODES] == [[], []]
    markers = [json.loads(path.read_text())["marker"] for path in bench.sweep.glob("cells/*/attempt-*/cell.json")]
    assert not any(map(marked_pids, markers))
    assert [path for path in bench.sweep.rglob("*") if path.is_file() and names_a_host(path)] == []


def names_a_host(path):
    host = re.escape(socket.gethostname().partition(".")[0])
    return re.search(rf"bench-node|(?<![\w.-]){host}(?![\w-])", path.read_text(errors="replace")) is not None


def finished(bench):
    return {slug: one for slug, one in bench.records().items() if one["status"] == "ok"}


def struck(tmp_path):
    """A sweep in which one cell is done and others are at work."""
    bench = Bench(tmp_path, cells(NUM_STRUCK, window=LONGER))
    bench.wait_for(lambda: len(finished(bench)) >= 1)
    return bench, finished(bench)


def test_sixty_cells_in_three_jobs(slurm, tmp_path):
    bench = Bench(tmp_path, cells(60, "launcher.jobs=3"))
    assert bench.wait(2400) == 0, bench.log.read_text()
    hold_complete(bench, 60)
    runs = json.loads((bench.sweep / "runs.json").read_text())["runs"]
    assert len(bench.jobs()) <= 3 and runs[-1]["busy_share"] >= 0.9
    print(f"busy {runs[-1]['busy_share']:.1%}")


def test_two_nodes_compute_what_one_does(slurm, tmp_path):
    two = Bench(tmp_path, ["-m", "launcher=slurm", "launcher.nodes_per_job=2", "strategy=ddp,fsdp_stage3", "nodes=2",
                           "devices=1", *WINDOW])  # fmt: skip
    assert two.wait() == 0, two.log.read_text()
    hold_complete(two, 2)
    one = tmp_path / "one"
    one.mkdir()
    alone = Bench(one, ["-m", "strategy=ddp,fsdp_stage3", "devices=2", *WINDOW])
    assert alone.wait() == 0, alone.log.read_text()
    assert losses(two) == losses(alone)
    assert all("nodes-2" in slug for slug in two.records())


def test_a_rank_that_fails_on_another_node_is_named(slurm, tmp_path):
    words = ["-m", "launcher=slurm", "launcher.nodes_per_job=2", "strategy=ddp", "nodes=2", "devices=1", *WINDOW]
    bench = Bench(tmp_path, [*words, "seed=0,1"], BENCH_FAULT="exception@1/*seed-1*")
    assert bench.wait() == 2, bench.log.read_text()
    found = sorted((one["status"], one["reason_code"]) for one in bench.records().values())
    assert found == [("failed", "failed.exception"), ("ok", None)]
    assert [one["evidence"]["rank"] for one in bench.records().values() if one["status"] == "failed"] == [1]
    hold_nothing_left(bench)


def test_a_rank_on_another_node_that_will_not_end_is_killed(slurm, tmp_path):
    words = ["launcher=slurm", "strategy=ddp", "nodes=2", "devices=1", "limits.build_s=20", *WINDOW]
    bench = Bench(tmp_path, words, BENCH_FAULT="ignore_sigterm@1")
    assert bench.wait() == 2, bench.log.read_text()
    (found,) = bench.records().values()
    assert (found["reason_code"], found["evidence"]["rank"]) == ("timeout.build", 1)
    hold_nothing_left(bench)


def test_what_the_submitting_host_is_does_not_matter(slurm, tmp_path):
    setup = 'launcher.setup=["export PATH=/nowhere","export NCCL_DEBUG=WARN"]'
    bench = Bench(tmp_path, cells(1, "compile=eager,inductor", setup), NCCL_DEBUG="INFO")
    assert bench.wait() == 0, bench.log.read_text()
    found = {(one["status"], one["reason_code"]) for one in bench.records().values()}
    assert found == {("ok", None), ("unsupported", "missing.cxx")}
    environment = json.loads((bench.sweep / "environment.json").read_text())
    assert environment["variables"]["NCCL_DEBUG"] == "WARN"


def losses(bench):
    """Strategy → the losses of rank 0."""
    found = {}
    for path in bench.sweep.glob("cells/*/attempt-1/rank0.json"):
        result = json.loads(path.read_text())["result"]
        strategy = "ddp" if "ddp" in path.parts[-3] else "fsdp"
        found[strategy] = [round(loss, 4) for loss in result["losses"]]
    return found


def test_scancel(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    subprocess.run(["scancel", *bench.jobs()], check=True)
    assert bench.wait() == 2
    assert {one["reason_code"] for one in bench.records().values()} == {None, "skipped.cancelled"}
    resume(tmp_path)
    hold_same(bench, undisturbed, before)


def test_requeue(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    subprocess.run(["scontrol", "requeue", *bench.jobs()], check=True)
    assert bench.wait() == 0, bench.log.read_text()
    assert len(bench.jobs()) == 1
    resume(tmp_path)
    hold_same(bench, undisturbed, before)


def test_a_time_limit(slurm, tmp_path):
    bench = Bench(tmp_path, cells(8, window=["measure.steps=250", *WINDOW[1:]]))
    bench.wait_for(lambda: finished(bench))
    subprocess.run(["scontrol", "update", f"jobid={bench.jobs()[0]}", "timelimit=1"], check=True)
    before = finished(bench)
    assert bench.wait(900) == 0, bench.log.read_text()
    assert len(bench.jobs()) >= 2
    resume(tmp_path)
    hold_complete(bench, 8, before)


def test_a_node_that_goes_down(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    node = subprocess.run(["squeue", "-h", "-o", "%N"], capture_output=True, text=True, check=True).stdout.split()[0]
    slurm.stop_node(node)
    try:
        assert bench.wait(900) == 0, bench.log.read_text()
    finally:
        slurm.start_node(node)
    resume(tmp_path)
    hold_same(bench, undisturbed, before)


def test_kill_of_bench_is_followed_by_a_resume_that_adopts(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    bench.process.kill()
    bench.process.wait()
    assert f"following jobs {bench.jobs()[0]}" in resume(tmp_path)
    assert len(bench.jobs()) == 1
    hold_same(bench, undisturbed, before)


def test_an_interrupt_cancels(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    bench.process.send_signal(signal.SIGINT)
    assert bench.wait() == 130
    assert {one["reason_code"] for one in bench.records().values()} == {None, "skipped.interrupted"}
    resume(tmp_path)
    hold_same(bench, undisturbed, before)


def test_preemption_costs_what_is_at_work_alone(slurm, undisturbed, tmp_path):
    bench, before = struck(tmp_path)
    subprocess.run(["srun", "--partition=urgent", "--nodes=2", "sleep", "1"], check=True, capture_output=True)
    assert bench.wait() == 0, bench.log.read_text()
    assert len(bench.jobs()) == 2
    assert sum(len(list(cell.glob("attempt-*"))) for cell in bench.sweep.glob("cells/*")) <= NUM_STRUCK + 1
    resume(tmp_path)
    hold_same(bench, undisturbed, before)


def test_slurm_does_what_the_seam_says(slurm, tmp_path):
    words = [
        sys.executable,
        "-m",
        "benchrunner.launch.conformance",
        "slurm",
        str(tmp_path),
        f"nodelist={','.join(NODES)}",
    ]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_what_no_node_ever_has_is_one_message_and_no_job(slurm, tmp_path):
    bench = Bench(tmp_path, cells(1, "launcher.cpus_per_task=99"))
    assert bench.wait() == 1
    said = bench.log.read_text().splitlines()[-1]
    assert said.startswith("bench: launcher: what it asks for no node of the cluster ever has (")
    assert subprocess.run(["squeue", "-h"], capture_output=True, text=True, check=True).stdout == ""


def test_detach_and_watch(slurm, tmp_path):
    bench = Bench(tmp_path, cells(3, "--detach"))
    assert bench.wait() == 0 and bench.records() == {}
    done = subprocess.run([*BENCH, "watch", "outputs/latest"], cwd=tmp_path, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    Path(bench.log).touch()
    time.sleep(3)
    hold_complete(bench, 3)


@pytest.mark.parametrize(
    ("words", "key"),
    [(["launcher.partition=none"], "launcher.partition"), (["launcher.sbatch.nonsense=1"], "launcher.sbatch")],
)
def test_a_wrong_word_is_one_message(slurm, tmp_path, words, key):
    bench = Bench(tmp_path, cells(1, *words))
    assert bench.wait() == 1
    said = bench.log.read_text()
    assert said.startswith("bench: launcher=slurm: sbatch refuses") and key in said and said.count("\n") == 1
