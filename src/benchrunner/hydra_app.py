"""The only importer of Hydra: words on the command line → one plain, composed dict a row of the matrix.

Hydra composes every option once, on top of all fixed words; the product of the pieces is ours, because composing each
row takes Hydra about 100 ms. No plug-in and no `hydra.main`: those would decide exit codes and directories for us.
"""

import logging
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from benchrunner import keys, paths
from benchrunner.cell import format_value
from benchrunner.errors import ConfigError, UsageError, did_you_mean
from benchrunner.matrix import Matrix, Pieces, Row, build_rows
from benchrunner.schema import GROUPS, NOT_IDENTITY, Config

SWEEPS = "sweeps"
FROM_FILE = "_from_file_"
"""Name under which a sweep file from anywhere is put among the sweeps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Expansion:
    """The rows that the words mean, in order, each once."""

    rows: list[Row]
    sweep_name: str
    """The sweep file's stem, or `cli`."""
    words: list[str]
    """As given: `-m`, the sweep file, the overrides."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a group, for `bench list`."""

    name: str
    description: str
    alias_of: str | None = None


@dataclass(frozen=True, slots=True)
class _Word:
    """One key with its list of values: option names of a group, or typed values of a leaf."""

    key: str
    values: tuple[Any, ...]
    is_sweep: bool
    line: str = field(compare=False, default="")


def expand(words: Sequence[str], *, multirun: bool, sweep_file: Path | None = None) -> Expansion:
    """Compose every row that `words` describe.

    Args:
        words: Hydra overrides: `key=value`, `key=a,b`, `key=glob(x*)`, `key=range(1,5)`, `+sweeps=NAME`.
        multirun: `-m` was given; implied by a sweep.
        sweep_file: a sweep from anywhere, as `+sweeps=NAME` is one from `sweeps/`.

    Raises:
        UsageError: a word that is wrong in itself (`ConfigError` when it has a key).
    """
    with _hydra() as loader, _explained():
        parsed = _parse(loader, words)
        sweep = _sweep_of(loader, parsed, sweep_file)
        stated = _read(loader, [word for word in parsed if word.key_or_group != SWEEPS])
        if sweep is None and not multirun:
            _require_multirun(stated)
        master = _master(loader, sweep) if sweep else {}
        params = _read(loader, _parse(loader, _params(master)))
        merged = {**params, **stated}
        matrices = _matrices(loader, master, merged, stated)
        pieces = _pieces(loader, merged, matrices, sweep)
        rows = build_rows(matrices, pieces)
    name = sweep_file.stem if sweep_file else sweep or "cli"
    given = [*(["-m"] if multirun else []), *([str(sweep_file)] if sweep_file else []), *words]
    return Expansion(rows=rows, sweep_name=name, words=given)


@contextmanager
def _hydra() -> Iterator[ConfigLoader]:
    logging.getLogger("hydra").setLevel(logging.ERROR)
    ConfigStore.instance().store(name="schema", node=Config)
    with initialize_config_dir(config_dir=str(paths.config_dir()), version_base="1.3", job_name="bench"):
        yield GlobalHydra.instance().config_loader()


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one message with the dotted key."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        links = _chain(error)
        link = next((link for link in links if getattr(link, "full_key", None)), links[-1])
        text = str(getattr(link, "msg", None) or link or error)
        found = re.search(r"full_key: (\S+)", "\n".join(map(str, links)))
        raise ConfigError(found[1] if found else "", _first_lines(text)) from error


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes: the useful text is in one of them."""
    return [error, *(_chain(error.__cause__) if error.__cause__ else [])]


def _first_lines(text: str) -> str:
    lines = [line.strip() for line in text.splitlines()]
    kept = [
        line
        for line in lines
        if line and not line.startswith(("In '", "full_key", "object_type", "See https", "reference_"))
    ]
    return "; ".join(kept)


# --- words ---------------------------------------------------------------------------------------------------------


def _parse(loader: ConfigLoader, words: Sequence[str]) -> list[Override]:
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
        raise ConfigError(key, f"cannot read {word!r}: {_first_lines(str(error))}") from error


def _read(loader: ConfigLoader, overrides: Sequence[Override]) -> dict[str, _Word]:
    """Checked words by key; the later word of a key wins, in the place of the first, as in Hydra's own sweeper."""
    words: dict[str, _Word] = {}
    for override in overrides:
        for word in _read_one(loader, override):
            words[word.key] = word
    return words


def _read_one(loader: ConfigLoader, override: Override) -> list[_Word]:
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


