import time

from benchrunner.run.clock import SystemClock


def test_real_time_passes(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    clock = SystemClock()
    before = clock.now()
    clock.sleep(2.5)
    assert slept == [2.5] and clock.now() >= before
