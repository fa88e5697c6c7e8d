"""What overrides are planned on, and what of them is a sweep's file."""

from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace

import pytest

from benchrunner.cli.overrides import is_sweep_file, plan_overrides, split_sweep_files, with_settings
from benchrunner.config import hydra_app
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import config_dir


@pytest.fixture
def plan(monkeypatch):
    """Plan rows of so many devices each with a launcher: what was asked on the way, and of the planner."""

    def plan(launcher, *devices, launch, words=("a=1", "mine.yaml"), multirun=False):
        asked = []
        config = {"launcher": SimpleNamespace(name=launcher), "hardware": "wanted"}
        rows = [SimpleNamespace(config=SimpleNamespace(devices=number, **config)) for number in devices]
        expansion = SimpleNamespace(rows=rows)
        node = SimpleNamespace(hardware="there", num_cores=8)
        monkeypatch.setattr(hydra_app, "expand", lambda words, **how: asked.append((words, how)) or expansion)
        monkeypatch.setattr("benchrunner.machine.hardware.resolve", lambda *how: asked.append(how) or "here")
        monkeypatch.setattr("benchrunner.cli.cluster.node_of", lambda *how: asked.append(how) or node)
        monkeypatch.setattr("benchrunner.plan.rules.load_rules", {config_dir() / "compat.yaml": "rules"}.__getitem__)
        monkeypatch.setattr("benchrunner.plan.planner.make_plan", lambda *how, **more: (how, more))
        (given, *how), more = plan_overrides(Namespace(overrides=words, multirun=multirun), launch=launch)
        assert given is expansion
        return rows, asked, how, more

    return plan


def test_cells_for_two_devices_are_two_plans(monkeypatch):
    rows = [SimpleNamespace(config=SimpleNamespace(hardware=SimpleNamespace(name=name))) for name in ("a100", "h200")]
    monkeypatch.setattr(hydra_app, "expand", lambda words, **how: SimpleNamespace(rows=rows))
    with pytest.raises(UsageError, match="hardware: one for all cells, not a100 and h200"):
        plan_overrides(Namespace(overrides=[], multirun=True), launch=False)


@pytest.mark.parametrize(
    ("launcher", "launch"), [("local", True), ("detached", True), ("slurm", False), ("local", False)]
)
def test_what_runs_here_or_not_at_all_is_planned_for_this_machine(plan, launcher, launch):
    _, asked, how, more = plan(launcher, 2, None, 4, launch=launch)
    assert asked == [((["a=1"]), {"multirun": False, "sweep_file": Path("mine.yaml")}), ("wanted", 4)]
    assert (how, more) == (["here", "rules"], {"launch": launch})


def test_what_a_cluster_runs_is_planned_for_its_nodes(plan):
    rows, asked, how, more = plan("slurm", 2, 4, launch=True, words=["a=1"], multirun=True)
    assert asked == [(["a=1"], {"multirun": True, "sweep_file": None}), (rows[0].config, 4)]
    assert (how, more) == (["there", "rules"], {"launch": True, "num_cores": 8})


def test_where_no_cell_says_how_many_devices_it_is_all_of_them(plan):
    assert plan("local", None, launch=True)[1][1] == ("wanted", None)
    assert plan("slurm", None, launch=True)[1][1][1] == 0


def test_no_cell_and_two_sweeps_are_refused(plan):
    with pytest.raises(UsageError, match="leave no cell: a list is empty"):
        plan("local", launch=True)
    with pytest.raises(UsageError, match=r"^one sweep at a time: a\.yaml, b\.yml$"):
        plan("local", 1, launch=True, words=["a.yaml", "x=1", "b.yml"])


def test_settings_of_a_run_are_laid_over_a_frozen_plan(monkeypatch):
    monkeypatch.setattr(hydra_app, "read_values", lambda words: {"read": words})
    monkeypatch.setattr("benchrunner.plan.run_settings.with_run_settings", lambda *how: how)
    assert with_settings("made", []) == "made"
    assert with_settings("made", ["a=1"]) == ("made", {"read": ["a=1"]})


def test_a_sweeps_file_is_no_override():
    words = ["a.yaml", "b=c.yaml", "d.yml", "+sweeps=smoke", "yaml"]
    assert list(map(is_sweep_file, words)) == [True, False, True, False, False]
    assert split_sweep_files(words) == (["b=c.yaml", "+sweeps=smoke", "yaml"], [Path("a.yaml"), Path("d.yml")])
