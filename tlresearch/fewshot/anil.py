"""Almost no inner loop (ANIL).

Raghu, Raghu, Bengio, Vinyals, "Rapid learning or feature reuse? Towards understanding the
effectiveness of MAML", ICLR 2020, arXiv:1909.09157, eq. (3): MAML whose inner loop, in
meta-training and at test, moves the head only; the meta-gradient still reaches all weights.

Differs from the paper: nothing. The features of a task are computed once, not in each inner step:
the same numbers, as the inner loop leaves the body as it is.
"""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.func import functional_call

from tlresearch.fewshot import statistics as norms
from tlresearch.fewshot.inner import Params
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.statistics import Seen


@dataclass(frozen=True)
class ANIL(MAML):
    """Adapts the linear head only."""

    def adapted(self, params: Params) -> Params:
        return {name: value for name, value in params.items() if name.startswith("head.")}

    def moved_module(self, networks: nn.Module) -> nn.Module:
        return networks.get_submodule("head")

    def encode(
        self, networks: nn.Module, params: Params, support: Tensor, query: Tensor, seen: Seen
    ) -> tuple[Tensor, Tensor]:
        """Features of support and queries."""
        call = _part(networks.get_submodule("backbone"), "backbone.", params)
        of_support = norms.support_pass(networks, self.statistics, call, support)
        return of_support, norms.query_pass(networks, self.statistics, call, support, query, seen)

    def answer(
        self, networks: nn.Module, params: Params, support: Tensor, query: Tensor, seen: Seen
    ) -> Tensor:
        return self.answer_support(networks, params, query)

    def answer_support(self, networks: nn.Module, params: Params, support: Tensor) -> Tensor:
        return _part(networks.get_submodule("head"), "head.", params)(support)


def _part(module: nn.Module, prefix: str, params: Params) -> Callable[[Tensor], Tensor]:
    """A submodule with its own of the parameters."""
    own = {k.removeprefix(prefix): p for k, p in params.items() if k.startswith(prefix)}
    return lambda x: functional_call(module, own, (x,))
