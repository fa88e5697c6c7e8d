"""Predictions against published pages whose records are gone: `python benchmarks/published_peaks.py`.

The sweeps behind a page are planned anew for its device, without one, and their cells are found in the page's tables by
what those show: peak memory (rounded to 0.01 GiB there) and the time of a step, of a generation the time of a sample.
Prints a line a page and kind of cell, times that the device limits apart from those that wait for the host, how often
the 90 % intervals hold, and whether the fastest measured cell is among the first three predicted. `--page` judges one;
`--calibrate` fits typical efficiencies to six of the cells, one of a kind (`SIX`), and judges the others.
"""

import argparse
import statistics
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from predictions import MISSES

from benchrunner.cli.overrides import plan_overrides
from benchrunner.core.cell import Cell
from benchrunner.core.lengths import is_padded, padded_lengths
from benchrunner.core.units import GIB
from benchrunner.machine.hardware import Hardware
from benchrunner.plan.calibrate import fit_times, timed_by
from benchrunner.plan.dry_runs import apply_dry_runs
from benchrunner.plan.memory import peak_of
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.predict import Prediction, predict

RESULTS = Path(__file__).parents[1] / "docs" / "results"

LLAMA, MATRIX = "-m model=llama2-7b ", "strategy=ddp,fsdp_stage2,fsdp_stage3"
GENERATE = f"{LLAMA}workload=generate "
PRECISIONS, ENGINES, FINETUNING = ((f"+sweeps={name}-matrix",) for name in ("precision", "engine", "finetune"))
GRAPHS = f"{GENERATE}compile=inductor compile.mode=reduce-overhead compile.scope=model generate.unit=model,token"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of docs/results: what its tables are of."""

    name: str
    sweeps: tuple[tuple[str, ...], ...]
    """For each table with measurements the overrides whose cells its rows are; the last ones are of all that follow."""


PAGES = (
    Page("2026-11-21-h200-precision-matrix", (PRECISIONS,)),
    Page("2026-11-21-h200-finetune-matrix", (FINETUNING,)),
    Page("2026-11-21-h200-engine-matrix", (ENGINES,)),
    Page(
        "2026-11-21-h200-options",
        (("+sweeps=h200-options", f"{LLAMA}model.num_layers=4 {MATRIX} precision=bf16,fp8 devices=2"),) * 2
        + (
            (
                f"{LLAMA}model.num_layers=2 strategy=ddp,fsdp_stage3 devices=2 compile=inductor "
                "compile.mode=reduce-overhead micro_batch_size=1 global_batch_size=8 seq_len=2048",
            ),
        ),
    ),
    Page(
        "2026-11-21-h200-overhead",
        ((f"{LLAMA}compile=eager,inductor devices=1", f"{LLAMA}{MATRIX} compile=eager,inductor devices=4"),),
    ),
    Page(
        "2026-11-21-h200-fp8-overhead",
        (
            (
                f"{LLAMA}compile=inductor precision=fp8,fp8-torchao devices=1",
                f"{LLAMA}strategy=ddp,fsdp_stage3 compile=inductor precision=fp8,fp8-torchao devices=2",
            ),
        ),
    ),
    Page(
        "2026-11-21-h200-litgpt-tables",
        (
            ("+sweeps=litgpt-forward",),
            ("+sweeps=litgpt-train",),
            ("+sweeps=litgpt-forward", "+sweeps=litgpt-train"),
            ("+sweeps=litgpt-generate",),
        ),
    ),
    Page(
        "2026-11-21-h200-generate",
        (
            (
                f"{GENERATE}precision=bf16,nf4,nf4-dq",
                f"{GRAPHS} precision=bf16,nf4",
            ),
            (f"{GRAPHS} model.num_layers=8",),
        ),
    ),
    Page("2026-11-29-h200-front-page", (("+sweeps=front-page",),)),
    Page(
        "2026-11-29-h200-llm-train-bench",
        (*(("+sweeps=llm-train-bench",),) * 4, ("+sweeps=llm-train-bench-examples",)),
    ),
    Page(
        "2026-11-30-h200-healthy-cells",
        (
            *(PRECISIONS, ENGINES, FINETUNING, ENGINES, PRECISIONS, FINETUNING, PRECISIONS, ENGINES, FINETUNING),
            ("+sweeps=finetune-matrix", "+sweeps=front-page", "+sweeps=litgpt-resources-multi devices=2"),
        ),
    ),
)

COLUMNS = {
    "checkpointing": "activation_checkpointing",
    "cell ms": "step ms",
    "cell GiB": "peak GiB",
    "devices": "world",
    "fp8 by": "precision",
}
"""Column of a page → ours, where the names differ."""

VALUES = {
    "inductor, per block": {"compile": "inductor"},
    "inductor, whole model, CUDA graphs": {"compile": "inductor"},
    "the same, `generate.unit=token`": {"compile": "inductor", "generate.unit": "token"},
    "torchao, tensorwise": {"precision": "fp8-torchao"},
    "Transformer Engine, delayed scaling": {"precision": "fp8"},
}
"""Field of a page → what it says of the cell, where that is no option's name."""

