"""What a rule may ask about a cell on a machine: sizes, remainders, the device, the libraries."""

from collections.abc import Callable
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any

from benchrunner.core.arithmetic import GRADIENT_WORKLOADS
from benchrunner.core.axes import AXES
from benchrunner.core.cell import Cell
from benchrunner.core.errors import ConfigError, did_you_mean
from benchrunner.core.schema import Config, ModelConfig
from benchrunner.machine.hardware import PACKAGES, Hardware
from benchrunner.plan.window import most_steps, num_steps

ASSUMED = "assumed"
"""The version of every library on a machine that is only planned for: no rule about libraries applies there."""

FP8_MULTIPLE = 16
FP8_ROWS_MULTIPLE = 8


Lookup = Callable[[Cell, Hardware], Any]


def look_up(key: str, cell: Cell, hardware: Hardware) -> Any:
    """The value of an axis (its option name), a fact, a package's version or a configuration leaf."""
    return lookup_of(key)(cell, hardware)


def lookup_of(key: str) -> Lookup:
    """The function that `look_up` calls for this key: decided once, since rules ask it of every cell."""
    if key in AXES:
        return lambda cell, hardware: cell.axes[key]
    if key in FACTS:
        return FACTS[key]
    group, _, leaf = key.rpartition(".")
    if group == "package":
        return lambda cell, hardware: hardware.packages.get(leaf) if hardware.is_present else ASSUMED
    value = attrgetter(key)
    return lambda cell, hardware: value(cell.config)


def check_key(key: str, place: str) -> None:
    """Refuse a key that `look_up` does not know.

    Raises:
        ConfigError: naming `place` and the nearest key.
    """
    if key in KEYS:
        return
    raise ConfigError(place, f"unknown key {key}{did_you_mean(key, KEYS)}")


def _leaves(schema: Any, prefix: str = "") -> list[str]:
    names: list[str] = []
    for item in fields(schema):
        is_group = is_dataclass(item.type) and not prefix
        names += _leaves(item.type, f"{item.name}.") if is_group else [prefix + item.name]
    return names


def _remainder_of_batch(cell: Cell, hardware: Hardware) -> int:
    sizes = cell.sizes
    return sizes.global_batch_size % (sizes.micro_batch_size * sizes.world_size)


