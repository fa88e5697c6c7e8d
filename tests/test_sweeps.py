"""The declared sweeps hold what their headers say."""

import itertools
import re

import pytest

from benchrunner.hydra_app import expand
from benchrunner.paths import config_dir

SWEEPS = sorted((config_dir() / "sweeps").glob("*.yaml"))
SMOKE_AXES = ("strategy", "precision", "compile", "activation_checkpointing")


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_header_names_purpose_cells_and_device_time(path):
    text = path.read_text()
    assert "# Purpose:" in text and "# Device time:" in text
    line = re.search(r"# Cells: (.*)", text)[1]
    claimed = int(re.search(r"= (\d+)", line)[1] if "=" in line else re.search(r"\d+", line)[0])
    rows = expand([f"+sweeps={path.stem}"], multirun=False).rows
    assert sum(row.excluded_reason is None for row in rows) == claimed


def test_smoke_covers_every_pair_of_values_once_each():
    rows = expand(["+sweeps=smoke"], multirun=False).rows
    for one, other in itertools.combinations(SMOKE_AXES, 2):
        seen = {(row.axes[one], row.axes[other]) for row in rows}
        values = ({row.axes[axis] for row in rows} for axis in (one, other))
        assert seen == set(itertools.product(*values))


def test_smoke_has_one_cold_cell_and_shares_the_other_caches():
    rows = expand(["+sweeps=smoke"], multirun=False).rows
    assert [row.config["compile"]["cache"] for row in rows].count("cold") == 1
