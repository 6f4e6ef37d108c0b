"""An oracle that is told the task: a row of comparison.

Finn, Abbeel, Levine, ICML 2017, arXiv:1703.03400, section 5.1: one network regresses the samples
of all tasks, with the true amplitude and phase as further inputs; it does not adapt.

Differs from the paper: nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.data.episodes import Episodes
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.pretrained import joint_loss
from tlresearch.fewshot.rows import batch_of, inputs_of
from tlresearch.training.method import Loss
from tlresearch.training.tree import Tree


@dataclass(frozen=True)
class Oracle(FewShotMethod):
    """Regresses all tasks; each input carries what describes its task."""

    sees_task: ClassVar[bool] = True
    regresses: ClassVar[bool] = True
    classifies: ClassVar[bool] = False

    def loss(self, networks: nn.Module, state: Tree, batch: Episodes) -> Loss:
        """Mean squared error over all samples of all tasks."""
        return joint_loss(networks, batch)

    def predict_episode(
        self, networks: nn.Module, state: Tree, episode: Episodes
    ) -> Float[Tensor, "1 queries outputs"]:
        """Values for the queries; the support set is not looked at."""
        _, query, *_ = inputs_of(batch_of(episode))
        return networks(query.squeeze(0)).unsqueeze(0)
