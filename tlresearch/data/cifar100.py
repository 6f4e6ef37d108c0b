"""CIFAR-100: 100 classes of small pictures, in the two versions in which it is published.

Krizhevsky, "Learning multiple layers of features from tiny images", 2009; the labels are the fine
ones. The binary version (`cifar-100-binary`) is two files of records of 3,074 bytes: the coarse
label, the fine label, then the pixels by channel, row and column. The Python version
(`cifar-100-python`), which torchvision downloads, is pickles.

No copy was at hand when this was written, so files are pinned by published hashes, and there is no
digest of the content, as other sets have: the MD5 of the Python version are torchvision's; the
SHA-256 of the binary one are those of `lib/torchvision/datasets/cifar100.rb` in
ankane/torchvision-ruby, whose SHA-256 of the archive is the one that several others give. That both
versions hold the same images in the same order is published and not checked here; each has a
fingerprint of its own, so no cache or trained teacher is taken for that of the other.
"""

from pathlib import Path

import numpy as np
import torch

from tlresearch.data.checksums import file_digest
from tlresearch.data.formats import Split, damaged, existing, label_tensor, read_batches

SIDE, COARSE = 32, 20
NAMES = tuple(
    name.strip()
    for name in """
apple, aquarium_fish, baby, bear, beaver, bed, bee, beetle, bicycle, bottle, bowl, boy, bridge, bus,
butterfly, camel, can, castle, caterpillar, cattle, chair, chimpanzee, clock, cloud, cockroach,
couch, crab, crocodile, cup, dinosaur, dolphin, elephant, flatfish, forest, fox, girl, hamster,
house, kangaroo, keyboard, lamp, lawn_mower, leopard, lion, lizard, lobster, man, maple_tree,
motorcycle, mountain, mouse, mushroom, oak_tree, orange, orchid, otter, palm_tree, pear,
pickup_truck, pine_tree, plain, plate, poppy, porcupine, possum, rabbit, raccoon, ray, road, rocket,
rose, sea, seal, shark, shrew, skunk, skyscraper, snail, snake, spider, squirrel, streetcar,
sunflower, sweet_pepper, table, tank, telephone, television, tiger, tractor, train, trout, tulip,
turtle, wardrobe, whale, willow_tree, wolf, woman, worm
""".replace("\n", " ").split(",")
)
"""Of the fine labels 0 to 99."""
BINARY = (
    ("train.bin", "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
    ("test.bin", "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
)
"""SHA-256."""
PYTHON = (
    ("train", "16019d7e3df5f24257cddd939b257f8d"),
    ("test", "f0ef6b0ae62326f3e7ffdfab6717acfc"),
    ("meta", "7973b15100ade9c7d40fb424638fde48"),
)
"""MD5."""
_RECORD = 2 + 3 * SIDE * SIDE


def read_records(path: Path) -> Split:
    """One file of the binary version.

    Raises:
        UserError: not whole records, or a label that there is not.
    """
    content = np.fromfile(path, np.uint8)
    if not content.size or content.size % _RECORD:
        raise damaged(path, f"{content.size:,} bytes", f"whole records of {_RECORD:,} bytes")
    records = content.reshape(-1, _RECORD)
    label_tensor(path, records[:, 0], COARSE)
    labels = label_tensor(path, records[:, 1], len(NAMES))
    images = np.ascontiguousarray(records[:, 2:]).reshape(-1, 3, SIDE, SIDE)
    return Split(torch.from_numpy(images), labels)


def read_binary(folder: Path) -> tuple[Split, Split]:
    """Train and test of a folder with `train.bin` and `test.bin`."""
    train, test = (read_records(existing(folder, name)) for name, _ in BINARY)
    return train, test


def binary_digest(path: Path) -> str:
    """SHA-256 of a file of the binary version."""
    return file_digest(path, "sha256")


def read_python(folder: Path) -> tuple[Split, Split]:
    """Train and test of a folder named `cifar-100-python`, unpickled only with published MD5."""
    from torchvision.datasets import CIFAR100

    return read_batches(folder, CIFAR100)
