"""Lake's runs read from a small archive and from the published one; episodes within a group."""

import io
import zipfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tlresearch.data import lake, omniglot
from tlresearch.data.class_sets import ClassSet, by_class, select
from tlresearch.data.episodes import evaluation_keys
from tlresearch.errors import UserError

SIDE = omniglot.SIDE
PAPER = torch.from_numpy(np.random.default_rng(0).random((2, 3, 2, SIDE, SIDE)) < 0.8)
"""By run, class, and whether it is the shot (0) or the query (1)."""
ITEM = ((2, 3, 1), (1, 2, 3))
"""By run, the number of the test item of class 1, 2, 3."""


def png(paper: torch.Tensor) -> bytes:
    content = io.BytesIO()
    Image.fromarray(paper.numpy()).save(content, "PNG")
    return content.getvalue()


def members() -> dict[str, bytes]:
    """The files of an archive of two runs with three ways."""
    files = {}
    for run, items in enumerate(ITEM):
        lines = []
        for class_, item in enumerate(items, 1):
            shot, query = PAPER[run, class_ - 1]
            names = [f"run{run + 1:02d}/{n}.png"
                     for n in (f"training/class{class_:02d}", f"test/item{item:02d}")]  # fmt: skip
            files |= dict(zip(names, (png(shot), png(query)), strict=True))
            lines.append(f"{names[1]} {names[0]}\n")
        files[f"run{run + 1:02d}/class_labels.txt"] = "".join(sorted(lines)).encode()
    return files


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(lake, "RUNS", 2)
    monkeypatch.setattr(lake, "WAYS", 3)
    path = tmp_path / "omniglot/all_runs.zip"
    path.parent.mkdir()
    return path


def pack(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_a_shot_is_a_training_drawing_and_its_query_the_item_of_its_class(path: Path):
    """Ink is 255; the order is that of the classes, and not that of the items."""
    pack(path, members())
    runs = lake.read_runs(lake.find_runs(path.parents[1]))
    ink = 255 * (~PAPER).to(torch.uint8).unsqueeze(3)
    assert runs.support.equal(ink[:, :, 0]) and runs.query.equal(ink[:, :, 1])


LABELS = "run02/class_labels.txt"
PAIRS = members()[LABELS].decode()


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("run01/test/item02.png", None, "no member run01/test/item02.png"),
        ("run01/test/item02.png", b"\x89PNG\r\n", "item02.png is damaged: unreadable data"),
        ("run01/test/item02.png", b"x" * (2**16 + 1), "a file of 65537 bytes"),
        ("run02/training/class01.png", png(torch.ones(2, 3) > 0), "a picture of 3 × 2"),
        (LABELS, None, "no member run02/class_labels.txt"),
        (LABELS, b"\xff\xfe", "3 lines 'item class' with each file once"),
        (LABELS, PAIRS.replace("item02", "item01").encode(), "with each file once"),
        (LABELS, PAIRS.replace("class02", "class01").encode(), "with each file once"),
        (LABELS, PAIRS.replace(" ", "").encode(), "with each file once"),
        (LABELS, PAIRS.replace("run02", "../run02").encode(), "with each file once"),
    ],
)
def test_a_wrong_member_is_named(path: Path, name: str, content: bytes | None, words: str):
    files = members()
    del files[name]
    pack(path, files | ({} if content is None else {name: content}))
    with pytest.raises(UserError) as caught:
        lake.read_runs(path)
    message = str(caught.value)
    assert words in message and "replace all_runs.zip by the original" in message
    assert "\n" not in message


def test_an_archive_that_is_none_is_named(path: Path):
    path.write_bytes(b"PK nothing")
    with pytest.raises(UserError, match=r"all_runs\.zip is damaged: unreadable data"):
        lake.read_runs(path)


def test_where_the_runs_are_missing_it_is_said_how_to_get_them(tmp_path: Path, monkeypatch):
    with pytest.raises(UserError, match=r"get all_runs\.zip from https://github\.com/brenden"):
        lake.find_runs(tmp_path)
    monkeypatch.delenv("TLRESEARCH_DATA", raising=False)
    with pytest.raises(UserError, match="TLRESEARCH_DATA is not set"):
        lake.find_runs(None)


def test_drawings_are_found_bit_for_bit():
    pool = torch.randint(0, 2, (6, 1, 5, 5), dtype=torch.uint8)
    wanted = torch.tensor([[5, 0], [2, 2]])
    assert lake.find_drawings(pool[wanted], pool, Path("x")).equal(wanted)
    other = pool[wanted].clone()
    other[1, 0, 0, 4, 4] ^= 1
    with pytest.raises(UserError, match="1 drawings that Omniglot's evaluation set does not have"):
        lake.find_drawings(other, pool, Path("x"))


