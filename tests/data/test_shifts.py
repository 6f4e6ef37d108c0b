"""Rotation, label shift and halves: controls whose shift is known."""

from dataclasses import replace

import pytest
import torch
from known_domains import domain, floats, part
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from tlresearch.data.domains import Labelled
from tlresearch.data.shifts import (
    halves,
    label_shifted,
    rank_in_class,
    rotated,
    rotated_images,
    rotated_points,
)
from tlresearch.errors import UserError


def images(rows: int = 9, columns: int = 9) -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.randint(256, (3, 2, rows, columns), generator=rng).byte()


@pytest.mark.parametrize("turns", [1, 2, 3])
@pytest.mark.parametrize("side", [8, 9])
def test_right_angles_are_rot90(turns: int, side: int):
    """Counter-clockwise, exactly."""
    x = images(side, side)
    assert torch.equal(rotated_images(x, 90.0 * turns), x.rot90(turns, (2, 3)))


@pytest.mark.parametrize("degrees", [35.0, -20.0, 133.0])
@pytest.mark.parametrize("shape", [(9, 9), (8, 13)])
def test_other_angles_are_torchvisions(degrees: float, shape: tuple[int, int]):
    """Its pixels may differ by one, by rounding."""
    x = images(*shape)
    theirs = rotate(x.float(), degrees, InterpolationMode.BILINEAR)
    assert (rotated_images(x, degrees).float() - theirs).abs().max() <= 0.51


def test_points_turn_counter_clockwise():
    """(2, 0) by 90° is (0, 2); by 35° and back nothing; lengths stay."""
    points = torch.tensor([[2.0, 0.0], [0.3, -1.2]]).view(2, 1, 1, 2)
    quarter = rotated_points(points, 90.0)
    torch.testing.assert_close(quarter.view(2, 2), torch.tensor([[0.0, 2.0], [1.2, 0.3]]))
    turned = rotated_points(points, 35.0)
    torch.testing.assert_close(rotated_points(turned, -35.0), points)
    torch.testing.assert_close(turned.norm(dim=-1), points.norm(dim=-1))
    angle = torch.rad2deg(torch.atan2(turned[0, 0, 0, 1], turned[0, 0, 0, 0]))
    assert angle.item() == pytest.approx(35, abs=1e-4)


def test_both_parts_are_turned_and_labels_stay():
    one = domain()
    turned = rotated(one, 180.0)
    assert one.test is not None and turned.test is not None
    for before, after in ((one.train, turned.train), (one.test, turned.test)):
        assert torch.equal(after.images, before.images.flip(2, 3))
        assert torch.equal(after.labels, before.labels)
    assert rotated(one, 0.0) is one
    assert rotated(replace(one, test=None), 10.0).test is None


def test_features_cannot_be_turned():
    one = domain("words", floats(torch.ones(3, 5), [0, 1, 2]))
    with pytest.raises(UserError, match=r"benchmark\.rotation: words is features"):
        rotated(one, 10.0)


def test_label_shift_gives_the_ratio():
    """100 of each of three classes at ratio 4: 100, 50, 25."""
    labels = torch.arange(300) % 3
    pixels = (torch.arange(300) % 256).byte().view(-1, 1, 1, 1)
    one = domain("even", Labelled(pixels, labels), Labelled(pixels[:60], labels[:60]))
    shifted = label_shifted(one, 4.0)
    assert shifted.train.labels.bincount().tolist() == [100, 50, 25]
    assert shifted.test is not None and shifted.test.labels.bincount().tolist() == [20, 10, 5]
    assert label_shifted(one, 1.0) is one
    again = label_shifted(one, 4.0)
    assert torch.equal(shifted.train.images, again.train.images)


def test_label_shift_draws_among_all_of_a_class_and_keeps_what_belongs_together():
    labels = torch.arange(200) % 2
    pixels = torch.arange(200).byte().view(-1, 1, 1, 1)
    one = domain("two", Labelled(pixels, labels), names=("a", "b"))
    kept = label_shifted(replace(one, test=None), 10.0).train
    places = kept.images.flatten().long()
    assert torch.equal(labels[places], kept.labels) and (places.diff() > 0).all()
    rare = places[kept.labels == 1]
    assert len(rare) == 10 and rare.max() > 100 and rare.min() < 100


def test_label_shift_of_uneven_classes_takes_as_many_as_it_can():
    """At ratio 4 of (50, 100, 10) the weights 4 : 2 : 1 allow 40, 20, 10."""
    shifted = label_shifted(replace(domain("uneven", part((50, 100, 10))), test=None), 4.0)
    assert shifted.train.labels.bincount().tolist() == [40, 20, 10]


def test_a_label_shift_that_empties_a_class_is_refused():
    with pytest.raises(UserError, match=r"benchmark\.label_shift: 50 leaves no sample of class c"):
        label_shifted(domain(), 50.0)
    with pytest.raises(UserError, match="class c in the test part of left"):
        label_shifted(domain(), 4.0)
    with pytest.raises(UserError, match="no sample of class a in the training part"):
        label_shifted(domain("left", part((0, 3, 3))), 2.0)


def test_halves_share_nothing_and_are_alike():
    one = domain("all", part((7, 6, 5)))
    first, second = halves(one)
    pixels = [set(half.train.images[:, 0, 0, 0].tolist()) for half in (first, second)]
    assert not pixels[0] & pixels[1] and pixels[0] | pixels[1] == set(range(18))
    assert first.train.labels.bincount().tolist() == [4, 3, 3]
    assert second.train.labels.bincount().tolist() == [3, 3, 2]
    assert first.test is one.test and second.test is one.test
    for half in (first, second):
        places = half.train.images[:, 0, 0, 0].long()
        assert torch.equal(one.train.labels[places], half.train.labels)


def test_rank_in_class_counts_in_the_given_order():
    labels, order = torch.tensor([0, 1, 0, 0, 1]), torch.tensor([3, 4, 0, 1, 2])
    expected = [
        sum(labels[o] == labels[i] for o in order[: order.tolist().index(i)]) for i in range(5)
    ]
    assert rank_in_class(labels, order).tolist() == expected == [1, 1, 2, 0, 0]
