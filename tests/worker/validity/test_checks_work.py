"""The check `work` on what a profile showed; that it catches its lies is in test_checks.py."""

from collections import Counter
from types import SimpleNamespace

import pytest
import torch
from torch.nn.attention import SDPBackend

from benchrunner.worker.validity.attention_calls import AttentionCall
from benchrunner.worker.validity.checks_work import _attention
from benchrunner.worker.validity.profiled import StepProfile
from cells import make_cell

RIGHT = AttentionCall(query=(1, 4, 128, 16), key=(1, 2, 128, 16), is_causal=True)
SHORT = AttentionCall(query=(1, 4, 64, 16), key=(1, 2, 64, 16), is_causal=True)


def as_on_cuda(query, key, *rest, enable_gqa):
    """No fused kernel takes fp32 in groups of heads (torch 2.11 on an H200)."""
    taken = torch.backends.cuda.flash_sdp_enabled() and (query.dtype != torch.float32 or not enable_gqa)
    return (SDPBackend.FLASH_ATTENTION if taken else SDPBackend.MATH).value


@pytest.mark.parametrize(
    ("words", "calls", "right"),
    [
        (("precision=fp32", "compile=inductor"), [], None),  # no kernel takes them: the compiler sees operations
        (("precision=fp32", "compile=inductor"), [SHORT, SHORT], False),
        (("precision=bf16", "compile=inductor"), [], False),
        (("precision=bf16", "compile=inductor"), [RIGHT, RIGHT], True),
        (("precision=fp32", "compile=inductor", "model.num_kv_heads=4"), [], False),
        (("precision=fp32", "compile=inductor", "model.num_kv_heads=4", "attention=math"), [], None),
        (("precision=fp32",), [], False),  # eager code calls the operator whoever takes it
        (("precision=fp32",), [RIGHT, RIGHT], True),
    ],
)
def test_attention_that_no_kernel_takes_is_no_call_of_a_graph(monkeypatch, words, calls, right):
    monkeypatch.setattr(torch, "_fused_sdp_choice", as_on_cuda)
    cell = make_cell("model=debug", "model.num_layers=2", "micro_batch_size=1", "seq_len=128", *words)
    facts = SimpleNamespace(cell=cell, context=SimpleNamespace(device=torch.device("cpu")), optimizer=None)
    assert _attention(facts, StepProfile(attention=calls), Counter({(128, 128): 2})).right is right
