"""Seconds of a step: what each resource needs at its data-sheet rate, divided by what of that rate is reached.

The shares are named efficiencies: of the device's file where it was calibrated (`bench calibrate`), else typical ones.
On the device products, attention and memory traffic follow each other, and communication counts as far as it is not
hidden. The host issues all of it in advance: where it needs longer than the device, the device waits.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from benchrunner.core import arithmetic
from benchrunner.core.cell import Sizes
from benchrunner.core.schema import Config
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import operations, traffic
from benchrunner.plan.kept import widths_of
from benchrunner.plan.micro_batches import Lengths
from benchrunner.plan.products import products_of, split_seconds

TYPICAL = {
    "clock": 0.8,
    "matmul": 0.8,
    "matmul_fp8": 0.6,
    "attention": 0.5,
    "elementwise": 0.6,
    "memory": 0.8,
    "decode": 0.65,
    "communication": 1.5,
    "host": 0.5,
}
"""Of a data-sheet rate. `clock`: the share of the boost clock that the power limit leaves, of everything computed;
`memory`: long streams; `decode`: weights and cache read for a single token; `communication` may exceed 1, for most of
it is hidden behind computation; `host`: of the reference rate of plan/operations.py."""

DEVICE = ("matmul", "matmul_fp8", "attention", "elementwise", "memory", "decode", "communication")
"""Resources of the device, whose times add up."""
RESOURCES = (*DEVICE, "host")

COMPUTED = ("matmul", "matmul_fp8", "attention")

SPREAD, HOST_SPREAD = 0.25, 0.9
"""Half of the 90 % interval where nothing is calibrated, as a share of the time; where the host sets the pace the hosts
of one kind of device differ by twice."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A step's predicted time."""

    seconds: float
    low_s: float
    high_s: float
    """The interval that should hold nine times out of ten."""
    terms_s: dict[str, float]
    """Resource → seconds; `host` is what the device waits for it."""
    limited_by: str


def predict_step(config: Config, sizes: Sizes, hardware: Hardware, lengths: Lengths | None = None) -> StepTime | None:
    """A step, of `generate` a sample; None where a peak is unknown. `lengths`: where samples differ in length."""
    ideal = ideal_seconds(config, sizes, hardware, lengths)
    if ideal is None:
        return None
    reached = efficiencies(hardware.calibration)
    terms = {name: ideal[name] / reached[name] for name in DEVICE if ideal[name]}
    device_s, host_s = sum(terms.values()), ideal["host"] / reached["host"]
    waits_s = host_s if takes_turns(config, sizes) else max(host_s - device_s, 0.0)
    terms |= {"host": waits_s} if waits_s else {}
    low_s, high_s = _interval(config, sizes, hardware, device_s, host_s)
    return StepTime(
        seconds=device_s + waits_s,
        low_s=low_s,
        high_s=high_s,
        terms_s=terms,
        limited_by="host" if host_s > device_s else max(terms, key=lambda name: terms[name]),
    )


def takes_turns(config: Config, sizes: Sizes) -> bool:
    """Whether host and device wait for each other: FSDP gathers for every token what it has only begun to issue."""
    return config.workload.name == "generate" and config.strategy.kind == "fsdp" and sizes.world_size > 1


def _interval(config: Config, sizes: Sizes, hardware: Hardware, device_s: float, host_s: float) -> tuple[float, float]:
    """The interval's ends: those of the device and of the host, whichever is the later."""
    spread = hardware.calibration.get("spread", SPREAD)
    wider = 1 + hardware.calibration.get("host_spread", HOST_SPREAD)
    device, host = (device_s * (1 - spread), device_s * (1 + spread)), (host_s / wider, host_s * wider)
    if takes_turns(config, sizes):
        return device[0] + host[0], device[1] + host[1]
    return max(device[0], host[0]), max(device[1], host[1])


def efficiencies(calibration: Mapping[str, float]) -> dict[str, float]:
    """Resource → share of its data-sheet rate that is reached; the clock scales all that is computed."""
    chosen = {name: calibration.get(name, default) for name, default in TYPICAL.items()}
    return {**chosen, **{name: chosen["clock"] * chosen[name] for name in COMPUTED}}


def ideal_seconds(
    config: Config, sizes: Sizes, hardware: Hardware, lengths: Lengths | None = None
) -> dict[str, float] | None:
    """Resource → seconds at the data sheet's rate; None where a peak is unknown or the workload has no steps."""
    if config.workload.name == "parity" or not _has_peaks(config, hardware):
        return None
    if config.workload.name == "generate":
        return _generation_seconds(config, sizes, hardware)
    lengths = lengths or ((sizes.seq_len, sizes.accumulation_steps),)
    total = _step_seconds(config, sizes, hardware, lengths)
    for length, count in lengths:
        for name, seconds in _micro_step_seconds(config, sizes, hardware, length).items():
            total[name] += count * seconds
    return total


