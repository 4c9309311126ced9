"""`edgeward replay`: a recorded log through another policy, on a virtual clock.

edgeward replay box-data/log --policy fifo-lru
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from edgeward.cli.output import note, percent, print_json, seconds, show_table, split_truths
from edgeward.errors import ConfigError, nearest

__all__ = ["replay"]


def replay(
    log: Annotated[Path, typer.Argument(help="A data folder, its log folder (box-data/log), or one segment of it.")],
    policy: Annotated[str | None, typer.Option(help="The policy to try; the recorded one when absent.")] = None,
    costs: Annotated[
        str, typer.Option(help="recorded: what each action took; median: what actions like it took.")
    ] = "recorded",
    truth: Annotated[list[str] | None, typer.Option(help="Score a camera: camera=gt.txt.")] = None,
    json_: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Run a log's arrivals through a policy and compare."""
    from edgeward.serve.log import read_log
    from edgeward.serve.replay import replay as replay_recording
    from edgeward.vision.truth import load_truth

    if costs not in ("recorded", "median"):
        raise ConfigError(f"--costs {costs}: choose 'recorded' or 'median'")
    recordings = read_log(log / "log" if (log / "log").is_dir() else log)
    recording = recordings[-1]
    chosen = policy or str(recording.config.get("policy", "edf-lru"))
    truths = {camera: load_truth(path) for camera, path in split_truths(truth or []).items()}
    cameras = list(recording.state.cameras)
    for camera in truths:
        if camera not in cameras:
            raise ConfigError(f"--truth names camera {camera!r}, which the log has not; {nearest(camera, cameras)}")
    labels = recording.config.get("labels", {})
    comparison = replay_recording(recording, chosen, "median" if costs == "median" else "recorded", truths, labels)
    if json_:
        print_json(asdict(comparison))
        return
    runs = (comparison.recorded, comparison.replayed)
    lines: list[list[Any]] = [
        ["frames due", *(run.due for run in runs)],
        ["answered in time", *(percent(run.in_time_fraction) for run in runs)],
        ["late", *(run.late for run in runs)],
        ["skipped", *(run.skipped for run in runs)],
        ["age of newest answer", *(seconds(run.staleness_seconds) for run in runs)],
        ["loads per hour", *(f"{run.loads_per_hour:.0f}" for run in runs)],
        ["inferences", *(run.inferences for run in runs)],
        ["answers whose content is recorded", *(percent(run.answers_known) for run in runs)],
    ]
    for query in runs[0].accuracy:
        for name in runs[0].accuracy[query]:
            values = (run.accuracy.get(query, {}).get(name) for run in runs)
            lines.append([f"{query}: {name}", *("–" if value is None else f"{value:.3f}" for value in values)])
    names = [f"recorded ({runs[0].policy})", f"replayed ({runs[1].policy}, {comparison.costs} costs)"]
    which = f"recording {len(recordings)} of {len(recordings)}, from {recording.path.name} on"
    show_table(f"{runs[0].seconds:.1f} s of {recording.path.parent} ({which})", ["", *names], lines)
    if comparison.identical:
        note(f"all {runs[0].decisions} recorded decisions came again, each at the same nanosecond")
