"""How large `report.html` of ten thousand cells is, how soon it opens, and how soon a filter shows in Chromium.

    python benchmarks/page.py [--cells 10000] [--keep FILE] [--loads 5]

The cells are planned for eight H200s; what the rules let run gets a made-up record with everything that a real one has.
Opening is from the navigation to the frame after the page has loaded, a filter from its event to the frame that shows
it; each frame is waited for, so nothing is below one. The last line of the output is one JSON document.
"""

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from browser import Page, open_browser
from plan_10k import MATRIX

from benchrunner.config import hydra_app
from benchrunner.core import paths
from benchrunner.core.record import PHASES, Record
from benchrunner.core.units import GIB
from benchrunner.machine import hardware
from benchrunner.plan import planner, rules
from benchrunner.plan.plan import PlannedCell
from benchrunner.report import html
from benchrunner.report.content import Block, make_tables
from benchrunner.report.row import Row

MACHINE = {"hardware": "h200-sxm-141gb", "devices": "8"}

CHECKS = {
    "function": ("loss within 0.05, gradients within 0.2", "loss 0.0131, gradients 0.0182"),
    "optimizer": ("AdamW of 2048 elements", "largest error 3.1e-07"),
    "shape": (6738415616, 6738415616),
    "first_loss": ("11.19 ± 0.30", "11.2043"),
    "trains": ("291 tensors with gradients", "291"),
    "gradients_reduced": ("65 reduce-scatters of 26.95 GB", "65 of 26.95 GB"),
    "sharded": ("1/8 of the parameters at rest", "0.125"),
    "precision": ("all products in bf16", "100.0 % of 2.9e+14 FLOPs"),
    "recompute": ("32 blocks", "32"),
    "compiled": ("graphs over all blocks", "1 graph, 0 breaks, 0 recompilations"),
    "work": ("4096 tokens a step and rank", "4096, 0 padded"),
}
BROKEN = (
    ("oom", "oom.device", "rank {rank} ran out of memory in warmup: {gib:.1f} of 139.8 GiB were in use"),
    ("failed", "failed.exception", "rank {rank} raised RuntimeError in compile: BackendCompilerFailed at node {rank}"),
    ("timeout", "timeout.compile", "rank {rank} made no progress in compile for {gib:.0f} s"),
    ("invalid", "validity.precision", "{gib:.1f} % of the products ran in bf16 where the label says fp8"),
)
"""Status, code and sentence of one in eight cells that run."""

GOALS = {"bytes": 3e6, "open_ms": 1000, "filter_ms": 100}


def main() -> None:
    given = _arguments()
    with tempfile.TemporaryDirectory() as folder:
        target = given.keep or Path(folder, "report.html")
        target.write_text(make_page(given.cells), encoding="utf-8")
        result = {"num_cells": given.cells, "bytes": target.stat().st_size, **timed(target, given.loads)}
    for name, value in result.items():
        goal = f"   (goal {GOALS[name]:g})" if name in GOALS else ""
        print(f"{name:<24} {value:.0f}{goal}")
    print(json.dumps(result))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=10_000)
    parser.add_argument("--keep", type=Path, metavar="FILE", help="where the page is left")
    parser.add_argument("--loads", type=int, default=5, help="in a browser each time new")
    return parser.parse_args()


# --- the page ------------------------------------------------------------------------------------------------------


def make_page(count: int) -> str:
    """A report of so many cells of the matrix, drawn from all of it."""
    dice = random.Random(0)
    cells = planned()
    drawn = [cells[place] for place in sorted(dice.sample(range(len(cells)), count))]
    rows = [
        Row(planned=cell, record=made_up(cell, dice), sweep="page/1", hardware=MACHINE["hardware"],
            device_name="NVIDIA H200", torch="2.11.0+cu130", commit="0123456789ab")
        for cell in drawn
    ]  # fmt: skip
    command = " ".join(["bench", "-m", *(f"{key}={value}" for key, value in MATRIX.items())])
    return html.to_html(make_tables("page/1", rows, [], [Block("page/1", [("Command", command)])]))


def planned() -> list[PlannedCell]:
    """The matrix with its verdicts and predictions."""
    words = [f"{key}={values}" for key, values in (MATRIX | MACHINE).items()]
    expansion = hydra_app.expand(words, multirun=True)
    machine = hardware.resolve(expansion.rows[0].config.hardware)
    return list(planner.make_plan(expansion, machine, rules.load_rules(paths.config_dir() / "compat.yaml")).cells)


