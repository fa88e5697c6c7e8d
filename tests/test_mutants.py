"""The list of mutants that live on names functions that are there, and what judges by it works."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LISTED = [line for line in (ROOT / "tests/surviving_mutants.txt").read_text().splitlines() if line[:1].isdigit()]
METHOD = re.compile(r"(?P<module>.+)\.x(?:ǁ(?P<owner>\w+)ǁ|_)(?P<name>\w+)")


@pytest.mark.parametrize("line", LISTED, ids=[line.split()[1] for line in LISTED])
def test_a_listed_function_exists_and_has_a_reason(line):
    count, function, reason = line.split(maxsplit=2)
    found = METHOD.fullmatch(function)
    module = importlib.import_module(f"benchrunner.{found['module']}")
    owner = getattr(module, found["owner"]) if found["owner"] else module
    assert callable(getattr(owner, found["name"])) and int(count) > 0
    assert re.match(r"(same|edge|words|elsewhere)\b", reason)


@pytest.mark.parametrize(
    ("survivors", "code", "said"),
    [
        (["core.files.x_write_text__mutmut_1: survived", "core.files.x_decode__mutmut_1: killed"], 0, ""),
        (["core.files.x_write_text__mutmut_1: killed"], 1, "core.files.x_write_text: none survives"),
        (["core.files.x_decode__mutmut_1: no tests"], 1, "core.files.x_decode: 1 survive, 0 are accepted"),
        (["core.files.x_write_text__mutmut_1: not checked"], 0, ""),
    ],
)
def test_new_survivors_and_stale_lines_are_errors(tmp_path, survivors, code, said):
    results = tmp_path / "results.txt"
    results.write_text("".join(f"    benchrunner.{line}\n" for line in survivors))
    judged = subprocess.run(
        [sys.executable, ROOT / ".ci/judge_mutants", results], capture_output=True, text=True, check=False
    )
    assert judged.returncode == code and judged.stdout.startswith(said)
