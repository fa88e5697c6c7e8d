"""A fault comes from outside: nobody but the door knows of it, and behind the door nothing of it is left."""

import json
import re
from pathlib import Path

import pytest

from benchrunner import worker
from benchrunner.core.faults import parse_fault
from benchrunner.worker.faults.plant import planted
from cells import make_cell, make_context

AWARE = {"__main__.py"}
"""The rank itself reads what is planted in it."""


def test_nothing_but_the_rank_itself_knows_of_faults():
    root = Path(worker.__file__).parent
    modules = [path for path in root.rglob("*.py") if path.parent.name != "faults"]
    assert len(modules) > 40
    knows = {path.name for path in modules if re.search(r"(?i)(?<![a-z])faults?(?![a-z])|planted", path.read_text())}
    assert knows == AWARE


@pytest.mark.parametrize(
    ("kind", "error"),
    [("exception", RuntimeError), ("oom_host", RuntimeError), ("missing", ModuleNotFoundError)],
)
def test_a_death_strikes_on_entering_its_phase(kind, error):
    with planted(parse_fault(f"{kind}@0:measure"), context := make_context(make_cell())):
        context.phase("build")
        with pytest.raises(error):
            context.phase("measure")
    assert json.loads(context.path.read_text())["phase"] == "measure"


def test_a_death_in_the_first_phase_strikes_at_once():
    with (
        pytest.raises(RuntimeError, match="planted fault: exception"),
        planted(parse_fault("exception:start"), make_context(make_cell())),
    ):
        pass


def test_a_phase_entered_again_strikes_nobody():
    context = make_context(make_cell())
    context.phase("build")
    with planted(parse_fault("exception:measure"), context):
        context.phase("build")


def test_a_death_of_another_rank_does_not_strike():
    with planted(parse_fault("exception@1"), context := make_context(make_cell())):
        context.phase("build")


def test_a_death_is_not_waited_for_outside():
    with planted(parse_fault("exception:measure"), context := make_context(make_cell())):
        context.phase("build")
    context.phase("measure")
    assert context.on_phase == []


def test_the_environment_is_printed_whole(capsys, monkeypatch):
    monkeypatch.setenv("MARK_OF_THIS_TEST", "yes")
    with planted(parse_fault("print_env"), context := make_context(make_cell())):
        context.phase("build")
    assert "MARK_OF_THIS_TEST=yes" in capsys.readouterr().out
