"""The map follows the land."""

import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(path.relative_to(ROOT / "src/benchrunner") for path in (ROOT / "src/benchrunner").rglob("*.py"))


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_structure_names_every_module(module):
    assert f"| `{module}` |" in (ROOT / "docs/structure.md").read_text()


def test_structure_names_no_module_that_is_gone():
    lines = (ROOT / "docs/structure.md").read_text().splitlines()
    named = {line.split("`")[1] for line in lines if line.startswith("| `") and ".py` |" in line}
    assert named == {str(module) for module in MODULES}


def test_the_worker_is_kept_from_every_other_module_of_the_parent():
    data = {"arithmetic", "cell", "errors", "faults", "heartbeat", "paths", "record", "small_scale"}
    parents = {path.parts[0].removesuffix(".py") for path in MODULES} - {"worker", "__init__", "__main__"}
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (forbidden,) = [contract["forbidden_modules"] for contract in contracts if contract["id"] == "worker"]
    assert set(forbidden) == {f"benchrunner.{name}" for name in parents - data}
