"""Kept answers are the live teacher's to the bit; any other fact, and any damage, is refused."""

import dataclasses
import json
import shutil
import threading
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tlresearch.distillation import cache_files
from tlresearch.distillation.frozen_teacher import FrozenTeacher
from tlresearch.distillation.live_teacher import LiveTeacher
from tlresearch.distillation.teacher_cache import CachedTeacher, kept, open_cache
from tlresearch.distillation.views import Views
from tlresearch.errors import UserError
from tlresearch.functional import random


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    hidden = nn.Linear(12, 8), nn.BatchNorm1d(8), nn.ReLU()
    return nn.Sequential(nn.Flatten(), *hidden, nn.Linear(8, 4))


def images(rows: int = 30) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (rows, 1, 3, 4), dtype=torch.uint8, generator=generator)


def noise(keys: Tensor, x: Tensor) -> Tensor:
    return x + random.normal(keys, tuple(x.shape[1:]))


def views(count: int = 1, rows: int = 30, **changes) -> Views:
    given = {"samples": images(rows), "data": "digits", "prepare": lambda rows: rows.float() / 255}
    given |= {"recipe": "pixels / 255", "count": count}
    if count > 1:
        given |= {"augment": noise, "recipe": "pixels / 255, noise of deviation 1"}
    return Views(**(given | changes))


def live(count: int = 1, **changes) -> LiveTeacher:
    given = {"teacher": FrozenTeacher(network()), "views": views(count), "chunk": 8}
    return LiveTeacher(**(given | changes))


def cached(teacher: LiveTeacher, root: Path) -> CachedTeacher:
    found = kept(teacher, root)
    assert isinstance(found, CachedTeacher)
    return found


def folders(teacher: LiveTeacher, root: Path) -> list[Path]:
    return [cache_files.folder_of(root, teacher.facts(k)) for k in range(teacher.views.count)]


INDICES = torch.tensor([[3, 29, 3], [0, 7, 12]])


def test_answers_are_the_live_teachers_to_the_bit(tmp_path, capsys):
    """Logits and features, in any batch, also the plain network's up to rounding."""
    teacher = live(taps=("1", "3"))
    found = cached(teacher, tmp_path)
    for indices in (INDICES, torch.arange(30), torch.tensor([29])):
        ours, asked = found.outputs(indices), teacher.outputs(indices)
        assert torch.equal(ours.logits, asked.logits)
        assert ours.features.keys() == asked.features.keys() == {"1", "3"}
        assert all(torch.equal(ours.features[k], asked.features[k]) for k in ours.features)
    x = images().float() / 255
    torch.testing.assert_close(found.logits(torch.arange(30)), network().eval()(x).detach())
    assert ours.logits.shape == (1, 4) and found.logits(INDICES).shape == (2, 3, 4)
    assert capsys.readouterr().err == ""


