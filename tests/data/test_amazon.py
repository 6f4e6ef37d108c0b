"""Amazon reviews: the file format, what is refused, and the real files."""

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from known_domains import CPU, F64

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data import amazon, domain_tables
from tlresearch.data.domain_files import File
from tlresearch.data.domains import Frozen
from tlresearch.data.pairs import domains, load_pair
from tlresearch.errors import UserError

LINES = "1 0:3 4:1\n-1 2:2\n1\n-1 0:1 1:1 4999:61\n"


def written(folder: Path, text: str) -> Path:
    path = folder / "books_train.svmlight"
    path.write_text(text)
    return path


def test_counts_and_labels_by_hand(tmp_path: Path):
    counts, labels = amazon.read_svmlight(written(tmp_path, LINES))
    expected = torch.zeros(4, 5000)
    expected[0, 0], expected[0, 4], expected[1, 2] = 3, 1, 2
    expected[3, 0], expected[3, 1], expected[3, 4999] = 1, 1, 61
    assert counts.dtype == torch.float16 and torch.equal(counts.float(), expected)
    assert labels.tolist() == [1, 0, 1, 0]


REFUSED = {
    "too wide": ("1 0:3 5006:1\n", "a matrix of width 5,007 where one of 5,000 columns"),
    "nan": ("1 0:3\n-1 2:1 3:nan\n", "the value nan in review 1, column 3 where a count"),
    "fraction": ("1 0:3\n-1 2:1.5\n", "the value 1.5 in review 1, column 2"),
    "negative": ("1 0:-3\n", "the value -3 in review 0, column 0"),
    "large": ("1 0:3000\n", "the value 3000 in review 0"),
    "label": ("1 0:3\n2 0:1\n", "the label 2 of review 1 where -1 or 1"),
    "label nan": ("nan 0:3\n", "the label nan of review 0"),
    "empty": ("", "an empty file"),
    "blank": ("\n \n", "an empty file"),
    "no table": ("<html>\n", "unreadable data"),
    "no column": ("1 a:3\n", "unreadable data"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_other_files_are_refused_in_one_sentence(tmp_path: Path, case: str):
    text, words = REFUSED[case]
    path = written(tmp_path, text)
    with pytest.raises(UserError) as caught:
        amazon.read_svmlight(path)
    assert words in str(caught.value) and str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A root with two domains of 4 + 4 reviews, pinned."""
    domain_tables._prepared.cache_clear()
    (tmp_path / "amazon_reviews").mkdir()
    for domain, more in (("books", ""), ("dvd", "-1 7:2\n1 7:1\n")):
        content = (LINES + more).encode()
        files = []
        for part in ("train", "test"):
            file = File(
                f"amazon_reviews/{domain}_{part}.svmlight", hashlib.sha256(content).hexdigest()
            )
            (tmp_path / file.path).write_bytes(content)
            files.append(file)
        entry = replace(amazon.ENTRIES[f"amazon_{domain}"], files=tuple(files))
        monkeypatch.setitem(amazon.ENTRIES, f"amazon_{domain}", entry)
        monkeypatch.setitem(domain_tables.DOMAINS, f"amazon_{domain}", entry)
    yield tmp_path
    domain_tables._prepared.cache_clear()


def test_the_setting_says_what_is_made_of_the_counts(small: Path):
    found = {}
    for kind in (None, "raw", "binary", "tfidf", "zscore"):
        settings = AdaptationSettings("amazon_books", "amazon_dvd", counts=kind, validation=0.0)
        pair, _ = load_pair(settings, [0], CPU, F64, small)
        assert pair.shape == (5000, 1, 1) and pair.classes == 2
        found[kind] = pair.inputs(pair.source.images).flatten(1)
    assert found["raw"][0, :5].tolist() == [3, 0, 0, 0, 1]  # not divided by 255
    assert found["binary"][0, :5].tolist() == [1, 0, 0, 0, 1]
    assert torch.equal(found[None], found["tfidf"]) and not torch.equal(found[None], found["raw"])
    assert found["tfidf"][0].norm().item() == pytest.approx(1)
    assert found["zscore"][:, 4999].mean().item() == pytest.approx(0, abs=1e-6)


def test_another_file_is_refused_after_reading(small: Path):
    path = small / "amazon_reviews/books_test.svmlight"
    path.write_text(LINES.replace("0:3", "0:4"))
    with pytest.raises(UserError, match=r"books_test.svmlight is damaged: the SHA-256 \w{12}…"):
        domain_tables.read("amazon_books", small)
    path.write_text("1 6000:1\n")  # what is wrong with it, if it can be said
    with pytest.raises(UserError, match="a matrix of width 6,001"):
        domain_tables.read("amazon_books", small)
    path.unlink()
    with pytest.raises(UserError, match=r"lacks amazon_reviews/books_test\.svmlight; put the svm"):
        domain_tables.read("amazon_books", small)


def test_without_a_data_root_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    with pytest.raises(UserError, match="neither --data nor TLRESEARCH_DATA names one"):
        domain_tables.read("amazon_kitchen", None)


@pytest.mark.needs_data("amazon_kitchen")
@pytest.mark.needs_data("amazon_dvd")
def test_real_reviews_as_logistic_regression_sees_them():
    """Binary counts, C = 1, kitchen to dvd: 73.0 % in the data root's README."""
    from sklearn.linear_model import LogisticRegression

    kitchen, dvd = domains(AdaptationSettings("amazon_kitchen", "amazon_dvd", counts="binary"))
    assert kitchen.test is not None and dvd.test is not None
    assert kitchen.train.labels.bincount().tolist() == [1000, 1000]
    sizes = domain_tables.DOMAINS["amazon_dvd"].sizes
    assert sizes == (len(dvd.train.labels), len(dvd.test.labels))
    x, y = kitchen.train.images.flatten(1).float().numpy(), kitchen.train.labels.numpy()
    rule = LogisticRegression(solver="liblinear").fit(x, y)
    tested = dvd.test.images.flatten(1).float().numpy()
    accuracy = np.mean(rule.predict(tested) == dvd.test.labels.numpy())
    assert accuracy == pytest.approx(0.730, abs=0.005)


@pytest.mark.needs_data("amazon_books")
def test_real_counts_are_kept_exactly():
    from sklearn.datasets import load_svmlight_file

    settings = AdaptationSettings("amazon_books", "amazon_books", counts="raw")
    books = domain_tables.prepared("amazon_books", None, None, settings.counts, None)
    path = Path(os.environ["TLRESEARCH_DATA"]) / "amazon_reviews/books_train.svmlight"
    matrix, _ = load_svmlight_file(str(path), n_features=5000, zero_based=True)  # type: ignore
    assert np.array_equal(books.train.images.flatten(1).numpy(), matrix.toarray())
    pair, sealed = load_pair(settings, [0], CPU, F64)  # with itself: halves
    assert len(pair.source.labels) == 1000
    assert len(sealed.open(Frozen({"w": torch.ones(1)})).test.labels) == 4465
