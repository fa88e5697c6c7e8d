"""Sweep files: which one the overrides declare, and the products and fixed overrides that it stands for."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigNode, ConfigStore
from hydra.core.override_parser.types import Override, OverrideType
from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError

from benchrunner.config import keys
from benchrunner.config.hydra_app.loader import compose, first_lines, group_options
from benchrunner.config.hydra_app.overrides import (
    NO_MACHINERY,
    Assignment,
    check_option,
    parse_overrides,
    read_overrides,
)
from benchrunner.config.matrix import Matrix
from benchrunner.config.synonyms import option_hint
from benchrunner.core import paths
from benchrunner.core.axes import GROUPS, NOT_IDENTITY, OF_A_PREDICTION
from benchrunner.core.cell import format_value
from benchrunner.core.errors import ConfigError, UsageError, did_you_mean

SWEEPS = "sweeps"
FROM_FILE = "_from_file_"
"""Name under which a sweep file from anywhere is put among the sweeps."""


def sweep_of(loader: ConfigLoader, overrides: Sequence[Override], sweep_file: Path | None) -> str | None:
    """The name of the one sweep that the overrides declare, after checking it."""
    named = [override for override in overrides if override.key_or_group == SWEEPS]
    if len(named) + bool(sweep_file) > 1:
        raise UsageError("one sweep at a time: run bench once for each")
    if sweep_file:
        store_sweep(sweep_file)
        return FROM_FILE
    if not named:
        return None
    override, value = named[0], named[0].value()
    options = loader.get_group_options(SWEEPS)
    if override.is_sweep_override() or isinstance(value, list):
        raise ConfigError(SWEEPS, f"{override.get_value_string()}: one sweep at a time; run bench once for each")
    if override.type == OverrideType.CHANGE:
        raise ConfigError(SWEEPS, f"write +{override.input_line}")
    if value not in options:
        raise ConfigError(SWEEPS, f"no sweep {value!r}{option_hint(SWEEPS, str(value), options)}")
    return str(value)


def compose_sweep(loader: ConfigLoader, sweep: str) -> dict[str, Any]:
    """The sweep composed on its own: its parameters and entries, wherever it inherits them from."""
    _check_sweep(loader, sweep)
    return compose(loader, [sweep_line(sweep)])


def sweep_line(sweep: str) -> str:
    """The override that adds this sweep to a composition."""
    return f"+{SWEEPS}={sweep}"


def store_sweep(path: Path) -> None:
    """Put a sweep file from anywhere among the sweeps.

    Raises:
        UsageError: no such file, or no YAML mapping.
    """
    try:
        if path.is_fifo():
            raise UsageError(f"{path}: a pipe, and no file")
        body = OmegaConf.load(path)
    except OSError as error:
        files = [file.name for file in path.parent.glob("*.y*ml") if os.path.isfile(file)]
        near = did_you_mean(path.name, files)
        raise UsageError(f"{path}: {error.strerror or error}{near}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: not YAML: its text is not UTF-8") from error
    except YAMLError as error:
        raise UsageError(f"{path}: not YAML: {first_lines(str(error))}") from error
    if not isinstance(body, DictConfig) or not body:
        raise UsageError(f"{path}: not a sweep: a mapping with hydra.sweeper.params is expected")
    ConfigStore.instance().store(group=SWEEPS, name=FROM_FILE, node=body, package="_global_", provider=str(path))


def sweep_body(sweep: str) -> dict[str, Any]:
    """The file as it stands, nothing composed."""
    if sweep == FROM_FILE:
        body = OmegaConf.to_container(_stored().node)
    else:
        body = OmegaConf.to_container(OmegaConf.load(paths.config_dir() / SWEEPS / f"{sweep}.yaml"))
    assert isinstance(body, dict)
    return {str(key): value for key, value in body.items()}


def _stored() -> ConfigNode:
    return ConfigStore.instance().load(f"{SWEEPS}/{FROM_FILE}.yaml")


def _file_of(sweep: str) -> str:
    """What a message calls the file of a sweep."""
    return str(_stored().provider) if sweep == FROM_FILE else f"{SWEEPS}/{sweep}.yaml"


def _check_sweep(loader: ConfigLoader, sweep: str) -> None:
    """Name a wrong key or option of a sweep file before Hydra does it without a hint."""
    body = sweep_body(sweep)
    _refuse_misplaced(body)
    _check_rows(body)
    leaves = keys.flatten({key: value for key, value in body.items() if key not in ("hydra", "defaults")})
    for key, value in leaves.items():
        keys.check_key(key)
        if isinstance(value, list) and not keys.takes_list(key):
            names = ",".join(map(str, value))
            raise ConfigError(key, f"a list of YAML is no sweep; under hydra.sweeper.params write {key}: {names}")
    _check_defaults(body.get("defaults", []))
    chosen: dict[str, str] = {}
    for group, name in filter(None, map(override_of, body.get("defaults", []))):
        if group in GROUPS:
            check_option(group, name, group_options(loader, group), f"override /{group}: {name}")
        elif group.startswith("hydra/"):
            raise ConfigError(group, f"{NO_MACHINERY}; leave the line out, or write - override /launcher: slurm")
        else:
            raise ConfigError(group, f"no such group{did_you_mean(group, GROUPS)}; groups: {', '.join(GROUPS)}")
        if group in chosen:
            both = f"{_file_of(sweep)} overrides it twice under defaults, by {chosen[group]} and {name}"
            way = f"keep one of the lines, or write {group}: {chosen[group]},{name} under hydra.sweeper.params"
            raise ConfigError(group, f"{both}; {way}")
        chosen[group] = name


MISPLACED = {
    "params": "hydra.sweeper.params", "sweeper": "hydra.sweeper", "axes": "hydra.sweeper.params",
    "matrix": "hydra.sweeper.params", "grid": "hydra.sweeper.params", "include": "sweep.include",
    "exclude": "sweep.exclude", "overrides": "hydra.sweeper.params",
}  # fmt: skip
"""Top-level key of a sweep file that people write → where it belongs."""


def _refuse_misplaced(body: Mapping[str, Any]) -> None:
    """What people write in sweep files and Hydra would read as something else."""
    for key, value in body.items():
        if key in MISPLACED:
            raise ConfigError(key, f"belongs under {MISPLACED[key]} in a sweep file (see sweeps/smoke.yaml)")
        if key in GROUPS and not isinstance(value, Mapping):
            names = ",".join(map(str, value)) if isinstance(value, list) else "OPTION" if value is None else value
            where = f"under hydra.sweeper.params write {key}: {names}"
            raise ConfigError(key, f"{value!r} is no section; {where}, or under defaults: - override /{key}: OPTION")
    params = _declared_params(body)
    _refuse_lists(params)
    if empty := [key for key, value in params.items() if value is None]:
        raise ConfigError(empty[0], f"has no value; write {empty[0]}: VALUE, of which 'null' in quotes is none")


def _check_rows(body: Mapping[str, Any]) -> None:
    """The lists of the section `sweep` are of mappings, and a row's values are words."""
    section = body.get("sweep", {})
    if not isinstance(section, Mapping):
        raise ConfigError("sweep", f"{section!r} is no section; below it stand include, exclude and expect")
    for name in ("include", "exclude", "expect"):
        if name not in section:
            continue
        place, entries = f"sweep.{name}", section[name]
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise ConfigError(place, f"{entries!r} is no list of rows - {{KEY: VALUE, …}} (see sweeps/smoke.yaml)")
        for entry in entries if name == "include" else ():
            _refuse_lists(entry, f"{place}: ")


