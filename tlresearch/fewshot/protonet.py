"""Stub of METRIC's worktree; main's replaces it."""

from dataclasses import dataclass

from tlresearch.fewshot.method import MetricMethod
from tlresearch.functional.distances import squared_euclidean


@dataclass(frozen=True)
class ProtoNet(MetricMethod):
    def compare(self, networks, state, support, query):
        return -squared_euclidean(query, support.mean(1))
