"""Names for content: SHA-256 over tensors and files, independent of how they are packed."""

import hashlib
from pathlib import Path

import numpy as np
from torch import Tensor


def tensor_digest(*tensors: Tensor) -> str:
    """SHA-256, in hex, of the bytes of the tensors one after the other.

    Args:
        tensors: CPU tensors; each in row-major order, little-endian, whatever its strides.
    """
    digest = hashlib.sha256()
    for tensor in tensors:
        array = np.ascontiguousarray(tensor.numpy())
        digest.update(array.astype(array.dtype.newbyteorder("<"), copy=False).data)
    return digest.hexdigest()


def file_digest(path: Path, algorithm: str) -> str:
    """The hash of a file as it lies on disk, in hex; `algorithm` is `md5` or `sha256`."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm)).hexdigest()


# SHA-256 of the unpacked files; their MD5 are the ones published with the data sets.
MNIST = (
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
)
FASHION_MNIST = (
    "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
)
# SHA-256 of the decoded images and labels, of the images of a sheet, of the labels.
USPS = (
    ("usps.bz2", "e045f47382e85c74060f789c6a37f25f0ad18452e51dc9e7fa31e12c19a23f26"),
    ("usps.t.bz2", "c6329cfd934c72598ad4c14a04a6ece260ad89727cbe125a8b96098e17ddd9d1"),
)
CIFAR10_SHEETS = (
    ("data_batch_1.webp", "a50e8b48728e1667d682a807155c375279d5ae321fb12242c02e3104a6bc8b21"),
    ("data_batch_2.webp", "0b825e5592c3b72ea18d6ec2ff5f5b19d33e41a75f5039054a9bb87be3cf69a0"),
    ("data_batch_3.webp", "c6ee1dd4601a69ec085d8ebf53ee6441775491a6839a0a9ae8fa198e88a3a429"),
    ("data_batch_4.webp", "1f6b6c799cff375a9f8fae2fac909d51ee09f38a6a60eebb9e8fec6f47ddc48f"),
    ("data_batch_5.webp", "58e3bbf713e28357476a351d3a05d056372f94c681d04ca9d62a076fdf2a643b"),
    ("test_batch.webp", "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56"),
    ("labels.npz", "5083e6dd0895f94970ae8513f046bf3004b333931aad82b619d23ab76f2e1845"),
)
# The published MD5 of the members of cifar-10-python.tar.gz.
CIFAR10_BATCHES = (
    ("data_batch_1", "c99cafc152244af753f735de768cd75f"),
    ("data_batch_2", "d4bba439e000b95fd0a9bffe97cbabec"),
    ("data_batch_3", "54ebc095f3ab1f0389bbae665268c751"),
    ("data_batch_4", "634d18415352ddfa80567beed471001a"),
    ("data_batch_5", "482c414d41f54cd18b22e5b47cb7c3cb"),
    ("test_batch", "40351d587109b95175f43aff81a1287e"),
    ("batches.meta", "5ff9c542aee3614f3951f8cda6e48888"),
)
# SHA-256 of the drawings of Omniglot's background and evaluation sets, however they are stored.
OMNIGLOT = (
    "fe35852e0f2c5bd6b311bf414f3e5b4631f0149fd6aa36d64de1878ddc2c6108",
    "52f21cdf0ef9ad0cb86dd8614d2dd50c3cef0173c3ffc3b946ec026735cfd4b8",
)
# The published MD5 of Lake's images_background.zip and images_evaluation.zip.
OMNIGLOT_ZIPS = ("68d2efa1b9178cc56df9314c21c6e718", "6b91aef0f799c5bb55b94e3f2daec811")
# SHA-256 of the decoded images and labels, which is also the data set's fingerprint.
TINY_IMAGENET32 = "7d3afc4822c41d2964feea478ebd87e059b8f8470300574b66815b41ed9aea22"
