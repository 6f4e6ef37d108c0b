"""Omniglot's layouts, on drawings made here in the published layout, and the real ones."""

import io
import os
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlresearch.data import catalogue, omniglot
from tlresearch.data.checksums import file_digest
from tlresearch.errors import UserError

DATA = os.environ.get("TLRESEARCH_DATA")
# Two characters, then one: an alphabet whose name sorts before that of the one in front of it.
SMALL = {"background": {"Zeta": 2, "Alpha": 1}, "evaluation": {"Beta": 1}}
CHARACTERS = {"images_background": 3, "images_evaluation": 1}
SIDE, DRAWERS = omniglot.SIDE, omniglot.DRAWERS


@pytest.fixture
def ink(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, np.ndarray]]:
    """True where there is ink, (characters, drawers, rows, columns), of a very small Omniglot."""
    monkeypatch.setattr(omniglot, "ALPHABETS", SMALL)
    monkeypatch.setattr(omniglot, "CHARACTERS", (3, 1))
    generator = np.random.default_rng(0)
    yield {
        name: generator.random((count, DRAWERS, SIDE, SIDE)) < 0.1
        for name, count in CHARACTERS.items()
    }


def png(drawing: np.ndarray) -> bytes:
    """Black ink on white, one bit a pixel, as Lake published it."""
    stream = io.BytesIO()
    Image.fromarray(~drawing).save(stream, "PNG")
    return stream.getvalue()


def members(ink: dict[str, np.ndarray]) -> dict[str, bytes]:
    """File by name, spelled out: numbers run on over both sets, drawers from 1."""
    back, evaluation = ink["images_background"], ink["images_evaluation"]
    folders = {
        "images_background/Zeta/character01/0001": back[0],
        "images_background/Zeta/character02/0002": back[1],
        "images_background/Alpha/character01/0003": back[2],
        "images_evaluation/Beta/character01/0004": evaluation[0],
    }
    return {
        f"{prefix}_{drawer + 1:02d}.png": png(drawing)
        for prefix, drawings in folders.items()
        for drawer, drawing in enumerate(drawings)
    }


