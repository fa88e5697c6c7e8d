from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchrunner.core.paths import config_dir
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.rules import load_rules
from benchrunner.plan.search import (
    CACHED_SHARE,
    LARGEST,
    Candidates,
    Search,
    decide_search,
    probe_of,
    search_of,
    search_text,
    tried_by,
)
from benchrunner.plan.verdict import Preflight, Verdict
from samples import CPU, H200, make_cell, make_record

SIZES = st.integers(1, 3000)


def anything(low, target, high):
    assert {type(low), type(target), type(high)} <= {int, type(None)}
    return target if low < target and (high is None or target < high) else None


def among(*sizes):
    """The nearest of these alone."""

    def nearest(low, target, high):
        between = [size for size in sizes if anything(low, size, high)]
        return min(between, key=lambda size: (abs(size - target), size), default=None)

    return nearest


def tried(size, *, fits, retries=0, rate=1.0):
    return {
        "micro_batch_size": size, "cell": f"cell-{size}", "status": "ok" if fits else "oom",
        "num_alloc_retries": retries, "tokens_per_second_per_device": rate if fits else None,
    }  # fmt: skip


def follow(search, outcome, known=(), most=60):
    """The sizes that a search tries, in order, and what it has found in the end."""
    seen = {size: outcome(size) for size in known}
    order = []
    while (size := search.next(seen)) is not None:
        assert size not in seen and len(order) < most
        seen[size] = outcome(size)
        order.append(size)
    return order, search.found(seen)


def search(kind="max", start=1, step=1, nearest=anything):
    return Search(kind=kind, start=start, step=step, nearest=nearest)


def limit(largest):
    return lambda size: tried(size, fits=size <= largest)


@given(start=SIZES, step=st.integers(1, 40), largest=SIZES, known=st.lists(SIZES, max_size=3))
def test_the_largest_that_fits_is_found_wherever_the_search_begins(start, step, largest, known):
    _, found = follow(search(start=start, step=step), limit(largest), known)
    assert found == largest


def test_without_a_prediction_it_grows_by_powers_of_two_and_then_halves():
    assert follow(search(), limit(12)) == ([1, 2, 4, 8, 16, 12, 14, 13], 12)


def test_a_right_prediction_takes_two_probes():
    assert follow(search(start=12), limit(12)) == ([12, 13], 12)


def test_a_prediction_that_is_somewhat_off_takes_few():
    assert follow(search(start=100, step=2), limit(93)) == ([100, 98, 94, 86, 90, 92, 93], 93)


def test_where_nothing_fits_nothing_is_found():
    assert follow(search(start=6), limit(0)) == ([6, 5, 3, 1], None)


def test_what_is_known_is_not_tried_again():
    order, found = follow(search(start=12), limit(12), known=[8, 16])
    assert order == [12, 14, 13] and found == 12


def test_the_best_is_the_fastest_and_its_neighbours_were_tried():
    found = follow(search("best", start=40), lambda size: tried(size, fits=size <= 40, rate=100 - abs(size - 11)))
    assert found == ([40, 41, 16, 8, 4, 12, 14, 10], 10)


@pytest.mark.parametrize(
    ("largest", "rate", "order"),
    [
        (40, lambda size: 7.0, [40, 41, 16, 8, 4, 2, 1]),
        (9, lambda size: 7.0, [9, 10, 4, 2, 1]),
        (3, lambda size: -size, [3, 4, 2, 1]),
        (2, lambda size: -size, [2, 3, 1]),
    ],
)
def test_where_smaller_ones_are_no_slower_the_smallest_is_the_best(largest, rate, order):
    assert follow(search("best", largest), lambda size: tried(size, fits=size <= largest, rate=rate(size))) == (
        order,
        1,
    )


@pytest.mark.parametrize(
    ("largest", "peak", "order"), [(40, 8, [40, 41, 16, 8, 4, 12, 10, 6]), (9, 3, [9, 10, 4, 2, 1, 3])]
)
def test_neighbours_are_tried_as_near_as_a_quarter_of_the_fastest(largest, peak, order):
    found = follow(search("best", largest), lambda size: tried(size, fits=size <= largest, rate=-abs(size - peak)))
    assert found == (order, peak)


