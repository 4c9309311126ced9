"""Variants and portfolios as values and as files: what is written comes back, what is damaged is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from edgeward.errors import ModelError, StoreError
from edgeward.profile.variant import (
    PORTFOLIO_FILE,
    Accuracy,
    LatencyFigure,
    Portfolio,
    Variant,
    load_portfolio,
    save_portfolio,
)


def variant(name="small", **changes):
    given = {
        "name": name, "folder": f"variants/{name}", "method": "dnnshifter", "parameters": 1000, "macs": 50_000, "bytes": 4000,
        "peak_bytes": 9000, "latency": {"pi": LatencyFigure(median=0.02, low=0.019, high=0.03)},
        "accuracy": Accuracy(value=0.9, error=0.01, data="cifar10 test"), "sparsity": 0.98,
    }  # fmt: skip
    return Variant(**(given | changes))


def portfolio(*variants):
    return Portfolio(model="vgg16", variants=variants or (variant("small"), variant("large", bytes=9000)))


def test_a_portfolio_comes_back_as_it_was_written(tmp_path):
    path = save_portfolio(portfolio(), tmp_path / "new")
    assert path == tmp_path / "new" / PORTFOLIO_FILE
    assert load_portfolio(path) == load_portfolio(path.parent) == portfolio()
    assert portfolio().place(portfolio()["large"], path.parent) == tmp_path / "new" / "variants" / "large"


@given(st.lists(st.floats(1e-6, 1e3), min_size=1, max_size=40))
def test_a_latency_figure_lies_within_what_was_measured(seconds):
    figure = LatencyFigure.of(seconds)
    assert min(seconds) <= figure.low <= figure.median <= figure.high <= max(seconds)
    assert {figure.low, figure.median, figure.high} <= set(seconds)


def test_the_median_of_an_odd_count_is_the_middle_one():
    assert LatencyFigure.of([5.0, 1.0, 3.0]).median == 3.0
    with pytest.raises(ModelError, match="at least one"):
        LatencyFigure.of([])


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "a b"},
        {"folder": "../elsewhere"},
        {"folder": "/etc"},
        {"folder": "a/../../b"},
        {"folder": "C:\\x"},
        {"folder": ""},
        {"parameters": -1},
        {"bytes": 1.5},
        {"sparsity": 1.01},
        {"accuracy": {"value": float("nan"), "data": "x"}},
        {"accuracy": {"value": 91.0, "data": "x"}},
        {"accuracy": {"value": 0.9, "data": ""}},
        {"latency": {"pi": {"median": 1.0, "low": 2.0, "high": 3.0}}},
        {"latency": {"pi": {"median": 0.0, "low": 0.0, "high": 0.0}}},
        {"colour": "red"},
    ],
)
def test_what_cannot_be_is_refused(changes):
    with pytest.raises(ValidationError):
        variant(**changes)


def test_memory_is_the_peak_where_it_was_measured():
    assert variant().memory == 9000
    assert variant(peak_bytes=None).memory == 4000


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(ModelError, match="did you mean 'small'"):
        portfolio()["smal"]
    with pytest.raises(ModelError, match="no latency on 'tpu'; known: pi"):
        variant().on("tpu")
    with pytest.raises(ModelError, match="none was measured"):
        variant(latency={}).on("pi")


def test_two_variants_of_one_name_are_refused():
    with pytest.raises(ValidationError, match="two variants are named 'small'"):
        portfolio(variant(), variant())


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda record: record.update(version=2), "version 2, this edgeward reads 1"),
        (lambda record: record.pop("version"), "not a portfolio"),
        (lambda record: record.update(variants=[]), "variants: "),
        (lambda record: record["variants"][1].pop("method"), r"variants\.1\.method"),
        (lambda record: record["variants"][0].update(folder="../../etc"), "not a folder below the portfolio"),
    ],
)
def test_a_damaged_file_is_refused_with_its_place(tmp_path, edit, message):
    path = save_portfolio(portfolio(), tmp_path)
    record = json.loads(path.read_text())
    edit(record)
    path.write_text(json.dumps(record))
    with pytest.raises(ModelError, match=message) as caught:
        load_portfolio(tmp_path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "[]", "3", '{"version": 1}'])
def test_what_is_no_portfolio_is_refused(tmp_path, text):
    (tmp_path / PORTFOLIO_FILE).write_text(text)
    with pytest.raises(ModelError, match="make it again"):
        load_portfolio(tmp_path)


def test_a_missing_or_huge_file_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(ModelError, match="cannot read portfolio"):
        load_portfolio(tmp_path / "absent")
    with (tmp_path / PORTFOLIO_FILE).open("wb") as file:
        file.truncate(1 << 30)
    with pytest.raises(ModelError, match="at most"):
        load_portfolio(tmp_path)


def test_a_disk_that_refuses_is_a_store_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write"):
        save_portfolio(portfolio(), tmp_path / "file")
