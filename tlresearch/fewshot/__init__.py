"""Few-shot and meta-learning: classes, or functions, learned from a handful of examples."""

from tlresearch.fewshot.protonet import PrototypicalNetwork

METHODS = {"protonet": PrototypicalNetwork}
"""Every method by its name in an experiment file."""
