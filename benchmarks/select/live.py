"""The real box on this machine, beside processes that compete with it, and the virtual clock on the very same frames.

    python benchmarks/select/live.py --full

One arm after another plays the recordings at their own pace, pinned to one core; 0, 1 or 2 busy loops on that core make
about 1x, 2x and 3x. Each third of the recordings calibrates the ladder in turn, as on the virtual clock (`regimes.py`);
played are, of what is left, some seconds of PETS, and twice all of TUD. Figures are means of the three.
Ours remembers what was found in the last moments; rivals play as they are, and once more with the same memory. Once more
ours forgets, too: like for like are rivals as they are and ours that forgets, rivals with memory and ours that remembers.
All of it twice, the second time in reverse, as single runs differ by some per cent. Each core plays thirds of its own, two
on two cores at a time: box, competitors and all on that core.
Then the box's loop runs again on the virtual clock, with the arrivals and the median latencies of that very run's log.
"""

from __future__ import annotations

import functools
import json
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from clips import Clip, clips, pieces  # noqa: E402
from competition import Competition  # noqa: E402
from costs import FilmCosts, Machine  # noqa: E402
from film import Film, Judged, judged_boxes, pooled  # noqa: E402
from harness import row, shared_data  # noqa: E402
from logged import MEMORY, PHASE, LoggedMachine  # noqa: E402
from recorded import FUSED, configs, measured, recordings  # noqa: E402
from regimes import FORGETTING, NOT_HELD_OUT, REMEMBERING, TOD_OF_MODELS, Fold, models_alone, periodic, thresholds  # noqa: E402
from video import CAMERA, RAW, REMEMBERED, play, screened  # noqa: E402

from edgeward.serve.answering import device_name  # noqa: E402
from edgeward.serve.config import QueryConfig  # noqa: E402
from edgeward.serve.events import Event, FrameArrived  # noqa: E402
from edgeward.serve.ladder import save_ladder  # noqa: E402
from edgeward.serve.log import read_log  # noqa: E402
from edgeward.serve.modelconfig import members_of  # noqa: E402
from edgeward.serve.policies import policy_named  # noqa: E402
from edgeward.serve.rivals import Fixed  # noqa: E402
from edgeward.serve.simulate import outside, simulate  # noqa: E402

REGIMES: dict[str, tuple[int, ...]] = {"1x": (0,), "2x": (1,), "3x": (2,), "changing": (0, 2, 1)}
"""How many others compete, from phase to phase of PHASE seconds."""
THIRDS, ROUNDS = 3, 2
QUICK = 2
"""The third that calibrates where only one does."""
RIVALS = {"TOD-like": "tod", TOD_OF_MODELS: "tod_of_models", "Chameleon-like": "chameleon"}
RIVALS |= {f"{name}{REMEMBERING}": f"{kind}_remembering" for name, kind in RIVALS.items()}
CHOOSING = ("ours", FORGETTING, *RIVALS)
QUERY = QueryConfig(camera=CAMERA, model="people", classes=("person",), confidence=0.1)


@dataclass(frozen=True)
class Arm:
    """A ladder of these models under a rule: an entry of the box file. One model is a fixed choice."""

    models: tuple[str, ...]
    options: Mapping[str, Any]
    remember: bool = False


@dataclass(frozen=True)
class Run:
    """One clip played by one arm, live and again on the virtual clock; ratio: measured latencies over idle ones."""

    live: Sequence[Judged]
    virtual: Sequence[Judged]
    ratio: float


Runs = dict[str, dict[str, list[Run]]]
"""Of one third: by arm and regime, one for each clip."""


