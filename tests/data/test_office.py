"""Office-Caltech-10: SURF features, photographs, features of a network, and the real files."""

import io
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
from known_domains import CPU, F64
from PIL import Image, ImageOps

from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data import domain_tables, office, office_features
from tlresearch.data.domain_files import File, digest
from tlresearch.data.domains import Frozen
from tlresearch.data.pairs import domains, load_pair
from tlresearch.errors import UserError

COUNTS = np.random.default_rng(0).poisson(0.5, (30, 800)).astype(np.uint8)
LABELS = np.arange(30).reshape(-1, 1) % 10 + 1


def surf(path: Path, counts: np.ndarray = COUNTS, labels: np.ndarray = LABELS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(path, {"fts": counts, "labels": labels}, do_compression=True)
    return path


def test_surf_counts_and_labels(tmp_path: Path):
    counts, labels = office.read_surf(surf(tmp_path / "a.mat"))
    assert np.array_equal(counts.numpy(), COUNTS) and counts.dtype == torch.float16
    assert labels.tolist() == (LABELS.ravel() - 1).tolist()


def test_other_surf_files_are_refused(tmp_path: Path):
    nan = COUNTS.astype(float)
    nan[2, 5] = np.nan
    cases = [
        (COUNTS[:, :799], LABELS, r"a matrix of shape \(30, 799\) where 800 columns"),
        (nan, LABELS, "the value nan in row 2, column 5 where a count"),
        (COUNTS, LABELS[:29], "29 labels where one for each of 30 rows"),
        (COUNTS, LABELS + 1, "a label outside 1 … 10"),
        (COUNTS[:0], LABELS[:0], "an empty matrix"),
    ]
    for counts, labels, words in cases:
        with pytest.raises(UserError, match=words):
            office.read_surf(surf(tmp_path / "a.mat", counts, labels))
    (tmp_path / "a.mat").write_bytes(b"x" * 200)
    with pytest.raises(UserError, match="unreadable data"):
        office.read_surf(tmp_path / "a.mat")
    scipy.io.savemat(tmp_path / "a.mat", {"x": 1})
    with pytest.raises(UserError, match="unreadable data"):
        office.read_surf(tmp_path / "a.mat")


def picture(size: tuple[int, int], seed: int) -> Image.Image:
    """Smooth, so that WebP keeps it nearly."""
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 256, (3, 3, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


def zipped(path: Path, members: dict[str, tuple[int, int]], kind: str = "WEBP") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w") as archive:
        for seed, (name, size) in enumerate(members.items()):
            content = io.BytesIO()
            picture(size, seed).save(content, kind, lossless=True)
            archive.writestr(name, content.getvalue())
    return path


MEMBERS = {f"dslr/{name}/frame_{i}.webp": (40 + 8 * i, 40) for name in office.NAMES for i in (0, 1)}


def test_images_are_the_squares_in_the_middle(tmp_path: Path):
    path = zipped(tmp_path / "a.zip", dict(reversed(MEMBERS.items())))
    images, labels = office.read_images(path, 20)
    assert images.shape == (20, 3, 20, 20) and labels.tolist() == [
        c for c in range(10) for _ in "ab"
    ]
    # The last of the sorted names was written first: 48 x 40, of which the middle 40 are kept.
    whole = picture((48, 40), 0).crop((4, 0, 44, 40)).resize((20, 20), Image.Resampling.BILINEAR)
    expected = torch.from_numpy(np.array(whole)).permute(2, 0, 1)
    assert (images[-1].int() - expected.int()).abs().max() <= 1  # by rounding


def test_other_zips_are_refused(tmp_path: Path):
    path = tmp_path / "a.zip"
    cases = [
        (zipped(path, {"dslr/sofa/a.webp": (9, 9)}), "the class 'sofa' where one of backpack"),
    ]
    for made, words in cases:
        with pytest.raises(UserError, match=words):
            office.read_images(made, 8)
    with pytest.raises(UserError, match=r"the class 'a\.webp'"):
        office.read_images(zipped(path, {"a.webp": (9, 9)}), 8)
    with pytest.raises(UserError, match="an empty zip"):
        office.read_images(zipped(path, {}), 8)
    with pytest.raises(UserError, match=r"dslr/mug/a\.webp is unreadable"):
        office.read_images(zipped(path, {"dslr/mug/a.webp": (9, 9)}, "PNG"), 8)
    path.write_bytes(b"no zip")
    with pytest.raises(UserError, match="unreadable data"):
        office.read_images(path, 8)


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A root with small files of dslr and webcam, pinned, and a network of two numbers."""
    domain_tables._prepared.cache_clear()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    root, entries = tmp_path / "root", {}
    for seed, domain in enumerate(("dslr", "webcam")):
        monkeypatch.setitem(office.SIZES, domain, 20)
        folder = root / "office_caltech10"
        paths = {
            f"office_surf_{domain}": surf(
                folder / f"features/surf/{domain}.mat", COUNTS[seed:20], LABELS[seed:20]
            ),
            f"office_{domain}": zipped(folder / f"images_{domain}.zip", MEMBERS),
        }
        for name, path in paths.items():
            file = File(str(path.relative_to(root)), digest(path))
            entries[name] = replace(office.ENTRIES[name], files=(file,))
            monkeypatch.setitem(office.ENTRIES, name, entries[name])
            monkeypatch.setitem(domain_tables.DOMAINS, name, entries[name])
    yield root
    domain_tables._prepared.cache_clear()


def test_surf_is_transductive_and_standardised_by_default(small: Path):
    settings = AdaptationSettings("office_surf_dslr", "office_surf_webcam", validation=0.0)
    pair, sealed = load_pair(settings, [0], CPU, F64, small)
    assert pair.shape == (800, 1, 1) and pair.classes == 10
    x = pair.source.images.flatten(1).double()
    own = torch.from_numpy(COUNTS[:20]).double()
    own = own / own.sum(1, keepdim=True)
    expected = (own - own.mean(0)) / own.std(0, correction=0)
    torch.testing.assert_close(x, expected.nan_to_num(0, 0, 0), atol=1e-5, rtol=0)
    opened = sealed.open(Frozen({"w": torch.ones(1)}))
    assert torch.equal(opened.test.images, pair.target.images) and len(opened.test.labels) == 19
    raw, _ = load_pair(replace(settings, counts="raw"), [0], CPU, F64, small)
    assert np.array_equal(raw.source.images.flatten(1).numpy(), COUNTS[:20])


def test_images_can_be_made_smaller(small: Path):
    settings = AdaptationSettings("office_dslr", "office_webcam", size=16, channels=1)
    source, _ = domains(settings, small)
    assert source.train.images.shape == (20, 1, 16, 16) and source.test is None
    whole = domain_tables.read("office_dslr", small).train.images
    assert whole.shape == (20, 3, 224, 224) and whole.dtype == torch.uint8
    content = zipfile.ZipFile(small / "office_caltech10/images_dslr.zip").read(sorted(MEMBERS)[0])
    image = Image.open(io.BytesIO(content)).convert("RGB")
    square = ImageOps.fit(image, (224, 224), Image.Resampling.BILINEAR)
    assert np.array_equal(whole[0].permute(1, 2, 0).numpy(), np.array(square))


def test_features_are_computed_once_and_kept(small: Path, monkeypatch: pytest.MonkeyPatch):
    calls = []

    def network(weights: object, images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        return images.float().mean((1, 2, 3))[:, None] * torch.ones(256)

    weights = small / "weights.pth"
    weights.write_bytes(b"any")
    file = File("weights.pth", digest(weights))
    monkeypatch.setattr(office_features, "WEIGHTS", file)
    monkeypatch.setattr(office_features, "features", network)
    monkeypatch.setattr(office_features, "read_weights", lambda root: {})
    name, images = "office_mobilenet_dslr", office.ENTRIES["office_dslr"]
    entry = replace(office_features.ENTRIES[name], files=(*images.files, file))
    monkeypatch.setitem(office_features.ENTRIES, name, entry)
    made, again = (entry.read(small) for _ in "ab")
    assert calls == [20] and torch.equal(made.train.images, again.train.images)
    assert made.train.images.shape == (20, 256, 1, 1) and made.fingerprint == entry.fingerprint
    assert torch.equal(again.train.labels, images.read(small).train.labels)
    (cached,) = (small.parent / "cache/tlresearch/features").iterdir()
    cached.write_bytes(cached.read_bytes()[:1000])  # cut short: made again
    assert torch.equal(entry.read(small).train.images, made.train.images) and len(calls) == 2
    weights.write_bytes(b"others")  # other weights: the kept features are not theirs
    with pytest.raises(UserError, match=r"weights\.pth is damaged"):
        monkeypatch.undo()
        monkeypatch.setenv("XDG_CACHE_HOME", str(small.parent / "cache"))
        monkeypatch.setattr(office_features, "WEIGHTS", file)
        office_features.read_weights(small)


@pytest.mark.parametrize("domain", office.SIZES)
def test_files_have_a_fingerprint_of_their_own(domain: str):
    names = [f"office_{kind}{domain}" for kind in ("surf_", "", "mobilenet_")]
    prints = [domain_tables.fingerprint(name) for name in names]
    assert len(set(prints)) == 3
    for name in names:
        assert domain_tables.DOMAINS[name].sizes == (office.SIZES[domain], 0)


@pytest.mark.needs_data("office_surf_webcam")
def test_real_surf_features_give_the_published_nearest_neighbour_numbers():
    """Gong et al.'s protocol, 1-NN: amazon to webcam 29.83 %, webcam to amazon 22.96, to dslr
    59.24, dslr to webcam 63.39 (the table of Long et al., "Transfer feature learning with joint
    distribution adaptation", ICCV 2013)."""
    expected = {
        ("amazon", "webcam"): 29.83,
        ("webcam", "amazon"): 22.96,
        ("webcam", "dslr"): 59.24,
        ("dslr", "webcam"): 63.39,
    }
    for (one, other), published in expected.items():
        source, target = domains(AdaptationSettings(f"office_surf_{one}", f"office_surf_{other}"))
        x, z = (d.train.images.flatten(1).double() for d in (source, target))
        nearest = torch.cdist(z, x).argmin(1)
        accuracy = (source.train.labels[nearest] == target.train.labels).double().mean()
        assert round(100 * accuracy.item(), 2) == published


@pytest.mark.needs_data("office_dslr")
def test_real_images_and_features_agree_on_their_classes():
    images, words = (domain_tables.read(f"office{kind}_dslr", None) for kind in ("", "_surf"))
    assert images.train.images.shape == (157, 3, 224, 224)
    assert torch.equal(images.train.labels.bincount(), words.train.labels.bincount())
    assert images.class_names == words.class_names
