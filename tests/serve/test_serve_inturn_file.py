"""Rungs in turn in the box file and in the ladder file."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_serve_inturn_worth import EDGES, rung

from edgeward.errors import ConfigError
from edgeward.serve.configfile import parse_config
from edgeward.serve.ladder import Ladder, Rung, dominated, load_ladder, save_ladder

SETTINGS = settings(max_examples=100, deadline=None, derandomize=True)


# The box file and the ladder file.


def rungs_read(names):
    text = "\n".join(
        [
            "cameras: [{name: a, source: 'test://people'}]",
            "models:",
            *(f"  - {{name: {name}, file: {name}.onnx, convention: yolov8, labels: [cat]}}" for name in "abc"),
            f"ladders: [{{name: pets, models: [{names}], calibration: pets.json}}]",
            "queries: [{camera: a, model: pets}]",
        ]
    )
    return parse_config(text, "box.yaml").ladders[0]


@pytest.mark.parametrize(
    ("names", "members"),
    [
        ("a~b", "ab"),
        ("a~b~c", "abc"),
        ("a, a~b", "ab"),
        ("a+b, a~b", "ab"),
        ("c~b, b+c, a", "cba"),
        ("a~b, a~b~c", "abc"),
    ],
)
def test_rungs_in_turn_may_stand_beside_others(names, members):
    entry = rungs_read(names)
    assert entry.models == tuple(names.split(", "))
    assert entry.members == tuple(members)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("a, a+b~c", r"ladders.0.models.1: 'a\+b~c' is not a name; .* all with '\+' or all with '~' between"),
        ("a~b+c", r"ladders.0.models.0: 'a~b\+c' is not a name"),
        ("a~", r"'a~' is not a name"),
        ("~a", r"'~a' is not a name"),
        ("a~~b", r"'a~~b' is not a name"),
        ("'~'", r"'~' is not a name"),
        ("a~a", r"'a~a' holds a model twice; name each once"),
        ("a~b~a", r"'a~b~a' holds a model twice"),
        ("a~b, b~a", r"'a~b' and 'b~a' are the same models; keep one of the two"),
        ("a~b, a+b, a~b", r"'a~b' is listed twice"),
        ("a, a~" + 65 * "m", f"the name '{64 * 'm'}'... has 65 characters; use at most 64"),
        (60 * "a~b~c~" + 200 * "a~" + "b", "the names in .* characters together; use at most 512"),
    ],
)
def test_rungs_in_turn_that_cannot_be_are_refused(names, message):
    with pytest.raises(ConfigError, match=message):
        rungs_read(names)


SECONDS = st.floats(1e-4, 10)


@SETTINGS
@given(st.lists(SECONDS, min_size=2, max_size=4))
def test_seconds_of_each_survive_the_file(tmp_path_factory, parts):
    path = tmp_path_factory.getbasetemp() / "inturn.json"
    name = "~".join("abcd"[: len(parts)])
    saved = Ladder("box", ("object",), EDGES, (rung("a"), rung(name, sum(parts) / len(parts), parts=tuple(parts))))
    save_ladder(saved, path)
    assert load_ladder(path) == saved


def test_a_rung_is_known_in_whatever_order_its_models_are_named():
    """And each one's seconds stay its own; together and in turn are two things."""
    made = rung("a~b~c", 0.02, parts=(0.01, 0.02, 0.03))
    ladder = Ladder("box", ("object",), EDGES, (rung("a"), rung("a+b"), made))
    assert ladder.known_as("c~a~b") == replace(made, name="c~a~b", parts=(0.03, 0.01, 0.02))
    assert ladder.known_as("b+a") == replace(ladder.rung("a+b"), name="b+a")
    for unknown in ("b", "a~b", "a+b+c", "c+b+a"):
        assert ladder.known_as(unknown) is None


@pytest.mark.parametrize(
    ("name", "parts"),
    [("a", (0.1,)), ("a+b", (0.1, 0.1)), ("a~b", ()), ("a~b", (0.1,)), ("a~b", (0.1, 0.0)), ("a~b~c", (0.1, 0.1))]
    + [("a~b", (0.1, bad)) for bad in (-1.0, math.inf, math.nan)],
)
def test_seconds_that_do_not_fit_the_rung_are_refused(name, parts):
    with pytest.raises(
        ConfigError, match=r"rung '.*': parts \[.*\]; it must hold the seconds of each .* in turn, over 0; .*calibrate"
    ):
        Rung(name, (0.5,), 0.1, parts=parts)


def test_a_file_with_seconds_that_do_not_fit_is_refused_by_its_name(tmp_path):
    path = tmp_path / "ladder.json"
    save_ladder(Ladder("box", ("object",), EDGES, (rung("a~b", parts=(0.25, 0.125)),)), path)
    path.write_text(path.read_text().replace("0.25,", ""))
    with pytest.raises(ConfigError, match=r"ladder.json: .*'a~b': parts \[0.125\]; .* its 2 models"):
        load_ladder(path)


FIGURES = st.tuples(st.sampled_from([0.2, 0.5, 0.9]), st.sampled_from([0.01, 0.02]), st.sampled_from([1, 2]))


@SETTINGS
@given(st.lists(FIGURES, min_size=6, max_size=6))
def test_models_in_turn_rule_nothing_out_and_may_be_ruled_out(figures):
    names = ("a", "b", "a~b", "a+b", "b~c", "a~b~c")
    rungs = [rung(n, s, (p,), bytes=held) for n, (p, s, held) in zip(names, figures, strict=True)]
    found = dominated(rungs)
    for name, why in found.items():
        assert not any(f"out: {each!r} is" in why for each in names if "~" in each), name
    plain = dominated([each for each in rungs if "~" not in each.name])
    assert {name for name in found if "~" not in name} == set(plain), "with and without them"
    for each in rungs:
        if "~" in each.name:
            alone = dominated([*(other for other in rungs if "~" not in other.name), each])
            assert (each.name in found) == (each.name in alone), "whatever else takes turns"
