"""Contrastive representation distillation (CRD).

Tian, Krishnan and Isola, "Contrastive representation distillation", ICLR 2020, arXiv:1910.10699,
eqs. (17) to (19): a critic tells the other network's embedding of the same sample from those of K
others, which a memory holds. The whole loss is that with the student's embeddings as anchors on the
teacher's memory plus that with the teacher's on the student's (the authors' code).

Differs from the paper: scores are divided by a constant Z, as in the authors' code; Z = 1 is
eq. (19). Differs from the code: no ε = 1e-7 in the quotients, which are sigmoids here and cannot
overflow; negatives are drawn with replacement; a new memory has rows of length 1, there of about 1;
a sample may be in a batch more than once (`remembered`).
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from tlresearch.functional import random
from tlresearch.functional.features import full_precision, unit, wide

Embeddings = Float[Tensor, "batch dim"]
Memory = Float[Tensor, "size dim"]
Indices = Int64[Tensor, " batch"]
Negatives = Int64[Tensor, "batch count"]


def contrastive_loss(
    anchor: Embeddings,
    memory: Memory,
    positive: Indices,
    negatives: Negatives,
    log_partition: Float[Tensor, ""] | float,
    temperature: Tensor | float = 0.07,
) -> Float[Tensor, ""]:
    """−(1/B) Σ [log h(a, m⁺) + Σₖ log(1 − h(a, mₖ))], h = p / (p + K/N), p = exp(a·m/τ) / Z.

    Eqs. (18) and (19). In nats; about log-loss of K + 1 decisions for each anchor.

    Args:
        anchor: a, the embeddings that learn, of length 1.
        memory: m, those of the other network, one for each of the N training samples; no gradient
            flows to it.
        positive: index of each anchor's sample in the memory.
        negatives: indices of K others, see `draw_negatives`.
        log_partition: log Z, see `estimate_log_partition`; 0 for the paper's eq. (19).
        temperature: τ > 0; .07 in the authors' code, .1 in the paper's table on CIFAR-100.
    """
    noise = math.log(negatives.shape[1] / len(memory))
    scores = _scores(anchor, memory, positive, negatives, temperature)
    logits = scores - log_partition - noise
    right = F.logsigmoid(logits[:, 0]) + F.logsigmoid(-logits[:, 1:]).sum(1)
    return -right.mean()


def estimate_log_partition(
    anchor: Embeddings,
    memory: Memory,
    positive: Indices,
    negatives: Negatives,
    temperature: Tensor | float = 0.07,
) -> Float[Tensor, ""]:
    """log Z, Z = N · mean of exp(a·m/τ) over the anchors' positives and negatives; no gradient.

    The authors' code takes it from the first batch and then keeps it, one for each of the two
    memories. Arguments as of `contrastive_loss`.
    """
    scores = _scores(anchor.detach(), memory, positive, negatives, temperature)
    return scores.flatten().logsumexp(0) - math.log(scores.numel() / len(memory))


def _scores(
    anchor: Embeddings,
    memory: Memory,
    positive: Indices,
    negatives: Negatives,
    temperature: Tensor | float,
) -> Float[Tensor, "batch candidates"]:
    """a·m/τ, the positive first.

    One product with the whole memory and a choice from it: K embeddings for each anchor, gathered,
    would take dim times the space.
    """
    with full_precision(anchor):
        candidates = torch.cat([positive[:, None], negatives], 1)
        products = wide(anchor) @ wide(memory.detach()).T
        return products.gather(1, candidates) / temperature


def draw_negatives(
    key: random.Key, positive: Indices, count: int, size: int, labels: Tensor | None = None
) -> Negatives:
    """For each anchor `count` indices of other samples, with replacement.

    Args:
        key: of this step, shape ().
        positive: indices of the anchors.
        count: K; 16,384 in the paper.
        size: N, samples in the memory, at least 2.
        labels: of all N samples, at least two classes: samples of the anchor's class are left out,
            as for the published results on CIFAR. None: only the anchor's own is.
    """
    shape = (len(positive), count)
    if labels is None:
        drawn = random.integers(key, size - 1, shape)
        return drawn + (drawn >= positive[:, None]).long()
    own = labels[positive][:, None]
    before, members = (labels < own).sum(1, keepdim=True), (labels == own).sum(1, keepdim=True)
    drawn = random.integers(key, size - members, shape)
    # In the order of classes an anchor's class is a block, which is jumped over.
    return labels.argsort(stable=True)[drawn + torch.where(drawn >= before, members, 0)]


def remembered(
    memory: Memory,
    indices: Indices,
    embeddings: Embeddings,
    momentum: Tensor | float = 0.5,
) -> Memory:
    """A memory whose rows `indices` are (μ m + (1 − μ) e) / ‖·‖; the one given is unchanged.

    Of a row that is named more than once, e is the last of its embeddings and m the row as it was
    given, so that it is renewed once. Every time the same bits are written to it: in which order
    that happens, which nobody says on CUDA, does not matter.

    Args:
        memory: m.
        indices: rows to renew.
        embeddings: e, of length 1; no gradient flows to them.
        momentum: μ in [0, 1]; .5 in the authors' code.
    """
    with full_precision(memory):
        renewed = momentum * memory[indices] + (1 - momentum) * wide(embeddings.detach())
        rows = unit(renewed)[_last_of_equals(indices)].to(memory.dtype)
        return memory.index_copy(0, indices, rows)


def _last_of_equals(indices: Indices) -> Indices:
    """For each place the last place that has the same index."""
    order = torch.arange(len(indices), device=indices.device)
    return torch.where(indices == indices[:, None], order, -1).amax(1)


def new_memory(key: random.Key, size: int, dim: int = 128) -> Memory:
    """Random directions: rows of length 1, uniform on the sphere.

    Args:
        key: shape (); student and teacher need one each.
        size: N, training samples.
        dim: of the embeddings.
    """
    return unit(random.normal(key, (size, dim)))


class Projections(nn.Module):
    """Embeddings W x / ‖W x‖ (with a bias) of both networks' features; both heads are trained.

    Args:
        student: numbers in one of the student's features; of a map, all of them.
        teacher: likewise.
        dim: of the embeddings; 128 in the paper.
    """

    def __init__(self, student: int, teacher: int, dim: int = 128) -> None:
        super().__init__()
        self.student = nn.Linear(student, dim)
        self.teacher = nn.Linear(teacher, dim)

    def forward(
        self, student: Float[Tensor, "batch *student"], teacher: Float[Tensor, "batch *teacher"]
    ) -> tuple[Embeddings, Embeddings]:
        """Of both, in float32 at least; no gradient flows to the teacher's feature."""
        of_student = self.student(student.flatten(1))
        of_teacher = self.teacher(teacher.detach().flatten(1))
        return unit(wide(of_student)), unit(wide(of_teacher))
