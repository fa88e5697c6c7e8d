import os
import subprocess
import sys

import pytest

from benchrunner.core.errors import ConfigError
from benchrunner.core.faults import DEATHS, FAULTS, Fault, fault_in, format_fault, parse_fault, parse_faults


@pytest.mark.parametrize(
    "text", ["hang", "oom@1", "exit:measure", "sigkill@12:teardown", "no_reduce@0", "nan@1/*seed-1-*"]
)
def test_a_fault_reads_back(text):
    assert format_fault(parse_fault(text)) == text


def test_no_fault():
    assert parse_fault(None) is None
    assert parse_fault("") is None
    assert format_fault(None) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("hangs", "did you mean hang?"),
        ("oom@x", "not <kind>"),
        ("oom:lunch", "no phase 'lunch'"),
        ("@1", "not <kind>"),
        ("oom/", "not <kind>"),
    ],
)
def test_a_wrong_fault_is_refused_by_name(text, words):
    with pytest.raises(ConfigError, match="BENCH_FAULT") as error:
        parse_fault(text)
    assert words in str(error.value)


def test_where_a_death_fires():
    everywhere, one = Fault(kind="exit"), Fault(kind="exit", rank=1, phase="measure")
    assert everywhere.fires(0, "build") and everywhere.fires(3, "build") and not everywhere.fires(0, "measure")
    assert one.fires(1, "measure") and not one.fires(0, "measure") and not one.fires(1, "build")


def test_a_lie_never_fires():
    assert not any(Fault(kind=kind).fires(0, "build") for kind in set(FAULTS) - set(DEATHS))


def test_a_fault_strikes_the_cells_that_it_names():
    assert all(Fault(kind="oom").is_planted_in(slug) for slug in ("a-1", "b-1"))
    named = Fault(kind="oom", cells="a-*")
    assert named.is_planted_in("a-1") and not named.is_planted_in("b-1")


def test_each_cell_has_the_first_fault_that_is_planted_in_it():
    text = "oom/a-*,hang@1/?-2,nan"
    assert [fault_in(text, slug).kind for slug in ("a-1", "a-2", "b-2", "b-1")] == ["oom", "oom", "hang", "nan"]
    assert fault_in("oom/a-*", "b-1") is None and fault_in(None, "a-1") is None


@pytest.mark.parametrize("text", ["oom,", ",", "oom,,hang", "oom,hangs"])
def test_each_of_several_faults_must_be_one(text):
    with pytest.raises(ConfigError, match="BENCH_FAULT"):
        parse_faults(text)


def test_the_list_of_faults_needs_no_torch():
    code = "import sys, benchrunner.core.faults; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], env=os.environ, check=False).returncode == 0
