"""What an experiment of domain adaptation must not ask for, refused before any work."""

from tlresearch.adaptation.method import AdaptationMethod
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.data import domain_tables
from tlresearch.errors import UserError
from tlresearch.training.settings import Train


def check(
    benchmark: AdaptationSettings, method: AdaptationMethod, label: str, train: Train
) -> None:
    """Refuses combinations that make no sense.

    Raises:
        UserError: naming the key, what was expected and what to do.
    """
    for key in ("source", "target"):
        try:
            domain_tables.check(getattr(benchmark, key))
        except UserError as error:
            raise UserError(f"benchmark.{key}: {error}") from None
    problem = method.problem()
    if problem:
        raise UserError(f"methods.{label}.{problem}")
    if train.batch_size < method.least_batch:
        raise UserError(
            f"train.batch_size: {label} compares the samples of a batch with each other and needs "
            f"at least {method.least_batch} of each domain, not {train.batch_size}"
        )
    if train.checkpoint == "selected" and benchmark.validation == 0:
        raise UserError(
            "train.checkpoint: 'selected' needs a held-out part of the source; set "
            "benchmark.validation to a fraction above 0, e.g. 0.1"
        )
    wanted = method.held_out_for()
    if wanted and benchmark.validation == 0:
        raise UserError(
            f"methods.{label}.{wanted}: it needs a held-out part of the source; set "
            "benchmark.validation to a fraction above 0, e.g. 0.1"
        )
    if benchmark.evaluate in ("selectors", "oracle") and benchmark.validation == 0:
        raise UserError(
            f"benchmark.evaluate: '{benchmark.evaluate}' needs a held-out part of the source; set "
            "benchmark.validation to a fraction above 0, e.g. 0.1"
        )
    if benchmark.reverse and benchmark.validation == 0:
        raise UserError(
            "benchmark.reverse: reverse validation is measured on a held-out part of the source; "
            "set benchmark.validation to a fraction above 0, e.g. 0.1"
        )
