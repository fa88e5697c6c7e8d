import json
import os
import re
import signal
from dataclasses import asdict, replace

import pytest

from benchrunner.core.paths import AttemptPaths
from benchrunner.core.peer_loss import PEER_LOSS
from benchrunner.core.rank_file import RankFile
from benchrunner.core.text import VOCABULARY
from benchrunner.core.units import GIB
from benchrunner.outcome import signatures
from benchrunner.outcome.evidence import Evidence, Stop, gather, stack
from benchrunner.outcome.judge import judge
from benchrunner.outcome.make_record import Attempt, make_record
from benchrunner.outcome.signatures import is_full, last_meaningful_line
from samples import make_cell, plan_cell

FULL = {"free_bytes": 20 << 20, "total_bytes": 141 << 30, "allocated_bytes": 1, "reserved_bytes": 1}
ROOMY = FULL | {"free_bytes": 60 << 30}


def running(rank, phase="measure"):
    return RankFile(rank=rank, pid=100 + rank, phase=phase)


def failed(
    rank, message="it broke", kind="exception", type="RuntimeError", phase="measure", at=1.0, memory=None, **more
):
    error = {"kind": kind, "code": None, "type": type, "message": message, "traceback": "", "at": at}
    return RankFile(
        rank=rank, pid=100 + rank, state="error", phase="measure", error=error | {"memory": memory or {}} | more
    )


def done(rank, **result):
    return RankFile(rank=rank, pid=100 + rank, state="done", phase="teardown", result=result)


def verdict(*ranks, world_size=2, **more):
    outcome = judge(Evidence(world_size=world_size, ranks={status.rank: status for status in ranks}, **more))
    return outcome.status, outcome.reason_code, outcome.reason


def root(*ranks, **more):
    evidence = Evidence(world_size=2, ranks={status.rank: status for status in ranks}, **more)
    return judge(evidence).evidence["rank"]


# --- what it was


def test_both_ranks_done_is_ok():
    assert verdict(done(0), done(1), code=0) == ("ok", None, None)


def test_done_is_done_even_if_the_agent_failed_or_time_ran_out_after_it():
    assert verdict(done(0), done(1), code=1, stop=Stop(kind="timeout", limit_s=5))[0] == "ok"


def test_an_exception_is_named_with_its_rank_and_phase():
    status, code, reason = verdict(running(0), failed(1, "shapes differ\nmore"), exits={1: 1}, code=1)
    assert (status, code) == ("failed", "failed.exception")
    assert reason == "rank 1, in phase measure, raised RuntimeError: shapes differ"


def test_an_oom_of_one_rank_is_an_oom():
    message = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 139.80 GiB"
    oom = failed(1, message, kind="oom", type="torch.OutOfMemoryError", memory=FULL)
    status, code, reason = verdict(running(0), oom, exits={1: 1}, code=1)
    assert (status, code) == ("oom", "oom.device")
    expected = "ran out of device memory when it asked for 2.00 GiB (0.0 of 141.0 GiB were free)"
    assert reason == f"rank 1, in phase measure, {expected}"


def test_an_oom_of_an_emulated_card_is_told_by_what_that_card_has():
    memory = {"free_bytes": 101 * GIB, "total_bytes": 141 * GIB, "cap_bytes": 38 * GIB}
    memory |= {"allocated_bytes": 36 * GIB, "reserved_bytes": 37 * GIB}
    oom = failed(0, "Tried to allocate 2.00 GiB.", kind="oom", type="torch.OutOfMemoryError", memory=memory)
    held = "36.0 GiB were allocated and 37.0 GiB reserved of the 38.0 GiB that memory_limit_gib leaves"
    assert held in verdict(oom, exits={0: 1}, code=1)[2]


@pytest.mark.parametrize(
    "message",
    [
        "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "NCCL error in: x.cpp:1, unhandled cuda error (run with NCCL_DEBUG=INFO for details), NCCL version 2.27.7",
    ],
)
def test_a_librarys_error_is_an_oom_only_when_the_device_was_full(message):
    assert verdict(failed(0, message, memory=FULL), running(1))[1] == "oom.disguised"
    assert verdict(failed(0, message, memory=ROOMY), running(1))[1] == "failed.exception"
    assert verdict(failed(0, message), running(1))[1] == "failed.exception"


