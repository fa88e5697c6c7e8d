"""How long a cell may go without progress in each phase: what the words say, else scaled to its work.

Progress is a change of phase or one more step of any rank. The defaults are an order of magnitude above what a healthy
cell takes, so that a limit that is hit means a hang; `timeout_s` bounds the cell as a whole.
"""

from benchrunner.core import arithmetic
from benchrunner.core.cell import Cell
from benchrunner.core.record import PHASES
from benchrunner.plan.plan import PlannedCell
from benchrunner.plan.predict import typical_sizes

START_S = 240.0
"""Importing torch from a cold and shared file system included."""

BUILD_S = 180.0
PARAMETERS_PER_S = 2e7
"""Every rank draws every parameter in full."""

FIRST_STEP_S = 180.0
"""Libraries start and connect, kernels are loaded and tuned."""

COMPILE_S = 300.0
"""A compiler at work on one block."""
COMPILE_LAYER_S = 20.0
"""More for each layer where the model is compiled as a whole."""
AUTOTUNE = 4.0

STEPS_S = 60.0
SLACK = 10.0
"""Above the predicted time of a step, which is a lower bound."""

CHECK_S, NUM_CHECK_STEPS = 120.0, 8
TEARDOWN_S = 60.0

UNKNOWN_FLOPS = {"cuda": 1e13, "cpu": 5e9}
"""FLOP/s of a rank that a cell reaches where no peak is known: low."""

TOKEN_S = 0.1
"""A generated token."""


def phase_limits_s(planned: PlannedCell, device_type: str) -> dict[str, float]:
    """Phase → seconds without progress after which the cell is stopped."""
    chosen = planned.cell.config.limits
    scaled = scaled_limits_s(planned.cell, step_s(planned, device_type))
    return {phase: float(getattr(chosen, f"{phase}_s") or scaled[phase]) for phase in PHASES}


def scaled_limits_s(cell: Cell, a_step_s: float) -> dict[str, float]:
    """The defaults for a cell whose step takes so long, or less."""
    measure, first = cell.config.measure, FIRST_STEP_S + SLACK * a_step_s
    compiling = compile_s(cell)
    return {
        "start": START_S,
        "build": BUILD_S + arithmetic.num_parameters(cell.config.model) / PARAMETERS_PER_S,
        "compile": first + compiling,
        "warmup": STEPS_S + SLACK * a_step_s * measure.warmup_steps + compiling,
        "measure": STEPS_S + SLACK * a_step_s * measure.steps + compiling,
        "check": CHECK_S + SLACK * a_step_s * NUM_CHECK_STEPS + compiling,
        "teardown": TEARDOWN_S,
    }


def compile_s(cell: Cell) -> float:
    """What the compiler may take on top of a step: in the first one, and wherever it meets a new shape."""
    whole = cell.config.compile.scope == "model" or cell.axes["compile"] == "thunder"
    layers_s = COMPILE_LAYER_S * cell.config.model.num_layers if whole else 0.0
    return tuned_s(cell, COMPILE_S + layers_s)


def tuned_s(cell: Cell, plain_s: float) -> float:
    """Seconds of the cell's compiler, when it takes `plain_s` without tuning; none where there is no compiler."""
    if cell.axes["compile"] == "eager":
        return 0.0
    return plain_s * (AUTOTUNE if str(cell.config.compile.mode).startswith("max-autotune") else 1.0)


def step_s(planned: PlannedCell, device_type: str) -> float:
    """Seconds of a step: predicted, or from its FLOPs at a low rate; of `generate`, a sample."""
    cell, predicted = planned.cell, (planned.predicted or {}).get("step_time_s")
    if predicted is not None:
        return float(predicted)
    tokens_s = TOKEN_S * cell.config.generate.new_tokens if cell.axes["workload"] == "generate" else 0.0
    return tokens_s + _flops(cell) / (UNKNOWN_FLOPS[device_type] * cell.sizes.world_size)


def _flops(cell: Cell) -> float:
    sizes = typical_sizes(cell)
    if cell.axes["workload"] in ("forward", "generate"):
        tokens = sizes.global_batch_size * sizes.seq_len
        return tokens * arithmetic.forward_flops_per_token(cell.config.model, sizes.seq_len)
    return arithmetic.hardware_flops_per_step(cell.config, sizes)
