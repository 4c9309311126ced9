"""The command as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def edgeward(*arguments):
    return subprocess.run([sys.executable, "-m", "edgeward", *arguments], capture_output=True, text=True, timeout=120)


def test_help_names_every_verb():
    answer = edgeward("--help")
    assert answer.returncode == 0
    assert all(verb in answer.stdout for verb in ("serve", "replay", "models", "bench"))


def test_help_imports_nothing_heavy():
    script = "import sys, edgeward.cli; print(sorted(set(sys.modules) & {'torch', 'numpy', 'cv2', 'av', 'onnxruntime', 'fastapi', 'pydantic'}))"
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert answer.stdout.strip() == "[]"


def test_the_schema_is_json():
    assert json.loads(edgeward("serve", "--schema").stdout)["title"] == "BoxConfig"


def test_models_lists_what_is_packaged():
    names = {model["name"]: model for model in json.loads(edgeward("models", "--json").stdout)["models"]}
    assert names["ssdlite-person"]["licence"] == "MIT"
    assert {"nanodet", "centernet", "efficientnet-lite0", "mobilenetv2-embedder"} <= names.keys()
    assert "ssdlite-person" in edgeward("models").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["serve", "/nowhere/box.yaml"], "cannot read /nowhere/box.yaml: No such file"),
        (["serve", "--set", "web.prot=1"], "did you mean 'port'"),
        (["serve", "--truth", "street"], "write it as camera=file"),
        (["replay", "/nowhere"], "/nowhere"),
        (["replay", "/tmp", "--costs", "mean"], "choose 'recorded' or 'median'"),
        (["bench", "srve"], "did you mean 'serve'"),
    ],
)
def test_a_mistake_is_one_line_and_code_2(arguments, words):
    answer = edgeward(*arguments)
    assert answer.returncode == 2
    assert words in answer.stderr
    assert answer.stderr.startswith("edgeward: ")
    assert answer.stderr.count("\n") == 1


def test_the_public_names_are_sorted_and_all_there():
    import edgeward as package

    assert list(package.__all__) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match="Bocks"):
        package.Bocks  # noqa: B018


@pytest.mark.parametrize("seconds", ["nan", "inf"])
def test_a_time_that_is_none_is_refused_before_the_work(refusal, seconds):
    assert f"--seconds is {seconds}; give a number" in refusal("serve", "--check", "--seconds", seconds)
