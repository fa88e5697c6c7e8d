"""What a sweep was measured with, and what is said where this machine is something else."""

import json

import pytest

from benchrunner.core.errors import SweepDirError
from benchrunner.core.paths import SweepPaths
from benchrunner.store import environment_file
from benchrunner.store.environment_file import environment_changes, read_environment, settle_environment
from samples import make_cell, make_record

HERE = {
    "benchrunner": "0.2.0", "versions": {"torch": "2.13.0"}, "driver": "570.1", "gpus": [{"name": "NVIDIA H200"}] * 2,
    "git": {"commit": "abc"},
}  # fmt: skip


@pytest.fixture
def paths(tmp_path):
    return SweepPaths(tmp_path)


def settle(paths, now=HERE, records=(), *, resume=True, mix=False, **more):
    known = {record.slug: record for record in records}
    return settle_environment(paths, now, known, resume=resume, mix=mix, **more)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, []),
        ({"benchrunner": "0.1.0"}, ["benchrunner 0.1.0, here 0.2.0"]),
        ({"versions": {"torch": "2.11.0"}}, ["torch 2.11.0, here 2.13.0"]),
        ({"versions": {}}, ["torch none, here 2.13.0"]),
        ({"driver": None}, ["driver none, here 570.1"]),
        ({"gpus": [{"name": "NVIDIA A100"}, {}]}, ["GPU NVIDIA A100, unknown, here NVIDIA H200"]),
        ({"gpus": []}, ["GPU none, here NVIDIA H200"]),
        ({"gpus": [{"name": "NVIDIA H200"}]}, []),
        ({"git": {"commit": "def"}}, []),
        ({"benchrunner": "0.1.0", "driver": "1"}, ["benchrunner 0.1.0, here 0.2.0", "driver 1, here 570.1"]),
    ],
)
def test_what_makes_numbers_incomparable(other, said):
    assert environment_changes(HERE | other, HERE) == said


def test_further_processes_are_of_the_same_commit():
    other = HERE | {"git": {"commit": "def"}}
    assert environment_changes(other, HERE, same_commit=True) == ["commit def, here abc"]
    assert environment_changes(HERE, {**HERE, "git": {}}, same_commit=True) == ["commit abc, here none"]


def test_the_first_run_writes_what_is_here(paths):
    assert settle(paths, resume=False) == (HERE, [], [])
    assert read_environment(paths) == (HERE, None)


def test_what_is_written_stays_and_is_what_records_are_made_with(paths):
    settle(paths, resume=False)
    before = paths.environment.stat()
    later = HERE | {"python": "3.12"}
    assert settle(paths, later) == (HERE, [], []) and read_environment(paths)[0] == HERE
    assert settle(paths, later | {"driver": "1"}, resume=False) == (HERE, [], []), "nobody has asked for a resume"
    assert paths.environment.stat() == before


def test_another_machine_is_refused_unless_it_may_be_mixed(paths):
    settle(paths, resume=False)
    other = HERE | {"driver": "1", "git": {"commit": "def"}}
    said = f"{paths.root} was measured with driver 570.1, here 1; resume with --mix to mix them"
    with pytest.raises(SweepDirError) as refused:
        settle(paths, other)
    assert str(refused.value) == said
    with pytest.raises(SweepDirError, match=r"driver 570\.1, here 1; commit abc, here def; resume"):
        settle(paths, other, same_commit=True)
    assert settle(paths, other, mix=True) == (other, ["mixed_environment"], [])
    assert read_environment(paths)[0] == HERE


@pytest.mark.parametrize("is_known", [True, False])
def test_a_damaged_file_is_replaced_by_what_a_record_knows(paths, is_known):
    paths.environment.write_text("{")
    before = HERE | {"python": "3.11"}
    cell = make_cell()
    records = [make_record(make_cell(leaves={"seed": 1}), environment={}), make_record(cell, environment=before)]
    environment, flags, (note,) = settle(paths, records=records if is_known else ())
    assert (environment, flags) == (before if is_known else HERE, [])
    assert json.loads(paths.environment.read_text()) == environment
    assert note.startswith("environment.json is damaged and was replaced: ") and not note.endswith("None")


@pytest.mark.parametrize(("text", "more"), [(None, ""), ("{", " and is damaged: ")])
def test_a_file_that_cannot_be_written_is_said(paths, monkeypatch, text, more):
    def full(path, data):
        raise OSError(28, "No space left on device")

    if text:
        paths.environment.write_text(text)
    monkeypatch.setattr(environment_file, "write_json", full)
    environment, _, (note,) = settle(paths)
    assert environment == HERE
    assert note.startswith(f"environment.json cannot be written (No space left on device){more}")
    assert more or note.endswith("device)")
