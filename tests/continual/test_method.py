"""How a task's Fisher is asked for: what contradicts itself, and what is normalised."""

import pytest
import torch
from torch import nn

from tlresearch.continual.method import FisherSettings, _normalized


@pytest.mark.parametrize(("batch", "refused"), [(1, False), (2, True), (64, True)])
def test_an_expectation_over_labels_is_taken_per_sample(batch, refused):
    """`exact` with batches of two or more is refused; labels that are drawn may have any."""
    problem = FisherSettings(batch=batch).problem()
    assert (problem is not None and problem.startswith("fisher.batch")) == refused
    assert FisherSettings("sample", batch=batch).problem() is None


def test_a_normalised_fisher_has_the_mean_1_over_all_parameters():
    """Over all tensors together, not each by itself."""
    sizes = nn.Linear(3, 4).named_parameters()
    fisher = {k: torch.rand(p.shape, dtype=torch.float64) for k, p in sizes}
    fisher["bias"] *= 100
    ours = _normalized(fisher)
    assert torch.cat([f.flatten() for f in ours.values()]).mean().item() == pytest.approx(1)
    for name, value in fisher.items():
        ratio = ours[name] / value
        torch.testing.assert_close(ratio, ratio.flatten()[0].expand(ratio.shape))


def test_a_fisher_of_zeros_stays_one():
    """No 0 / 0, whose penalty would be NaN."""
    ours = _normalized({"weight": torch.zeros(2, 3), "bias": torch.zeros(2)})
    assert all(f.eq(0).all() for f in ours.values())
