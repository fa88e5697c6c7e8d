from dataclasses import replace

import pytest

from benchrunner.core.cell import config_digest
from benchrunner.core.errors import ConfigError
from benchrunner.plan.plan import Plan
from benchrunner.plan.run_settings import with_run_settings
from benchrunner.store.plan_file import load_plan, write_plan
from samples import CPU, make_cell, plan_cell

CELLS = [plan_cell(make_cell(leaves={"seed": seed})) for seed in range(3)]
PLAN = Plan(cells=CELLS, hardware=CPU, sweep_name="cli", arguments=[], created_at="2026-11-21T03:00:00+00:00")


@pytest.mark.parametrize(
    "values",
    [{"timeout_s": 7.0, "brake": None, "retries": 0}, {"limits.build_s": 9.0}, {"launcher.partition": "long"}],
)
def test_settings_of_the_run_are_changed_and_no_cell_becomes_another_one(values):
    made = with_run_settings(PLAN, values)
    for before, after in zip(PLAN.cells, made.cells, strict=True):
        assert (after.cell.cell_id, after.cell.slug) == (before.cell.cell_id, before.cell.slug)
        assert config_digest(after.cell.config) == before.cell.config_digest
        assert after.cell.overrides == before.cell.overrides | values
    assert PLAN.cells[0].cell.config == make_cell(leaves={"seed": 0}).config


def test_every_cell_gets_them():
    made = with_run_settings(PLAN, {"limits.build_s": 9.0, "launcher.partition": "long", "timeout_s": 7.0, "brake": 2})
    assert made.settings.launcher == replace(PLAN.settings.launcher, partition="long")
    configs = [planned.cell.config for planned in made.cells]
    assert {(config.limits.build_s, config.limits.start_s, config.timeout_s) for config in configs} == {
        (9.0, None, 7.0)
    }
    assert made.settings.brake == 2 and [config.seed for config in configs] == [0, 1, 2]


@pytest.mark.parametrize("key", ["seq_len", "measure.steps", "out_dir", "launcher", "launcher.name", "compat", "model"])
def test_what_a_measurement_depends_on_is_frozen(key):
    with pytest.raises(ConfigError, match="is frozen in the plan; a resume may change timeout_s, ") as caught:
        with_run_settings(PLAN, {key: "x"})
    assert caught.value.key == key


def test_the_plan_that_is_on_disk_stays(tmp_path):
    directory = write_plan(PLAN, tmp_path)
    with_run_settings(load_plan(directory), {"timeout_s": 7.0})
    assert load_plan(directory) == PLAN
