"""Criteria against brute force and their papers' identities; the model is the same afterwards."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

from edgeward.errors import PruneError
from edgeward.prune.criteria import CRITERIA, Drive, Grasp, Snip, parse_criterion
from edgeward.prune.mask import Mask
from edgeward.prune.saliency import slopes
from edgeward.prune.scope import prunable, select


def mlp(seed=0, norm=True, bias=True):
    torch.manual_seed(seed)
    layers = []
    for inputs, outputs in ((6, 12), (12, 10)):
        layers += [nn.Linear(inputs, outputs, bias=bias), *([nn.BatchNorm1d(outputs)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(10, 4, bias=bias))


def batches(*sizes, shape=(6,), seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        (torch.randn(size, *shape, generator=generator), torch.randint(0, 4, (size,), generator=generator))
        for size in sizes
    ]


def halved(model, names=None):
    """A mask that keeps every other weight."""
    mask = Mask.ones(model, names or prunable(model))
    return Mask({name: (torch.arange(one.numel()) % 2 == 0).reshape(one.shape) for name, one in mask.tensors.items()})


class Restless(nn.Module):
    """Everything that scoring could disturb: batch norm, dropout of both kinds, a frozen part."""

    def __init__(self):
        super().__init__()
        self.one, self.norm, self.two = nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 4)
        self.drop = nn.Dropout(0.5)
        self.one.bias.requires_grad_(False)

    def forward(self, x):
        x = functional.dropout(self.drop(self.norm(self.one(x)).relu()), 0.5, self.training)
        return self.two(x)


@pytest.mark.parametrize("name", sorted(CRITERIA))
@pytest.mark.parametrize("training", [True, False])
def test_scoring_leaves_no_trace_and_repeats(name, training):
    torch.manual_seed(0)
    model = Restless().train(training)
    model.drop.train(not training)
    model.two.weight.grad = torch.ones_like(model.two.weight)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    state = torch.get_rng_state()
    names = ("one.weight", "two.weight")
    mask = halved(model, names)
    scores = parse_criterion(name).score(model, batches(32), mask)
    assert list(scores) == list(names)
    assert all(one.shape == before[key].shape and not one.requires_grad for key, one in scores.items())
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert [m.training for m in (model, model.drop, model.norm)] == [training, not training, training]
    assert not model.one.bias.requires_grad and model.one.weight.requires_grad
    assert model.one.weight.grad is None and torch.equal(model.two.weight.grad, torch.ones(4, 12))
    again = parse_criterion(name).score(model, batches(32), mask)
    assert all(torch.equal(one, again[key]) for key, one in scores.items())


@pytest.mark.parametrize("name", sorted(set(CRITERIA) - {"random"}))
def test_a_mask_given_and_a_mask_applied_score_the_same(name):
    model = mlp()
    mask = halved(model)
    given = parse_criterion(name).score(model, batches(32), mask)
    mask.apply_(model)
    applied = parse_criterion(name).score(model, batches(32), mask)
    assert all(torch.equal(one, applied[key]) for key, one in given.items())
    assert all((one[~mask.tensors[key]] == 0).all() for key, one in given.items())


class Quadratic(nn.Module):
    """L = w' A w / 2 - b' w, whose gradient is A w - b and whose Hessian is A."""

    def __init__(self, n=5):
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        root = torch.randn(n, n, generator=generator, dtype=torch.float64)
        self.a, self.b = root @ root.T, torch.randn(n, generator=generator, dtype=torch.float64)
        self.weight = nn.Parameter(torch.randn(n, generator=generator, dtype=torch.float64))

    def forward(self, x):
        # Two equal logits apart from the loss: the criterion's own loss reads the first column.
        value = self.weight @ self.a @ self.weight / 2 - self.b @ self.weight
        return value.expand(len(x), 2)


def plain(output, labels):
    return output[:, 0].mean()


def test_curvature_and_grasp_on_a_quadratic():
    model = Quadratic()
    mask, data = (
        Mask.ones(model, ["weight"]),
        [(torch.zeros(3, 1), torch.zeros(3)), (torch.zeros(2, 1), torch.zeros(2))],
    )
    w, a, b = model.weight.detach(), model.a, model.b
    gradient = a @ w - b
    found = slopes(model, data, mask, curvature=True, loss=plain)
    torch.testing.assert_close(found.gradient["weight"], gradient)
    torch.testing.assert_close(found.curvature["weight"], a @ gradient)
    # Brute force: by how much the squared gradient falls when a weight shrinks a little towards 0, per unit, halved.
    step = 1e-6
    falls = []
    for index in range(len(w)):
        smaller = w.clone()
        smaller[index] *= 1 - step
        falls.append(float(gradient @ gradient - (a @ smaller - b) @ (a @ smaller - b)) / (2 * step))
    scores = Grasp(temperature=1, loss=plain).score(model, data, mask)["weight"]
    torch.testing.assert_close(scores, torch.tensor(falls, dtype=torch.float64), rtol=1e-4, atol=1e-6)
    assert (scores > 0).any() and (scores < 0).any(), "the sign is put to the test"
    kept = select({"weight": scores}, mask, 0.2).tensors["weight"]
    assert kept.nonzero().flatten().tolist() == [falls.index(max(falls))], "the weight that carries most gradient flow"


def test_snip_is_the_slope_of_the_loss_in_the_mask():
    model = mlp(norm=False).double()
    data = [(inputs.double(), labels) for inputs, labels in batches(16)]
    scores = Snip().score(model, data)["0.weight"]
    step, weight = 1e-6, model[0].weight
    for place in ((0, 0), (3, 2), (11, 5)):
        losses = []
        for factor in (1 + step, (1 - step) / (1 + step)):
            with torch.no_grad():
                weight[place] *= factor
                losses.append(float(functional.cross_entropy(model(data[0][0]), data[0][1])))
        with torch.no_grad():
            weight[place] /= 1 - step
        assert float(scores[place]) == pytest.approx(abs(losses[0] - losses[1]) / (2 * step), rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", ["snip", "grasp", "grasp-abs", "drive:d1", "drive:d3", "drive:d4", "drive:d5"])
def test_batches_of_unequal_size_score_as_one(name):
    """Without batch statistics: each weighted by its size, the second derivative of all of them together."""
    model = mlp(norm=False).double()
    data = [(inputs.double(), labels) for inputs, labels in batches(13, 5, 30)]
    whole = [tuple(torch.cat(parts) for parts in zip(*data, strict=True))]
    apart, together = (parse_criterion(name).score(model, one) for one in (data, whole))
    for key, one in apart.items():
        torch.testing.assert_close(one, together[key], rtol=1e-9, atol=1e-15)


def test_d2_prunes_exactly_as_snip_does():
    for seed in range(5):
        model = mlp(seed)
        masks = [Mask.ones(model, prunable(model)) for _ in range(2)]
        for keep in (0.6, 0.3, 0.1):
            for index, criterion in enumerate((Drive("d2"), Snip())):
                masks[index] = select(criterion.score(model, batches(64, seed=seed), masks[index]), masks[index], keep)
            assert masks[0].overlap(masks[1]) == 1


def test_readings_are_the_formulas():
    model = mlp(3)
    mask, data = halved(model), batches(24)
    found = slopes(model, data, mask, curvature=True)

    def n(values):
        held = {key: one.double().abs() * mask.tensors[key] for key, one in values.items()}
        total = sum(one.sum() for one in held.values())
        return {key: one / total for key, one in held.items()}

    w, g = found.weights, found.gradient
    size, connection, slope = n(w), n({key: w[key] * g[key] for key in w}), n(g)
    curved = n({key: w[key] * found.curvature[key] for key in w})
    for key in w:
        for reading, expected in {
            "d1": size[key] + connection[key] + slope[key],
            "d2": size[key] * connection[key] * slope[key],
            "d3": size[key] + connection[key] + curved[key],
            "d4": size[key] * connection[key] * curved[key],
            "d5": size[key] * (connection[key] + 0.5 * slope[key]),
        }.items():
            criterion = Drive(reading, weight=0.5 if reading == "d5" else 1)
            torch.testing.assert_close(criterion.score(model, data, mask)[key], expected)


def test_drive_is_d5_and_d5_without_its_third_term_is_between():
    assert parse_criterion("drive") == parse_criterion("drive:d5") == Drive("d5", 1.0)
    model = mlp(2)
    scores, magnitude = Drive("d5", weight=0).score(model, batches(24)), parse_criterion("magnitude").score(model, [])
    snip = Snip().score(model, batches(24))
    ratio = [(scores[key] / (magnitude[key].double() * snip[key])).flatten() for key in scores]
    torch.testing.assert_close(torch.cat(ratio), ratio[0][0].expand(sum(map(len, ratio))))


def test_synflow_conserves_the_flow():
    """Each layer of a bias-free ReLU network has the same sum: the network's output for ones (Tanaka et al.)."""
    model = mlp(norm=False, bias=False)
    scores = parse_criterion("synflow").score(model, batches(2), Mask.ones(model, prunable(model, keep_last=False)))
    flow = torch.ones(1, 6, dtype=torch.float64)
    for layer in model[::2]:
        flow = flow @ layer.weight.detach().double().abs().T
    assert all(one.dtype == torch.float64 for one in scores.values())
    assert [float(one.sum()) for one in scores.values()] == pytest.approx([float(flow.sum())] * 3, rel=1e-12)


