"""Subspace alignment against its objective, the covariance's eigenvectors, and skada."""

import numpy as np
import pytest
import torch
from shallow_domains import assert_differs_from_none, assert_order_of_samples_has_no_part, domains
from shallow_domains import fitted as fit

from tlresearch.adaptation.subspace_alignment import (
    SubspaceAlignment,
    alignment_matrix,
    subspace,
)
from tlresearch.errors import UserError

OF, DIM = domains(), 2


def test_the_subspace_is_that_of_the_largest_variances():
    """Eigenvectors of the covariance, the largest first, up to sign."""
    basis = subspace(OF.source, DIM)
    values, vectors = np.linalg.eigh(np.cov(OF.source.T))
    assert values[-1] > values[-2] > values[-3]
    for place in range(DIM):
        assert abs(basis[:, place] @ vectors[:, -1 - place]) == pytest.approx(1)
    np.testing.assert_allclose(basis.T @ basis, np.eye(DIM), atol=1e-12)


def test_the_matrix_is_the_least_squares_solution():
    """argmin ‖X_S M − X_T‖, by a solver that knows nothing of orthonormal columns."""
    of_source, of_target = subspace(OF.source, DIM), subspace(OF.target, DIM)
    expected = np.linalg.lstsq(of_source, of_target, rcond=None)[0]
    np.testing.assert_allclose(alignment_matrix(of_source, of_target), expected, atol=1e-12)


def test_similarity_is_the_papers():
    """Sim(y_S, y_T) = (y_S X_S) M (y_T X_T)ᵀ of centred samples, pair by pair."""
    of_source, of_target = subspace(OF.source, DIM), subspace(OF.target, DIM)
    found = fit(SubspaceAlignment(dim=DIM), OF)
    ours = (
        found.source_features(torch.from_numpy(OF.source))
        @ found.features(torch.from_numpy(OF.target)).T
    )
    for i in range(4):
        for j in range(4):
            a = (OF.source[i] - OF.source.mean(0)) @ of_source
            b = (OF.target[j] - OF.target.mean(0)) @ of_target
            m = of_source.T @ of_target
            assert ours[i, j].item() == pytest.approx(a @ m @ b)


def test_equal_domains_are_projected_alike():
    """M = I where source and target are the same."""
    found = SubspaceAlignment(dim=DIM).align(OF.source, OF.y, OF.source)
    np.testing.assert_allclose(found.source(OF.source), found.target(OF.source), atol=1e-12)


def test_skadas_adapter():
    skada = pytest.importorskip("skada")
    x, sign = np.concatenate([OF.source, OF.target]), np.repeat([1, -2], [36, 30])
    adapted = skada.SubspaceAlignmentAdapter(n_components=DIM).fit_transform(x, sample_domain=sign)
    ours = SubspaceAlignment(dim=DIM).align(OF.source, OF.y, OF.target)
    together = np.concatenate([ours.source(OF.source), ours.target(OF.target)])
    signs = np.sign((together * adapted).sum(0))
    np.testing.assert_allclose(together * signs, adapted, atol=1e-9)


def test_it_is_no_no_op_and_knows_no_order():
    assert_differs_from_none(SubspaceAlignment(dim=DIM), OF)
    assert_order_of_samples_has_no_part(SubspaceAlignment(dim=DIM), OF)


def test_too_many_dimensions_are_refused():
    with pytest.raises(UserError, match=r"^dim: 6 components .* at most 5$"):
        SubspaceAlignment(dim=6).align(OF.source, OF.y, OF.target)
    with pytest.raises(UserError, match=r"in 3 samples \(36 of the source, 3 of the target\)"):
        SubspaceAlignment(dim=4).align(OF.source, OF.y, OF.target[:3])
