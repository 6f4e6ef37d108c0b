"""No adaptation: a shallow classifier on the source's features, the lower reference of a table."""

from dataclasses import dataclass

from tlresearch.adaptation.estimator import Alignment, Estimator, Labels, Matrix, Target, unchanged


@dataclass(frozen=True)
class Shallow(Estimator):
    """Features as they are; the target is seen only by the evaluator."""

    def align(self, source: Matrix, labels: Labels, target: Target) -> Alignment:
        return Alignment(unchanged, unchanged)