@pytest.mark.parametrize(
    ("code", "library"),
    [
        ("CUBLAS_STATUS_ALLOC_FAILED", "cuBLAS"),
        ("CUDNN_STATUS_ALLOC_FAILED", "cuDNN"),
        ("CUSOLVER_STATUS_ALLOC_FAILED", "cuSOLVER"),
        ("CUSPARSE_STATUS_ALLOC_FAILED", "cuSPARSE"),
        ("CUFFT_ALLOC_FAILED", "CUFFT"),
        ("ncclUnhandledCudaError", "NCCL"),
        ("cuDNN Frontend: no valid execution plan", "cuDNN"),
    ],
)
def test_the_library_that_ran_out_of_memory_is_named(code, library):
    status, _, reason = verdict(failed(0, code, memory=FULL), running(1))
    assert status == "oom"
    assert (
        reason
        == f"rank 0, in phase measure, met an error of {library} with the device full (0.0 of 141.0 GiB were free)"
    )


def test_a_device_is_full_below_a_gib_or_a_fiftieth():
    assert is_full({"free_bytes": (1 << 30) - 1, "total_bytes": 10 << 30})
    assert not is_full({"free_bytes": 1 << 30, "total_bytes": 10 << 30})
    assert is_full({"free_bytes": 2 << 30, "total_bytes": 141 << 30})
    assert not is_full({"free_bytes": 3 << 30, "total_bytes": 141 << 30})
    assert not is_full({"free_bytes": 0}) and not is_full({"total_bytes": 1})
    assert not is_full({"free_bytes": 9 << 30, "total_bytes": 10 << 30, "cap_bytes": 1 << 30})


def test_an_emulated_card_is_full_at_its_cap():
    assert is_full(ROOMY | {"cap_bytes": 40 << 30, "reserved_bytes": 40_500 << 20})
    assert not is_full(ROOMY | {"cap_bytes": 40 << 30, "reserved_bytes": 20 << 30})


@pytest.mark.parametrize(
    ("type", "message"),
    [
        ("MemoryError", ""),
        ("RuntimeError", "[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory: 12"),
        ("OSError", "[Errno 12] Cannot allocate memory"),
    ],
)
def test_host_memory(type, message):
    kind = "oom" if type == "MemoryError" else "exception"
    assert verdict(failed(0, message, type=type, kind=kind), running(1))[:2] == ("oom", "oom.host")


def test_a_kill_is_an_oom_only_by_the_kernels_word():
    assert verdict(running(0), running(1), exits={1: -9}, num_oom_kills=1, code=1)[:2] == ("oom", "oom.host")
    status, code, reason = verdict(running(0), running(1, "build"), exits={1: -9, 0: -15}, code=1)
    assert (status, code) == ("failed", "failed.signal")
    assert reason == "rank 1, in phase build, was killed by SIGKILL"


def test_how_much_was_free_is_said_where_it_is_known():
    oom = failed(0, "CUDA out of memory", kind="oom", memory={"free_bytes": 3 << 29, "total_bytes": 3 << 30})
    assert verdict(oom, running(1))[2] == (
        "rank 0, in phase measure, ran out of device memory (1.5 of 3.0 GiB were free)"
    )
    for memory in ({"free_bytes": 1}, {"total_bytes": 1}):
        unknown = failed(0, "CUDA out of memory", kind="oom", memory=memory)
        assert verdict(unknown, running(1))[2] == "rank 0, in phase measure, ran out of device memory"


def test_a_segmentation_fault_is_named():
    assert "SIGSEGV" in verdict(running(0), running(1), exits={0: -11}, code=1)[2]


def test_a_rank_and_an_agent_whose_cpu_time_is_over_say_so():
    for found in (verdict(running(0), running(1), exits={0: -24}, code=1), verdict(running(0), running(1), code=-24)):
        assert found[:2] == ("failed", "failed.cpu_time") and "SIGXCPU" in found[2] and "ulimit -t" in found[2]


def test_an_exit_without_a_word():
    tails = {"rank1.err": ["useful words", '  File "x.py", line 1']}
    status, code, reason = verdict(running(0), running(1), exits={1: 7}, tails=tails, code=1)
    assert (status, code) == ("failed", "failed.exit")
    assert reason == (
        "rank 1, in phase measure, exited with code 7 without reporting an error; its last words: useful words"
    )
    assert verdict(running(0), running(1), exits={1: 7})[2].endswith("without reporting an error")


def test_a_rank_that_could_not_write_its_file_had_no_room():
    assert verdict(running(0), running(1), exits={1: os.EX_IOERR})[:2] == ("failed", "failed.disk")


