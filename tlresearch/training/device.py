"""Where and in which precision a run computes."""

import ctypes
import os
import platform
from contextlib import AbstractContextManager, nullcontext

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


def pin_threads() -> None:
    """Binds OpenMP's threads to cores, unless the user said otherwise. Before torch is imported.

    Runs on a two-core machine were seen at the speed of one thread, less often when bound; why is
    not established.
    """
    os.environ.setdefault("OMP_PROC_BIND", "true")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context in which a loss is computed: bfloat16 autocast for `bf16-mixed`."""
    if precision == "bf16-mixed":
        return torch.autocast(device.type, dtype=torch.bfloat16)
    return nullcontext()


def dtype_of(precision: str) -> torch.dtype:
    """Of weights and inputs: float64 for `fp64`, else float32."""
    return torch.float64 if precision == "fp64" else torch.float32
