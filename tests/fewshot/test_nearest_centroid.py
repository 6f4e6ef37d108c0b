"""The nearest centroid on frozen features: scikit-learn's answer, and not a byte changed."""

from pathlib import Path

import numpy as np
import torch
from sklearn.neighbors import NearestCentroid as SklearnCentroid
from small_episodes import assert_maps, assert_symmetric, close, episodes, features
from torch import nn

from tlresearch.backbones import foreign
from tlresearch.backbones.conv4 import Conv4
from tlresearch.fewshot.nearest_centroid import NearestCentroid

NOTHING = nn.Identity()
METHOD = NearestCentroid()
NET = '''
from torch import nn, load

def make(input_shape, weights=""):
    """A net that brings its weights."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
    if weights:
        net.load_state_dict(load(weights))
    return net
'''


def test_predicts_as_scikit_learn():
    support, query = features(ways=5, shots=3, queries=200)
    scores = METHOD.compare(NOTHING, {}, support, query)
    model = SklearnCentroid().fit(support.flatten(0, 1).numpy(), np.arange(15) // 3)
    assert scores.argmax(1).tolist() == model.predict(query.numpy()).tolist()
    centroids = [sum(shots) / 3 for shots in support]
    squares = [[((q - c) ** 2).sum().item() for c in centroids] for q in query]
    close(scores, -torch.tensor(squares, dtype=scores.dtype))


def test_nothing_is_trained_and_nothing_changes():
    """Asked for training mode or not: no gradients, the same features, the same bytes."""
    assert METHOD.trains_on == "nothing"
    net = METHOD.networks(Conv4(channels=3), (1, 16, 16), 5, seed=0).double()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    batch = episodes(count=1, shape=(1, 16, 16))
    one = type(batch)(batch.support_x[0], batch.query_x[0])
    scores = METHOD.predict_episode(net.eval(), {}, one)
    assert torch.equal(METHOD.predict_episode(net.train(), {}, one), scores)
    assert not any(module.training for module in net.modules())
    assert not any(p.requires_grad for p in net.parameters()) and not scores.requires_grad
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())


def test_a_foreign_backbone_keeps_the_weights_it_brings(tmp_path: Path):
    """`pretrained` here is own code that loads a file; the seed changes none of it."""
    source = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Dropout(0.5), nn.Flatten())
    source(torch.randn(20, 1, 6, 6))
    torch.save(source.state_dict(), tmp_path / "weights.pt")
    (tmp_path / "net.py").write_text(NET)
    raw = {"name": "./net.py:make", "weights": str(tmp_path / "weights.pt")}
    backbone = foreign.backbone(raw, "backbone", str(tmp_path / "exp.yaml"))
    nets = [METHOD.networks(backbone, (1, 6, 6), 5, seed) for seed in (0, 1)]
    x = torch.randn(4, 1, 6, 6)
    for net in nets:
        torch.testing.assert_close(METHOD.embed(net.train(), x), source.eval()(x))


def test_a_model_of_timm():
    """Features in evaluation mode, its batch norms and its dropout included."""
    raw = {"name": "timm:resnet10t", "stem_width": 4, "drop_rate": 0.5}
    backbone = foreign.backbone(raw, "backbone", "exp.yaml")
    net = METHOD.networks(backbone, (1, 32, 32), 5, seed=0).train()
    x = torch.rand(3, 1, 32, 32)
    together, alone = METHOD.embed(net, x), METHOD.embed(net, x[:1])
    torch.testing.assert_close(together[:1], alone)


def test_finite_with_features_of_500():
    support, query = (500 * x.float().sign() for x in features())
    assert METHOD.compare(NOTHING, {}, support, query).isfinite().all()


def test_symmetries():
    assert_symmetric(lambda s, q: METHOD.compare(NOTHING, {}, s, q), *features())


def test_maps_over_episodes():
    assert_maps(METHOD, NOTHING, {})
