"""One thread per process, and shapes checked: set before anything imports torch or tlresearch."""

import os

# Workers share few cores. Processes that a test starts inherit this too.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from collections.abc import Callable, Iterator

import jaxtyping
import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

CHECKED = ["tlresearch.functional", "tlresearch.backbones", "tlresearch.data"]
jaxtyping.install_import_hook(CHECKED, "beartype.beartype")

# The same examples in every run: a red test stays red until its cause is gone.
settings.register_profile("tlresearch", deadline=None, derandomize=True)
settings.load_profile("tlresearch")


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
