"""Every sample once an epoch, whatever the blocks, the neighbours and the sizes."""

import pytest
import torch

from tlresearch.data.sampler import BLOCK_POSITIONS, EpochSampler


def row(sampler: EpochSampler, place: int, steps: int) -> torch.Tensor:
    """The first `steps` batches of one seed, end to end."""
    return sampler.block(0, steps)[:, place].flatten()


def test_every_epoch_is_another_permutation():
    """A pool of 12 in batches of 4: three batches hold each sample once, in another order."""
    epochs = row(EpochSampler([5], [12], 4, "p"), 0, 9).view(3, 12)
    assert torch.equal(epochs.sort().values, torch.arange(12).expand(3, 12))
    assert len(epochs.unique(dim=0)) == 3


def test_batches_run_over_the_ends_of_epochs():
    """Batches of 4 from a pool of 6: the second batch holds the end of one epoch and a start."""
    flat = row(EpochSampler([1], [6], 4, "p"), 0, 6)
    assert torch.equal(flat.view(4, 6).sort().values, torch.arange(6).expand(4, 6))


def test_a_pool_smaller_than_a_batch_is_repeated():
    """A pool of 3 in batches of 8: each batch has whole epochs, none is short."""
    block = EpochSampler([1], [3], 8, "p").block(0, 3)
    assert block.shape == (3, 1, 8)
    assert torch.equal(block.flatten().view(8, 3).sort().values, torch.arange(3).expand(8, 3))


def test_a_pool_of_one():
    """The only sample, again and again."""
    assert torch.equal(EpochSampler([1], [1], 2, "p").block(7, 2), torch.zeros(2, 1, 2).long())


def test_seeds_may_have_pools_of_different_sizes():
    """Each row is a permutation of its own pool's positions."""
    sampler = EpochSampler([1, 2], [4, 10], 2, "p")
    first, second = row(sampler, 0, 10), row(sampler, 1, 10)
    assert torch.equal(first.view(5, 4).sort().values, torch.arange(4).expand(5, 4))
    assert torch.equal(second.view(2, 10).sort().values, torch.arange(10).expand(2, 10))


@pytest.mark.parametrize("cuts", [[1] * 14, [3, 4, 7], [13, 1], [5, 9]])
def test_a_block_does_not_depend_on_how_it_is_cut(cuts: list[int]):
    """14 steps at once, or in pieces from one sampler or from fresh ones: the same positions."""

    def make() -> EpochSampler:
        return EpochSampler([3, 8], [5, 17], 4, "p")

    whole, same, first = make().block(0, 14), make(), 0
    for steps in cuts:
        assert torch.equal(same.block(first, steps), whole[first : first + steps])
        assert torch.equal(make().block(first, steps), whole[first : first + steps])
        first += steps
    assert torch.equal(same.block(2, 3), whole[2:5]), "steps may be asked for again"


def test_a_seed_has_its_positions_in_any_stack():
    """Another place, other neighbours, other sizes of theirs: the same positions."""
    alone = row(EpochSampler([8], [9], 4, "p"), 0, 7)
    assert torch.equal(row(EpochSampler([2, 8, 3], [5, 9, 30], 4, "p"), 1, 7), alone)


def test_seeds_and_purposes_differ():
    """Another seed or another purpose is another order."""
    one = row(EpochSampler([8], [50], 10, "p"), 0, 5)
    assert not torch.equal(row(EpochSampler([9], [50], 10, "p"), 0, 5), one)
    assert not torch.equal(row(EpochSampler([8], [50], 10, "q"), 0, 5), one)


def test_a_block_covers_at_least_one_step():
    """Also where a batch is larger than a block."""
    assert EpochSampler([1], [3], BLOCK_POSITIONS * 2, "p").block_steps == 1
    assert EpochSampler([1], [3], 128, "p").block_steps == BLOCK_POSITIONS // 128
