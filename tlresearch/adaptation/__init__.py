"""Domain adaptation: from a labelled source to a target without labels."""

from tlresearch.adaptation.adabn import AdaBN
from tlresearch.adaptation.cdan import CDAN
from tlresearch.adaptation.coral import CORAL
from tlresearch.adaptation.cycle_self_training import CycleSelfTraining
from tlresearch.adaptation.dan import DAN
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.deep_coral import DeepCORAL
from tlresearch.adaptation.mcd import MCD
from tlresearch.adaptation.optimal_transport import OptimalTransport
from tlresearch.adaptation.oracle import Oracle
from tlresearch.adaptation.self_training import SelfTraining
from tlresearch.adaptation.shallow import Shallow
from tlresearch.adaptation.shallow_oracle import ShallowOracle
from tlresearch.adaptation.shot import SHOT
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.adaptation.subspace_alignment import SubspaceAlignment
from tlresearch.adaptation.tca import TCA
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
    "shallow": Shallow,
    "shallow_oracle": ShallowOracle,
    "coral": CORAL,
    "tca": TCA,
    "subspace_alignment": SubspaceAlignment,
    "optimal_transport": OptimalTransport,
}
"""Every method by its name in an experiment file."""
