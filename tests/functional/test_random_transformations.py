"""The generator draws the same numbers mapped, compiled and on other devices."""

import pytest
import torch
from torch.func import vmap

from tlresearch.functional import random
from tlresearch.functional.random import make_key

KEY = make_key(0, "a")

DRAW = {
    "bits": lambda k: random.bits(k, (4, 6)),
    "uniform": lambda k: random.uniform(k, (24,)),
    "normal": lambda k: random.normal(k, (5,)),
    "integers": lambda k: random.integers(k, 10, (20,)),
    "bernoulli": lambda k: random.bernoulli(k, 0.4, (20,)),
    "permutation": lambda k: random.permutation(k, 20),
    "fold": lambda k: random.fold(k, 3),
    "categorical": lambda k: random.categorical(k, torch.full((20, 4), 0.25)),
}


@pytest.mark.parametrize("name", DRAW)
def test_vmap_equals_a_loop(name):
    """A stack of seeds draws what each seed draws alone, bit for bit."""
    keys = make_key(torch.arange(5), "a")
    alone = torch.stack([DRAW[name](key) for key in keys])
    assert torch.equal(vmap(DRAW[name])(keys), alone)
    if name != "categorical":  # takes one key
        assert torch.equal(DRAW[name](keys), alone)


@pytest.mark.slow
def test_compiled_draws_equal_eager(without_shape_checks):
    """Inductor once computed `arange * constant` in fewer bits at sizes 20 and 24."""
    pytest.importorskip("torch._inductor")

    def draw(key):
        sizes = (1, 20, 24, 64, 1000)
        words = [random.bits(random.fold(key, n), (n,)) for n in sizes]
        return [*words, random.uniform(key, (24,))]

    for compiled, eager in zip(torch.compile(draw, fullgraph=True)(KEY), draw(KEY), strict=True):
        assert torch.equal(compiled, eager)


@pytest.mark.gpu
@pytest.mark.parametrize("name", [n for n in DRAW if n != "categorical"])
def test_devices_agree(name, gpu):
    """The same integers on every device; Box and Muller's functions to their rounding."""
    keys = make_key(torch.arange(5), "a")
    there, here = DRAW[name](keys.to(gpu)).cpu(), DRAW[name](keys)
    if name == "normal":
        torch.testing.assert_close(there, here, atol=1e-6, rtol=1e-6)
    else:
        assert torch.equal(there, here)
