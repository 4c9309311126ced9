"""Labelled pictures in their four forms, accuracy, and what a packing costs at a boundary."""

from __future__ import annotations

import gzip
import struct

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from edgeward.errors import ConfigError, ModelError, SourceError
from edgeward.graph.chain import cut
from edgeward.graph.transfer import parse_transfer, with_transfer
from edgeward.split.drops import mean_bytes, measure_drops, paired_drops
from edgeward.vision.classification import accuracy, correct, drop_between
from edgeward.vision.labelled import Labelled, load_labelled
from edgeward.zoo.network import open_network
from edgeward.zoo.pretrained import load_pretrained

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.integers(0, 256, (12, 9, 11, 3), dtype=np.uint8)
LABELS = np.arange(12) % 3


def pictures(count=230, side=8):
    random = np.random.default_rng(1)
    return Labelled(
        random.integers(0, 256, (count, side, side, 3), dtype=np.uint8), random.integers(0, 4, count), tuple("abcd")
    )


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1),
            nn.BatchNorm2d(6),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 6, 3, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(384, 4),
        ).eval()


def test_npz_folder_and_packed_forms_hold_the_same_pictures(tmp_path):
    encoded = [cv2.imencode(".png", image[..., ::-1])[1] for image in IMAGES]
    np.savez(tmp_path / "bytes.npz", x=IMAGES, y=LABELS)
    np.savez_compressed(tmp_path / "floats.npz", x=(IMAGES / 255).transpose(0, 3, 1, 2).astype(np.float32), y=LABELS)
    offsets = np.cumsum([0, *(len(one) for one in encoded)])
    np.savez(
        tmp_path / "packed.npz", blob=np.concatenate(encoded), off=offsets, y=LABELS, classes=np.array(["a", "b", "c"])
    )
    for index, (one, label) in enumerate(zip(encoded, LABELS, strict=True)):
        (tmp_path / "folder" / "abc"[label]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / "abc"[label] / f"{index:03}.png").write_bytes(one.tobytes())
    for name in ("bytes.npz", "floats.npz", "packed.npz"):
        data = load_labelled(tmp_path / name)
        assert np.array_equal(data.images, IMAGES), name
        assert data.labels.tolist() == LABELS.tolist()
    folder = load_labelled(tmp_path / "folder")
    order = np.argsort(LABELS, kind="stable")
    assert np.array_equal(folder.images, IMAGES[order])
    assert folder.classes == load_labelled(tmp_path / "packed.npz").classes == ("a", "b", "c")
    assert load_labelled(tmp_path / "folder", size=(4, 6)).images.shape == (12, 4, 6, 3)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx_files_are_read_with_the_labels_beside_them(tmp_path, zipped):
    suffix, pack = (".gz", gzip.compress) if zipped else ("", bytes)
    grey = IMAGES[..., 0]
    (tmp_path / f"t10k-images-idx3-ubyte{suffix}").write_bytes(
        pack(struct.pack(">4I", 0x803, *grey.shape) + grey.tobytes())
    )
    (tmp_path / f"t10k-labels-idx1-ubyte{suffix}").write_bytes(
        pack(struct.pack(">2I", 0x801, 12) + LABELS.astype(np.uint8).tobytes())
    )
    data = load_labelled(tmp_path / f"t10k-images-idx3-ubyte{suffix}")
    assert np.array_equal(data.images[..., 0], grey)
    assert data.labels.tolist() == LABELS.tolist()
    assert data.fitted((3, 32, 32)).images.shape == (12, 32, 32, 3)


def test_fitting_changes_size_and_channels_and_keeps_flat_pictures_flat():
    flat = Labelled(np.full((3, 9, 11, 3), 77, np.uint8), np.arange(3), tuple("abc"))
    assert (flat.fitted((1, 5, 20)).images == 77).all()
    assert (flat.fitted((3, 20, 5)).images == 77).all()
    assert np.array_equal(flat.fitted((3, 9, 11)).images, flat.images)


