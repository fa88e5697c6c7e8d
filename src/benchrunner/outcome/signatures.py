"""Texts by which libraries say what happened: the patterns that verdicts are read from."""

import re
from collections.abc import Sequence

from benchrunner.core.rank_result import MemoryAtDeath

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

INFRASTRUCTURE: tuple[tuple[str, str, str], ...] = (
    (
        r"uncorrectable ECC|fallen off the bus|GPU is lost|NVLink[^\n]{0,60}error detected"
        r"|CUDA_ERROR_(?:ECC_UNCORRECTABLE|NVLINK_UNCORRECTABLE|HARDWARE_STACK_ERROR)"
        r"|Unable to determine the device handle",
        "device_lost",
        "a device failed",
    ),
    (
        r"CUDA-capable device\(s\) is/are busy or unavailable|CUDA error: system not yet initialized"
        r"|CUDA_ERROR_(?:DEVICE_UNAVAILABLE|SYSTEM_NOT_READY)|Driver/library version mismatch"
        r"|Failed to initialize NVML",
        "device_unavailable",
        "a device or its driver was not available",
    ),
    (
        r"EADDRINUSE|address already in use|failed to listen on any local network address",
        "port_taken",
        "a port was taken",
    ),
    (
        r"Rendezvous(?:Connection|Timeout)Error|The client socket has (?:failed to connect|timed out)",
        "rendezvous",
        "the ranks did not find each other",
    ),
    (
        r"BlockingIOError: \[Errno 11\]|\[Errno 11\] Resource temporarily unavailable|can't start new thread",
        "no_processes",
        "the host could start no more processes",
    ),
    (
        r"Stale file handle|\[Errno 5\] Input/output error|Transport endpoint is not connected|Remote I/O error",
        "storage",
        "a file system failed",
    ),
    (
        r"NET/IB ?: ?Got completion (?:from peer .{0,80})?with (?:error|status)|ibv_\w+ failed",
        "network",
        "the network between the nodes failed",
    ),
)
"""(pattern, name, sentence) of failures that say nothing about the cell and may not happen again: the only ones that
are tried again. The texts are those of the CUDA runtime and driver API (cudaGetErrorString, Xid), of torch's TCPStore
and elastic rendezvous, of errno, and of NCCL's InfiniBand transport."""

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded", re.IGNORECASE)
"""A full disk, or shared memory that is too small."""

NOISE = re.compile(r"^\s*(?:[=\-~^*]{3,}|W\d{4}|I\d{4}|File \"|\^|Traceback|warnings?\.warn|.*Warning:)")


def disguised_oom(text: str, memory: MemoryAtDeath) -> str | None:
    """The library whose failure is a lack of memory, as the device was full when it happened; else None."""
    found = DISGUISED_OOM.search(text)
    return _library(found) if found and is_full(memory) else None


def _library(found: re.Match[str]) -> str:
    name = (found["library"] or ("NCCL" if found["nccl"] else "cuDNN")).upper()
    return {"CUBLAS": "cuBLAS", "CUDNN": "cuDNN", "CUSOLVER": "cuSOLVER", "CUSPARSE": "cuSPARSE"}.get(name, name)


def is_full(memory: MemoryAtDeath) -> bool:
    """Whether a device was nearly full: by what the driver had free, or by the cap of an emulated card."""
    free, total, cap = memory.get("free_bytes"), memory.get("total_bytes"), memory.get("cap_bytes")
    if free is None or not total:
        return False
    if cap is not None:
        free, total = min(free, cap - (memory.get("reserved_bytes") or 0)), cap
    return bool(free < max(FULL_BYTES, FULL_SHARE * total))


def refusal(text: str) -> tuple[str, str] | None:
    """(reason code, sentence) of a library's known refusal, else None."""
    return next(((code, sentence) for pattern, code, sentence in REFUSALS if re.search(pattern, text)), None)


def infrastructure(text: str) -> tuple[str, str] | None:
    """(name, sentence) of a failure that is not the cell's own, else None."""
    found = ((name, told) for pattern, name, told in INFRASTRUCTURE if re.search(pattern, text, re.IGNORECASE))
    return next(found, None)


def last_meaningful_line(lines: Sequence[str]) -> str | None:
    """The last line that is neither a rule, a log prefix, a warning nor a stack frame."""
    return next((line for line in reversed(lines) if not NOISE.match(line)), None)