def test_an_exit_with_code_zero_before_the_end():
    assert verdict(running(0), running(1), code=0)[1] == "failed.exit"


def test_a_rank_that_left_quietly_is_the_cause_of_its_peers_loss():
    lost = failed(0, "Connection closed by peer")
    assert verdict(lost, running(1), exits={0: 1}, code=1)[2].startswith("rank 1, in phase measure, exited with code 0")
    stop = Stop(kind="stuck", gone=frozenset({1}))
    assert verdict(running(0), running(1), stop=stop, code=143)[1] == "failed.exit"


def test_a_number_that_is_not_finite():
    bad = failed(0, "the loss of step 3 is nan", kind="nonfinite", type="FloatingPointError")
    assert verdict(bad, running(1))[:2] == ("failed", "failed.nonfinite")


def test_a_refusal_by_the_worker_keeps_its_code_and_words():
    refused = failed(0, "fp8 needs sizes divisible by 16", kind="unsupported", code="runtime.fp8_shape")
    assert verdict(refused, running(1)) == ("unsupported", "runtime.fp8_shape", "fp8 needs sizes divisible by 16")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx", "missing.cxx"),
        ("fatal error: Python.h: No such file or directory", "missing.python_headers"),
        ("CUDA error: no kernel image is available for execution on the device", "runtime.no_kernel_image"),
    ],
)
def test_known_refusals_of_libraries(message, code):
    assert verdict(failed(0, message), running(1))[:2] == ("unsupported", code)


def test_a_status_file_that_cannot_be_read():
    status, code, reason = verdict(done(0), unreadable={1: "Expecting value: line 1"}, code=0)
    assert (status, code) == ("failed", "failed.garbage")
    assert reason == "rank 1 left a status file that cannot be read: Expecting value: line 1"


def test_nothing_at_all():
    tails = {"agent.log": ["ModuleNotFoundError: No module named 'torch'", "======"]}
    status, code, reason = verdict(tails=tails, code=1)
    assert (status, code) == ("failed", "failed.launch")
    ended = "the job ended with code 1 before any rank started"
    assert reason == f"{ended}; its last line: ModuleNotFoundError: No module named 'torch'"
    assert verdict()[2] == "the job ended before any rank started; its last line: no line was logged"
    log = [f"line {number}" for number in range(20)]
    outcome = judge(Evidence(world_size=2, tails={"agent.log": log}, directory="attempt-1"))
    assert outcome.evidence == {"rank": None, "file": "attempt-1/agent.log", "lines": log[-12:]}


def test_unknown_is_failed_and_never_oom():
    tails = {"agent.log": ["something about out of memory was logged"]}
    found = verdict(running(0), running(1), tails=tails, code=1)
    assert found[:2] == ("failed", "failed.unknown")
    assert found[2].startswith("the job ended with code 1 and no rank left a cause; its last line: something")


@pytest.mark.parametrize(
    ("message", "name"),
    [
        ("CUDA error: uncorrectable ECC error encountered", "device_lost"),
        ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", "device_unavailable"),
        ("The server socket has failed to listen on any local network address. port: 29500", "port_taken"),
        ("[Errno 116] Stale file handle: '/data/x'", "storage"),
        ("can't start new thread", "no_processes"),
    ],
)
def test_a_failure_of_the_machine_is_not_the_cells(message, name):
    outcome = judge(Evidence(world_size=2, ranks={0: failed(0, message), 1: running(1)}, exits={0: 1}, code=1))
    assert (outcome.status, outcome.reason_code) == ("failed", "failed.infrastructure")
    assert outcome.evidence["infrastructure"] == name and message[:20] in outcome.reason
    assert "which is not the cell's doing: rank 0" in outcome.reason
    assert outcome.evidence["rank"] == 0 and outcome.evidence["file"] == "rank0.err"


def test_infrastructure_is_read_where_the_cause_is():
    tails = {"agent.log": ["RendezvousTimeoutError"], "rank0.err": ["terminate: uncorrectable ECC error"]}
    assert verdict(tails=tails, code=1)[1] == "failed.infrastructure"
    assert verdict(running(0), running(1), exits={0: -6}, tails=tails, code=1)[1] == "failed.infrastructure"
    assert verdict(failed(0, "shapes differ"), running(1), tails=tails, code=1)[1] == "failed.exception"
    assert verdict(running(0), running(1), exits={1: 7}, tails=tails, code=1)[1] == "failed.exit"