@pytest.mark.parametrize(
    ("allowed", "largest", "peak", "order"),
    [
        (range(8, 80, 8), 40, 16, [40, 48, 16, 8, 24]),
        ((1, 2, 3, 40, 41), 40, 0, [40, 41, 3, 2, 1]),
        ((1, 2, 33, 40, 41), 40, 0, [40, 41, 2, 1]),
        ((1, 2, 3, 4, 6, 8, 12, 24), 24, 24, [24, 12]),
    ],
)
def test_the_fastest_is_looked_for_where_sizes_are_allowed(allowed, largest, peak, order):
    def outcome(size):
        return tried(size, fits=size <= largest, rate=-abs(size - peak))

    assert follow(search("best", largest, nearest=among(*allowed)), outcome) == (order, max(peak, min(order)))


def test_one_with_retries_ends_the_way_down():
    def outcome(size):
        return tried(size, fits=size <= 40, rate=0.5, retries=int(size == 16))

    assert follow(search("best", start=40), outcome) == ([40, 41, 16, 28, 34, 22, 25, 19], 19)


def test_a_rate_that_nobody_measured_is_the_slowest():
    rates = {1: 0.5, 2: None}
    assert search("best").found({size: tried(size, fits=True, rate=rate) for size, rate in rates.items()}) == 1


def test_the_largest_is_the_best_where_speed_only_grows():
    assert follow(search("best", start=9), lambda size: tried(size, fits=size <= 9, rate=size)) == ([9, 10, 4, 6, 7], 9)


@given(start=SIZES, largest=SIZES, clean=SIZES, peak=SIZES)
def test_the_best_never_had_allocator_retries(start, largest, clean, peak):
    def outcome(size):
        retries = 0 if size <= clean else 7
        return tried(size, fits=size <= largest, retries=retries, rate=1e6 if retries else 1e3 - abs(size - peak))

    order, found = follow(search("best", start=start), outcome, most=90)
    assert found is not None and found <= min(clean, largest) and len(order) < 60


def test_a_batch_with_retries_is_none_of_the_best_though_it_runs():
    assert follow(search("best"), lambda size: tried(size, fits=True, retries=size))[1] is None


# --- candidates


def planned_for(hardware=H200, **leaves):
    rules = load_rules(config_dir() / "compat.yaml")
    cell = make_cell(visible_devices=4, leaves={"micro_batch_size": "max"} | leaves.pop("leaves", {}), **leaves)
    preflight = Preflight(hardware, rules, launch=False, num_cores=2)
    return cell, preflight


class Fits:
    """A preflight by which the sizes up to `largest` fit, and those that are not `allowed` are ruled out.

    Cells from `skipped` on are not run.
    """

    def __init__(self, largest, allowed=None, skipped=LARGEST):
        self.hardware = CPU  # which has no caching allocator
        self.largest, self.allowed, self.skipped = largest, allowed, skipped

    def predicted(self, cell):
        return {"peak_memory_bytes": cell.sizes.micro_batch_size, "capacity_bytes": self.largest}

    def decide(self, cell, excluded_reason):
        size = cell.sizes.micro_batch_size
        if self.allowed is not None and size not in self.allowed:
            return Verdict(verdict="unsupported", reason_code="rule.size", reason="no such size")
        found = Verdict(flags=["probe:rule", "memory_tight"], predicted=self.predicted(cell))
        if size < self.skipped:
            return found
        return replace(found, verdict="skipped", reason_code="skipped.predicted_oom", reason="too large")

    def decide_search(self, cell, excluded_reason):
        return Verdict(verdict="skipped", reason=excluded_reason) if excluded_reason else None


def candidates(preflight, kind="max", **leaves):
    return Candidates(make_cell(visible_devices=1, leaves={"micro_batch_size": kind} | leaves), preflight)


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 12, 13, 1000])
def test_the_largest_that_is_predicted_to_fit_is_found(largest):
    assert candidates(Fits(largest)).predicted() == largest


