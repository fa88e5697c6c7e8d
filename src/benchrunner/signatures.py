"""Texts by which libraries say what happened: the patterns that verdicts are read from."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

PEER_LOSS = re.compile(
    r"connection closed by peer|connection reset by peer|broken pipe|socket (?:timeout|closed)|connect(?:ion)? refused"
    r"|remote process exited|ncclRemoteError|ncclSystemError|NCCL communicator was aborted|watchdog"
    r"|timed? ?out waiting|collective operation timeout|application timeout|wait timeout|peer (?:closed|failure)"
    r"|failed to recv|recvValue failed|store.{0,40}timeout|heartbeat"
    r"|connectFullMesh failed|rendezvous.{0,40}(?:closed|timeout)",
    re.IGNORECASE,
)
"""What a rank says that only lost its peer, or waited for one in vain."""

HOST_OOM = re.compile(
    r"DefaultCPUAllocator: (?:can't allocate|not enough) memory|\[Errno 12\]|Cannot allocate memory"
    r"|std::bad_alloc",
    re.IGNORECASE,
)

DISGUISED_OOM = re.compile(
    r"(?P<library>CUBLAS|CUDNN|NCCL|CUSOLVER|CUSPARSE|CUFFT)(?:_STATUS)?_(?:ALLOC_FAILED|NOT_INITIALIZED|INTERNAL_ERROR"
    r"|EXECUTION_FAILED)|(?P<nccl>ncclUnhandledCudaError|NCCL.{0,200}unhandled cuda error)"
    r"|(?P<cudnn>cuDNN.{0,80}(?:no valid (?:execution plan|engine)|unable to find an engine))",
    re.IGNORECASE | re.DOTALL,
)
"""Failures of the CUDA libraries that are, on a full device, nothing but a lack of memory."""

FULL_BYTES = 1 << 30
FULL_SHARE = 0.02
"""A device is full with less than the larger of these left."""

REFUSALS: tuple[tuple[str, str, str], ...] = (
    (
        r"No working C\+\+ compiler found|InvalidCxxCompiler|Failed to find C compiler|Failed to find C\+\+ compiler",
        "missing.cxx",
        "Inductor needs a C++ compiler, and none was found",
    ),
    (
        r"Python\.h: No such file",
        "missing.python_headers",
        "the compiler needs Python's headers (Python.h), and they are not installed",
    ),
    (
        r"no kernel image is available for execution on the device",
        "runtime.no_kernel_image",
        "a library was built without kernels for this device",
    ),
    (
        r"Torch not compiled with CUDA enabled",
        "runtime.no_cuda",
        "the installed torch is a build without CUDA",
    ),
    (
        r"Cannot find a working triton installation|TritonMissing",
        "missing.triton",
        "Inductor on a GPU needs Triton, and it is not installed or not working",
    ),
    (
        r"not implemented for '(?:Float8|BFloat16|Half)|addmm_impl_cpu_. not implemented",
        "runtime.dtype_not_implemented",
        "an operation is not implemented for this number format on this device",
    ),
    (
        r"No available kernel\. Aborting execution",
        "runtime.attention_kernel",
        "the attention kernel that was asked for cannot serve these shapes and number formats",
    ),
)
"""(pattern, reason code, sentence) of known refusals; more belong here as they are met."""

NOISE = re.compile(r"^\s*(?:[=\-~^*]{3,}|W\d{4}|I\d{4}|File \"|\^|Traceback|warnings?\.warn|.*Warning:)")


def is_peer_loss(text: str) -> bool:
    """Whether the text is that of a rank that lost its peer."""
    return bool(PEER_LOSS.search(text))


def disguised_oom(text: str, memory: Mapping[str, Any]) -> str | None:
    """The library whose failure is a lack of memory, as the device was full when it happened; else null."""
    found = DISGUISED_OOM.search(text)
    return _library(found) if found and is_full(memory) else None


def _library(found: re.Match[str]) -> str:
    name = (found["library"] or ("NCCL" if found["nccl"] else "cuDNN")).upper()
    return {"CUBLAS": "cuBLAS", "CUDNN": "cuDNN", "CUSOLVER": "cuSOLVER", "CUSPARSE": "cuSPARSE"}.get(name, name)


def is_full(memory: Mapping[str, Any]) -> bool:
    """Whether a device was nearly full: by what the driver had free, or by the cap of an emulated card."""
    free, total, cap = (memory.get(key) for key in ("free_bytes", "total_bytes", "cap_bytes"))
    if free is None or not total:
        return False
    if cap is not None:
        free, total = min(free, cap - (memory.get("reserved_bytes") or 0)), cap
    return bool(free < max(FULL_BYTES, FULL_SHARE * total))


def refusal(text: str) -> tuple[str, str] | None:
    """(reason code, sentence) of a library's known refusal, else null."""
    return next(((code, sentence) for pattern, code, sentence in REFUSALS if re.search(pattern, text)), None)


def last_meaningful_line(lines: Sequence[str]) -> str | None:
    """The last line that is neither a rule, a log prefix, a warning nor a stack frame."""
    return next((line for line in reversed(lines) if not NOISE.match(line)), None)
