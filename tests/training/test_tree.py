"""Trees of tensors: sliced, stacked, made plain and back."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tlresearch.training import tree


class Pair(NamedTuple):
    weights: dict[str, Tensor]
    count: Tensor


def make(number: float) -> dict:
    """A tree with every kind of node, its leaves filled with one number."""
    full = torch.full((2, 3), number)
    pair = Pair({"a": full, "b": full[0]}, torch.tensor(number))
    return {"pair": pair, "row": [full, (full[1], None)]}


def same(a: object, b: object) -> None:
    """Equal in types, keys and tensors."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert isinstance(b, Tensor)
        assert torch.equal(a, b)
    elif isinstance(a, dict):
        assert isinstance(b, dict)
        assert list(a) == list(b)
        for key in a:
            same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert isinstance(b, list | tuple)
        assert len(a) == len(b)
        for one, other in zip(a, b, strict=True):
            same(one, other)
    else:
        assert a == b


def test_slices_of_a_stack_are_what_was_stacked():
    """take(stack(trees), i) is trees[i], with a leading seed dimension between."""
    trees = [make(1.0), make(2.0), make(3.0)]
    stacked = tree.stack(trees)
    assert stacked["pair"].weights["a"].shape == (3, 2, 3)
    assert stacked["pair"].count.tolist() == [1.0, 2.0, 3.0]
    for place, alone in enumerate(trees):
        same(tree.take(stacked, place), alone)


def test_a_slice_shares_memory_with_its_stack():
    """Written to the slice, read in the stack."""
    stacked = tree.stack([make(1.0), make(2.0)])
    tree.take(stacked, 1)["row"][0].fill_(9.0)
    assert stacked["row"][0][1].eq(9).all()
    assert stacked["row"][0][0].eq(1).all()


def test_trees_of_different_structure_are_not_stacked():
    """One seed with a penalty and one without cannot be one program."""
    with pytest.raises(ValueError, match="differ in structure"):
        tree.stack([make(1.0), make(1.0) | {"more": torch.zeros(1)}])


def test_tensors_are_the_leaves():
    """In the tree's order, without None."""
    full = make(4.0)
    found = tree.tensors(full)
    assert [t.dim() for t in found] == [2, 1, 0, 2, 1]
    assert found[0] is full["pair"].weights["a"]


def test_a_plain_tree_has_dicts_and_lists_only():
    """Named tuples by field, tuples as lists."""
    plain = tree.to_plain(make(1.0))
    assert type(plain["pair"]) is dict
    assert list(plain["pair"]) == ["weights", "count"]
    assert type(plain["row"][1]) is list


def test_a_plain_tree_goes_back():
    """from_plain gives the types of `like`, whose numbers and shapes do not matter."""
    like = {"pair": Pair({"a": torch.zeros(1), "b": torch.zeros(1)}, torch.zeros(()))}
    like |= {"row": [torch.zeros(1), (torch.zeros(1), None)]}
    same(tree.from_plain(tree.to_plain(make(5.0)), like), make(5.0))


def test_an_empty_dict_takes_any_keys():
    """As EWC's state before the first task reads the one after it."""
    like = Pair({}, torch.zeros(()))
    state = Pair({"w": torch.ones(2)}, torch.tensor(7.0))
    same(tree.from_plain(tree.to_plain(state), like), state)
