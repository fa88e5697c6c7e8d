"""One override → the assignment that it is: a key with its list of checked values."""

import os
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchrunner.config import keys, synonyms
from benchrunner.config.hydra_app.loader import first_lines, group_options, scratch_node
from benchrunner.config.matrix import Matrix, Row
from benchrunner.core.axes import GROUPS, NOT_IDENTITY, PREDICT_ONLY
from benchrunner.core.cell import format_value
from benchrunner.core.errors import ConfigError, UsageError
from benchrunner.core.paths import PLAN, config_dir

ASKED = "predict."
NO_MACHINERY = "bench does not run through Hydra's machinery"
ONE_VALUE = "does not tell cells apart, so one sweep has one value; run a sweep for each"


@dataclass(frozen=True, slots=True)
class Assignment:
    """One key with its list of values: option names of a group, or typed values of a leaf."""

    key: str
    values: tuple[Any, ...]
    is_sweep: bool
    line: str = field(compare=False, default="")


def parse_overrides(loader: ConfigLoader, texts: Sequence[str]) -> list[Override]:
    """Overrides by Hydra's grammar.

    Raises:
        UsageError: one that it cannot read.
    """
    _refuse_accidents(texts)
    return [_parse_one(loader, text) for text in texts]


def _refuse_accidents(texts: Sequence[str]) -> None:
    """What a shell makes of spaces and quotes, before the parser complains in its own terms."""
    for text, after in zip(texts, [*texts[1:], ""], strict=False):
        key, _, value = text.partition("=")
        if value.startswith("="):
            raise ConfigError(key, f"{text!r} has two equals signs; write {key}={value.lstrip('=') or 'VALUE'}")
        if text.endswith(","):
            whole = f"{text}{after}" if after and "=" not in after else text.rstrip(",")
            raise ConfigError(key, f"{text!r} ends in a comma; a list has no spaces: {whole}")
        if apart := re.findall(r"(?:^|\s)([+~\w./]+=[^\s'\"\[{(]+)(?=\s|$)", text)[1:]:
            raise UsageError(
                f"{text!r} is one quoted argument; write its overrides apart: {text.split()[0]} {apart[0]} …"
            )
        if key != key.strip() or value != value.strip():
            raise ConfigError(key.strip(), f"{text!r} has spaces around it; write {key.strip()}={value.strip()}")
        if value == "~" or value.startswith("~/"):
            raise ConfigError(key, f"the shell expands no ~ behind '='; write {key}=$HOME{value[1:]}")
        if "=" in text and not value and not text.startswith("~"):
            raise ConfigError(key, f"{text!r} has no value; write {key}=VALUE")


def _parse_one(loader: ConfigLoader, text: str) -> Override:
    if "=" not in text and not text.startswith("~"):
        raise UsageError(f"{text!r} is neither key=value nor a flag{meant_by_bare_word(text)}; see bench --help")
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([text])[0]
    except HydraException as error:
        key = text.partition("=")[0].lstrip("+~")
        if re.search(r"=\s*interval\(", text):
            raise ConfigError(key, "interval() names no values; write a list or range(start,stop,step)") from error
        raise ConfigError(key, f"cannot read {text!r}: {first_lines(str(error))}") from error


def meant_by_bare_word(word: str) -> str:
    """A trailing ` (did you mean +sweeps=smoke?)` for the name of a sweep or an option, `key:value` or a plan."""
    if hint := _meant_by_path(word):
        return hint
    key, colon, value = word.partition(":")
    if colon and key.isidentifier():
        return f" (did you mean {key}={value}?)"
    places = [group for group in ("sweeps", *GROUPS) if os.path.isfile(config_dir() / group / f"{word}.yaml")]
    known = [f"{'+' if group == 'sweeps' else ''}{group}={word}" for group in places]
    known += [meant for group in GROUPS if not places and (meant := synonyms.option_meant(group, word))]
    if word in GROUPS or synonyms.key_meant(word):
        known.append(f"{word if word in GROUPS else synonyms.key_meant(word)}=VALUE")
    return f" (did you mean {' or '.join(list(dict.fromkeys(known))[:2])}?)" if known else ""


def _meant_by_path(word: str) -> str:
    """What is said of a sweep's directory or of a file of a plan, where an override belongs."""
    path = Path(word)
    if os.path.isfile(path / PLAN):
        place = shlex.quote(str(path))
        return f" (a sweep's directory; bench resume {place} goes on with it, bench report {place} shows it)"
    if path.suffix == ".json" and os.path.isfile(path):
        place = shlex.quote(str(path.parent)) if path.name == PLAN else "DIR"
        way = "what bench plan --json printed is run by its overrides"
        return f" (bench resume {place} goes on with a sweep by its plan; {way})"
    return ""


def read_overrides(loader: ConfigLoader, overrides: Sequence[Override]) -> dict[str, Assignment]:
    """Checked assignments by key; the later one of a key wins, in the place of the first, as in Hydra's own sweeper."""
    assignments: dict[str, Assignment] = {}
    for override in overrides:
        for assignment in _read_one(loader, override):
            assignments[assignment.key] = assignment
    return assignments


