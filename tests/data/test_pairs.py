"""Pairs of domains: pools of each seed, normalisation, and what is refused."""

import re
from dataclasses import replace

import pytest
import torch
from known_domains import CPU, F64, NAMES, SETTINGS, domain, floats, pair_of, part, sets

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data import domain_tables
from tlresearch.data.domains import Domain, Frozen, Labelled
from tlresearch.data.pairs import domains, load_pair, make_pair
from tlresearch.errors import UserError

WEIGHTS = {"w": torch.ones(1)}


def settings(**changes: object) -> AdaptationSettings:
    return replace(SETTINGS, **changes)


def test_held_out_and_trained_on_are_all_of_the_source_and_disjoint():
    pair, _ = pair_of(settings=settings(validation=0.25))
    for kept, held in zip(sets(pair.source_pools), sets(pair.held_out_pools), strict=True):
        assert not kept & held and kept | held == set(range(18))
    for held in pair.held_out_pools:  # of each class a quarter: of 8, 6 and 4, rounded
        assert pair.source.labels[held].bincount().tolist() == [2, 2, 1]
    assert not torch.equal(*pair.held_out_pools)


def test_without_validation_nothing_is_held_out():
    pair, _ = pair_of(settings=settings(validation=0.0))
    assert [len(held) for held in pair.held_out_pools] == [0, 0]
    assert [kept.tolist() for kept in pair.source_pools] == [list(range(18))] * 2


def test_subsets_are_balanced_and_of_the_stated_size():
    pair, _ = pair_of(settings=settings(source_samples=11, validation=0.0, target_samples=5))
    for kept in pair.source_pools:
        assert sorted(pair.source.labels[kept].bincount().tolist()) == [3, 4, 4]
    assert [len(pool) for pool in pair.target_pools] == [5, 5]
    sets(pair.source_pools + pair.target_pools)
    assert not torch.equal(*pair.source_pools) and not torch.equal(*pair.target_pools)


def test_a_class_that_runs_out_leaves_its_places_to_the_others():
    pair, _ = pair_of(settings=settings(source_samples=16, validation=0.0))
    assert pair.source.labels[pair.source_pools[0]].bincount().tolist() == [6, 6, 4]


def test_a_seed_has_its_pools_in_any_stack():
    some = settings(source_samples=12, target_samples=9, validation=0.2)
    together, alone = (pair_of(seeds=seeds, settings=some)[0] for seeds in ((3, 7, 5), (7,)))
    for name in ("source_pools", "held_out_pools", "target_pools"):
        assert torch.equal(getattr(together, name)[1], getattr(alone, name)[0])


def test_target_pools_do_not_depend_on_target_labels():
    """Nor does anything else that training sees: the target's labels turned round."""
    target = domain("right", part((5, 9, 7), 40))
    turned = replace(target, train=Labelled(target.train.images, target.train.labels.flip(0)))
    some = settings(target_samples=8, normalise="mean")
    one, other = (pair_of(target=t, settings=some)[0] for t in (target, turned))
    for a, b in zip(one.target_pools, other.target_pools, strict=True):
        assert torch.equal(a, b)
    assert torch.equal(one.shift, other.shift) and torch.equal(
        one.target.images, other.target.images
    )


@pytest.mark.parametrize(
    ("kind", "low", "high"), [("unit", 0, 1), ("half", -1, 1), ("none", 0, 255)]
)
def test_normalisation_is_the_same_for_both(kind, low, high):
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1)
    pair, _ = pair_of(settings=settings(normalise=kind))
    expected = torch.tensor([low, high], dtype=F64).view(2, 1, 1, 1)
    torch.testing.assert_close(pair.inputs(ends), expected, atol=1e-12, rtol=0)


def test_mean_is_that_of_both_domains_alike():
    """Half the sum of the means, whatever the sizes, and one for both: means of opposite sign."""
    pair, _ = pair_of(settings=settings(normalise="mean"))
    means = [pair.inputs(x).mean(0) for x in (pair.source.images, pair.target.images)]
    torch.testing.assert_close(means[0], -means[1], atol=1e-12, rtol=0)
    expected = (torch.arange(18.0).mean() + (40 + torch.arange(21.0)).mean()) / 2 / 255
    torch.testing.assert_close(
        pair.shift, torch.full((1, 2, 2), expected.item(), dtype=F64), atol=1e-7, rtol=0
    )


