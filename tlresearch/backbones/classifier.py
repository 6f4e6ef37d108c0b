"""What every backbone is, and the classifier on top of one."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from tlresearch.errors import UserError


class Backbone(nn.Module):
    """Images to feature vectors of `width` numbers; `forward` is `features`."""

    width: int
    """Numbers in a feature vector."""

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        """The feature vector of each image of the batch."""
        raise NotImplementedError(f"{type(self).__name__} does not define features")

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        return self.features(x)

    def initialise_linear(self, linear: nn.Linear) -> None:
        """Initialises a layer that stands on this backbone; leaves torch's default here."""


@runtime_checkable
class Settings(Protocol):
    """The settings of a backbone: a frozen dataclass that builds it."""

    def build(self, input_shape: tuple[int, int, int]) -> Backbone:
        """The backbone for images of shape (channels, rows, columns), from torch's generator.

        Raises:
            UserError: the images are too small for it.
        """
        ...


class Classifier(nn.Module):
    """z = backbone(x), logits = W z + b.

    Args:
        backbone: gives the features.
        classes: number of logits.
    """

    def __init__(self, backbone: Backbone, classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Linear(backbone.width, classes)
        backbone.initialise_linear(self.head)

    def features(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch width"]:
        """The feature vector of each image of the batch."""
        return self.backbone(x)

    def forward(
        self, x: Float[Tensor, "batch channels rows columns"]
    ) -> Float[Tensor, "batch classes"]:
        return self.head(self.features(x))


def require_size(backbone: str, input_shape: tuple[int, int, int], least: int) -> None:
    """Refuses images that shrink to nothing inside a backbone.

    Raises:
        UserError: rows or columns are below `least`.
    """
    _, rows, columns = input_shape
    if min(rows, columns) < least:
        raise UserError(
            f"The backbone {backbone} needs images of at least {least} x {least} pixels, but these "
            f"are {rows} x {columns}; resize them or choose the backbone mlp."
        )