def write_npz(folder: Path, ink: dict[str, np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for name, drawings in ink.items():
        paper = (~drawings).view(np.uint8) * np.uint8(255)  # the published files store True as 255
        np.savez_compressed(folder / f"{name}.npz", images=paper.view(np.bool_))
    return folder


def write_tree(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zips(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True)
    for name in CHARACTERS:
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for member in sorted(files, reverse=True):
                if member.startswith(name):
                    archive.writestr(member, files[member])
    return folder


def test_all_layouts_hold_the_same(tmp_path: Path, ink: dict[str, np.ndarray]):
    files = members(ink)
    npz = write_npz(tmp_path / "npz", ink)
    tree = write_tree(tmp_path / "tree", files)
    zips = write_zips(tmp_path / "zips", files)
    read = (omniglot.read_npz_folder(npz), omniglot.read_tree_folder(tree))
    for background, evaluation in (*read, omniglot.read_zip_folder(zips)):
        for split, drawings in zip((background, evaluation), ink.values(), strict=True):
            expected = torch.from_numpy(drawings.reshape(-1, 1, SIDE, SIDE) * np.uint8(255))
            assert torch.equal(split.images, expected)
            count = len(drawings)
            assert split.labels.tolist() == [c for c in range(count) for _ in range(DRAWERS)]
    for name in CHARACTERS:
        assert omniglot.npz_digest(npz / f"{name}.npz") == omniglot.tree_digest(tree / name)
        zipped = zips / f"{name}.zip"
        assert omniglot.zip_digest(zipped) == file_digest(zipped, "md5")


def test_torchvision_numbers_the_same_drawings(tmp_path: Path, ink: dict[str, np.ndarray]):
    """Its classes and drawers come as the file system lists them; their names tell which."""
    from torchvision.datasets import Omniglot

    tree = write_tree(tmp_path / "omniglot-py", members(ink))
    theirs = Omniglot.__new__(Omniglot)
    theirs.root, theirs.background = str(tree), True
    theirs._check_integrity = lambda: True  # type: ignore[method-assign]
    Omniglot.__init__(theirs, str(tmp_path), background=True)
    ours = omniglot.read_tree(tree / "images_background")
    names = omniglot.class_names("background")
    for place in (0, 21, 45):
        picture, label = theirs[place]
        drawer = int(theirs._flat_character_images[place][0][5:7])
        number = names.index(theirs._characters[label]) * DRAWERS + drawer - 1
        expected = 255 - np.asarray(picture)
        np.testing.assert_array_equal(ours[number, 0].numpy(), expected)


def test_damage_is_one_sentence(tmp_path: Path, ink: dict[str, np.ndarray]):
    files = members(ink)
    name = "images_background/Alpha/character01/0003_20.png"
    tree = write_tree(tmp_path / "tree", files)
    (tree / name).write_bytes(files[name][:30])
    with pytest.raises(UserError, match=r"0003_20.png is damaged: unreadable data .*; replace it"):
        omniglot.read_tree_folder(tree)
    Image.new("1", (28, 28)).save(tree / name)
    with pytest.raises(UserError, match=r"0003_20.png is damaged: a picture of 28 × 28 where a P"):
        omniglot.read_tree_folder(tree)
    (tree / name).unlink()
    with pytest.raises(UserError, match=r"images_background is damaged: no file Alpha/character01"):
        omniglot.read_tree_folder(tree)

    zips = write_zips(tmp_path / "zips", {k: v for k, v in files.items() if k != name})
    with pytest.raises(UserError, match=r"images_background.zip is damaged: no member images_back"):
        omniglot.read_zip_folder(zips)
    (zips / "images_background.zip").write_bytes(b"no zip")
    with pytest.raises(UserError, match=r"images_background.zip is damaged: unreadable data"):
        omniglot.read_zip_folder(zips)

    npz = tmp_path / "images_background.npz"
    np.savez(npz, images=np.zeros((2, 20, 28, 28), bool))
    with pytest.raises(
        UserError, match=r"an array bool\(2, 20, 28, 28\) where an npz with booleans"
    ):
        omniglot.read_npz(npz)
    npz.write_bytes(npz.read_bytes()[:-60])
    with pytest.raises(UserError, match=r"images_background.npz is damaged: unreadable data"):
        omniglot.read_npz(npz)


def test_a_tree_is_found_and_verified(
    tmp_path: Path, ink: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    """The folders stand where other sets have files; a missing one is named."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    tree = write_tree(tmp_path / "omniglot-py", members(ink))
    dataset = catalogue.DATASETS["omniglot"]
    layout = dataset.layouts[2]
    digests = [omniglot.tree_digest(tree / name) for name in CHARACTERS]
    layout = replace(layout, files=tuple(zip((f"{n}/" for n in CHARACTERS), digests, strict=True)))
    small = replace(dataset, layouts=(layout,), train_size=60, test_size=20)
    monkeypatch.setattr(catalogue, "DATASETS", {"omniglot": small})
    rows = catalogue.verify(tmp_path)
    assert [row["status"] for row in rows] == ["ok", "ok"]
    with pytest.raises(UserError, match=f"{tree} is damaged: other content"):
        catalogue.load("omniglot", tmp_path)  # whole, but not the published drawings
    (tree / "images_evaluation").rename(tree / "elsewhere")
    with pytest.raises(UserError, match=r"omniglot-py lacks images_evaluation/"):
        catalogue.load("omniglot", tmp_path, download=False)


def test_download_asks_torchvision_for_both_sets(
    tmp_path: Path, ink: dict[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
):
    """Its argument is `background`, not `train`; the zips that it checked are kept."""
    from tlresearch.data import sources

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = []

    def download(folder: str, background: bool, download: bool) -> None:
        asked.append(background)
        zips = Path(folder) / "omniglot-py"
        if not zips.exists():
            write_zips(zips, members(ink))

    monkeypatch.setattr("torchvision.datasets.Omniglot", download)
    place = sources.fetch(catalogue.DATASETS["omniglot"], None)
    assert asked == [True, False]
    assert place.folder == tmp_path / "cache/tlresearch/omniglot-py"
    assert sorted(path.name for path in place.folder.iterdir()) == [f"{n}.zip" for n in CHARACTERS]


def test_minimal2_reads_its_alphabets_from_lakes_file(tmp_path: Path):
    """Those of `images_background_small2.zip`; here any five with 156 characters in all."""
    five = ["Braille", "Greek", "Japanese_(katakana)", "Sanskrit", "Tagalog"]
    with pytest.raises(UserError, match=r"images_background_small2.zip, which is not in the data"):
        omniglot.minimal2_alphabets(tmp_path)
    (tmp_path / "omniglot-py").mkdir()
    path = tmp_path / "omniglot-py" / omniglot.MINIMAL_2
    for names, right in ((five, True), (five[1:], False)):
        with zipfile.ZipFile(path, "w") as archive:
            for name in reversed(names):
                archive.writestr(f"images_background_small2/{name}/character01/0001_01.png", b"")
        if right:
            assert omniglot.minimal2_alphabets(tmp_path) == five
        else:
            with pytest.raises(UserError, match=r"small2.zip is damaged: the folders"):
                omniglot.minimal2_alphabets(tmp_path)


def test_table_of_alphabets():
    """30 + 20 alphabets with 964 + 659 characters; Lake's number 709 begins the Magi's."""
    assert [len(sizes) for sizes in omniglot.ALPHABETS.values()] == [30, 20]
    assert omniglot.CHARACTERS == (964, 659)
    assert omniglot.class_names("background")[708] == "Alphabet_of_the_Magi/character01"
    assert omniglot.class_names("evaluation")[0] == "Angelic/character01"


@pytest.mark.needs_data("omniglot")
def test_the_real_drawings():
    """Ink is scarce, every class has twenty drawings, and the table is the data root's."""
    assert DATA
    data = catalogue.load("omniglot", Path(DATA), download=False, keep=False)
    assert data.train.labels.bincount().tolist() == [20] * 964
    assert data.test.labels.bincount().tolist() == [20] * 659
    assert 0 < (data.train.images == 255).double().mean() < 0.15
    listed = Path(DATA) / "omniglot" / "alphabets.csv"
    if listed.is_file():
        rows = [line.split(",") for line in listed.read_text().splitlines()[1:]]
        ours = [
            [which, name, str(size)]
            for which, sizes in omniglot.ALPHABETS.items()
            for name, size in sizes.items()
        ]
        assert [[row[0], row[1], row[4]] for row in rows] == ours
