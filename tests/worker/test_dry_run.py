"""The worker's step under fake tensors: against peaks measured on H200s, and what it refuses."""

import pytest
import torch

from benchrunner.core.cell import cell_to_dict
from benchrunner.core.units import GIB
from benchrunner.worker import dry_run
from benchrunner.worker.fake_kernels import FusedRMSNorm
from benchrunner.worker.tape import Tape
from cells import make_cell

SEVEN_B = ("model=llama2-7b", "model.num_layers=2", "seq_len=4096")


@pytest.mark.parametrize(
    ("words", "measured_gib"),
    [
        (("strategy=single",), 6.62),
        (("strategy=single", "activation_checkpointing=full"), 5.38),
        (("strategy=single", "precision=bf16-mixed"), 11.50),
        (("strategy=ddp", "devices=2"), 7.86),
        (("strategy=fsdp_stage2", "devices=2"), 6.00),
        (("strategy=fsdp_stage3", "devices=2", "activation_checkpointing=full"), 4.54),
        (("strategy=fsdp_stage3", "devices=2", "precision=bf16-mixed"), 7.48),
        (("strategy=single", "workload=adapter", "workload.adapter_start_layer=0", "seq_len=2048"), 2.50),
    ],
)
def test_published_peaks(words, measured_gib):
    answer = dry_run.answer(cell_to_dict(make_cell(*SEVEN_B, *words)))
    assert answer["peak_memory_bytes"] / GIB == pytest.approx(measured_gib, rel=0.003)
    assert answer["reserved_memory_bytes"] >= answer["peak_memory_bytes"] == sum(answer["terms"].values())


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("workload=generate",), "workload generate"),
        (("engine=fabric",), "engine fabric"),
        (("precision=fp8",), "Transformer Engine"),
        (("precision=nf4", "workload=lora"), "bitsandbytes"),
        (("compile=thunder",), "compile=thunder"),
        (("attention=math",), "attention=math"),
    ],
)
def test_what_cannot_be_modelled_is_refused(words, reason):
    assert reason in dry_run.answer(cell_to_dict(make_cell(*words)))["refused"]


def test_accumulation_and_plain_passes():
    once, often, forward = (
        dry_run.answer(cell_to_dict(make_cell(*words)))["peak_memory_bytes"]
        for words in ((), ("global_batch_size=4",), ("workload=forward",))
    )
    assert forward < once < often


def test_the_norm_keeps_its_input_and_one_number_a_row():
    x = torch.zeros(4, 8, requires_grad=True)
    saved = FusedRMSNorm.apply(x, torch.zeros(8)).grad_fn.saved_tensors
    assert [tensor.shape for tensor in saved] == [(4, 8), (8,), (4,)]


def test_a_tape_counts_storages_once_until_they_die_or_are_resized():
    tape = Tape()
    before = tape.total
    with tape:
        x = torch.zeros(1000)
        assert tape.total - before == 4000
        y = x.view(10, 100)
        assert tape.total - before == 4000
        y.untyped_storage().resize_(0)
        assert tape.total == before
        y.untyped_storage().resize_(8000)
        assert tape.total - before == 8000
        del x, y
    assert tape.total == before and tape.peak - before == 8000
    assert torch.UntypedStorage.resize_ is tape._resize
