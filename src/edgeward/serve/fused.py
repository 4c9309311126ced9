"""Several detectors of a ladder that answer as one: all look at the picture, and their boxes are fused.

    ladders: [{name: people, models: [nano, center, nano+center], calibration: people.json}]

    models = with_fused(config, with_variants(config, models))
    runner = Runner(models, threads=1)
    runner.load("nano+center")               # of what either has in memory already nothing is loaded again

Two detectors of different make hardly ever err alike. Where there is time for both, they find more than a larger one
that takes as long, and hold no memory beyond their own. Where there is not they may look in turn, ONE~TWO (see
`edgeward.serve.inturn`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from edgeward.errors import ConfigError, ModelError, nearest
from edgeward.serve.certainty import Dialect, score_of
from edgeward.serve.config import BoxConfig
from edgeward.serve.ladder import AGAIN, Ladder, load_ladder
from edgeward.serve.modelconfig import looks_of, members_of
from edgeward.serve.models import Engine, ServedModel
from edgeward.serve.portfolio import PortfolioModel
from edgeward.vision.fusion import fused
from edgeward.vision.results import Detections

__all__ = ["FusedModel", "check_members", "fused_model", "heard_from", "with_fused"]

FAINT = 0.5
"""Share of the least confidence from which a member's box has a say: fainter ones hardly move a mean."""


@dataclass(frozen=True)
class FusedModel(ServedModel):
    """What several models find together, or in turn. It has no engine of its own: the runner runs those of its members.

    members: names of served models. dialects: how to understand each. tensors: those of all members.
    """

    members: tuple[str, ...]
    dialects: tuple[Dialect, ...] = field(repr=False)

    def open(self, threads: int) -> Engine:
        """Raises ModelError: only its members can be opened."""
        raise ModelError(f"{self.name!r} is run by {' and '.join(self.members)}")

    def floors(self, confidence: float) -> list[float]:
        """The least score of each member that matters for fused boxes of this confidence."""
        return heard_from(confidence, [each.certainty for each in self.dialects])

    def fused(self, answers: Sequence[Detections], confidence: float) -> Detections:
        """The members' answers for one picture as one, without boxes fainter than `confidence`."""
        boxes = fused(
            [each.understood(answer, self.card.labels) for answer, each in zip(answers, self.dialects, strict=True)]
        )
        return boxes[boxes.confidence >= confidence]


def heard_from(confidence: float, certainties: Iterable[tuple[float, float]]) -> list[float]:
    """The least score with which a member's box has a say in fused ones of this confidence. certainties: by member."""
    return [score_of(FAINT * confidence, certainty) for certainty in certainties]


def with_fused(config: BoxConfig, models: Mapping[str, ServedModel]) -> dict[str, ServedModel]:
    """The models of a box and those that its ladders make of several of them.

    Raises ConfigError when a ladder was not calibrated for one of them, or two ladders do not agree on one.
    """
    found: dict[str, ServedModel] = dict(models)
    for entry in config.ladders:
        names = [name for name in entry.models if len(members_of(name)) > 1]
        try:
            ladder = load_ladder(entry.calibration) if names else None
            for name in names:
                assert ladder is not None
                made = fused_model(name, models, ladder)
                if found.setdefault(name, made) != made:
                    raise ConfigError(
                        f"another ladder fuses {name!r}, too, but was calibrated apart, so that its scores mean "
                        "something else; let both name one ladder, or take it off one of them"
                    )
        except ConfigError as error:
            raise ConfigError(f"ladder {entry.name!r}: {error}") from error
    return found


def check_members(name: str, models: Mapping[str, ServedModel]) -> None:
    """Raise ConfigError unless all that ONE+TWO or ONE~TWO holds are whole detectors. models: after `with_variants`."""
    for member in members_of(name):
        model = models.get(member)
        if model is None or isinstance(model, PortfolioModel):  # one on a ladder has given way to its variants
            raise ConfigError(f"{name!r} holds the portfolio {member!r}; only whole models can be fused")
        if model.card.task != "detection":
            raise ConfigError(f"{name!r} holds {member!r}, which does {model.card.task}; only detectors can be fused")


def fused_model(name: str, models: Mapping[str, ServedModel], ladder: Ladder) -> FusedModel:
    """What these models are together, by what a ladder says of their scores. Raises ConfigError when it does not."""
    check_members(name, models)
    members = members_of(name)
    known = [rung.name for rung in ladder.rungs]
    for member in members:
        if member not in known:
            raise ConfigError(
                f"its calibration says nothing of {member!r}, which {name!r} holds; {nearest(member, known)}; {AGAIN}"
            )
        missing = [label for label in ladder.labels if label not in models[member].card.labels]
        if missing:
            raise ConfigError(
                f"{member!r}, which {name!r} holds, knows no class {missing[0]!r} of its calibration; {AGAIN}"
            )
    parts = [models[member] for member in members]
    dialects = [Dialect(part.card.labels, ladder.rung(part.name).certainty) for part in parts]
    tensors = {tensor: size for part in parts for tensor, size in part.tensors.items()}
    card = parts[0].card.model_copy(update={"labels": ladder.labels})
    # Whose turn it is differs from camera to camera: models in turn take one picture at a time.
    most = 1 if looks_of(name) > 1 else min(part.max_batch for part in parts)
    return FusedModel(name, card, most, tensors, members, tuple(dialects))