def test_batches_are_normalised_complete_and_repeatable():
    data = pictures()
    plain = torch.cat([images for images, _ in data.batches(100)])
    expected = (data.images.transpose(0, 3, 1, 2) / 255 - np.reshape(data.mean, (3, 1, 1))) / np.reshape(
        data.std, (3, 1, 1)
    )
    np.testing.assert_allclose(plain.numpy(), expected, atol=1e-5)
    assert [len(labels) for _, labels in data.batches(100)] == [100, 100, 30]

    def drawn(seed, augment):
        parts = list(data.batches(64, seed, augment=augment))
        return torch.cat([images for images, _ in parts]), torch.cat([labels for _, labels in parts])

    shuffled, labels = drawn(3, augment=False)
    assert torch.equal(labels.sort().values, torch.from_numpy(data.labels).sort().values)
    assert not torch.equal(shuffled, plain)
    assert torch.equal(drawn(3, augment=True)[0], drawn(3, augment=True)[0])
    mirrored = drawn(3, augment=True)[0]
    flips = sum(not torch.equal(a, b) for a, b in zip(mirrored, shuffled, strict=True))
    assert 80 < flips < 150
    assert all(torch.equal(a, b) or torch.equal(a, b.flip(2)) for a, b in zip(mirrored, shuffled, strict=True))


def test_splits_are_disjoint_and_complete():
    data = pictures()
    rest, held = data.split(0.1, seed=5)
    assert (len(rest), len(held)) == (207, 23)
    together = np.concatenate([rest.images, held.images]).reshape(230, -1)
    assert len(np.unique(together, axis=0)) == 230


def save(path, **arrays):
    np.savez(path, **arrays)
    return path


def truncated(path, **arrays):
    save(path, **arrays)
    path.write_bytes(path.read_bytes()[:-30])
    return path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: p / "absent.npz", "cannot read"),
        (lambda p: p / "absent", "does not exist"),
        (lambda p: p, "one folder per class"),
        (lambda p: save(p / "a.npz", z=LABELS), "needs arrays x and y"),
        (lambda p: save(p / "a.npz", x=IMAGES, y=LABELS[:5]), "one for each"),
        (lambda p: save(p / "a.npz", x=IMAGES, y=LABELS - 1), "labels go from -1"),
        (lambda p: save(p / "a.npz", x=IMAGES, y=LABELS / 2), "whole number"),
        (lambda p: save(p / "a.npz", x=IMAGES * 1.0, y=LABELS), "0..1"),
        (lambda p: save(p / "a.npz", x=np.full((2, 3, 4, 4), np.nan), y=LABELS[:2]), "0..1"),
        (lambda p: save(p / "a.npz", x=np.array([{}] * 12, object), y=LABELS), "objects"),
        (lambda p: truncated(p / "a.npz", x=IMAGES, y=LABELS), "damaged"),
        (lambda p: save(p / "a.npz", blob=np.zeros(9, np.uint8), off=np.array([0, 5, 99]), y=LABELS[:2]), "offsets"),
        (lambda p: save(p / "a.npz", blob=np.zeros(9, np.uint8), off=np.array([0, 5]), y=LABELS[:2]), "3 offsets"),
        (lambda p: save(p / "a.npz", blob=np.zeros(9, np.uint8), off=np.array([0, 5]), y=LABELS[:1]), "no JPEG or PNG"),
    ],
)
def test_files_that_hold_no_labelled_pictures_are_refused(tmp_path, make, message):
    with pytest.raises(SourceError, match=message):
        load_labelled(make(tmp_path))


@pytest.mark.parametrize("extra", [-1, 1])
def test_idx_files_of_another_length_are_refused(tmp_path, extra):
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(struct.pack(">4I", 0x803, 2, 3, 4) + bytes(24 + extra))
    with pytest.raises(SourceError, match="more" if extra > 0 else "fewer"):
        load_labelled(path)
    path.write_bytes(struct.pack(">4I", 0x803, 2**31, 2**31, 4) + bytes(24))
    with pytest.raises(SourceError, match="are read"):
        load_labelled(path)


def test_accuracy_counts_and_leaves_the_mode_alone():
    model, data = network().train(), pictures()
    with torch.no_grad():
        images = next(data.batches(len(data)))[0]
        expected = (model.eval()(images).argmax(1).numpy() == data.labels).mean()
    model.train()
    before = [one.clone() for one in model.buffers()]
    assert accuracy(model, data) == pytest.approx(expected)
    assert model.training
    assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
    with pytest.raises(ModelError, match="scores"):
        accuracy(nn.Identity(), data)


def test_the_error_of_a_drop_is_that_of_paired_samples():
    before, after = torch.tensor([1, 1, 1, 0, 0, 1, 0, 1]).bool(), torch.tensor([1, 0, 0, 0, 1, 1, 0, 1]).bool()
    drop = drop_between(before, after)
    assert drop.share == pytest.approx(1 / 8)
    assert drop.error == pytest.approx(np.std([0, 1, 1, 0, -1, 0, 0, 0], ddof=1) / np.sqrt(8))
    assert drop_between(before, before).error == 0