def test_what_is_explained_is_not_excused():
    tails, stop = {"rank0.err": ["uncorrectable ECC error"]}, Stop(kind="timeout", limit_s=30)
    assert verdict(running(0), running(1), tails=tails, stop=stop)[1] == "timeout.measure"


def test_a_full_disk_is_named():
    full = failed(0, "[Errno 28] No space left on device: 'x'", type="OSError")
    assert verdict(full, running(1))[:2] == ("failed", "failed.disk")


# --- who did it


def test_a_rank_that_lost_its_peer_is_not_the_cause():
    lost = failed(0, "[gloo/transport/tcp/pair.cc:553] Connection closed by peer [127.0.0.1]:3512", at=1.0)
    assert root(lost, failed(1, "the real one", at=2.0), exits={0: 1, 1: 1}) == 1
    assert root(lost, running(1), exits={0: 1, 1: -9}) == 1
    assert root(lost, running(1), exits={0: 1, 1: 7}) == 1
    assert root(lost, unreadable={1: "no"}, code=1) == 1


def test_only_lost_peers_is_told_as_such():
    lost = [failed(rank, "Connection reset by peer") for rank in (0, 1)]
    assert verdict(*lost, exits={0: 1, 1: 1}) == (
        "failed",
        "failed.peer_loss",
        "rank 0, in phase measure, lost a peer, and no rank left a cause: Connection reset by peer",
    )


def test_what_an_error_left_is_evidence():
    frames = [f"frame {number}" for number in range(20)]
    out = [f"out {number}" for number in range(20)]
    memory = {"free_bytes": 1, "total_bytes": 2}
    error = failed(1, "boom", memory=memory, traceback="\n \n".join(frames))
    more = {"tails": {"rank1.out": out, "rank0.err": ["of another"]}, "exits": {1: 1}, "directory": "attempt-2"}
    evidence = judge(Evidence(world_size=3, ranks={1: error}, unreadable={0: "no"}, **more)).evidence
    ends = evidence.pop("ranks")
    expected = {"rank": 1, "file": "attempt-2/rank1.json", "lines": frames[-12:], "stdout": out[-12:], "memory": memory}
    assert evidence == expected
    assert [(end["rank"], end["state"], end["exit"], end["error"]) for end in ends] == [
        (0, "unreadable", None, None),
        (1, "error", 1, "RuntimeError"),
        (2, "absent", None, None),
    ]


def test_where_nothing_was_raised_the_log_of_the_rank_is_evidence():
    tails = {"rank1.err": ["some words"], "rank0.err": ["others"]}
    ranks = {0: running(0), 1: running(1)}
    evidence = judge(Evidence(world_size=2, ranks=ranks, tails=tails, exits={1: 7})).evidence
    assert (evidence["file"], evidence["lines"], evidence["memory"]) == ("rank1.err", ["some words"], None)


@pytest.mark.parametrize(
    "error",
    [
        {"code": None},
        {"message": "", "type": "MemoryError"},
        {"type": "a.b.Odd"},
        {"traceback": "Python.h: No such file"},
    ],
)
def test_what_is_said_of_an_error(error):
    said = {
        "code": ("failed", "failed.exception", "rank 0, in phase measure, raised RuntimeError: it broke"),
        "message": ("oom", "oom.host", "rank 0, in phase measure, ran out of host memory: MemoryError"),
        "type": ("failed", "failed.exception", "rank 0, in phase measure, raised Odd: it broke"),
        "traceback": (
            "unsupported",
            "missing.python_headers",
            "the compiler needs Python's headers (Python.h), and they are not installed",
        ),
    }
    assert verdict(failed(0, **error), running(1)) == said[next(iter(error))]


def test_a_refusal_without_a_code_has_one():
    assert verdict(failed(0, kind="unsupported"), running(1))[:2] == ("unsupported", "runtime.unnamed")


def test_the_first_of_two_errors_is_the_cause():
    assert root(failed(0, at=5.0), failed(1, at=4.0)) == 1


def test_ranks_that_torchrun_ended_say_nothing():
    more = {"exits": {0: 1, 1: -9}, "told_to_stop": frozenset({1})}
    assert root(failed(0), running(1), **more) == 0


def test_a_rank_that_was_told_to_stop_and_said_a_code_is_not_the_cause():
    assert root(running(0), running(1), exits={0: 7, 1: 1}, told_to_stop=frozenset({0})) == 1


def test_a_rank_that_reached_its_end_is_not_the_cause():
    assert root(done(0), running(1), code=0) == 1


