"""What Hydra answers without running anything: option lists, --cfg, --info, shell completion."""

import logging
import re
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from benchrunner.config.hydra_app.loader import first_lines, opened, store_schema
from benchrunner.config.hydra_app.sweeps import FROM_FILE, SWEEPS, store_sweep, sweep_line
from benchrunner.core import paths
from benchrunner.core.axes import GROUPS
from benchrunner.core.errors import ConfigError, UsageError, did_you_mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a group, for `bench list`."""

    name: str
    description: str
    alias_of: str | None = None


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
        return Option(name=path.stem, description=_purpose(text))
    body = OmegaConf.to_container(OmegaConf.create(text))
    assert isinstance(body, dict)
    if "defaults" in body:
        return Option(name=path.stem, description=f"means {body['defaults'][0]}", alias_of=str(body["defaults"][0]))
    return Option(name=path.stem, description=str(body.get("description", "")))


def _purpose(text: str) -> str:
    """The first paragraph of a sweep file's header, up to the next `Assignment:` that begins a line."""
    comments = [line.lstrip("# ") for line in text.splitlines() if line.startswith("#") and "@package" not in line]
    paragraphs = re.split(r"(?m)^(?=[A-Z]\w*(?: \w+)?: )|\n\s*\n", "\n".join(comments).strip())
    return " ".join(next(filter(None, paragraphs), "").removeprefix("Purpose: ").split())


def pass_through(overrides: Sequence[str], sweep_file: Path | None = None) -> int:
    """Let Hydra answer `--cfg`, `--info`, `--hydra-help` and `--shell-completion`, which run and write nothing.

    Returns:
        The exit code: 1 where Hydra refuses the overrides.
    """
    import hydra

    store_schema()
    sweep = []
    if sweep_file:
        store_sweep(sweep_file)
        sweep = [sweep_line(FROM_FILE)]
    program = hydra.main(config_path=str(paths.config_dir()), config_name="config", version_base="1.3")(_refuse_to_run)
    logging.raiseExceptions = False  # Hydra prints through logging, which would report a closed pipe line by line
    kept, sys.argv = sys.argv, [sys.argv[0], *overrides, *sweep]
    try:
        program()
    except SystemExit as leave:
        return 1 if leave.code else 0
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise UsageError(first_lines(str(error))) from error
    finally:
        sys.argv = kept
    return 0


def _refuse_to_run(config: DictConfig) -> None:
    raise AssertionError("Hydra was asked to answer a question, not to run")


PLAIN = re.compile(r"([+\w./]+=[+\w./-]+)(,[^()\[\]{}]*)?")
"""An override of words, of a list the first of them: what else is written of one changes no completion."""


def complete(line: str, commands: Sequence[str]) -> list[str]:
    """Completions of the last word of a command line, as Hydra's shell functions ask for them.

    The subcommand, flags and sweep file are no overrides; of a list only the part after the last comma is.
    """
    program, *words = line.split() or ["bench"]
    word = words.pop() if words and not line.endswith(" ") else ""
    if word.startswith("-"):
        return []
    given = [plain[1] for item in words if (plain := PLAIN.fullmatch(item))]
    head, comma, tail = word.rpartition(",")
    key = head.partition("=")[0]
    asked = f"{key}={tail}" if comma else word
    found = _query_bash(f"{program} {' '.join([*given, asked])}")
    found = [hit for hit in found if not hit.startswith(("hydra", "sweeps", "sweep."))]
    hits = [f"{head},{hit.partition('=')[2]}" if comma else hit for hit in found]
    return hits + [command for command in commands if not words and not comma and command.startswith(word)]


def _query_bash(line: str) -> list[str]:
    from hydra._internal.core_plugins.bash_completion import BashCompletion

    with opened() as loader:
        plugin = BashCompletion(loader)
        with suppress(HydraException, ValueError):
            return [str(hit) for hit in plugin._query(config_name="config", line=plugin.strip_python_or_app_name(line))]
    return []
