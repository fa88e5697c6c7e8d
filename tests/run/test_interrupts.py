import os
import signal
import threading

import pytest

from benchrunner.run import interrupts
from fake_sweeps import cells, interrupted, record, run


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_keeps_what_was_finished(paths, signum, code):
    planned = cells(4)
    handlers = signal.getsignal(signum)
    summary, _ = run(paths, planned, launcher=interrupted(2, signum))
    assert summary.exit_code == code
    assert record(paths, planned[0])["status"] == "ok"
    assert record(paths, planned[1])["reason_code"] == "skipped.interrupted"
    assert not paths.cell(planned[2].cell.slug).record.exists()
    assert summary.counts == {"ok": 1, "skipped": 3}
    assert signal.getsignal(signum) is handlers


def test_signals_are_taken_over_and_given_back():
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.Interrupts(lambda: None):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_outside_the_main_thread_signals_are_left_alone(paths):
    summaries = []
    thread = threading.Thread(target=lambda: summaries.append(run(paths, cells(1))[0]))
    thread.start()
    thread.join()
    assert summaries[0].exit_code == 0


def test_the_first_signal_asks_for_a_stop_and_the_second_ends_everything(monkeypatch):
    exits, kills = [], []
    monkeypatch.setattr(interrupts.os, "_exit", exits.append)
    with interrupts.Interrupts(lambda: kills.append("all")) as found:
        os.kill(os.getpid(), signal.SIGINT)
        assert (found.signum, kills, exits) == (signal.SIGINT, [], [])
        os.kill(os.getpid(), signal.SIGTERM)
        assert (found.signum, kills, exits) == (signal.SIGINT, ["all"], [143])


def test_a_signal_that_is_ignored_stays_ignored():
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupts.Interrupts(lambda: None) as found:
            os.kill(os.getpid(), signal.SIGHUP)
        assert found.signum is None
    finally:
        signal.signal(signal.SIGHUP, before)
