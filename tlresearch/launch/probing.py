"""Which stacks of own methods and foreign backbones can be one program: tried once each."""

import dataclasses
import json

from torch import nn

from tlresearch import families, own
from tlresearch.backbones.foreign import Foreign
from tlresearch.configs import plain_config
from tlresearch.experiment import Cell, Config
from tlresearch.training.probe import Case, probe
from tlresearch.training.settings import Train


def is_foreign(config: Config) -> bool:
    """Whether a configuration holds code or a backbone that is not ours."""
    return isinstance(config.backbone, Foreign) or bool(own.sources(config))


@dataclasses.dataclass
class Prober:
    """Tries each program once, and remembers what to say about it."""

    notes: list[str] = dataclasses.field(default_factory=list)
    """One line for each program that must run one seed at a time."""
    _reasons: dict[str, str | None] = dataclasses.field(default_factory=dict)

    def stackable(self, cell: Cell, fields: dict[str, list[float]], size: int) -> bool:
        """Whether `size` seeds of a cell's configuration may train as one program.

        Args:
            cell: the first of the stack.
            fields: numeric settings of the method that differ within the stack.
            size: how many seeds are wanted in one program; 1 only tries single runs.

        Raises:
            UserError: it cannot run at all; see `training.probe.probe`.
        """
        config = cell.config
        if not is_foreign(config):
            return True
        label = cell.method
        if isinstance(config.backbone, Foreign):
            label += f" with backbone {config.backbone.name}"
        stacked = size > 1
        # The optimiser and its settings have no part in it.
        train = Train(precision=config.train.precision, batch_size=config.train.batch_size)
        plain = plain_config(dataclasses.replace(config, train=train))
        name = json.dumps([label, plain, sorted(fields), stacked], sort_keys=True)
        if name not in self._reasons:
            self._reasons[name] = probe(_case(config, label, tuple(fields)), stacked)
            if self._reasons[name]:
                self.notes.append(f"{label}: runs one seed at a time, as {self._reasons[name]}")
        return self._reasons[name] is None


def _case(config: Config, label: str, fields: tuple[str, ...]) -> Case:
    shape, classes = families.sizes(config)
    method, backbone, trial = config.method, config.backbone, families.trial(config)

    def networks(seed: int) -> nn.Module:
        return method.networks(backbone, shape, classes, seed)

    return Case(
        label=label,
        method=method,
        networks=networks if trial is None else trial.networks,
        shape=shape,
        classes=classes,
        masked=getattr(config.benchmark, "scenario", "domain") != "domain",
        train=config.train,
        fields=fields,
        trial=trial,
    )
