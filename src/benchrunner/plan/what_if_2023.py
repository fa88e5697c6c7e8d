"""A cell as llm-analysis-2023 sees it: what `predict.formula=llm-analysis-2023` says in a plan."""

from typing import Any, cast

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import formula_2023 as formula

ZERO = {"single": 0, "ddp": 0, "fsdp": 3}
BITS = {"nf4": 4, "nf4-dq": 4, "fp8": 8, "fp8-torchao": 8, "fp32": 32}


def predict(cell: Cell, hardware: Hardware) -> Any:
    """Peak memory and step time by the formulas; no time where a peak is unknown."""
    setup = setup_of(cell, hardware)
    batch, length = cell.sizes.micro_batch_size, cell.sizes.seq_len
    memory = formula.weight_bytes(setup)
    found: dict[str, Any] = {"method": formula.NAME, "bound": "estimate", "note": formula.LIMITS}
    if cell.axes["workload"] not in arithmetic.GRADIENT_WORKLOADS:
        return found | _inference(cell, setup, memory)
    recompute = recompute_of(cell)
    memory += formula.gradient_bytes(setup) + formula.optimizer_bytes(setup)
    memory += formula.training_activation_bytes(setup, batch, length, recompute)
    flops = formula.training_flops(setup.shape, batch, length, recompute)
    reached = setup.tensor * setup.pipeline * setup.flops
    seconds = flops / reached * cell.sizes.accumulation_steps if reached else None
    rate = (
        batch * length * cell.sizes.accumulation_steps / (seconds * setup.tensor * setup.pipeline) if seconds else None
    )
    return found | {
        "peak_memory_bytes": round(memory), "step_time_s": seconds, "tokens_per_second_per_device": rate
    }  # fmt: skip


def _inference(cell: Cell, setup: formula.Setup, weights: float) -> dict[str, Any]:
    batch, options = cell.sizes.micro_batch_size, cell.config.generate
    is_generation = cell.axes["workload"] == "generate"
    length = options.prompt_length if is_generation else cell.sizes.seq_len
    new = options.new_tokens if is_generation else 0
    memory = weights + formula.inference_activation_bytes(setup, batch, length)
    if not setup.flops:
        return {"peak_memory_bytes": round(memory), "step_time_s": None}
    seconds = formula.prefill_s(setup, batch, length)
    if is_generation:
        memory += formula.kv_cache_bytes(setup, batch, length + new)
        seconds += new * formula.decode_s(setup, batch, length, new)
    return {"peak_memory_bytes": round(memory), "step_time_s": seconds}


def recompute_of(cell: Cell) -> formula.Recompute:
    """Full checkpointing repeats the forward pass; one operation at a time is what it calls selective."""
    name, every = cell.axes["activation_checkpointing"], cell.config.activation_checkpointing.every
    return "full" if name == "full" else "selective" if every == "per_op" else "none"


def setup_of(cell: Cell, hardware: Hardware) -> formula.Setup:
    """The cell's model, device and degrees in the formula's terms."""
    model, options, strategy = cell.config.model, cell.config.predict, cell.config.strategy
    bits = BITS.get(cell.axes["precision"], 16)
    activation = 16 if bits == 4 else bits
    return formula.Setup(
        shape=formula.Shape(
            num_layers=model.num_layers, num_heads=model.num_heads, width=model.d_model, vocab_size=model.vocab_size
        ),
        device=formula.DEVICES.get(hardware.name) or _device(hardware),
        bits=formula.Bits(weight=bits, activation=activation, embedding=max(bits, 16)),
        tensor=options.tensor,
        pipeline=options.pipeline,
        data=max(cell.sizes.world_size // (options.tensor * options.pipeline), 1),
        zero=cast(int, strategy.stage) if strategy.kind == "fsdp" else ZERO[strategy.kind],
        flops_efficiency=options.flops_efficiency,
        memory_efficiency=options.memory_efficiency,
    )


def _device(hardware: Hardware) -> formula.Device:
    """A device of conf/hardware in the formula's terms; what is unknown counts nothing."""
    peaks = hardware.peak_flops
    bf16 = peaks.get("bf16") or peaks.get("fp16") or 0.0
    eight = peaks.get("fp8") or peaks.get("int8") or bf16
    return formula.Device(
        memory_bytes=float(hardware.memory_bytes or 0),
        bandwidth=hardware.memory_bandwidth_bytes_per_second or float("inf"),
        link=hardware.interconnect_bytes_per_second or float("inf"),
        peaks={32: peaks.get("fp32") or 0.0, 16: bf16, 8: eight, 4: peaks.get("int4") or eight},
    )