def test_where_nothing_is_known_of_the_memory_one_sample_is_taken():
    assert candidates(Fits(None)).predicted() == 1


@pytest.mark.parametrize(
    ("allowed", "batch", "asked", "found"),
    [
        (None, None, (0, 9, None), 9),
        (None, None, (8, 20, 10), 9),
        (None, None, (9, 20, 10), None),
        (None, None, (9, 3, 20), 10),
        ({36, 164}, None, (0, 100, None), 36),
        ({164}, None, (0, 100, None), 164),
        ({165}, None, (0, 100, None), None),
        (None, 24, (2, 3, None), 3),
        (None, 24, (8, 9, None), 12),
        (None, 24, (12, 20, 25), 24),
        (None, 24, (12, 20, 24), None),
        (None, 24, (24, 30, None), None),
    ],
)
def test_the_nearest_size_is_one_that_is_allowed_and_divides_the_batch(allowed, batch, asked, found):
    assert candidates(Fits(1000, allowed), global_batch_size=batch).nearest(*asked) == found


def test_a_probe_is_run_though_it_is_predicted_not_to_fit_but_not_where_a_rule_forbids_it():
    some = candidates(Fits(9, allowed={4, 12}, skipped=10))
    assert some.plan(5) is None
    for size in (4, 12):
        made = some.plan(size)
        assert (made.verdict, made.cell.sizes.micro_batch_size, made.probe_of) == ("run", size, some.search.slug)
        assert made.flags == ["probe:rule", "memory_tight"] and made.predicted["peak_memory_bytes"] == size


@pytest.mark.parametrize(
    ("preflight", "start", "verdict", "code"),
    [
        (Fits(12), 12, "run", None),
        (Fits(12, skipped=2), 12, "run", None),
        (Fits(2, skipped=2), 2, "run", None),
        (Fits(0, skipped=1), 1, "skipped", "skipped.predicted_oom"),
        (Fits(12, allowed=()), 1, "unsupported", "rule.size"),
    ],
)
def test_the_verdict_on_a_search_is_that_of_its_first_probe(preflight, start, verdict, code):
    search = make_cell(leaves={"micro_batch_size": "max"})
    found = decide_search(search, None, preflight)
    assert (found.verdict, found.reason_code, found.reason is None) == (verdict, code, code is None)
    if verdict != "unsupported":
        assert found.predicted["micro_batch_size"] == found.predicted["peak_memory_bytes"] == start
        assert found.flags == ["probe:rule"]
    assert decide_search(search, "struck out", preflight).reason == "struck out"


def test_a_probe_is_the_very_cell_that_overrides_name():
    cell = make_cell(leaves={"micro_batch_size": "max", "seed": 3})
    probe, named = probe_of(cell, 8, ()), make_cell(leaves={"micro_batch_size": 8, "seed": 3})
    assert (probe.cell_id, probe.slug, probe.sizes) == (named.cell_id, named.slug, named.sizes)
    assert probe.config_digest == named.config_digest
    assert probe_of(cell, 1, ()).cell_id == make_cell(leaves={"seed": 3}).cell_id


def test_only_parts_of_a_given_global_batch_are_tried():
    cell, preflight = planned_for(strategy="ddp", leaves={"global_batch_size": 96})
    candidates = Candidates(cell, preflight)  # 24 a device
    assert [candidates.nearest(8, 9, None), candidates.nearest(12, 20, 24), candidates.nearest(24, 30, None)] == [
        12, None, None
    ]  # fmt: skip


def test_sizes_that_a_rule_forbids_are_passed_over():
    cell, preflight = planned_for(workload="generate", precision="fp8", model="llama2-7b")
    assert Candidates(cell, preflight).nearest(8, 11, 32) == 8 + 8


def test_a_search_on_an_h200_begins_where_one_ended():
    """docs/results/2026-11-30-h200-search.md: max = 44, after six probes from 48 down."""
    cell, preflight = planned_for(model="llama2-7b", leaves={"micro_batch_size": "max", "model.num_layers": 2})
    assert decide_search(cell, None, preflight).predicted["micro_batch_size"] == 44