MEASURED = ("step ms", "decode tokens/s", "peak GiB")
NUM_BEST = 3

SIX = (
    ("overhead", "train_single_bf16_eager"),
    ("precision-matrix", "train_single_fp8_inductor_none"),
    ("precision-matrix", "train_ddp_fp8-torchao_eager_none"),
    ("precision-matrix", "train_fsdp_stage3_bf16-mixed_eager_full"),
    ("finetune-matrix", "adapter_v2_single_nf4_eager"),
    ("h200-generate", "generate_single_bf16_eager"),
)
"""Page and a part of the slug of cells that a calibration may be fitted to."""


@dataclass(frozen=True, slots=True)
class Compared:
    """A row of a page, and its cell's prediction."""

    page: str
    planned: PlannedCell
    predicted_bytes: int
    """Of the peak that the page shows."""
    peak_gib: float | None
    time_s: float | None

    @property
    def predicted(self) -> Prediction:
        return self.planned.predicted or Prediction()

    @property
    def kind(self) -> tuple[str, ...]:
        return tuple(self.planned.cell.axes[name] for name in ("workload", "precision", "compile"))

    @property
    def memory_error(self) -> float | None:
        return self.predicted_bytes / GIB / self.peak_gib - 1 if self.peak_gib else None

    @property
    def time_error(self) -> float | None:
        seconds = self.predicted.get("step_time_s")
        return seconds / self.time_s - 1 if seconds and self.time_s else None

    @property
    def waits(self) -> bool:
        return self.predicted.get("limited_by") == "host"

    @property
    def holds(self) -> bool:
        low, high = self.predicted.get("step_time_low_s"), self.predicted.get("step_time_high_s")
        return low is not None and high is not None and self.time_s is not None and low <= self.time_s <= high


def main() -> None:
    """Compare and print."""
    arguments = _arguments()
    pages = [page for page in PAGES if arguments.page in page.name]
    found = [(page.name, row, cell) for page in pages for row, cell in _rows(page, arguments.hardware)]
    machine = _machine(arguments.hardware)
    fitted: set[int] = set()
    if arguments.calibrate:
        chosen = [next(one for one in found if page in one[0] and slug in one[2].slug) for page, slug in SIX]
        machine, fitted = _calibrated(machine, chosen), {id(row) for _, row, _ in chosen}
    others = [one for one in found if id(one[1]) not in fitted]
    planned = _predicted([cell for _, _, cell in others], machine, arguments.method)
    compared = [
        Compared(name, one, _predicted_bytes(one), _number(row.get("peak GiB")), _time_s(row, one.cell))
        for (name, row, _), one in zip(others, planned, strict=True)
    ]
    for page in pages:
        _print_page(page.name, [one for one in compared if one.page == page.name], arguments.kinds)
    _print_line("all pages", compared)
    if arguments.misses:
        _print_misses(compared)