def _group_word(loader: ConfigLoader, override: Override) -> _Word:
    group, values = override.key_or_group, _values(override)
    options = loader.get_group_options(group)
    for value in values:
        _check_option(group, value, options, override.get_value_string())
    word = _Word(group, tuple(values), override.is_sweep_override(), override.input_line or "")
    _check_single_if_not_identity(word)
    return word


def _check_option(group: str, value: Any, options: Sequence[str], text: str) -> None:
    if isinstance(value, list):
        names = ",".join(str(item) for item in value)
        raise ConfigError(group, f"{text}: a list is no sweep; write {group}={names} and add -m")
    if isinstance(value, dict):
        raise ConfigError(group, f"{text}: name an option, and set its keys with {group}.KEY=value")
    name = format_value(value) if not isinstance(value, str) else value
    if name not in options:
        raise ConfigError(group, f"no option {name!r}{did_you_mean(name, options)}; allowed: {', '.join(options)}")


def _leaf_word(override: Override, key: str, values: Sequence[Any]) -> _Word:
    keys.check_key(key)
    section, _, leaf = key.rpartition(".")
    if section in GROUPS and leaf in ("name", "description"):
        raise ConfigError(key, f"belongs to the option file; choose with {section}=OPTION")
    typed = [_typed(key, value) for value in values]
    word = _Word(key, tuple(typed), override.is_sweep_override(), _line(key, typed[0]))
    _check_single_if_not_identity(word)
    return word


def _line(key: str, value: Any) -> str:
    return f"{'++' if keys.is_open(key) else ''}{key}={format_value(value)}"


def _check_single_if_not_identity(word: _Word) -> None:
    if len(word.values) > 1 and word.key.partition(".")[0] in NOT_IDENTITY:
        raise ConfigError(word.key, "does not tell cells apart, so one sweep has one value; run a sweep for each")


def _typed(key: str, value: Any) -> Any:
    """`value` as the schema's type of `key`."""
    if isinstance(value, str):
        keys.check_text(key, value)
    scratch = OmegaConf.structured(Config)
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


def _require_multirun(words: Mapping[str, _Word]) -> None:
    for word in words.values():
        if word.is_sweep:
            raise ConfigError(word.key, f"{len(word.values)} values make a matrix; add -m")


# --- sweeps --------------------------------------------------------------------------------------------------------


def _sweep_of(loader: ConfigLoader, overrides: Sequence[Override], sweep_file: Path | None) -> str | None:
    """The name of the one sweep that the words declare, after checking it."""
    named = [override for override in overrides if override.key_or_group == SWEEPS]
    if len(named) + bool(sweep_file) > 1:
        raise UsageError("one sweep at a time: run bench once for each")
    if sweep_file:
        _store_sweep(sweep_file)
        return FROM_FILE
    if not named:
        return None
    override, value = named[0], None if named[0].is_sweep_override() else named[0].value()
    options = loader.get_group_options(SWEEPS)
    if override.is_sweep_override() or isinstance(value, list):
        raise ConfigError(SWEEPS, f"{override.get_value_string()}: one sweep at a time; run bench once for each")
    if override.type == OverrideType.CHANGE:
        raise ConfigError(SWEEPS, f"write +{override.input_line}")
    if value not in options:
        hint = did_you_mean(str(value), options)
        raise ConfigError(SWEEPS, f"no sweep {value!r}{hint}; allowed: {', '.join(options) or '(none)'}")
    return str(value)


def _master(loader: ConfigLoader, sweep: str) -> dict[str, Any]:
    """The sweep composed on its own: its parameters and entries, wherever it inherits them from."""
    _check_sweep(loader, sweep)
    return _compose(loader, [_sweep_line(sweep)])


def _sweep_line(sweep: str) -> str:
    return f"+{SWEEPS}={sweep}"


def _store_sweep(path: Path) -> None:
    try:
        body = OmegaConf.load(path)
    except OSError as error:
        near = did_you_mean(path.name, [file.name for file in path.parent.glob("*.y*ml")])
        raise UsageError(f"{path}: {error.strerror or error}{near}") from error
    except YAMLError as error:
        raise UsageError(f"{path}: not YAML: {_first_lines(str(error))}") from error
    if not isinstance(body, DictConfig):
        raise UsageError(f"{path}: not a sweep: a mapping with hydra.sweeper.params is expected")
    ConfigStore.instance().store(group=SWEEPS, name=FROM_FILE, node=body, package="_global_")


