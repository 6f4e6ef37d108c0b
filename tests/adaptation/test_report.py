"""What a run is reported by: each metric against the model's own outputs; points for figures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from small_blobs import blobs, domains, networks_of, opened, outcomes, run_of, trained

from tlresearch.adaptation import drawn as module
from tlresearch.adaptation import report
from tlresearch.adaptation.cdan import CDAN
from tlresearch.adaptation.dann import DANN
from tlresearch.adaptation.drawn import drawings, principal
from tlresearch.adaptation.norms import DomainNorm
from tlresearch.adaptation.report import METRICS, measure, shares
from tlresearch.adaptation.trained import Trained
from tlresearch.backbones.mlp import MLP
from tlresearch.functional import random
from tlresearch.functional.calibration import expected_calibration_error
from tlresearch.functional.domain_distance import domain_classifier


def measured(model: Trained, labels=None) -> tuple[dict, dict]:
    labels = opened() if labels is None else labels
    return measure(model, run_of().benchmark, [None], labels)


def test_accuracies_and_calibration_are_of_the_test_parts():
    model, labels = trained(), opened()
    found, arrays = measured(model, labels)
    with torch.no_grad():
        said = [
            model.networks(model.data.pair.inputs(part.images))
            for part in (labels.test, labels.source_test)
            if part is not None
        ]
    assert labels.source_test is not None
    right = said[0].argmax(1) == labels.test.labels
    assert found["acc"] == right.double().mean().item()
    right = said[1].argmax(1) == labels.source_test.labels
    assert found["source_test_acc"] == right.double().mean().item() != found["acc"]
    ece = expected_calibration_error(said[0].softmax(1), labels.test.labels, 15)
    assert found["ece"] == pytest.approx(ece.item(), abs=1e-12)
    assert set(found) == set(METRICS) - {"reverse"}
    counts = [said[0].argmax(1).tolist().count(c) / 48 for c in range(3)]
    assert arrays["target_classes"][0] == pytest.approx(counts, abs=5e-5)
    assert arrays["target_classes"][1] == pytest.approx([1 / 3] * 3, abs=5e-5)


def test_shares_of_classes_that_never_occur():
    assert shares(torch.tensor([2, 2, 0, 2]), 4) == [0.25, 0.0, 0.75, 0.0]


def test_domain_accuracy_is_the_discriminators_each_domain_weighing_the_same():
    """A positive logit says source; the target has a third of the source's samples."""
    model, far = trained(), blobs("far_blobs", count=18, shift=1.0, seed=1)
    labels = opened(far=far)
    found, _ = measured(model, labels)
    assert labels.source_test is not None
    networks = networks_of(model)
    with torch.no_grad():
        source, target = (
            networks.discriminator(networks.features(part.images.double()))
            for part in (labels.source_test, labels.test)
        )
    expected = 0.5 * ((source > 0).double().mean() + (target <= 0).double().mean())
    assert found["domain_acc"] == pytest.approx(expected.item(), abs=1e-12)
    assert "domain_acc" not in measured(trained("source_only"), labels)[0]


def test_a_distance_is_of_features_of_test_samples():
    """Both halves by hand, drawn as the report draws them."""
    model, labels = trained(), opened()
    found, _ = measured(model, labels)
    assert labels.source_test is not None
    key, halves = model.key("A-distance"), []
    for domain, part in enumerate((labels.source_test, labels.test)):
        with torch.no_grad():
            z = model.networks.features(part.images.double())
        order = random.permutation(random.fold(key, domain), 48)
        halves.append((z[order[:24]], z[order[24:]]))
    told = domain_classifier(halves[0][0], halves[1][0])
    errors = (told(halves[0][1]) <= 0.5).sum() + (told(halves[1][1]) > 0.5).sum()
    assert found["a_distance"] == pytest.approx(2 * (1 - 2 * errors.item() / 48), abs=1e-12)


