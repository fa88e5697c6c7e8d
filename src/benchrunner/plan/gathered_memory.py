"""Parameters that FSDP has gathered: whole, on every device, for as long as a unit is at work."""

from benchrunner.core import arithmetic
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape


def gathered_bytes(model: Model, parameters: int) -> float:
    """A unit's parameters in full, as they are gathered."""
    precision = model.config.precision
    if precision.param_dtype in arithmetic.QUANTIZED_BYTES:
        return parameters * arithmetic.PACKED_BYTES
    return float(parameters * model.width.computed)


def gather_root(model: Model, tape: Tape) -> None:
    """The forward pass begins with what is outside of the blocks, and the first of them."""
    tape.phase = "forward"
    if model.is_fsdp:
        gather_first(model, tape)
        tape.drop("communication", 2 * gathered_bytes(model, model.block.parameters))


def gather_first(model: Model, tape: Tape) -> None:
    """Root and first block: a unit is copied out of a buffer that is there until the next unit is."""
    root = root_bytes(model)
    tape.take("communication", 2 * root + 2 * gathered_bytes(model, model.block.parameters))
    tape.drop("communication", root)


def root_bytes(model: Model) -> float:
    """What is outside of the blocks, in full."""
    shape, precision = model.shape, model.config.precision
    if precision.param_dtype in arithmetic.QUANTIZED_BYTES:
        whole = arithmetic.resident_weight_bytes(shape, precision) - arithmetic.scale_bytes(shape, precision)
        return whole - shape.num_layers * model.block.parameters * arithmetic.PACKED_BYTES
    return float(model.root_parameters * model.width.computed)
