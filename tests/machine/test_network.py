"""Whether a machine can connect to itself."""

import subprocess
import sys

import pytest

from benchrunner.core.paths import CHECKOUT
from benchrunner.machine.network import has_loopback

ASKED = "from benchrunner.machine.network import has_loopback; print(has_loopback())"


def test_this_machine_can():
    assert has_loopback()


def test_an_address_of_nobody_cannot_be_had():
    assert not has_loopback("192.0.2.1")


def test_where_the_loopback_is_down_nothing_can():
    command = ["unshare", "--net", sys.executable, "-c", ASKED]
    if subprocess.run([*command[:2], "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made here")
    said = subprocess.run(command, capture_output=True, text=True, check=True, cwd=CHECKOUT / "src").stdout
    assert said.strip() == "False"
