"""The options of every group: composed on top of the fixed overrides, and as their files alone have them."""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hydra.core.config_loader import ConfigLoader

from benchrunner.config import keys
from benchrunner.config.hydra_app.loader import compose, schema_defaults
from benchrunner.config.hydra_app.overrides import Assignment
from benchrunner.config.hydra_app.sweeps import override_of, sweep_body, sweep_line
from benchrunner.config.matrix import Matrix, Pieces
from benchrunner.core import paths
from benchrunner.core.axes import GROUPS
from benchrunner.core.errors import ConfigError


def pieces_of(
    loader: ConfigLoader, assignments: Mapping[str, Assignment], matrices: Sequence[Matrix], sweep: str | None
) -> Pieces:
    """Compose the base and every swept option on top of all fixed overrides, and the untouched options beside them."""
    fixed = {one.key: one for one in assignments.values() if not one.is_sweep}
    swept = _swept_options(matrices)
    for group, names in [*swept.items(), *((key, one.values) for key, one in fixed.items() if key in GROUPS)]:
        for name in names:
            _check_option_file(group, name)
    declared = [sweep_line(sweep)] if sweep else []
    lines = [one.line for one in fixed.values() if one.key not in swept] + declared
    base, options = _compose_options(loader, lines, swept)
    if len(matrices) > 1:  # not every product varies every swept group
        base, _ = _compose_options(loader, [one.line for one in fixed.values()] + declared, {})
    touched = {key.partition(".")[0] for key in fixed if "." in key} | (_sections_of(sweep) if sweep else set())
    pristine = _pristine(loader, base, options, touched)
    return Pieces(base=base, options=options, pristine=pristine, defaults=schema_defaults())


def option_alone(loader: ConfigLoader, group: str, name: str) -> dict[str, Any]:
    """The section of an option that no override touches."""
    section = compose(loader, [f"{group}={name}"])[group]
    assert isinstance(section, dict)
    return section


def _pristine(
    loader: ConfigLoader, base: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], touched: set[str]
) -> dict[str, dict[str, Any]]:
    """Group → composed name → the section of the option file alone; composed again only where overrides touched it."""
    sections = {group: [base[group], *options.get(group, {}).values()] for group in GROUPS}
    names = {group: list(dict.fromkeys(section["name"] for section in sections[group])) for group in GROUPS}
    again = {group: tuple(names[group]) for group in GROUPS if group in touched}
    pristine = _compose_options(loader, [], again)[1] if again else {}
    untouched = {group: {item["name"]: item for item in sections[group]} for group in GROUPS if group not in touched}
    return {**pristine, **untouched}


def _sections_of(sweep: str) -> set[str]:
    """The sections that the body of a sweep file may change: all of them if it builds on other files."""
    body = sweep_body(sweep)
    alone = all(entry == "_self_" or override_of(entry) for entry in body.get("defaults", []))
    return {str(key) for key in body} if alone else set(GROUPS)


def _swept_options(matrices: Sequence[Matrix]) -> dict[str, tuple[str, ...]]:
    swept: dict[str, dict[str, None]] = {}
    for matrix in matrices:
        for key, values in matrix.axes.items():
            if key in GROUPS:
                swept.setdefault(key, {}).update(dict.fromkeys(values))
    return {group: tuple(names) for group, names in swept.items()}


def _compose_options(
    loader: ConfigLoader, lines: Sequence[str], swept: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """The base, and group → option → its composed section.

    The i-th options of all groups are composed at once; that is allowed because no option file reaches outside its
    group (`_check_option_file`), and it is checked against the base for everything else.
    """
    options: dict[str, dict[str, Any]] = {group: {} for group in swept}
    base: dict[str, Any] = {}
    for i in range(max([len(names) for names in swept.values()], default=1)):
        choice = {group: names[min(i, len(names) - 1)] for group, names in swept.items()}
        composed = compose(loader, [*lines, *(f"{group}={name}" for group, name in choice.items())])
        del composed["hydra"]
        keys.check_values(composed)
        base = base or composed
        for section in composed.keys() - choice.keys():
            if composed[section] != base[section]:
                raise ConfigError(section, f"is changed by one of {', '.join(f'{g}={n}' for g, n in choice.items())}")
        for group, name in choice.items():
            options[group].setdefault(name, composed[group])
    _check_names(base, options)
    return base, options


def _check_names(base: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]]) -> None:
    for group in GROUPS:
        for section in [base[group], *options.get(group, {}).values()]:
            if not os.path.isfile(paths.config_dir() / group / f"{section['name']}.yaml"):
                raise ConfigError(f"{group}.name", f"{section['name']!r} is no option file")


def _check_option_file(group: str, name: str) -> None:
    """An option file may set its own group only: a row is put together from pieces that were composed apart."""
    text = (paths.config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    if "${" in text or "@package" in text or re.search(r"^\s*-?\s*(override\s|/|\.\.|[\w.-]+@)", text, re.MULTILINE):
        raise ConfigError(f"{group}={name}", "an option file cannot interpolate, change its package or reach outside")
