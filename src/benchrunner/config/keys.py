"""The dotted keys of the configuration: which exist, what type they have, and which values are wrong in themselves."""

import dataclasses
import math
import re
import types
import typing
from collections.abc import Mapping
from functools import cache
from typing import Any

from benchrunner.config.synonyms import key_meant, listed, nearest
from benchrunner.core.axes import GROUPS
from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.schema import ALLOWED, Allowed, Config

EVERY = "activation_checkpointing.every"


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Dotted leaf → value. Mappings are walked, lists are leaves."""
    leaves: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            leaves |= flatten(value, f"{prefix}{key}.")
        else:
            leaves[f"{prefix}{key}"] = value
    return leaves


@cache
def leaf_types() -> dict[str, Any]:
    """Dotted leaf → its type in the schema."""
    return dict(_walk(Config, ""))


def _walk(schema: type, prefix: str) -> typing.Iterator[tuple[str, Any]]:
    for name, kind in typing.get_type_hints(schema).items():
        if dataclasses.is_dataclass(kind):
            yield from _walk(typing.cast(type, kind), f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", kind


@cache
def allowed_values() -> dict[str, Allowed]:
    """Dotted leaf → the values that it may have, where its type allows more."""
    return dict(_walk_allowed(Config, ""))


def _walk_allowed(schema: type, prefix: str) -> typing.Iterator[tuple[str, Allowed]]:
    for item in dataclasses.fields(schema):
        if dataclasses.is_dataclass(item.type):
            yield from _walk_allowed(typing.cast(type, item.type), f"{prefix}{item.name}.")
        elif ALLOWED in item.metadata:
            yield f"{prefix}{item.name}", item.metadata[ALLOWED]


def is_open(key: str) -> bool:
    """True for a key inside a mapping that takes any name, e.g. `hardware.peak_flops.bf16`."""
    parent = key.rpartition(".")[0]
    return parent in leaf_types() and typing.get_origin(leaf_types()[parent]) is dict


def check_key(key: str) -> None:
    """Accept a leaf of the schema or a section of it.

    Raises:
        ConfigError: no such key; names the keys beside it and the nearest one.
    """
    known = leaf_types()
    sections = {section for name in known if (section := name.rpartition(".")[0])}
    if key in known or key in sections or is_open(key):
        return
    parent = key.rpartition(".")[0]
    beside = [name for name in known if name.rpartition(".")[0] == (parent if parent in sections else "")]
    everything = [*known, *sections, *GROUPS]
    same_leaf = [name for name in known if name.rpartition(".")[2] == key]
    hint = did_you_mean(key, beside) if parent in sections else f" (did you mean {same_leaf[0]}?)" if same_leaf else ""
    leaf = key_meant(key.rpartition(".")[2])
    meant = key_meant(key) or (leaf if leaf in beside else None)
    hint = f" (did you mean {meant}?)" if meant else hint or did_you_mean(key, everything)
    where = f"keys of {parent}" if parent in sections else "groups and keys"
    names = [*([] if parent in sections else GROUPS), *sorted(name.rpartition(".")[2] for name in beside)]
    near = nearest(key.rpartition(".")[2], names)
    shown = listed([*near, *(name for name in names if name not in near)], "bench --cfg job")
    raise ConfigError(key, f"no such key{hint}; {where}: {shown}")


def takes_list(key: str) -> bool:
    """Whether the value of a leaf is a list itself."""
    return typing.get_origin(leaf_types().get(key)) is list


def type_name(key: str) -> str:
    """The type of a leaf in words, e.g. `an integer or null`."""
    kind = leaf_types().get(key, float)
    names = {
        int: "an integer", float: "a number", bool: "true or false", str: "text", types.NoneType: "null",
        list[str]: "a list of texts", list[dict[str, Any]]: "a list of mappings",
    }  # fmt: skip
    if key in allowed_values() and allowed_values()[key].words:
        return ", ".join(["an integer", *allowed_values()[key].words[:-1]]) + f" or {allowed_values()[key].words[-1]}"
    if isinstance(kind, types.UnionType):
        return " or ".join(names.get(part, str(part)) for part in typing.get_args(kind))
    return names.get(kind, "a mapping")


def check_values(tree: Mapping[str, Any], prefix: str = "") -> None:
    """Check every leaf of a (part of a) configuration.

    Raises:
        ConfigError: a value that is wrong whatever it is combined with.
    """
    for key, value in flatten(tree, prefix).items():
        check_value(key, value)


def check_value(key: str, value: Any) -> None:
    """Check one leaf.

    Raises:
        ConfigError: not in its list of choices, not positive, not finite, missing, an interpolation, or in a list of
            texts something else.
    """
    for text in [value] if isinstance(value, str) else value if leaf_types().get(key) == list[str] else ():
        if not isinstance(text, str):
            raise ConfigError(key, f"{text!r} is no text, in {type_name(key)}")
        check_text(key, text)
    if isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(key, f"{value} is not a finite number")
    if value is None or isinstance(value, bool):
        return
    if key in allowed_values():
        _check_allowed(key, value, allowed_values()[key])
    if key == EVERY:
        _check_every(value)


def _check_allowed(key: str, value: Any, allowed: Allowed) -> None:
    if allowed.words and isinstance(value, (str, float)):
        if value in allowed.words:
            return
        raise ConfigError(key, f"{value} is not {type_name(key)}")
    if allowed.choices and value not in allowed.choices:
        hint = did_you_mean(str(value), allowed.choices)
        raise ConfigError(key, f"{value!r} is not one of {', '.join(allowed.choices)}{hint}")
    if allowed.above is not None and value <= allowed.above:
        raise ConfigError(key, f"{value} is not allowed, must be greater than {allowed.above:g}")
    if allowed.least is not None and value < allowed.least:
        raise ConfigError(key, f"{value} is not allowed, must be {allowed.least:g} or more")
    if allowed.below is not None and value >= allowed.below:
        raise ConfigError(key, f"{value} is not allowed, must be less than {allowed.below:g}")


def check_text(key: str, value: str) -> None:
    """Check a text before anything resolves it.

    Raises:
        ConfigError: missing, or an interpolation.
    """
    if value == "???":
        raise ConfigError(key, "has no value")
    if "${" in value:
        raise ConfigError(key, f"{value!r} is an interpolation, which a matrix cannot take; write the value")


def _check_every(value: str) -> None:
    match = re.fullmatch(r"(\d+)/(\d+)", value)
    if value != "per_op" and not (match and 0 < int(match[1]) <= int(match[2])):
        raise ConfigError(EVERY, f"{value!r} is neither per_op nor a fraction of the blocks such as 1/2")
