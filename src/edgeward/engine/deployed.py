"""A model of the box that runs under a plan, on worker processes of this machine or on nodes of a fleet.

    box = Box(config, open_plan=partial(open_plan, reach=crew_options))

Loading opens the deployment, evicting closes it. A host that dies makes an inference slower, no more, as long as the
rest can run the network; only when all that was tried failed is the inference a failure of the model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from edgeward.errors import ConfigError, EdgewardError, ModelError
from edgeward.fleet.file import load_fleet
from edgeward.fleet.fleet import Fleet
from edgeward.plan.plan import Plan, load_plan
from edgeward.profile.file import load_profile
from edgeward.profile.profile import Profile
from edgeward.serve.modelconfig import ModelConfig
from edgeward.serve.models import Engine, ServedModel, check_card, user_card
from edgeward.split.crew import CrewOptions
from edgeward.split.deployment import Deployment, fleet_of
from edgeward.split.network import SplitNetwork, open_split
from edgeward.split.pilot import PilotOptions
from edgeward.vision.card import ModelCard
from edgeward.vision.results import FloatArray
from edgeward.zoo.packaged import PACKAGED

__all__ = ["DeployedModel", "Reach", "open_plan"]

Array = npt.NDArray[Any]
Reach = Callable[[Fleet | None, Path | None, Path | None], CrewOptions]
"""How to reach the nodes of a fleet, of its file and the folder of certificates."""

_PATIENCE = 5.0
"""Seconds until a silent host is given up: all models of a box wait for the one that runs."""


@dataclass(frozen=True)
class DeployedModel(ServedModel):
    """A model whose stages run where a plan says. `tensors`: the weights of what is kept on the plan's source."""

    plan: Plan
    network: SplitNetwork = field(repr=False)
    fleet: Fleet
    profile: Profile | None = field(repr=False)
    crew: CrewOptions = field(repr=False)
    pilot: PilotOptions = field(repr=False)

    def open(self, threads: int) -> Engine:
        """What runs it; every host computes with the threads that the fleet states for its device."""
        return _DeployedEngine(self)


def open_plan(config: ModelConfig, *, reach: Reach, note: Callable[[str], None] = lambda text: None) -> DeployedModel:
    """The model of a box's entry that names a plan; nothing is started yet.

    note: told of hosts that go and come, and of changes of plan. Raises ConfigError, naming the model, when one of its
    files is missing or damaged, the plan is for another network, or the network is not of the stated task.
    """
    assert config.plan is not None
    sides = config.input.height, config.input.width
    shape = None if None in sides else "x".join(map(str, (3, *sides)))
    try:
        plan = load_plan(config.plan)
        fleet = fleet_of(plan) if config.fleet is None else load_fleet(config.fleet)
        profile = None if config.profile is None else load_profile(config.profile)
        _check_devices(plan, fleet, profile)
        crew = reach(None if config.fleet is None else fleet, config.fleet, config.certs)
        network = open_split(plan, config.network or "", config.weights, shape)
        card = _card(config, network)
    except EdgewardError as error:
        raise ConfigError(f"model {config.name!r}: {error}") from error
    standby = config.standby is not False
    pilot = PilotOptions(
        depth=config.max_batch,
        patience=_PATIENCE,
        standby=standby,
        note=lambda text: note(f"model {config.name}: {text}"),
    )
    tensors = _kept(config.name, plan, network, fleet.source, standby)
    return DeployedModel(config.name, card, config.max_batch, tensors, plan, network, fleet, profile, crew, pilot)


def _check_devices(plan: Plan, fleet: Fleet, profile: Profile | None) -> None:
    known = [device.name for device in fleet.devices]
    absent = [stage.device for stage in plan.stages if stage.device not in known]
    if absent:
        raise ConfigError(f"the plan runs on {absent[0]!r}, but the fleet has {', '.join(known)}; plan for this fleet")
    if profile is not None and profile.fingerprint != plan.fingerprint:
        raise ConfigError(
            f"the profile of {profile.model!r} is not of the network that was planned ({plan.model!r}); "
            "give the profile that the plan was made from, or leave it away"
        )