def test_synflow_sees_no_norm_and_does_not_overflow():
    plain_model, normed = mlp(norm=False, bias=False), mlp(norm=True, bias=False)
    with torch.no_grad():
        for index, layer in ((0, 0), (3, 2)):
            normed[index].weight.copy_(plain_model[layer].weight)
            normed[index + 1].running_var.fill_(7)
        normed[6].weight.copy_(plain_model[4].weight)
    ours = parse_criterion("synflow").score(normed, batches(4))
    theirs = parse_criterion("synflow").score(plain_model, batches(4))
    assert [torch.equal(*pair) for pair in zip(ours.values(), theirs.values(), strict=True)] == [True, True]
    deep = nn.Sequential(*(nn.Linear(64, 64, bias=False) for _ in range(60)), nn.Linear(64, 4))
    with torch.no_grad():
        for layer in deep[:-1]:
            layer.weight.fill_(1)
    scores = parse_criterion("synflow").score(deep, batches(1, shape=(64,)))
    sums = [float(one.sum()) for one in scores.values()]
    assert min(sums) > torch.finfo(torch.float32).max and math.isfinite(max(sums))


def test_attention_and_convolutions_have_second_derivatives():
    class Tiny(nn.Module):
        def __init__(self):
            super().__init__()
            self.patch = nn.Conv2d(3, 8, 4, stride=4)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.block(self.patch(x).flatten(2).transpose(1, 2)).mean(1))

    torch.manual_seed(0)
    model = Tiny()
    for name in ("grasp", "drive:d3", "drive:d5", "synflow"):
        scores = parse_criterion(name).score(model, batches(6, shape=(3, 8, 8)))
        assert "block.self_attn.in_proj_weight" in scores
        assert all(bool(torch.isfinite(one).all()) and float(one.abs().sum()) > 0 for one in scores.values()), name


