"""`edgeward split tune` from pictures on disk to a tuned network in a folder."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest
import torch
import typer
from typer.testing import CliRunner

from edgeward.cli.tune import tune
from edgeward.errors import EdgewardError
from edgeward.split.tuned import load_tuned
from edgeward.vision.classification import accuracy
from edgeward.vision.labelled import load_labelled
from edgeward.zoo.network import open_network

NETWORK = """
    from collections import OrderedDict

    from torch import nn

    INPUT_SHAPE = (3, 10, 10)


    def build():
        near = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        far = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
        return nn.Sequential(OrderedDict(near=near, far=far, head=head))
"""

# The published shortcut pads zeros on both sides of the channels.
RESNET = """
    from torch import nn

    from edgeward.zoo.cifar import cifar_resnet

    INPUT_SHAPE = (3, 32, 32)


    def build():
        network = cifar_resnet(20)
        for one in network.modules():
            if isinstance(one, nn.ZeroPad3d):
                half = sum(one.padding) // 2
                one.padding = (0, 0, 0, 0, half, half)
        return network
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "nets.py").write_text(textwrap.dedent(NETWORK))
    random = np.random.default_rng(0)
    for name, count in (("train", 90), ("test", 60)):
        labels = random.integers(0, 3, count)
        images = random.integers(0, 120, (count, 10, 10, 3))
        images[np.arange(count), :, :, labels] += 100
        np.savez(tmp_path / f"{name}.npz", x=images.astype(np.uint8), y=labels)
    return tmp_path


def run(*args):
    app = typer.Typer()
    app.command("tune")(tune)
    return CliRunner().invoke(app, [str(one) for one in args])


def basic(folder, *more):
    return run(f"{folder / 'nets.py'}:build", "--data", folder / "train.npz", "--test", folder / "test.npz", *more)


def test_a_network_is_tuned_reported_and_comes_back(folder):
    made = basic(
        folder, "--after", 0, "--layer", "avg2-bilinear", "--layer", "learned4-1x1", "--layer", "none", "--epochs", 2,
        "--learning-rate", 0.05, "--json", "-o", folder / "out",
    )  # fmt: skip
    assert made.exit_code == 0, made.output + str(made.exception)
    rows = json.loads(made.stdout)
    assert [row["layer"] for row in rows] == ["avg2-bilinear", "learned4-1x1", "none"]
    assert [row["bytes_after"] for row in rows] == [8 * 25 * 4, 2 * 100 * 4, 8 * 100 * 4]
    test = load_labelled(folder / "test.npz")
    for row in rows:
        assert row["bytes_before"] == 3200
        assert row["test_pictures"] == 60
        network = open_network(f"{folder / 'nets.py'}:build").module
        chain = load_tuned(folder / "out" / row["layer"], network)
        assert accuracy(chain, test) == row["accuracy_tuned"]
        assert not list((folder / "out").rglob(".*"))
    again = basic(folder, "--after", 0, "--epochs", 2, "--learning-rate", 0.05)
    assert again.exit_code == 0
    assert "avg2-bilinear" in again.stdout
    assert f"{100 * rows[0]['accuracy_tuned']:.1f} %" in again.stdout


def test_weights_are_read_and_a_fifth_is_held_out_for_testing(folder):
    network = open_network(f"{folder / 'nets.py'}:build").module
    with torch.no_grad():
        network.head[-1].bias.copy_(torch.tensor([1000.0, 0, 0]))
    torch.save(network.state_dict(), folder / "w.pt")
    made = run(
        f"{folder / 'nets.py'}:build",
        "--data",
        folder / "train.npz",
        "--weights",
        folder / "w.pt",
        "--epochs",
        0,
        "--json",
    )
    assert made.exit_code == 0, made.output + str(made.exception)
    row = json.loads(made.stdout)[0]
    assert row["test_pictures"] == 18
    _, held = load_labelled(folder / "train.npz").split(0.2, 0)
    assert row["accuracy_before"] == row["accuracy_tuned"] == (held.labels == 0).mean()
    assert row["lost"] == 0


def test_a_block_may_be_given_by_name_or_searched(folder):
    found = basic(folder, "--after", "best", "--epochs", 0, "--json")
    assert found.exit_code == 0
    row = json.loads(found.stdout)[0]
    by_name = basic(folder, "--after", row["block"], "--epochs", 0, "--json")
    assert json.loads(by_name.stdout)[0]["after"] == row["after"]


def test_a_codec_on_top_costs_little_and_saves_more(folder):
    made = basic(folder, "--after", 0, "--codec", "int8", "--epochs", 1, "--json")
    assert made.exit_code == 0, made.output + str(made.exception)
    row = json.loads(made.stdout)[0]
    assert row["bytes_with_codec"] < 0.5 * row["bytes_after"]
    assert abs(row["accuracy_with_codec"] - row["accuracy_tuned"]) < 0.1


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--layer", "avg2-bilinea"), "did you mean 'avg2-bilinear'"),
        (("--mode", "half"), "choose one of whole, edge, layer"),
        (("--after", "99"), "choose from 0"),
        (("--after", "qqq"), "there is no such block"),
        (("--after", "best", "--layer", "none"), "needs a --layer"),
        (("--mode", "layer", "--after", "0"), "learned4-1x1"),
        (("--weights", "absent.pt"), "cannot read weights"),
        (("--codec", "qqq"), "qqq"),
    ],
)
def test_mistakes_end_in_one_line_that_says_what_to_do(folder, more, message):
    made = basic(folder, *more)
    assert isinstance(made.exception, EdgewardError), made.output
    assert message in str(made.exception)


def test_the_published_resnet_loses_little_to_the_layer_and_nothing_after_tuning_its_edge(shared_data, tmp_path):
    (tmp_path / "nets.py").write_text(textwrap.dedent(RESNET))
    pictures = shared_data / "cifar10"
    made = run(
        f"{tmp_path / 'nets.py'}:build", "--weights", pictures / "resnet20-12fca82f.th", "--mode", "edge",
        "--data", pictures / "cifar10_jpeg_train5k.npz", "--test", pictures / "cifar10_jpeg_test1k.npz", "--after", "stage2.2.relu",
        "--epochs", 1, "--json",
    )  # fmt: skip
    assert made.exit_code == 0, made.output + str(made.exception)
    row = json.loads(made.stdout)[0]
    assert row["accuracy_before"] == pytest.approx(0.804, abs=0.003)
    assert row["accuracy_inserted"] == pytest.approx(0.787, abs=0.005)
    assert row["bytes_before"] == 4 * row["bytes_after"] == 32768
    assert row["accuracy_tuned"] > row["accuracy_before"] - 0.01
    assert 0.004 < row["standard_error"] < 0.02