def _card(config: ModelConfig, network: SplitNetwork) -> ModelCard:
    """A packaged network's own card, else the one the entry states; checked against what the network gives."""
    examples = network.chain.example_inputs
    shape = tuple(examples[0].shape) if isinstance(examples[0], torch.Tensor) else ()
    if len(examples) != 1 or len(shape) != 4 or examples[0].dtype != torch.float32:
        raise ModelError("its network does not take one picture, float32 [1, 3, height, width]")
    packaged = PACKAGED.get(config.network.partition("=")[0] if config.network else network.model)
    if config.convention is None and packaged is not None:
        card = packaged.card.model_copy(update={"preprocess": _resized(packaged.card, shape)})
    else:
        card = user_card(config, shape)
    if card.preprocess.shape != shape[1:]:
        raise ModelError(
            f"its network takes {list(shape)}, its 'input' says {list(card.preprocess.shape)}; correct 'input'"
        )
    with torch.no_grad():
        values = network.chain.eval()(*examples)
    outputs = [[None, *one.shape[1:]] for one in _flat(values)]
    check_card(config, card, outputs)
    return card


def _resized(card: ModelCard, shape: Sequence[int]) -> Any:
    return card.preprocess.model_copy(update={"height": shape[2], "width": shape[3]})


def _flat(values: Any) -> list[Any]:
    """The tensors that a network returns, in its own order. Raises ModelError for what no convention can read."""
    found = list(values) if isinstance(values, tuple | list) else [values]
    if not all(isinstance(one, torch.Tensor) for one in found):
        raise ModelError("its network returns something else than a tensor or a tuple of tensors")
    return found


def _kept(name: str, plan: Plan, network: SplitNetwork, source: str, standby: bool) -> dict[str, int]:
    """Bytes of weights on the source device by stretch of blocks; each stretch has its own copy."""
    stretches = {(stage.first, stage.last) for stage in plan.stages if stage.device == source}
    if standby:
        stretches.add((0, plan.stages[-1].last))
    costs = network.chain.costs
    return {
        f"{name}[{first}-{last}]": sum(cost.parameter_bytes for cost in costs[first : last + 1])
        for first, last in sorted(stretches)
    }


class _DeployedEngine:
    """A deployment that is there between `attach` and `detach`."""

    def __init__(self, model: DeployedModel) -> None:
        self._model = model
        self._deployment: Deployment | None = None
        self._closing: threading.Thread | None = None

    def attach(self) -> None:
        if self._deployment is not None:
            return
        self._closed()
        model = self._model
        self._deployment = Deployment(
            model.plan, model.network, fleet=model.fleet, profile=model.profile, crew=model.crew, pilot=model.pilot
        )

    def run(self, batch: FloatArray) -> Sequence[Array]:
        deployment = self._deployment
        if deployment is None:
            raise ModelError("the model's deployment is not open; call attach() first")
        # Pictures go one after another, so that every host works on its own one.
        under_way = [deployment.submit(batch[index : index + 1]) for index in range(len(batch))]
        answers = [self._arrays(future.result().outputs) for future in under_way]
        return answers[0] if len(answers) == 1 else [np.concatenate(parts) for parts in zip(*answers, strict=True)]

    def _arrays(self, outputs: Sequence[Array]) -> list[Array]:
        """The last stage's tensors as the network returns them."""
        values = self._model.network.chain.outputs([torch.from_numpy(np.array(one)) for one in outputs])
        return [one.numpy() for one in _flat(values)]

    def detach(self) -> None:
        deployment, self._deployment = self._deployment, None
        if deployment is not None:
            # Hosts take seconds to end, and the box's loop is what calls.
            self._closing = threading.Thread(target=deployment.close, name=f"closing-{self._model.name}")
            self._closing.start()

    def close(self) -> None:
        self.detach()
        self._closed()

    def _closed(self) -> None:
        if self._closing is not None:
            self._closing.join()
            self._closing = None
