"""Continual learning: one task after another, and what is forgotten."""

from tlresearch.continual.ewc import EWC
from tlresearch.continual.joint import Joint
from tlresearch.continual.naive import Naive
from tlresearch.continual.online_ewc import OnlineEWC

METHODS = {"naive": Naive, "joint": Joint, "ewc": EWC, "online_ewc": OnlineEWC}
"""Every method by its name in an experiment file."""