def _read_one(loader: ConfigLoader, override: Override) -> list[Assignment]:
    key = override.key_or_group
    _check_form(override)
    if key in GROUPS and override.type in (OverrideType.ADD, OverrideType.FORCE_ADD):
        raise ConfigError(key, f"has an option already; write {key}={override.get_value_string()}")
    if key in GROUPS:
        return [_group_assignment(loader, override)]
    if key == "sweep" and isinstance(override.value(), str):
        raise ConfigError(key, f"a declared sweep is +sweeps={override.value()}, and a sweep's file its path")
    keys.check_key(key)
    if override.is_add() and not keys.is_open(key):
        raise ConfigError(key, "exists already; write it without the +")
    value = override.value()
    if isinstance(value, dict):
        return [_leaf_assignment(override, f"{key}.{name}", [leaf]) for name, leaf in keys.flatten(value).items()]
    if key not in keys.leaf_types() and not keys.is_open(key):
        raise ConfigError(key, f"{override.get_value_string()!r} is no value for a section; name one of its keys")
    return [_leaf_assignment(override, key, _values(override))]


def _check_form(override: Override) -> None:
    key, line = override.key_or_group, str(override.input_line)
    if override.is_hydra_override() or key == "hydra":
        instead = {
            "hydra/launcher": "write launcher=local or launcher=slurm",
            "hydra/sweeper": "use -m or +sweeps=NAME",
        }
        raise ConfigError(key, f"{NO_MACHINERY}; {instead.get(key, 'use out_dir and -m')}")
    if override.type == OverrideType.DEL:
        raise ConfigError(key, f"{line!r} deletes a key, which every cell needs; write {key}=value")
    if override.package is not None:
        raise ConfigError(key, f"{line!r} renames a package; write {key}=value")
    if override.is_interval_sweep():
        raise ConfigError(key, "interval() names no values; write a list or range(start,stop,step)")


def _values(override: Override) -> list[Any]:
    if not override.is_sweep_override():
        return [override.value()]
    values = [Override._convert_value(value) for value in override.sweep_iterator()]
    if not values:
        raise ConfigError(override.key_or_group, f"{override.get_value_string()} matches nothing")
    return values


def _group_assignment(loader: ConfigLoader, override: Override) -> Assignment:
    group, values = override.key_or_group, _values(override)
    options = group_options(loader, group)
    for value in values:
        check_option(group, value, options, override.get_value_string())
    assignment = Assignment(group, tuple(values), override.is_sweep_override(), str(override.input_line))
    _check_single_if_not_identity(assignment)
    return assignment


def check_option(group: str, value: Any, options: Sequence[str], text: str) -> None:
    """Check one value of a group; `text` is how it was written.

    Raises:
        ConfigError: no such option, or a list or mapping where a name belongs.
    """
    if isinstance(value, list):
        names = ",".join(str(item) for item in value)
        raise ConfigError(group, f"{text}: a list is no sweep; write {group}={names} and add -m")
    if isinstance(value, dict):
        raise ConfigError(group, f"{text}: name an option, and set its keys with {group}.KEY=value")
    name = format_value(value) if not isinstance(value, str) else value
    if name not in options:
        raise ConfigError(group, f"no option {name!r}{synonyms.option_hint(group, name, options)}")


def _leaf_assignment(override: Override, key: str, values: Sequence[Any]) -> Assignment:
    keys.check_key(key)
    section, _, leaf = key.rpartition(".")
    if section in GROUPS and leaf in ("name", "description"):
        raise ConfigError(key, f"belongs to the option file; choose with {section}=OPTION")
    typed = [_typed(key, value) for value in values]
    assignment = Assignment(key, tuple(typed), override.is_sweep_override(), f"++{key}={format_value(typed[0])}")
    _check_single_if_not_identity(assignment)
    return assignment


def _check_single_if_not_identity(assignment: Assignment) -> None:
    """What a prediction is asked for tells cells apart that are predictions alone: see `check_asked`."""
    is_asked = assignment.key.startswith(ASKED)
    if len(assignment.values) > 1 and assignment.key.partition(".")[0] in NOT_IDENTITY and not is_asked:
        raise ConfigError(assignment.key, ONE_VALUE)


def check_asked(matrices: Sequence[Matrix], rows: Iterable[Row]) -> None:
    """Refuse several values of a key of `predict` where cells are to be run: there they do not tell them apart.

    Raises:
        ConfigError: naming the key.
    """
    swept = [
        key for matrix in matrices for key, values in matrix.axes.items() if key.startswith(ASKED) and len(values) > 1
    ]
    if swept and any(row.config.predict.name != PREDICT_ONLY for row in rows):
        raise ConfigError(swept[0], f"{ONE_VALUE}, or ask for predictions alone (predict={PREDICT_ONLY})")


def _typed(key: str, value: Any) -> Any:
    """`value` as the schema's type of `key`."""
    if isinstance(value, str):
        keys.check_text(key, value)
    try:
        OmegaConf.update(scratch_node(), key, value)
        typed = OmegaConf.select(scratch_node(), key)
    except (OmegaConfBaseException, ValueError) as error:
        is_meant_as_sweep = isinstance(value, list) and not keys.takes_list(key)
        hint = f"; a list is no sweep, write {key}=a,b and add -m" if is_meant_as_sweep else ""
        raise ConfigError(key, f"{format_value(value)} is not {keys.type_name(key)}{hint}") from error
    typed = OmegaConf.to_container(typed) if OmegaConf.is_config(typed) else typed
    keys.check_value(key, typed)
    return typed


def require_multirun(assignments: Mapping[str, Assignment]) -> None:
    """Refuse lists where one cell is meant.

    Raises:
        ConfigError: naming the key.
    """
    for assignment in assignments.values():
        if assignment.is_sweep:
            raise ConfigError(assignment.key, f"{len(assignment.values)} values make a matrix; add -m")
