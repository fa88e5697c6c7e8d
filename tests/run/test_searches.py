import signal
from dataclasses import replace

import pytest

from benchrunner.core.paths import SweepPaths
from benchrunner.launch.fake import Script
from benchrunner.outcome.outcome import Outcome
from benchrunner.run import searches as searches_module
from benchrunner.run.searches import Searches
from benchrunner.store.plan_file import load_plan, write_plan
from benchrunner.store.probes import with_probes
from fake_sweeps import ERROR, OOM, RESULT, interrupted, make_plan, record, run
from samples import H200, make_cell, make_record, plan_cell
from shared_sweeps import Cluster, measured


def cell(size, hardware=H200, predicted=None, **leaves):
    made = plan_cell(make_cell(leaves={"micro_batch_size": size, "memory_limit_gib": 40} | leaves))
    return made if predicted is None else plan_cell(made.cell).__class__(cell=made.cell, predicted=predicted)


def begins_at(size, kind="max", **leaves):
    return cell(kind, predicted={"micro_batch_size": size}, **leaves)


def fits(largest, retries_from=10**9, rate=lambda size: 100.0):
    def script(job):
        size = job.cell.sizes.micro_batch_size
        if size > largest:
            return OOM
        retries = 3 if size >= retries_from else 0
        memory = {
            "window": {"allocated_bytes": size, "reserved_bytes": size},
            "run": {"allocated_bytes": size, "reserved_bytes": size},
            "num_alloc_retries": retries, "num_ooms": 0, "nvml_used_bytes": None, "scope": "window",
        }  # fmt: skip
        seconds = size * 10 / rate(size)
        return Script(result=RESULT | {"step_times_s": [seconds] * 3, "tokens_per_step": 10 * size, "memory": memory})

    return script


def sizes(launcher):
    return [handle.job.cell.sizes.micro_batch_size for handle in launcher.handles]


def search_run(paths, planned, script=None, **options):
    return run(paths, planned, script, hardware=H200, **options)


def test_the_largest_is_found_by_probes_that_are_cells_of_their_own(paths):
    planned = [begins_at(8)]
    summary, launcher = search_run(paths, planned, fits(11))
    assert sizes(launcher) == [8, 9, 11, 15, 13, 12]
    assert summary.counts == {"ok": 4, "oom": 3} and summary.exit_code == 0
    made = record(paths, planned[0])
    assert (made["status"], made["attempt"], made["metrics"]) == ("ok", 0, {})
    assert made["reason"] == "max = 11 (probes: 8 ok, 9 ok, 11 ok, 15 oom, 13 oom, 12 oom)"
    assert made["evidence"]["search"]["micro_batch_size"] == 11
    assert record(paths, cell(11))["status"] == "ok" and record(paths, cell(12))["status"] == "oom"


def test_probes_are_cells_of_the_plan_on_disk(tmp_path):
    planned = [begins_at(8), cell(2, seed=1)]
    paths = SweepPaths(write_plan(make_plan(planned, H200), tmp_path))
    search_run(paths, planned, fits(11))
    found = load_plan(paths.root)
    assert [one.cell.sizes.micro_batch_size for one in found.cells] == [1, 8, 9, 11, 12, 13, 15, 2]
    assert [bool(one.probe_of) for one in found.cells] == [False, *[True] * 6, False]
    assert with_probes(found, paths) == found


def test_the_fastest_without_retries_is_found_and_shares_probes_with_the_largest(paths):
    planned = [begins_at(8), begins_at(8, "best")]
    speed = fits(16, retries_from=13, rate=lambda size: 100.0 + size)
    summary, launcher = search_run(paths, planned, speed)
    assert len(sizes(launcher)) == len(set(sizes(launcher))) and summary.exit_code == 0
    assert record(paths, planned[0])["evidence"]["search"]["micro_batch_size"] == 16
    best = record(paths, planned[1])
    assert best["evidence"]["search"]["micro_batch_size"] == 12 and "13 ok after 3 allocator retries" in best["reason"]


def test_cells_that_overrides_name_count_as_probes(paths):
    planned = [cell(8), cell(16), begins_at(12)]
    _, launcher = search_run(paths, planned, fits(12))
    assert sorted(sizes(launcher)) == [8, 12, 13, 14, 16] and sizes(launcher).count(8) == 1
    assert record(paths, planned[2])["reason"].startswith("max = 12 (probes: ")


