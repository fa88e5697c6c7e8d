from dataclasses import replace

import pytest

from benchrunner.core import arithmetic
from benchrunner.plan import operations, products, step_time, traffic
from benchrunner.plan.micro_batches import typical_lengths
from samples import CPU, H200, make_cell

FAST = replace(
    H200,
    memory_bandwidth_bytes_per_second=4.8e12,
    interconnect_bytes_per_second=4.5e11,
    peak_flops={"bf16": 989e12, "fp8": 1979e12},
)

CHOSEN = {
    "clock": 0.5, "matmul": 0.8, "attention": 1.0, "elementwise": 0.125, "memory": 0.25, "host": 1e9, "spread": 0.1,
}  # fmt: skip
WIDE = {"model.d_model": 4096, "model.d_ff": 4096, "seq_len": 4096}


def ideal(visible_devices=2, leaves=None, **axes):
    cell = make_cell(visible_devices=visible_devices, leaves=leaves, **axes)
    return step_time.ideal_seconds(cell.config, cell.sizes, FAST)


@pytest.mark.parametrize(
    ("axes", "leaves"),
    [
        ({"activation_checkpointing": "full"}, {}),
        ({"workload": "forward"}, {}),
        ({}, {"workload.loss_chunk_tokens": 16}),
    ],
)
def test_products_and_attention_are_all_the_work(axes, leaves):
    cell = make_cell(leaves=leaves, **axes)
    tokens = cell.sizes.micro_batch_size * cell.sizes.seq_len
    flops = sum(one.flops for one in products.products_of(cell.config, tokens))
    flops += step_time.attention_flops(cell.config, tokens, cell.sizes.seq_len)
    assert flops == pytest.approx(arithmetic.hardware_flops_per_step(cell.config, cell.sizes))


def test_efficiencies_divide_and_the_clock_scales_what_is_computed():
    cell = make_cell()
    step = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=CHOSEN))
    free = ideal()
    parts = {"matmul": 0.4, "attention": 0.5, "elementwise": 0.125, "memory": 0.25}
    expected = sum(free[name] / share for name, share in parts.items())
    assert step.seconds == pytest.approx(expected)
    assert (step.low_s, step.high_s) == (pytest.approx(0.9 * expected), pytest.approx(1.1 * expected))
    assert step.limited_by == "elementwise" and "host" not in step.terms_s


def test_a_slow_host_sets_the_pace_and_widens_the_interval():
    cell = make_cell()
    quick = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=CHOSEN))
    slow = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=CHOSEN | {"host": 0.01}))
    assert slow.seconds == pytest.approx(ideal()["host"] / 0.01) and slow.seconds > 2 * quick.seconds
    assert slow.terms_s["host"] == pytest.approx(slow.seconds - quick.seconds)
    device_s = quick.seconds
    a_bit_slower = CHOSEN | {"host": ideal()["host"] / (1.1 * device_s)}
    step = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=a_bit_slower))
    assert step.limited_by == "host" and step.terms_s["host"] < max(step.terms_s.values())
    assert slow.limited_by == "host" and slow.high_s / slow.seconds == pytest.approx(1 + step_time.HOST_SPREAD)


@pytest.mark.parametrize("host", [0.01, 1e9])
def test_where_host_and_device_take_turns_their_times_and_intervals_add_up(host):
    calibration = CHOSEN | {"host": host, "host_spread": 0.5}
    cell = make_cell(visible_devices=2, strategy="fsdp_stage3", workload="generate")
    step = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=calibration))
    host_s = ideal(workload="generate", strategy="fsdp_stage3")["host"] / host
    device_s = step.seconds - host_s
    assert step.terms_s["host"] == pytest.approx(host_s)
    assert sum(step.terms_s.values()) == pytest.approx(step.seconds)
    assert step.low_s == pytest.approx(0.9 * device_s + host_s / 1.5)
    assert step.high_s == pytest.approx(1.1 * device_s + host_s * 1.5)


def test_where_the_host_sets_the_pace_the_interval_is_that_of_hosts():
    cell, calibration = make_cell(), CHOSEN | {"host": 0.01, "host_spread": 0.5}
    step = step_time.predict_step(cell.config, cell.sizes, replace(FAST, calibration=calibration))
    assert (step.low_s, step.high_s) == (pytest.approx(step.seconds / 1.5), pytest.approx(step.seconds * 1.5))


def test_operations_follow_layers_micro_steps_and_what_is_added():
    def count(leaves=None, **axes):
        cell = make_cell(leaves=leaves, **axes)
        return operations.step_operations(cell.config, cell.sizes, ((64, cell.sizes.accumulation_steps),))

    plain = count()
    assert count({"model.num_layers": 8}) > 1.5 * plain
    assert count({"global_batch_size": 4}) == pytest.approx(4 * plain, rel=0.2)
    assert plain < count(activation_checkpointing="full") < count(precision="fp8-torchao")
    assert count(precision="fp8-torchao", compile="inductor") < count(precision="fp8-torchao")
    assert count(visible_devices=2, strategy="fsdp_stage3") > count(visible_devices=2, strategy="fsdp_stage2") > plain
    assert count(workload="lora") > count(workload="lora", compile="inductor")


