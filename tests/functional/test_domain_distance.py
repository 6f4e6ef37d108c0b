"""Domain classifier and A-distance: closed forms, and what is held out."""

import pytest
import torch

from tlresearch.functional import random
from tlresearch.functional.domain_distance import (
    domain_classifier,
    held_out_a_distance,
    proxy_a_distance,
)

KEY = random.make_key(0, "test")


def normal(count: int, dims: int, shift: float = 0.0, seed: int = 0) -> torch.Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, dims, dtype=torch.float64, generator=rng) + shift


def test_proxy_a_distance_by_hand():
    """2 (1 − 2ε): 0 at chance, 1 at a quarter, 2 without error."""
    assert [proxy_a_distance(error) for error in (0.5, 0.25, 0.0)] == [0.0, 1.0, 2.0]


def test_the_classifier_gives_the_probability_of_the_source():
    """N(1, 1) and N(−1, 1), one to one: P(source | z) = σ(2z); three to one: σ(2z + log 3)."""
    source, target = normal(9000, 1, 1.0), normal(9000, 1, -1.0, seed=1)
    z = torch.tensor([[-1.0], [0.0], [0.5]], dtype=torch.float64)
    ours = domain_classifier(source, target)(z)
    torch.testing.assert_close(ours, (2 * z[:, 0]).sigmoid(), atol=0.02, rtol=0)
    ours = domain_classifier(source, target[:3000])(z)
    expected = (2 * z[:, 0] + torch.tensor(3.0).log()).sigmoid()
    torch.testing.assert_close(ours, expected, atol=0.02, rtol=0)


def test_the_classifier_does_not_depend_on_units():
    """A feature in other units, and one that never varies, change nothing."""
    source, target = normal(50, 2, 0.5), normal(40, 2, seed=1)
    whole = domain_classifier(source, target)(source)
    scale = torch.tensor([1e3, 1e-3])

    def other(z: torch.Tensor) -> torch.Tensor:
        return torch.cat([z * scale + 7, torch.full((len(z), 1), 3.0)], 1)

    turned = domain_classifier(other(source), other(target))(other(source))
    torch.testing.assert_close(turned, whole, atol=1e-4, rtol=0)


def test_separable_domains_are_two_apart_and_equal_ones_none():
    assert held_out_a_distance(normal(60, 3, 9.0), normal(40, 3, -9.0, seed=1), KEY) == 2.0
    same = held_out_a_distance(normal(2000, 3), normal(2000, 3, seed=1), KEY)
    assert abs(same) < 0.2


def test_the_distance_is_of_samples_that_were_not_trained_on():
    """Of 20 + 20 samples of pure noise in 300 dimensions all can be learned by heart."""
    distances = [
        held_out_a_distance(normal(20, 300, seed=2 * i), normal(20, 300, seed=2 * i + 1), KEY)
        for i in range(5)
    ]
    assert sum(distances) / 5 < 0.8


def test_the_larger_domain_has_no_more_weight():
    """Else 'always source' would err on few: by chance the distance is 0 for any sizes."""
    distance = held_out_a_distance(normal(3000, 2), normal(300, 2, seed=1), KEY)
    assert abs(distance) < 0.45


@pytest.mark.parametrize("shift", [1.0, 2.0])
def test_the_distance_of_gaussians(shift: float):
    """N(±a, 1): the best error is Φ(−a), so d = 2 (1 − 2Φ(−a))."""
    error = torch.special.ndtr(torch.tensor(-shift)).item()
    ours = held_out_a_distance(normal(4000, 1, shift), normal(4000, 1, -shift, seed=1), KEY)
    assert ours == pytest.approx(proxy_a_distance(error), abs=0.08)
