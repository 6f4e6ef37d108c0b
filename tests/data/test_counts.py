"""What is made of counts, against scikit-learn and plain loops."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.feature_extraction.text import TfidfTransformer

from tlresearch.data.counts import EXACT, tfidf, transformed, zscore


def table(rows: int, seed: int) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.poisson(0.7, (rows, 6)).astype(np.float16))


TRAIN, TEST = table(12, 0), table(5, 1)


def test_raw_and_binary():
    train, test = transformed("raw", TRAIN, TEST)
    assert train is TRAIN and test is TEST
    train, test = transformed("binary", TRAIN, TEST)
    assert train.dtype == torch.float16 and test.tolist() == TEST.clamp(max=1).tolist()
    assert set(train.unique().tolist()) == {0, 1}


def test_tfidf_is_scikit_learns():
    train, test = transformed("tfidf", TRAIN, TEST)
    theirs: Any = TfidfTransformer().fit(TRAIN.double().numpy())
    for ours, counts in ((train, TRAIN), (test, TEST)):
        expected = theirs.transform(counts.double().numpy()).toarray()
        np.testing.assert_allclose(ours, expected, atol=1e-6)
    assert ours.dtype == torch.float32


def test_zscore_by_a_loop():
    """Rows to sum 1, then columns to mean 0 and deviation 1 by the training part's numbers."""
    train, test = transformed("zscore", TRAIN, TEST)
    own = [row / sum(row) for row in TRAIN.double().numpy()]
    for column in range(6):
        values = [row[column] for row in own]
        mean = sum(values) / 12
        deviation = (sum((v - mean) ** 2 for v in values) / 12) ** 0.5
        for ours, counts in ((train, TRAIN), (test, TEST)):
            for row, found in zip(counts.double().numpy(), ours[:, column], strict=True):
                assert found.item() == pytest.approx(
                    (row[column] / sum(row) - mean) / deviation, abs=1e-5
                )
    assert train.mean(0).abs().max() < 1e-6
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(6), atol=1e-5, rtol=0)


def test_empty_rows_and_constant_columns_are_zero():
    counts = torch.tensor([[0.0, 0, 0], [1, 1, 0], [3, 1, 0]])
    for kind in ("tfidf", "zscore"):
        train, none = transformed(kind, counts, counts[:0])
        assert train.isfinite().all() and none.shape == (0, 3)
    assert tfidf(counts, counts)[0].tolist() == [0, 0, 0]
    assert zscore(counts, counts)[:, 2].tolist() == [0, 0, 0]


def test_float16_holds_counts_exactly_up_to_its_limit():
    whole = torch.arange(EXACT + 1)
    assert (
        torch.equal(whole.half().long(), whole)
        and torch.tensor(EXACT + 1).half().item() != EXACT + 1
    )
