"""`edgeward prune` as a user meets it."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch

from edgeward.zoo.artefact import load_network, load_report


def edgeward(*arguments, timeout=170):
    command = [sys.executable, "-m", "edgeward", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout)


def test_a_smaller_network_is_written_and_opens_like_any_other(tmp_path):
    folder = tmp_path / "small"
    done = edgeward("prune", "cifar-resnet20", "--target", "params<=0.5x", "--rounds", 3, "-o", folder, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert 0.4 < report["pruned"]["parameters"] / report["dense"]["parameters"] <= 0.5
    assert load_report(folder) == report
    small = load_network(folder)
    assert sum(one.numel() for one in small.module.parameters()) == report["pruned"]["parameters"]
    timed = edgeward("prune", "measure", folder / "model.onnx", "--input", "3x32x32", "--rounds", 3)
    assert timed.returncode == 0, timed.stderr
    assert "baseline" in timed.stdout
    profiled = edgeward("profile", folder, "--repeats", 3, "-o", tmp_path / "profile.json")
    assert profiled.returncode == 0, profiled.stderr
    import onnxruntime

    picture = np.random.default_rng(0).random((2, 3, 32, 32), np.float32)
    (scores,) = onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"input": picture})
    with torch.no_grad():
        np.testing.assert_allclose(scores, small.module(torch.from_numpy(picture)).numpy(), atol=1e-3, rtol=1e-3)


def test_a_portfolio_is_trained_written_and_shown(tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "train.npz", x=random.integers(0, 255, (60, 32, 32, 3), np.uint8), y=np.arange(60) % 10)
    order = ["prune", "portfolio", "cifar-resnet20", "--data", tmp_path / "train.npz", "--epochs", 1, "--all"]
    done = edgeward(*order, "--keep", "0.5,0.01", "-o", tmp_path / "variants")
    assert done.returncode == 0, done.stderr
    assert "cifar-resnet20-0.01" in done.stdout
    record = json.loads((tmp_path / "variants" / "portfolio.json").read_text())
    counts = [one["parameters"] for one in record["variants"]]
    assert counts[0] > counts[-1]
    assert not (tmp_path / "variants" / ".work").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["cifar-resnet20"], "--target"),
        (["cifar-resnet20", "--target", "params<=2x"], "between 0 and 1"),
        (["cifar-resnet21", "--target", "params<=0.5x"], "did you mean"),
        (["cifar-resnet20", "--target", "params<=100", "--rounds", "3"], "cannot be met"),
        (["cifar-resnet20", "--target", "latency<=1ms@pi"], "nothing is known of 'pi'"),
        (["cifar-resnet20", "--target", "params<=0.5x", "--method", "drive"], "scores pictures"),
        (["cifar-resnet20", "--target", "params<=0.5x", "--data", "absent.npz"], "absent.npz"),
        (["cifar-resnet20", "--target", "params<=0.5x", "-o", __file__], "choose another place"),
        (["cifar-resnet20", "--target", "params<=0.5x", "--method", "reconvene", "--weights", "x"], "would be lost"),
        (["measure", "absent.onnx", "--input", "3x32x32"], "cannot read absent.onnx"),
        (["measure", __file__, "--input", "100000x100000x1000"], "all values at most"),
        (["measure", __file__, "--input", "3x32x32"], "cannot be timed"),
        (["portfolio", "cifar-resnet20", "--data", "x.npz", "-o", "y", "--keep", "0.1,0.5"], "falling shares"),
    ],
)
def test_mistakes_end_in_one_message_and_exit_code_2(tmp_path, monkeypatch, arguments, words, refusal):
    monkeypatch.chdir(tmp_path)
    assert words in refusal("prune", *arguments)
    assert not list(tmp_path.iterdir())
