"""What a worker says in its agony must not leak into a sweep's files, nor break the tables that quote it."""

import os
import re
import socket
import subprocess
import sys
from html.parser import HTMLParser

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.local import LocalLauncher
from benchrunner.plan.plan import Plan
from benchrunner.run.options import RunOptions
from benchrunner.run.sweep import run_plan
from samples import CPU, make_cell, plan_cell

SECRET = "hunter2-planted-value"
SECRETS = {
    "HF_TOKEN": SECRET, "AWS_SECRET_ACCESS_KEY": SECRET, "DB_PASSWORD": SECRET, "MY_API_KEY": SECRET,
    "SOME_URL": f"https://me:{SECRET}@example.org/simple",
}  # fmt: skip
HOST = "node-7-planted"
TINY = [
    "strategy=ddp", "precision=fp32", "devices=2", "seq_len=16", "measure.steps=2", "measure.warmup_steps=1",
    "model.num_layers=1", "model.d_model=32", "model.d_ff=64", "model.vocab_size=64", "hardware=cpu",
    "launcher.preload=false",  # torchrun names the host in its summary
]  # fmt: skip


def named(words):
    """`words`, run on a host of a telling name that does not resolve; null where hosts cannot be renamed."""
    if subprocess.run(["unshare", "--uts", "true"], capture_output=True, check=False).returncode:
        return None
    return ["unshare", "--uts", "sh", "-c", f'hostname {HOST} && exec "$@"', "sh", *words]


def bench(tmp_path, fault):
    """A real sweep of one cell under a fault: what was printed, every file that it left, and the host's name."""
    plain = [sys.executable, "-m", "benchrunner", *TINY, f"out_dir={tmp_path / 'outputs'}"]
    command = named(plain)
    env = os.environ | SECRETS | {"BENCH_FAULT": fault, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    host = HOST if command else socket.gethostname()
    env["NOTE"] = f"on {host}.cluster.example!"
    done = subprocess.run(command or plain, env=env, capture_output=True, text=True, check=False, timeout=600)
    files = [path for path in (tmp_path / "outputs").rglob("*") if path.is_file()]
    return done, {path.name: path.read_bytes().decode(errors="replace") for path in files}, host


def check_nothing_leaks(texts, host):
    assert {"record.json", "rank0.out", "rank1.err", "results.md", "report.html", "plan.json"} <= set(texts)
    pattern = re.compile(rf"(?<![\w.-]){re.escape(host)}(?![\w-])", re.IGNORECASE)
    for name, text in texts.items():
        assert SECRET not in text, name
        assert not pattern.search(text), name


class Tags(HTMLParser):
    def __init__(self):
        super().__init__()
        self.names = set()

    def handle_starttag(self, tag, attrs):
        self.names.add(tag)


def test_a_failing_cell_leaks_nothing_and_breaks_no_table(tmp_path):
    done, texts, host = bench(tmp_path, "hostile_text@1")
    assert done.returncode == 2, done.stderr
    check_nothing_leaks(texts, host)
    assert "planted | fault" in texts["record.json"] and "benchrunner.worker FAILED" in texts["agent.log"]
    page = Tags()
    page.feed(texts["report.html"])
    assert "table" in page.names and not page.names & {"script", "img", "iframe"}
    assert "\x1b" not in done.stdout + done.stderr + texts["results.md"] + texts["results.csv"] + texts["agent.log"]
    for name in ("results.md", "compatibility.md"):
        assert "<script" not in texts[name] and "<img" not in texts[name]
        for block in re.findall(r"(?:^\|.*\n)+", texts[name], re.MULTILINE):
            assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in block.splitlines()}) == 1


@pytest.mark.slow
def test_a_worker_that_prints_its_environment_leaks_nothing(tmp_path):
    done, texts, host = bench(tmp_path, "print_env")
    assert done.returncode == 0, done.stderr
    check_nothing_leaks(texts, host)
    assert "NOTE=on <host>!" in texts["rank0.out"] and "BENCH_ATTEMPT=" in texts["rank1.out"]


def test_no_environment_that_is_printed_holds_a_secret(tmp_path, monkeypatch):
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NOTE", f"on {socket.gethostname()}!")
    planned = plan_cell(make_cell(leaves={"seq_len": 16, "measure.steps": 1, "measure.warmup_steps": 1}))
    plan = Plan(cells=[planned], hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")
    paths = SweepPaths(tmp_path)
    options = RunOptions(environment={"versions": {}}, fault="print_env")
    run_plan(plan, paths, launcher=LocalLauncher(), options=options)
    texts = {path: path.read_bytes().decode(errors="replace") for path in tmp_path.rglob("*") if path.is_file()}
    assert "NOTE=on <host>!" in texts[paths.cell(planned.cell.slug).attempt(1).out(0)]
    assert not [path.name for path, text in texts.items() if SECRET in text]