def test_what_does_not_fit_is_refused():
    model = mlp()
    for criterion in (Snip(), parse_criterion("synflow")):
        with pytest.raises(PruneError, match="no batch"):
            criterion.score(model, [])
        with pytest.raises(PruneError, match=r"does not take a batch of torch.float(32|64) \[\d, 7\]"):
            criterion.score(model, batches(3, shape=(7,)))
    with pytest.raises(PruneError, match="at least two examples"):
        Snip().score(model, batches(1))
    with pytest.raises(PruneError, match="give as many"):
        Snip().score(model, [(torch.ones(3, 6), torch.zeros(2, dtype=torch.int64))])
    with pytest.raises(PruneError, match="give pairs"):
        Snip().score(model, [torch.ones(3, 6)])
    with pytest.raises(PruneError, match="does not fit the network"):
        Snip().score(model, batches(4), Mask.ones(nn.Linear(2, 2), ["weight"]))
    with pytest.raises(PruneError, match="input of ones"):
        parse_criterion("synflow").score(model, [(torch.ones(2, 6, dtype=torch.int64), torch.zeros(2))])
    with pytest.raises(PruneError, match="did you mean 'synflow'"):
        parse_criterion("sinflow")
    with pytest.raises(PruneError, match="no reading"):
        Drive("d6")
    with pytest.raises(PruneError, match="weight of the convergence term"):
        Drive("d5", -1)
