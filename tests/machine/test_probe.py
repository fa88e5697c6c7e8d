import os

import pytest

from benchrunner.core.errors import DamagedFile
from benchrunner.core.files import write_json
from benchrunner.core.schema import HardwareConfig
from benchrunner.machine import probe
from benchrunner.machine.probe import asdict, examine, read_probe
from samples import CPU


def test_a_node_says_what_it_is_after_it_has_kept_to_its_cores(monkeypatch, tmp_path):
    own = {0, 1, 2}
    monkeypatch.setattr(probe, "bind_to_allocation", lambda environ: environ is os.environ and own.discard(2))
    monkeypatch.setattr(probe.os, "sched_getaffinity", {0: own}.__getitem__)
    monkeypatch.setattr(probe, "resolve", lambda wanted: {"auto": CPU}[wanted.name])
    node = examine(HardwareConfig(name="auto"))
    assert (node.hardware, node.num_cores) == (CPU, 2)
    write_json(tmp_path / "node.json", asdict(node))
    assert read_probe(tmp_path / "node.json") == node


def test_what_is_too_long_for_a_probe_is_none(tmp_path):
    (tmp_path / "node.json").write_text('{"num_cores": 1' + " " * (1 << 20) + "}")
    with pytest.raises(DamagedFile, match="at most 1"):
        read_probe(tmp_path / "node.json")
