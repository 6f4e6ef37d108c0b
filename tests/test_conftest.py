"""What is skipped where something is missing, and what then fails."""

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def conftest(request: pytest.FixtureRequest) -> ModuleType:
    """The loaded `tests/conftest.py`."""
    plugins: Any = request.config.pluginmanager.get_plugins()
    paths = {getattr(plugin, "__file__", None): plugin for plugin in plugins}
    return paths[str(ROOT / "tests/conftest.py")]


class Item:
    """A test with markers."""

    def __init__(self, *marks: pytest.MarkDecorator) -> None:
        self.marks = [decorator.mark for decorator in marks]

    def iter_markers(self, name: str) -> list[pytest.Mark]:
        return [mark for mark in self.marks if mark.name == name]

    def get_closest_marker(self, name: str) -> pytest.Mark | None:
        return next(iter(self.iter_markers(name)), None)


@pytest.mark.parametrize("required", [False, True])
def test_a_data_test_without_its_data_is_skipped_or_fails(
    conftest, monkeypatch, tmp_path, required
):
    """It fails where data are required; only what the list of absentees names is then skipped."""
    monkeypatch.setenv("TLRESEARCH_DATA", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("TLRESEARCH_REQUIRE_DATA", "1" if required else "")
    missing = pytest.fail.Exception if required else pytest.skip.Exception
    with pytest.raises(missing, match=f"data set mnist is not in {tmp_path}"):
        conftest.pytest_runtest_setup(Item(pytest.mark.needs_data("mnist")))
    monkeypatch.setattr(conftest, "MAY_BE_ABSENT", {"usps": "a reason"})
    with pytest.raises(pytest.skip.Exception, match="data set usps is not in"):
        conftest.pytest_runtest_setup(Item(pytest.mark.needs_data("usps")))
    conftest.pytest_runtest_setup(Item(pytest.mark.needs_data("optdigits")))


def test_without_a_data_root_the_reason_says_so(conftest, monkeypatch, tmp_path):
    """The variable is named."""
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "TLRESEARCH_DATA is not set" in conftest.why_absent("usps")
    assert conftest.why_absent("optdigits") is None


@pytest.mark.parametrize(("stand_in", "cuda"), [(None, False), (None, True), ("cpu", False)])
def test_a_gpu_test_is_skipped_without_a_gpu(conftest, monkeypatch, stand_in, cuda):
    """Unless a device that stands in for it was named."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: cuda)
    monkeypatch.setattr(conftest, "GPU_STAND_IN", stand_in)
    if stand_in or cuda:
        conftest.pytest_runtest_setup(Item(pytest.mark.gpu))
    else:
        with pytest.raises(pytest.skip.Exception, match="torch sees no CUDA device"):
            conftest.pytest_runtest_setup(Item(pytest.mark.gpu))


def test_the_list_of_absentees_gives_reasons(conftest):
    """One short list; each name is a data set or a domain."""
    from tlresearch.data.catalogue import DATASETS
    from tlresearch.data.domain_tables import DOMAINS

    assert set(conftest.MAY_BE_ABSENT) <= {*DATASETS, *DOMAINS}
    assert all(conftest.MAY_BE_ABSENT.values())


def test_tests_skip_for_data_or_devices_by_their_marker_only():
    """A `skipif` on the data root or on CUDA would pass by `TLRESEARCH_REQUIRE_DATA`."""
    own = {Path(__file__), ROOT / "tests/conftest.py"}
    for path in sorted({*ROOT.glob("tests/**/*.py")} - own):
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            if "skipif(" in line or "pytest.skip(" in line:
                words = [w for w in ("DATA", "data", "cuda", "CUDA") if w in line]
                assert not words, f"{path}:{number}: use the marker needs_data or gpu"