def _refuse_lists(values: Mapping[str, Any], place: str = "") -> None:
    for key, value in values.items():
        if isinstance(value, list):
            text = ",".join(map(str, value))
            raise ConfigError(f"{place}{key}", f"a list of YAML is no sweep; write {key}: {text}")


def _declared_params(body: Mapping[str, Any]) -> Mapping[str, Any]:
    found = body
    for place in ("hydra", "hydra.sweeper", "hydra.sweeper.params"):
        part = found.get(place.rpartition(".")[2], {})
        if part is None and place == "hydra.sweeper.params":
            return {}
        if not isinstance(part, Mapping):
            raise ConfigError(place, f"{part!r} is no section; below hydra.sweeper.params stand lines KEY: VALUE,VALUE")
        found = part
    return found


def _check_defaults(entries: Any) -> None:
    """What Hydra would refuse as an error of this program."""
    if not isinstance(entries, list):
        raise ConfigError("defaults", f"{entries!r} is no list of lines - override /GROUP: OPTION")
    for entry in entries:
        if not _is_line(entry):
            raise ConfigError("defaults", f"{entry!r} is no line - override /GROUP: OPTION")
        for key, option in entry.items() if isinstance(entry, dict) else ():
            group = key.removeprefix("override ").strip().lstrip("/")
            if group in GROUPS and key.split() != ["override", f"/{group}"]:
                raise ConfigError("defaults", f"{key}: {option}: write - override /{group}: {option}")
            if group == SWEEPS and not override_of(entry):
                raise ConfigError("defaults", f"{key}: {option}: write - {option}")


