"""A chain is the network it was cut from: outputs, gradients and buffers, bit for bit, in both modes."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from edgeward.errors import TraceError
from edgeward.graph.chain import CutOptions, cut
from edgeward.zoo.reference import build


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.ZeroPad2d(1), nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.left = nn.Conv2d(8, 8, 3, padding=1)
        self.right = nn.Sequential(nn.Conv2d(8, 8, 1), nn.Dropout(0.5))
        self.head = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        x = functional.relu_(self.left(x)) + self.right(x)
        x = functional.dropout(x, 0.3, self.training)
        return self.head(x.mean((2, 3)).view(x.size(0), -1))


class Dense(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Conv2d(3 + 4 * index, 4, 3, padding=1) for index in range(3))
        self.transition = nn.Conv2d(15, 6, 1)
        self.tail = nn.Conv2d(6, 2, 3)

    def forward(self, x):
        for layer in self.layers:
            x = torch.cat([x, functional.relu(layer(x))], 1)
        return self.tail(functional.avg_pool2d(self.transition(x), 2))


class Branches(nn.Module):
    """Inception-like: four ways, one of them pooled, joined by channel; two outputs in a dict."""

    def __init__(self):
        super().__init__()
        self.ways = nn.ModuleList(nn.Conv2d(3, 4, size, padding=size // 2) for size in (1, 3, 5))
        self.mix = nn.Conv2d(15, 6, 1)
        self.out = nn.Conv2d(6, 2, 3)

    def forward(self, x):
        ways = [way(x) for way in self.ways]
        y = functional.relu(self.mix(torch.cat([*ways, functional.max_pool2d(x, 3, 1, 1)], 1)))
        return {"map": self.out(y), "mean": y.mean((2, 3))}


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = nn.Conv2d(3, 8, 3, padding=1)
        self.scale = nn.Linear(4, 8)
        self.after = nn.Conv2d(8, 4, 3)
        self.end = nn.Conv2d(4, 4, 3)

    def forward(self, image, condition, mask=None):
        y = self.image(image) * torch.sigmoid(self.scale(condition))[:, :, None, None]
        y = self.after(y)
        if mask is not None:
            y = y * mask
        return self.end(functional.relu(y))


IMAGE = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))


def encoder():
    """torch's own encoder stays whole: its fast path follows values."""
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True)
    return nn.Sequential(
        nn.Embedding(20, 16), nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), nn.Linear(16, 3)
    )


OWN = {
    "encoder": (encoder, (torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(0)),)),
    "residual": (Residual, (IMAGE,)),
    "dense": (Dense, (IMAGE,)),
    "branches": (Branches, (IMAGE,)),
    "two inputs": (TwoInputs, (IMAGE, torch.rand(2, 4))),
    "an optional input": (TwoInputs, (IMAGE, torch.rand(2, 4), torch.rand(2, 4, 10, 10))),
}
ZOO = ("cifar-resnet20", "cifar-vgg16", "mobilenet-v2", "densenet121", "inception-v3", "resnet50v2")


def loss_and_gradients(model, owner, inputs):
    torch.manual_seed(1)
    outputs = [one for one in pytree.tree_leaves(model(*inputs)) if isinstance(one, torch.Tensor)]
    owner.zero_grad()
    sum((one.float() ** 2).sum() for one in outputs).backward()
    return outputs, {name: one.grad.clone() for name, one in owner.named_parameters() if one.grad is not None}


def assert_is_the_network(model, inputs, options=None):
    twin = copy.deepcopy(model)
    chain = cut(model, *inputs, options=options)
    for training in (False, True):
        model.train(training), twin.train(training), chain.train(training)
        ours, gradients = loss_and_gradients(chain, model, inputs)
        theirs, expected = loss_and_gradients(twin, twin, inputs)
        assert len(ours) == len(theirs)
        assert all(torch.equal(mine, other) for mine, other in zip(ours, theirs, strict=True))
        assert gradients.keys() == expected.keys()
        assert all(torch.equal(gradients[name], expected[name]) for name in expected)
        assert all(torch.equal(mine, other) for mine, other in zip(model.buffers(), twin.buffers(), strict=True))
    chain.eval()
    values = chain.inputs(*inputs)
    with torch.no_grad():
        for block in chain.blocks:  # each on its own, as on different devices
            values = tuple(one.clone() if isinstance(one, torch.Tensor) else one for one in block(*values))
        expected = pytree.tree_leaves(twin.eval()(*inputs))
    assert all(
        torch.equal(mine, other)
        for mine, other in zip(pytree.tree_leaves(chain.outputs(values)), expected, strict=True)
    )
    return chain


@pytest.mark.parametrize("max_tensors", [1, 3])
@pytest.mark.parametrize("granularity", ["layer", "op"])
@pytest.mark.parametrize("name", OWN)
def test_own_networks_in_both_modes(name, granularity, max_tensors):
    make, inputs = OWN[name]
    torch.manual_seed(0)
    chain = assert_is_the_network(make(), inputs, CutOptions(granularity, max_tensors))
    assert len(chain) > 1