def test_features_stay_as_they_are_but_for_the_mean():
    parts = [floats([[1.0, first], [3, 0], [5, 1]], [0, 1, 2]) for first in (2, 5)]
    one, other = (replace(domain("points", part), test=None) for part in parts)
    for kind in ("unit", "half", "none"):
        pair, _ = pair_of(one, other, settings=settings(normalise=kind, validation=0.0))
        assert torch.equal(pair.inputs(pair.source.images), pair.source.images.double())
    pair, _ = pair_of(one, other, settings=settings(normalise="mean", validation=0.0))
    assert pair.shift.flatten().tolist() == pytest.approx([3, 1.5])
    assert pair.inputs(pair.source.images)[0].flatten().tolist() == pytest.approx([-2, 0.5])


@pytest.mark.parametrize(("evaluate", "first"), [("test", 100), ("training", 40)])
def test_what_is_measured_on(evaluate, first):
    _, sealed = pair_of(settings=settings(evaluate=evaluate))
    opened = sealed.open(Frozen(WEIGHTS))
    assert opened.test.images[0, 0, 0, 0] == first
    _, sealed = pair_of(target=replace(domain("right", part((5, 9, 7), 40)), test=None))
    assert sealed.open(Frozen(WEIGHTS)).test.images[0, 0, 0, 0] == 40  # transductive


@pytest.mark.parametrize("samples", [None, 9])
def test_the_order_of_a_target_pool_tells_no_label(samples):
    """A domain whose files lie class by class gives pools that do not."""
    mixed = part((50, 50, 50))
    order = mixed.labels.argsort(stable=True)
    target = domain("right", Labelled(mixed.images[order], mixed.labels[order]))
    assert target.train.labels.diff().min() >= 0
    pair, _ = pair_of(target=target, settings=settings(target_samples=samples))
    for pool in pair.target_pools:
        assert target.train.labels[pool].diff().min() < 0
        assert len(set(pool.tolist())) == len(pool) == (samples or 150)
    assert not torch.equal(*pair.target_pools)


def test_training_labels_are_those_of_the_pool():
    target = domain("right", part((5, 9, 7), 40))
    pair, sealed = pair_of(target=target, settings=settings(target_samples=6))
    for pool, labels in zip(
        pair.target_pools, sealed.open(Frozen(WEIGHTS)).training_labels, strict=True
    ):
        assert torch.equal(labels, target.train.labels[pool])


# What is refused.


def refused(source: Domain | None = None, target: Domain | None = None, **changes: object) -> str:
    """The one sentence by which a pair is refused."""
    with pytest.raises(UserError) as caught:
        pair_of(source, target, settings=settings(**changes))
    text = str(caught.value)
    assert "\n" not in text and text.startswith("benchmark.")
    return text


def test_other_classes_are_refused():
    text = refused(target=domain("right", names=("a", "b", "d")))
    assert text.startswith("benchmark.target") and "a, b, d (3)" in text and "a, b, c (3)" in text
    assert "c, b, a" in refused(target=domain("right", names=NAMES[::-1]))  # in another order


def test_other_channels_and_sizes_are_refused():
    text = refused(target=domain("right", part((2, 2, 2), shape=(3, 2, 2))))
    assert "3 x 2 x 2" in text and "1 x 2 x 2" in text and "benchmark.channels" in text
    assert "1 x 4 x 4" in refused(target=domain("right", part((2, 2, 2), shape=(1, 4, 4))))


def test_features_and_pixels_are_refused():
    pixels = domain("pixels", part((1, 1, 1), shape=(2, 1, 1)))
    text = refused(pixels, domain("numbers", floats(torch.zeros(3, 2), [0, 1, 2])))
    assert "numbers is features and pixels pixels" in text