def test_a_crash_is_no_ranks_answer_to_being_told_to_stop():
    more = {"exits": {0: 1, 1: -11}, "told_to_stop": frozenset({1})}
    assert root(failed(0, "Connection closed by peer"), running(1), **more) == 1


def test_an_abort_of_the_watchdog_is_collateral():
    tails = {"rank0.err": ["Watchdog caught collective operation timeout: WorkNCCL(SeqNum=3)"]}
    assert root(running(0), running(1), exits={0: -6, 1: 7}, tails=tails) == 1


def test_a_segmentation_fault_comes_before_the_error_that_it_causes():
    assert root(failed(0, "some wording nobody knows"), running(1), exits={0: 1, 1: -11}) == 1


# --- stopped by the runner

DUMP = [
    "Thread 0x00007f01 (most recent call first):",
    '  File "/lib/threading.py", line 1 in wait',
    "Current thread 0x00007f02 (most recent call first):",
    '  File "/src/faults.py", line 66 in _hang',
    '  File "/src/train.py", line 9 in run',
]
WAITING = [
    "Current thread 0x00007f03 (most recent call first):",
    '  File "/lib/torch/distributed/distributed_c10d.py", line 3 in all_reduce',
]
EXCHANGING = [
    "Current thread 0x00007f06 (most recent call first):",
    '  File "/src/benchrunner/worker/validity/exchange.py", line 3 in gather',
]


def test_a_timeout_names_the_phase_of_the_rank_furthest_behind():
    stop = Stop(kind="timeout", limit_s=30)
    status, code, reason = verdict(running(0, "compile"), running(1, "build"), stop=stop, code=-9)
    assert (status, code) == ("timeout", "timeout.build")
    assert reason == "stopped after 30 s (timeout_s) in phase build (rank 0 in compile, rank 1 in build)"


def test_a_timeout_names_the_limit_of_its_phase_and_the_steps_of_every_rank():
    stop = Stop(kind="timeout", limit_s=60, phase="measure")
    assert verdict(running(0), running(1), stop=stop, beats={0: 7, 1: 6}, code=-9)[2] == (
        "no progress for 60 s in phase measure (limits.measure_s) "
        "(rank 0 in measure after 7 steps, rank 1 in measure after 6 steps)"
    )


REDUCING = [
    "Current thread 0x00007f04 (most recent call first):",
    '  File "/lib/torch/autograd/graph.py", line 4 in _engine_run_backward',
]
SYNCHRONISING = [
    "Current thread 0x00007f05 (most recent call first):",
    '  File "/lib/torch/cuda/__init__.py", line 5 in synchronize',
]


@pytest.mark.parametrize("waiting", [WAITING, REDUCING, SYNCHRONISING, EXCHANGING])
def test_a_hang_is_told_from_waiting_for_it_by_the_stacks(waiting):
    tails = {"rank0.err": waiting, "rank1.err": DUMP}
    ranks = {0: running(0), 1: running(1)}
    evidence = Evidence(world_size=2, ranks=ranks, stop=Stop(kind="timeout", limit_s=30), tails=tails, code=-9)
    outcome = judge(evidence)
    assert outcome.evidence["rank"] == 1
    assert "_hang" in outcome.reason
    assert outcome.evidence["stacks"]["1"][0].endswith("in _hang")


def test_of_two_ranks_that_wait_the_one_with_fewer_steps_holds_the_other_up():
    tails, stop = {"rank0.err": WAITING, "rank1.err": WAITING}, Stop(kind="timeout", limit_s=30)
    ranks = {0: running(0), 1: running(1)}
    evidence = Evidence(world_size=2, ranks=ranks, stop=stop, tails=tails, beats={0: 7, 1: 6}, code=-9)
    assert judge(evidence).evidence["rank"] == 1


def test_before_any_rank_file_a_timeout_is_in_start():
    assert verdict(stop=Stop(kind="timeout", limit_s=1), code=-9)[1] == "timeout.start"


def test_an_interrupted_cell_is_skipped_unless_it_had_failed_already():
    stop = Stop(kind="interrupted")
    assert verdict(running(0), running(1), exits={0: -15, 1: -15}, stop=stop)[:2] == ("skipped", "skipped.interrupted")
    assert verdict(running(0), running(1, "build"), stop=stop)[2] == "interrupted while it ran, in phase build"
    assert verdict(running(0), failed(1), stop=stop)[1] == "failed.exception"


