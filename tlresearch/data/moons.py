"""Two interleaving half-moons, the toy problem of domain adaptation.

Ganin et al., "Domain-adversarial training of neural networks", JMLR 17(59), 2016, section 5.1.1:
150 points a class; the target is another draw, turned by 35 degrees about the centre. Their code
(github.com/GRAAL-Research/domain_adversarial_neural_network, experiments_moons.py) takes
scikit-learn's moons with noise of deviation .05, centres them and doubles them.

Differs from the paper: a large sample is drawn once, from which each seed takes its own points
(`source_samples: 300`, `target_samples: 300`), so that the spread over seeds is over data too.
Source and target are `moons` both, cut in halves without a point in common, and `rotation: 35`
turns the target. The code's moons lie at equal steps of the angle; ours at random.
"""

import math
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from tlresearch.data.domain_files import Entry
from tlresearch.data.domains import Domain, Labelled
from tlresearch.functional import random

NAMES = ("upper", "lower")
TRAIN, TEST = 10_000, 5_000
NOISE = 0.05
"""Standard deviation of a coordinate, before doubling."""
CENTRE = (0.5, 0.25)
"""Mean of the two moons: half way between (0, 2/π) and (1, 1/2 − 2/π)."""


def moons(key: random.Key, samples: int) -> tuple[Float[Tensor, "samples 2"], Tensor]:
    """2 (m + ε − centre), ε ~ N(0, .05² I), and labels, every second point of a class.

    m = (cos t, sin t) of class 0 and (1 − cos t, ½ − sin t) of class 1, t ~ U[0, π).

    Args:
        key: one key.
        samples: how many points, of both classes together.
    """
    labels = torch.arange(samples) % 2
    angle = math.pi * random.uniform(random.fold(key, 0), (samples,), torch.float64)
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    noise = NOISE * random.normal(random.fold(key, 1), (samples, 2), torch.float64)
    points = torch.where(labels[:, None] == 0, upper, lower) + noise
    return 2 * (points - points.new_tensor(CENTRE)), labels


def read(root: Path | None) -> Domain:
    """Of the keys of (0, "moons")."""
    parts = []
    for number, samples in enumerate((TRAIN, TEST)):
        points, labels = moons(random.make_key(0, "moons", number), samples)
        parts.append(Labelled(points.float().view(-1, 1, 1, 2), labels))
    return Domain("moons", parts[0], parts[1], NAMES, ENTRY.fingerprint)


ENTRY = Entry(
    title="Two half-moons",
    read=read,
    shape=(1, 1, 2),
    class_names=NAMES,
    sizes=(TRAIN, TEST),
    licence="none needed",
    recipe=f"moons 1: {TRAIN} + {TEST} points, noise {NOISE}",
)
