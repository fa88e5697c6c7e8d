from benchrunner.core.paths import SweepPaths
from benchrunner.store import workers
from benchrunner.store.workers import WorkerFile, declare_gone, is_gone, read_worker, read_workers, write_worker


def test_workers_show_themselves_and_are_declared_gone_one_by_one(tmp_path):
    paths = SweepPaths(tmp_path / "deep" / "sweep")
    assert list(read_workers(paths)) == [] and not is_gone(paths, "a")
    one, other = WorkerFile(worker="a", beats=3, running=["x"]), WorkerFile(worker="b")
    for worker in (other, one, one):
        write_worker(paths, worker)
    (paths.workers / "c.json").write_text("{")
    declare_gone(paths, "a")
    declare_gone(paths, "a")
    assert list(read_workers(paths)) == [one, other]
    assert read_worker(paths, "c") is None and read_worker(paths, "d") is None
    assert is_gone(paths, "a") and not is_gone(paths, "b")


def test_one_may_be_declared_gone_before_any_has_shown_itself(tmp_path):
    paths = SweepPaths(tmp_path / "deep" / "sweep")
    declare_gone(paths, "a")
    assert is_gone(paths, "a")


def test_a_sign_of_life_waits_for_no_disk(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr(workers, "write_json", lambda path, data, sync: asked.append(sync))
    write_worker(SweepPaths(tmp_path), WorkerFile(worker="a"))
    assert asked == [False]
