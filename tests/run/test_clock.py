import re
import time

from benchrunner.run.clock import SystemClock, now_utc


def test_real_time_passes(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    clock = SystemClock()
    before = clock.now()
    clock.sleep(2.5)
    assert slept == [2.5] and clock.now() >= before


def test_a_stamp_is_of_greenwich_to_the_second():
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", now_utc())
