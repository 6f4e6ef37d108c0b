"""Soft k-means prototypes, transductive.

Ren et al., "Meta-learning for semi-supervised few-shot classification", ICLR 2018,
arXiv:1803.00676, section 3.1.1: prototypes refined by unlabelled images x̃,
p̃_c = (Σᵢ h(xᵢ) z_ic + Σⱼ h(x̃ⱼ) z̃_jc) / (Σᵢ z_ic + Σⱼ z̃_jc),
z̃_jc = softmax over c of −‖h(x̃ⱼ) − p_c‖², p_c the mean of a class's shots.

Differs from the paper: the unlabelled images are the episode's own queries, so a prediction depends
on the other queries (transductive); the paper draws further images, some of them of other classes,
in training too. Here training is that of prototypical networks and refinement comes with the test,
as in the paper's row "Semi-Supervised Inference". Our queries hold as many images of each class;
nothing here uses that, but it suits the method.
"""

from dataclasses import dataclass, replace
from typing import Annotated, ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot.protonet import PrototypicalNetwork, distance
from tlresearch.settings import Bounds
from tlresearch.training.method import Loss
from tlresearch.training.tree import Tree


def refine(
    prototypes: Float[Tensor, "ways dim"],
    support: Float[Tensor, "ways shots dim"],
    unlabelled: Float[Tensor, "images dim"],
    kind: str = "squared",
) -> Float[Tensor, "ways dim"]:
    """p̃ above: means of the shots and of the unlabelled images by their soft labels.

    Args:
        prototypes: p.
        support: h(x) of the shots.
        unlabelled: h(x̃).
        kind: the distance; a value of `PrototypicalNetwork.distance`.
    """
    soft = (-distance(kind, unlabelled, prototypes)).softmax(-1)
    total = support.sum(1) + soft.mT @ unlabelled
    return total / (support.shape[1] + soft.sum(0)).unsqueeze(-1)


@dataclass(frozen=True)
class SoftKMeans(PrototypicalNetwork):
    """Prototypical networks whose prototypes move towards the queries they attract."""

    training_kind: ClassVar[str] = "PrototypicalNetwork"
    evaluation_fields: ClassVar[tuple[str, ...]] = ("rounds",)

    rounds: Annotated[int, Bounds(ge=0)] = 1
    """Refinements of the prototypes in the test, at least 0; 1 in the paper, 0: none."""

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """The loss of prototypical networks, without refinement."""
        return super(SoftKMeans, replace(self, rounds=0)).loss(networks, state, batch)

    def compare(
        self,
        networks: nn.Module,
        state: Tree,
        support: Float[Tensor, "ways shots dim"],
        query: Float[Tensor, "queries dim"],
    ) -> Float[Tensor, "queries ways"]:
        """−‖h(x̂) − p̃_c‖², or another `distance`, after `rounds` refinements by the queries."""
        prototypes = support.mean(1)
        for _ in range(self.rounds):
            prototypes = refine(prototypes, support, query, self.distance)
        return -distance(self.distance, query, prototypes)

    def notes(self) -> dict[str, str]:
        return super().notes() | {"inference": "transductive (all queries of an episode)"}
