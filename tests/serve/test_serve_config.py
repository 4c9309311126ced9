"""The box file: every mistake is named with its place, the allowed values and the nearest right key."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgeward.errors import ConfigError, EdgewardError
from edgeward.serve.config import BoxConfig, schema
from edgeward.serve.configfile import load_config, parse_config

GOOD = """
cameras: [{name: street, source: test://people}]
models: [{name: people, use: ssdlite-person}]
queries: [{camera: street, model: people}]
"""


def broken(change):
    record = yaml.safe_load(GOOD)
    change(record)
    with pytest.raises(ConfigError) as caught:
        parse_config(yaml.safe_dump(record), "box.yaml")
    assert str(caught.value).startswith("box.yaml: ")
    return str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r["cameras"][0].update(sorce="x"), "cameras.0.sorce: unknown key; did you mean 'source'?"),
        (lambda r: r.update(querys=[]), "querys: unknown key; did you mean 'queries'?"),
        (lambda r: r["queries"][0].update(confidense=1), "queries.0.confidense: unknown key; did you mean 'confidence'?"),
        (lambda r: r["models"][0].update(input={"heigth": 3}), "models.0.input.heigth: unknown key; did you mean 'height'?"),
        (lambda r: r["cameras"].append(dict(r["cameras"][0])), "cameras: two are named 'street'"),
        (lambda r: r["queries"].append(dict(r["queries"][0])), "queries: two are named 'street-people'"),
        (lambda r: r["queries"][0].update(camera="stret"), "which does not exist; did you mean 'street'?"),
        (lambda r: r["queries"][0].update(model="cars"), "asks for model 'cars'"),
        (lambda r: r["queries"][0].update(confidence=1.5), "less than or equal to 1 (given: 1.5)"),
        (lambda r: r["queries"][0].update(deadline=-1), "greater than 0 (given: -1)"),
        (lambda r: r.update(budget={"memory": "lots"}), "'lots' is not a size; write it like '64 MiB'"),
        (lambda r: r["queries"][0].update(zones=[{"name": "z", "polygon": [[0, 0], [1, 1], [1, 0]]}]), "add 'tracker: true'"),
        (lambda r: r["models"][0].pop("use"), "give either 'use'"),
        (lambda r: r["models"][0].update(use=None, file="a.onnx"), "needs 'convention'"),
        (lambda r: r["cameras"][0].update(name="a/b"), "'a/b' is not a name; use letters"),
        (lambda r: r.update(cameras={"gate": {}}), "cameras: write a list, each item on a line that begins with"),
        (lambda r: r.update(web=3), "web: write keys with values below it"),
        (
            lambda r: r["queries"][0].update(tracker=True, zones=[{"name": "z", "polygon": [[0, 0], [1.2, 0], [1, 1]]}]),
            "corner [1.2, 0.0] lies outside the picture",
        ),
        (lambda r: r.pop("cameras"), "cameras: this key is required"),
        (lambda r: r.update(cameras=[]), "cameras: a list should have at least 1 item"),
    ],
)  # fmt: skip
def test_a_mistake_is_named(change, message):
    assert message in broken(change)


@pytest.mark.parametrize(
    "text", ["", "3", "[1]", "a: [", "a: 1\na: 2", "? [1]\n: 2", "\x00", "&a [*a]", "!!python/object:os.system {}"]
)
def test_text_that_is_no_box_file(text):
    with pytest.raises(ConfigError, match=r"box\.yaml"):
        parse_config(text, "box.yaml")


@given(st.text(max_size=200))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_any_text_is_a_config_or_a_config_error(text):
    try:
        parse_config(text, "x")
    except EdgewardError as error:
        assert str(error).startswith("x")


def test_overrides_reach_by_number_and_by_name():
    assert parse_config(GOOD, "x", ["cameras.street.source=0"]).cameras[0].source == "0"
    assert parse_config(GOOD, "x", ["queries.street-people.deadline=2"]).queries[0].deadline == 2
    config = parse_config(
        GOOD, "x", ["cameras.street.rate=5", "cameras.0.loop=true", "budget.memory=1 GiB", "web.port=0"]
    )
    assert (config.cameras[0].rate, config.cameras[0].loop) == (5, True)
    assert (config.budget.memory, config.web.port) == (1 << 30, 0)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("cameras.stret.rate=5", "did you mean 'street'"),
        ("budget.memory", "write it as key.subkey=value"),
        ("budget.memori=1", "did you mean 'memory'"),
        ("policy.a.b=1", "nothing lies below"),
    ],
)
def test_a_wrong_override_is_named(override, message):
    text = GOOD + "policy: edf-lru\n"
    with pytest.raises(ConfigError, match=message):
        parse_config(text, "x", [override])


def test_the_schema_accepts_what_we_accept():
    validator = jsonschema.Draft202012Validator(json.loads(json.dumps(schema())))
    validator.validate(yaml.safe_load(GOOD))
    default = Path(__import__("edgeward.serve").serve.__file__).with_name("default.yaml")
    validator.validate(yaml.safe_load(default.read_text()))
    assert not validator.is_valid({**yaml.safe_load(GOOD), "querys": 1})


def test_paths_are_relative_to_the_file(tmp_path):
    file = tmp_path / "box.yaml"
    file.write_text(
        GOOD.replace("test://people", "clips/a.mp4").replace("use: ssdlite-person", "file: m.onnx, convention: yolov8")
    )
    config = load_config(file)
    assert config.cameras[0].source == str(tmp_path / "clips/a.mp4")
    assert config.models[0].file == tmp_path / "m.onnx"
    assert config.data == tmp_path / "box-data"


def test_a_missing_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "big.yaml").write_bytes(b"#" * (2 << 20))
    with pytest.raises(ConfigError, match="at most"):
        load_config(tmp_path / "big.yaml")


def test_the_bundled_default_is_valid():
    assert isinstance(load_config(None), BoxConfig)
