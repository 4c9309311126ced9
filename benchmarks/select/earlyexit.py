"""FastestDet with an exit half way: one ONNX file with two outputs, made for the benchmark.

    path = two_exits(shared, frames, folder)      # outputs EARLY and FULL

The exit is a small head on what the backbone has worked out by the middle of its third stage. It learns what the whole
network finds (Hinton, Vinyals and Dean, "Distilling the knowledge in a neural network", 2015) in the frames given, as
they are, mirrored and in parts; no labels are used. Two minutes on two cores.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import onnx
import onnxruntime
import torch
from onnx import compose
from torch import Tensor, nn
from torch.nn import functional

EARLY, FULL = "exit_early", "758"
TAPS = {"onnx::Concat_708": 48, "old_x.15": 96}
"""Values that the exit reads, by their names in FastestDet.onnx, with their channels; both [batch, channels, 22, 22]."""
SIDE, WIDTH, CLASSES = 352, 64, 80
PARTS = 2
"""Parts of each frame beside the whole one."""
EPOCHS, BATCH, RATE = 14, 32, 5e-3


class Exit(nn.Module):
    """Outputs as FastestDet's: objectness, four numbers of the box, class scores: [batch, 85, 22, 22]."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = _convolution(sum(TAPS.values()), WIDTH)
        self.wide = nn.ModuleList(
            nn.Sequential(_convolution(WIDTH, WIDTH, 5, WIDTH), _convolution(WIDTH, WIDTH)) for _ in range(2)
        )
        self.leave = nn.Conv2d(WIDTH, 5 + CLASSES, 1)

    def raw(self, taps: Tensor) -> Tensor:
        """Before sigmoid and softmax."""
        found = self.enter(taps)
        for each in self.wide:
            found = found + each(found)
        return self.leave(found)

    def forward(self, *taps: Tensor) -> Tensor:
        raw = self.raw(torch.cat(taps, dim=1))
        return torch.cat([raw[:, :1].sigmoid(), raw[:, 1:5], raw[:, 5:].softmax(dim=1)], dim=1)


def two_exits(shared: Path, frames: Sequence[np.ndarray], folder: Path) -> Path:
    """The file, with an exit that has learned from these frames (BGR). Seeded."""
    torch.manual_seed(0)
    whole = onnx.load(shared / "detectors/FastestDet/FastestDet.onnx")
    known = {each.name: each for each in onnx.shape_inference.infer_shapes(whole).graph.value_info}
    whole.graph.output.extend(known[name] for name in TAPS)
    given, wanted = _taught(whole, _views(frames))
    head = Exit()
    _learn(head, given, wanted)
    path = folder / "exit.onnx"
    example = tuple(torch.zeros(1, channels, SIDE // 16, SIDE // 16) for channels in TAPS.values())
    names = [f"tap{place}" for place in range(len(TAPS))]
    torch.onnx.export(
        head.eval(), example, path, dynamo=False, opset_version=11, input_names=names, output_names=["early"]
    )
    learned = compose.add_prefix(onnx.load(path), "exit_")
    learned.ir_version = whole.ir_version
    pairs = [(tap, f"exit_{name}") for tap, name in zip(TAPS, names, strict=True)]
    onnx.save(compose.merge_models(whole, learned, io_map=pairs, outputs=[FULL, EARLY]), folder / "exits.onnx")
    return folder / "exits.onnx"


def _views(frames: Sequence[np.ndarray]) -> list[np.ndarray]:
    """The frames, mirrored ones, and parts of both."""
    lot, whole = random.Random(0), [view for frame in frames for view in (frame, frame[:, ::-1])]
    parts = []
    for view in whole:
        for _ in range(PARTS):
            height, width = (round(side * lot.uniform(0.45, 1)) for side in view.shape[:2])
            top, left = lot.randint(0, view.shape[0] - height), lot.randint(0, view.shape[1] - width)
            parts.append(view[top : top + height, left : left + width])
    return whole + parts


def _taught(whole: onnx.ModelProto, views: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
    """For each view what the exit is given, and what the whole network answers."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    given, wanted = [], []
    for view in views:
        small = cv2.resize(view, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        pixels = small.transpose(2, 0, 1)[None].astype(np.float32) / 255
        *taps, answer = session.run([*TAPS, FULL], {whole.graph.input[0].name: pixels})
        given.append(np.concatenate(taps, axis=1))
        wanted.append(answer)
    return torch.from_numpy(np.concatenate(given)), torch.from_numpy(np.concatenate(wanted))


def _learn(head: Exit, given: Tensor, wanted: Tensor) -> None:
    optimiser = torch.optim.AdamW(head.parameters(), weight_decay=1e-4)
    steps = EPOCHS * (len(given) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, total_steps=steps)
    head.train()
    for _ in range(EPOCHS):
        order = torch.randperm(len(given))
        for chosen in order[: len(order) // BATCH * BATCH].split(BATCH):
            loss = _loss(head.raw(given[chosen]), wanted[chosen])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()


def _loss(raw: Tensor, wanted: Tensor) -> Tensor:
    """Objectness everywhere; boxes and classes where the whole network sees something."""
    there = wanted[:, :1]
    seen = functional.binary_cross_entropy_with_logits(raw[:, :1], there, reduction="none") * (1 + 4 * there)
    place = (raw[:, 1:3].tanh() - wanted[:, 1:3].tanh()).abs().sum(1, keepdim=True)
    size = (raw[:, 3:5].sigmoid() - wanted[:, 3:5].sigmoid()).abs().sum(1, keepdim=True)
    kind = -(wanted[:, 5:] * raw[:, 5:].log_softmax(dim=1)).sum(1, keepdim=True)
    return 10 * seen.mean() + ((2 * place + 20 * size + 0.5 * kind) * there).sum() / there.sum()


def _convolution(inputs: int, outputs: int, side: int = 1, groups: int = 1) -> nn.Module:
    convolution = nn.Conv2d(inputs, outputs, side, padding=side // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU())
