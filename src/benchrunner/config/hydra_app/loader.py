"""Hydra's own loader, opened on conf/, and its complaints made readable."""

import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache, lru_cache
from typing import Any

from hydra import initialize_config_dir
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from benchrunner.core import paths
from benchrunner.core.errors import ConfigError
from benchrunner.core.schema import Config

INTERNAL = re.compile("full_key|object_type|See https|reference_|Config search path|provider=")
"""How lines of Hydra and OmegaConf begin that say nothing to a reader."""


@contextmanager
def opened() -> Iterator[ConfigLoader]:
    """The loader on conf/, with the schema registered."""
    logging.getLogger("hydra").setLevel(logging.ERROR)
    store_schema()
    with initialize_config_dir(config_dir=str(paths.config_dir()), version_base="1.3", job_name="bench"):
        yield GlobalHydra.instance().config_loader()


@cache
def store_schema() -> None:
    """Let Hydra find the schema under the name that conf/config.yaml asks for; it copies what it finds."""
    ConfigStore.instance().store(name="schema", node=schema_node())


def schema_node() -> DictConfig:
    """The schema as OmegaConf composes on it: it takes frozen dataclasses for values that nobody may override."""
    node: DictConfig = OmegaConf.structured(Config)
    _thaw(node)
    return node


@cache
def scratch_node() -> DictConfig:
    """One for the whole process, to give a leaf a value and read it back: it is made once, which takes 50 ms."""
    return schema_node()


def _thaw(node: DictConfig) -> None:
    OmegaConf.set_readonly(node, None)
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            _thaw(child)


@contextmanager
def explained() -> Iterator[None]:
    """Turn what Hydra and OmegaConf raise into one message with the dotted key."""
    try:
        yield
    except (HydraException, OmegaConfBaseException, YAMLError) as error:
        links = _chain(error)
        link = next((link for link in links if getattr(link, "full_key", None)), links[-1])
        text = str(getattr(link, "msg", None) or link or error)
        found = re.search(r"full_key: (\S+)", "\n".join(map(str, links)))
        raise ConfigError(found[1] if found else "", first_lines(text)) from error


def _chain(error: BaseException) -> list[BaseException]:
    """The exception and its causes: the useful text is in one of them."""
    return [error, *(_chain(error.__cause__) if error.__cause__ else [])]


def first_lines(text: str) -> str:
    """The sentences of a message of theirs, without its lines of internals, as one line."""
    lines = [line for line in map(str.strip, text.splitlines()) if line and not INTERNAL.match(line)]
    kept = [line for line in lines if not line.startswith("In '")] or [line.partition("': ")[2] for line in lines]
    return "; ".join(kept)


@lru_cache(maxsize=64)
def group_options(loader: ConfigLoader, group: str) -> tuple[str, ...]:
    """The option files of a group; Hydra opens every source again to list them, and a sweep asks hundreds of times.

    One loader lives as long as one expansion.
    """
    return tuple(loader.get_group_options(group))


def compose(loader: ConfigLoader, lines: Sequence[str]) -> dict[str, Any]:
    """The whole configuration that these overrides compose, as plain data, Hydra's own section included."""
    return dict(_composed(loader, tuple(lines)))


@lru_cache(maxsize=16)
def _composed(loader: ConfigLoader, lines: tuple[str, ...]) -> dict[str, Any]:
    """One loader lives as long as one expansion, which asks for a sweep's own composition several times."""
    config = loader.load_configuration("config", list(lines), run_mode=RunMode.MULTIRUN, validate_sweep_overrides=False)
    plain = OmegaConf.to_container(config, resolve=False)
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def schema_defaults() -> dict[str, Any]:
    """What the schema says where neither overrides nor option files do; `???` where an option file must."""
    plain = OmegaConf.to_container(schema_node())
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}
