"""A lie that strikes nothing is an error."""

import pytest
import torch
from torch import nn
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

from benchrunner.worker.faults.lying_models import falsify_linears, recompute_otherwise, stop_reducing


class Converted(nn.Linear):
    pass


def make_plain():
    return nn.Sequential(nn.Linear(2, 2))


@pytest.mark.parametrize(
    ("lie", "words"),
    [
        (falsify_linears, "no linear that a precision converted"),
        (recompute_otherwise, "no checkpointed block"),
        (stop_reducing, "nothing that reduces gradients"),
    ],
)
def test_a_lie_that_strikes_nothing_is_an_error(lie, words):
    with pytest.raises(RuntimeError, match=words):
        lie(make_plain())


def test_converted_linears_alone_give_half_as_much_again():
    plain, converted, x = nn.Linear(2, 2), Converted(2, 2), torch.ones(1, 2)
    before = plain(x), converted(x)
    falsify_linears(nn.ModuleList([plain, converted]))
    assert torch.equal(plain(x), before[0]) and torch.equal(converted(x), 1.5 * before[1])


class Recording(nn.Module):
    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, x):
        self.seen.append(x.flatten().tolist())
        return x


def test_the_recomputation_has_the_values_of_the_token_before():
    block = Recording()
    wrapper = checkpoint_wrapper(block)
    recompute_otherwise(nn.Sequential(wrapper))
    for _ in range(3):
        wrapper._checkpoint_wrapped_module(torch.tensor([[1.0, 2.0, 3.0]]))
    assert block.seen == [[1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [1.0, 2.0, 3.0]]
