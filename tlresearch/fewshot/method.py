"""Stub of METRIC's worktree; main's replaces it."""

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.func import vmap

from tlresearch.data.episodes import Episodes
from tlresearch.functional.losses import cross_entropy
from tlresearch.training.method import Loss, Method


@dataclass(frozen=True)
class FewShotMethod(Method):
    Batch: ClassVar[type] = Episodes
    trains_on: ClassVar[Literal["episodes", "classes", "nothing"]] = "episodes"
    train_ways: int | None = None
    train_shots: int | None = None
    train_queries: int | None = None
    tasks: int = 1

    def notes(self):
        return {}


@dataclass(frozen=True)
class MetricMethod(FewShotMethod):
    def networks(self, backbone, shape, classes, seed):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return backbone.build(shape)

    def embed(self, networks, x):
        return networks(x)

    def compare(self, networks, state, support, query):
        raise NotImplementedError

    def loss(self, networks, state, batch: Episodes) -> Loss:
        e, w, k = batch.support_x.shape[:3]
        q = batch.query_x.shape[2]
        x = torch.cat([batch.support_x.flatten(0, 2), batch.query_x.flatten(0, 2)])
        z = self.embed(networks, x)
        support = z[: e * w * k].unflatten(0, (e, w, k))
        query = z[e * w * k :].unflatten(0, (e, w * q))
        scores = vmap(lambda s, t: self.compare(networks, state, s, t))(support, query)
        y = torch.arange(w).repeat_interleave(q).repeat(e)
        value = cross_entropy(scores.flatten(0, 1), y)
        return Loss(value, {"cross_entropy": value})

    def predict_episode(self, networks, state, episode):
        w, k = episode.support_x.shape[:2]
        s = self.embed(networks, episode.support_x.flatten(0, 1)).unflatten(0, (w, k))
        return self.compare(networks, state, s, self.embed(networks, episode.query_x.flatten(0, 1)))[None]
