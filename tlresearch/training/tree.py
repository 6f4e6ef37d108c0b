"""Nested dicts, lists and (named) tuples of tensors: a method's state, stacked over seeds."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Tree = Any
"""Nested dicts, lists, tuples and NamedTuples whose leaves are tensors or None."""


def take(tree: Tree, index: int) -> Tree:
    """The slice of one seed: `leaf[index]` of every leaf, sharing memory with the stack."""
    return pytree.tree_map(lambda leaf: leaf[index] if isinstance(leaf, Tensor) else leaf, tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """One tree whose leaves have a leading seed dimension.

    Raises:
        ValueError: the trees differ in structure, so the seeds cannot be one program.
    """
    leaves, specs = zip(*(pytree.tree_flatten(tree) for tree in trees), strict=True)
    if any(spec != specs[0] for spec in specs):
        raise ValueError("the states of the seeds differ in structure and cannot be stacked")
    columns = [
        torch.stack(column) if isinstance(column[0], Tensor) else column[0]
        for column in zip(*leaves, strict=True)
    ]
    return pytree.tree_unflatten(columns, specs[0])


def tensors(tree: Tree) -> list[Tensor]:
    """The tensors of a tree, in its order."""
    return [leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor)]


def to_plain(tree: Tree) -> Tree:
    """The same tree of dicts and lists only, so that `torch.load(weights_only=True)` reads it."""
    if isinstance(tree, dict):
        return {key: to_plain(value) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):
        return {field: to_plain(value) for field, value in tree._asdict().items()}  # type: ignore[attr-defined]
    if isinstance(tree, list | tuple):
        return [to_plain(value) for value in tree]
    return tree


def from_plain(plain: Tree, like: Tree) -> Tree:
    """The inverse of `to_plain`, with the types (not the shapes) of `like`.

    A dict in `like` lends its type only: its keys may be others in `plain`.
    """
    if isinstance(like, tuple) and hasattr(like, "_fields"):
        fields = {
            f: from_plain(plain[f], value)
            for f, value in like._asdict().items()  # type: ignore[attr-defined]
        }
        return type(like)(**fields)
    if isinstance(like, dict):
        return {key: from_plain(value, like.get(key)) for key, value in plain.items()}
    if isinstance(like, list | tuple):
        return type(like)(from_plain(a, b) for a, b in zip(plain, like, strict=True))
    return plain