def _remainder_of_rotary(cell: Cell, hardware: Hardware) -> int:
    model = cell.config.model
    return int(model.d_model // model.num_heads * model.rotary_fraction) % 2 if _is_rotary(model) else 0


def _is_rotary(model: ModelConfig) -> bool:
    return bool(model.positions == "rotary")


def _seq_len_excess(cell: Cell, hardware: Hardware) -> int:
    model = cell.config.model
    return 0 if _is_rotary(model) else max(_longest(cell) - model.max_seq_len, 0)


def _longest(cell: Cell) -> int:
    """Positions that the workload needs: a sample's, or prompt and new tokens of a generation."""
    if cell.axes["workload"] != "generate":
        return cell.sizes.seq_len
    generate = cell.config.generate
    return int(generate.prompt_length + generate.new_tokens)


def _fp8_size_remainder(cell: Cell, hardware: Hardware) -> int:
    """The first remainder of a linear's sizes that fp8 GEMMs cannot take; 0 when all are multiples of 16."""
    model = cell.config.model
    head_size = model.d_model // model.num_heads
    sizes = [model.d_model, model.d_ff, head_size * model.num_kv_heads]
    converts_head = cell.config.precision.scope == "all" and not model.tie_embeddings
    sizes += [model.vocab_size] if converts_head else []
    return next((size % FP8_MULTIPLE for size in sizes if size % FP8_MULTIPLE), 0)


def _fp8_token_multiple(cell: Cell, hardware: Hardware) -> int:
    """What the tokens of a micro-batch must be a multiple of: the weight gradient multiplies over them."""
    if cell.axes["workload"] in GRADIENT_WORKLOADS:
        return FP8_MULTIPLE
    return FP8_ROWS_MULTIPLE if cell.axes["precision"] == "fp8" else 1


def _tokens_per_micro_batch(cell: Cell, hardware: Hardware) -> int:
    return cell.sizes.micro_batch_size * cell.sizes.seq_len


def _top_k_excess(cell: Cell, hardware: Hardware) -> int:
    return max(int(cell.config.generate.top_k or 0) - int(cell.config.model.vocab_size), 0)


FACTS: dict[str, Lookup] = {
    # the machine
    "device_type": lambda cell, hardware: hardware.device_type,
    "device_name": lambda cell, hardware: hardware.device_name,
    "num_devices": lambda cell, hardware: hardware.num_devices,
    "compute_capability": lambda cell, hardware: hardware.compute_capability,
    "torch": lambda cell, hardware: hardware.torch if hardware.is_present else ASSUMED,
    "cc": lambda cell, hardware: hardware.cc if hardware.is_present else ASSUMED,
    "cxx": lambda cell, hardware: hardware.cxx if hardware.is_present else ASSUMED,
    "python_headers": lambda cell, hardware: hardware.python_headers or not hardware.is_present,
    "loopback": lambda cell, hardware: hardware.loopback or not hardware.is_present,
    "launcher": lambda cell, hardware: cell.config.launcher.name,
    # resolved sizes
    "micro_batch_size": lambda cell, hardware: None if cell.search else cell.sizes.micro_batch_size,
    "micro_batch_search": lambda cell, hardware: cell.search,
    "global_batch_size": lambda cell, hardware: cell.sizes.global_batch_size,
    "accumulation_steps": lambda cell, hardware: cell.sizes.accumulation_steps,
    "seq_len": lambda cell, hardware: cell.sizes.seq_len,
    "devices": lambda cell, hardware: cell.sizes.devices,
    "nodes": lambda cell, hardware: cell.sizes.nodes,
    "world_size": lambda cell, hardware: cell.sizes.world_size,
    "query_heads_per_key": lambda cell, hardware: cell.config.model.num_heads // cell.config.model.num_kv_heads,
    "tokens_per_micro_batch": _tokens_per_micro_batch,
    "fp8_token_multiple": _fp8_token_multiple,
    # what is left over: 0 is good
    "accumulation_remainder": _remainder_of_batch,
    "heads_remainder": lambda cell, hardware: cell.config.model.d_model % cell.config.model.num_heads,
    "kv_heads_remainder": lambda cell, hardware: cell.config.model.num_heads % cell.config.model.num_kv_heads,
    "rotary_remainder": _remainder_of_rotary,
    "fp8_size_remainder": _fp8_size_remainder,
    "fp8_token_remainder": lambda cell, hardware: (
        _tokens_per_micro_batch(cell, hardware) % _fp8_token_multiple(cell, hardware)
    ),
    "fp8_decode_remainder": lambda cell, hardware: cell.sizes.micro_batch_size % FP8_ROWS_MULTIPLE,
    "seq_len_excess": _seq_len_excess,
    "top_k_excess": _top_k_excess,
    "steps_excess": lambda cell, hardware: max(num_steps(cell)[1] - most_steps(cell), 0),
    "most_steps": lambda cell, hardware: most_steps(cell),
    "positions_needed": lambda cell, hardware: _longest(cell),
    "longest_excess": lambda cell, hardware: max((cell.config.workload.longest or 0) - cell.sizes.seq_len, 0),
    "num_adapter_layers": lambda cell, hardware: (
        cell.config.model.num_layers - cell.config.workload.adapter_start_layer
    ),
    "min_length_excess": lambda cell, hardware: max(cell.config.workload.min_length - cell.sizes.seq_len, 0),
}
"""Name → value; a fact hides a configuration leaf of the same name (`devices` is the resolved number)."""

_NOT_OF_A_CELL = ("hardware.", "launcher.", "sweep.")

KEYS = frozenset(
    [*AXES, *FACTS, *(f"package.{name}" for name in PACKAGES)]
    + [leaf for leaf in _leaves(Config) if not leaf.startswith(_NOT_OF_A_CELL)]
)
"""Every key that a rule may use."""
