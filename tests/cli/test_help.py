import shlex

import pytest

from benchrunner.cli import main
from benchrunner.cli.help import EXAMPLES, HELP, USAGES, help_text
from benchrunner.core.axes import GROUPS


def test_every_command_is_explained():
    assert HELP.keys() == USAGES.keys() == main.COMMANDS.keys()
    for name, line in HELP.items():
        assert line in help_text("run")
        assert USAGES[name] in help_text(name)


def test_the_programs_help_teaches_axes_and_exit_codes():
    text = help_text("run")
    assert all(f"{group}=" in text for group in GROUPS)
    assert "fsdp_stage3" in text
    assert "exit codes" in text
    assert max(map(len, text.splitlines())) <= 120


EXAMPLE_LINES = [line.strip() for line in EXAMPLES.splitlines() if line.startswith("  bench")]


@pytest.mark.parametrize("line", EXAMPLE_LINES)
def test_every_example_can_be_planned(line, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = shlex.split(line.partition("   ")[0].partition("  one cell")[0])[1:]
    if words[:1] == ["report"]:
        pytest.skip("reads a directory")
    words = [word for word in words if word != "plan"]
    assert main.main(["plan", "--json", *words]) == 0
    assert capsys.readouterr().out.startswith("{")