def test_drops_are_those_of_the_chain_with_the_layer_in_it():
    chain, data = cut(network(), torch.zeros(1, 3, 8, 8)), pictures()
    found = paired_drops(chain, ["identity", "avg2-bilinear", "max4-nearest"], data)
    assert all(len(drops) == len(chain) + 1 for drops in found.values())
    assert all(drop.share == 0 and drop.error == 0 for drop in found["identity"])
    whole = correct(chain, data)
    for name in ("avg2-bilinear", "max4-nearest"):
        assert found[name][len(chain)] is None  # scores are no map
        inserted = correct(with_transfer(chain, 0, parse_transfer(name)), data)
        assert found[name][1] == drop_between(whole, inserted)
    some = measure_drops(chain, ["max4-nearest"], data, boundaries=[1])["max4-nearest"]
    assert some == tuple(found["max4-nearest"][1].share if index == 1 else None for index in range(len(chain) + 1))
    with pytest.raises(ConfigError, match="behind the last block"):
        measure_drops(chain, ["identity"], data, boundaries=[99])
    with pytest.raises(ConfigError):
        measure_drops(chain, ["qqq"], data)


def test_codecs_cost_what_they_round_off_and_save_bytes():
    chain, data = cut(network(), torch.zeros(1, 3, 8, 8)), pictures()
    exact, coarse = (measure_drops(chain, [name], data, [1])[name][1] for name in ("identity", "int8"))
    assert exact == 0
    assert abs(coarse) < 0.05
    assert mean_bytes(chain, 1, "identity", data) == chain.costs[0].output_bytes
    # One byte per value, and a head of the codec's own.
    assert 384 <= mean_bytes(chain, 1, "int8", data) < 384 + 100
    assert 96 <= mean_bytes(chain, 1, "avg2-bilinear/int8", data) < 96 + 100


def test_weights_load_by_name_by_order_and_not_at_all_when_they_do_not_fit(tmp_path):
    source, target = network(), network()
    with torch.no_grad():
        for one in source.parameters():
            one.add_(0.5)
    state = source.state_dict()
    torch.save(
        {"state_dict": {f"module.{name}": one for name, one in state.items()}, "best": 1.0}, tmp_path / "names.th"
    )
    assert load_pretrained(target, tmp_path / "names.th") == "names"
    assert all(torch.equal(one, state[name]) for name, one in target.state_dict().items())
    torch.save({f"other{index}": one for index, one in enumerate(state.values()) if one.dim()}, tmp_path / "order.pt")
    target = network()
    assert load_pretrained(target, tmp_path / "order.pt") == "order"
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))
    torch.save({f"other{index}": torch.zeros(2) for index in range(len(state) - 1)}, tmp_path / "shapes.pt")
    torch.save({"a": torch.zeros(2)}, tmp_path / "fewer.pt")
    torch.save([Ellipsis, print], tmp_path / "code.pt")
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    (tmp_path / "noise.pt").write_bytes(b"noise" * 64)
    for name in ("shapes.pt", "fewer.pt", "code.pt", "bad.safetensors", "noise.pt", "absent.pt"):
        with pytest.raises(ModelError):
            load_pretrained(target, tmp_path / name)
    assert all(torch.equal(a, b) for a, b in zip(target.parameters(), source.parameters(), strict=True))


def test_the_published_resnet_has_its_accuracy_on_real_pictures(shared_data, tmp_path):
    # The published shortcut pads zeros on both sides of the channels.
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "from edgeward.zoo.cifar import cifar_resnet\n"
        "INPUT_SHAPE = (3, 32, 32)\n"
        "def build():\n"
        "    network = cifar_resnet(20)\n"
        "    for one in network.modules():\n"
        "        if isinstance(one, nn.ZeroPad3d):\n"
        "            half = sum(one.padding) // 2\n"
        "            one.padding = (0, 0, 0, 0, half, half)\n"
        "    return network\n"
    )
    module = open_network(f"{tmp_path / 'nets.py'}:build").module
    assert load_pretrained(module, shared_data / "cifar10" / "resnet20-12fca82f.th") == "order"
    data = load_labelled(shared_data / "cifar10" / "cifar10_jpeg_test1k.npz")
    assert accuracy(module, data) == pytest.approx(0.804, abs=0.003)