def _sweep_body(sweep: str) -> dict[str, Any]:
    if sweep == FROM_FILE:
        body = OmegaConf.to_container(ConfigStore.instance().load(f"{SWEEPS}/{FROM_FILE}.yaml").node)
    else:
        body = OmegaConf.to_container(OmegaConf.load(paths.config_dir() / SWEEPS / f"{sweep}.yaml"))
    assert isinstance(body, dict)
    return {str(key): value for key, value in body.items()}


def _check_sweep(loader: ConfigLoader, sweep: str) -> None:
    """Name a wrong key or option of a sweep file before Hydra does it without a hint."""
    body = _sweep_body(sweep)
    for key in keys.flatten({key: value for key, value in body.items() if key not in ("hydra", "defaults")}):
        keys.check_key(key)
    for group, name in filter(None, map(_override_of, body.get("defaults", []))):
        if group in GROUPS:
            _check_option(group, name, loader.get_group_options(group), f"override /{group}: {name}")


def _override_of(entry: Any) -> tuple[str, Any] | None:
    """(group, option) of a line `- override /group: option` of a defaults list, else null."""
    key, value = next(iter(entry.items())) if isinstance(entry, dict) else ("", None)
    word, _, group = str(key).partition(" ")
    return (group.strip().lstrip("/"), value) if word == "override" else None


def _params(master: Mapping[str, Any]) -> list[str]:
    params = master.get("hydra", {}).get("sweeper", {}).get("params") or {}
    return [f"{key}={value}" for key, value in params.items()]


def _matrices(
    loader: ConfigLoader, master: Mapping[str, Any], merged: Mapping[str, _Word], given: Mapping[str, _Word]
) -> list[Matrix]:
    """The product of the swept words, and one more for every entry of `sweep.include`.

    A sweep that lists only entries and no parameters has no product of its own.
    """
    here = given.get("sweep.include")
    entries = here.values[0] if here else master.get("sweep", {}).get("include", [])
    product = Matrix(axes={word.key: word.values for word in merged.values() if word.is_sweep})
    included = list(_included(loader, entries, given))
    return included if entries and not _params(master) else [product, *included]


def _included(
    loader: ConfigLoader, entries: Sequence[Mapping[str, Any]], given: Mapping[str, _Word]
) -> Iterator[Matrix]:
    """The product of each entry, narrowed by the words that were given."""
    for entry in entries:
        lines = [f"{key}={value if isinstance(value, str) else format_value(value)}" for key, value in entry.items()]
        axes = {word.key: word.values for word in _read(loader, _parse(loader, lines)).values()}
        for word in given.values():
            if word.key in axes:
                axes[word.key] = tuple(value for value in axes[word.key] if value in word.values)
            elif word.is_sweep:
                axes[word.key] = word.values
        if all(axes.values()):
            yield Matrix(axes=axes)


# --- composition ---------------------------------------------------------------------------------------------------


def _compose(loader: ConfigLoader, lines: Sequence[str]) -> dict[str, Any]:
    config = loader.load_configuration("config", list(lines), run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False)
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def _pieces(loader: ConfigLoader, words: Mapping[str, _Word], matrices: Sequence[Matrix], sweep: str | None) -> Pieces:
    """Compose the base and every swept option on top of all fixed words, and the untouched options beside them."""
    fixed = {word.key: word for word in words.values() if not word.is_sweep}
    swept = _swept_options(matrices)
    for group, names in [*swept.items(), *((key, word.values) for key, word in fixed.items() if key in GROUPS)]:
        for name in names:
            _check_option_file(group, name)
    declared = [_sweep_line(sweep)] if sweep else []
    lines = [word.line for word in fixed.values() if word.key not in swept] + declared
    base, options = _compose_options(loader, lines, swept)
    if len(matrices) > 1:  # not every product varies every swept group
        base, _ = _compose_options(loader, [word.line for word in fixed.values()] + declared, {})
    touched = {key.partition(".")[0] for key in fixed if "." in key} | (_sections_of(sweep) if sweep else set())
    pristine = _pristine(loader, base, options, touched)
    return Pieces(base=base, options=options, pristine=pristine, defaults=_schema_defaults())


def _pristine(
    loader: ConfigLoader, base: Mapping[str, Any], options: Mapping[str, Mapping[str, Any]], touched: set[str]
) -> dict[str, dict[str, Any]]:
    """Group → composed name → the section of the option file alone; composed again only where words touched it."""
    sections = {group: [base[group], *options.get(group, {}).values()] for group in GROUPS}
    names = {group: list(dict.fromkeys(section["name"] for section in sections[group])) for group in GROUPS}
    again = {group: tuple(names[group]) for group in GROUPS if group in touched}
    pristine = _compose_options(loader, [], again)[1] if again else {}
    untouched = {group: {item["name"]: item for item in sections[group]} for group in GROUPS if group not in touched}
    return {**pristine, **untouched}


