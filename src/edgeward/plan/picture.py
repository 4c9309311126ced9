"""Ranked plans as a picture: one bar per plan, its stages and hops along the time of one inference.

Path("plans.svg").write_text(picture(plans, fleet))
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from edgeward.fleet.fleet import Fleet
from edgeward.plan.plan import Plan, Stage
from edgeward.units import format_bytes, format_seconds

__all__ = ["picture"]

_COLOURS = ("#3b6fb6", "#2f9e74", "#b8860b", "#a8476b", "#6b5bb0", "#4b8f9c", "#9a6b3f", "#7a7a2e")
_LEFT, _WIDTH, _ROW = 16, 900, 52


def picture(plans: Sequence[Plan], fleet: Fleet) -> str:
    """An SVG document. Stages are coloured by device, hops are grey; hovering tells seconds and bytes."""
    colours = {device.name: _COLOURS[index % len(_COLOURS)] for index, device in enumerate(fleet.devices)}
    longest = max(plan.latency for plan in plans) or 1.0
    used = [device.name for device in fleet.devices if any(device.name in plan.assignment for plan in plans)]
    height = 64 + _ROW * len(plans)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH + 2 * _LEFT} {height}" font-family="sans-serif" '
        f'font-size="13"><rect width="100%" height="100%" fill="#ffffff"/>'
    ]
    x = float(_LEFT)
    for name in (*used, "transfer"):
        parts.append(f'<rect x="{x:.0f}" y="14" width="14" height="14" fill="{colours.get(name, "#c8ccd0")}"/>')
        parts.append(f'<text x="{x + 20:.0f}" y="26">{escape(name)}</text>')
        x += 48 + 8 * len(name)
    for row, plan in enumerate(plans):
        parts.append(_bar(plan, 50 + _ROW * row, _WIDTH / longest, colours))
    return "\n".join([*parts, "</svg>", ""])


def _bar(plan: Plan, y: int, scale: float, colours: dict[str, str]) -> str:
    label = f"{plan.describe()}   {format_seconds(plan.latency)}, {format_bytes(plan.bytes)} sent"
    parts = [f'<text x="{_LEFT}" y="{y}">{escape(label)}</text>']
    x = float(_LEFT)
    for name, seconds, words in _pieces(plan):
        width = max(seconds * scale, 0.5)
        parts.append(
            f'<rect x="{x:.1f}" y="{y + 6}" width="{width:.1f}" height="20" fill="{colours.get(name, "#c8ccd0")}">'
            f"<title>{escape(words)}</title></rect>"
        )
        x += seconds * scale
    return "\n".join(parts)


def _pieces(plan: Plan) -> list[tuple[str, float, str]]:
    """Stages and hops in the order in which they happen: device or nothing, seconds, words."""
    return [
        (step.device, step.seconds, f"{step}: {format_seconds(step.seconds)}")
        if isinstance(step, Stage)
        else ("", step.latency, f"{step}: {step.bytes} bytes, {format_seconds(step.latency)}")
        for step in plan.steps
    ]
