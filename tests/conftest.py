"""One thread per process, and shapes checked: set before anything imports torch or tlresearch.

And what a test may ask for that not every machine has: `needs_data`, `gpu`.
"""

import os
from pathlib import Path

# Workers share few cores. Processes that a test starts inherit this too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

CHECKED = [
    *("tlresearch.functional", "tlresearch.backbones", "tlresearch.data", "tlresearch.fewshot"),
    *("tlresearch.adaptation", "tlresearch.distillation"),
]
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

# The same examples in every run: a red test stays red until its cause is gone.
settings.register_profile("tlresearch", deadline=None, derandomize=True)
settings.load_profile("tlresearch")

MAY_BE_ABSENT = {
    "fashion_mnist": "the shared data root does not have it",
}
"""The only data sets whose tests may be skipped where TLRESEARCH_REQUIRE_DATA is set, and why."""

GPU_STAND_IN = os.environ.get("TLRESEARCH_GPU_TEST_DEVICE")
"""`cpu` runs the code of the GPU tests where there is no GPU; it says nothing about one."""


def pytest_configure(config: pytest.Config) -> None:
    """The markers of this file."""
    for line in (
        "needs_data(name): reads a data set that is not embedded; without it the test is skipped, "
        "or fails where TLRESEARCH_REQUIRE_DATA is set, as .ci/run does beside a data root",
        "gpu: needs a CUDA device (make test-gpu)",
    ):
        config.addinivalue_line("markers", line)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what this machine cannot do, with the reason."""
    if item.get_closest_marker("gpu") and not (torch.cuda.is_available() or GPU_STAND_IN):
        pytest.skip("torch sees no CUDA device")
    for marker in item.iter_markers("needs_data"):
        (name,) = marker.args
        reason = why_absent(name)
        if reason and os.environ.get("TLRESEARCH_REQUIRE_DATA") and name not in MAY_BE_ABSENT:
            pytest.fail(f"TLRESEARCH_REQUIRE_DATA is set, but {reason}", pytrace=False)
        if reason:
            pytest.skip(reason)


def why_absent(name: str) -> str | None:
    """Why a data set cannot be read without a download; None where it can."""
    from tlresearch.data.domain_tables import locate  # after the shape checks are installed

    root = os.environ.get("TLRESEARCH_DATA")
    if locate(name, Path(root) if root else None):
        return None
    where = f"not in {root}" if root else "not installed, and TLRESEARCH_DATA is not set"
    return f"the data set {name} is {where}"


@pytest.fixture
def gpu() -> torch.device:
    """The device of a test marked `gpu`."""
    return torch.device(GPU_STAND_IN or "cuda")


@pytest.fixture
def without_shape_checks(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests of `torch.compile(fullgraph=True)`, which cannot trace through beartype."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def limit_file_size() -> Iterator[Callable[[int | None], None]]:
    """Sets the largest file, in bytes, that this process may write; None: any. A full disk."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit(size: int | None) -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft if size is None else size, hard))

    yield limit
    limit(None)
