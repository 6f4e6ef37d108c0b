"""Few-shot and meta-learning: classes, or functions, learned from a handful of examples."""

from tlresearch.fewshot.anil import ANIL
from tlresearch.fewshot.baseline import Baseline
from tlresearch.fewshot.baseline_pp import BaselinePP
from tlresearch.fewshot.fomaml import FOMAML
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.matching import MatchingNetwork
from tlresearch.fewshot.meta_sgd import MetaSGD
from tlresearch.fewshot.nearest_centroid import NearestCentroid
from tlresearch.fewshot.oracle import Oracle
from tlresearch.fewshot.pretrained import Pretrained
from tlresearch.fewshot.protonet import PrototypicalNetwork
from tlresearch.fewshot.r2d2 import R2D2
from tlresearch.fewshot.relation import RelationNetwork
from tlresearch.fewshot.reptile import Reptile
from tlresearch.fewshot.simpleshot import SimpleShot
from tlresearch.fewshot.soft_kmeans import SoftKMeans

METHODS = {
    "maml": MAML,
    "fomaml": FOMAML,
    "anil": ANIL,
    "meta_sgd": MetaSGD,
    "reptile": Reptile,
    "protonet": PrototypicalNetwork,
    "matching": MatchingNetwork,
    "relation": RelationNetwork,
    "r2d2": R2D2,
    "baseline": Baseline,
    "baseline_pp": BaselinePP,
    "simpleshot": SimpleShot,
    "soft_kmeans": SoftKMeans,
    "nearest_centroid": NearestCentroid,
    "pretrained": Pretrained,
    "oracle": Oracle,
}
"""Every method by its name in an experiment file."""
