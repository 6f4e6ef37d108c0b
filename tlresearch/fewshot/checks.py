"""What a few-shot experiment must not ask for, refused before any work."""

from tlresearch.data import class_tables
from tlresearch.data.episodes import check_sizes
from tlresearch.errors import UserError
from tlresearch.fewshot.method import FewShotMethod
from tlresearch.fewshot.settings import FewShotSettings
from tlresearch.fewshot.trained import episode_sizes
from tlresearch.training.settings import Train


def check(benchmark: FewShotSettings, method: FewShotMethod, label: str, train: Train) -> None:
    """Refuses combinations that make no sense.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    problem = method.problem()
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    _check_images(benchmark, method, label)


def _check_images(benchmark: FewShotSettings, method: FewShotMethod, label: str) -> None:
    if not method.classifies:
        raise UserError(
            f"methods.{label}: {type(method).__name__} learns a regression; give "
            "benchmark.dataset: sinusoid, or choose another method"
        )
    class_tables.check(benchmark.dataset, benchmark.split)
    facts = class_tables.facts(
        benchmark.dataset, benchmark.split, benchmark.size, benchmark.rotations
    )
    if benchmark.target is not None:
        class_tables.check(benchmark.target, None)
        measured = class_tables.facts(benchmark.target, None, benchmark.size, False)
        classes, where = measured.test, benchmark.target
    else:
        measured = facts
        classes = getattr(facts, benchmark.evaluate)
        where = f"the {benchmark.evaluate} part of {benchmark.dataset}"
    check_sizes(
        classes, measured.images, benchmark.ways, benchmark.shots, benchmark.queries, where,
        "benchmark.",
    )  # fmt: skip
    if method.trains_on == "episodes":
        ways, shots, queries = episode_sizes(benchmark, method)
        where = f"the training part of {benchmark.dataset}"
        prefix = f"methods.{label}.train_"
        check_sizes(facts.train, facts.images, ways, shots, queries, where, prefix)
