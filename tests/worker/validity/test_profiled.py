"""What the profiler saw is counted once, in the format that it was computed in."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F

from benchrunner.worker.validity.profiled import FLOAT8, StepProfile, count_events, profiled

CPU = torch.device("cpu")


def event(name, start, end, shapes=(), dtypes=(), thread=1, device="CPU"):
    return SimpleNamespace(
        name=lambda: name,
        start_ns=lambda: start,
        duration_ns=lambda: end - start,
        shapes=lambda: [list(shape) for shape in shapes],
        dtypes=lambda: list(dtypes),
        start_thread_id=lambda: thread,
        device_type=lambda: SimpleNamespace(name=device),
    )


BF16 = {"shapes": [(2, 3), (3, 5)], "dtypes": ["c10::BFloat16"] * 2}


def test_a_product_within_a_product_counts_once():
    found = count_events(
        [event("aten::mm", 0, 9, **BF16), event("aten::mm", 1, 8, **BF16), event("aten::mm", 9, 10, **BF16)]
    )
    assert found.product_flops == {"bfloat16": 2 * 2 * 2 * 3 * 5}


def test_an_emulated_product_has_the_format_of_what_it_emulates():
    inner = event("aten::mm", 2, 3, shapes=[(2, 3), (3, 5)], dtypes=["float", "float"])
    scaled = event("aten::_scaled_mm", 1, 8, shapes=[(2, 3), (3, 5), (), ()], dtypes=["c10::BFloat16"] * 2)
    found = count_events([event("aten::mm", 0, 9, **BF16), scaled, inner])
    assert found.product_flops == {FLOAT8: 2 * 2 * 3 * 5} and found.scales == {"tensorwise": 1}


def test_scales_are_told_by_their_shapes():
    rowwise = event("aten::_scaled_mm", 0, 1, shapes=[(2, 3), (3, 5), (2, 1), (1, 5)], dtypes=["float8"])
    other = event("aten::_scaled_mm", 2, 3, shapes=[(2, 3), (3, 5), (2, 3), (1, 5)], dtypes=["float8"])
    assert count_events([rowwise, other]).scales == {"rowwise": 1, "[2, 3] and [1, 5]": 1}


def test_threads_do_not_nest():
    found = count_events([event("aten::mm", 0, 9, **BF16), event("aten::mm", 1, 8, **BF16, thread=2)])
    assert found.product_flops["bfloat16"] == 2 * 2 * 2 * 3 * 5


def test_what_gloo_moves_for_a_reduce_scatter_is_no_all_reduce():
    scatter = event("c10d::_reduce_scatter_base_", 0, 1, shapes=[(4,), (8,)])
    moved = [
        event("gloo:all_reduce", 0, 1, shapes=[(8,)], thread=2),
        event("gloo:all_reduce", 2, 3, shapes=[(6,)], thread=2),
    ]
    found = count_events([scatter, *moved])
    assert +found.num_collectives == {"reduce_scatter": 1, "all_reduce": 1}
    assert found.collective_elements["reduce_scatter"] == 8 and found.collective_elements["all_reduce"] == 6


def test_kernels_in_float8_are_known_by_name():
    names = ["nvjet_qqtst_128x256_64x3", "nvjet_tst_256x128", "sm90_xmma_gemm_e4m3bf16_e4m3f32", "cast_transpose_fp8"]
    found = count_events([event(name, 0, 1, device="CUDA") for name in names])
    assert found.num_float8_kernels == 2
    assert sum(found.gemm_kernels.values()) == 3


def test_a_real_step_is_counted():
    x, weight, bias = torch.randn(4, 8), torch.randn(16, 8, requires_grad=True), torch.randn(16)
    q = torch.randn(1, 2, 4, 8)

    def run():
        F.silu(F.linear(x, weight, bias)).sum().backward()
        F.scaled_dot_product_attention(q, q, q, is_causal=True)

    found = profiled(run, CPU)
    assert isinstance(found, StepProfile)
    assert found.product_flops == {"float32": 2 * (2 * 4 * 8 * 16)}, "forward, and the weight's gradient"
    assert found.num_attention_calls == 1 and found.num_activation_calls == 1 and found.num_regions == 0
