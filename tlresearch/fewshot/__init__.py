"""Few-shot and meta-learning: classes, or functions, learned from a handful of examples."""

from tlresearch.fewshot.baseline import Baseline
from tlresearch.fewshot.baseline_pp import BaselinePP
from tlresearch.fewshot.matching import MatchingNetwork
from tlresearch.fewshot.nearest_centroid import NearestCentroid
from tlresearch.fewshot.protonet import PrototypicalNetwork
from tlresearch.fewshot.r2d2 import R2D2
from tlresearch.fewshot.relation import RelationNetwork
from tlresearch.fewshot.simpleshot import SimpleShot
from tlresearch.fewshot.soft_kmeans import SoftKMeans

METHODS = {
    "protonet": PrototypicalNetwork,
    "matching": MatchingNetwork,
    "relation": RelationNetwork,
    "r2d2": R2D2,
    "baseline": Baseline,
    "baseline_pp": BaselinePP,
    "simpleshot": SimpleShot,
    "soft_kmeans": SoftKMeans,
    "nearest_centroid": NearestCentroid,
}
"""Every method by its name in an experiment file."""