def test_features_are_compared_of_a_few_samples_only(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(report, "COMPARED", 4)
    assert measured(trained())[0]["a_distance"] in (-2.0, -1.0, 0.0, 1.0, 2.0)  # 2 + 2 are tested


def test_without_a_test_part_the_held_out_samples_stand_for_the_source():
    model, labels = trained(), replace(opened(), source_test=None)
    found, _ = measured(model, labels)
    assert "source_test_acc" not in found and "a_distance" in found
    part = report._source_test(model, labels)
    pair = model.data.pair
    assert torch.equal(part.images, pair.source.images[pair.held_out_pools[0]])


def test_the_oracle_has_no_source_to_compare_with():
    found, arrays = measured(trained("oracle"))
    assert not {"source_test_acc", "a_distance", "domain_acc"} & set(found)
    assert set(arrays) == {"target_classes"}


def test_without_labels_only_scores():
    found, arrays = measure(trained(), run_of().benchmark, [None], None)
    assert not {"acc", "ece", "source_test_acc", "a_distance"} & set(found) and arrays == {}


# Points for figures


def drawn(model: Trained, **changes) -> dict:
    labels = opened()
    assert labels.source_test is not None
    benchmark = replace(run_of().benchmark, **changes)
    with torch.no_grad():
        return drawings(model, benchmark, labels.source_test, labels.test)


def test_points_are_the_principal_components_of_both_domains_features():
    """Against numpy's eigenvectors; to three digits, with domain and class."""
    model, labels = trained(), opened()
    assert labels.source_test is not None
    rows = np.array(drawn(model)["embedding"])
    with torch.no_grad():
        images = torch.cat([labels.source_test.images, labels.test.images]).double()
        z = model.networks.features(images).numpy()
    z = z - z.mean(0)
    vectors = np.linalg.eigh(z.T @ z)[1][:, ::-1][:, :2]
    vectors *= np.sign(vectors[np.abs(vectors).argmax(0), [0, 1]])
    np.testing.assert_allclose(rows[:, :2], z @ vectors, rtol=6e-3, atol=1e-6)
    assert rows[:, 2].tolist() == [0] * 48 + [1] * 48
    assert rows[:, 3].tolist() == [
        *labels.source_test.labels.tolist(),
        *labels.test.labels.tolist(),
    ]


def test_a_single_feature_has_no_second_component():
    z = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    assert principal(z).tolist() == [[-1, 0], [1, 0]]


def test_points_are_few(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "POINTS", 5)
    rows = np.array(drawn(trained())["embedding"])
    assert rows.shape == (10, 4) and rows[:, 2].sum() == 5


def test_only_the_named_seed_is_drawn(tmp_path: Path):
    with domains():
        first, second = outcomes(run_of("source_only", (3, 4), drawn_seed=4), tmp_path)
    assert set(first.arrays) == {"target_classes"}
    assert {"embedding", "inputs"} <= set(second.arrays)


def test_embedding_may_be_left_out_or_made_by_tsne():
    assert "embedding" not in drawn(trained(), embedding="none")
    rows = np.array(drawn(trained(), embedding="tsne")["embedding"])
    assert rows.shape == (96, 4) and np.isfinite(rows).all()
    assert not np.allclose(rows[:, :2], np.array(drawn(trained())["embedding"])[:, :2])


def test_the_boundary_is_what_is_predicted_on_a_grid(monkeypatch: pytest.MonkeyPatch, tmp_path):
    """For two classes in the plane; rows from bottom to top, columns from left to right."""
    monkeypatch.setattr(module, "SIDE", 7)
    assert "boundary" not in drawn(trained())  # three classes
    run = run_of("source_only", (0,), normalise="none")
    with domains(classes=2):
        outcome = outcomes(run, tmp_path)[0]
    left, right, bottom, top = outcome.arrays["boundary_box"]
    points = np.array(outcome.arrays["inputs"])
    assert left < points[:, 0].min() and top > points[:, 1].max()
    networks = run.method.networks(run.backbone, (2, 1, 1), 2, 0).double()
    networks.load_state_dict(outcome.weights)
    at = torch.tensor([right, bottom + 2 * (top - bottom) / 6], dtype=torch.float64)
    with torch.no_grad():
        likely = networks(at.view(1, 2, 1, 1)).softmax(1)[0, 1].item()
    assert outcome.arrays["boundary"][2][6] == pytest.approx(likely, abs=2e-3)
    assert np.shape(outcome.arrays["boundary"]) == (7, 7)


def test_each_domain_passes_by_its_own_norms():
    """Features of the source by the source's statistics, as its predictions are."""
    method = DANN(discriminator=(4,), batch_norm="domain_specific")
    run = replace(run_of(method), backbone=MLP(hidden=(8,), norm="batch"))
    networks = method.networks(run.backbone, (2, 1, 1), 3, 0).double().eval()
    for norm in (m for m in networks.modules() if isinstance(m, DomainNorm)):
        assert isinstance(norm.source, torch.nn.Module)
        norm.source.get_buffer("running_mean").add_(1)
    model = replace(trained(), method=method, networks=networks)
    images = opened().test.images
    with torch.no_grad():
        own = model.features(images, "source")
        assert not torch.equal(own, model.features(images, "target"))
        assert torch.equal(model.scores(images), networks.head(own))


def test_conditional_discriminators_are_asked_as_they_were_trained():
    """CDAN's sees features and predictions together."""
    method = CDAN(discriminator=(4,))
    model, labels = trained(method), opened()
    networks = networks_of(model)
    with torch.no_grad():
        z = networks.features(labels.test.images.double())
        said = networks.head(z).softmax(1)
        products = (said.unsqueeze(2) * z.unsqueeze(1)).flatten(1)  # class by class
        expected = networks.discriminator(products).squeeze(1)
        ours = method.domain_logits(networks, labels.test.images.double())
    assert ours is not None
    torch.testing.assert_close(ours, expected)
    assert "domain_acc" in measured(model, labels)[0]
