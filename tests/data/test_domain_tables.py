"""The table of domains: names, facts, listing, fingerprints."""

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tlresearch.adaptation.checks import check
from tlresearch.adaptation.settings import AdaptationSettings
from tlresearch.adaptation.source_only import SourceOnly
from tlresearch.data import catalogue, domain_tables, office
from tlresearch.data.domain_files import File
from tlresearch.data.domain_tables import DOMAINS
from tlresearch.errors import UserError
from tlresearch.training.settings import Train


@pytest.mark.parametrize("name", DOMAINS)
def test_entries_are_complete(name: str):
    entry = DOMAINS[name]
    assert entry.title and entry.licence and entry.sizes[0] > 0
    assert re.fullmatch("[0-9a-f]{64}", entry.fingerprint)
    assert all(re.fullmatch("[0-9a-f]{64}", file.sha256) for file in entry.files)
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for _, sha256 in entry.packages)
    assert len(set(entry.class_names)) == entry.classes
    assert entry.files or entry.packages or entry.recipe
    assert name not in catalogue.DATASETS
    assert domain_tables.facts(name) == (entry.shape, entry.classes)


def test_no_two_domains_have_one_fingerprint():
    prints = [domain_tables.fingerprint(name) for name in (*DOMAINS, *catalogue.DATASETS)]
    assert len(set(prints)) == len(prints)


def test_a_fingerprint_changes_with_all_that_makes_the_domain(monkeypatch: pytest.MonkeyPatch):
    entry = DOMAINS["mnistm_bundled"]
    others = [
        replace(entry, recipe="another"),
        replace(entry, counts="raw"),
        replace(entry, files=(File("a", "0" * 64),)),
        replace(entry, made_of=("usps",)),
        replace(entry, packages=entry.packages[1:]),
    ]
    prints = {entry.fingerprint, *(other.fingerprint for other in others)}
    assert len(prints) == 6
    mnist = replace(catalogue.DATASETS["mnist"], fingerprint="0" * 64)
    monkeypatch.setitem(catalogue.DATASETS, "mnist", mnist)
    assert entry.fingerprint not in prints
    assert replace(entry, title="Another").fingerprint == entry.fingerprint


def refused(source: str, target: str) -> str:
    with pytest.raises(UserError) as caught:
        check(AdaptationSettings(source, target), SourceOnly(), "source_only", Train(steps=1))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("amazon_book", "amazon_books"),
        ("MNIST-M", "mnistm"),
        ("moon", "moons"),
        ("office_surf_caltech10", "office_surf_caltech"),
        ("uspss", "usps"),
    ],
)
def test_an_unknown_name_gives_the_nearest(name: str, near: str):
    text = refused("mnist", name)
    assert text.startswith("benchmark.target: unknown domain") and name in text
    assert near in text.partition("known are")[0]
    assert refused(name, "mnist").startswith("benchmark.source: unknown domain")


def test_a_set_with_other_classes_in_its_test_part_is_no_domain():
    assert "omniglot has other classes in its test part" in refused("omniglot", "mnist")
    check(AdaptationSettings("mnist", "usps"), SourceOnly(), "source_only", Train(steps=1))


def test_listing_has_every_domain_and_says_what_is_missing(tmp_path: Path):
    rows = {row["name"]: row for row in domain_tables.listing(tmp_path)}
    assert list(rows) == list(DOMAINS)
    assert rows["moons"]["found"] and rows["amazon_dvd"]["found"] is None
    assert rows["office_surf_dslr"]["train"] == 157 and rows["office_surf_dslr"]["test"] == 0
    for file in office.ENTRIES["office_surf_dslr"].files:
        (tmp_path / file.path).parent.mkdir(parents=True)
        (tmp_path / file.path).write_bytes(b"another")
    rows = {row["name"]: row for row in domain_tables.listing(tmp_path)}
    assert rows["office_surf_dslr"]["found"] == str(tmp_path / "office_caltech10/features/surf")
    status = {row["dataset"]: row["status"] for row in domain_tables.verify(tmp_path)}
    assert status["office_surf_dslr"] == "differs" and status["amazon_dvd"] == "missing"


@pytest.mark.needs_data("amazon_books")
@pytest.mark.needs_data("office_surf_dslr")
def test_real_files_verify(monkeypatch: pytest.MonkeyPatch):
    some = {name: DOMAINS[name] for name in ("amazon_books", "office_surf_dslr", "moons")}
    monkeypatch.setattr(domain_tables, "DOMAINS", some)
    rows = domain_tables.verify(None)
    assert [row["status"] for row in rows] == ["ok"] * 3
