"""Where and in which precision a run computes."""

import ctypes
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch

from tlresearch.errors import UserError

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h of glibc


def choose_device(name: str = "auto") -> torch.device:
    """`auto` is CUDA where there is one, else the CPU.

    Raises:
        UserError: a device that this machine lacks, or no device's name.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device: {name!r} is no device; expected auto, cpu or cuda") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"--device: {name!r} is not supported; expected auto, cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(
            f"--device: {name!r} asked for, but torch sees no CUDA device; use cpu or auto"
        )
    return device


def prepare_process(threads: int | None = None) -> None:
    """Settings of this process that make training steps faster; called by the command only.

    glibc gives large freed blocks back to the system and takes them anew at each step; the page
    faults took half of a stack's step (a bare loop, 784-100-10, S = 20: 6.1 ms with, 3.1 ms
    without).
    Denormal numbers, which Adam's moments of dead pixels decay to, are flushed to zero.
    """
    torch.set_flush_denormal(True)
    if threads is not None:
        torch.set_num_threads(threads)
    if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in (
            (_M_MMAP_THRESHOLD, 1 << 30),
            (_M_TRIM_THRESHOLD, 1 << 30),
            (_M_TOP_PAD, 1 << 26),
        ):
            libc.mallopt(option, value)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed: autocast for `bf16-mixed` and `fp16-mixed`."""
    kinds = {"bf16-mixed": torch.bfloat16, "fp16-mixed": torch.float16}
    if precision in kinds:
        return torch.autocast(device.type, dtype=kinds[precision])
    return nullcontext()


@contextmanager
def tf32(allowed: bool) -> Iterator[None]:
    """Within: whether CUDA's float32 products may use TensorFloat-32; restored after.

    torch itself allows it for convolutions and not for matrix products; here it is both or none,
    as the experiment says.
    """
    backends: tuple[Any, ...] = (torch.backends.cuda.matmul, torch.backends.cudnn)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = allowed
    try:
        yield
    finally:
        for backend, value in zip(backends, before, strict=True):
            backend.allow_tf32 = value


def peak_memory(device: torch.device) -> int:
    """Most memory used so far, in bytes: by torch on a GPU, by this whole process on the CPU.

    0 where the system does not tell.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


def dtype_of(precision: str) -> torch.dtype:
    """Of weights and inputs: float64 for `fp64`, else float32."""
    return torch.float64 if precision == "fp64" else torch.float32
