"""The worker's step under fake tensors: against peaks measured on H200s, and what it refuses."""

import pytest
import torch
from torch import nn

from benchrunner.core import arithmetic
from benchrunner.core.cell import cell_to_dict
from benchrunner.core.units import GIB
from benchrunner.worker import dry_run, fake_kernels
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
    assert answer["reserved_memory_bytes"] >= answer["least_memory_bytes"] >= answer["peak_memory_bytes"]
    assert answer["peak_memory_bytes"] == sum(answer["terms"].values())


@pytest.mark.parametrize(
    ("micro_batch", "peak_gib", "reserved_gib"), [(41, 119.63, 129.09), (43, 125.29, 135.29), (44, 128.11, 138.38)]
)
def test_the_largest_micro_batches_of_a_search_on_an_h200(micro_batch, peak_gib, reserved_gib):
    """docs/results/2026-11-30-h200-search.md; none had retries."""
    answer = dry_run.answer(cell_to_dict(make_cell(*SEVEN_B, f"micro_batch_size={micro_batch}")))
    assert answer["peak_memory_bytes"] / GIB == pytest.approx(peak_gib, rel=0.001)
    assert answer["reserved_memory_bytes"] / GIB == pytest.approx(reserved_gib, rel=0.006)
    assert answer["reserved_memory_bytes"] / GIB < 139.2


@pytest.mark.parametrize("micro_batch", [45, 47, 48])
def test_those_that_ran_out_of_memory_there_although_their_tensors_would_fit(micro_batch):
    """The first step fits and leaves the optimizer's state in its blocks, so that the second does not."""
    answer = dry_run.answer(cell_to_dict(make_cell(*SEVEN_B, f"micro_batch_size={micro_batch}")))
    assert answer["peak_memory_bytes"] / GIB < 139.5
    assert answer["least_memory_bytes"] / GIB > 140


@pytest.mark.parametrize(
    ("words", "measured_gib"),
    [
        (("workload=lora",), 2.58),
        (("workload=lora", "precision=nf4"), 1.87),
        (("workload=adapter_v2", "precision=nf4-dq"), 2.30),
        (("workload=lora", "precision=nf4", "strategy=fsdp_stage3", "devices=2"), 2.02),
        (("workload=generate",), 1.28),
        (("workload=generate", "precision=nf4"), 0.65),
        (("workload=generate", "strategy=fsdp_stage3", "devices=2"), 2.40),
    ],
)
def test_published_peaks_of_finetuning_and_generation(words, measured_gib):
    short = (*SEVEN_B[:2], "seq_len=2048", "workload.adapter_start_layer=0")
    answer = dry_run.answer(cell_to_dict(make_cell(*short, *words)))
    assert answer["peak_memory_bytes"] / GIB == pytest.approx(measured_gib, rel=0.006)


@pytest.mark.parametrize(
    ("words", "measured_gib"),
    [
        (("workload=generate", "precision=bf16-mixed"), 5.495),
        (("workload=generate", "precision=bf16"), 3.753),
        (("workload=generate", "precision=nf4"), 3.035),
        (("workload=forward", "precision=bf16-mixed", "model.num_layers=3", "micro_batch_size=2"), 3.716),
        (("workload=forward", "precision=nf4", "model.num_layers=3", "micro_batch_size=2"), 1.062),
    ],
)
def test_measured_peaks_of_prompts_and_of_what_is_cast(words, measured_gib):
    """H200, 1 December 2026; in inference mode autocast keeps no cast for the next block."""
    long = ("generate.prompt_length=2048", "generate.new_tokens=32", "micro_batch_size=8", "seq_len=1024")
    answer = dry_run.answer(cell_to_dict(make_cell(*SEVEN_B[:2], *long, *words)))
    assert answer["peak_memory_bytes"] / GIB == pytest.approx(measured_gib, rel=0.003)


def test_longer_generations_keep_more():
    short, long = (
        dry_run.answer(cell_to_dict(make_cell("workload=generate", f"generate.new_tokens={number}")))
        for number in (8, 120)
    )
    config = make_cell("workload=generate").config
    cache = arithmetic.kv_cache_bytes(config.model, config.micro_batch_size, 112, 2)
    assert long["terms"]["cache"] - short["terms"]["cache"] == cache
    assert long["peak_memory_bytes"] - short["peak_memory_bytes"] == pytest.approx(cache, rel=0.03)


@pytest.mark.parametrize(
    ("rows", "needs_gradient", "is_unpacked"), [(7, False, False), (8, False, True), (7, True, True)]
)
def test_few_rows_are_multiplied_without_unpacking(monkeypatch, rows, needs_gradient, is_unpacked):
    unpacked = []
    monkeypatch.setattr(fake_kernels.PackedProduct, "apply", lambda x, packed, shape: unpacked.append(shape) or x)
    linear = fake_kernels.PackedLinear(nn.Linear(64, 64, bias=False, device="meta"), nested=False)
    linear(torch.zeros(rows, 64, dtype=torch.bfloat16, requires_grad=needs_gradient))
    assert bool(unpacked) is is_unpacked


@pytest.mark.parametrize(("nested", "bytes_a_weight"), [(False, 0.5625), (True, 0.515869140625)])
def test_packed_sizes_are_those_of_the_law(nested, bytes_a_weight):
    linear = fake_kernels.PackedLinear(nn.Linear(4096, 4096, bias=False, device="meta"), nested=nested)
    tensors = [linear.weight, *linear.buffers()]
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    assert size / 4096**2 == pytest.approx(bytes_a_weight, rel=2e-4)


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("workload=parity",), "workload parity"),
        (("engine=fabric",), "engine fabric"),
        (("precision=fp8",), "Transformer Engine"),
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
    normed = FusedRMSNorm.apply(x, torch.zeros(8))
    assert [tensor.shape for tensor in normed.grad_fn.saved_tensors] == [(4, 8), (8,), (4,)]


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


def test_a_mask_of_dropout_is_a_byte_an_element():
    module, x = nn.Dropout(0.1), torch.zeros(4, 8, dtype=torch.bfloat16, requires_grad=True)
    dropped = fake_kernels.dropout(module, x)
    assert [(mask.dtype, mask.shape) for mask in dropped.grad_fn.saved_tensors] == [(torch.bool, x.shape)]
    assert fake_kernels.dropout(module.eval(), x) is x
