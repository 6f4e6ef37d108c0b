"""Domain adaptation: from a labelled source to a target without labels."""

from tlresearch.adaptation.adabn import AdaBN
from tlresearch.adaptation.cdan import CDAN
from tlresearch.adaptation.cycle_self_training import CycleSelfTraining
from tlresearch.adaptation.dan import DAN
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.deep_coral import DeepCORAL
from tlresearch.adaptation.mcd import MCD
from tlresearch.adaptation.oracle import Oracle
from tlresearch.adaptation.self_training import SelfTraining
from tlresearch.adaptation.shot import SHOT
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.adaptation.tent import TENT

METHODS = {
    "source_only": SourceOnly,
    "oracle": Oracle,
    "dann": DANN,
    "cdan": CDAN,
    "dan": DAN,
    "deep_coral": DeepCORAL,
    "mcd": MCD,
    "adabn": AdaBN,
    "self_training": SelfTraining,
    "cycle_self_training": CycleSelfTraining,
    "shot": SHOT,
    "tent": TENT,
}
"""Every method by its name in an experiment file."""