def rows(full: bool, shared: Path | None) -> list[dict[str, Any]]:
    """Live figures by load, and how far the virtual clock is from them. Quick: one load, ours and the best model."""
    if shared is None:
        return [row("select.live", "needs the real test data", baseline="", ours=None, unit="", note="no data")]
    turns = range(THIRDS * ROUNDS) if full else (QUICK,)
    cores = sorted(os.sched_getaffinity(0), reverse=True)[: len(turns)]
    kind = multiprocessing.get_context("spawn")
    free = kind.Queue()
    for core in cores:
        free.put(core)
    fixed = _best_models(shared, full)  # before anything else runs: what is not kept yet is worked out once
    with ProcessPoolExecutor(len(cores), kind, _pin, (free,)) as pool:
        rounds = list(pool.map(functools.partial(_round, full, shared, fixed), turns))
    lines = [line for regime in rounds[0]["ours"] for line in _regime_rows(regime, rounds)]
    return lines + (_mixed_rows(rounds) if full else [])


def _pin(free: Any) -> None:
    """This process and all that it starts keep to a core of their own."""
    os.sched_setaffinity(0, {free.get()})


def _best_models(shared: Path, full: bool) -> tuple[str, ...]:
    """Those among the best two under some load, with memory or without, by the virtual clock's mean over all thirds."""
    films, seconds = recordings(shared), measured(shared, FUSED)
    thirds = range(THIRDS) if full else (QUICK,)
    played = [
        Film.of([piece for clip in pieces(Fold.of(films, third, seconds).judged, third, _long(full)) for piece in clip])
        for third in thirds
    ]
    best: dict[str, None] = {}
    for load in (1.0, 2.0, 3.0) if full else (2.0,):
        machine = Machine(seconds, lambda time, load=load: load)
        for query in (RAW, REMEMBERED):
            worth = {
                name: statistics.mean(play(film, Fixed(name), machine, query).precision() for film in played)
                for name in models_alone(seconds)
            }
            best |= dict.fromkeys(sorted(worth, key=worth.__getitem__, reverse=True)[: 2 if full else 1])
    return tuple(best)


def _long(full: bool) -> float:
    """Seconds of PETS that are played."""
    return 16.0 if full else 6.0


def _round(full: bool, shared: Path, fixed: Sequence[str], turn: int) -> Runs:
    """Every arm under every load, one after another, on one third in turn; in reverse in every second round."""
    films, seconds = recordings(shared), measured(shared, FUSED)
    third, again = turn % THIRDS, turn // THIRDS
    fold = Fold.of(films, third, seconds)
    found: Runs = {}
    with tempfile.TemporaryDirectory() as folder:
        played = clips(shared, fold.judged, third, Path(folder), _long(full))
        arms = _arms(fold, fixed, seconds, full)
        ladder = Path(folder) / "people.json"
        save_ladder(replace(fold.ladder, device=device_name("cpu", 1)), ladder)
        for regime in REGIMES if full else ("2x",):
            for name, arm in list(arms.items())[:: -1 if again % 2 else 1]:
                box = functools.partial(_box, shared, arm, ladder)
                query = QUERY.model_copy(update={"remember": arm.remember})
                runs = [_played(box, clip, REGIMES[regime], seconds, query) for clip in played]
                found.setdefault(name, {})[regime] = runs
    return {name: found[name] for name in arms}


def _arms(fold: Fold, fixed: Sequence[str], seconds: Mapping[str, float], full: bool) -> dict[str, Arm]:
    """Ours, these models, TOD, Chameleon."""
    arms = {"ours": Arm(tuple(seconds), {}, remember=True), FORGETTING: Arm(tuple(seconds), {})}
    arms |= {name: Arm((name,), {}) for name in fixed}
    arms |= {name + REMEMBERING: Arm((name,), {}, remember=True) for name in fixed}
    if not full:
        return arms
    choosing = {}
    for name, rungs in (("TOD-like", seconds), (TOD_OF_MODELS, models_alone(seconds))):
        tod = thresholds(fold, rungs)
        choosing[name] = Arm(tod.names, {"rule": "thresholds", "thresholds": list(tod.least)})
    chameleon = periodic(fold, seconds)
    options = {"rule": "periodic", "period": chameleon.period, "agreement": chameleon.target}
    choosing["Chameleon-like"] = Arm(chameleon.names, options)
    return arms | choosing | {name + REMEMBERING: replace(arm, remember=True) for name, arm in choosing.items()}