def _predicted_bytes(planned: PlannedCell) -> int:
    """Where samples differ in length that of the window's longest, whose peak pages show, by arithmetic in any case."""
    cell = planned.cell
    if not is_padded(cell):
        return (planned.predicted or Prediction())["peak_memory_bytes"]
    first, ranks = cell.config.measure.warmup_steps, range(cell.sizes.world_size)
    steps = range(first, first + cell.config.measure.steps)
    longest = max(max(padded_lengths(cell, step, rank)) for step in steps for rank in ranks)
    alike = replace(cell.config, workload=replace(cell.config.workload, lengths="fixed"))
    return peak_of(alike, replace(cell.sizes, seq_len=longest)).total_bytes


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", default="", help="a part of a page's name, e.g. precision-matrix")
    parser.add_argument("--method", choices=("dry_run", "analytic"), default="analytic")
    parser.add_argument("--hardware", default="h200-sxm-141gb")
    parser.add_argument("--calibrate", action="store_true", help="fit the times to six cells and judge the others")
    parser.add_argument("--kinds", action="store_true", help="a line for each workload, precision and compiler as well")
    parser.add_argument("--misses", action="store_true", help="the cells that miss")
    return parser.parse_args()


def _calibrated(machine: Hardware, rows: Sequence[tuple[str, dict[str, str], Cell]]) -> Hardware:
    """The machine as if nothing but these cells were known of its times."""
    machine = replace(machine, calibration={})
    timed = [(cell, seconds) for _, row, cell in rows if (seconds := _time_s(row, cell))]
    fitted = fit_times([one for cell, seconds in timed if (one := timed_by(cell, seconds, machine))], machine)
    print(f"fitted to {', '.join(cell.slug for cell, _ in timed)}:\n{fitted}")
    return replace(machine, calibration=fitted)


# --- rows and their cells


def _rows(page: Page, hardware: str) -> Iterator[tuple[dict[str, str], Cell]]:
    """Every measured row of a page's tables with its cell."""
    tables = list(_tables(RESULTS / f"{page.name}.md"))
    for number, table in enumerate(tables):
        cells = [cell for sweep in page.sweeps[min(number, len(page.sweeps) - 1)] for cell in _planned(sweep, hardware)]
        for row in table:
            cell = _cell_of(row, cells)
            if cell is not None:
                yield row, cell


def _machine(name: str) -> Hardware:
    return plan_overrides(_words(f"hardware={name} predict=off"), launch=False).hardware


def _planned(sweep: str, hardware: str) -> list[Cell]:
    made = plan_overrides(_words(f"{sweep} hardware={hardware} predict=off"), launch=False)
    return [one.cell for one in made.cells]


def _words(text: str) -> Namespace:
    words = text.split()
    return Namespace(overrides=[word for word in words if word != "-m"], multirun="-m" in words)


def _tables(page: Path) -> Iterator[list[dict[str, str]]]:
    """The tables that have a measured time, row by row, under our names of columns and values."""
    lines = [*page.read_text().splitlines(), ""]
    is_row = [line.startswith("|") for line in lines]
    for start in (index for index, is_one in enumerate(is_row) if is_one and not is_row[index - 1]):
        names = [COLUMNS.get(name, name) for name in _fields(lines[start])]
        end = is_row.index(False, start)
        if set(names) & set(MEASURED):
            yield [_translated(dict(zip(names, _fields(line), strict=True))) for line in lines[start + 2 : end]]


def _fields(line: str) -> list[str]:
    return [field.strip(" *") if "," in field else field.strip(" *`") for field in line.strip("| ").split("|")]


def _translated(row: dict[str, str]) -> dict[str, str]:
    said = {key: value for field in row.values() for key, value in VALUES.get(field, {}).items()}
    return {**row, **said}


def _cell_of(row: dict[str, str], cells: Sequence[Cell]) -> Cell | None:
    """The cell that a row is of: of those that have its values the one that was overridden least; None: none is."""
    wanted = [word for word in row.get("settings", "none").split() if word != "none"]
    wanted += [f"{key}={value}" for key, value in row.items() if "." in key and " " not in key]
    found = [cell for cell in cells if _is_of(cell, row) and all(_says(cell, word) for word in wanted)]
    return min(found, key=lambda cell: len(cell.overrides), default=None)