def test_pairs_of_two_characters_are_refused():
    lake.check_runs(torch.tensor([[[3, 3], [4, 4]], [[5, 5], [3, 3]]]), Path("x"))
    with pytest.raises(UserError, match="a pair of two characters in run02"):
        lake.check_runs(torch.tensor([[[3, 3], [4, 4]], [[5, 3], [3, 5]]]), Path("x"))
    with pytest.raises(UserError, match="a character twice in run01"):
        lake.check_runs(torch.tensor([[[3, 3], [3, 3]]]), Path("x"))


def evaluation(names: tuple[str, ...]) -> ClassSet:
    """A pool of those classes, twenty images of one pixel each."""
    labels = torch.arange(len(names)).repeat_interleave(omniglot.DRAWERS)
    return by_class(torch.zeros(len(labels), 1, 1, 1, dtype=torch.uint8), labels, names)


@pytest.mark.needs_data("omniglot")
def test_the_published_runs_are_those_of_the_paper():
    """20 characters of one alphabet, by one drawer to learn from and by another to be tested on.

    Run 1, whose archive says `run01/test/item01.png run01/training/class08.png`, is in Atlantean,
    drawn by persons 5 (training) and 8 (test).
    """
    names = omniglot.class_names("evaluation")
    places = lake.published_runs(evaluation(names))
    assert places.shape == (20, 20, 2) and len(places.unique()) == 800
    characters, drawers = places // 20, places % 20
    assert characters[..., 0].equal(characters[..., 1])
    assert drawers.equal(drawers[:, :1].expand(-1, 20, -1))
    assert drawers[0, 0].tolist() == [4, 7] and (drawers[..., 0] != drawers[..., 1]).all()
    alphabets = [{names[c].split("/")[0] for c in run.flatten().tolist()} for run in characters]
    assert all(len(found) == 1 for found in alphabets) and alphabets[0] == {"Atlantean"}
    assert set(Counter(str(*found) for found in alphabets).values()) == {2}
    turned = tuple(f"{name}/rot{turn:03d}" for name in reversed(names) for turn in (0, 90))
    others = lake.published_runs(evaluation(turned))
    assert others.equal(20 * 2 * (len(names) - 1 - characters) + drawers)
    with pytest.raises(UserError, match="choose a split of omniglot that is tested on the whole"):
        lake.published_runs(evaluation(names[200:]))


def groups_pool() -> ClassSet:
    """Group b has the classes 0, 2, 5, 7 and c the others but 8, which is the one of d; a none."""
    groups = [1, 2, 1, 2, 2, 1, 2, 1, 3]
    count = [3, 4, 5, 3, 6, 3, 4, 3, 3]
    labels = torch.arange(9).repeat_interleave(torch.tensor(count))
    images = torch.arange(len(labels), dtype=torch.uint8).view(-1, 1, 1, 1)
    return by_class(images, labels, tuple("stuvwxyz!"), groups, ("a", "b", "c", "d"))


def without_d() -> ClassSet:
    pool = groups_pool()
    return select(pool, range(8))


def test_an_episode_is_of_one_group_and_repeats_nothing():
    pool = without_d()
    found = lake.within_groups(pool, evaluation_keys("test", 500), 3, 2)
    assert found.shape == (500, 3, 2)
    label = torch.arange(8).repeat_interleave(pool.count)[found]
    assert label[..., 0].equal(label[..., 1])
    for episode, images in zip(label[..., 0].tolist(), found.flatten(1).tolist(), strict=True):
        assert len(set(episode)) == 3 and len(set(images)) == 6
        assert len({pool.groups[c].item() for c in episode}) == 1
    assert set(found.flatten().tolist()) == set(range(len(pool.images)))


def test_groups_and_their_classes_are_drawn_alike():
    """Each group in half of 4,000 episodes, each ordered pair of its 4 classes in a 24th."""
    pool = without_d()
    found = lake.within_groups(pool, evaluation_keys("test", 4000), 2, 1)
    label = torch.arange(8).repeat_interleave(pool.count)[found[..., 0]]
    pairs = Counter(map(tuple, label.tolist()))
    assert len(pairs) == 24
    assert all(abs(n - 4000 / 24) < 5 * (4000 / 24) ** 0.5 for n in pairs.values())


def test_an_episode_is_a_function_of_its_key():
    pool, keys = without_d(), evaluation_keys("test", 6)
    together = lake.within_groups(pool, keys, 3, 2)
    assert lake.within_groups(pool, keys[4], 3, 2).equal(together[4])
    assert lake.within_groups(pool, keys.view(2, 3), 3, 2).equal(together.view(2, 3, 3, 2))


def test_what_the_smallest_group_cannot_give_is_refused():
    with pytest.raises(UserError, match="2 ways within a group, but d has 1 class here"):
        lake.within_groups(groups_pool(), evaluation_keys("test", 2), 2, 1)
    with pytest.raises(UserError, match="5 ways within a group, but b has 4 classes here; ask"):
        lake.within_groups(without_d(), evaluation_keys("test", 2), 5, 1)
    with pytest.raises(UserError, match="4 shots and queries of a class, but the smallest has 3"):
        lake.within_groups(without_d(), evaluation_keys("test", 2), 4, 4)
