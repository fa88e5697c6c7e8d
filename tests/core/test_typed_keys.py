"""A misspelt key of what parent and worker share is an error of mypy, where it is written and where it is read."""

import os
import re
import subprocess
import sys

import pytest

from benchrunner.core.paths import CHECKOUT

HEAD = """
from benchrunner.core.environment import Environment
from benchrunner.core.job_file import JobFile
from benchrunner.core.rank_result import RankError, RankResult
from benchrunner.core.record import Grounds, Metrics, RankRow

"""
FUNCTION = """
def example_{number}(
    result: RankResult, error: RankError, metrics: Metrics, row: RankRow, grounds: Grounds,
    environment: Environment, job: JobFile,
) -> None:
    {line}

"""
MISTAKES = [
    ('written: RankResult = {"losses": [1.0]}', "losses", "loses"),
    ('result["choices"] = {"attention": "flash"}', "attention", "atention"),
    ('losses: list[float] = result.get("losses", [])', '"losses"', '"loses"'),
    ('peak: int = result["memory"]["window"]["allocated_bytes"]', "allocated_bytes", "alocated_bytes"),
    ('written: RankError = {"kind": "oom", "type": "E", "message": "no"}', '"type"', '"typ"'),
    ('written: RankError = {"kind": "oom", "type": "E", "message": "no"}', '"oom"', '"out_of_memory"'),
    ('message: str = error["message"]', '"message"', '"mesage"'),
    ('written: Metrics = {"mfu": 0.5}', '"mfu"', '"mffu"'),
    ('mfu: float | None = metrics.get("mfu")', '"mfu"', '"mffu"'),
    ('row["losses"] = [1.0]', "losses", "loses"),
    ('stacks: dict[str, list[str]] = grounds.get("stacks", {})', '"stacks"', '"stack"'),
    ('driver: str | None = environment.get("driver")', '"driver"', '"drivers"'),
    ('marker: str = job["marker"]', '"marker"', '"markers"'),
]
"""A right line, and what is wrong with it once the one word is replaced by the other."""


@pytest.fixture(scope="module")
def complaints(tmp_path_factory):
    """Line of code → whether mypy complains of it, for every line right and wrong."""
    lines = [line for right, old, new in MISTAKES for line in (right, right.replace(old, new))]
    path = tmp_path_factory.mktemp("snippet") / "snippet.py"
    path.write_text(HEAD + "".join(FUNCTION.format(number=n, line=line) for n, line in enumerate(lines)))
    command = [sys.executable, "-m", "mypy", "--no-error-summary", str(path)]
    environ = os.environ | {"MYPYPATH": str(CHECKOUT / "src")}
    done = subprocess.run(command, cwd=CHECKOUT, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stdout + done.stderr
    numbers = {int(found) for found in re.findall(r"snippet\.py:(\d+): error", done.stdout)}
    return {line.strip(): n in numbers for n, line in enumerate(path.read_text().splitlines(), 1)}


@pytest.mark.parametrize(("right", "old", "new"), MISTAKES)
def test_a_misspelt_key_is_an_error(complaints, right, old, new):
    wrong = right.replace(old, new)
    assert wrong != right and complaints[wrong] and not complaints[right]