LORA = {
    "workload.lengths": "alpaca", "workload.longest": 1304, "workload.loss_chunk_tokens": 128, "global_batch_size": 128,
    "model.num_layers": 32, "model.d_model": 4096, "model.num_heads": 32, "model.num_kv_heads": 32, "seq_len": 4096,
    "model.max_seq_len": 4096, "measure.warmup_steps": 1, "measure.steps": 1,
}  # fmt: skip


@pytest.mark.parametrize(
    ("workload", "precision", "measured_s"),
    [("lora", "bf16", 10.92), ("lora", "nf4", 13.49), ("adapter", "bf16", 9.13), ("adapter_v2", "bf16", 13.63)],
)
def test_operations_are_those_of_steps_that_the_host_limited(workload, precision, measured_s):
    """Llama-2-7B on H200s whose host decodes with 22.7 µs an operation (docs/results)."""
    cell = make_cell(workload=workload, precision=precision, leaves=LORA)
    count = operations.step_operations(cell.config, cell.sizes, typical_lengths(cell))
    assert count * 22.7e-6 == pytest.approx(measured_s, rel=0.12)


def test_a_token_reads_every_matrix_and_4_bits_are_no_faster():
    bf16, nf4 = ideal(workload="generate"), ideal(workload="generate", precision="nf4")
    assert bf16["decode"] > 0 and nf4["decode"] == pytest.approx(bf16["decode"])
    assert nf4["host"] > bf16["host"]
    captured = {"compile.mode": "reduce-overhead", "compile.scope": "model"}
    assert ideal(workload="generate", compile="inductor", leaves=captured)["host"] < 0.3 * bf16["host"]


def test_a_sample_is_the_pass_of_its_prompt_and_as_many_decodes_as_tokens_follow():
    """Each token costs the same again; sharded weights are gathered for each, the prompt's pass included."""
    sharded = {"workload": "generate", "strategy": "fsdp_stage3"}
    one, two, many = (ideal(leaves={"generate.new_tokens": count}, **sharded) for count in (1, 2, 9))
    cell = make_cell(visible_devices=2, **sharded)
    config, once = cell.config, replace(cell.sizes, accumulation_steps=1)
    forward = ideal(visible_devices=1, leaves={"seq_len": config.generate.prompt_length}, workload="forward")
    gathered = {
        "memory": traffic.copied_bytes(config, once) / FAST.memory_bandwidth_bytes_per_second,
        "communication": traffic.sent_bytes(config, once) / FAST.interconnect_bytes_per_second,
        "host": operations.decode_operations(config, cell.sizes) * operations.OPERATION_S,
    }
    for name in ("matmul", "attention", "elementwise"):
        assert one[name] == many[name] == pytest.approx(forward[name])
    assert one["decode"] == 0 and one["host"] == pytest.approx(gathered["host"])
    assert one["communication"] == pytest.approx(gathered["communication"])
    assert one["memory"] == pytest.approx(forward["memory"] + gathered["memory"])
    read = step_time.decode_bytes(make_cell(leaves={"generate.new_tokens": 9}, **sharded).config, cell.sizes)
    assert many["decode"] == pytest.approx(8 * read / FAST.memory_bandwidth_bytes_per_second)
    for name, seconds in gathered.items():
        assert two[name] - one[name] == pytest.approx(seconds)
        assert many[name] - one[name] == pytest.approx(8 * seconds)
    assert ideal(leaves={"generate.new_tokens": 2, "global_batch_size": 8}, **sharded)["memory"] == two["memory"]
    assert ideal(leaves={"generate.new_tokens": 2}, workload="generate", strategy="ddp")["communication"] == 0


def test_without_rates_of_memory_and_link_only_what_is_computed_and_issued_is_counted():
    unknown = replace(FAST, memory_bandwidth_bytes_per_second=None, interconnect_bytes_per_second=None)
    for workload in ("train", "generate"):
        cell = make_cell(visible_devices=2, strategy="fsdp_stage3", workload=workload)
        found = step_time.ideal_seconds(cell.config, cell.sizes, unknown)
        assert {name for name, seconds in found.items() if seconds} == {"matmul", "attention", "host"}


