"""CORAL against its definition, skada, and a case worked by hand."""

import numpy as np
import pytest
import torch
from shallow_domains import assert_differs_from_none, assert_order_of_samples_has_no_part, domains
from shallow_domains import fitted as fit

from tlresearch.adaptation.coral import CORAL, power, recolouring, spectrum
from tlresearch.errors import UserError

OF = domains()


def test_the_source_gets_the_targets_covariance_and_mean():
    """With r = 0 exactly: that is what whitening and re-colouring are for."""
    moved = fit(CORAL(ridge=0.0), OF).source_features(torch.from_numpy(OF.source)).numpy()
    np.testing.assert_allclose(np.cov(moved.T), np.cov(OF.target.T), atol=1e-9)
    np.testing.assert_allclose(moved.mean(0), OF.target.mean(0), atol=1e-9)
    assert not np.allclose(np.cov(OF.source.T), np.cov(OF.target.T), atol=0.5)


@pytest.mark.parametrize("ridge", [0.3, 1.0])
@pytest.mark.parametrize("samples", [None, 4])
def test_a_ridge_is_added_to_both_covariances(ridge: float, samples: int | None):
    """Aᵀ (C_S + r I) A = C_T + r I, with fewer samples than features, too."""
    source, target = OF.source[:samples], OF.target[1:][:samples]
    a, identity = recolouring(source, target, ridge), np.eye(5)
    whole = a.T @ (np.cov(source.T) + ridge * identity) @ a
    np.testing.assert_allclose(whole, np.cov(target.T) + ridge * identity, atol=1e-9)


def test_one_feature_by_hand():
    """Variances 2 and 8, r = 1: the factor is √(9 / 3)."""
    source, target = np.array([[-1.0], [1.0]]), np.array([[3.0], [7.0]])
    np.testing.assert_allclose(recolouring(source, target, 1.0), [[3**0.5]])
    moved = fit(CORAL(), domains(dim=1)).alignment.source(np.array([[0.0]]))
    assert moved.shape == (1, 1)
    map_ = CORAL().align(source, np.array([0, 1]), target)
    np.testing.assert_allclose(map_.source(source), 5 + 3**0.5 * source)
    np.testing.assert_array_equal(map_.target(target), target)


@pytest.mark.parametrize("samples", [None, 4])
def test_powers_by_a_plain_product(samples: int | None):
    """The root's square and the inverse root's are what they should be."""
    x = OF.source[:samples]
    c = np.cov(x.T) + 0.2 * np.eye(5)
    root, inverse = (power(*spectrum(x), 0.2, exponent) for exponent in (0.5, -0.5))
    np.testing.assert_allclose(root @ root, c, atol=1e-10)
    np.testing.assert_allclose(inverse @ c @ inverse, np.eye(5), atol=1e-9)


def test_skadas_adapter_without_shrinkage():
    """skada 0.6 centres both domains where we move one to the other; by default it shrinks."""
    skada = pytest.importorskip("skada")
    x = np.concatenate([OF.source, OF.target])
    sign = np.repeat([1, -2], [len(OF.source), len(OF.target)])
    adapted = skada.CORALAdapter(reg=None).fit_transform(x, sample_domain=sign)[: len(OF.source)]
    ours = CORAL(ridge=0.0).align(OF.source, OF.y, OF.target).source(OF.source)
    # skada's covariance divides by n, ours by n − 1.
    factor = np.sqrt((1 - 1 / len(OF.source)) / (1 - 1 / len(OF.target)))
    np.testing.assert_allclose((ours - OF.target.mean(0)) * 1 / factor, adapted, atol=1e-6)


def test_it_is_no_no_op_and_knows_no_order():
    assert_differs_from_none(CORAL(), OF)
    assert_order_of_samples_has_no_part(CORAL(), OF)


def test_a_source_without_an_inverse_is_refused():
    with pytest.raises(UserError, match=r"^ridge: the source's covariance has no inverse; set it"):
        CORAL(ridge=0.0).align(OF.source[:3], OF.y[:3], OF.target)
    with pytest.raises(UserError, match="two samples of each domain"):
        CORAL().align(OF.source, OF.y, OF.target[:1])
