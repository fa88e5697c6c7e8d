"""An emulated card by a made-up driver: what the allocator may have, and what dies say of it."""

import pytest
import torch

from benchrunner.core.units import GIB
from benchrunner.worker import __main__ as main
from benchrunner.worker.measure import memory_limit
from cells import make_cell


class Device:
    """A context's parts that the limit asks for."""

    def __init__(self, *words, kind="cuda"):
        self.cell, self.device = make_cell(*words), torch.device(kind)


@pytest.fixture
def fractions(monkeypatch):
    """Shares of the device that the allocator was given, on a device of 100 GiB of which 3 are used, 1 by torch."""
    given = []
    monkeypatch.setattr(memory_limit, "CAP", None)
    monkeypatch.setattr(memory_limit, "_start_libraries", lambda context: None)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (97 * GIB, 100 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: GIB)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda share, device: given.append(share))
    return given


def test_the_allocator_gets_the_limit_less_what_is_outside_of_it(fractions):
    memory_limit.apply_limit(Device("memory_limit_gib=42"))
    assert fractions == [pytest.approx(0.40)]
    assert memory_limit.CAP == {"limit_bytes": 42 * GIB, "cap_bytes": 40 * GIB, "outside_bytes": 2 * GIB}
    assert main._cap() == memory_limit.CAP


def test_no_limit_changes_nothing(fractions):
    memory_limit.apply_limit(Device())
    memory_limit.apply_limit(Device(kind="cpu"))
    assert fractions == [] and memory_limit.CAP is None and main._cap() == {}


def test_on_a_cpu_the_kernel_refuses_more_than_what_was_there_and_the_limit(fractions, monkeypatch):
    given = []
    monkeypatch.setattr(memory_limit, "_data_bytes", lambda: 3 * GIB)
    monkeypatch.setattr(memory_limit.resource, "getrlimit", lambda kind: (-1, 40 * GIB))
    monkeypatch.setattr(memory_limit.resource, "setrlimit", lambda kind, limits: given.append(limits))
    for limit_gib in (4, 42):
        memory_limit.apply_limit(Device(f"memory_limit_gib={limit_gib}", kind="cpu"))
    assert given == [(7 * GIB, 40 * GIB), (40 * GIB, 40 * GIB)] and fractions == []


def test_what_the_kernel_counts_grows_with_what_is_allocated():
    before = memory_limit._data_bytes()
    more = bytearray(64 * 2**20)
    assert memory_limit._data_bytes() - before >= len(more)


def test_a_card_larger_than_the_device_is_the_device(fractions):
    memory_limit.apply_limit(Device("memory_limit_gib=500"))
    assert memory_limit.CAP["cap_bytes"] == 98 * GIB


def test_a_card_too_small_for_its_libraries_is_out_of_memory(fractions):
    with pytest.raises(torch.OutOfMemoryError, match=r"hold 2\.00 GiB, memory_limit_gib is 1"):
        memory_limit.apply_limit(Device("memory_limit_gib=1"))
