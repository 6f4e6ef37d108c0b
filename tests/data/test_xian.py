"""Xian's .mat files, on a small data set written in their layout."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

from tlresearch.data import xian
from tlresearch.data.zero_shot import classes_in, validation_split
from tlresearch.errors import UserError

CLASSES, EACH, DIM = 5, 4, 3
NAMES = ["antelope", "grizzly+bear", "killer+whale", "beaver", "dalmatian"]


def column(values: Any) -> np.ndarray:
    return np.array(values, dtype=np.float64).reshape(-1, 1)


def contents() -> tuple[dict[str, Any], dict[str, Any]]:
    """Image i (from 1) is of class (i − 1) % 5 + 1, and its first feature is i.

    Class 5 is unseen, class 4 for validation; `train_loc` and `val_loc` reach into `test_seen_loc`,
    as in published files.
    """
    images = np.arange(1, CLASSES * EACH + 1)
    labels = (images - 1) % CLASSES + 1
    features = np.zeros((DIM, len(images)))
    features[0] = images
    names = np.empty((CLASSES, 1), dtype=object)
    names[:, 0] = [np.array([name]) for name in NAMES]
    att = np.arange(CLASSES * 2, dtype=np.float64).reshape(CLASSES, 2).T
    test_seen = images[(labels < 5) & (images > 15)]
    trainval = images[(labels < 5) & (images <= 15)]
    splits = {
        "att": att / np.linalg.norm(att, axis=0),
        "original_att": att,
        "allclasses_names": names,
        "trainval_loc": column(trainval),
        "train_loc": column(images[labels < 4]),
        "val_loc": column(images[labels == 4]),
        "test_seen_loc": column(test_seen),
        "test_unseen_loc": column(images[labels == 5]),
    }
    files = np.empty((len(images), 1), dtype=object)
    files[:, 0] = [f"/a/{i}.jpg" for i in images]
    return {"features": features, "labels": column(labels), "image_files": files}, splits


def write(folder: Path, features: dict[str, Any], splits: dict[str, Any]) -> str:
    """The name of the data set that the files are."""
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / xian.FEATURES, features, do_compression=True)
    scipy.io.savemat(folder / xian.SPLITS, splits)
    return f"xian:{folder}"


def test_features_attributes_and_split(tmp_path):
    """Everything counts from 0 now: the feature of an image tells which one it was."""
    data = xian.load(write(tmp_path, *contents()))
    first = data.inputs[:, 0, 0, 0]
    assert data.shape == (DIM, 1, 1) and first.tolist() == list(range(1, 21))
    assert (data.labels == (first.long() - 1) % CLASSES).all()
    assert first[data.split.train].tolist() == [1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14]
    assert first[data.split.test_seen].tolist() == [16, 17, 18, 19]
    assert first[data.split.test_unseen].tolist() == [5, 10, 15, 20]
    assert data.class_names == tuple(NAMES) and data.validation_classes == (3,)
    assert data.attributes.shape == (CLASSES, 2)
    assert data.attributes.norm(dim=1).tolist() == pytest.approx([1] * CLASSES)
    assert data.attributes[1].tolist() == pytest.approx([2 / 13**0.5, 3 / 13**0.5])


def test_a_selection_does_not_follow_locs_into_the_test(tmp_path):
    """train_loc and val_loc have images of test_seen_loc; a selection has none."""
    data = xian.load(write(tmp_path, *contents()))
    split = validation_split(data, 0.3)
    looked_at = {i for part in split for i in part.tolist()}
    assert looked_at == set(data.split.train.tolist())
    assert classes_in(data.labels, split.test_unseen).tolist() == [3]


def test_validation_classes_by_name_where_val_loc_lacks(tmp_path):
    features, splits = contents()
    del splits["val_loc"], splits["train_loc"]
    name = write(tmp_path, features, splits)
    with pytest.raises(UserError, match=r"has no val_loc, and .*valclasses1\.txt cannot be read"):
        xian.load(name)
    (tmp_path / xian.VALIDATION).write_text("killer+whale\nantelope\n")
    assert xian.load(name).validation_classes == (0, 2)
    (tmp_path / xian.VALIDATION).write_text("yeti\n")
    with pytest.raises(UserError, match="the class 'yeti'"):
        xian.load(name)


def test_sizes_and_fingerprint_without_reading(tmp_path):
    features, splits = contents()
    name = write(tmp_path / "a", features, splits)
    assert xian.sizes(name) == ((DIM, 1, 1), CLASSES)
    assert xian.load(name).fingerprint == xian.fingerprint(name)
    features["features"][1, 1] += 1
    assert xian.fingerprint(write(tmp_path / "b", features, splits)) != xian.fingerprint(name)


def test_named_sets_lie_under_the_root(tmp_path, monkeypatch):
    write(tmp_path / "xlsa17/data/AWA2", *contents())
    assert xian.load("awa2", tmp_path).found == str(tmp_path / "xlsa17/data/AWA2")
    with pytest.raises(UserError, match=r"CUB lacks res101\.mat and att_splits\.mat; unpack"):
        xian.load("cub", tmp_path)
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    with pytest.raises(UserError, match="neither --data nor TLRESEARCH_DATA names a ROOT"):
        xian.load("awa2")


@pytest.mark.parametrize(
    ("file", "key", "change", "said"),
    [
        (0, "labels", lambda v: v - 1, "the label 0 where a label from 1 to 5"),
        (0, "labels", lambda v: v + 1, "the label 6"),
        (0, "labels", lambda v: v[:-1], "19 labels where one for each of 20 images"),
        (0, "labels", lambda v: v + 0.5, "labels with fractions"),
        (0, "features", lambda v: v * np.nan, "features with NaN"),
        (0, "features", lambda v: v[:, :-1], "20 labels where one for each of 19 images"),
        (1, "trainval_loc", lambda v: v - 1, "trainval_loc with the image 0 where a number from 1"),
        (1, "test_unseen_loc", lambda v: v + 1, "test_unseen_loc with the image 21"),
        (1, "att", lambda v: v[:, :-1], "5 class names where one for each of 4 columns"),
        (1, "att", lambda v: np.array("text"), "att as an array"),
        (1, "test_seen_loc", lambda v: v - 1, "class 4 (counted from 0) has images in test_seen"),
        (1, "test_seen_loc", lambda v: v - 15, "4 images are in the parts train and test_seen"),
        (1, "test_unseen_loc", lambda v: v - 1, "class 3 (counted from 0) has images in train"),
        (1, "val_loc", lambda v: v + 1, "of 1 validation classes 0 are among the 4 seen ones"),
        (1, "test_seen_loc", None, "a file without test_seen_loc"),
        (1, "att", None, "a file without att"),
        (0, "labels", None, "a file without labels"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, file, key, change, said):
    """Counting from 0 is found where it leaves the range, or where the parts stop fitting."""
    both = contents()
    if change is None:
        del both[file][key]
    else:
        both[file][key] = change(both[file][key])
    name = write(tmp_path, *both)
    with pytest.raises(UserError) as error:
        xian.load(name)
    assert said in str(error.value) and str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damage", [b"", b"no .mat file at all, but a text" * 20, None])
def test_damaged_files_are_one_sentence(tmp_path, damage):
    """Empty, of another kind, and cut short; for the heads, too."""
    name = write(tmp_path, *contents())
    path = tmp_path / xian.FEATURES
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage is None else damage)
    with pytest.raises(UserError, match=r"res101\.mat is damaged: .*replace it by the original$"):
        xian.load(name)
    if damage is not None:
        with pytest.raises(UserError, match=r"res101\.mat is damaged"):
            xian.sizes(name)
