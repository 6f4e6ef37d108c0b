"""What is made of a table of counts: words of reviews, visual words of images.

Of a domain's own training part alone, which needs no labels; its test part is treated by the same
statistics.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Counts = Literal["raw", "binary", "tfidf", "zscore"]
EXACT = 2048
"""Up to here float16 holds every count exactly."""


def transformed(
    kind: Counts, train: Float[Tensor, "n d"], test: Float[Tensor, "m d"]
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "m d"]]:
    """Both parts of a domain as `kind` says.

    Args:
        kind: `raw`: the counts; `binary`: 1 where there is one; `tfidf`, `zscore`: as below.
        train: counts, at least 0.
        test: likewise; may have no rows.

    Returns:
        `raw` and `binary` in the type that they came in, the others in float32.
    """
    if kind == "raw":
        return train, test
    if kind == "binary":
        return (train > 0).to(train.dtype), (test > 0).to(test.dtype)
    train, test = train.float(), test.float()
    make = tfidf if kind == "tfidf" else zscore
    return make(train, train), make(test, train)


def tfidf(x: Float[Tensor, "n d"], train: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """x_ij · idf_j / ‖x_i ∘ idf‖, idf_j = 1 + ln((1 + m) / (1 + df_j)).

    df_j counts the rows of `train` that have column j; the smoothed form is scikit-learn's
    (TfidfTransformer). A row without any count stays 0.
    """
    documents = (train > 0).sum(0)
    weighted = x * (1 + torch.log((1 + len(train)) / (1 + documents)))
    return weighted / weighted.norm(dim=1, keepdim=True).clamp_min(1e-12)


def zscore(x: Float[Tensor, "n d"], train: Float[Tensor, "m d"]) -> Float[Tensor, "n d"]:
    """(p_ij − μ_j) / σ_j of p = x / Σ_j x_ij, μ and σ (divisor m) those of `train`'s p.

    The SURF features of Gong et al., "Geodesic flow kernel", CVPR 2012, and of all who compare with
    them. A column that is constant in `train` is 0.
    """
    own, p = (part / part.sum(1, keepdim=True).clamp_min(1) for part in (train, x))
    centre = own.double().mean(0)
    spread = own.double().std(0, correction=0)
    scaled = (p - centre) / spread.where(spread > 0, torch.inf)
    return scaled.to(x.dtype)