def _box(data: Path, arm: Arm, ladder: Path, clip: Clip, folder: str) -> dict[str, Any]:
    """The box file of a run."""
    entries = configs(data)
    members = dict.fromkeys(member for name in arm.models for member in members_of(name))
    return {
        "cameras": [{"name": CAMERA, "source": clip.source, "rate": clip.recording.fps, "loop": clip.times > 1}],
        "models": [entries[name].model_dump(mode="json", exclude_none=True) for name in members],
        "ladders": [{"name": "people", "models": list(arm.models), "calibration": str(ladder), **arm.options}],
        "queries": [
            {"camera": CAMERA, "model": "people", "classes": ["person"], "confidence": QUERY.confidence,
             "remember": arm.remember},
        ],
        "budget": {"memory": MEMORY, "threads": 1, "device": "cpu"},
        "store": {"enabled": False}, "web": {"enabled": False}, "data": folder,
    }  # fmt: skip


def _played(
    box: Callable[[Clip, str], dict[str, Any]],
    clip: Clip,
    phases: tuple[int, ...],
    idle: Mapping[str, float],
    query: QueryConfig,
) -> Run:
    with tempfile.TemporaryDirectory() as folder:
        _live(box(clip, folder), clip.seconds, phases, Path(folder))
        (recording,) = read_log(Path(folder) / "log")
    machine = LoggedMachine.of(recording.events, phases, idle)
    costs = FilmCosts({CAMERA: clip.film}, machine, query)
    again = simulate(recording.state, outside(recording.events), policy_named("edf-lru"), costs)
    return Run(_judged(recording.events, clip), _judged(again.events, clip), machine.ratio)


def _live(box: Mapping[str, Any], seconds: float, phases: tuple[int, ...], folder: Path) -> None:
    """Play one clip in a box of its own process, with others competing in phases."""
    core = max(os.sched_getaffinity(0))
    file = folder / "box.yaml"
    file.write_text(yaml.safe_dump(box))
    command = [sys.executable, str(HERE / "livebox.py"), str(core), str(file), str(seconds)]
    with (
        Competition(core) as others,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process,
    ):
        assert process.stdin is not None and process.stdout is not None
        if process.stdout.readline() != "ready\n":
            raise RuntimeError(f"the box did not start; see above (box file {file})")
        process.stdin.write("go\n")
        process.stdin.flush()
        begin, phase = time.monotonic(), 0
        while process.poll() is None:
            others.run(phases[phase % len(phases)])
            phase += 1
            try:
                process.wait(max(begin + phase * PHASE - time.monotonic(), 0))
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise RuntimeError(f"the box ended with {process.returncode}; see above")


def _judged(events: Sequence[Event], clip: Clip) -> list[Judged]:
    """Every frame that arrived, against what was on screen then."""
    arrived = [event.content for event in events if isinstance(event, FrameArrived)]
    _, shown = screened(events, CAMERA)
    truth = clip.recording.truth
    shown = shown[: clip.frames * clip.times]
    return [judged_boxes(boxes, truth.at(clip.order[frame])) for frame, boxes in zip(arrived, shown, strict=False)]


def _figure(rounds: Sequence[Runs], arm: str, regimes: Sequence[str], side: str = "live") -> float:
    """Streaming AP of all clips, rounds and regimes together: the mean of the thirds that are there."""
    thirds = [rounds[third::THIRDS] for third in range(min(len(rounds), THIRDS))]
    return statistics.mean(
        pooled(
            [part for each in third for regime in regimes for run in each[arm][regime] for part in getattr(run, side)]
        )
        for third in thirds
    )


