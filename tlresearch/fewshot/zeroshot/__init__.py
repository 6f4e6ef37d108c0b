"""Zero-shot learning: classes that no image of was seen, known by their attributes."""

from tlresearch.fewshot.zeroshot.attribute_prototypes import AttributePrototypes
from tlresearch.fewshot.zeroshot.eszsl import ESZSL

METHODS = {"eszsl": ESZSL, "attribute_prototypes": AttributePrototypes}
"""Every method by its name in an experiment file."""