def _is_of(cell: Cell, row: dict[str, str]) -> bool:
    same = all(row.get(axis, value) == value for axis, value in cell.axes.items())
    return same and int(row.get("world", cell.sizes.world_size)) == cell.sizes.world_size


def _says(cell: Cell, word: str) -> bool:
    key, _, value = word.partition("=")
    section, _, leaf = key.partition(".")
    said = getattr(getattr(cell.config, section), leaf)
    return ("null" if said is None else str(said).lower()) == value.lower()


def _number(text: str | None) -> float | None:
    try:
        return float((text or "").split()[0].replace(",", ""))
    except (IndexError, ValueError):
        return None


def _time_s(row: dict[str, str], cell: Cell) -> float | None:
    """Seconds of a step; of a generation those of a sample, from its two parts where it says no more."""
    if (step_ms := _number(row.get("step ms"))) is not None:
        return step_ms / 1e3
    tokens_per_s = _number(row.get("decode tokens/s")) or _number(row.get("tokens/s"))
    if not tokens_per_s:
        return None
    first_ms = _number(row.get("first token ms"))
    first_s = first_ms / 1e3 if first_ms else 1 / tokens_per_s
    return first_s + (cell.config.generate.new_tokens - 1) / tokens_per_s


# --- predictions and their errors


def _predicted(cells: Sequence[Cell], machine: Hardware, method: str) -> list[PlannedCell]:
    asked = []
    for cell in cells:
        asking = replace(cell, config=replace(cell.config, predict=replace(cell.config.predict, name=method)))
        asked.append(PlannedCell(cell=asking, verdict="run", predicted=predict(asking, machine)))
    return apply_dry_runs(asked, machine)


def _print_page(name: str, compared: Sequence[Compared], by_kind: bool) -> None:
    _print_line(name, compared)
    kinds = sorted({one.kind for one in compared}) if by_kind else []
    for kind in kinds:
        _print_line("  " + " ".join(kind), [one for one in compared if one.kind == kind])
    for workload in sorted({one.kind[0] for one in compared}):
        _print_best(workload, [one for one in compared if one.kind[0] == workload and one.time_error is not None])


def _print_line(name: str, compared: Sequence[Compared]) -> None:
    memory = [one.memory_error for one in compared if one.memory_error is not None]
    timed = [one for one in compared if one.time_error is not None]
    device, host = ([one.time_error or 0.0 for one in timed if one.waits == waits] for waits in (False, True))
    held = f"{sum(one.holds for one in timed)} of {len(timed)}"
    print(f"{name:<40}memory {_errors(memory)}  device {_errors(device)}  host {_errors(host)}  intervals {held}")


def _errors(errors: Sequence[float]) -> str:
    if not errors:
        return f"{'–':<29}"
    sizes = [abs(error) for error in errors]
    return f"({len(sizes):3}) median {statistics.median(sizes):5.1%} max {max(sizes):5.1%}"


def _print_best(workload: str, timed: Sequence[Compared]) -> None:
    """Whether the fastest measured cell of a matrix, by tokens of a device, is among the first predicted."""
    if len(timed) <= 2 * NUM_BEST:
        return
    by_prediction = sorted(timed, key=lambda one: one.predicted["step_time_s"] or 0.0)
    best = min(timed, key=lambda one: one.time_s or 0.0)
    place = by_prediction.index(best) + 1
    print(f"  {workload}: the fastest of {len(timed)} cells is number {place} as predicted: {best.planned.cell.slug}")


def _print_misses(compared: Sequence[Compared]) -> None:
    for one in compared:
        memory, time = one.memory_error or 0.0, one.time_error or 0.0
        if abs(memory) > MISSES["memory"]:
            print(f"misses memory by {memory:+.1%}: {one.page} {one.planned.cell.slug}, measured {one.peak_gib} GiB")
        if abs(time) > MISSES["time"]:
            print(f"misses time by {time:+.1%}: {one.page} {one.planned.cell.slug}, measured {one.time_s:.4g} s")


if __name__ == "__main__":
    main()
