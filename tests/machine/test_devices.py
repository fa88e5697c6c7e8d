import os
from pathlib import Path
from types import SimpleNamespace

import filelock
import pytest

from benchrunner.machine import devices
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


def test_what_a_driver_holds_more_of_its_own_is_nobody():
    used = {"a": GIB}
    probe = NvmlProbe(["a"], lambda uuid: (used[uuid], []))
    used["a"] += devices.SLACK_BYTES
    assert probe.occupants(0) is None
    used["a"] += 1
    assert probe.occupants(0) == "1.5 GiB in use, 1.0 when empty"
    assert probe.occupants(1) is None


@pytest.fixture
def driver(monkeypatch):
    """A driver that knows one device, `GPU-a`, with 5 bytes in use by process 7."""
    import pynvml

    def find(uuid):
        if uuid != "GPU-a":
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return "a"

    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetHandleByUUID", find)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetMemoryInfo", {"a": SimpleNamespace(used=5)}.__getitem__)
    processes = {"a": [SimpleNamespace(pid=7)]}
    monkeypatch.setattr(pynvml, "nvmlDeviceGetComputeRunningProcesses", processes.__getitem__)


def test_the_driver_is_asked_by_the_name_of_a_device(driver):
    assert devices.read_used("GPU-a") == (5, [7]) and devices.read_used("GPU-b") is None


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
    nothing = Locks(None, [])
    assert nothing.enter() and nothing.take(5)
    nothing.give_back(5)
    nothing.give_back(0)


def test_locks_are_kept_where_only_the_user_writes(tmp_path):
    found = runtime_dir({"BENCH_LOCKS": str(tmp_path / "deep" / "mine")})
    assert found == tmp_path / "deep" / "mine" and found.stat().st_mode & 0o777 == 0o700
    (tmp_path / "file").write_text("")
    assert runtime_dir({"BENCH_LOCKS": str(tmp_path / "file")}) is None
    assert runtime_dir({}) == Path(f"/tmp/benchrunner-{os.getuid()}")


def test_a_directory_of_somebody_else_is_none_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(devices.os, "getuid", lambda: 12345)
    assert runtime_dir({"BENCH_LOCKS": str(tmp_path)}) is None


def test_a_nightly_meets_the_sweep_of_a_session():
    assert runtime_dir({}) == runtime_dir({"XDG_RUNTIME_DIR": "/run/user/1000", "TMPDIR": "/var/tmp"})


def test_where_somebody_else_hands_out_the_devices_there_is_nothing_to_lock():
    probe, locks = local_devices(H200, is_local=False, environ={})
    assert isinstance(probe, NoProbe) and locks.enter() and locks.take(0)


def test_nor_are_there_cores_of_this_machine_to_lock():
    _, locks = local_devices(CPU, is_local=False, environ={})
    _, other = local_devices(CPU, is_local=False, environ={})
    assert locks.take(0) and other.take(0)


def test_the_gpus_that_a_sweep_sees_are_locked_by_their_names_and_looked_at(tmp_path, monkeypatch):
    seen = {"0": ["GPU-a"], "0,1": ["GPU-a", "GPU-b"], "": []}
    read = {"GPU-a": (GIB, []), "GPU-b": (GIB, [])}
    monkeypatch.setattr(devices, "read_used", lambda uuid: read[uuid])
    gpus_of = lambda environ: [SimpleNamespace(uuid=uuid) for uuid in seen[environ["CUDA_VISIBLE_DEVICES"]]]  # noqa: E731
    monkeypatch.setattr(devices, "list_gpus", gpus_of)

    def locals_of(visible, hardware=H200):
        environ = {"CUDA_VISIBLE_DEVICES": visible, "BENCH_LOCKS": str(tmp_path)}
        return local_devices(hardware, is_local=True, environ=environ)

    (probe, one), (_, both) = locals_of("0"), locals_of("0,1")
    assert one.take(0) and not both.take(0) and both.take(1)
    read["GPU-a"] = (9 * GIB, [])
    assert probe.occupants(0) == "9.0 GiB in use, 1.0 when empty"
    assert isinstance(locals_of("")[0], NoProbe)
    elsewhere = local_devices(H200, is_local=False, environ={"CUDA_VISIBLE_DEVICES": "0,1"})
    assert isinstance(elsewhere[0], NoProbe) and elsewhere[1].take(0)
    one.close()
    both.close()


def test_two_sweeps_on_one_cpu_exclude_each_other_where_they_share_cores(tmp_path, monkeypatch):
    def locks_on(cores):
        monkeypatch.setattr(devices.os, "sched_getaffinity", {0: cores}.__getitem__)
        return local_devices(CPU, is_local=True, environ={"BENCH_LOCKS": str(tmp_path)})[1]

    one, same, half, beside = (locks_on(cores) for cores in ({0, 1}, {0, 1}, {1, 2}, {2, 3}))
    assert one.take(0) and not same.take(0) and not half.take(0) and beside.take(0)
    one.close()
    assert not half.take(0), "the other core is still in use"
    beside.close()
    assert half.take(0)
    half.close()


def test_a_lock_of_a_sweep_that_died_is_free(tmp_path):
    pid = os.fork()
    if pid == 0:
        filelock.FileLock(tmp_path / "x.lock").acquire()
        os._exit(0)
    os.waitpid(pid, 0)
    assert Locks(tmp_path, ["x"]).take(0)
