"""The rooms of docs/structure.md, made from the docstrings of the code: `make structure` writes them."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "benchrunner"
PAGE = ROOT / "docs" / "structure.md"
BEGIN, END = "<!-- rooms: written by `make structure` -->", "<!-- end of rooms -->"

FLOORS = (
    "cli",
    "compare",
    "report",
    "run",
    "store",
    "outcome",
    "plan",
    "config",
    "launch",
    "machine",
    "core",
    "worker",
)
"""Top floor first, as in the contract of pyproject.toml; a room that is not here comes last."""

WORKER = ["faults", "workloads", "validity", "steps", "measure", "engines", "axes", "model"]


def main() -> None:
    """Write the rooms into the page."""
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


def page(text: str) -> str:
    """The page with its rooms made anew; everything outside the two marks is kept."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{rooms()}\n{END}{after}"


def rooms() -> str:
    """Each room with its sentence and a table of its modules."""
    places = sorted({path.parent for path in PACKAGE.rglob("*.py")}, key=_floor)
    return "\n".join(_room(place) for place in places)


def _floor(place: Path) -> tuple[int, ...]:
    """The order of a room: by floor, an inner room right behind the one that it is in."""
    parts = place.relative_to(PACKAGE).parts
    orders = (FLOORS, WORKER)
    known = [
        orders[min(depth, 1)].index(part) if part in orders[min(depth, 1)] else len(FLOORS)
        for depth, part in enumerate(parts)
    ]
    return (len(FLOORS) + 1,) if not parts else tuple(known)


def _room(place: Path) -> str:
    name = place.relative_to(PACKAGE).as_posix()
    title = "The program" if name == "." else f"`{name}/`"
    modules = [path for path in sorted(place.glob("*.py")) if path.name != "__init__.py"]
    lines = [f"| `{path.name}` | {sentence(path)} |" for path in modules]
    table = ["| file | why it exists |", "|---|---|", *lines, ""] if lines else []
    depth = "#" * min(3 + name.count("/"), 5)
    return "\n".join([f"{depth} {title}", "", sentence(place / "__init__.py"), "", *table])


def sentence(path: Path) -> str:
    """The first paragraph of a module's docstring, on one line, as a field of a table.

    Raises:
        ValueError: the module has none.
    """
    found = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not found:
        raise ValueError(f"{path} has no docstring")
    return re.sub(r"\s+", " ", found.split("\n\n")[0]).replace("|", "\\|")


if __name__ == "__main__":
    main()