def test_not_even_one_sample_fits(paths):
    planned = [begins_at(2)]
    summary, _ = search_run(paths, planned, fits(0))
    made = record(paths, planned[0])
    assert (made["status"], made["reason_code"]) == ("oom", "oom.device") and "not even the smallest" in made["reason"]
    assert summary.exit_code == 4


REFUSED = Script(errors={0: ERROR | {"kind": "unsupported", "code": "runtime.x"}}, exits={0: 1})


@pytest.mark.parametrize(
    ("script", "status", "code"),
    [
        (Script(errors={0: ERROR}, exits={0: 1}), "failed", "failed.exception"),
        (REFUSED, "unsupported", "runtime.x"),
    ],
)
def test_any_other_end_of_a_probe_ends_the_search_with_its_reason(paths, script, status, code):
    planned, healthy = [begins_at(8)], fits(100)
    _, launcher = search_run(
        paths, planned, lambda job: script if job.cell.sizes.micro_batch_size > 8 else healthy(job)
    )
    made = record(paths, planned[0])
    assert sizes(launcher) == [8, 9] and (made["status"], made["reason_code"]) == (status, code)
    assert "8 ok" in made["reason"] and "then 9:" in made["reason"]
    search = made["evidence"]["search"]
    assert search["micro_batch_size"] is None and [one["micro_batch_size"] for one in search["probes"]] == [8]


def test_one_failure_of_a_probe_is_one_for_the_circuit_breaker(paths):
    broken = Script(errors={0: ERROR}, exits={0: 1})
    planned = [begins_at(8, seed=seed, brake=2, exclusive=True) for seed in range(2)]
    _, launcher = search_run(paths, planned, broken)
    assert len(launcher.handles) == 2


def test_a_search_is_resumed_where_it_was(tmp_path):
    planned = [begins_at(8)]
    paths = SweepPaths(write_plan(make_plan(planned, H200), tmp_path))
    launcher = interrupted(3, signal.SIGINT)
    inner = launcher.script
    launcher.script = lambda job: (inner(job), fits(11)(job))[1]
    summary, _ = search_run(paths, planned, launcher=launcher)
    assert summary.interrupted_by == signal.SIGINT and sizes(launcher) == [8, 9, 11]
    _, launcher = search_run(paths, load_plan(paths.root).cells, fits(11), resume=True)
    assert sizes(launcher) == [11, 15, 13, 12] and record(paths, planned[0])["reason"].startswith("max = 11 (")
    _, launcher = search_run(paths, load_plan(paths.root).cells, fits(11), resume=True)
    assert launcher.handles == []


@pytest.mark.parametrize(
    ("kind", "status", "code", "retries", "found"),
    [
        ("max", "oom", "oom.disguised", 0, ("oom.disguised", "not even the smallest micro-batch fits")),
        ("best", "ok", None, 3, ("oom.device", "not even the smallest micro-batch fits without retries")),
    ],
)
def test_where_not_even_one_sample_fits_the_smallest_says_why(paths, kind, status, code, retries, found):
    search, one = begins_at(1, kind), cell(1)
    searches = Searches(make_plan([search, one], H200), paths, {})
    searches.learn(one, make_record(one.cell, status, code, metrics={"num_alloc_retries": retries}))
    outcome = searches.refusal(search, 0.0)
    assert (outcome.status, outcome.reason_code) == ("oom", found[0]) and outcome.reason.endswith(f": {found[1]}")
    assert [probe["status"] for probe in outcome.evidence["search"]["probes"]] == [status]


def test_a_search_learns_from_cells_that_differ_in_their_micro_batch_alone(paths):
    search, other = begins_at(1), cell(1, seed=1)
    searches = Searches(make_plan([search, other], H200), paths, {})
    searches.learn(other, make_record(other.cell, "oom", "oom.device"))
    assert searches.refusal(search, 0.0) is None


def test_a_search_goes_by_the_first_process_of_a_cell(paths):
    search, one = begins_at(1), cell(1, repeats=2)
    searches = Searches(make_plan([search, one], H200), paths, {})
    searches.learn(one, make_record(one.cell))
    searches.learn(replace(one, repeat=2), make_record(one.cell, "oom", "oom.device", repeat=2))
    assert [probe.cell.sizes.micro_batch_size for _, probe in searches.due([search], [])] == [2]


def test_a_search_is_gone_on_with_where_its_plan_was_made_for_another_machine(paths):
    search = begins_at(2)
    searches = Searches(make_plan([search], replace(H200, is_present=False)), paths, {})
    assert [probe.cell.sizes.micro_batch_size for _, probe in searches.due([search], [])] == [2]