def _regime_rows(regime: str, rounds: Sequence[Runs]) -> list[dict[str, Any]]:
    live = {name: _figure(rounds, name, [regime]) for name in rounds[0]}
    best, remembering = _best_fixed(live)
    ratio = statistics.median(run.ratio for each in rounds for by_regime in each.values() for run in by_regime[regime])
    noted = ", ".join(f"{name} {value:.3f}" for name, value in live.items())
    noted += f"; latencies {ratio:.2f} times the idle ones"
    rows = [_over(rounds, [regime], best, "best_fixed", ">= 0", note=noted)]
    rows += [_over(rounds, [regime], remembering, "best_fixed_remembering", ">= 0")]
    rows += [_over(rounds, [regime], name, kind, ">= 0") for name, kind in RIVALS.items() if name in live]
    rows += _forgetting_rows(rounds, [regime], best, ">= 0")
    for kind, name in (("ours", "ours"), ("best_fixed", best)):
        virtual = _figure(rounds, name, [regime], "virtual")
        rows.append(
            row(
                f"select.live.{regime}.virtual_clock.{kind}",
                f"streaming AP@0.5 of {name} on the virtual clock with the latencies of the live runs under load {regime}: how"
                " far it is from the live one",
                baseline=f"live, {live[name]:.3f}", ours=round(100 * abs(virtual / live[name] - 1), 2), unit="%",
                bar="<= 5", note=f"virtual {virtual:.3f}",
            )
        )  # fmt: skip
    return rows


def _forgetting_rows(rounds: Sequence[Runs], regimes: Sequence[str], best: str, bar: str) -> list[dict[str, Any]]:
    """Ours without memory over rivals without."""
    rivals = {best: "best_fixed", **{name: kind for name, kind in RIVALS.items() if not name.endswith(REMEMBERING)}}
    return [
        _over(rounds, regimes, name, kind, bar if name == best else ">= 0", ours=FORGETTING)
        for name, kind in rivals.items()
        if name in rounds[0]
    ]


def _over(
    rounds: Sequence[Runs],
    regimes: Sequence[str],
    rival: str,
    kind: str,
    bar: str,
    *,
    note: str = "",
    ours: str = "ours",
) -> dict[str, Any]:
    def gain(rounds: Sequence[Runs]) -> float:
        return 100 * (_figure(rounds, ours, regimes) / _figure(rounds, rival, regimes) - 1)

    load = regimes[0] if len(regimes) == 1 else "mixed"
    singles = [gain([each]) for each in rounds]
    who, named = ("ours, which remembers,", "") if ours == "ours" else ("ours without memory", "forgetting_")
    return row(
        f"select.live.{load}.{named}over_{kind}",
        f"streaming AP@0.5 in the real box, competing processes {load}: {who} over the rival's, less 1;"
        f" {len(rounds)} rounds of a third each, spread: of single ones; {NOT_HELD_OUT}",
        baseline=f"{rival}, {_figure(rounds, rival, regimes):.3f}", ours=round(gain(rounds), 2), unit="%", bar=bar,
        spread=(min(singles), max(singles)), note=note,
    )  # fmt: skip


def _mixed_rows(rounds: Sequence[Runs]) -> list[dict[str, Any]]:
    """All loads together."""
    regimes = tuple(REGIMES)
    live = {name: _figure(rounds, name, regimes) for name in rounds[0]}
    best, remembering = _best_fixed(live)
    noted = ", ".join(f"{name} {value:.3f}" for name, value in live.items())
    rows = [_over(rounds, regimes, best, "best_fixed", ">= 4", note=noted)]
    rows += [_over(rounds, regimes, remembering, "best_fixed_remembering", ">= 4")]
    rows += _forgetting_rows(rounds, regimes, best, ">= 4")
    return [*rows, *(_over(rounds, regimes, name, kind, ">= 0") for name, kind in RIVALS.items())]


def _best_fixed(figures: Mapping[str, float]) -> tuple[str, str]:
    """The best model as it is, and with memory."""
    fixed = [name for name in figures if name not in CHOOSING]
    plain = [name for name in fixed if not name.endswith(REMEMBERING)]
    remembering = [name for name in fixed if name.endswith(REMEMBERING)]
    return max(plain, key=figures.__getitem__), max(remembering, key=figures.__getitem__)


if __name__ == "__main__":
    for line in rows("--full" in sys.argv, shared_data()):
        print(json.dumps(line) if "--json" in sys.argv else (line["id"], line["baseline"], line["ours"], line["note"]))