def made_up(planned: PlannedCell, dice: random.Random) -> Record | None:
    """A record as the cell might leave it; none where a rule forbids it."""
    if planned.verdict != "run":
        return None
    cell, is_ok = planned.cell, dice.random() > 1 / 8
    verdict = {"status": "ok"} if is_ok else _broken(dice)
    has_numbers = verdict["status"] in ("ok", "invalid")
    return Record(
        cell_id=cell.cell_id, config_digest=cell.config_digest, slug=cell.slug, axes=dict(cell.axes),
        overrides=dict(cell.overrides), sizes=asdict(cell.sizes),
        command="bench " + " ".join(cell.as_overrides()), attempt=1,
        started_at=f"2026-11-21T0{dice.randrange(10)}:{dice.randrange(10, 60)}:00+00:00",
        wall_s=dice.uniform(20, 90), phases_s={phase: dice.uniform(0.1, 20) for phase in PHASES},
        flags=["unstable"] if dice.random() < 0.1 else [], metrics=_metrics(dice) if has_numbers else {},
        checks=_checks() if is_ok else {}, predicted=planned.predicted, **verdict,
    )  # fmt: skip


def _broken(dice: random.Random) -> dict[str, Any]:
    status, code, text = dice.choice(BROKEN)
    rank = dice.randrange(8)
    reason = text.format(rank=rank, gib=dice.uniform(90, 139))
    evidence = {"file": f"rank{rank}.err", "lines": [reason] * 3}
    return {"status": status, "reason_code": code, "reason": reason, "evidence": evidence}


def _metrics(dice: random.Random) -> Any:
    step_s, used = dice.uniform(0.05, 3), dice.uniform(10, 135)
    return {
        "step_time_median_s": step_s, "step_time_p10_s": 0.99 * step_s, "step_time_p90_s": 1.01 * step_s,
        "tokens_per_second_per_device": 4096 / step_s, "mfu": dice.uniform(0.2, 0.6),
        "model_flops_per_second_per_device": dice.uniform(2e14, 6e14), "peak_memory_allocated_bytes": int(used * GIB),
        "peak_memory_reserved_bytes": int((used + 4) * GIB), "num_alloc_retries": int(dice.random() < 0.02),
        "compile_time_s": dice.uniform(5, 60),
    }  # fmt: skip


def _checks() -> Any:
    return {name: {"ok": True, "expected": one, "observed": other} for name, (one, other) in CHECKS.items()}


# --- the browser ---------------------------------------------------------------------------------------------------

AFTER_A_FRAME = (
    "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now()))))"
)
"""When a frame has been shown that has all that was done before; `performance.now()` counts from the navigation."""

OPENED = (
    "const opened = async () => "
    "{ for (let left = 1e4; left && !document.getElementById('cell').open; left--) await new Promise(setTimeout); }"
)
"""Waits until a cell has been unpacked and is shown."""

FILTERS = {
    "a word": "const box = document.getElementById('search'); box.value = 'falcon inductor'; "
              "box.dispatchEvent(new Event('input'))",
    "a status": "document.querySelector('.chip').click()",
    "a value": "const pick = document.querySelectorAll('#tools select')[1]; pick.selectedIndex = 1; "
               "pick.dispatchEvent(new Event('change'))",
    "sorted": "document.querySelector('#cells thead').rows[0].cells[8].click()",
    "all cells": "[...document.querySelectorAll('#tools button')].at(-1).click()",
}  # fmt: skip
"""What is done → how."""


def timed(target: Path, loads: int) -> Mapping[str, float]:
    """Medians over the loads, and the slowest of all filters."""
    found = [_one_load(target) for _ in range(loads)]
    medians = {name: statistics.median(one[name] for one in found) for name in found[0]}
    slowest = max(medians[name] for name in FILTERS)
    return {"open_ms": medians.pop("open_ms"), "filter_ms": slowest, **medians}


def _one_load(target: Path) -> dict[str, float]:
    with open_browser() as page:
        page.show(1200, 900)
        page.open(target)
        times = {"open_ms": float(page.evaluate(AFTER_A_FRAME))}
        for name, action in FILTERS.items():
            times[name] = _milliseconds(page, action)
        times["a cell opened"] = _milliseconds(
            page, "document.querySelector('#cells tbody tr').click(); await opened()"
        )
        assert not page.errors(), page.errors()
    return times


def _milliseconds(page: Page, action: str) -> float:
    """From the event to the frame after it."""
    script = f"{OPENED}; const start = performance.now(); {action}; return await {AFTER_A_FRAME} - start"
    return float(page.evaluate(f"(async () => {{ {script} }})()"))


if __name__ == "__main__":
    main()
