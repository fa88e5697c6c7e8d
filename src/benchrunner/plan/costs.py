"""What a cell is expected to take, phase by phase: the one model behind `--budget` and behind the limits of the phases.

Each constant is what was seen on ordinary machines, with its source; an expectation, not a bound. Docs name files of
docs/.
"""

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.checks import budget_s
from benchrunner.core.parity_cell import as_built
from benchrunner.plan.micro_batches import typical_sizes
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.window import num_steps

START_S = 10.0
"""Processes and imports, and torchrun's own end: 6 s alone (reliability.md, launch and start), more beside others."""

BUILD_S = 4.0
"""Imports of the compiler and of sharding: 2 to 4 s (reliability.md, small models)."""
OPTIONAL_IMPORT_S = 10.0
"""More where a library is imported that most cells do without: on a fresh GPU machine Lightning took 10 s, bitsandbytes
3 s."""
PARAMETERS_PER_S = 2e8
"""Every rank draws every parameter in full: 0.7 billion in 1.5 s on the host of H200s (reliability.md, build), and half
as fast where ranks share the cores."""

FIRST_STEP_S = 1.0
"""Libraries connect and kernels are loaded: 0.1 to 0.6 s (reliability.md, compile of eager cells)."""

COMPILE_S = {"cuda": {"inductor": 15.0, "thunder": 25.0}, "cpu": {"inductor": 40.0, "thunder": 120.0}}
"""A compiler at work on one block, with an empty cache. Inductor: 15 to 29 s on 2 CPU cores; on hosts of H200s 6 to
10 s on one day, 10 to 17 s on another. Thunder traces by interpreting Python and gives the rest to Inductor: 18 to 21 s
on the slower of these hosts (results/2026-11-21-h200-precision-matrix.md, 2026-11-30-h200-healthy-cells.md)."""
COMPILE_LAYER_S = {"inductor": 1.5, "thunder": 4.0}
"""More for each layer where the model is compiled as a whole: of Llama-2-7B's 32 layers a program took Inductor 40 and
56 s on two hosts of H200s, thunder 150 s."""
NUM_PROGRAMS = {"generate": 2}
"""Programs that the compiler makes one after the other, if not one: for the prompt and for a token."""
AUTOTUNE_FACTOR = 4.0
"""`max-autotune` compiles and times many kernels for each one that it keeps."""

BOUND_FACTOR = 2.0
"""A step takes so many times its predicted time where that is a lower bound, as in plans of version 0.1.0."""

FLOPS_PER_S = {"cuda": 1e13, "cpu": 5e9}
"""What a rank computes in a second where no step time is predicted: low for a GPU, a small model on 2 CPU cores."""

TOKEN_S = 0.01
"""One decode, eager: Llama-2-7B on an H200 8 ms alone and 10 ms beside others, as the host sets the pace
(results/2026-11-21-h200-generate.md); the debug model on 2 CPU cores that six processes share 10 ms."""
GATHERED_BYTES_PER_S = {"cuda": 2e11, "cpu": 1e9}
"""Weights that FSDP gathers for each decode: half of what NVLink 4 has in a direction; gloo on one host."""

CHECK_S = 1.0
"""Reading back parameters and judging: 0.1 to 0.7 s (reliability.md, check)."""
NUM_CHECK_STEPS = 8
"""Probes of a training step: three of at most two passes each, and the profiler at work (worker/validity/probe.py)."""
CHECK_BUDGETS = 2.0
"""Of what all checks together may take, at most: the last of them ends, and the formulas work too."""

NUM_PROBES = 5
"""Of a search for a micro-batch: two where the prediction is right, eight where it says nothing."""

TEARDOWN_S = 1.0
"""0.0 to 0.4 s (reliability.md)."""


def expected_cell_s(planned: PlannedCell, device_type: str) -> float:
    """Seconds from launch to verdict."""
    return sum(expected_phases_s(planned, device_type).values())


def expected_row_s(planned: PlannedCell, device_type: str) -> float:
    """The same of a cell of the matrix with the probes that it adds, if it is a search."""
    return expected_cell_s(planned, device_type) * (NUM_PROBES if planned.cell.search else 1)


def expected_phases_s(planned: PlannedCell, device_type: str) -> dict[str, float]:
    """Phase → seconds."""
    cell, a_step_s = planned.cell, step_s(planned, device_type)
    parameters = arithmetic.num_parameters(as_built(cell).config.model)
    warmup, measured = num_steps(cell)
    checked = 1 if cell.axes["workload"] == "generate" else NUM_CHECK_STEPS
    return {
        "start": START_S,
        "build": BUILD_S + _optional_imports_s(cell) + parameters / PARAMETERS_PER_S,
        "compile": FIRST_STEP_S + a_step_s + compiler_s(cell, device_type),
        "warmup": a_step_s * warmup,
        "measure": a_step_s * measured,
        "check": CHECK_S + min(a_step_s * checked, CHECK_BUDGETS * budget_s(a_step_s * measured)),
        "teardown": TEARDOWN_S,
    }


def _optional_imports_s(cell: Cell) -> float:
    """Seconds for the libraries of the cell's engine, number format, compiler and optimizer beside torch."""
    usual = (
        cell.axes["engine"] == "native"
        and cell.config.precision.backend == "torch"
        and cell.axes["compile"] != "thunder"
        and cell.axes["optimizer"] != "paged-adamw"
    )
    return 0.0 if usual else OPTIONAL_IMPORT_S


def compiler_s(cell: Cell, device_type: str) -> float:
    """Seconds of the cell's compiler; none where there is no compiler."""
    name = cell.axes["compile"]
    if name == "eager":
        return 0.0
    layers_s = COMPILE_LAYER_S[name] * cell.config.model.num_layers if cell.config.compile.scope == "model" else 0.0
    factor = AUTOTUNE_FACTOR if str(cell.config.compile.mode).startswith("max-autotune") else 1.0
    return factor * NUM_PROGRAMS.get(cell.axes["workload"], 1) * (COMPILE_S[device_type][name] + layers_s)


def step_s(planned: PlannedCell, device_type: str) -> float:
    """Seconds of a step, from its predicted time or else from its FLOPs; of `generate`, a sample."""
    cell, predicted = planned.cell, planned.predicted or {}
    seconds = predicted.get("step_time_s")
    if seconds is not None:
        return (BOUND_FACTOR if predicted.get("bound") == "lower" else 1.0) * float(seconds)
    built = as_built(cell)
    flops = arithmetic.hardware_flops_per_step(built.config, typical_sizes(built))
    return flops / (FLOPS_PER_S[device_type] * cell.sizes.world_size) + _decoding_s(cell, device_type)


def _decoding_s(cell: Cell, device_type: str) -> float:
    """What the tokens of a sample take beside their FLOPs: the host's time, and the weights that each one gathers."""
    if cell.axes["workload"] != "generate":
        return 0.0
    is_sharded = cell.config.strategy.kind == "fsdp" and cell.sizes.world_size > 1
    weight_bytes = arithmetic.linear_weight_bytes(cell.config.model, cell.config.precision) if is_sharded else 0.0
    return float(cell.config.generate.new_tokens * (TOKEN_S + weight_bytes / GATHERED_BYTES_PER_S[device_type]))