def _sections_of(sweep: str) -> set[str]:
    """The sections that the body of a sweep file may change: all of them if it builds on other files."""
    body = _sweep_body(sweep)
    alone = all(entry == "_self_" or _override_of(entry) for entry in body.get("defaults", []))
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
        composed = _compose(loader, [*lines, *(f"{group}={name}" for group, name in choice.items())])
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
            if not (paths.config_dir() / group / f"{section['name']}.yaml").is_file():
                raise ConfigError(f"{group}.name", f"{section['name']!r} is no option file")


def _check_option_file(group: str, name: str) -> None:
    """An option file may set its own group only: a row is put together from pieces that were composed apart."""
    text = (paths.config_dir() / group / f"{name}.yaml").read_text(encoding="utf-8")
    if "${" in text or "@package" in text or re.search(r"^\s*-?\s*(override\s|/)", text, re.MULTILINE):
        raise ConfigError(f"{group}={name}", "an option file cannot interpolate, change its package or reach outside")


def _schema_defaults() -> dict[str, Any]:
    plain = OmegaConf.to_container(OmegaConf.structured(Config))
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


# --- bench list, and what passes through to Hydra ------------------------------------------------------------------


def list_groups() -> tuple[str, ...]:
    """Every group that `bench list` shows."""
    return (*GROUPS, SWEEPS)


def list_options(group: str) -> list[Option]:
    """The options of a group, each with its line of description.

    Raises:
        ConfigError: no such group.
    """
    if group not in list_groups():
        raise ConfigError(
            group, f"no such group{did_you_mean(group, list_groups())}; allowed: {', '.join(list_groups())}"
        )
    return [_option(path) for path in sorted((paths.config_dir() / group).glob("*.yaml"))]


def _option(path: Path) -> Option:
    text = path.read_text(encoding="utf-8")
    if path.parent.name == SWEEPS:
        comments = [
            line.lstrip("# ").strip() for line in text.splitlines() if line.startswith("#") and "@package" not in line
        ]
        return Option(name=path.stem, description=next(filter(None, comments), ""))
    body = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(body, dict)
    if "defaults" in body:
        return Option(name=path.stem, description=f"means {body['defaults'][0]}", alias_of=str(body["defaults"][0]))
    return Option(name=path.stem, description=str(body.get("description", "")))


def pass_through(words: Sequence[str], sweep_file: Path | None = None) -> int:
    """Let Hydra answer `--cfg`, `--info`, `--hydra-help` and `--shell-completion`, which run and write nothing.

    Returns:
        The exit code: 1 where Hydra refuses the words.
    """
    import hydra

    ConfigStore.instance().store(name="schema", node=Config)
    sweep = []
    if sweep_file:
        _store_sweep(sweep_file)
        sweep = [_sweep_line(FROM_FILE)]
    program = hydra.main(config_path=str(paths.config_dir()), config_name="config", version_base="1.3")(_refuse_to_run)
    logging.raiseExceptions = False  # Hydra prints through logging, which would report a closed pipe line by line
    kept, sys.argv = sys.argv, [sys.argv[0], *words, *sweep]
    try:
        program()
    except SystemExit as leave:
        return 1 if leave.code else 0
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(_first_lines(str(error))) from error
    finally:
        sys.argv = kept
    return 0


def _refuse_to_run(config: DictConfig) -> None:
    raise AssertionError("Hydra was asked to answer a question, not to run")


def complete(line: str, commands: Sequence[str]) -> list[str]:
    """Completions of the last word of a command line, as Hydra's shell functions ask for them.

    The subcommand, flags and sweep file are none of Hydra's words; of a list only the part after the last comma is.
    """
    program, *words = line.split()
    word = words.pop() if words and not line.endswith(" ") else ""
    given = [item for item in words if "=" in item]
    head, comma, tail = word.rpartition(",")
    key = head.partition("=")[0]
    asked = f"{key}={tail}" if comma else word
    found = _query_bash(f"{program} {' '.join([*given, asked])}")
    prefix = f"{head}," if comma else ""
    found = [hit for hit in found if not hit.startswith(("hydra", "sweeps", "sweep."))]
    hits = [prefix + hit.partition("=")[2] if comma else hit for hit in found]
    return hits + [command for command in commands if not words and not comma and command.startswith(word)]


def _query_bash(line: str) -> list[str]:
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    with _hydra() as loader:
        plugin = BashCompletion(loader)
        return [str(hit) for hit in plugin._query(config_name="config", line=plugin.strip_python_or_app_name(line))]
