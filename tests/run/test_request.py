import sys
from dataclasses import replace

import pytest

from benchrunner.core.schema import LauncherConfig
from benchrunner.run import request
from benchrunner.run.options import RunOptions
from benchrunner.run.request import expected_min, make_request
from fake_sweeps import make_plan
from samples import CPU, H200, make_cell, plan_cell


def cell(devices=1, nodes=1, seed=0, **leaves):
    kind = "single" if devices * nodes == 1 else "ddp"
    return plan_cell(make_cell(strategy=kind, leaves={"devices": devices, "nodes": nodes, "seed": seed} | leaves))


def asked(paths, cells, hardware=H200, number=1, **options):
    return make_request(make_plan(cells, hardware), cells, paths, RunOptions(fault=None, **options), number)


def test_an_allocation_is_as_large_as_the_largest_cell(paths):
    found = asked(paths, [cell(), cell(4), cell(2, nodes=3)])
    assert (found.name, found.nodes, found.gpus_per_node) == ("bench-cli", 3, 4)


def test_what_the_launcher_says_is_taken(paths):
    chosen = {"launcher.nodes_per_job": 2, "launcher.gpus_per_node": 8, "launcher.time_min": 30}
    found = asked(paths, [cell(2, **chosen)])
    assert (found.nodes, found.gpus_per_node, found.time_min) == (2, 8, 30)


def test_without_gpus_none_are_asked_for(paths):
    assert asked(paths, [cell(2, **{"launcher.gpus_per_node": 8})], CPU).gpus_per_node == 0


def test_the_command_takes_cells_until_a_minute_before_the_end(paths):
    found = asked(paths, [cell(**{"launcher.time_min": 30})], number=4)
    work = [sys.executable, "-m", "benchrunner", "work", str(paths.root.resolve())]
    assert found.command == [*work, "--round=4", "--time=1740s"]
    chosen = {"overrides": ("seed=3",), "mix": True, "infer": False, "repeats": 2, "budget_s": 600.0}
    found = asked(paths, [cell(**{"launcher.time_min": 30})], **chosen)
    flags = ["--round=1", "--time=1740s", "--mix", "--no-infer", "--repeats=2", "--budget=600s"]
    assert found.command == [*work, "seed=3", *flags]


@pytest.mark.parametrize(
    ("cells", "settings", "device_type", "minutes"),
    [
        ([], {}, "cuda", 5),
        ([cell()], {}, "cuda", 5 + 30),
        ([cell(seed=seed) for seed in range(4)], {}, "cuda", 5 + 75),
        ([cell(seed=seed) for seed in range(4)], {"jobs": 2}, "cuda", 5 + 45),
        ([cell(2), cell(), cell(seed=1)], {}, "cuda", 5 + 45),
        ([cell(2), cell(), cell(seed=1)], {"gpus_per_node": 4}, "cuda", 5 + 30),
        ([cell(2), cell(), cell(seed=1)], {}, "cpu", 5 + 60),
        ([cell(2), cell(2, nodes=2)], {}, "cuda", 5 + 38),
        ([cell(2), cell(2, nodes=2)], {"nodes_per_job": 4}, "cuda", 5 + 27),
    ],
)
def test_the_time_is_a_share_of_the_work_and_the_longest_cell_and_half_as_much_again(
    monkeypatch, cells, settings, device_type, minutes
):
    monkeypatch.setattr(request, "expected_row_s", lambda planned, device_type: 600.0)
    assert expected_min(cells, replace(LauncherConfig(name="slurm"), **settings), device_type) == minutes