@pytest.mark.parametrize(
    ("axes", "leaves"),
    [
        ({}, {}),
        ({"precision": "bf16-mixed"}, {"seq_len": 1}),
        ({"precision": "fp8"}, {"seq_len": 1, "precision.scope": "blocks"}),
        ({"precision": "fp8"}, WIDE | {"precision.scope": "blocks"}),
    ],
)
def test_memory_has_the_update_what_is_cast_and_what_products_wait_for_in_either_format(axes, leaves):
    cell = make_cell(visible_devices=1, leaves=leaves, **axes)
    tokens, bandwidth = cell.sizes.micro_batch_size * cell.sizes.seq_len, FAST.memory_bandwidth_bytes_per_second
    streams = traffic.update_bytes(cell.config, cell.sizes) + traffic.cast_bytes(cell.config, tokens)
    made = list(products.products_of(cell.config, tokens))
    formats = {False: (2.0, FAST.peak_flops["bf16"]), True: (1.0, FAST.peak_flops["fp8"])}
    split = {
        in_fp8: products.split_seconds([one for one in made if one.in_fp8 is in_fp8], element, peak, bandwidth)
        for in_fp8, (element, peak) in formats.items()
    }
    found = step_time.ideal_seconds(cell.config, cell.sizes, FAST)
    assert (found["matmul"], found["matmul_fp8"]) == pytest.approx((split[False][0], split[True][0]))
    assert found["memory"] == pytest.approx(streams / bandwidth + split[False][1] + split[True][1])


def test_a_device_alone_gathers_nothing_and_waits_for_no_host_in_turns():
    one, two = (make_cell(visible_devices=count, strategy="fsdp_stage3", workload="generate") for count in (1, 2))
    assert [step_time.takes_turns(cell.config, cell.sizes) for cell in (one, two)] == [False, True]


def test_products_of_few_tokens_wait_for_their_matrix():
    few, many = ideal(leaves={"seq_len": 1}), ideal(leaves=WIDE)
    assert few["matmul"] == 0 and few["memory"] > 0
    assert many["matmul"] > 0


def test_heads_that_8_does_not_divide_are_slow():
    even, odd = (ideal(leaves={"model.d_model": 64 * size, "model.num_heads": 64}) for size in (8, 9))
    assert odd["attention"] > 4 * even["attention"]


def test_an_unknown_peak_gives_no_time():
    cell = make_cell()
    assert step_time.predict_step(cell.config, cell.sizes, CPU) is None
    assert ideal(workload="parity") is None
    fp32 = make_cell(precision="fp32")
    assert step_time.ideal_seconds(fp32.config, fp32.sizes, FAST) is None
    fp8 = make_cell(precision="fp8")
    assert step_time.ideal_seconds(fp8.config, fp8.sizes, replace(FAST, peak_flops={"bf16": 1e15})) is None


def test_fp8_leaves_attention_and_what_is_kept_in_bf16():
    times = ideal(precision="fp8", leaves=WIDE)
    assert times["matmul"] == 0 and times["matmul_fp8"] > 0 and times["attention"] > 0
    assert ideal(precision="fp8", leaves={**WIDE, "model.vocab_size": 32000, "precision.scope": "blocks"})["matmul"] > 0


@pytest.mark.parametrize(("strategy", "passes"), [("single", 0), ("ddp", 2), ("fsdp_stage2", 2), ("fsdp_stage3", 3)])
def test_collectives_send_as_often_as_the_strategy_gathers_and_reduces(strategy, passes):
    cell = make_cell(visible_devices=4, strategy=strategy)
    one = arithmetic.num_parameters(cell.config.model) * 2 * 3 / 4
    assert traffic.sent_bytes(cell.config, cell.sizes) == pytest.approx(passes * one)


def test_ddp_reduces_once_and_fsdp_in_every_micro_step():
    for strategy, factor in (("ddp", 1), ("fsdp_stage3", 4)):
        once, often = (
            make_cell(visible_devices=2, strategy=strategy, leaves={"global_batch_size": size}) for size in (2, 8)
        )
        assert traffic.sent_bytes(often.config, often.sizes) == factor * traffic.sent_bytes(once.config, once.sizes)


def test_packed_matrices_are_gathered_and_sent_as_they_are():
    packed, plain = (
        make_cell(visible_devices=2, strategy="fsdp_stage3", workload="lora", precision=name)
        for name in ("nf4", "bf16")
    )
    for moved in (traffic.sent_bytes, traffic.copied_bytes):
        assert moved(packed.config, packed.sizes) < 0.8 * moved(plain.config, plain.sizes)


def test_fused_kernels_move_less():
    assert ideal(compile="inductor")["elementwise"] < ideal()["elementwise"]


def test_nothing_goes_backward_below_the_first_prompt_of_an_adapter():
    layers = {"model.num_layers": 4, "workload.adapter_start_layer": 0}
    whole = ideal(workload="adapter", leaves=layers)
    half = ideal(workload="adapter", leaves=layers | {"workload.adapter_start_layer": 2})
    assert all(half[name] < whole[name] for name in ("attention", "elementwise", "host"))
    assert half["attention"] == pytest.approx(whole["attention"] * 2 / 3)
