"""Domain adaptation: from a labelled source to a target without labels."""

from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.oracle import Oracle
from tlresearch.adaptation.source_only import SourceOnly

METHODS = {
    "source_only": SourceOnly,
    "oracle": Oracle,
    "dann": DANN,
}
"""Every method by its name in an experiment file."""
