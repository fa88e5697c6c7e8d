"""A cell as llm-analysis-2023 sees it: what `predict.formula=llm-analysis-2023` says in a plan."""

import re
from dataclasses import asdict
from typing import Any, cast

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.machine.hardware import Hardware
from benchrunner.plan import formula_2023 as formula

ZERO = {"single": 0, "ddp": 0, "fsdp": 3}
BITS = {"nf4": 4, "nf4-dq": 4, "fp8": 8, "fp8-torchao": 8, "fp32": 32}


def predict(cell: Cell, hardware: Hardware) -> Any:
    """Peak memory and step time by the formulas, and what they are made of; no time where a peak is unknown."""
    setup = setup_of(cell, hardware)
    found: dict[str, Any] = {"method": formula.NAME, "bound": "estimate", "note": _note(cell)}
    if why := _unknown_to_it(cell):
        return _no_answer(why)
    if cell.axes["workload"] not in arithmetic.GRADIENT_WORKLOADS:
        return found | _inference(cell, setup)
    if cell.config.predict.tokens is None or not setup.flops:
        return found | _training_step(cell, setup)
    try:
        return found | _training_run(cell, setup, cell.config.predict.tokens)
    except ValueError as error:
        return _no_answer(str(error))


def _no_answer(why: str) -> dict[str, Any]:
    return {"method": formula.NAME, "note": f"{formula.NAME} has no answer: {why}", "refused": why}


def _note(cell: Cell) -> str:
    """What it leaves out, and what it means by a word that means something else here."""
    if cell.axes["workload"] != "train" or recompute_of(cell) != "selective":
        return formula.LIMITS
    return f"{formula.LIMITS}; every=per_op is its selective, which computes attention again: ours keeps its output"


def _unknown_to_it(cell: Cell) -> str | None:
    """What of a cell the formula has no terms for, or degrees that its model has too few parts for."""
    config, workload = cell.config, cell.axes["workload"]
    if workload in arithmetic.PEFT_WORKLOADS or workload == "parity":
        return f"the formula knows training, forward passes and generation, not workload={workload}"
    if workload == "train" and config.optimizer.name != "adamw":
        return f"the formula knows Adam's state alone, not that of optimizer={cell.axes['optimizer']}"
    if workload == "train" and cell.axes["activation_checkpointing"] == "selective" and recompute_of(cell) == "none":
        return (
            f"the formula knows no checkpointing of {config.activation_checkpointing.every} of the blocks: "
            "activation_checkpointing.every=per_op is what it calls selective, and it knows none and full"
        )
    for key, degree, of, whole in (
        ("tensor", config.predict.tensor, "num_heads", config.model.num_heads),
        ("pipeline", config.predict.pipeline, "num_layers", config.model.num_layers),
    ):
        if degree > whole:  # the paper's own runs cut 52 heads by 8
            return f"predict.{key}={degree} is more than model.{of}={whole}"
    return None


# --- training


def _training_step(cell: Cell, setup: formula.Setup) -> dict[str, Any]:
    """Of the cell's own micro-batch and accumulation."""
    batch, length, recompute = cell.sizes.micro_batch_size, cell.sizes.seq_len, recompute_of(cell)
    flops = formula.training_flops(setup.shape, batch, length, recompute)
    reached = setup.tensor * setup.pipeline * setup.flops
    seconds = flops / reached * cell.sizes.accumulation_steps if reached else None
    rate = (
        batch * length * cell.sizes.accumulation_steps / (seconds * setup.tensor * setup.pipeline) if seconds else None
    )
    parts = _training_bytes(setup, batch, length, recompute)
    return {
        "peak_memory_bytes": round(sum(parts.values())), "step_time_s": seconds, "tokens_per_second_per_device": rate,
        "parts": parts,
    }  # fmt: skip


def _training_bytes(setup: formula.Setup, batch: int, length: int, recompute: formula.Recompute) -> dict[str, float]:
    return {
        "weight_bytes": formula.weight_bytes(setup),
        "gradient_bytes": formula.gradient_bytes(setup),
        "optimizer_bytes": formula.optimizer_bytes(setup),
        "activation_bytes": formula.training_activation_bytes(setup, batch, length, recompute),
    }


