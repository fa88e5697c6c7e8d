"""An attention call is read once, as its caller made it."""

import pytest
import torch
import torch.nn.functional as F

from benchrunner.worker.validity.profiled import profiled

Q, K = torch.randn(1, 4, 8, 16, requires_grad=True), torch.randn(1, 2, 8, 16, requires_grad=True)


def calls(run):
    return profiled(run, torch.device("cpu")).attention


def test_lengths_heads_and_causality_are_read():
    def run():
        F.scaled_dot_product_attention(Q, K, K, is_causal=True, enable_gqa=True).sum().backward()
        F.scaled_dot_product_attention(Q[:, :, :1], K, K, enable_gqa=True)

    first, second = calls(run)
    assert (first.query, first.key, first.is_causal) == ((1, 4, 8, 16), (1, 2, 8, 16), True)
    assert (second.query, second.key, second.is_causal) == ((1, 4, 1, 16), (1, 2, 8, 16), False)
    assert not first.has_mask and first.dropout == 0


@pytest.mark.parametrize("masked", [True, False])
def test_masks_and_dropout_are_read(masked):
    mask = torch.ones(8, 8, dtype=torch.bool) if masked else None
    (call,) = calls(lambda: F.scaled_dot_product_attention(Q, Q, Q, attn_mask=mask, dropout_p=0.25))
    assert call.has_mask is masked and call.dropout == 0.25
