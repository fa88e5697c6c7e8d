"""What is measured beside time: the allocator's peaks, by a made-up allocator."""

import pytest
import torch

from benchrunner.worker.measure import memory
from benchrunner.worker.measure.memory import MemoryMeter


@pytest.fixture
def allocate(monkeypatch):
    """A function that lets live tensors come to so many bytes and go again."""
    peak = [0]

    def allocate(num_bytes):
        peak[0] = max(peak[0], num_bytes)

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: peak[0])
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda device: 2 * peak[0])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: peak.__setitem__(0, 0))
    monkeypatch.setattr(torch.cuda, "memory_stats", lambda device: {"num_alloc_retries": 1})
    monkeypatch.setattr(memory, "_driver_used_bytes", lambda device: 7)
    return allocate


@pytest.mark.parametrize(
    ("captures", "windows", "of_window"),
    [(False, [20], 20), (True, [20], 50), (False, [40, 20], 20), (True, [60, 20], 60)],
)
def test_building_counts_for_the_run_and_warming_up_where_graphs_are_captured(allocate, captures, windows, of_window):
    allocate(90)  # building
    meter = MemoryMeter(torch.device("cuda"), captures=captures)
    allocate(50)  # warming up
    for num_bytes in windows:
        meter.start_window()
        allocate(num_bytes)
    block = meter.read()
    assert block["window"] == {"allocated_bytes": of_window, "reserved_bytes": 2 * of_window}
    assert block["run"] == {"allocated_bytes": 90, "reserved_bytes": 180}
    assert block["steps"]["allocated_bytes"] == max(50, *windows)
    assert block["scope"] == ("capture" if captures else "window")
    assert block["num_alloc_retries"] == 1


def test_graphs_that_are_captured_before_there_is_an_optimizer_state_leave_no_peak(allocate):
    assert MemoryMeter(torch.device("cuda"), captures=True, unseen=True).read()["scope"] == "replay"
    assert MemoryMeter(torch.device("cuda"), unseen=True).read()["scope"] == "window"


def test_a_processor_s_peaks_are_the_process_s():
    meter = MemoryMeter(torch.device("cpu"))
    meter.start_window()
    block = meter.read()
    assert block["scope"] == "process" and block["window"] == block["run"]
    assert block["run"]["allocated_bytes"] > 2**20