def _training_run(cell: Cell, setup: formula.Setup, tokens: float) -> dict[str, Any]:
    """Of so many tokens, in the micro-batch that the formula chooses."""
    length, global_batch, recompute = cell.sizes.seq_len, cell.sizes.global_batch_size, recompute_of(cell)
    run = formula.train(setup, length=length, global_batch=global_batch, tokens=tokens, recompute=recompute)
    memory = _training_bytes(setup, run.micro_batch_size, length, recompute)
    step_s = run.micro_batch_s * run.accumulation_steps
    return {
        "peak_memory_bytes": round(sum(memory.values())),
        "step_time_s": step_s,
        "tokens_per_second_per_device": global_batch * length / step_s / setup.num_devices,
        "parts": asdict(run) | memory | _of_pass("forward", setup, run.micro_batch_size, length),
    }


# --- inference


def _inference(cell: Cell, setup: formula.Setup) -> dict[str, Any]:
    """A forward pass, or a prompt and the tokens after it."""
    batch, options = cell.sizes.micro_batch_size, cell.config.generate
    is_generation = cell.axes["workload"] == "generate"
    length = options.prompt_length if is_generation else cell.sizes.seq_len
    new = options.new_tokens
    parts: dict[str, float] = {
        "weight_bytes": formula.weight_bytes(setup),
        "activation_bytes": formula.inference_activation_bytes(setup, batch, length),
        "cache_bytes": formula.kv_cache_bytes(setup, batch, length + new) if is_generation else 0.0,
    }
    memory = round(sum(parts.values()))
    if not setup.flops:
        return {"peak_memory_bytes": memory, "step_time_s": None, "parts": parts}
    parts |= _of_pass("prefill", setup, batch, length)
    seconds = parts["prefill_s"]
    if is_generation:
        parts |= _decoding(setup, batch, length, new)
        seconds += new * parts["decode_s"]
    return {"peak_memory_bytes": memory, "step_time_s": seconds, "parts": parts}


def _decoding(setup: formula.Setup, batch: int, length: int, new_tokens: int) -> dict[str, float]:
    """One token's time, and how many sequences fit; prompts alone, and with their cache."""
    return {
        **_of_pass("decode", setup, batch, 1),
        "decode_cache_s": formula.cache_s(setup, batch, length + new_tokens),
        "decode_s": formula.decode_s(setup, batch, length, new_tokens),
        "largest_prefill_batch": formula.largest_prefill_batch(setup, length),
        "largest_decode_batch": formula.largest_decode_batch(setup, length, new_tokens),
    }


def _of_pass(name: str, setup: formula.Setup, batch: int, length: int) -> dict[str, float]:
    """`prefill_s` and `prefill_attention_s`, `prefill_mlp_s`, …"""
    found = formula.forward_pass(setup, batch, length)
    return {f"{name}_s": found.seconds} | {f"{name}_{part}": seconds for part, seconds in asdict(found).items()}


# --- the cell in the formula's terms


def recompute_of(cell: Cell) -> formula.Recompute:
    """Full checkpointing repeats the forward pass; one operation at a time is what it calls selective."""
    name, every = cell.axes["activation_checkpointing"], cell.config.activation_checkpointing.every
    return "full" if name == "full" else "selective" if every == "per_op" else "none"


def setup_of(cell: Cell, hardware: Hardware) -> formula.Setup:
    """The cell's model, device and degrees in the formula's terms."""
    model, options, strategy = cell.config.model, cell.config.predict, cell.config.strategy
    return formula.Setup(
        shape=formula.Shape(
            num_layers=model.num_layers, num_heads=model.num_heads, width=model.d_model, vocab_size=model.vocab_size
        ),
        device=formula.DEVICES.get(hardware.name) or _device(hardware),
        bits=_bits(cell),
        tensor=options.tensor,
        pipeline=options.pipeline,
        sequence=options.sequence,
        data=max(cell.sizes.world_size // (options.tensor * options.pipeline), 1),
        zero=cast(int, strategy.stage) if strategy.kind == "fsdp" else ZERO[strategy.kind],
        flops_efficiency=options.flops_efficiency,
        memory_efficiency=options.memory_efficiency,
    )


def _bits(cell: Cell) -> formula.Bits:
    """Of the scheme (`w4a16e16`), or of the precision."""
    if cell.config.predict.scheme:
        weight, activation, embedding = map(int, re.findall(r"\d+", cell.config.predict.scheme))
        return formula.Bits(weight=weight, activation=activation, embedding=embedding)
    bits = BITS.get(cell.axes["precision"], 16)
    return formula.Bits(weight=bits, activation=16 if bits == 4 else bits, embedding=max(bits, 16))


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
