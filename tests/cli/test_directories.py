"""Which directories a command means: where a link leads now, and what is an override beside them."""

from pathlib import Path

import pytest

from benchrunner.cli.directories import directory_and_overrides, sweep_directories, sweep_directory
from benchrunner.core.errors import UsageError


def test_a_link_is_what_it_leads_to_now(tmp_path):
    (tmp_path / "one").mkdir()
    (tmp_path / "latest").symlink_to("one")
    assert sweep_directory("show", [str(tmp_path / "latest")]) == tmp_path / "one"
    assert sweep_directories("report", [str(tmp_path / "latest"), str(tmp_path)]) == [tmp_path / "one", tmp_path]


def test_what_has_an_equals_sign_and_is_no_directory_is_an_override(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a=b").mkdir()
    found = directory_and_overrides("resume", ["timeout_s=60", "a=b", "brake=null"])
    assert found == (Path("a=b"), ["timeout_s=60", "brake=null"])


def test_of_a_sweeps_plan_its_directory_is_meant(tmp_path):
    (tmp_path / "plan.json").touch()
    with pytest.raises(UsageError, match=rf"plan\.json: no such directory \(did you mean {tmp_path}\?\)$"):
        sweep_directory("resume", [str(tmp_path / "plan.json")])


def test_words_may_be_longer_than_any_name_of_a_directory(tmp_path):
    override = f"launcher.setup=[{'a' * 300}]"
    assert directory_and_overrides("resume", [str(tmp_path), override]) == (tmp_path, [override])


@pytest.mark.parametrize(
    ("find", "given", "said"),
    [
        (sweep_directory, [], "show needs the directory of one sweep, e.g. bench show outputs/latest"),
        (sweep_directory, [".", "."], "show needs the directory of one sweep, e.g. bench show outputs/latest"),
        (sweep_directories, [], "show needs the directory of a sweep, e.g. bench show outputs/latest"),
        (sweep_directories, [".", "nowhere"], "nowhere: no such directory"),
        (sweep_directory, ["nowhere/plan.json"], "nowhere/plan.json: no such directory"),
        (sweep_directory, ["a" * 300], f"{'a' * 300}: no such directory"),
        (directory_and_overrides, ["a=1"], "show needs the directory of one sweep, e.g. bench show outputs/latest"),
    ],
)
def test_what_is_no_directory_is_refused(find, given, said):
    with pytest.raises(UsageError) as refused:
        find("show", given)
    assert str(refused.value) == said