def test_a_cell_that_the_budget_ended_is_skipped():
    assert verdict(running(0), running(1, "build"), stop=Stop(kind="budget")) == (
        "skipped",
        "skipped.budget",
        "ended while it ran, in phase build, because the budget was over",
    )


def test_an_oom_whose_peers_hung_is_an_oom():
    oom = failed(1, "CUDA out of memory", kind="oom", type="torch.OutOfMemoryError")
    assert verdict(running(0), oom, stop=Stop(kind="stuck"), code=-9)[1] == "oom.device"


def test_stacks_are_read_from_the_main_thread():
    assert stack(DUMP)[0] == 'File "/src/faults.py", line 66 in _hang'
    assert stack(["nothing"]) == []


# --- validity


def test_a_failed_check_makes_the_cell_invalid():
    checks = {
        "shape": {"ok": True},
        "work": {"ok": None},
        "first_loss": {"ok": False, "expected": 11.19, "observed": 6},
    }
    status, code, reason = verdict(done(0, checks=checks), done(1), code=0)
    assert (status, code) == ("invalid", "validity.first_loss")
    assert reason == "check first_loss failed: expected 11.19, observed 6"
    evidence = Evidence(world_size=1, ranks={0: done(0, checks=checks)}, directory="attempt-1")
    told = {"rank": 0, "file": "attempt-1/rank0.json", "lines": [], "check": checks["first_loss"]}
    assert judge(evidence).evidence == told


# --- from files to the record


# --- the agent ---


LOST_PEER = "Connection closed by peer [127.0.0.1]:1"


@pytest.mark.parametrize("code", [-signal.SIGKILL, -signal.SIGTERM, 128 + signal.SIGTERM])
@pytest.mark.parametrize("ranks", [(), (running(0), running(1)), (running(0), failed(1, LOST_PEER))])
def test_an_agent_that_was_killed_is_named_and_no_innocent_rank(ranks, code):
    status, reason_code, reason = verdict(*ranks, code=code)
    assert (status, reason_code) == ("failed", "failed.agent")
    assert f"ended from outside by {signal.Signals(abs(code) % 128).name}" in reason


def test_how_the_ranks_stood_when_their_agent_went_is_evidence():
    log = [f"line {number}" for number in range(20)]
    ranks = {0: replace(running(0), phase_started_at=5.0), 1: running(1, "build")}
    more = {"code": -signal.SIGTERM, "beats": {0: 3}, "tails": {"agent.log": log}}
    for kills, code in ((0, -signal.SIGTERM), (1, -signal.SIGKILL)):
        evidence = Evidence(world_size=3, ranks=ranks, **more | {"code": code}, num_oom_kills=kills)
        stood = {"state": "running", "exit": None, "error": None}
        assert judge(evidence).evidence == {
            "rank": None,
            "file": "agent.log",
            "lines": log[-12:],
            "ranks": [
                stood | {"rank": 0, "phase": "measure", "phase_started_at": 5.0, "steps": 3},
                stood | {"rank": 1, "phase": "build", "phase_started_at": 0.0, "steps": 0},
                stood | {"rank": 2, "phase": "start", "phase_started_at": None, "steps": 0, "state": "absent"},
            ],
        }


@pytest.mark.parametrize(("code", "is_signal"), [(128, False), (129, True), (-1, True), (127, False)])
def test_a_code_beyond_128_is_a_signal(code, is_signal):
    expected = (
        "the agent of the job was ended from outside by SIGHUP" if is_signal else f"the job ended with code {code}"
    )
    assert verdict(running(0), running(1), code=code)[2].startswith(expected)


def test_an_agent_that_crashed_was_not_ended_from_outside():
    assert "the agent of the job crashed with SIGSEGV" in verdict(running(0), running(1), code=-signal.SIGSEGV)[2]


def test_an_agent_that_the_kernel_killed_for_memory():
    found = verdict(running(0), running(1), code=-signal.SIGKILL, num_oom_kills=1)
    assert found[:2] == ("oom", "oom.host") and "killed the agent" in found[2]
    assert verdict(running(0), running(1), code=-signal.SIGTERM, num_oom_kills=1)[1] == "failed.agent"


def test_a_rank_that_left_a_cause_comes_before_its_agent():
    assert verdict(running(0), failed(1, "boom"), code=-signal.SIGKILL)[1] == "failed.exception"


def test_an_agent_that_the_runner_killed_accuses_nobody():
    stop = Stop(kind="interrupted")
    assert verdict(running(0), running(1), code=-signal.SIGKILL, stop=stop)[1] == "skipped.interrupted"