def _is_line(entry: Any) -> bool:
    if isinstance(entry, dict) and len(entry) == 1:
        [(key, value)] = entry.items()
        return all(isinstance(word, str) for word in (key, *(value if isinstance(value, list) else [value])))
    return isinstance(entry, str)


def override_of(entry: Any) -> tuple[str, Any] | None:
    """(group, option) of a line `- override /group: option` of a defaults list, else None."""
    key, value = next(iter(entry.items())) if isinstance(entry, dict) else ("", None)
    word, _, group = str(key).partition(" ")
    return (group.strip().lstrip("/"), value) if word == "override" else None


def params_of(master: Mapping[str, Any]) -> list[str]:
    """The overrides that the composed sweep declares under `hydra.sweeper.params`."""
    params = master.get("hydra", {}).get("sweeper", {}).get("params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def matrices_of(
    loader: ConfigLoader, master: Mapping[str, Any], merged: Mapping[str, Assignment], given: Mapping[str, Assignment]
) -> list[Matrix]:
    """The product of the swept overrides, and one more for every entry of `sweep.include`.

    A sweep that lists only entries and no parameters has no product of its own.
    """
    here = given.get("sweep.include")
    entries = here.values[0] if here else master.get("sweep", {}).get("include", [])
    product = Matrix(axes={assignment.key: assignment.values for assignment in merged.values() if assignment.is_sweep})
    included = list(_included(loader, entries, given))
    return included if entries and not params_of(master) else [product, *included]


SETTINGS = NOT_IDENTITY - OF_A_PREDICTION
"""Keys of which no cell is another one."""


def _included(
    loader: ConfigLoader, entries: Sequence[Mapping[str, Any]], given: Mapping[str, Assignment]
) -> Iterator[Matrix]:
    """The product of each entry, narrowed by the overrides that were given; a setting of theirs takes its place."""
    for number, entry in enumerate(entries):
        lines = [f"{key}={value if isinstance(value, str) else format_value(value)}" for key, value in entry.items()]
        axes = {
            assignment.key: assignment.values
            for assignment in read_overrides(loader, parse_overrides(loader, lines)).values()
        }
        for assignment in given.values():
            if assignment.key in axes and assignment.key.partition(".")[0] not in SETTINGS:
                axes[assignment.key] = tuple(value for value in axes[assignment.key] if value in assignment.values)
            elif assignment.is_sweep or assignment.key in axes:
                axes[assignment.key] = assignment.values
        if all(axes.values()):
            yield Matrix(axes=axes, place=f"sweep.include[{number}]")
