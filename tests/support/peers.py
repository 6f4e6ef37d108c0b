"""Libraries that ours is held to: a test without its peer is skipped, but never in `.ci/run`."""

import importlib
import os
from typing import Any

import pytest


def peer(name: str) -> Any:
    """The library; where it is absent the test is skipped, or fails if peers are required."""
    if os.environ.get("TLRESEARCH_REQUIRE_PEERS"):
        return importlib.import_module(name)
    return pytest.importorskip(name)
