"""`bench calibrate`: the lines that a device's file takes."""

from benchrunner.plan import calibrate
from fake_sweeps import cells
from samples import H200, make_record
from sides import write_sweep


def test_what_was_measured_becomes_lines_of_a_file(bench, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(calibrate, "calibrate", lambda *how: asked.append(how) or {"host": 0.123456, "memory": 12345.6})
    planned = cells(3)
    records = [make_record(one.cell) for one in planned]
    first = write_sweep(tmp_path / "a", planned, records)
    second = write_sweep(tmp_path / "b", planned[:1], records[:1])
    (first.cell(records[1].place).record).unlink()
    code, out, _, _ = bench("calibrate", str(first.root), str(second.root))
    when = "cli of 2026-11-21T03:00:00+00:00"
    assert code == 0 and out.splitlines() == [
        "# conf/hardware/cpu.yaml",
        "calibration: {host: 0.1235, memory: 12346}",
        f"calibrated: 3 cells of {when}, {when}; benchrunner 0.1.0, torch 2.13.0+cpu",
    ]
    [(samples, hardware)] = asked
    assert [one.cell.slug for one in samples] == [planned[number].cell.slug for number in (0, 2, 0)]
    assert [one.record.slug for one in samples] == [one.cell.slug for one in samples] and hardware.name == "cpu"


def test_one_sweep_is_enough_and_none_is_refused(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(calibrate, "calibrate", lambda *how: {})
    planned = cells(1)
    code, out, _, _ = bench("calibrate", str(write_sweep(tmp_path, planned, [make_record(planned[0].cell)]).root))
    assert code == 0 and out.splitlines()[2].startswith("calibrated: 1 cells of cli of ")
    code, _, err, _ = bench("calibrate")
    assert (code, err) == (1, "bench: calibrate needs the directory of a sweep, e.g. bench calibrate outputs/latest\n")


def test_sweeps_of_several_devices_are_refused(bench, tmp_path):
    planned = cells(1)
    sweeps = [
        str(write_sweep(tmp_path / name, planned, [], **more).root)
        for name, more in (("a", {}), ("b", {"hardware": H200}))
    ]
    code, out, err, _ = bench("calibrate", *sweeps)
    assert (code, out) == (1, "")
    assert err == "bench: calibrate: the sweeps are of several devices: cpu, h200-sxm-141gb\n"