def test_a_probe_is_kept_apart_from_another_cell_that_has_taken_its_name(paths):
    search, other = begins_at(2), cell(3, seed=1)
    other = replace(other, cell=replace(other.cell, slug=cell(2).cell.slug))
    ((_, probe),) = Searches(make_plan([search, other], H200), paths, {}).due([search], [])
    assert probe.cell.cell_id == cell(2).cell.cell_id and probe.cell.slug != other.cell.slug


def test_a_probe_is_the_cell_of_the_plan_where_there_is_one(paths):
    search, named = begins_at(2), cell(2)
    searches = Searches(make_plan([search, named], H200), paths, {})
    assert searches.due([search, named], []) == [], "it waits already"
    assert searches.due([search], []) == [(search, named)] and searches.added == []


def test_a_probe_that_was_not_started_ends_its_search_in_the_same_words(paths):
    search, named = begins_at(2), cell(2)
    searches = Searches(make_plan([search, named], H200), paths, {})
    searches.refused(named, Outcome(status="skipped", reason_code="skipped.brake", reason="not started, because"))
    outcome = searches.refusal(search, 0.0)
    assert (outcome.status, outcome.reason_code) == ("skipped", "skipped.brake")
    assert outcome.reason == "max: none (probes: none), then 2: not started, because"


def test_a_disk_without_room_for_probes_does_not_end_the_search(paths, monkeypatch):
    def full(paths, probe):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(searches_module, "write_probe", full)
    planned = [begins_at(8)]
    _, launcher = search_run(paths, planned, fits(8))
    assert sizes(launcher) == [8, 9] and record(paths, planned[0])["status"] == "ok"


def test_a_probe_that_does_not_fit_the_budget_ends_the_search_for_now(paths):
    planned = [begins_at(8)]
    search_run(paths, planned, lambda job: Script(result=RESULT, duration_s=500.0), budget_s=510.0)
    made = record(paths, planned[0])
    assert made["status"] == "skipped" and made["reason_code"] == "skipped.budget"
    assert made["reason"].startswith("max: 8 so far (probes: 8 ok), then 9: not started")
    search_run(paths, planned, fits(9), resume=True)
    assert record(paths, planned[0])["reason"].startswith("max = 9 (")


def test_a_search_that_is_over_is_no_probe_of_another(paths):
    faster = fits(11, rate=lambda size: 100.0 + size)
    search_run(paths, [begins_at(8)], faster)
    planned = [begins_at(8), begins_at(8, "best")]
    search_run(paths, planned, faster, resume=True)
    probes = record(paths, planned[1])["evidence"]["search"]["probes"]
    assert probes and 1 not in [one["micro_batch_size"] for one in probes]


def test_repeats_are_of_probes_not_of_the_search(paths):
    planned = [begins_at(8, repeats=2)]
    _, launcher = search_run(paths, planned, fits(8))
    assert sizes(launcher).count(8) == 2 and record(paths, planned[0])["reason"] == "max = 8 (probes: 8 ok, 9 oom)"
    assert not (paths.cell(planned[0].cell.slug).root / "repeat-2").exists()
    assert (paths.cell(cell(8, repeats=2).cell.slug).root / "repeat-2").is_dir()


def test_two_workers_share_the_probes_of_a_search(tmp_path):
    planned = [begins_at(8), begins_at(4, seed=1)]
    paths = SweepPaths(write_plan(make_plan(planned, H200), tmp_path))
    cluster = Cluster(paths, planned, fits(11), hardware=H200)
    cluster.add(), cluster.add()
    cluster.run()
    assert [record(paths, one)["reason"][:8] for one in planned] == ["max = 11"] * 2
    assert set(measured(cluster).values()) <= {0, 1}
    assert all(record(paths, one)["status"] in ("ok", "oom") for one in load_plan(paths.root).cells)


def test_what_a_dead_worker_probed_is_used_by_the_next(tmp_path):
    planned = [begins_at(8)]
    paths = SweepPaths(write_plan(make_plan(planned, H200), tmp_path))
    cluster = Cluster(paths, planned, fits(11), hardware=H200)
    first = cluster.add()
    first.dies_at, first.dies_after = "recorded", 2
    cluster.run()
    cluster.plan = load_plan(paths.root)
    cluster.finish(planned)
    assert record(paths, planned[0])["reason"].startswith("max = 11 (")
