"""Training on labels alone: what every distilled student is compared to."""

from dataclasses import dataclass

from tlresearch.distillation.method import DistillationMethod


@dataclass(frozen=True)
class StudentAlone(DistillationMethod):
    """Mean cross-entropy of the labels."""