def test_the_plan_says_where_the_search_begins_and_its_neighbour_is_predicted_not_to_fit():
    cell, preflight = planned_for(model="llama2-7b", leaves={"memory_limit_gib": 80, "model.num_layers": 8})
    verdict = decide_search(cell, None, preflight)
    start, capacity = verdict.predicted["micro_batch_size"], verdict.predicted["capacity_bytes"]
    assert (
        verdict.verdict == "run"
        and start > 1
        and CACHED_SHARE["cuda"] * verdict.predicted["peak_memory_bytes"] <= capacity
    )
    above = preflight.predicted(probe_of(cell, start + 1, ()))["peak_memory_bytes"]
    assert above <= capacity < CACHED_SHARE["cuda"] * above
    made = PlannedCell(cell=cell, predicted=verdict.predicted)
    assert search_of(made, Candidates(cell, preflight)).next({}) == start


@pytest.mark.parametrize(
    ("hardware", "leaves", "axes", "code"),
    [
        (CPU, {}, {}, "rule.search_limit"),
        (H200, {}, {"workload": "parity"}, "rule.search_parity"),
        (H200, {"global_batch_size": 7}, {"strategy": "ddp"}, "rule.batch_divides"),
        (H200, {"memory_limit_gib": 1}, {"model": "llama2-7b"}, "skipped.predicted_oom"),
        (H200, {}, {"precision": "nf4"}, "rule.nf4_train"),
    ],
)
def test_a_search_that_cannot_be_is_a_verdict(hardware, leaves, axes, code):
    cell, preflight = planned_for(hardware, leaves=leaves, **axes)
    verdict = decide_search(cell, None, preflight)
    assert (verdict.reason_code, verdict.verdict == "run") == (code, False) and verdict.reason


def test_what_is_said_of_a_search():
    probes = [tried(8, fits=True), tried(16, fits=False), tried(12, fits=True, retries=1)]
    found = {"kind": "max", "micro_batch_size": 12, "probes": probes}
    assert search_text(found) == "max = 12 (probes: 8 ok, 16 oom, 12 ok after 1 allocator retry)"
    open_end = {"kind": "best", "micro_batch_size": None, "probes": [tried(8, fits=True, retries=2)]}
    assert search_text(open_end, 8) == "best: 8 so far (probes: 8 ok after 2 allocator retries)"
    assert search_text(open_end | {"probes": []}) == "best: none (probes: none)"


@pytest.mark.parametrize(
    ("predicted", "start", "step"),
    [
        (None, 1, 1),
        ({"micro_batch_size": 400, "margin": 0.04}, 400, 4),
        ({"micro_batch_size": 400}, 400, 1),
        ({"micro_batch_size": 3, "margin": 0.04}, 3, 1),
    ],
)
def test_a_search_begins_at_the_prediction_and_its_first_step_is_a_part_of_the_margin(predicted, start, step):
    cell, preflight = planned_for(leaves={"micro_batch_size": "best"})
    found = search_of(PlannedCell(cell=cell, predicted=predicted), Candidates(cell, preflight))
    assert (found.kind, found.start, found.step) == ("best", start, step)


@pytest.mark.parametrize(
    ("metrics", "retries", "rate"),
    [
        ({"tokens_per_second_per_device": 5.0, "num_alloc_retries": 2}, 2, 5.0),
        ({"tokens_per_second_per_device": 5.0, "decode_tokens_per_second": 7.0}, 0, 7.0),
        ({}, 0, None),
    ],
)
def test_a_probe_is_judged_by_its_speed_of_decoding_if_it_has_one_and_by_retries(metrics, retries, rate):
    cell = make_cell(leaves={"micro_batch_size": 8})
    found = tried_by(make_record(cell, metrics=metrics))
    assert found == tried(8, fits=True, retries=retries) | {"cell": cell.slug, "tokens_per_second_per_device": rate}
