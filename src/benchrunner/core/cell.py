"""One point of the matrix: its axes, its resolved configuration, its identity and the sizes derived from it."""

import hashlib
import json
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from benchrunner.core.axes import AXES, NOT_IDENTITY, OF_A_PREDICTION, PREDICT_ONLY
from benchrunner.core.schema import SECTIONS, Config, typed_config

SLUG_BYTES = 100
LABEL_BYTES = SLUG_BYTES - len("-012345")

NOT_IN_DIGEST = NOT_IDENTITY - {"measure"}
"""Top-level keys that cannot change a measurement. (How long is measured can: `compare` shows it as a suspect.)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sizes:
    """What a cell's scalars amount to on the machine it is planned for."""

    micro_batch_size: int
    """Samples a device a forward pass."""
    global_batch_size: int
    """Samples an optimizer step, all devices together."""
    accumulation_steps: int
    """Forward passes a device an optimizer step; 0 when the global batch does not divide."""
    seq_len: int
    """Tokens a sample."""
    devices: int
    """Devices a node."""
    nodes: int
    world_size: int
    """Ranks in all: devices × nodes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A frozen cell. The sections of `config` are shared between cells and must never be changed."""

    cell_id: str
    """12 hex digits over axes and changed leaves: see `identity`."""
    config_digest: str
    """12 hex digits over the whole configuration that can change a measurement."""
    slug: str
    """Directory name and label: `[a-z0-9._-]`, at most 100 bytes, ends in the id's first six digits."""
    axes: Mapping[str, str]
    """Axis group → option name."""
    overrides: Mapping[str, Any]
    """Dotted leaf → value, for every leaf that overrides changed away from its option file or default."""
    config: Config
    """The resolved configuration."""
    sizes: Sizes

    @property
    def search(self) -> str | None:
        """max | best, where the micro-batch is found by probes (`plan/search.py`); its sizes are then those of 1."""
        return self.config.micro_batch_size if isinstance(self.config.micro_batch_size, str) else None

    def as_overrides(self) -> list[str]:
        """The overrides that repeat this cell, not yet quoted for a shell, without `bench`."""
        changed = [f"{key}={format_value(value)}" for key, value in self.overrides.items()]
        return [f"{group}={name}" for group, name in self.axes.items()] + changed


def canonical_json(value: Any) -> str:
    """Compact JSON with sorted keys: the text that digests are taken over."""
    return _ENCODER.encode(value)


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest(text: str) -> str:
    """The first 12 hex digits of the SHA-256 of `text`."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def identity(axes: Mapping[str, str], overrides: Mapping[str, Any]) -> str:
    """The id of a cell: option names of every axis and the changed leaves that tell cells apart, nothing else.

    Locks, resume and history stand on it; a golden test pins ten of them.
    """
    return digest(canonical_json({"axes": dict(axes), "overrides": identity_overrides(overrides)}))


def identity_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The changed leaves that tell cells apart."""
    left_out = NOT_IDENTITY - OF_A_PREDICTION if overrides.get("predict") == PREDICT_ONLY else NOT_IDENTITY
    return {key: value for key, value in overrides.items() if key.partition(".")[0] not in left_out}


def digest_section(section: object) -> str:
    """The digest of one section of a configuration; descriptions and sources are prose, not settings."""
    return digest_values(vars(section))


def digest_values(section: Mapping[str, Any]) -> str:
    """The same of a section as plain data."""
    return digest(canonical_json({key: item for key, item in section.items() if key not in ("description", "source")}))


def config_digest(config: Config, section: Callable[[object], str] = digest_section) -> str:
    """12 hex digits over everything in the configuration that can change a measurement.

    `section` digests one section; a caller with many cells passes one that remembers shared sections.
    """
    return digest_tree(vars(config), section)


def digest_tree(config: Mapping[str, Any], section: Callable[[Any], str] = digest_values) -> str:
    """The same of a configuration as plain data, which may be of another version: its own keys count."""
    parts = {key: value for key, value in config.items() if key not in NOT_IN_DIGEST}
    return digest(canonical_json({k: section(v) if k in SECTIONS else v for k, v in parts.items()}))


