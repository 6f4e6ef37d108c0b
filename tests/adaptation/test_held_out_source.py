"""Through the protocol: source samples are predicted with the source's norms, target ones not."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

from tlresearch.adaptation.adabn import AdaBN
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.norms import DomainNorm
from tlresearch.adaptation.protocol import StackRun, run_stack
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.backbones.mlp import MLP
from tlresearch.training.observer import RunFiles
from tlresearch.training.settings import Train

BENCHMARK = AdaptationSettings(
    "mnist5k", "optdigits", size=8, source_samples=40, target_samples=30, validation=0.25
)
SEEN: list[tuple[str, int]] = []


class Noted:
    """Notes the domain whose norms predict, and for how many samples."""

    def predict(self, networks: Any, state: Any, x: torch.Tensor, context: Any) -> torch.Tensor:
        norm = next(m for m in networks.modules() if isinstance(m, DomainNorm))
        SEEN.append((norm.domain, len(x)))
        return super().predict(networks, state, x, context)  # type: ignore[misc]


@dataclass(frozen=True)
class NotedDANN(Noted, DANN):
    """DANN with norms of each domain."""


@dataclass(frozen=True)
class NotedAdaBN(Noted, AdaBN):
    """AdaBN."""


@pytest.mark.parametrize(
    "method",
    [NotedDANN(discriminator=(), batch_norm="domain_specific"), NotedAdaBN()],
    ids=["dann", "adabn"],
)
@pytest.mark.parametrize("checkpoint", ["last", "selected"])
def test_each_domain_is_predicted_with_its_own_norms(method, checkpoint, tmp_path):
    """10 held-out samples of the source, at each evaluation and at the end; the target's others.

    Its 1000 test samples, for the report, are of the source too.
    """
    train = Train(steps=2, batch_size=8, checkpoint=checkpoint)
    if checkpoint == "selected":
        train = replace(train, evaluate_every=1)
    backbone = MLP(hidden=(6,), norm="batch")
    run = StackRun(BENCHMARK, backbone, method, train, [0], {})
    SEEN.clear()
    (outcome,) = run_stack(run, torch.device("cpu"), RunFiles(tmp_path / "c", tmp_path / "log"))
    assert outcome.status == "finished"
    of_source = [count for domain, count in SEEN if domain == "source"]
    assert set(of_source) == {10, 1000}
    assert of_source.count(10) == (3 if checkpoint == "selected" else 1)
    of_target = [count for domain, count in SEEN if domain == "target"]
    assert of_target and not {10, 1000} & set(of_target)
