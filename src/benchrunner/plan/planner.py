"""From composed rows to a plan: every cell made, sized and decided upon."""

import os
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from benchrunner.core import arithmetic
from benchrunner.core.cell import (
    Cell,
    config_digest,
    derive_sizes,
    digest_section,
    identity,
    identity_overrides,
    is_cut,
    remember_by_identity,
    unique_slug,
)
from benchrunner.core.schema import typed_section
from benchrunner.machine.hardware import Hardware, usable_devices
from benchrunner.plan.dry_runs import METHOD, apply_dry_runs
from benchrunner.plan.expectation import read_expectations, vain_expectations
from benchrunner.plan.plan import ModelCard, Plan, PlannedCell
from benchrunner.plan.rules import Rule
from benchrunner.plan.search import decide_search
from benchrunner.plan.unread import leave_out_unread
from benchrunner.plan.verdict import Preflight, Verdict

if TYPE_CHECKING:
    from benchrunner.config.hydra_app import Expansion
    from benchrunner.config.matrix import Row


def make_plan(
    expansion: "Expansion",
    hardware: Hardware,
    rules: Sequence[Rule],
    *,
    launch: bool = False,
    num_cores: int | None = None,
) -> Plan:
    """Decide about every row.

    Args:
        expansion: the composed rows, one at least.
        hardware: the machine that is planned for.
        rules: from `compat.load_rules`.
        launch: the plan is about to be run, so a machine that is not this one has no devices.
        num_cores: CPU cores; None: this machine's.

    Raises:
        ConfigError: `sweep.expect` is not written as it should be.
    """
    expected = read_expectations(expansion.rows[0].config.sweep.expect)
    read = leave_out_unread(expansion, hardware, rules)
    rows = [one.row for one in read.rows]
    preflight = Preflight(hardware, rules, launch, num_cores or os.cpu_count() or 1)
    cells = make_cells(rows, hardware)
    verdicts = [_decide(cell, row.excluded_reason, preflight) for cell, row in zip(cells, rows, strict=True)]
    planned = [
        _planned(cell, verdict, one.left_out) for cell, verdict, one in zip(cells, verdicts, read.rows, strict=True)
    ]
    return Plan(
        cells=[_judged_again(one, preflight) for one in apply_dry_runs(planned, hardware)],
        hardware=hardware,
        sweep_name=expansion.sweep_name,
        arguments=list(expansion.arguments),
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        cards=_cards(expansion),
        notes=(*read.notes, *filter(None, [vain_expectations(expected, cells, hardware)])),
    )


def _decide(cell: Cell, excluded_reason: str | None, preflight: Preflight) -> Verdict:
    decide = partial(decide_search, preflight=preflight) if cell.search else preflight.decide
    return decide(cell, excluded_reason)


def _judged_again(planned: PlannedCell, preflight: Preflight) -> PlannedCell:
    """A dry run may know better than arithmetic whether a cell fits."""
    if planned.verdict != "run" or planned.cell.config.predict.name != METHOD or planned.cell.search:
        return planned
    return _planned(planned.cell, preflight.judge_memory(planned.cell, planned), planned.left_out)


def _cards(expansion: "Expansion") -> dict[str, ModelCard]:
    """What a model is without the overrides that changed it."""
    changed = {row.axes["model"] for row in expansion.rows if any(key.startswith("model.") for key in row.overrides)}
    return {name: _card(expansion.models[name]) for name in sorted(changed)}


def _card(section: Mapping[str, Any]) -> ModelCard:
    model = typed_section("model", section)
    return {"num_layers": model.num_layers, "num_parameters": arithmetic.num_parameters(model)}


def _planned(cell: Cell, verdict: Verdict, left_out: tuple[str, ...]) -> PlannedCell:
    return PlannedCell(cell=cell, left_out=left_out, **{name: getattr(verdict, name) for name in Verdict.__slots__})


def make_cells(rows: Iterable["Row"], hardware: Hardware) -> list[Cell]:
    """The cells of the rows, with sizes for `hardware`; slugs are unique in the list."""
    rows = list(rows)
    section_digest, varying = remember_by_identity(digest_section), cache(partial(_varying, rows))
    visible = usable_devices(hardware)
    slugs: set[str] = set()
    cells = []
    for row in rows:
        overrides = _ordered(row.overrides)
        if is_cut(row.axes, overrides):  # what all rows have may be cut away
            overrides = {key: overrides[key] for key in sorted(overrides, key=lambda key: key not in varying())}
        cell_id = identity(row.axes, overrides)
        slug = unique_slug(row.axes, overrides, cell_id, slugs)
        slugs.add(slug)
        cells.append(
            Cell(
                cell_id=cell_id,
                config_digest=config_digest(row.config, section_digest),
                slug=slug,
                axes=row.axes,
                overrides=overrides,
                config=row.config,
                sizes=derive_sizes(row.config, visible),
            )
        )
    return cells


def _varying(rows: Sequence["Row"]) -> frozenset[str]:
    """The leaves that not all rows change to the same."""
    changed = [{(key, repr(value)) for key, value in identity_overrides(row.overrides).items()} for row in rows]
    shared = changed[0].intersection(*changed)
    return frozenset(key for one in changed for key, _ in one - shared)


def _ordered(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What tells cells apart first, the settings of the whole sweep after it."""
    return {**identity_overrides(overrides), **overrides}