def _has_peaks(config: Config, hardware: Hardware) -> bool:
    peaks, is_fp8 = hardware.peak_flops, config.precision.compute_dtype == "float8"
    return bool(peaks.get(_compute(config)) and (peaks.get("fp8") or not is_fp8))


def _compute(config: Config) -> str:
    """The dtype of products that are not in fp8."""
    return arithmetic.SHORT_NAMES.get(config.precision.compute_dtype, "bf16")


def _step_seconds(config: Config, sizes: Sizes, hardware: Hardware, lengths: Lengths) -> dict[str, float]:
    """What a step needs beside its micro-batches, and the host."""
    bandwidth, link = hardware.memory_bandwidth_bytes_per_second, hardware.interconnect_bytes_per_second
    moved = traffic.update_bytes(config, sizes) + traffic.copied_bytes(config, sizes)
    return dict.fromkeys(RESOURCES, 0.0) | {
        "memory": moved / bandwidth if bandwidth else 0.0,
        "communication": traffic.sent_bytes(config, sizes) / link if link else 0.0,
        "host": operations.step_operations(config, sizes, lengths) * operations.OPERATION_S,
    }


def _micro_step_seconds(config: Config, sizes: Sizes, hardware: Hardware, length: float) -> dict[str, float]:
    tokens, bandwidth = sizes.micro_batch_size * length, hardware.memory_bandwidth_bytes_per_second
    found = _product_seconds(config, hardware, tokens)
    found["attention"] = attention_flops(config, tokens, length) / hardware.peak_flops[_compute(config)]
    if bandwidth:
        found["elementwise"] = traffic.elementwise_bytes(config, tokens) / bandwidth
        found["memory"] += traffic.cast_bytes(config, tokens) / bandwidth
    return found


def _product_seconds(config: Config, hardware: Hardware, tokens: float) -> dict[str, float]:
    """All products of a micro-batch: those that compute, by their format, and those that wait for their matrix."""
    peaks, bandwidth = hardware.peak_flops, hardware.memory_bandwidth_bytes_per_second
    found, products = {"memory": 0.0}, list(products_of(config, tokens))
    for name, dtype, chosen in (
        ("matmul", _compute(config), [one for one in products if not one.in_fp8]),
        ("matmul_fp8", "fp8", [one for one in products if one.in_fp8]),
    ):
        if not chosen:
            continue
        element = 1.0 if dtype == "fp8" else float(widths_of(config).activation)
        found[name], waiting_s = split_seconds(chosen, element, peaks.get(dtype, 1.0), bandwidth)
        found["memory"] += waiting_s
    return found


ODD_HEADS_FACTOR = 4.5
"""Attention with heads that 8 does not divide: no kernel of cuDNN's takes them, and torch pads for the others. So much
slower are heads of 100 (open_llama_3b, docs/results/2026-11-21-h200-litgpt-tables.md)."""


def attention_flops(config: Config, tokens: float, length: float) -> float:
    """FLOPs of attention for so many tokens of sequences of this length, as if all heads were taken as they are;
    recomputation included.
    """
    model = config.model
    odd = ODD_HEADS_FACTOR if model.d_model // model.num_heads % 8 else 1.0
    a_token = arithmetic.attention_flops_per_token(model, length, causal=True)  # type: ignore[arg-type]
    return odd * tokens * a_token * traffic.passes(config)


# --- a sample of generation


def _generation_seconds(config: Config, sizes: Sizes, hardware: Hardware) -> dict[str, float]:
    """The prompt's pass, then token by token: every matrix and the cache so far are read."""
    options, bandwidth = config.generate, hardware.memory_bandwidth_bytes_per_second
    link = hardware.interconnect_bytes_per_second
    total = dict.fromkeys(RESOURCES, 0.0)
    for name, seconds in _micro_step_seconds(config, sizes, hardware, options.prompt_length).items():
        total[name] += seconds
    num_decodes = max(0, options.new_tokens - 1)
    read = num_decodes * decode_bytes(config, sizes)
    once = replace(sizes, accumulation_steps=1)
    moved = (num_decodes + 1) * traffic.copied_bytes(config, once)
    sent = (num_decodes + 1) * traffic.sent_bytes(config, once)
    total["decode"] += read / bandwidth if bandwidth else 0.0
    total["memory"] += moved / bandwidth if bandwidth else 0.0
    total["communication"] += sent / link if link and config.strategy.kind == "fsdp" else 0.0
    total["host"] = (num_decodes + 1) * operations.decode_operations(config, sizes) * operations.OPERATION_S
    return total


def decode_bytes(config: Config, sizes: Sizes) -> float:
    """Bytes that pass for one token; 4-bit kernels take as long as matrices in the compute dtype would."""
    read = arithmetic.decode_bytes_per_token(config, sizes)
    packed = arithmetic.linear_weight_bytes(config.model, config.precision)
    width = widths_of(config).activation
    return read + max(arithmetic.matmul_parameters(config.model) * width - packed, 0.0)
