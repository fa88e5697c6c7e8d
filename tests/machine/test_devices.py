import os

import filelock

from benchrunner.machine.devices import Locks, NoProbe, NvmlProbe, local_devices, runtime_dir
from samples import CPU, H200

GIB = 1 << 30


def test_a_device_is_empty_at_the_least_that_was_seen():
    used = {"a": GIB, "b": 40 * GIB}
    probe = NvmlProbe(["a", "b"], lambda uuid: (used[uuid], [7, 8]))
    assert probe.occupants(0) is None and probe.occupants(1) is None
    used.update(a=3 * GIB, b=2 * GIB)
    assert probe.occupants(0) == "3.0 GiB in use, 1.0 when empty, processes 7, 8"
    assert probe.occupants(1) is None
    used["b"] = 40 * GIB
    assert "40.0 GiB in use, 2.0 when empty" in probe.occupants(1)


def test_a_driver_that_does_not_tell_keeps_nobody_from_working():
    assert NvmlProbe(["a"], lambda uuid: None).occupants(0) is None
    assert NvmlProbe([]).occupants(3) is None


def test_two_sweeps_never_have_the_same_device(tmp_path):
    one, other = Locks(tmp_path, ["x", "y"]), Locks(tmp_path, ["x", "y"])
    assert one.enter() and one.take(0)
    assert not other.enter()
    one.leave()
    assert other.enter() and not other.take(0) and other.take(1)
    one.give_back(0)
    assert other.take(0)
    other.close()
    assert one.enter() and one.take(0) and one.take(1)
    one.close()


def test_a_place_that_cannot_be_locked_keeps_nobody_from_working(tmp_path):
    (tmp_path / "x.lock").mkdir()
    assert Locks(tmp_path, ["x"]).take(0)
    assert Locks(None, []).enter() and Locks(None, []).take(5)


def test_locks_are_kept_where_only_the_user_writes(tmp_path):
    found = runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path)})
    assert found == tmp_path / "benchrunner" and found.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    assert runtime_dir({"XDG_RUNTIME_DIR": str(tmp_path / "file")}) is None
    assert str(os.getuid()) in str(runtime_dir({}))


def test_without_devices_there_is_nothing_to_lock():
    for hardware, is_local in ((CPU, True), (H200, False)):
        probe, locks = local_devices(hardware, is_local=is_local, environ={})
        assert isinstance(probe, NoProbe) and locks.enter() and locks.take(0)


def test_a_lock_of_a_sweep_that_died_is_free(tmp_path):
    pid = os.fork()
    if pid == 0:
        filelock.FileLock(tmp_path / "x.lock").acquire()
        os._exit(0)
    os.waitpid(pid, 0)
    assert Locks(tmp_path, ["x"]).take(0)
