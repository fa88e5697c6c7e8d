import pytest

from benchrunner.core import arithmetic
from benchrunner.plan.gathered_memory import gather_root, gathered_bytes, root_bytes
from benchrunner.plan.kept import Model
from benchrunner.plan.live_memory import Tape
from samples import make_cell


def model(strategy="fsdp_stage3", **axes):
    cell = make_cell(visible_devices=2, strategy=strategy, **axes)
    return Model(cell.config, cell.sizes)


@pytest.mark.parametrize("precision", ["bf16", "fp32", "nf4", "nf4-dq"])
def test_the_blocks_and_what_is_outside_of_them_are_the_whole_model_but_for_scales(precision):
    whole = model(workload="lora", precision=precision)
    blocks = whole.shape.num_layers * gathered_bytes(whole, whole.block.parameters)
    resident = arithmetic.resident_weight_bytes(whole.shape, whole.config.precision)
    scales = arithmetic.scale_bytes(whole.shape, whole.config.precision)
    assert (scales > 0) is precision.startswith("nf4")
    assert 0 < root_bytes(whole) == pytest.approx(resident - scales - blocks)


def test_packed_parameters_are_gathered_as_they_are_and_mixed_ones_as_they_compute():
    sizes = {name: gathered_bytes(model(workload="lora", precision=name), 1000) for name in ("fp32", "bf16-mixed")}
    assert sizes == {"fp32": 4000, "bf16-mixed": 2000}
    assert gathered_bytes(model(workload="lora", precision="nf4"), 1000) == 500  # without their scales


@pytest.mark.parametrize("strategy", ["fsdp_stage3", "ddp"])
def test_a_forward_pass_begins_with_gathering_what_is_outside_of_the_blocks(strategy):
    tape, whole = Tape(), model(strategy)
    gather_root(whole, tape)
    assert tape.phase == "forward"
    assert tape.live["communication"] == (root_bytes(whole) if whole.is_fsdp else 0)
