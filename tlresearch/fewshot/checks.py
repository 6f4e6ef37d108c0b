"""What a few-shot experiment must not ask for, refused before any work."""

from tlresearch.data import catalogue, class_tables
from tlresearch.data.episodes import check_sizes
from tlresearch.errors import UserError
from tlresearch.fewshot.batches import episode_sizes
from tlresearch.fewshot.gradient import GradientMethod
from tlresearch.fewshot.maml import MAML
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.settings import SINUSOID, FewShotSettings
from tlresearch.training.settings import Train


def check(benchmark: FewShotSettings, method: FewShotMethod, label: str, train: Train) -> None:
    """Refuses combinations that make no sense.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    problem = method.problem() or _unread(method) or _clash(method, train)
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    if benchmark.dataset == SINUSOID:
        _check_sinusoid(benchmark, method, label)
    else:
        _check_images(benchmark, method, label, train)


def _unread(method: FewShotMethod) -> str | None:
    """A setting that the method would not read."""
    defaults = FewShotMethod()
    if method.trains_on != "episodes":
        for name in ("train_ways", "train_shots", "train_queries", "tasks"):
            if getattr(method, name) != getattr(defaults, name):
                return f"{name}: {type(method).__name__} trains on no episodes; remove the key"
    return None


def _clash(method: FewShotMethod, train: Train) -> str | None:
    """Settings that do not go together."""
    if not isinstance(method, MAML):
        return None
    if method.engine != "func" and train.compile:
        return f"engine: {method.engine} cannot be compiled; set train.compile: false"
    if method.multi_step_loss and method.inner_steps == 1:
        return "multi_step_loss: one inner step has one loss; set inner_steps above 1"
    if method.multi_step_loss and train.accumulate > 1:
        return (
            "multi_step_loss: its weights follow the passes, of which train.accumulate makes "
            "several for a step; set train.accumulate: 1 and more tasks"
        )
    return None


def _check_sinusoid(benchmark: FewShotSettings, method: FewShotMethod, label: str) -> None:
    if not method.regresses:
        raise UserError(
            f"methods.{label}: {type(method).__name__} classifies, and the sinusoids are a "
            "regression; choose one such as maml, or another benchmark.dataset"
        )
    for name in ("split", "size", "rotations", "target", "ways"):
        if getattr(benchmark, name) != getattr(FewShotSettings(SINUSOID), name):
            raise UserError(
                f"benchmark.{name}: the sinusoids are functions, not images; remove the key"
            )
    if method.train_ways is not None:
        raise UserError(
            f"methods.{label}.train_ways: the sinusoids have no classes; remove the key"
        )
    if benchmark.draw != "classes":
        raise UserError(
            "benchmark.draw: the sinusoids are functions without groups; remove the key"
        )


def _check_lake(benchmark: FewShotSettings) -> None:
    """The published runs are what they are."""
    if benchmark.dataset != "omniglot":
        raise UserError("benchmark.draw: Lake's runs are of omniglot; set benchmark.dataset to it")
    fixed = {"ways": 20, "shots": 1, "queries": 1, "episodes": 20}
    for name, value in fixed.items():
        if getattr(benchmark, name) != value:
            raise UserError(
                f"benchmark.{name}: Lake's runs have {value}; write {name}: {value}, or set "
                "benchmark.draw: group for episodes within an alphabet"
            )


def _check_names(benchmark: FewShotSettings) -> None:
    """Refuses unknown names, each under its key."""
    known = {
        "dataset": lambda: _entry(benchmark.dataset),
        "split": lambda: class_tables.check(benchmark.dataset, benchmark.split),
        "target": lambda: benchmark.target is None or catalogue.entry(benchmark.target),
    }
    for key, look_up in known.items():
        try:
            look_up()
        except UserError as error:
            raise UserError(f"benchmark.{key}: {error}") from None


def _entry(dataset: str) -> object:
    try:
        return catalogue.entry(dataset)
    except UserError as error:
        raise UserError(f"{error}; or {SINUSOID}") from None


def _check_target(benchmark: FewShotSettings) -> None:
    """Test classes must not be among those that are trained on."""
    if benchmark.target == benchmark.dataset:
        raise UserError(
            f"benchmark.target: {benchmark.target} is what methods are trained on, and the classes "
            "of its own split might be among them; remove the key, or name another data set"
        )
    measured = benchmark.target or benchmark.dataset
    if benchmark.draw == "group" and len(class_tables.groups(measured)[1]) == 1:
        raise UserError(f"benchmark.draw: the classes of {measured} have no groups; remove the key")


def _check_images(
    benchmark: FewShotSettings, method: FewShotMethod, label: str, train: Train
) -> None:
    if not method.classifies:
        raise UserError(
            f"methods.{label}: {type(method).__name__} learns a regression; give "
            "benchmark.dataset: sinusoid, or choose another method"
        )
    _check_names(benchmark)
    _check_target(benchmark)
    if benchmark.draw == "lake":
        _check_lake(benchmark)
    facts = class_tables.facts(
        benchmark.dataset, benchmark.split, benchmark.size, benchmark.rotations
    )
    if train.checkpoint == "selected" and facts.validation == 0:
        raise UserError(
            "train.checkpoint: 'selected' needs validation classes, and this split of "
            f"{benchmark.dataset} has none; choose another benchmark.split"
        )
    measured = facts
    if benchmark.target is not None:
        measured = class_tables.facts(benchmark.target, None, benchmark.size, False)
    where = f"the {benchmark.evaluate} part of {benchmark.target or benchmark.dataset}"
    classes = getattr(measured, benchmark.evaluate)
    if classes == 0:
        raise UserError(
            f"benchmark.evaluate: {where} has no classes; choose another benchmark.split, or "
            "another part"
        )
    sizes = (benchmark.ways, benchmark.shots, benchmark.queries)
    keys = ("benchmark.ways", "benchmark.shots", "benchmark.queries")
    check_sizes(classes, measured.images, sizes, where, keys)
    if train.checkpoint == "selected":
        where = f"the validation part of {benchmark.dataset}, by which weights are selected,"
        check_sizes(facts.validation, facts.images, sizes, where, keys)
    _check_training(benchmark, method, label, facts)


def _check_training(
    benchmark: FewShotSettings, method: FewShotMethod, label: str, facts: class_tables.Facts
) -> None:
    """Refuses a method that cannot learn from the training classes."""
    name = type(method).__name__
    if method.trains_on != "nothing" and facts.train == 0:
        raise UserError(
            f"benchmark.split: {name} learns from training classes, and this split of "
            f"{benchmark.dataset} has none; choose another split, or a method such as "
            "nearest_centroid that trains nothing"
        )
    sizes = episode_sizes(benchmark, method)
    ways = sizes[0]
    for key, value in (("benchmark.ways", benchmark.ways), (f"methods.{label}.train_ways", ways)):
        if value < 2:
            raise UserError(f"{key}: one way is always right; give at least 2")
    if isinstance(method, GradientMethod) and ways != benchmark.ways:
        raise UserError(
            f"methods.{label}.train_ways: {name} has an output for each way, so it trains with as "
            f"many as it is tested with, {benchmark.ways}; leave the key out"
        )
    if method.trains_on == "episodes":
        where = f"the training part of {benchmark.dataset}"
        check_sizes(facts.train, facts.images, sizes, where, _training_keys(method, label))


def _training_keys(method: FewShotMethod, label: str) -> tuple[str, str, str]:
    """The settings that give ways, shots and queries of training: the method's, or the test's."""
    given = {name: getattr(method, f"train_{name}") for name in ("ways", "shots", "queries")}
    ways, shots, queries = (
        f"benchmark.{name}" if value is None else f"methods.{label}.train_{name}"
        for name, value in given.items()
    )
    return ways, shots, queries
