"""Inner learning rates that are learned: parameters of the networks, beside the weights."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from tlresearch.fewshot.inner import Params

_PREFIX = "rates."


class Rates(nn.Module):
    """α by parameter name, each a parameter of its own; `.` is written `/` in its name.

    Args:
        values: initial α by the name of the parameter that it moves.
    """

    def __init__(self, values: Mapping[str, Tensor]) -> None:
        super().__init__()
        for name, value in values.items():
            self.register_parameter(name.replace(".", "/"), nn.Parameter(value))


def attach(networks: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Gives the networks rates to learn, as the submodule `rates`."""
    networks.add_module("rates", Rates(values))


def weights_of(params: Mapping[str, Tensor]) -> Params:
    """The parameters that are no rates."""
    return {name: value for name, value in params.items() if not name.startswith(_PREFIX)}


def rates_of(params: Mapping[str, Tensor]) -> Params:
    """The rates, by the names of the weights that they move."""
    return {
        name.removeprefix(_PREFIX).replace("/", "."): value
        for name, value in params.items()
        if name.startswith(_PREFIX)
    }


def per_parameter(params: Mapping[str, Tensor], value: float) -> Params:
    """α of Meta-SGD: one for each number of each weight, all `value`."""
    return {name: torch.full_like(p, value) for name, p in params.items()}


def per_step(params: Mapping[str, Tensor], value: float, steps: int) -> Params:
    """α of MAML++: (steps,) for each weight tensor, all `value`."""
    return {name: p.detach().new_full((steps,), value) for name, p in params.items()}
