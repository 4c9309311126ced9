"""Tuning a network with a transfer layer in place, so that it gets along with what the layer lost.

    tuned = tune(chain, after=3, layer=parse_transfer("avg2-bilinear"), train=train, test=test)
    tuned.accuracy_before, tuned.accuracy_inserted, tuned.accuracy_tuned      # 0.917, 0.64, 0.908
    tuned.chain                                                               # ready to profile, plan and deploy

ScissionLite (arXiv 2105.02019) re-trains after inserting the layer and does not say how. Here: a few epochs of cross
entropy and of distillation from the untouched network (Hinton et al., arXiv 1503.02531), the learning rate falling as a
cosine. Part of the training pictures is held out to choose the epoch; no state that is worse there than the untuned
one is ever returned. The network given is left as it is.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from edgeward.errors import ConfigError, ModelError, TraceError
from edgeward.graph.chain import Chain
from edgeward.graph.transfer import LearnedLayer, TransferLayer, duplicate, fitting, with_transfer
from edgeward.split.checkpoint import identity_of
from edgeward.split.training import MODES, Progress, Training, TuneOptions
from edgeward.vision.classification import Drop, correct, drop_between, logits_of
from edgeward.vision.labelled import Labelled

__all__ = ["MODES", "Progress", "TuneOptions", "Tuned", "best_cut", "tune"]

_FITTED_ON = 256


@dataclass(frozen=True, eq=False)
class Tuned:
    """A tuned network, and what tuning came to on the test pictures.

    chain: with the layer in place. before, inserted, tuned: whether the original, the one with the layer, and the tuned
    one are right, picture by picture (bool [n]). validation: accuracy on held out training pictures, untuned and after
    every epoch; the state of epoch `best_epoch` was kept (0: the untuned one).
    """

    chain: Chain
    after: int
    layer: str | None
    options: TuneOptions
    before: Tensor
    inserted: Tensor
    tuned: Tensor
    validation: tuple[float, ...]
    best_epoch: int

    @property
    def accuracy_before(self) -> float:
        """Of the original network."""
        return float(self.before.double().mean())

    @property
    def accuracy_inserted(self) -> float:
        """With the layer, before tuning."""
        return float(self.inserted.double().mean())

    @property
    def accuracy_tuned(self) -> float:
        """With the layer, after tuning."""
        return float(self.tuned.double().mean())

    @property
    def drop(self) -> Drop:
        """What is lost in the end, against the original, with the standard error of that difference."""
        return drop_between(self.before, self.tuned)


def tune(
    chain: Chain,
    after: int,
    layer: TransferLayer | None,
    train: Labelled,
    test: Labelled,
    options: TuneOptions | None = None,
) -> Tuned:
    """Tune a copy of the network with a copy of the layer behind block `after`.

    layer: None tunes the network as it is: what the same budget gives without a layer, to compare with. Layers with
    weights begin as the principal components of what crosses. Raises ConfigError when the options do not fit,
    TraceError when the layer does not, ModelError when the network is no classifier of these pictures, StoreError when
    the checkpoint is damaged, another run's, or cannot be written.
    """
    options = options or TuneOptions()
    if not 0 <= after < len(chain) - 1:
        raise TraceError(f"there is nothing to cut behind block {after}; choose from 0 to {len(chain) - 2}")
    if options.mode == "layer" and not isinstance(layer, LearnedLayer):
        raise ConfigError(
            f"mode 'layer' tunes the layer's weights, and {layer.name if layer else 'no layer'} has none; "
            f"choose mode edge or whole, or a layer such as learned4-1x1"
        )
    rest, held = train.split(options.validation, options.seed)
    before = correct(chain, test)
    _check_classes(chain, train, test)
    student = _student(chain, after, layer, rest)
    inserted = correct(student, test)
    training = Training(student, chain, after, layer is not None, options)
    history = training.run(rest, held, identity_of(chain, (after, layer and layer.name), (train, test), options))
    return Tuned(
        student,
        after,
        layer.name if layer is not None else None,
        replace(options, checkpoint=None, progress=None),
        before,
        inserted,
        correct(student, test),
        history.validation,
        history.best_epoch,
    )


def best_cut(chain: Chain, layer_for: Callable[[int], TransferLayer], data: Labelled) -> int:
    """The block behind which the layer costs least accuracy, untuned; within the standard error, where least is sent.

    Cuts whose tensors reveal the input are taken only if there are no others. Says nothing of latency: that is for
    `edgeward plan`. layer_for: the layer to put behind a block (one with weights depends on the channels there).
    Raises TraceError when the layer fits nowhere.
    """
    layers = {place: layer_for(place) for place in fitting(chain)}
    places = [place for place, shape in fitting(chain).items() if layers[place].fits(shape)]
    if not places:
        raise TraceError("the layer fits behind no block of this network: no maps cross that it could shrink")
    places = [one for one in places if not chain.costs[one].reveals_input] or places
    whole = correct(chain, data)
    drops, sent = {}, {}
    for place in places:
        smaller = _student(chain, place, layers[place], data)
        drops[place] = drop_between(whole, correct(smaller, data))
        sent[place] = smaller.costs[place + 1].output_bytes
    least = min(drops.values(), key=lambda one: one.share)
    return min((one for one in places if drops[one].share <= least.share + least.error), key=lambda one: sent[one])


def _student(chain: Chain, after: int, layer: TransferLayer | None, data: Labelled) -> Chain:
    """A copy of the network, with a copy of the layer, fitted where it has weights."""
    student = duplicate(chain).eval()
    if layer is None:
        return student
    layer = copy.deepcopy(layer)
    if isinstance(layer, LearnedLayer) and after in fitting(chain, layer):
        images, _ = next(data.batches(_FITTED_ON, seed=0))
        layer.fit(student.activations(images)[after + 1][0])
    return with_transfer(student, after, layer)


def _check_classes(chain: Chain, *parts: Labelled) -> None:
    with torch.no_grad():
        images, _ = next(parts[0].take(slice(0, 1)).batches(1))
        was = chain.training
        count = logits_of(chain.eval()(images)).shape[1]
        chain.train(was)
    largest = max(int(part.labels.max()) for part in parts)
    if largest >= count:
        raise ModelError(
            f"the network tells {count} classes apart, the pictures have label {largest}; use its own data"
        )
