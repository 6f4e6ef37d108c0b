"""A stack of seeds on its way through the rounds of its method; it never sees target labels."""

import dataclasses
import time
from typing import Any

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from tlresearch.adaptation.batches import RoundBatches, SeedData
from tlresearch.adaptation.method import AdaptationMethod, Chosen
from tlresearch.adaptation.networks import AdaptedClassifier
from tlresearch.adaptation.norms import passing
from tlresearch.adaptation.trained import Trained
from tlresearch.data.domains import Pair
from tlresearch.errors import UserError
from tlresearch.training import checkpoint, tree
from tlresearch.training.device import dtype_of
from tlresearch.training.evaluation import accuracy_per_seed
from tlresearch.training.loop import Training, start
from tlresearch.training.observer import RunFiles, RunObserver
from tlresearch.training.runs import StackRun
from tlresearch.training.settings import Train
from tlresearch.training.stack import stack_networks
from tlresearch.training.stage import Stage


def begin(run: StackRun, pair: Pair) -> Training:
    """The networks of all seeds at initialisation, where the pair is."""
    dtype, device = dtype_of(run.train.precision), pair.scale.device
    networks = [
        run.method.networks(run.backbone, pair.shape, pair.classes, seed).to(dtype)
        for seed in run.seeds
    ]
    if run.train.batch_size < 2 and any(isinstance(m, _BatchNorm) for m in networks[0].modules()):
        raise UserError(
            "train.batch_size: batch norm needs at least 2 samples of a domain in a batch, not 1"
        )
    if run.train.channels_last:
        networks = [network.to(memory_format=torch.channels_last) for network in networks]
    state = tree.stack([run.method.init(network.to(device)) for network in networks])
    fields = {
        name: torch.tensor(values, dtype=dtype, device=device)
        for name, values in run.fields.items()
    }
    return start(run.seeds, stack_networks(networks, device), run.method, fields, run.train, state)


