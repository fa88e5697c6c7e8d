import pytest

from benchrunner.core import paths
from benchrunner.core.errors import UsageError
from benchrunner.core.paths import SweepPaths, config_dir, place_of


def test_every_file_of_a_sweep_has_its_place(tmp_path):
    sweep = SweepPaths(tmp_path)
    attempt = sweep.cell("debug-1").attempt(2)
    assert attempt.root == tmp_path / "cells" / "debug-1" / "attempt-2"
    names = {"rank1.json": attempt.rank(1), "beat1": attempt.beat(1), "rank1.out": attempt.out(1)}
    names |= {"rank1.err": attempt.err(1), "exits0.json": attempt.exits(), "exits3.json": attempt.exits(3)}
    assert {name: attempt.root / name for name in names} == names
    assert sweep.table("results", "csv") == tmp_path / "results.csv"


def test_the_configuration_is_found_beside_the_package_first(tmp_path, monkeypatch):
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "package")
    monkeypatch.setattr(paths, "CHECKOUT", tmp_path)
    with pytest.raises(UsageError, match="install it whole"):
        config_dir()
    for place in (tmp_path, tmp_path / "package"):
        (place / "conf").mkdir(parents=True)
        (place / "conf" / "config.yaml").touch()
        assert config_dir() == place / "conf"


def test_attempts_and_processes_are_counted_by_their_names(tmp_path):
    sweep = SweepPaths(tmp_path)
    cell = sweep.cell("debug-1")
    assert (cell.last_attempt(), cell.attempts(), sweep.processes("debug-1")) == (0, [], [1])
    for name in ("attempt-2", "attempt-11", "attempt-x", "attempt-३", "other-99", "repeat-2", "repeat-13", "repeat-x"):
        (cell.root / name).mkdir(parents=True)
    (cell.root / "attempt-12").touch()
    assert (cell.last_attempt(), cell.attempts(), sweep.processes("debug-1")) == (12, [2, 11], [1, 2, 13])


def test_places_of_processes_rounds_and_logs(tmp_path):
    sweep = SweepPaths(tmp_path)
    assert (place_of("debug-1", 1), place_of("debug-1", 3)) == ("debug-1", "debug-1/repeat-3")
    assert sweep.claims(2) == tmp_path / "claims" / "2"
    attempt = sweep.cell("debug-1").attempt(1)
    assert attempt.logs(2) == [
        attempt.agent_log,
        *(attempt.root / f"rank{r}.{kind}" for r in (0, 1) for kind in ("out", "err")),
    ]
