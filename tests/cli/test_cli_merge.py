"""`edgeward merge` from the command line: a real search on small networks, its report, and mistakes."""

from __future__ import annotations

import importlib.util
import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from typer.testing import CliRunner

from edgeward.cli import app

NETS = """
from pathlib import Path

from safetensors.torch import load_file
from torch import nn


class Net(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(512, 32), nn.ReLU())
        self.head = nn.Linear(32, classes)

    def forward(self, x):
        return self.head(self.features(x))


def _trained(name, classes):
    net = Net(classes)
    net.load_state_dict(load_file(Path(__file__).parent / f"{name}.safetensors"))
    return net


def thirds():
    return _trained("thirds", 3)


def halves():
    return _trained("halves", 2)
"""


def pictures(kind, classes, seed, count=400):
    """Bright bands whose place is the class: rows for one kind, columns for the other."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, count)
    images = draw.integers(0, 90, (count, 8, 8, 1))
    for image, label in zip(images, labels, strict=True):
        band = slice(label * 8 // classes, (label + 1) * 8 // classes)
        image[(band, slice(None)) if kind == "rows" else (slice(None), band)] += 140
    return images.astype(np.uint8), labels


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("merge")
    (place / "nets.py").write_text(NETS)
    spec = importlib.util.spec_from_file_location("nets_of_test", place / "nets.py")
    nets = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(nets)
    for name, kind, classes in (("thirds", "rows", 3), ("halves", "columns", 2)):
        images, labels = pictures(kind, classes, seed=classes)
        np.savez(place / f"{name}.npz", x=images, y=labels)
        torch.manual_seed(classes)
        net = nets.Net(classes)
        inputs = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
        optimiser = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(40):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(inputs), torch.from_numpy(labels)).backward()
            optimiser.step()
        save_file(net.state_dict(), place / f"{name}.safetensors")
    return place


def run(folder, *words):
    found = CliRunner().invoke(app, ["merge", *words], catch_exceptions=False)
    assert found.exit_code == 0, found.output
    return found


def models(folder):
    return [f"{name}={folder / 'nets.py'}:{name}" for name in ("thirds", "halves")]


def data(folder):
    return [word for name in ("thirds", "halves") for word in ("--data", f"{name}={folder / name}.npz")]


def test_two_networks_are_merged_resumed_and_reported(folder, tmp_path):
    out = tmp_path / "merged"
    words = [
        *models(folder),
        *data(folder),
        "--target",
        "0.9",
        "--epochs",
        "4",
        "--input",
        "1x8x8",
        "-o",
        str(out),
        "--json",
    ]
    report = json.loads(run(folder, *words).stdout)
    assert report["saved_share"] > 0.3
    assert any(step["outcome"] == "confirmed" for step in report["steps"])
    for one in report["models"].values():
        assert one["accuracy"] >= 0.9 * one["unmerged"]
    again = json.loads(run(folder, *words).stdout)
    assert again["steps"] == []
    assert again["models"] == report["models"]
    told = run(folder, "report", str(out)).output
    assert "thirds" in told
    assert "saved" in told


def test_what_could_be_saved_is_told_without_training(folder):
    found = json.loads(run(folder, "report", *models(folder), "--json").stdout)
    assert 0.3 < found["share"] < 0.5
    assert found["groups"][0]["models"] == ["halves", "thirds"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{thirds}", "{thirds}", "--data", "x.npz"], "two models are called 'thirds'"),
        (["{thirds}", "{halves}", "--data", "thirds={folder}/thirds.npz"], "no pictures for 'halves'"),
        (["{thirds}", "{halves}", "--data", "third=x.npz"], "no model 'third'; .*thirds"),
        (["{thirds}", "{halves}", "--data", "nowhere.npz"], "nowhere.npz"),
        (["{thirds}", "{halves}", "--data", "{folder}/thirds.npz", "--target", "1.5"], "target 1.5"),
        (["{thirds}", "--data", "{folder}/thirds.npz"], "at least two"),
    ],
)
def test_mistakes_are_told_in_one_line(refusal, folder, tmp_path, words, message):
    known = dict(zip(("thirds", "halves"), models(folder), strict=True)) | {"folder": folder}
    found = [word.format(**known) for word in words]
    assert_told(refusal("merge", *found, "--input", "1x8x8", "-o", str(tmp_path / "out")), message)
    assert not (tmp_path / "out").exists()


def assert_told(text, message):
    assert re.search(message, text), text
