"""The launcher of docs/cluster.md, as it stands there, with an `ssh` that stays on this machine."""

import re

import pytest

from benchrunner.core.paths import CHECKOUT
from benchrunner.core.schema import LauncherConfig
from benchrunner.launch.conformance import CHECKS


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_the_example_conforms(tmp_path, monkeypatch, check):
    program = tmp_path / "bin" / "ssh"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\nexec bash -c "$2"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    text = (CHECKOUT / "docs" / "cluster.md").read_text()
    found = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(found[1], names)
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    check(names["Ssh"](LauncherConfig(name="plugin", plugin="ssh")), sweep)
