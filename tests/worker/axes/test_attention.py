"""Which attention kernels a cell lets torch choose from."""

import pytest
import torch

from benchrunner.worker.axes.attention import attention_backend, chosen_backend
from cells import make_cell


def allowed(cell):
    """The fused kernels that are switched on inside the context."""
    switches = {
        "flash": torch.backends.cuda.flash_sdp_enabled,
        "cudnn": torch.backends.cuda.cudnn_sdp_enabled,
        "efficient": torch.backends.cuda.mem_efficient_sdp_enabled,
        "math": torch.backends.cuda.math_sdp_enabled,
    }
    with attention_backend(cell):
        return {name for name, is_on in switches.items() if is_on()}


EVERY = {"flash", "cudnn", "efficient", "math"}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], EVERY),
        (["workload.lengths=alpaca"], EVERY - {"cudnn"}),
        (["workload=lora", "workload.lengths=uniform"], EVERY - {"cudnn"}),
        (["workload.lengths=alpaca", "attention=cudnn"], {"cudnn"}),
        (["attention=math"], {"math"}),
    ],
)
def test_a_kernel_that_prepares_for_every_shape_is_no_automatic_choice_where_shapes_vary(words, expected):
    assert allowed(make_cell(*words)) == expected


def test_the_choice_is_told_by_name():
    cell, device = make_cell(), torch.device("cpu")
    with attention_backend(cell):
        assert chosen_backend(cell, device) in {"flash", "math"}
    explicit = make_cell("attention=explicit")
    with attention_backend(explicit):
        assert chosen_backend(explicit, device) == "explicit"


def test_the_choice_is_that_of_a_call_that_drops():
    """On a CPU no fused kernel drops values."""
    cell, still = make_cell("model.dropout=0.1"), make_cell("workload=forward", "model.dropout=0.1")
    assert chosen_backend(cell, torch.device("cpu")) == "math" != chosen_backend(still, torch.device("cpu"))
