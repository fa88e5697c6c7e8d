"""The pictures of the README: `python docs/make_pictures.py [DIR]` writes docs/pictures/.

`memory-speed.svg` is the picture that every report.html has, of the published H200 cells. With the directory of a
sweep: `terminal.svg`, what `bench report DIR` prints, and `page.png` and `page-phone.png`, the first screen of its page
on a desk and, dark, on a telephone, in a headless Chromium if there is one (`make pictures` takes outputs/latest).
"""

import io
import re
import subprocess
import sys
from html import escape
from pathlib import Path

from rich.console import Console
from rich.text import Text

from benchrunner.report import charts
from benchrunner.report.charts import Point

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))

from browser import BROWSERS, find_browser, open_browser

DOCS = Path(__file__).resolve().parent
PICTURES = DOCS / "pictures"
PUBLISHED = DOCS / "results" / "2026-11-21-h200-precision-matrix.md"
STYLE = DOCS.parent / "src" / "benchrunner" / "report" / "report.css"

COLUMNS = 100
LINES = 46
"""Of a terminal: the last that are printed."""

SCREENS = {"page": (1200, 900, False), "page-phone": (390, 844, True)}
"""Picture → width, height, and whether in dark colours."""


def main(arguments: list[str]) -> None:
    """Write what can be written here, and say what cannot."""
    PICTURES.mkdir(exist_ok=True)
    (PICTURES / "memory-speed.svg").write_text(memory_picture(published_cells()), encoding="utf-8")
    for directory in map(Path, arguments):
        (PICTURES / "terminal.svg").write_text(terminal_picture(directory), encoding="utf-8")
        photograph(directory / "report.html")


# --- the published cells -------------------------------------------------------------------------------------------


def published_cells() -> list[Point]:
    """The rows of the published table `Measured` as points."""
    lines = [line for line in PUBLISHED.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    head = next(number for number, line in enumerate(lines) if "tokens/s/device" in line)
    names = _fields(lines[head])
    rows = [dict(zip(names, _fields(line), strict=True)) for line in lines[head + 2 :] if line.count("|") > len(names)]
    return [_point(row, place) for place, row in enumerate(rows)]


def _fields(line: str) -> list[str]:
    return [field.strip().strip("*") for field in line.strip().strip("|").split("|")]


def _point(row: dict[str, str], place: int) -> Point:
    title = " · ".join(row[name] for name in ("strategy", "precision", "compile", "checkpointing"))
    speed = float(row["tokens/s/device"].replace(",", ""))
    return Point(x=float(row["peak GiB"]), y=speed, series=row["precision"], title=title, row=place)


def memory_picture(points: list[Point]) -> str:
    """A picture that stands alone, in the colours of the page."""
    drawing = charts.scatter(points, "peak GiB a device", "tokens/s/device")
    drawing = drawing[: drawing.index("</svg>")]
    size = f'width="{charts.WIDTH}" height="{charts.HEIGHT}"'
    style = STYLE.read_text(encoding="utf-8") + "svg { font-family: system-ui, sans-serif; }"
    paper = f'<style>{style}</style><rect {size} style="fill: var(--card)"/>'
    drawing = drawing.replace("<svg ", f'<svg xmlns="http://www.w3.org/2000/svg" {size} ', 1).replace(
        ">", f">{paper}", 1
    )
    return f"{drawing}{_legend(list(dict.fromkeys(point.series for point in points)))}</svg>\n"


def _legend(names: list[str]) -> str:
    rows = enumerate(names)
    left, top = charts.WIDTH - 130, charts.HEIGHT - charts.BOTTOM - 20 * len(names)
    return "".join(
        f'<circle class="mark s{number}" cx="{left}" cy="{top + 20 * number}" r="5"/>'
        f'<text x="{left + 12}" y="{top + 4 + 20 * number}">{escape(name)}</text>'
        for number, name in rows
    )


# --- a sweep -------------------------------------------------------------------------------------------------------


def terminal_picture(directory: Path) -> str:
    """The end of what `bench report DIR` prints, as it stands on a terminal."""
    variables = {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color", "PATH": "/usr/bin:/bin"}
    path = {"PYTHONPATH": str(DOCS.parent / "src")}
    command = [sys.executable, "-m", "benchrunner", "report", str(directory)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, env=variables | path).stdout
    console = Console(record=True, width=COLUMNS, file=io.StringIO(), color_system="truecolor")
    for line in printed.splitlines()[-LINES:]:
        console.print(Text.from_ansi(line), soft_wrap=True)
    picture = console.export_svg(title=f"bench report {directory.name}", unique_id="terminal")
    return re.sub(r"@font-face\s*\{.*?\}", "", picture, flags=re.DOTALL)  # nothing is loaded from elsewhere


def photograph(page: Path) -> None:
    """The first screen of a page, as it is on a desk and on a telephone."""
    if find_browser() is None:
        print(f"none of {', '.join(BROWSERS)} is here, so there are no pictures of the page", file=sys.stderr)
        return
    with open_browser() as browser:
        for name, (width, height, is_dark) in SCREENS.items():
            browser.show(width, height, is_dark=is_dark)
            browser.open(page)
            browser.photograph(PICTURES / f"{name}.png")


if __name__ == "__main__":
    main(sys.argv[1:])
