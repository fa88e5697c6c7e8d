import pytest

from benchrunner.core import paths
from benchrunner.core.paths import SweepPaths, config_dir


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
    with pytest.raises(FileNotFoundError, match="beside"):
        config_dir()
    for place in (tmp_path, tmp_path / "package"):
        (place / "conf").mkdir(parents=True)
        (place / "conf" / "config.yaml").touch()
        assert config_dir() == place / "conf"
