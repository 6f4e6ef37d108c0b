"""Domain adaptation: from a labelled source to a target without labels."""

from tlresearch.adaptation.coral import CORAL
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.optimal_transport import OptimalTransport
from tlresearch.adaptation.oracle import Oracle
from tlresearch.adaptation.shallow import Shallow
from tlresearch.adaptation.shallow_oracle import ShallowOracle
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.adaptation.subspace_alignment import SubspaceAlignment
from tlresearch.adaptation.tca import TCA

METHODS = {
    "source_only": SourceOnly,
    "oracle": Oracle,
    "dann": DANN,
    "shallow": Shallow,
    "shallow_oracle": ShallowOracle,
    "coral": CORAL,
    "tca": TCA,
    "subspace_alignment": SubspaceAlignment,
    "optimal_transport": OptimalTransport,
}
"""Every method by its name in an experiment file."""
