"""The nightly's workflow, by its own steps, on a tiny sweep: good nights, a slower one, one on which a cell dies."""

import json
import os
import subprocess
import sys

import pytest
import yaml

from benchrunner.compare.lock_file import read_lock
from benchrunner.config.hydra_app import expand
from benchrunner.core.paths import CHECKOUT, PACKAGE
from benchrunner.plan.planner import make_cells
from samples import CPU

WORKFLOW = yaml.safe_load((CHECKOUT / ".github" / "workflows" / "nightly.yml").read_text())
STEPS = WORKFLOW["jobs"]["nightly"]["steps"]
COMMANDS = {step["name"]: step["run"] for step in STEPS if "run" in step}

SWEEP = """\
# @package _global_
hydra:
  mode: MULTIRUN
  sweeper:
    params:
      precision: bf16,nf4
measure: {warmup_steps: 1, steps: 3}
repeats: 2
seq_len: 32
"""
NO_SPEED = "--metric memory"
"""Steps of milliseconds take twice or three times as long beside other work; no night is to fail for that."""


def test_the_steps_are_those_of_the_nightly():
    assert list(COMMANDS) == ["Install", "Run", "Verify", "Compare", "Keep"]
    assert COMMANDS["Install"] == "make .venv/.bench"
    assert not any("${{" in command for command in COMMANDS.values()), "what a step runs, runs here too"


def test_a_run_is_kept_only_when_both_gates_let_it_pass():
    conditions = {step.get("name", step.get("uses")): step.get("if", "${{ success() }}") for step in STEPS}
    assert conditions["Verify"] == "${{ success() }}"
    assert conditions["Keep"] == conditions["actions/cache/save@v4"] == "${{ success() || inputs.accept }}"
    assert "!cancelled()" in conditions["actions/upload-artifact@v4"]


def test_the_report_of_every_sweep_is_where_it_is_uploaded_from():
    [upload] = [step for step in STEPS if "upload" in step.get("uses", "")]
    assert upload["with"]["path"] == "outputs/${{ matrix.sweep }}"
    assert WORKFLOW["jobs"]["nightly"]["env"]["OUT"] == "outputs"


@pytest.mark.parametrize("path", sorted((CHECKOUT / "sweeps").glob("*.lock")), ids=lambda path: path.stem)
def test_a_lock_has_the_cells_of_its_sweep(path):
    cells = make_cells(expand([f"+sweeps={path.stem}"], multirun=False).rows, CPU)
    assert [one["cell_id"] for one in read_lock(path)["cells"]] == [cell.cell_id for cell in cells]


def say_speed(folder, tokens_per_s):
    """Have every record say so, each repeat a thousandth more than the one before."""
    for number, path in enumerate(sorted(folder.resolve().rglob("record.json"))):
        record = json.loads(path.read_text())
        if not record["metrics"]:
            continue
        record["metrics"]["tokens_per_second_per_device"] = tokens_per_s * (1 + number / 1000)
        path.write_text(json.dumps(record))


@pytest.mark.slow
def test_nights(tmp_path):
    sweep, summary, good = tmp_path / "tiny.yaml", tmp_path / "summary.md", tmp_path / "good" / "tiny"
    sweep.write_text(SWEEP)
    out = tmp_path / "out"
    environment = {**os.environ, "SWEEP": str(sweep), "OUT": str(out), "GOOD": str(good), "COMPARE_FLAGS": NO_SPEED}
    environment |= {"BENCH": f"{sys.executable} -m benchrunner", "GITHUB_STEP_SUMMARY": str(summary)}
    environment["PYTHONPATH"] = str(PACKAGE.parent)

    def night(steps=tuple(COMMANDS)[1:], **more):
        """The exit code of each step until one fails, and what was printed."""
        codes, printed = {}, ""
        for name in steps:
            done = subprocess.run(
                ["bash", "-e", "-c", COMMANDS[name]],
                cwd=CHECKOUT,
                env=environment | more,
                capture_output=True,
                text=True,
            )
            codes[name], printed = done.returncode, printed + done.stdout + done.stderr
            if done.returncode:
                break
        return codes, printed

    codes, printed = night()
    assert (codes, "no such file; bench lock DIR writes it" in printed) == ({"Run": 0, "Verify": 1}, True)
    words = [sys.executable, "-m", "benchrunner", "lock", str(out / "latest")]
    subprocess.run(words, env=environment, check=True)
    assert (tmp_path / "tiny.lock").read_text().count("status:") == 2

    codes, printed = night()
    assert codes == {"Run": 0, "Verify": 0, "Compare": 0, "Keep": 0}
    assert "no good run yet" in printed and (good / "plan.json").is_file()

    codes, printed = night()
    assert set(codes.values()) == {0}, printed
    assert "PASS: 2 of 2 cells" in printed and "memory of tiny/" in printed
    assert "# Verification: " in summary.read_text() and "# Comparison: " in summary.read_text()
    assert (out / "latest" / "compare.xml").is_file() and (out / "latest" / "report.html").is_file()

    for folder, tokens_per_s in ((good, 1000.0), (out / "latest", 800.0)):
        say_speed(folder, tokens_per_s)
    codes, printed = night(steps=["Compare"], COMPARE_FLAGS="")
    assert codes == {"Compare": 3} and "FAIL" in printed and "+25.0 %" in printed, printed
    say_speed(out / "latest", 980.0)
    codes, printed = night(steps=["Compare"], COMPARE_FLAGS="")
    assert codes == {"Compare": 0} and "PASS" in printed, printed

    before = (good / "plan.json").read_text()
    codes, printed = night(BENCH_FAULT="exception:measure")
    assert codes == {"Run": 0, "Verify": 3}
    assert "unexpected failure" in printed and (good / "plan.json").read_text() == before