@pytest.mark.parametrize("name", ZOO)
def test_zoo_networks_in_both_modes(name):
    model = build(name, classes=10)
    side = 96 if name == "inception-v3" else 64
    chain = assert_is_the_network(model, (torch.rand(2, 3, side, side),))
    assert sum(cost.parameters for cost in chain.costs) == sum(one.numel() for one in model.parameters())


def transformers_models():
    from transformers import (
        BertConfig,
        BertModel,
        ConvNextConfig,
        ConvNextForImageClassification,
        GPT2Config,
        GPT2LMHeadModel,
        LlamaConfig,
        LlamaForCausalLM,
        MobileNetV2Config,
        MobileNetV2ForImageClassification,
        ResNetConfig,
        ResNetForImageClassification,
        SwinConfig,
        SwinForImageClassification,
        ViTConfig,
        ViTForImageClassification,
    )

    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    ids = torch.randint(0, 100, (2, 12), generator=torch.Generator().manual_seed(0))
    image = torch.rand(2, 3, 64, 64)
    residual = ResNetConfig(depths=[1, 1], hidden_sizes=[16, 32], embedding_size=16, layer_type="basic")
    return {
        "resnet": (ResNetForImageClassification(residual), image),
        "mobilenet_v2": (MobileNetV2ForImageClassification(MobileNetV2Config(image_size=64)), image),
        "vit": (ViTForImageClassification(ViTConfig(**small, image_size=64)), image),
        "swin": (
            SwinForImageClassification(
                SwinConfig(image_size=64, embed_dim=16, depths=[1, 1], num_heads=[2, 2], window_size=4)
            ),
            image,
        ),
        "convnext": (ConvNextForImageClassification(ConvNextConfig(depths=[1, 1, 1, 1], hidden_sizes=[16] * 4)), image),
        "bert": (BertModel(BertConfig(**small, vocab_size=100)), ids),
        "gpt2": (GPT2LMHeadModel(GPT2Config(vocab_size=100, n_embd=32, n_layer=2, n_head=2, use_cache=False)), ids),
        "llama": (LlamaForCausalLM(LlamaConfig(**small, vocab_size=100, use_cache=False)), ids),
    }


@pytest.mark.parametrize("name", ["resnet", "mobilenet_v2", "vit", "swin", "convnext", "bert", "gpt2", "llama"])
def test_transformers_models_in_both_modes(name):
    pytest.importorskip("transformers", reason="the llm extra is not installed")
    model, example = transformers_models()[name]
    for options in (CutOptions(), CutOptions(max_tensors=4)):
        assert len(assert_is_the_network(model, (example,), options)) >= 4


def test_what_is_left_of_the_model_is_what_it_was():
    model = Residual()
    model.train()
    model.stem.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    chain = cut(model, IMAGE)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(any(own is shared for shared in chain.parameters()) for own in model.parameters())


def test_a_chain_takes_other_batch_sizes():
    model = build("cifar-resnet20").eval()
    chain = cut(model, torch.rand(1, 3, 32, 32)).eval()
    batch = torch.rand(5, 3, 32, 32)
    assert torch.equal(chain(batch), model(batch))


def test_segments_are_what_their_blocks_are():
    chain = cut(build("cifar-resnet20").eval(), torch.rand(1, 3, 32, 32)).eval()
    inputs = chain.activations()
    with torch.no_grad():
        for first, last in ((0, 2), (3, 3), (4, len(chain) - 1)):
            values = chain.segment(first, last)(*inputs[first])
            expected = chain.segment(last, last)(*inputs[last])
            assert all(torch.equal(mine, other) for mine, other in zip(values, expected, strict=True))
    with pytest.raises(TraceError, match=r"blocks 0 to \d+; 5 to 2"):
        chain.segment(5, 2)


class Counts(nn.Module):
    """Cannot be traced by anything: what runs depends on the values."""

    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.odd = Odd()
        self.last = nn.Conv2d(4, 2, 3)

    def forward(self, x):
        return self.last(self.odd(self.first(x)))


class Odd(nn.Module):
    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x - 1


def test_an_untraceable_model_names_the_module_and_can_keep_it_whole():
    with pytest.raises(TraceError, match=r"torch.fx stops in odd: .*leaves=\('odd',\)"):
        cut(Counts(), IMAGE)
    chain = assert_is_the_network(Counts(), (IMAGE,), CutOptions(leaves=("odd",)))
    assert len(chain) == 2
    with pytest.raises(TraceError, match="no module 'other'"):
        cut(Counts(), IMAGE, options=CutOptions(leaves=("other",)))


def test_mistakes_are_named():
    with pytest.raises(TraceError, match=r"shape \[\(1, 1, 8, 8\)\]"):
        cut(Residual(), torch.rand(1, 1, 8, 8))
    with pytest.raises(TraceError, match="max_tensors is 0"):
        CutOptions(max_tensors=0)
    chain = cut(TwoInputs(), IMAGE, torch.rand(2, 4))
    with pytest.raises(TraceError, match="traced with image, condition"):
        chain(IMAGE, torch.rand(2, 4), torch.rand(2, 4, 10, 10))
    with pytest.raises(TraceError, match="not the model's arguments"):
        chain(IMAGE)
