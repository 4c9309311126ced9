"""Attention heads, found without being told, removed with the same outputs; widths inside and outside blocks."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from edgeward.errors import PruneError
from edgeward.prune.channels import Channels
from edgeward.prune.heads import attentions
from edgeward.prune.remove import remove
from edgeward.zoo.attention import SlimAttention
from edgeward.zoo.pruned import edited
from edgeward.zoo.vit import vit


@pytest.fixture(autouse=True)
def _seeded():
    with torch.random.fork_rng():
        torch.manual_seed(4)
        yield


class Encoder(nn.Module):
    """torch's own encoder layers."""

    def __init__(self, batch_first):
        super().__init__()
        self.into = nn.Linear(12, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=batch_first)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.out = nn.Linear(32, 5)

    def forward(self, x):
        return self.out(self.encoder(self.into(x)).mean(1))


class Own(nn.Module):
    """Hand-written attention. Together: each head's query, key and value are neighbours. Apart: three layers."""

    def __init__(self, kind, width=32, heads=4):
        super().__init__()
        self.kind = kind
        self.n_heads, self.all_head_size = heads, width
        if kind == "apart":
            self.query, self.key, self.value = (nn.Linear(24, width) for _ in range(3))
        elif kind == "shared":
            self.query, self.key, self.value = (
                nn.Linear(24, width),
                nn.Linear(24, width // 4),
                nn.Linear(24, width // 4),
            )
        else:
            self.query_key_value = nn.Linear(24, 3 * width)
        self.dense = nn.Linear(width, 24)

    def forward(self, x):
        n, t, _ = x.shape
        if self.kind == "together":
            q, k, v = self.query_key_value(x).view(n, t, self.n_heads, 3, -1).permute(3, 0, 2, 1, 4).unbind(0)
        elif self.kind == "in turn":
            q, k, v = self.query_key_value(x).view(n, t, 3, self.n_heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        else:
            parts = (self.query(x), self.key(x), self.value(x))
            q, k, v = (one.view(n, t, -1, self.all_head_size // self.n_heads).transpose(1, 2) for one in parts)
        mixed = functional.scaled_dot_product_attention(q, *(one.expand_as(q) for one in (k, v))).transpose(1, 2)
        return self.dense(mixed.reshape(n, t, self.all_head_size))


class Around(nn.Module):
    def __init__(self, kind):
        super().__init__()
        self.into, self.attention, self.head = nn.Linear(12, 24), Own(kind), nn.Linear(24, 5)

    def forward(self, x):
        x = self.into(x)
        return self.head((x + self.attention(x)).mean(1))


def transformers_vit(name):
    transformers = pytest.importorskip("transformers", reason="the llm extra is not installed")
    config = getattr(transformers, f"{name}Config")(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96, image_size=32, patch_size=8,
        num_labels=5,
    )  # fmt: skip
    return getattr(transformers, f"{name}ForImageClassification")(config)


MODELS = {
    "own vit": (lambda: vit(48, 4, 10, 2, 32), (2, 3, 32, 32), 2),
    "ViT": (lambda: transformers_vit("ViT"), (2, 3, 32, 32), 2),
    "DeiT": (lambda: transformers_vit("DeiT"), (2, 3, 32, 32), 2),
    "torch batch first": (lambda: Encoder(True), (2, 7, 12), 2),
    "torch": (lambda: Encoder(False), (2, 7, 12), 2),
    "together": (lambda: Around("together"), (2, 7, 12), 1),
    "in turn": (lambda: Around("in turn"), (2, 7, 12), 1),
    "apart": (lambda: Around("apart"), (2, 7, 12), 1),
}


def answers(model, x, weights=None):
    with torch.no_grad():
        made = functional_call(model, weights or {}, (x,))
    return made if isinstance(made, torch.Tensor) else made.logits


def shaken(model):
    """Biases and scales that are not all alike."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


@pytest.mark.parametrize("name", MODELS)
def test_heads_and_inner_widths(name):
    make, shape, count = MODELS[name]
    model, x = shaken(make()), torch.rand(shape)
    channels = Channels.of(model, x)
    heads = [group for group in channels.groups if any(slot[1] == "heads" for slot in group.units[0])]
    assert [group.size for group in heads] == [4] * count
    assert sum(not group.prunable for group in channels.groups) == 1  # the output
    for group, gone in [(heads[0], [1]), (heads[0], [0, 3]), (heads[-1], [2, 3])]:
        weights = {}
        for layer, axis, index in (slot for unit in gone for slot in group.units[unit]):
            if axis == "in":
                weights.setdefault(f"{layer}.weight", model.get_submodule(layer).weight.detach().clone())[:, index] = 0
        removed = remove(model, x, {group.name: gone}, channels)
        expected, dense = answers(model, x, weights), answers(model, x)
        torch.testing.assert_close(answers(removed.module, x), expected, rtol=1e-5, atol=1e-6)
        assert (expected - dense).abs().max() > 1e-4
        assert removed.edits.kept[group.name] == tuple(head for head in range(4) if head not in gone)
        counts = [v for k, v in removed.edits.attributes.items() if k.startswith(group.name) and "heads" in k]
        assert counts == [4 - len(gone)]
        again = edited(model, removed.edits).eval()
        again.load_state_dict(removed.module.state_dict())
        assert torch.equal(answers(again, x), answers(removed.module, x))


@pytest.mark.parametrize("name", ["own vit", "ViT", "torch batch first"])
def test_the_stream_between_blocks_can_be_narrowed_and_narrowed_again(name):
    make, shape, _ = MODELS[name]
    model, x = shaken(make()), torch.rand(shape)
    stream = Channels.of(model, x).groups[0]
    assert stream.normalised(model)
    first = remove(model, x, stream.channels(range(5)))
    second = remove(first.module, x, {stream.name: [0, 7]})
    third = remove(second.module, x, {Channels.of(second.module, x).groups[1].name: [3]})
    assert answers(third.module, x).shape == answers(model, x).shape
    edits = first.edits.then(second.edits).then(third.edits)
    assert edits.kept[stream.name] == (*range(6, 12), *range(13, stream.size))
    again = edited(model, edits).eval()
    again.load_state_dict(third.module.state_dict())
    assert torch.equal(answers(again, x), answers(third.module, x))


def test_what_cannot_be_matched_stays():
    model, x = Around("shared"), torch.rand(2, 7, 12)
    groups = {group.name: group for group in Channels.of(model, x).groups}
    assert groups["attention"].fixed == "several heads share their keys and values"
    assert groups["into"].prunable
    with pytest.raises(PruneError, match="no channel of attention can be removed: several heads"):
        remove(model, x, {"attention": [0]})
    cross = nn.MultiheadAttention(8, 2, kdim=4, vdim=4)
    assert "different widths" in attentions(cross, x)[0].trouble
    with pytest.raises(PruneError, match="attention would lose all 4 of its heads"):
        remove(Around("apart"), x, {"attention": range(4)})


@pytest.mark.parametrize("batch_first", [True, False])
def test_slim_attention_is_torchs_own_while_nothing_is_cut(batch_first):
    dense = nn.MultiheadAttention(16, 4, batch_first=batch_first).eval()
    dense.in_proj_bias.data.normal_()
    slim = SlimAttention(dense)
    x, y = torch.rand(5, 5, 16), torch.rand(5, 5, 16)
    padding = torch.rand(5, 5) > 0.7
    padding[:, 0] = False
    causal = torch.triu(torch.ones(5, 5, dtype=torch.bool), 1)
    for options in (
        {}, {"need_weights": False}, {"key_padding_mask": padding}, {"attn_mask": causal},
        {"attn_mask": torch.randn(20, 5, 5), "average_attn_weights": False},
        {"attn_mask": causal, "key_padding_mask": padding},
    ):  # fmt: skip
        ours, theirs = slim(x, y, y, **options), dense(x, y, y, **options)
        torch.testing.assert_close(ours[0], theirs[0])
        assert (ours[1] is None) == (theirs[1] is None)
        if ours[1] is not None:
            torch.testing.assert_close(ours[1], theirs[1])
    torch.testing.assert_close(slim(x[0], x[0], x[0])[1], dense(x[0], x[0], x[0])[1])
    assert list(slim.state_dict()) == list(dense.state_dict())