class Journey:
    """One stack on its way; `observer` is set by whoever sends it."""

    observer: RunObserver

    def __init__(self, run: StackRun, pair: Pair, files: RunFiles) -> None:
        self.run, self.pair, self.files = run, pair, files
        self.training = begin(run, pair)
        self.rounds = run.method.parts(run.train)
        self.number, self.learning = 0, Stage(self.training)
        self.chosen: list[Chosen | None] = [None] * len(run.seeds)
        self.journal: list[list[Chosen | None]] = []
        """What each round chose of each seed's target pool."""
        self.done = [False] * len(run.seeds)
        """Of each seed: whether a round chose nothing, so that its training is over."""
        self.seconds, self.began = 0.0, time.monotonic()
        """Of this way: seconds before its checkpoint, and when it went on from there."""

    @property
    def elapsed(self) -> float:
        """Seconds since its start, those before a checkpoint too."""
        return self.seconds + time.monotonic() - self.began

    def place(self, step: int) -> dict[str, Any]:
        """What a checkpoint says of the way so far."""
        journal = [[one and tree.to_plain(one) for one in row] for row in self.journal]
        place = {"round": self.number, "step": step, "journal": journal, "done": self.done}
        return place | self.learning.place() | {"seconds": self.elapsed}

    def travel(self) -> None:
        """The remaining rounds; then each method's last word."""
        place = checkpoint.resume(self.files.checkpoint, self.training, self._fits)
        if place is not None:
            self._go_to(place)
        self.files.log_lines_before(self.number, self.learning.step)
        before = sum(part.steps for part in self.rounds[: self.number])
        self.observer.progress(before + self.learning.step)
        while self.number < len(self.rounds) and None in self.training.failures:
            self._learn(before)
            before += self.rounds[self.number].steps
            self.number += 1
            self.learning.reset()
            self.observer.save_if_due(0)
        if self.run.benchmark.reverse:
            self.observer.save(0)  # a stop on the way back costs nothing of the way there
        self._end()

    def _go_to(self, place: dict[str, Any]) -> None:
        self.number, self.seconds, self.done = place["round"], place["seconds"], place["done"]
        self.journal = [[one and Chosen(**one) for one in row] for row in place["journal"]]
        if place["step"]:
            self.chosen = self.journal[-1]
        self.learning.go_to(place)

    def _fits(self, place: dict[str, Any]) -> bool:
        return (
            place["round"] in range(len(self.rounds) + 1)
            and len(place["done"]) == len(self.run.seeds)
            and len(place["journal"]) == place["round"] + (place["step"] > 0)
            and place["seconds"] >= 0
            and self._with_steps(place["round"]).fits(place)
        )

    def _with_steps(self, number: int) -> Stage:
        """The stage, its training as long as a round."""
        part = self.rounds[min(number, len(self.rounds) - 1)]
        train = dataclasses.replace(self.run.train, steps=part.steps)
        if not part.source:  # nothing of the source may be looked at, so nothing is selected
            still = {"checkpoint": "last", "evaluate_every": Train().evaluate_every, "patience": 0}
            train = dataclasses.replace(train, **still)
        self.training.train = train
        return self.learning

    def _learn(self, before: int) -> None:
        """One round."""
        part, learning = self.rounds[self.number], self._with_steps(self.number)
        self.observer.stage = self.number
        if learning.step == 0:
            self._choose()
            if part.fresh and self.number:
                self._renew()
            learning.begin(self.number, before)  # an average begins with the renewed weights
            self._stop_done()
        batches = RoundBatches(self.pair, self.number, part, self.chosen, self.training.train)
        learning.learn(batches.batch, self.observer, self._scores, f"round {self.number + 1}")

    def _choose(self) -> None:
        """States and target samples of the round; a seed with nothing to learn from is done."""
        places = range(len(self.run.seeds))
        states = [tree.take(self.training.state, place) for place in places]
        self.chosen = [None for _ in places]
        learners = self._learners()
        for place in learners:
            method, networks = self._one(place)
            before = self.journal[-1][place] if self.journal else None
            data = SeedData(self.pair, place, self.number, before)
            with torch.no_grad():
                states[place], chosen = method.before_round(
                    networks, states[place], self.number, data
                )
            self.chosen[place] = chosen
            self.done[place] = chosen is not None and not len(chosen.places)
        self.training.state = tree.stack(_alike(states, [*learners, *places][0]))
        self.journal.append(self.chosen)

    def _learners(self) -> list[int]:
        """Places of the seeds that neither failed nor are done."""
        ends = zip(self.training.failures, self.done, strict=True)
        return [i for i, (failure, done) in enumerate(ends) if failure is None and not done]

    def _stop_done(self) -> None:
        """Seeds that are done keep their weights for the rest of the way."""
        for place, over in enumerate(self.done):
            if over and self.training.active[place]:
                self.training.stop(place, None)

    def _renew(self) -> None:
        """Weights, statistics and optimiser as in the beginning, of the seeds that still learn."""
        mine, other = self.training.stack, begin(self.run, self.pair).stack
        for ours, fresh in ((mine.params, other.params), (mine.buffers, other.buffers)):
            for name, tensor in ours.items():
                for place in self._learners():
                    tensor[place] = fresh[name][place].detach()
        self.training.reset_optimizer()

    def _scores(self) -> Tensor:
        """Accuracy on the held-out part of the source; never anything of the target."""
        held_out = [
            [(x, y, None) for x, y in SeedData(self.pair, place, 0).held_out()]
            for place in range(len(self.run.seeds))
        ]
        with passing(self.training.stack.module, "source"):
            return accuracy_per_seed(self.training, held_out)

    def _one(self, place: int) -> tuple[AdaptationMethod, AdaptedClassifier]:
        """Method and networks of one seed, in evaluation mode."""
        method, networks = self.training.one(place)
        assert isinstance(method, AdaptationMethod) and isinstance(networks, AdaptedClassifier)
        return method, networks.eval()

    def _end(self) -> None:
        states = {}
        for place, failure in enumerate(self.training.failures):
            if failure is None:
                method, networks = self._one(place)
                state = tree.take(self.training.state, place)
                data = SeedData(self.pair, place, len(self.rounds))
                states[place] = method.after_training(networks, state, data)
        if states:  # a failed seed is measured no more, so any state will do
            some = next(iter(states.values()))
            places = range(len(self.run.seeds))
            self.training.state = tree.stack([states.get(place, some) for place in places])

    def trained(self, place: int) -> Trained:
        """One seed's model at the end."""
        method, networks = self._one(place)
        data = SeedData(self.pair, place, len(self.rounds))
        return Trained(method, networks, tree.take(self.training.state, place), data)


def _alike(states: list[tree.Tree], like: int) -> list[tree.Tree]:
    """The states, that of a seed which failed before it had such a one replaced by another's."""
    shapes = [[leaf.shape for leaf in tree.tensors(state)] for state in states]
    pairs = zip(states, shapes, strict=True)
    return [state if own == shapes[like] else states[like] for state, own in pairs]
