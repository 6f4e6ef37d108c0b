"""TCA against its eigenproblem with the kernel written out, its constraint, limits and skada."""

from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from shallow_domains import assert_differs_from_none, assert_order_of_samples_has_no_part, domains
from shallow_domains import fitted as fit

from tlresearch.adaptation.tca import TCA, at_length_one, components
from tlresearch.errors import UserError

OF, MU, DIM = domains(), 0.3, 3
X = np.concatenate([OF.source, OF.target])
N, K = len(OF.source), len(OF.target)


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """K L K / ‖L‖ + μ I, K H K and K, entry by entry as the paper defines L and H."""
    kernel = X @ X.T
    ell = np.empty((N + K, N + K))
    for i in range(N + K):
        for j in range(N + K):
            same = (i < N) == (j < N)
            ell[i, j] = (1 / (N * N if i < N else K * K)) if same else -1 / (N * K)
    centring = np.eye(N + K) - 1 / (N + K)
    within = kernel @ ell @ kernel / np.linalg.norm(ell) + MU * np.eye(N + K)
    return within, kernel @ centring @ kernel, kernel


def embedded(scale: Any = "variance", dim: int = DIM) -> np.ndarray:
    return X @ components(OF.source, OF.target, dim, MU, scale)


def test_the_eigenproblem_of_the_paper():
    """W from the whole n + k dimensional problem spans the same, component by component."""
    within, total, kernel = matrices()
    values, vectors = scipy.linalg.eigh(total, within)
    for place in range(DIM):
        w, ours = vectors[:, -1 - place], embedded()[:, place]
        residual = total @ w - values[-1 - place] * within @ w
        assert np.abs(residual).max() < 1e-6 * values[-1]
        theirs = kernel @ w
        cosine = ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs)
        assert abs(abs(cosine) - 1) < 1e-8


def test_the_constraint_holds():
    """Wᵀ K H K W = I: uncorrelated components of equal variance; or ‖w‖ = 1."""
    z = embedded()
    np.testing.assert_allclose(z.T @ (z - z.mean(0)), np.eye(DIM), atol=1e-8)
    _, _, kernel = matrices()
    # K w = z has the one solution in K's range that has the least length.
    w = np.linalg.lstsq(kernel, embedded("length"), rcond=1e-10)[0]
    np.testing.assert_allclose(np.linalg.norm(w, axis=0), 1, atol=1e-6)


def test_no_other_directions_reach_the_objective():
    """tr(Wᵀ(KLK/‖L‖ + μI)W) under the constraint is least: random feasible W are worse."""
    within, total, kernel = matrices()
    rng = np.random.default_rng(0)

    def value(w: np.ndarray) -> float:
        return np.trace(w.T @ within @ w)

    w = np.linalg.lstsq(kernel, embedded(), rcond=1e-10)[0]
    for _ in range(50):
        other = w + 0.1 * rng.normal() * X @ rng.normal(size=(X.shape[1], DIM))
        root = np.linalg.cholesky(other.T @ total @ other)
        assert value(other @ np.linalg.inv(root).T) > value(w)


def test_the_means_meet_as_mu_falls():
    """The weight of ‖W‖ gone, what is left is the distance of the means."""

    def apart(mu: float) -> float:
        z = X @ components(OF.source, OF.target, DIM, mu, "variance")
        return float(np.linalg.norm(z[:N].mean(0) - z[N:].mean(0)))

    assert apart(1e-6) < 1e-4 < 0.05 < apart(1e6)


def test_without_a_gap_it_is_kernel_pca():
    """Equal domains have L's part 0: the leading principal components."""
    same = components(OF.source, OF.source, 2, MU, "variance")
    axes = np.linalg.svd(OF.source - OF.source.mean(0), full_matrices=False)[2][:2]
    # Kernel PCA of K H K w = λ w: the same space where X is centred.
    centred = OF.source - OF.source.mean(0)
    found = components(centred, centred, 2, MU, "variance")
    spans = np.linalg.qr(found)[0]
    np.testing.assert_allclose(spans @ spans.T, axes.T @ axes, atol=1e-8)
    assert same.shape == found.shape


def test_more_numbers_than_samples():
    """d above n + k: the range of X is what counts."""
    wide = domains(n=6, k=5, dim=40)
    z = np.concatenate([wide.source, wide.target]) @ components(
        wide.source, wide.target, 4, MU, "variance"
    )
    np.testing.assert_allclose(z.T @ (z - z.mean(0)), np.eye(4), atol=1e-7)


def test_lengths():
    """By default inputs and embedded samples have length 1; 0 stays 0, and no NaN."""
    z = fit(TCA(dim=DIM), OF).features(torch.from_numpy(OF.target)).numpy()
    np.testing.assert_allclose(np.linalg.norm(z, axis=1), 1)
    scaled = fit(TCA(dim=DIM), OF).features(torch.from_numpy(3 * OF.target)).numpy()
    np.testing.assert_allclose(scaled, z)
    assert at_length_one(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]
    plain = fit(TCA(dim=DIM, unit=False, mu=MU), OF).features(torch.from_numpy(OF.target))
    np.testing.assert_allclose(np.abs(plain.numpy()), np.abs(embedded()[N:]), atol=1e-10)


def test_skadas_components_do_not_solve_the_problem():
    """skada 0.6 hands a matrix that is not symmetric to `eigh`: a reason to have our own."""
    skada = pytest.importorskip("skada")
    sign = np.repeat([1, -2], [N, K])
    adapter = skada.TransferComponentAnalysisAdapter(kernel="linear", n_components=1, mu=1 / MU)
    adapter.fit(X, sample_domain=sign)
    within, total, _ = matrices()
    _, _, kernel = matrices()
    ell = (within - MU * np.eye(N + K)) * (1 / N + 1 / K)  # skada's has no ‖L‖
    theirs = ell / MU + np.eye(N + K)
    best = scipy.linalg.eigh(total, theirs, eigvals_only=True)[-1]
    w = adapter.eigvects_[:, 0]
    assert (w @ total @ w) / (w @ theirs @ w) < 0.99 * best
    ours = components(OF.source, OF.target, 1, MU / (1 / N + 1 / K), "length")
    u = np.linalg.lstsq(kernel, X @ ours, rcond=1e-10)[0][:, 0]
    np.testing.assert_allclose((u @ total @ u) / (u @ theirs @ u), best, rtol=1e-6)


def test_it_is_no_no_op_and_knows_no_order():
    assert_differs_from_none(TCA(dim=DIM), OF)
    assert_order_of_samples_has_no_part(TCA(dim=DIM), OF)


def test_too_many_components_are_refused():
    with pytest.raises(UserError, match=r"^dim: 6 components .* with 5 numbers.* at most 5$"):
        TCA(dim=6).align(OF.source, OF.y, OF.target)
    few = domains(n=3, k=3, dim=30)
    with pytest.raises(UserError, match=r"in 6 samples \(3 of the source, 3 .* at most 6$"):
        TCA(dim=7).align(few.source, few.y, few.target)
