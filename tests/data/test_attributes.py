"""The published attribute files, on small ones in their layout."""

from pathlib import Path

import pytest

from tlresearch.data.attributes import read_awa2, read_cub
from tlresearch.errors import UserError

AWA2 = {
    "classes.txt": "         1\tantelope\n         2\tgrizzly+bear\n         3\tkiller+whale\n",
    "predicates.txt": "         1\tblack\n         2\twhite\n",
    "predicate-matrix-continuous.txt": "   -1.00   12.34\n   39.25    1.39 \n   83.40   64.79\n",
    "trainclasses.txt": "killer+whale\nantelope\n",
    "testclasses.txt": "grizzly+bear\n",
}
CUB = {
    "CUB_200_2011/classes.txt": "1 001.Black_footed_Albatross\n2 002.Laysan_Albatross\n",
    "attributes.txt": "1 has_bill_shape::curved_(up_or_down)\n2 has_bill_shape::dagger\n"
    "3 has_wing_color::blue\n",
    "CUB_200_2011/attributes/class_attribute_labels_continuous.txt": "0.0 2.8 97.1\n1.5 0 3\n",
}


def write(folder: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_awa2(tmp_path):
    """Rows are classes, in the order of classes.txt; the split's files have an order of theirs."""
    table = read_awa2(write(tmp_path, AWA2))
    assert table.class_names == ("antelope", "grizzly+bear", "killer+whale")
    assert table.attribute_names == ("black", "white")
    assert table.values.tolist() == [[-1, 12.34], [39.25, 1.39], [83.4, 64.79]]
    assert (table.train_classes, table.test_classes) == ((2, 0), (1,))


@pytest.mark.parametrize("place", ["", "CUB_200_2011/", "CUB_200_2011/attributes/"])
def test_cub(tmp_path, place):
    """The attributes' names lie beside the folder in the archive, and elsewhere in copies of it."""
    files = dict(CUB)
    files[f"{place}attributes.txt"] = files.pop("attributes.txt")
    table = read_cub(write(tmp_path, files) / "CUB_200_2011")
    assert table.class_names == ("001.Black_footed_Albatross", "002.Laysan_Albatross")
    assert table.attribute_names[0] == "has_bill_shape::curved_(up_or_down)"
    assert table.values.tolist() == [[0.0, 2.8, 97.1], [1.5, 0.0, 3.0]]
    assert table.train_classes == ()


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("classes.txt", "0\tantelope\n1\tgrizzly+bear\n2\tkiller+whale\n", "'1 NAME', counted"),
        ("classes.txt", "1\ta\n2\ta\n3\tb\n", "2 names in 3 lines"),
        ("predicates.txt", "", "0 names in 0 lines"),
        ("predicates.txt", "1\tblack\n", "3 lines of 2 numbers where 3 classes of 1 attributes"),
        ("predicate-matrix-continuous.txt", "1 2\n3 4\n", "2 lines of 2 numbers"),
        ("predicate-matrix-continuous.txt", "1 2\n3\n4 5\n", "of 1 or 2 numbers"),
        ("predicate-matrix-continuous.txt", "1 2\n3 x\n4 5\n", "a word"),
        ("predicate-matrix-continuous.txt", "1 2\n3 nan\n4 5\n", "NaN or infinity"),
        ("testclasses.txt", "yeti\n", "the class 'yeti'"),
        ("testclasses.txt", "antelope\n", "the training class 'antelope'"),
        ("trainclasses.txt", "antelope\nantelope\n", "a class twice"),
    ],
)
def test_what_does_not_fit_is_one_sentence(tmp_path, name, text, said):
    """It names the file, what was found and what was expected."""
    folder = write(tmp_path, AWA2 | {name: text})
    with pytest.raises(UserError, match=r"is damaged: .*was expected; replace it") as error:
        read_awa2(folder)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_missing_and_unreadable_files(tmp_path):
    folder = write(tmp_path, AWA2)
    (folder / "predicates.txt").write_bytes(b"1\t\xff\xfe\n")
    with pytest.raises(UserError, match=r"predicates\.txt is damaged: unreadable data"):
        read_awa2(folder)
    (folder / "predicates.txt").unlink()
    with pytest.raises(UserError, match=r"lacks the file predicates\.txt"):
        read_awa2(folder)