@pytest.fixture
def paths(tmp_path):
    return AttemptPaths(tmp_path)


def test_what_another_launch_left_is_no_measurement(paths):
    for rank in range(2):
        write(paths, replace(done(rank), marker="another" if rank else "this"))
    evidence = gather(paths, 2, marker="this", code=0)
    assert not evidence.is_complete() and list(evidence.ranks) == [0]
    assert "rank1.json is of another launch" in judge(evidence).reason
    write(paths, replace(done(1), marker="this"))
    assert gather(paths, 2, marker="this", code=0).is_complete()
    assert not gather(paths, 2, code=0).is_complete()


def write(paths, status):
    paths.rank(status.rank).write_text(json.dumps(asdict(status)))


def test_evidence_is_read_from_files(paths):
    write(paths, failed(0, "boom"))
    paths.rank(1).write_bytes(b'{"rank": \xff\x00')
    paths.exits().write_text(json.dumps({"exits": [{"rank": 0, "code": 1}, {"rank": 1, "code": -signal.SIGTERM}]}))
    paths.agent_log.write_text("Sending process 100 closing signal SIGTERM\n")
    paths.err(0).write_bytes(b"\x1b[31mlast\x1b[0m words\n\n")
    evidence = gather(paths, 3, code=1)
    assert evidence.ranks[0].error["message"] == "boom"
    assert list(evidence.unreadable) == [1]
    assert list(evidence.exits.items()) == [(0, 1), (1, -15)]
    assert evidence.told_to_stop == {0}
    assert evidence.tail(0) == ["last words"]
    assert evidence.phase(2) == "start"


@pytest.mark.parametrize("text", ["[]", "null", '{"rank": 1}', '{"rank": 1, "pid": 2, "phase": "lunch"}', ""])
def test_a_file_that_is_no_rank_file_is_unreadable(paths, text):
    paths.rank(0).write_text(text)
    assert list(gather(paths, 1).unreadable) == [0]


def test_an_empty_directory_is_evidence_too(paths):
    assert judge(gather(paths, 2, code=1)).reason_code == "failed.launch"


def test_the_record_of_a_failure_has_reason_evidence_and_command(paths):
    write(paths, failed(1, "boom", traceback="Traceback:\n  line\nRuntimeError: boom"))
    evidence = gather(paths, 2, code=1)
    planned = plan_cell(make_cell(strategy="ddp", leaves={"seq_len": 64}), flags=["memory_tight"])
    record = make_record(planned, judge(evidence), evidence, Attempt(number=2, fault="exception@1", wall_s=3.0))
    assert record.evidence["file"] == f"{paths.root.name}/rank1.json"
    assert record.evidence["lines"][-1] == "RuntimeError: boom"
    assert record.command.startswith("BENCH_FAULT=exception@1 bench model=debug ") and "seq_len=64" in record.command
    assert (record.attempt, record.fault, record.flags) == (2, "exception@1", ["memory_tight"])
    assert record.metrics == {} and record.ranks[0]["error"]["message"] == "boom"
    json.dumps(asdict(record), allow_nan=False)


RESULT = {
    "step_times_s": [0.1, 0.1], "tokens_per_step": 10, "num_parameters": 5, "num_trainable_parameters": 5,
    "losses": [2.0, 1.0], "flags": ["odd"], "checks": {"shape": {"ok": True, "expected": 5, "observed": 5}},
}  # fmt: skip


def test_the_record_of_a_success_has_the_headline(paths):
    for rank in range(2):
        write(paths, done(rank, **RESULT))
    evidence = gather(paths, 2, code=0)
    record = make_record(plan_cell(make_cell(strategy="ddp")), judge(evidence), evidence, Attempt(number=1))
    assert record.status == "ok"
    assert record.metrics["step_time_median_s"] == 0.1
    assert record.num_parameters == 5 and record.flags[0] == "odd" and record.checks["shape"]["ok"]
    assert [rank["rank"] for rank in record.ranks] == [0, 1]


# --- a death in `check`


def checking(rank, checks=None, error=None, **result):
    result |= {} if checks is None else {"checks": checks}
    state = "error" if error else "running"
    return RankFile(rank=rank, pid=100 + rank, phase="check", state=state, result=result, error=error)


BROKEN = {"kind": "exception", "code": None, "type": "RuntimeError", "message": "a probe broke", "at": 1.0}