def test_the_student_is_the_same_to_the_bit(tmp_path):
    """Ten steps on soft targets with cached and with live answers."""
    teacher = live()

    def train(answers) -> list[Tensor]:
        student = network(5)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1, momentum=0.9)
        for step in range(10):
            indices = random.integers(random.make_key(0, "batch", step), 30, (16,))
            logits = student(teacher.views.inputs(indices)).log_softmax(-1)
            loss = -(answers.logits(indices).softmax(-1) * logits).sum(-1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return list(student.state_dict().values())

    for a, b in zip(train(teacher), train(cached(teacher, tmp_path)), strict=True):
        assert torch.equal(a, b)
    teacher.teacher.unchanged()


def test_views_are_kept_apart_and_made_again(tmp_path):
    """A view of one for each sample too; and what the student sees is what was answered for."""
    teacher = live(3)
    found = cached(teacher, tmp_path)
    all_views = [found.logits(INDICES, k) for k in range(3)]
    for k in range(3):
        assert torch.equal(all_views[k], live(3).logits(INDICES, k))
        assert not torch.equal(all_views[k], all_views[k - 1])
    chosen = torch.tensor([[0, 1, 2], [2, 2, 0]])
    expected = torch.stack(all_views).gather(0, chosen[None, ..., None].expand(1, 2, 3, 4))[0]
    assert torch.equal(found.logits(INDICES, chosen), expected)
    assert torch.equal(teacher.logits(INDICES, chosen), expected)
    x = teacher.views.inputs(torch.tensor([7, 29]), 1)
    assert torch.equal(x, teacher.views.inputs(torch.arange(30), 1)[[7, 29]])
    assert torch.equal(teacher.teacher.logits(x, 8), found.logits(torch.tensor([7, 29]), 1))
    which = teacher.views.which(random.make_key(0, "view of step", 3), (50,))
    assert set(which.tolist()) == {0, 1, 2}


def test_a_cache_is_made_once(tmp_path):
    """And read from its file then: the teacher is asked for one chunk a view."""
    cached(live(2), tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    teacher = live(2)
    asked = []
    teacher.teacher.network.register_forward_pre_hook(lambda module, args: asked.append(1))
    cached(teacher, tmp_path)
    assert len(asked) == 2
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == 2 * ["facts.json"] + 2 * ["logits.npy"]


CHANGES = {
    "teacher": lambda: live(teacher=FrozenTeacher(network(1))),
    "data set": lambda: live(views=views(data="letters")),
    "number of samples": lambda: live(views=views(rows=29)),
    "view": lambda: live(views=views(recipe="pixels / 256")),
    "dtype": lambda: live(dtype=torch.float64),
    "chunk": lambda: live(chunk=9),
    "list of taps": lambda: live(taps=("1",)),
}


@pytest.mark.parametrize("what", CHANGES)
def test_a_cache_of_something_else_is_refused(what, tmp_path):
    """By the fact's name; and `kept` makes another one beside it."""
    cached(live(), tmp_path)
    (folder,) = folders(live(), tmp_path)
    other = CHANGES[what]()
    with pytest.raises(UserError, match=f"was made for another {what}: ") as error:
        open_cache(other, [folder])
    assert str(error.value).count(". ") == 0
    arange = torch.arange(len(other.views.samples))
    assert torch.equal(cached(other, tmp_path).logits(arange), other.logits(arange))
    assert len(list(tmp_path.iterdir())) == 2


def test_views_in_another_order_are_refused(tmp_path):
    cached(live(2), tmp_path)
    with pytest.raises(UserError, match=r"was made for another view: .*view 1.* expected"):
        open_cache(live(2), folders(live(2), tmp_path)[::-1])
    with pytest.raises(UserError, match="1 folders were given for 2 views"):
        open_cache(live(2), folders(live(2), tmp_path)[:1])
    seed = live(views=dataclasses.replace(views(2), seed=1))
    assert folders(seed, tmp_path) != folders(live(2), tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))


def pickle(path: Path) -> None:
    path.write_text("{}")


@pytest.mark.parametrize("name", ["facts.json", "logits.npy", "feature-1.npy"])
@pytest.mark.parametrize("damage", [truncate, flip, pickle, Path.unlink])
def test_a_damaged_file_is_named_and_refused(name, damage, tmp_path):
    teacher = live(taps=("1",))
    cached(teacher, tmp_path)
    (folder,) = folders(teacher, tmp_path)
    damage(folder / name)
    with pytest.raises(UserError, match=f"{name} is damaged: .* delete the folder"):
        kept(teacher, tmp_path)
    shutil.rmtree(folder)
    cached(teacher, tmp_path)


def test_a_failure_leaves_nothing(tmp_path, limit_file_size, capsys):
    """A full disk: the live teacher answers, and says so; a defect goes through."""
    teacher = live()
    limit_file_size(200)
    assert kept(teacher, tmp_path) is teacher
    limit_file_size(None)
    assert "cannot write" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
    parts = ({"": torch.zeros(2, 1)} for _ in range(2))
    with pytest.raises(AssertionError, match="never given"):
        cache_files.make(tmp_path, {"samples": 5}, parts, {})
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    assert kept(teacher, tmp_path / "file") is teacher


def test_what_a_killed_writer_left_is_removed(tmp_path):
    (folder,) = folders(live(), tmp_path)
    left = tmp_path / f".{folder.name}.00000000.tmp"
    left.mkdir(parents=True)
    (left / "logits.npy").write_text("half of it")
    cached(live(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_several_writers_at_once(tmp_path):
    """One asks its teacher for all, the others find what it wrote."""
    made = []

    def parts():
        made.append(1)
        yield {"": torch.arange(6.0)[:, None]}

    def write():
        cache_files.make(tmp_path, {"samples": 6}, parts(), {})

    threads = [threading.Thread(target=write) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (folder,) = tmp_path.iterdir()
    assert made == [1]
    assert torch.equal(cache_files.read(folder, {"samples": 6})[""][:, 0], torch.arange(6.0))


def test_the_slower_of_two_writers_without_claims_gives_way(tmp_path):
    """The folder appears while it writes: it is kept, and the own one removed."""
    facts = {"samples": 2}
    folder = cache_files.folder_of(tmp_path, facts)

    def parts():
        folder.mkdir()
        (folder / "facts.json").write_text("of the faster one")
        yield {"": torch.zeros(2, 1)}

    assert cache_files.make(tmp_path, facts, parts(), {}) == folder
    assert (folder / "facts.json").read_text() == "of the faster one"
    assert list(tmp_path.iterdir()) == [folder]


class Scaled(nn.Sequential):
    factor = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * super().forward(x)


def test_an_edit_of_the_teachers_code_is_found(tmp_path, monkeypatch, capsys):
    """Its digest is the same; its answers are not. Other last digits are told."""
    teacher = live(teacher=FrozenTeacher(Scaled(*network())))
    cached(teacher, tmp_path)
    monkeypatch.setattr(Scaled, "factor", 1 + 1e-6)
    found = cached(teacher, tmp_path)
    assert "differ in last digits" in capsys.readouterr().err
    assert not torch.equal(found.logits(torch.arange(30)), teacher.logits(torch.arange(30)))
    monkeypatch.setattr(Scaled, "factor", 1.5)
    with pytest.raises(UserError, match="was made by other code"):
        kept(teacher, tmp_path)
    monkeypatch.setattr(Scaled, "factor", float("nan"))
    with pytest.raises(UserError, match="was made by other code"):
        kept(teacher, tmp_path)


class Inner(nn.Linear):
    factor = 1.0

    def forward(self, input: Tensor) -> Tensor:
        return self.factor * super().forward(input)


class Outer(nn.ReLU):
    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input) / Inner.factor


def test_an_edit_that_only_features_show_is_found(tmp_path, monkeypatch, capsys):
    """One that changes a tapped module, and what follows it, leaves the logits as they are."""
    net = nn.Sequential(nn.Flatten(), Inner(12, 8), Outer(), nn.Linear(8, 4))
    teacher, every = live(teacher=FrozenTeacher(net), taps=("1",)), torch.arange(30)
    before = cached(teacher, tmp_path).logits(every)
    monkeypatch.setattr(Inner, "factor", 2.0)
    assert torch.equal(teacher.logits(every), before)
    with pytest.raises(UserError, match=r"other code, .*: the same teacher's outputs of '1' diff"):
        kept(teacher, tmp_path)
    monkeypatch.setattr(Inner, "factor", 1 + 1e-6)
    cached(teacher, tmp_path)
    assert "last digits, " in (told := capsys.readouterr().err) and "outputs of '1' by" in told
    monkeypatch.setattr(Inner, "forward", lambda self, x: nn.Linear.forward(self, x)[..., None])
    monkeypatch.setattr(Outer, "forward", lambda _, x: x[..., 0].relu())
    with pytest.raises(UserError, match=r"outputs of '1' have the shape \(8, 1\) now"):
        kept(teacher, tmp_path)


def test_a_small_feature_is_compared_by_its_own_size(tmp_path, monkeypatch):
    """Numbers below a hundredth may not be anything."""
    net = nn.Sequential(nn.Flatten(), Inner(12, 8), Outer(), nn.Linear(8, 4))
    teacher = live(teacher=FrozenTeacher(net), taps=("1",))
    with torch.no_grad():
        for parameter in net[1].parameters():
            parameter.mul_(1e-4)
    cached(teacher, tmp_path)
    monkeypatch.setattr(Inner, "factor", 2.0)
    with pytest.raises(UserError, match="outputs of '1' differ"):
        kept(teacher, tmp_path)


def test_a_teacher_that_looks_at_neighbours_is_refused(tmp_path):
    """Batch norm without running statistics, say: what would be kept is of no sample alone."""
    normed = nn.BatchNorm1d(12, track_running_stats=False)
    net = nn.Sequential(nn.Flatten(), normed, nn.Linear(12, 4))
    with pytest.raises(UserError, match="an answer depends on the other rows of its chunk"):
        kept(live(teacher=FrozenTeacher(net)), tmp_path)


def test_files_are_memory_maps_that_are_never_written(tmp_path):
    """Nor pickles: the facts are JSON, the arrays plain."""
    teacher = live(dtype=torch.float16)
    table = cached(teacher, tmp_path).tables[0][""]
    assert table.dtype == torch.float16
    before = table.clone()
    table.zero_()
    assert torch.equal(cached(teacher, tmp_path).tables[0][""], before)
    (folder,) = folders(teacher, tmp_path)
    facts = json.loads((folder / "facts.json").read_text())
    assert facts["facts"] == teacher.facts(0)
    assert facts["files"][""]["shape"] == [30, 4]
    assert facts["made_with"]["torch"] == torch.__version__


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(UserError, match="2 views were asked for"):
        Views(images(), "digits", count=2)
    with pytest.raises(UserError, match="0 views were asked for"):
        views(0)
    with pytest.raises(UserError, match="no samples"):
        Views(images(0), "digits")
    with pytest.raises(ValueError, match="needs a recipe"):
        Views(images(), "digits", augment=noise)
    with pytest.raises(UserError, match="no module '7'; the nearest names are '0'"):
        live(taps=("7",))
    with pytest.raises(UserError, match="chunks of 0 rows"):
        live(chunk=0)
    with pytest.raises(UserError, match="bfloat16"):
        live(dtype=torch.bfloat16)
