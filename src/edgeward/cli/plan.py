"""`edgeward plan`: which block runs on which device.

edgeward plan resnet50.json fleet.toml --constraint "block 0 on device" --top 3 --why
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgeward.cli.output import note, percent, print_json, seconds, show_table
from edgeward.errors import ConfigError
from edgeward.units import format_bytes, parse_bytes, parse_rate

if TYPE_CHECKING:
    from edgeward.plan.explain import Explanation
    from edgeward.plan.plan import Plan
    from edgeward.plan.planner import Planner

__all__ = ["plan"]


def plan(
    profile: Annotated[
        Path, typer.Argument(help="What the network costs, by 'edgeward profile' or a published table.")
    ],
    fleet: Annotated[Path, typer.Argument(help="The fleet's TOML file.")],
    objective: Annotated[str, typer.Option(help="latency, throughput, energy or bytes.")] = "latency",
    constraint: Annotated[
        list[str] | None,
        typer.Option(help="Such as 'block 0 on device', 'pi <= 200 ms', 'pi->* <= 2 MB', 'accuracy drop at most 1 %'."),
    ] = None,
    top: Annotated[int, typer.Option(help="How many plans.")] = 5,
    pareto: Annotated[str | None, typer.Option(help="The front over these, such as latency,bytes,energy.")] = None,
    why: Annotated[bool, typer.Option("--why", help="Explain the best plan, and what would change it.")] = False,
    return_result: Annotated[bool, typer.Option("--return-result", help="The result goes back to the source.")] = False,
    quantile: Annotated[float, typer.Option(help="Block times to plan with: 0.5 median, 0.9 bad runs.")] = 0.5,
    input_size: Annotated[str | None, typer.Option("--input-bytes", help="What the input takes on the wire.")] = None,
    link: Annotated[list[str] | None, typer.Option(help="A link as it is now: 'pi->box=5 Mbit/s'.")] = None,
    merge: Annotated[list[Path] | None, typer.Option(help="Another profile of the same network.")] = None,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the best plan.")] = None,
    picture: Annotated[Path | None, typer.Option(help="Draw the plans as SVG.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print as JSON.")] = False,
) -> None:
    """Find the best placements of a profiled network on a fleet, exactly."""
    from edgeward.fleet.file import load_fleet
    from edgeward.plan.constraints import Constraints
    from edgeward.plan.explain import explain
    from edgeward.plan.objective import Objective
    from edgeward.plan.plan import save_plan
    from edgeward.plan.planner import Planner
    from edgeward.profile.file import load_profile, replace_text

    known = load_profile(profile)
    for other in merge or ():
        known = known.merge(load_profile(other))
    try:
        sent = None if input_size is None else parse_bytes(input_size)
    except ValueError as error:
        raise ConfigError(f"--input-bytes: {error}") from error
    goal = Objective(objective, return_result, quantile, sent)  # type: ignore[arg-type]
    rules = Constraints.parse(*(constraint or ()))
    planner = _as_it_is_now(Planner(known, load_fleet(fleet)), link or ())
    if pareto is None:
        plans = planner.best(goal, rules, top)
    else:
        criteria: Any = tuple(one.strip() for one in pareto.split(",") if one.strip())
        plans = planner.pareto(rules, criteria, goal)
    reasons = explain(planner, plans[0], rules) if why else None
    if output is not None:
        save_plan(plans[0], output)
    if picture is not None:
        from edgeward.plan.picture import picture as drawn

        replace_text(picture, drawn(plans, planner.fleet))
    if json_:
        print_json(
            {"plans": [one.model_dump(mode="json") for one in plans], "why": None if reasons is None else str(reasons)}
        )
        return
    title = f"{known.model} on {planner.fleet.name}: "
    title += f"no plan beats these in all of {pareto}" if pareto else f"best by {objective}"
    _show_plans(title, plans)
    if reasons is not None:
        _show_reasons(reasons)
    if output is not None:
        note(f"best plan written to {output}")


def _as_it_is_now(planner: Planner, links: list[str] | tuple[str, ...]) -> Planner:
    for text in links:
        ends, equals, rate = text.partition("=")
        source, arrow, target = ends.partition("->")
        if not equals or not arrow:
            raise ConfigError(f"--link {text}: write it as 'pi->box=5 Mbit/s'")
        try:
            bandwidth = parse_rate(rate.strip())
        except ValueError as error:
            raise ConfigError(f"--link {text}: {error}") from error
        planner = planner.with_link(source.strip(), target.strip(), bandwidth=bandwidth)
    return planner


def _show_plans(title: str, plans: list[Plan]) -> None:
    lossy = any(one.drop != 0 for one in plans)
    rows = [
        [
            f"{index}  {one.describe()}",
            seconds(one.latency),
            seconds(sum(stage.seconds for stage in one.stages)),
            seconds(sum(hop.latency for hop in one.hops)),
            f"{one.throughput:.3g}/s",
            format_bytes(one.bytes),
            f"{one.energy:.3g} J",
            *([_points(one.drop)] if lossy else []),
        ]
        for index, one in enumerate(plans, start=1)
    ]
    columns = ["plan", "latency", "computing", "transfer", "throughput", "sent", "energy"]
    show_table(title, [*columns, *(["accuracy lost"] if lossy else [])], rows)
    if lossy:
        note("what packings lose was measured hop by hop and adds up only nearly: measure the plan before use")


def _points(drop: float | None) -> str:
    """A loss of accuracy for people."""
    return "not measured" if drop is None else f"{100 * drop:.3g} %"


def _show_reasons(why: Explanation) -> None:
    best = why.plan
    rows = [[str(stage), "", "", seconds(stage.seconds), percent(_share(stage.seconds, best))] for stage in best.stages]
    rows += [
        [
            f"{hop.source} → {hop.target}",
            hop.packing,
            format_bytes(hop.bytes),
            f"{seconds(hop.latency)} ({seconds(hop.pack)} + {seconds(hop.seconds)} + {seconds(hop.unpack)})"
            if hop.pack or hop.unpack
            else seconds(hop.latency),
            percent(_share(hop.latency, best)),
        ]
        for hop in best.hops
    ]
    show_table("Where the time of the best plan goes", ["stage or hop", "packed as", "sent", "time", "share"], rows)
    alone = [[one.device, seconds(one.plan.latency) if one.plan else "–", one.reason] for one in why.natives]
    show_table("Everything on one device", ["device", "latency", "why not"], alone)
    if why.price > 0:
        note(f"without your constraints: {why.unconstrained.describe()}, {seconds(why.unconstrained.latency)}")
    flips = [
        [f"{one.kind} {one.name} {one.factor:g} times as fast", one.plan.describe() if one.plan else "nothing changes"]
        + [seconds(one.plan.latency) if one.plan else ""]
        for one in why.flips
    ]
    show_table("What would change it", ["if", "then", "latency"], flips)


def _share(part: float, plan: Plan) -> float:
    return part / plan.latency if plan.latency else 0.0
