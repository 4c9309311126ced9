"""Folded batch norms: the same function, without the norms that could be folded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgeward.prune.folding import folded
from edgeward.prune.remove import remove
from edgeward.zoo.pruned import Edits, edited
from edgeward.zoo.reference import build


def settled(network, dtype=torch.float64):
    generator = torch.Generator().manual_seed(5)
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            module.running_mean.normal_(0, 0.3, generator=generator)
            module.running_var.uniform_(0.3, 3, generator=generator)
            if module.affine:
                module.weight.data.uniform_(-1.5, 1.5, generator=generator)
                module.bias.data.normal_(0, 0.3, generator=generator)
    return network.to(dtype).eval()


@pytest.mark.parametrize("name", ["cifar-resnet20", "cifar-vgg16", "resnet18", "mobilenet-v2", "densenet121"])
def test_reference_networks(name):
    side = 32 if name.startswith("cifar") else 64
    model, x = settled(build(name, 10)), torch.rand(2, 3, side, side, dtype=torch.float64)
    small = folded(model, x)
    norms = {path for path, one in model.named_modules() if isinstance(one, nn.BatchNorm2d)}
    assert set(small.edits.identities) <= norms
    if not name.startswith("densenet"):  # whose norms stand before the convolutions
        assert set(small.edits.identities) == norms
    with torch.no_grad():
        torch.testing.assert_close(small.module(x), model(x), rtol=1e-6, atol=1e-9)
        singles = folded(model.float(), x.float()).module(x.float())
        torch.testing.assert_close(singles, model(x.float()), rtol=1e-3, atol=1e-3)
    again = edited(build(name, 10), Edits.of_json(small.edits.to_json())).eval()
    again.load_state_dict(singles_state := folded(model, x.float()).module.state_dict())
    assert all(torch.equal(value, singles_state[key]) for key, value in again.state_dict().items())


class Corners(nn.Module):
    """What can be folded, and what only looks like it."""

    def __init__(self):
        super().__init__()
        self.plain, self.plain_norm = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4, affine=False)
        self.up, self.up_norm = nn.ConvTranspose2d(4, 3, 2, bias=False), nn.BatchNorm2d(3)
        self.read, self.read_norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)
        self.shared, self.first, self.second = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.BatchNorm2d(3)
        self.batch, self.batch_norm = nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4, track_running_stats=False)
        self.rows, self.rows_norm = nn.Linear(4, 5), nn.BatchNorm1d(5)
        self.tokens, self.tokens_norm = nn.Linear(5, 3), nn.BatchNorm1d(3)

    def forward(self, x):
        x = self.up_norm(self.up(self.plain_norm(self.plain(x)).relu()))
        y = self.read(x)
        x = self.read_norm(y) + y
        x = self.second(self.shared(self.first(self.shared(x)))).relu()
        x = self.batch_norm(self.batch(x)).mean((2, 3))
        x = self.rows_norm(self.rows(x))
        return self.tokens_norm(self.tokens(x[:, None].expand(-1, 3, -1)))


def test_only_what_is_read_once_is_folded():
    torch.manual_seed(0)
    model, x = settled(Corners()), torch.rand(4, 2, 6, 6, dtype=torch.float64)
    small = folded(model, x)
    assert small.edits.identities == ("plain_norm", "up_norm", "rows_norm")
    assert dict(small.edits.tensors) == {"up.bias": (3,)}
    with torch.no_grad():
        torch.testing.assert_close(small.module(x), model(x), rtol=1e-10, atol=1e-12)


def test_folding_and_removing_can_take_turns():
    model, x = settled(build("cifar-resnet20")), torch.rand(2, 3, 32, 32, dtype=torch.float64)
    wanted = {"stage1.0.conv1.conv": [2, 5], "stem.conv": [1]}
    one, two = remove(model, x, wanted), folded(model, x)
    then_folded, then_removed = folded(one.module, x), remove(two.module, x, wanted)
    with torch.no_grad():
        torch.testing.assert_close(then_folded.module(x), then_removed.module(x), rtol=1e-9, atol=1e-12)
    first, second = one.edits.then(then_folded.edits), two.edits.then(then_removed.edits)
    assert dict(first.tensors) == dict(second.tensors)
    assert dict(first.attributes) == dict(second.attributes)
    norm = first.identities[0]
    assert not [name for name in (*first.tensors, *first.attributes, *first.kept) if name.startswith(f"{norm}.")]
    edited(model, first).load_state_dict(then_folded.module.state_dict())