def remember_by_identity(function: Callable[[Any], str]) -> Callable[[Any], str]:
    """Memoise on the identity of shared sections, which have to stay alive as long as what is made of this."""
    memo: dict[int, str] = {}

    def remembered(value: Any) -> str:
        if id(value) not in memo:
            memo[id(value)] = function(value)
        return memo[id(value)]

    return remembered


def make_slug(axes: Mapping[str, str], overrides: Mapping[str, Any], cell_id: str) -> str:
    """A readable directory name, unique by the id's first six digits; what comes last is cut where it is too long."""
    return f"{_label(axes, overrides)[:LABEL_BYTES].rstrip('_-.')}-{cell_id[:6]}"


def is_cut(axes: Mapping[str, str], overrides: Mapping[str, Any]) -> bool:
    """Whether the slug has no room for all of the overrides."""
    return len(_label(axes, overrides)) > LABEL_BYTES


def _label(axes: Mapping[str, str], overrides: Mapping[str, Any]) -> str:
    parts = [axes[group] for group in AXES]
    parts += [f"{key.rsplit('.', 1)[-1]}-{value}" for key, value in identity_overrides(overrides).items()]
    return re.sub(r"[^a-z0-9._-]+", "-", "_".join(parts).lower())


def unique_slug(axes: Mapping[str, str], overrides: Mapping[str, Any], cell_id: str, taken: Collection[str]) -> str:
    """The slug of a cell, with the whole of its id where another cell has taken the shorter one."""
    slug = make_slug(axes, overrides, cell_id)
    return slug if slug not in taken else f"{slug[:-14]}-{cell_id[6:]}-{cell_id[:6]}"


def format_value(value: Any) -> str:
    """A configuration value as Hydra's override grammar reads it back."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, str):
        bare = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./:+-]*|\d+/\d+", value) and value.lower() not in _RESERVED
        return value if bare else _quote(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{format_value(item)}" for key, item in value.items()) + "}"
    return "[" + ",".join(format_value(item) for item in value) + "]"


_RESERVED = {"null", "true", "false", "nan", "inf"}


def _quote(text: str) -> str:
    """In Hydra's quotes a backslash is itself, unless a quote follows the run that it stands in."""
    escaped = re.sub(r"(\\*)'", r"\1\1\'", text)
    return "'" + re.sub(r"(\\+)\Z", r"\1\1", escaped) + "'"


def derive_sizes(config: Config, visible_devices: int) -> Sizes:
    """Sizes of a cell where `visible_devices` devices a node can be used.

    `single` uses one device; another strategy uses all visible ones, and 2 ranks where there is no accelerator
    (the caller passes 2 then). An impossible combination is a verdict by rule, not an error here: a global batch that
    does not divide gives `accumulation_steps` 0.
    """
    nodes = config.nodes
    devices = config.devices or (1 if config.strategy.kind == "single" else max(visible_devices, 1))
    world_size = devices * nodes
    micro_batch_size = config.micro_batch_size if isinstance(config.micro_batch_size, int) else 1
    a_pass = micro_batch_size * world_size
    global_batch_size = config.global_batch_size or a_pass
    return Sizes(
        micro_batch_size=micro_batch_size,
        global_batch_size=global_batch_size,
        accumulation_steps=0 if global_batch_size % a_pass else global_batch_size // a_pass,
        seq_len=config.seq_len or config.model.max_seq_len,
        devices=devices,
        nodes=nodes,
        world_size=world_size,
    )


def cell_to_dict(cell: Cell) -> dict[str, Any]:
    """The cell as JSON-ready plain data (what `cell.json` holds)."""
    data = {name: getattr(cell, name) for name in ("cell_id", "config_digest", "slug")}
    data |= {"axes": dict(cell.axes), "overrides": dict(cell.overrides), "config": asdict(cell.config)}
    data["sizes"] = {name: getattr(cell.sizes, name) for name in Sizes.__slots__}
    return data


def cell_from_dict(data: Mapping[str, Any]) -> Cell:
    """The inverse of `cell_to_dict`."""
    fields = {name: data[name] for name in ("cell_id", "config_digest", "slug", "axes", "overrides")}
    return Cell(**fields, config=typed_config(data["config"]), sizes=Sizes(**data["sizes"]))
