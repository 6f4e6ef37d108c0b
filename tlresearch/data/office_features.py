"""Office-Caltech-10 as features of a network that was trained on ImageNet.

`office_mobilenet_*`: 256 numbers a photograph, of MobileNet v1 at width ¼ (Howard et al.,
arXiv:1704.04861; the weights of Keras' release, without their classifier, are in the data root),
of the 224 x 224 images of `office_*` with pixels in [−1, 1]. The network is frozen: what adapts
stands on the features. They are computed once, in about a minute, and kept in the user's cache
folder under a name that holds the checksums of photographs and weights; on another machine they
differ in their last digits.
"""

import contextlib
from functools import partial
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor

from tlresearch.data import office
from tlresearch.data.attributes import damaged
from tlresearch.data.domain_files import Entry, File, paths, verify
from tlresearch.data.domains import Domain, Labelled
from tlresearch.data.formats import UNREADABLE
from tlresearch.data.sources import cache_folder
from tlresearch.errors import UserError
from tlresearch.files import write_atomic
from tlresearch.functional.mobilenet import Weights, mobilenet_features

WIDTH, _CHUNK = 256, 32
WEIGHTS = File(
    "weights/imagenet_mobilenetv1_025/mobilenetv1_025_imagenet_notop.pth",
    "ba62cb641c1b2a11ff24230ef0fd3600eedd065c35688885214fb882514ec048",
)


def read_weights(root: Path | None) -> Weights:
    """By timm's names, float32.

    Raises:
        UserError: the file is missing or another one.
    """
    (path,) = paths("office_mobilenet", [WEIGHTS], root, "put the weights there")
    verify([path], [WEIGHTS])  # first: a file of weights is a pickle
    return torch.load(path, map_location="cpu", weights_only=True)


@torch.no_grad()
def features(weights: Weights, images: UInt8[Tensor, "n 3 side side"]) -> Float[Tensor, "n width"]:
    """Of images 0 … 255, in the type of the weights."""
    dtype = weights["conv_stem.weight"].dtype
    parts = (part.to(dtype) * (2 / 255) - 1 for part in images.split(_CHUNK))
    return torch.cat([mobilenet_features(weights, part) for part in parts])


def _read(domain: str, root: Path | None) -> Domain:
    name = f"office_mobilenet_{domain}"
    entry = ENTRIES[name]
    found = paths(name, entry.files, root, "put the files of this project's data root there")
    cached = cache_folder() / "features" / f"{name}-{entry.fingerprint[:16]}.npz"
    with contextlib.suppress(UserError, FileNotFoundError):
        verify(found, entry.files)
        return _domain(name, *_cached(cached, office.SIZES[domain]))
    images = office.ENTRIES[f"office_{domain}"].read(root).train
    made = features(read_weights(root), images.images)
    with contextlib.suppress(UserError):  # a cache that cannot be written costs a minute each time
        both = made.numpy(), images.labels.numpy()
        write_atomic(cached, lambda file: np.savez(file, features=both[0], labels=both[1]))
    return _domain(name, made, images.labels)


def _cached(path: Path, samples: int) -> tuple[Float32[Tensor, "n width"], Tensor]:
    """As they were written.

    Raises:
        FileNotFoundError: they were not.
        UserError: the file is not whole.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            made, labels = arrays["features"], arrays["labels"]
    except FileNotFoundError:
        raise
    except UNREADABLE as error:
        raise damaged(path, f"unreadable data ({error})", "features") from error
    if made.shape != (samples, WIDTH) or labels.shape != (samples,):
        raise damaged(path, f"features of shape {made.shape}", f"({samples}, {WIDTH})")
    return torch.from_numpy(made), torch.from_numpy(labels)


def _domain(name: str, made: Tensor, labels: Tensor) -> Domain:
    train = Labelled(made.view(-1, WIDTH, 1, 1), labels)
    return Domain(name, train, None, office.NAMES, ENTRIES[name].fingerprint)


def _entry(domain: str) -> Entry:
    images = office.ENTRIES[f"office_{domain}"]
    return Entry(
        title=f"Office-Caltech-10, {domain}, features of MobileNet",
        read=partial(_read, domain),
        shape=(WIDTH, 1, 1),
        class_names=office.NAMES,
        sizes=images.sizes,
        licence="research use",
        files=(*images.files, WEIGHTS),
        recipe=f"mobilenet 1, {images.recipe}",
    )


ENTRIES = {f"office_mobilenet_{domain}": _entry(domain) for domain in office.SIZES}
