"""Searches for a micro-batch while a sweep runs: each learns from its probes, asks for the next one, and concludes.

A search waits in the queue like any cell. Its probes are cells like any other, waiting right before it.
"""

import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from benchrunner.core.paths import SweepPaths, config_dir
from benchrunner.core.record import Record, SearchGrounds, Tried
from benchrunner.outcome.outcome import Outcome
from benchrunner.plan.plan import Plan, PlannedCell
from benchrunner.plan.rules import load_rules
from benchrunner.plan.search import Candidates, Search, search_of, search_text, tried_by
from benchrunner.plan.verdict import Preflight
from benchrunner.run.order import family, micro_batch_of
from benchrunner.run.policy import Policy
from benchrunner.store.probes import write_probe

DECISIVE = ("ok", "oom")
"""Statuses that a search goes on after; any other one ends it."""


class Searches(Policy):
    """Every search of a plan. `records`: slug → those of cells that are not run again."""

    decides_searches = True

    def __init__(self, plan: Plan, paths: SweepPaths, records: Mapping[str, Record]) -> None:
        self.added: list[PlannedCell] = []
        """First processes of the cells that were added to the plan."""
        self._paths = paths
        self._cells = {one.cell.cell_id: one for one in plan.cells}
        self._searches = dict(_searches_of(plan))
        self._known: dict[str, dict[int, Record]] = {}
        """Family → micro-batch → the record of its cell."""
        self._refused: dict[str, Outcome] = {}
        """Cell → why it was not started."""
        self._families: dict[str, str] = {}
        by_time = sorted((one for one in plan.cells if one.cell.slug in records), key=lambda one: _time(records, one))
        for planned in by_time:
            self.learn(planned, records[planned.cell.slug])

    def learn(self, planned: PlannedCell, record: Record) -> None:
        """See Policy: a size that was tried, by a search or because overrides name it."""
        if self._searches and record.repeat == 1 and planned.cell.search is None:
            self._known.setdefault(self._family(planned), {})[micro_batch_of(planned)] = record

    def refused(self, planned: PlannedCell, outcome: Outcome) -> None:
        """See Policy."""
        self._refused[planned.cell.cell_id] = outcome

    def refusal(self, planned: PlannedCell, now_s: float) -> Outcome | None:
        """The verdict on a search that is over."""
        if planned.cell.search is None:
            return None
        size, tried = self._next(planned)
        if size is None:
            return self._conclusion(planned, tried)
        probe = self._probe(planned, size)
        known, refused = self._known_at(planned, size), self._refused.get(probe.cell.cell_id)
        if known is not None:
            return self._ended(planned, tried, size, known)
        return refused and self._ended(planned, tried, size, refused)

    def due(self, waiting: Iterable[PlannedCell], running: Collection[str]) -> list[tuple[PlannedCell, PlannedCell]]:
        """(search, probe) of every waiting search whose next probe neither waits nor runs; `running`: places.

        From now on the probe is a cell of the sweep, on disk too.
        """
        if not self._searches:
            return []
        here = [*waiting]
        busy = {one.place for one in here} | set(running)
        found: list[tuple[PlannedCell, PlannedCell]] = []
        for search in (one for one in here if one.cell.search):
            size, _ = self._next(search)
            probe = self._probe(search, size) if size is not None and self._known_at(search, size) is None else None
            if probe and probe.place not in busy and probe.cell.cell_id not in self._refused:
                busy.add(probe.place)
                self._add(probe)
                found.append((search, probe))
        return found

    def _add(self, probe: PlannedCell) -> None:
        if probe.cell.cell_id not in self._cells:
            self._cells[probe.cell.cell_id] = probe
            self.added.append(probe)
            with suppress(OSError):  # a full disk is no reason to stop: the record will not be written either
                write_probe(self._paths, probe)

    def _probe(self, search: PlannedCell, size: int) -> PlannedCell:
        """The cell of this size: that of the plan, where overrides name it or another search has tried it."""
        made = self._searches[search.cell.cell_id][0].plan(size)
        assert made is not None, "a size that no candidate has"
        return self._cells.get(made.cell.cell_id, made)

    def _next(self, search: PlannedCell) -> tuple[int | None, dict[int, Tried]]:
        """The next size, and what is known of others."""
        known = self._known.get(self._family(search), {})
        tried = {size: tried_by(record) for size, record in known.items() if record.status in DECISIVE}
        return self._searches[search.cell.cell_id][1].next(tried), tried

    def _known_at(self, search: PlannedCell, size: int) -> Record | None:
        return self._known.get(self._family(search), {}).get(size)

    def _conclusion(self, planned: PlannedCell, tried: dict[int, Tried]) -> Outcome:
        found = self._searches[planned.cell.cell_id][1].found(tried)
        grounds = SearchGrounds(kind=str(planned.cell.search), micro_batch_size=found, probes=list(tried.values()))
        if found is not None:
            return Outcome(status="ok", reason=search_text(grounds), evidence={"search": grounds})
        smallest = self._known_at(planned, min(tried)) if tried else None
        code = smallest.reason_code if smallest and smallest.status == "oom" else None
        reason = f"{search_text(grounds)}: not even the smallest micro-batch fits{' without retries' * (code is None)}"
        return Outcome(status="oom", reason_code=code or "oom.device", reason=reason, evidence={"search": grounds})

    def _ended(self, planned: PlannedCell, tried: dict[int, Tried], size: int, why: Record | Outcome) -> Outcome:
        """A search that goes no further, because of what became of its last probe."""
        grounds = SearchGrounds(kind=str(planned.cell.search), micro_batch_size=None, probes=list(tried.values()))
        so_far = self._searches[planned.cell.cell_id][1].found(tried)
        text = f"{search_text(grounds, so_far)}, then {size}: {why.reason or why.status}"
        return Outcome(status=why.status, reason_code=why.reason_code, reason=text, evidence={"search": grounds})

    def _family(self, planned: PlannedCell) -> str:
        """Asked for every search in every turn."""
        slug = planned.cell.slug
        if slug not in self._families:
            self._families[slug] = family(planned)
        return self._families[slug]


def _searches_of(plan: Plan) -> Iterable[tuple[str, tuple[Candidates, Search]]]:
    """Cell id of a search → its candidates, and the search."""
    searches = [one for one in plan.cells if one.cell.search]
    if not searches:
        return
    rules = load_rules(config_dir() / "compat.yaml")
    preflight = Preflight(plan.hardware, rules, launch=False, num_cores=os.cpu_count() or 1)
    slugs = {one.cell.slug for one in plan.cells if not one.probe_of}
    for planned in searches:
        candidates = Candidates(planned.cell, preflight, slugs)
        yield planned.cell.cell_id, (candidates, search_of(planned, candidates))


def _time(records: Mapping[str, Record], planned: PlannedCell) -> str:
    return records[planned.cell.slug].started_at or ""