@pytest.mark.parametrize(
    ("ranks", "more", "said"),
    [
        ((checking(0), checking(1, error=BROKEN)), {"exits": {1: 1}}, "raised RuntimeError: a probe broke"),
        ((checking(0), checking(1)), {"exits": {1: -9}}, "was killed by SIGKILL"),
        ((checking(0), checking(1)), {"stop": Stop(kind="timeout", limit_s=180, phase="check")}, "no progress for 180"),
        ((done(0), checking(1, error=BROKEN | {"kind": "oom"})), {}, "ran out of device memory"),
    ],
)
def test_a_death_in_a_check_leaves_the_numbers(ranks, more, said):
    status, code, reason = verdict(*ranks, **more)
    assert (status, code) == ("ok", None)
    outcome = judge(Evidence(world_size=2, ranks={status.rank: status for status in ranks}, **more))
    assert outcome.evidence["ranks"][1]["phase"] == "check"
    assert reason.startswith("measured, but not checked to the end: ") and said in reason


def test_what_a_check_had_found_before_the_death_stands():
    wrong = {"shape": {"ok": False, "expected": "5 parameters", "observed": "4"}}
    assert verdict(checking(0, wrong), checking(1), exits={1: -9})[:2] == ("invalid", "validity.shape")


def test_a_death_before_every_rank_had_its_result_is_a_death():
    without = RankFile(rank=0, pid=1, phase="check")
    assert verdict(without, checking(1), exits={0: -9})[:2] == ("failed", "failed.signal")
    assert verdict(checking(0), running(1), exits={1: -9})[:2] == ("failed", "failed.signal")


def test_a_number_that_is_not_finite_is_a_finding_of_the_check():
    error = BROKEN | {"kind": "nonfinite", "message": "the logits are not finite"}
    assert verdict(checking(0), checking(1, error=error))[:2] == ("failed", "failed.nonfinite")


@pytest.mark.parametrize("kind", ["interrupted", "budget"])
def test_a_check_that_is_interrupted_is_to_be_run_again(kind):
    assert verdict(checking(0), checking(1), stop=Stop(kind=kind))[0] == "skipped"


def test_a_death_in_teardown_is_a_death():
    ranks = [RankFile(rank=rank, pid=1, phase="teardown", result={}) for rank in range(2)]
    assert verdict(*ranks, exits={1: -9})[:2] == ("failed", "failed.signal")


def test_a_record_names_the_checks_that_did_not_decide(paths):
    names = ("shape", "first_loss", "precision", "formats", "work", "data", "trains", "function", "optimizer")
    said = {name: {"ok": True} for name in names}
    measured = {key: value for key, value in RESULT.items() if key != "checks"}
    write(paths, checking(0, said | {"recompute": {"ok": True}}, **measured))
    write(paths, checking(1, said | {"work": {"ok": None}}, **measured))
    evidence = gather(paths, 2, code=1)
    record = make_record(plan_cell(make_cell(strategy="ddp")), judge(evidence), evidence, Attempt(number=1))
    assert record.status == "ok" and record.metrics["step_time_median_s"] == 0.1
    silent = ("work", "recompute", "gradients_reduced", "steps", "labels")
    unverified = {f"unverified:{name}" for name in silent}
    assert set(record.flags) == {"odd"} | unverified
    assert (record.num_checks_decided, record.num_checks) == (8, 10)


def test_the_numbers_of_half_a_world_are_no_result(paths):
    write(paths, done(0, **RESULT))
    write(paths, failed(1))
    evidence = gather(paths, 2, code=1)
    record = make_record(plan_cell(make_cell(strategy="ddp")), judge(evidence), evidence, Attempt(number=1))
    assert record.status == "failed" and record.metrics == {}


def test_the_last_meaningful_line():
    assert last_meaningful_line(["words", "-------", "W1121 04:07 torch] x", "Traceback (most recent"]) == "words"
    assert last_meaningful_line([]) is None


def test_no_word_that_verdicts_are_read_from_is_ever_hidden_as_the_hosts_name():
    told = [signatures.HOST_OOM.pattern, signatures.DISGUISED_OOM.pattern, signatures.NO_SPACE.pattern]
    told += [PEER_LOSS.pattern, *(entry[0] for entry in (*signatures.REFUSALS, *signatures.INFRASTRUCTURE))]
    told += ["Sending process closing signal"]
    letters = re.sub(r"\\.|\?P<\w+>|_", " ", " ".join(told))
    assert {word.lower() for word in re.findall(r"[A-Za-z]{5,}", letters)} <= VOCABULARY
