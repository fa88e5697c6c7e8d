"""Is a plan.json still what was planned: ids, digests, slugs and sizes are made again from what they stand for.

They name directories and rows; a file that was edited must neither lead out of the sweep nor put a measurement under
another cell's name.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from benchrunner.core.cell import (
    Cell,
    derive_sizes,
    digest_tree,
    digest_values,
    identity,
    identity_overrides,
    remember_by_identity,
    unique_slug,
)
from benchrunner.core.errors import DamagedFile
from benchrunner.core.schema import SECTIONS
from benchrunner.machine.hardware import Hardware, usable_devices


def require_as_planned(cells: Iterable[Cell], hardware: Hardware, document: Mapping[str, Any]) -> None:
    """Compare what each cell is called with what it is.

    Args:
        cells: of the plan, in its order.
        hardware: the machine that was planned for.
        document: plan.json as plain data, which may hold keys of another version that its digests stand for.

    Raises:
        DamagedFile: the first thing that was edited.
    """
    section_digest = remember_by_identity(digest_values)
    slugs: set[str] = set()
    for index, (cell, entry) in enumerate(zip(cells, document["cells"], strict=True)):
        tree = _tree(entry, document)
        made = {
            "cell_id": (cell.cell_id, identity(cell.axes, cell.overrides)),
            "config_digest": (cell.config_digest, digest_tree(tree, section_digest)),
            "slug": (cell.slug, unique_slug(cell.axes, cell.overrides, cell.cell_id, slugs)),
            "sizes": (cell.sizes, derive_sizes(cell.config, usable_devices(hardware))),
        }
        made |= {key: (value, _leaf(tree, key)) for key, value in identity_overrides(cell.overrides).items()}
        _require_equal(f"cells.{index}", made)
        if cell.slug in slugs:
            raise DamagedFile(f"cells.{index}: the cell is there twice")
        slugs.add(cell.slug)


def _tree(entry: Mapping[str, Any], document: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of a cell, as the plan's writer knew it."""
    own = {key: document["sections"][key][place] for key, place in entry.get("options", {}).items()}
    return {**document["common"], **entry.get("scalars", {}), **own}


def _leaf(tree: Mapping[str, Any], key: str) -> Any:
    """The value of a leaf; of a section the option that it is."""
    section, _, leaf = key.partition(".")
    return tree[section].get(leaf or "name") if section in SECTIONS and section in tree else tree.get(key)


def _require_equal(place: str, made: Mapping[str, tuple[Any, Any]]) -> None:
    for name, (found, expected) in made.items():
        if found != expected:
            raise DamagedFile(f"{place}: its {name} is {found}, its settings make {expected}; one of them was edited")
