"""Predicted peaks against those of a published page: `python benchmarks/published_peaks.py SWEEP PAGE`.

For pages whose records are gone: the sweep is planned anew for the device of the page, without one, and its cells are
found in the page's table of measurements by the axes that it shows. A page's peaks are rounded to 0.01 GiB.
"""

import argparse
import json
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from predictions import MISSES, errors_text

from benchrunner.core.units import GIB

COLUMNS = {"checkpointing": "activation_checkpointing"}
"""Column of a page → axis, where the names differ."""


def main() -> None:
    """Compare and print: each kind of cell, all of them, and those that miss."""
    arguments = _arguments()
    cells = _planned(arguments.sweep, arguments.hardware, arguments.method)
    errors: dict[tuple[str, ...], list[float]] = defaultdict(list)
    methods: dict[tuple[str, ...], list[float]] = defaultdict(list)
    misses = []
    for row in _measured(arguments.page):
        cell = _cell_of(row, cells)
        predicted = cell["predicted"]
        error = predicted["peak_memory_bytes"] / GIB / float(row["peak GiB"]) - 1
        errors[tuple(cell["axes"][name] for name in ("workload", "precision", "compile"))].append(error)
        methods[(f"by {predicted['method']}",)].append(error)
        if abs(error) > MISSES["memory"]:
            misses.append(f"misses by {error:+.1%}: {cell['slug']}, measured {row['peak GiB']} GiB")
    everything = [error for group in errors.values() for error in group]
    for name, group in [*sorted(errors.items()), *sorted(methods.items()), (("all",), everything)]:
        print(f"{' '.join(name):<40}{errors_text([*map(abs, group)])}")
    print(*misses, sep="\n")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sweep", metavar="SWEEP", help="name of a sweep, e.g. precision-matrix")
    parser.add_argument("page", type=Path, metavar="PAGE", help="e.g. docs/results/2026-11-21-h200-precision-matrix.md")
    parser.add_argument("--method", choices=("dry_run", "analytic"), default="dry_run")
    parser.add_argument("--hardware", default="h200-sxm-141gb")
    return parser.parse_args()


def _planned(sweep: str, hardware: str, method: str) -> list[dict[str, Any]]:
    overrides = [f"+sweeps={sweep}", f"hardware={hardware}", f"predict={method}"]
    command = [sys.executable, "-m", "benchrunner", "plan", *overrides, "--json"]
    return json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["cells"]


def _measured(page: Path) -> list[dict[str, str]]:
    """Rows of the first table that has peaks, by the names of its columns."""
    lines = page.read_text().splitlines()
    start = next(index for index, line in enumerate(lines) if line.startswith("|") and "peak GiB" in line)
    names, rows = _fields(lines[start]), []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(dict(zip(names, _fields(line), strict=True)))
    return [row for row in rows if row["peak GiB"].replace(".", "").isdigit()]


def _fields(line: str) -> list[str]:
    return [field.strip() for field in line.strip("| ").split("|")]


def _cell_of(row: dict[str, str], cells: list[dict[str, Any]]) -> dict[str, Any]:
    """The one cell that has the values of a row."""
    wanted = {COLUMNS.get(name, name): value for name, value in row.items()}
    found = [
        cell
        for cell in cells
        if cell["world_size"] == int(wanted.get("world", cell["world_size"]))
        and all(wanted.get(axis, value) == value for axis, value in cell["axes"].items())
    ]
    if len(found) != 1:
        raise SystemExit(f"{len(found)} cells of the sweep are this row: {row}")
    return found[0]


if __name__ == "__main__":
    main()
