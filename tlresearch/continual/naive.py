"""Naive sequential training: each task is trained on alone, and nothing is done about forgetting.

Called "none" by van de Ven and Tolias (arXiv:1904.07734) and "finetune" elsewhere: the lower bound.
"""

from dataclasses import dataclass

from tlresearch.continual.method import ContinualMethod


@dataclass(frozen=True)
class Naive(ContinualMethod):
    """Trains on the current task's data only, from the weights of the task before."""
