"""MNIST-M: the recipe by a plain loop, photographs, and the pinned result."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlresearch.data import domain_tables, mnistm
from tlresearch.data.checksums import tensor_digest
from tlresearch.errors import UserError
from tlresearch.functional import random

KEY = random.make_key(3, "test")


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).byte()


def test_blend_by_a_plain_loop(monkeypatch: pytest.MonkeyPatch):
    """|digit − patch| in whole numbers, on each channel, for photographs of several sizes."""
    monkeypatch.setattr(mnistm, "_CHUNK", 7)
    photographs = [noise(12, 15, 3), noise(9, 7, 3, seed=1), noise(5, 5, 3, seed=2)]
    digits = noise(40, 1, 5, 5, seed=4)
    blended = mnistm.blend(digits, photographs, KEY)
    assert blended.shape == (40, 3, 5, 5) and blended.dtype == torch.uint8
    places = set()
    for i in range(40):
        found = []
        for p, photograph in enumerate(photographs):
            for row in range(photograph.shape[0] - 4):
                for column in range(photograph.shape[1] - 4):
                    patch = photograph[row : row + 5, column : column + 5].permute(2, 0, 1)
                    expected = (digits[i].int() - patch.int()).abs()
                    if torch.equal(blended[i].int(), expected):
                        found.append((p, row, column))
        assert len(found) == 1  # some patch, and one only
        places |= set(found)
    assert len({p for p, _, _ in places}) == 3 and len(places) > 20


def test_a_patch_reaches_every_border():
    """A photograph of one pixel more than a digit has four places, all of which are drawn."""
    photograph = noise(6, 6, 3)
    blended = mnistm.blend(torch.zeros(200, 1, 5, 5).byte(), [photograph], KEY)
    corners = [photograph[r : r + 5, c : c + 5].permute(2, 0, 1) for r in (0, 1) for c in (0, 1)]
    counts = [sum(torch.equal(image, corner) for image in blended) for corner in corners]
    assert sum(counts) == 200 and min(counts) > 30


def test_patches_depend_on_the_key_and_the_place_alone():
    digits, photographs = noise(30, 1, 4, 4), [noise(40, 30, 3), noise(20, 20, 3)]
    whole = mnistm.blend(digits, photographs, KEY)
    assert torch.equal(mnistm.blend(digits[:10], photographs, KEY), whole[:10])
    other = mnistm.blend(digits, photographs, random.make_key(4, "test"))
    assert not torch.equal(other, whole)


def packed(path: Path, sizes: list[tuple[int, int]], kind: str = "PNG") -> list[np.ndarray]:
    """A zip of photographs; gives back their pixels by name."""
    pixels = []
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train/", "")
        for i, size in enumerate(sizes):
            pixels.append(noise(*size, 3, seed=i).numpy())
            content = io.BytesIO()
            Image.fromarray(pixels[-1]).save(content, kind)
            archive.writestr(f"train/{i}.jpg", content.getvalue())
    return pixels


def test_photographs_of_a_zip_by_name(tmp_path: Path):
    expected = packed(tmp_path / "a.zip", [(30, 40), (40, 30)])
    found = mnistm.read_zip(tmp_path / "a.zip")
    assert [np.array_equal(a, b) for a, b in zip(found, expected, strict=True)] == [True, True]


def test_other_zips_are_refused(tmp_path: Path):
    path = tmp_path / "a.zip"
    packed(path, [(30, 20)])
    with pytest.raises(UserError, match="a photograph of 30 x 20 where at least 28 x 28"):
        mnistm.read_zip(path)
    packed(path, [])
    with pytest.raises(UserError, match="an empty zip"):
        mnistm.read_zip(path)
    packed(path, [(30, 30)], "GIF")
    with pytest.raises(UserError, match="a photograph is unreadable"):
        mnistm.read_zip(path)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="unreadable data"):
        mnistm.read_zip(path)


def test_without_bsds500_the_other_name_is_offered(tmp_path: Path):
    with pytest.raises(UserError) as caught:
        domain_tables.read("mnistm", tmp_path)
    text = str(caught.value)
    assert "lacks BSDS500/train.zip" in text and "use mnistm_bundled" in text and "\n" not in text
    (tmp_path / "BSDS500").mkdir()
    packed(tmp_path / "BSDS500/train.zip", [(30, 30)])
    with pytest.raises(UserError, match=r"train\.zip is damaged: the SHA-256"):
        domain_tables.read("mnistm", tmp_path)


def test_without_scikit_image_the_sentence_says_so(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mnistm.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install scikit-learn, or put BSDS500"):
        mnistm.bundled(None)


def test_bundled_photographs_are_the_pinned_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = dict(mnistm._BUNDLED)
    monkeypatch.setattr(mnistm, "_BUNDLED", mnistm._BUNDLED[:2])  # those of scikit-learn
    assert [tuple(photograph.shape) for photograph in mnistm.bundled(None)] == [(427, 640, 3)] * 2
    monkeypatch.setattr(mnistm, "_package_folder", lambda package: tmp_path)
    for name in names:
        path = tmp_path / name.partition("/")[2]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"another")
    with pytest.raises(UserError, match=r"china\.jpg is not the photograph that was expected"):
        mnistm.bundled(None)


def test_the_two_origins_have_fingerprints_of_their_own():
    prints = {mnistm.ENTRIES[name].fingerprint for name in ("mnistm", "mnistm_bundled")}
    assert len(prints) == 2


PINNED = {
    "mnistm": "c6d0b094e209b942bfd3dc99e7f80ac6a417043e6dd664146712318cd0d1d071",
    "mnistm_bundled": "fddc769c3b590a7fbd9498d4622257adfe54b27d239036c8b8fb0a124a51b967",
}
"""SHA-256 of all images and labels."""


@pytest.mark.needs_data("mnist")
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.needs_data(name))
        for name in ("mnistm", "mnistm_bundled")
    ],
)
def test_the_real_set_is_the_pinned_one(name: str):
    """Labels are MNIST's; where a digit is paper (0) the photograph shows."""
    made = domain_tables.read(name, None)
    mnist = domain_tables.read("mnist", None)
    assert made.test is not None and mnist.test is not None
    assert torch.equal(made.train.labels, mnist.train.labels)
    assert torch.equal(made.test.labels, mnist.test.labels)
    assert made.train.images.shape == (60_000, 3, 28, 28)
    assert (
        tensor_digest(made.train.images, made.train.labels, made.test.images, made.test.labels)
        == PINNED[name]
    )
    mnistm._made.cache_clear()
