"""Small networks and synthetic 8x8 digits that the tests of merging share."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from edgeward.merge.task import Samples, Task
from edgeward.zoo.network import Network

DEPTHS, CLASSES = (1, 1, 2, 2, 1, 3), (10, 2, 3, 2, 2, 2)
QUESTIONS = ("ten", "parity", "mod3", "ge5", "prime", "loop")
_GLYPHS = (
    "111101101101111", "010110010010111", "111001111100111", "111001111001111", "101101111001001",
    "111100111001111", "111100111101111", "111001010010010", "111101111101111", "111101111001111",
)  # fmt: skip


def net(depth=1, classes=2, hidden=(512, 128), channels=(32, 64)):
    """conv 1->32->64-(64)^depth with batch norms, then linear layers; for 8x8 pictures."""
    wide = channels[1]
    parts = []
    for given, made in [(1, channels[0]), channels, *[(wide, wide)] * depth]:
        parts += [nn.Conv2d(given, made, 3, padding=1), nn.BatchNorm2d(made), nn.ReLU()]
    parts += [nn.MaxPool2d(2), nn.Flatten()]
    sizes = (16 * wide, *hidden)
    for given, made in itertools.pairwise(sizes):
        parts += [nn.Linear(given, made), nn.ReLU()]
    return nn.Sequential(*parts, nn.Linear(sizes[-1], classes))


def seeded(seed, *args, **kwargs):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return net(*args, **kwargs).eval()


def worn(module, seed=0):
    """With batch-norm statistics and scales as after a training."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for norm in module.modules():
            if isinstance(norm, nn.BatchNorm2d):
                for one in (norm.weight, norm.bias, norm.running_mean):
                    one.copy_(torch.randn(one.shape, generator=generator))
                norm.running_var.copy_(torch.rand(norm.running_var.shape, generator=generator) + 0.5)
    return module.eval()


@functools.cache
def digits(count=600, seed=0):
    """float32 [n, 1, 8, 8] and int64 [n]: 3x5 glyphs at one of two places, of random brightness, with noise."""
    random = np.random.default_rng(seed)
    answers = random.integers(0, 10, count)
    pictures = random.normal(0, 0.1, (count, 8, 8))
    for picture, answer in zip(pictures, answers, strict=True):
        glyph = np.array(list(_GLYPHS[answer]), float).reshape(5, 3)
        top, left = 1, random.integers(2, 4)
        picture[top : top + 5, left : left + 3] += glyph * random.uniform(0.6, 1.2)
    return torch.tensor(pictures[:, None], dtype=torch.float32), torch.tensor(answers)


def answers(question, digit):
    return {
        "ten": lambda: digit,
        "parity": lambda: digit % 2,
        "mod3": lambda: digit % 3,
        "ge5": lambda: (digit >= 5).long(),
        "prime": lambda: torch.isin(digit, torch.tensor([2, 3, 5, 7])).long(),
        "loop": lambda: torch.isin(digit, torch.tensor([0, 6, 8, 9])).long(),
    }[question]()


@functools.cache
def _weights(question, depth, classes):
    module = seeded(QUESTIONS.index(question), depth, classes, (64, 32), (8, 16))
    pictures, digit = digits()
    train = Samples(pictures[:300], answers(question, digit)[:300])
    optimizer = torch.optim.SGD(module.parameters(), 0.05, momentum=0.9)
    for epoch in range(6 if classes == 2 else 16):
        module.train()
        for inputs, labels in train.batches(32, epoch):
            optimizer.zero_grad()
            functional.cross_entropy(module(inputs), labels).backward()
            optimizer.step()
    return module.state_dict()


def task(question, depth=None, classes=None, **changes):
    """A trained small network for one question about the digits, with three parts of the data."""
    index = QUESTIONS.index(question)
    depth, classes = depth or DEPTHS[index], classes or CLASSES[index]
    module = seeded(0, depth, classes, (64, 32), (8, 16))
    module.load_state_dict(_weights(question, depth, classes))
    pictures, digit = digits()
    labels = answers(question, digit)
    parts = {"train": slice(300), "validation": slice(300, 450), "test": slice(450, 600)}
    given = {name: Samples(pictures[part], labels[part]) for name, part in parts.items()}
    return Task(Network(question, module.eval(), (1, 8, 8)), **{**given, **changes})
