"""One word of the command line → a key with its list of checked values."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchrunner.config import keys
from benchrunner.config.hydra_app.loader import first_lines, group_options, schema_node
from benchrunner.core.axes import GROUPS, NOT_IDENTITY
from benchrunner.core.cell import format_value
from benchrunner.core.errors import ConfigError, UsageError, did_you_mean


@dataclass(frozen=True, slots=True)
class Word:
    """One key with its list of values: option names of a group, or typed values of a leaf."""

    key: str
    values: tuple[Any, ...]
    is_sweep: bool
    line: str = field(compare=False, default="")


def parse_words(loader: ConfigLoader, words: Sequence[str]) -> list[Override]:
    """Words by Hydra's grammar.

    Raises:
        UsageError: a word that it cannot read.
    """
    return [_parse_one(loader, word) for word in words]


def _parse_one(loader: ConfigLoader, word: str) -> Override:
    if "=" not in word and not word.startswith("~"):
        raise UsageError(f"{word!r} is neither key=value nor a flag; see bench --help")
    try:
        return OverridesParser.create(config_loader=loader).parse_overrides([word])[0]
    except HydraException as error:
        key = word.partition("=")[0].lstrip("+~")
        if re.search(r"=\s*interval\(", word):
            raise ConfigError(key, "interval() names no values; write a list or range(start,stop,step)") from error
        raise ConfigError(key, f"cannot read {word!r}: {first_lines(str(error))}") from error


def read_words(loader: ConfigLoader, overrides: Sequence[Override]) -> dict[str, Word]:
    """Checked words by key; the later word of a key wins, in the place of the first, as in Hydra's own sweeper."""
    words: dict[str, Word] = {}
    for override in overrides:
        for word in _read_one(loader, override):
            words[word.key] = word
    return words


def _read_one(loader: ConfigLoader, override: Override) -> list[Word]:
    key = override.key_or_group
    _check_form(override)
    if key in GROUPS:
        return [_group_word(loader, override)]
    keys.check_key(key)
    if override.is_add() and not keys.is_open(key):
        raise ConfigError(key, "exists already; write it without the +")
    value = override.value()
    if isinstance(value, dict):
        return [_leaf_word(override, f"{key}.{name}", [leaf]) for name, leaf in keys.flatten(value).items()]
    if key not in keys.leaf_types() and not keys.is_open(key):
        raise ConfigError(key, f"{override.get_value_string()!r} is no value for a section; name one of its keys")
    return [_leaf_word(override, key, _values(override))]


def _check_form(override: Override) -> None:
    key, line = override.key_or_group, override.input_line or ""
    if override.is_hydra_override() or key == "hydra":
        instead = {
            "hydra/launcher": "write launcher=local or launcher=slurm",
            "hydra/sweeper": "use -m or +sweeps=NAME",
        }
        raise ConfigError(
            key, f"bench does not run through Hydra's machinery; {instead.get(key, 'use out_dir and -m')}"
        )
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


def _group_word(loader: ConfigLoader, override: Override) -> Word:
    group, values = override.key_or_group, _values(override)
    options = group_options(loader, group)
    for value in values:
        check_option(group, value, options, override.get_value_string())
    word = Word(group, tuple(values), override.is_sweep_override(), override.input_line or "")
    _check_single_if_not_identity(word)
    return word


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
        raise ConfigError(group, f"no option {name!r}{did_you_mean(name, options)}; allowed: {', '.join(options)}")


def _leaf_word(override: Override, key: str, values: Sequence[Any]) -> Word:
    keys.check_key(key)
    section, _, leaf = key.rpartition(".")
    if section in GROUPS and leaf in ("name", "description"):
        raise ConfigError(key, f"belongs to the option file; choose with {section}=OPTION")
    typed = [_typed(key, value) for value in values]
    word = Word(key, tuple(typed), override.is_sweep_override(), _line(key, typed[0]))
    _check_single_if_not_identity(word)
    return word


def _line(key: str, value: Any) -> str:
    return f"{'++' if keys.is_open(key) else ''}{key}={format_value(value)}"


def _check_single_if_not_identity(word: Word) -> None:
    if len(word.values) > 1 and word.key.partition(".")[0] in NOT_IDENTITY:
        raise ConfigError(word.key, "does not tell cells apart, so one sweep has one value; run a sweep for each")


def _typed(key: str, value: Any) -> Any:
    """`value` as the schema's type of `key`."""
    if isinstance(value, str):
        keys.check_text(key, value)
    scratch = schema_node()
    try:
        OmegaConf.update(scratch, key, value, merge=True, force_add=keys.is_open(key))
        typed = OmegaConf.select(scratch, key, throw_on_missing=False)
    except (OmegaConfBaseException, ValueError) as error:
        shown = f"[{','.join(map(str, value))}]" if isinstance(value, list) else format_value(value)
        hint = f"; a list is no sweep, write {key}=a,b and add -m" if isinstance(value, list) else ""
        raise ConfigError(key, f"{shown} is not {keys.type_name(key)}{hint}") from error
    typed = OmegaConf.to_container(typed) if OmegaConf.is_config(typed) else typed
    keys.check_value(key, typed)
    return typed


def require_multirun(words: Mapping[str, Word]) -> None:
    """Refuse lists where one cell is meant.

    Raises:
        ConfigError: naming the key.
    """
    for word in words.values():
        if word.is_sweep:
            raise ConfigError(word.key, f"{len(word.values)} values make a matrix; add -m")