@pytest.mark.parametrize("key", ["source", "target"])
def test_an_empty_domain_is_refused(key):
    empty = domain("nothing", part((0, 0, 0)))
    text = refused(**{key: empty})
    assert text.startswith(f"benchmark.{key}") and "nothing is empty" in text
    assert "the test part of nothing is empty" in refused(
        **{key: domain("nothing", test=part((0, 0, 0)))}
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_feature_that_is_not_finite_is_refused(bad):
    sound = replace(domain("sound", floats(torch.ones(3, 2), [0, 1, 2])), test=None)
    broken = domain("broken", floats([[1, 1], [1, 1], [1, bad]], [0, 1, 2]))
    text = refused(sound, replace(broken, test=None))
    assert "benchmark.target: broken has a feature that is not finite, first in sample 2" in text
    tested = replace(sound, name="tested", test=broken.train)
    assert "the test part of tested" in refused(tested, sound)


def test_a_class_without_source_samples_is_refused():
    text = refused(domain("left", part((3, 0, 2))))
    assert text.startswith("benchmark.source") and "left has no sample of b" in text


def test_labels_that_are_too_few_are_refused():
    whole = part((2, 2, 2))
    text = refused(domain("left", Labelled(whole.images, whole.labels[:4])))
    assert "6 inputs and 4 labels" in text


@pytest.mark.parametrize("part_of", ["train", "test"])
def test_labels_beyond_the_classes_are_refused(part_of):
    whole = part((2, 2, 2))
    shifted = Labelled(whole.images, whole.labels + 1)
    text = refused(target=replace(domain("right"), **{part_of: shifted}))
    assert "right has labels from 1 to 3; 3 classes are 0 to 2" in text


def test_a_test_part_of_another_shape_is_refused():
    text = refused(target=domain("right", test=part((2, 2, 2), shape=(1, 4, 4))))
    assert (
        "the test part of right has inputs of 1 x 4 x 4, and its training part of 1 x 2 x 2" in text
    )


def test_more_samples_than_there_are_are_refused():
    assert "19 were asked for and there are 18" in refused(source_samples=19)
    assert "22 were asked for and right has 21" in refused(target_samples=22)


def test_nothing_left_is_refused():
    assert "leaves none" in refused(validation=0.01)
    text = refused(source_samples=2, validation=0.0)
    assert "no sample is left to train on" in text and re.search(r"left's class [abc]", text)
    assert "no sample is left" in refused(domain("left", part((9, 9, 1))), validation=0.6)


# By name.


@pytest.fixture
def table(monkeypatch: pytest.MonkeyPatch):
    """`left` and `right` are domains by name."""
    domain_tables._prepared.cache_clear()
    entry = domain_tables.DOMAINS["moons"]
    for name, first in (("left", 0), ("right", 40)):
        made = domain(name, part((8, 6, 4), first))
        new = replace(entry, read=lambda root, made=made: made, shape=(1, 2, 2), class_names=NAMES)
        monkeypatch.setitem(domain_tables.DOMAINS, name, new)
    yield
    domain_tables._prepared.cache_clear()


@pytest.mark.usefixtures("table")
def test_a_domain_with_itself_has_no_sample_twice():
    source, target = domains(settings(target="left"))
    pixels = [set(d.train.images[:, 0, 0, 0].tolist()) for d in (source, target)]
    assert not pixels[0] & pixels[1] and pixels[0] | pixels[1] == set(range(18))
    assert source.train.labels.bincount().tolist() == target.train.labels.bincount().tolist()
    assert source.test is target.test


@pytest.mark.usefixtures("table")
def test_shifts_are_of_the_target_alone():
    plain, turned = (domains(settings(rotation=angle)) for angle in (0.0, 180.0))
    assert turned[0] is plain[0]
    assert torch.equal(turned[1].train.images, plain[1].train.images.flip(2, 3))
    source, target = domains(settings(label_shift=2.0))
    assert source is plain[0] and target.train.labels.bincount().tolist() == [8, 5, 4]


@pytest.mark.usefixtures("table")
def test_the_oracle_trains_on_the_shifted_target():
    """Turned and subsampled as the target is, and with as many samples."""
    some = settings(label_shift=2.0, target_samples=9, source_samples=3, validation=0.0)
    pair, _ = load_pair(some, [4], CPU, F64, oracle=True)
    assert torch.equal(pair.source.images, pair.target.images) and len(pair.source.labels) == 17
    assert len(pair.source_pools[0]) == 9
    assert sets(pair.source_pools) == sets(pair.target_pools)  # what the others adapt to
    _, target = domains(some)
    assert torch.equal(pair.source.labels, target.train.labels)


@pytest.mark.usefixtures("table")
def test_load_pair_is_make_pair_of_the_named():
    named, _ = load_pair(SETTINGS, [0], CPU, F64)
    source, target = (domain_tables.DOMAINS[name].read(None) for name in ("left", "right"))
    made, _ = make_pair(SETTINGS, source, target, [0], CPU, F64)
    assert torch.equal(named.source.images, made.source.images)
    assert torch.equal(named.target_pools[0], made.target_pools[0])


def test_settings_of_another_kind_of_domain_are_refused():
    some = AdaptationSettings("moons", "moons", size=8)
    with pytest.raises(UserError, match=r"moons is features, not images; remove benchmark\.size"):
        domains(some)
    with pytest.raises(UserError, match=r"benchmark\.counts: optdigits is no domain of counts"):
        domains(AdaptationSettings("optdigits", "optdigits", counts="binary"))


def test_embedded_digits_are_a_pair():
    pair, sealed = load_pair(
        AdaptationSettings("optdigits", "optdigits", rotation=30.0, label_shift=3.0), [0], CPU, F64
    )
    assert pair.shape == (1, 8, 8) and pair.classes == 10
    counts = sealed.open(Frozen(WEIGHTS)).test.labels.bincount()
    assert counts[0] == 50 and counts[9] == 16 and (counts.diff() <= 0).all()
