"""What a new frame changes: the pace of its camera, and the jobs that wait. Pure; part of `edgeward.serve.apply`.

state = arrived(state, FrameArrived(time_ns=5, camera="street", frame=0, content=0))
"""

from __future__ import annotations

from dataclasses import replace

from edgeward.serve.actions import Job
from edgeward.serve.events import FrameArrived
from edgeward.serve.ladders import looked
from edgeward.serve.state import CameraState, QueryState, State, smoothed

__all__ = ["arrived"]

PACE = 1.5
"""Factor within which the time between frames is that of a camera's usual pace."""
ODD = 3
"""Other times in a row that make another pace; a single gap or burst is none."""
SOON = 2
"""The same at the beginning of another view, which may well come at another pace."""


def arrived(state: State, event: FrameArrived) -> State:
    """After a frame: each query that wants it has a job more, in place of one that still waits unless it wants all."""
    camera = state.cameras.get(event.camera)
    if camera is None:  # a camera that no query asks about
        return state
    camera = _with_frame(camera, event)
    queries = dict(state.queries)
    for name, query in state.queries.items():
        if query.spec.camera == event.camera and event.time_ns >= query.next_due_ns:
            queries[name] = _with_job(looked(query, camera), event)
    return replace(state, queries=queries, cameras={**state.cameras, event.camera: camera})


def _with_frame(camera: CameraState, event: FrameArrived) -> CameraState:
    seen = replace(camera, frame=event.frame, arrived_ns=event.time_ns, width=event.width, height=event.height)
    if event.view != camera.view:
        seen = replace(seen, view=event.view, since=event.frame, since_ns=event.time_ns)
    if camera.arrived_ns < 0:
        return seen
    since, usual = event.time_ns - camera.arrived_ns, camera.period_ns
    if not usual or usual < PACE * since < PACE**2 * usual:
        return replace(seen, period_ns=smoothed(usual or None, since), odd_ns=())
    odd = (*camera.odd_ns, since)
    fresh = camera.since > 0 and event.frame - camera.since <= ODD
    if len(odd) < (SOON if fresh else ODD):
        return replace(seen, odd_ns=odd)
    return replace(seen, period_ns=sum(odd) // len(odd), odd_ns=())


def _with_job(query: QueryState, event: FrameArrived) -> QueryState:
    spec = query.spec
    deadline = event.time_ns + spec.deadline_ns
    replaced = 0 if spec.every_frame else len(query.jobs)
    # Whoever waits keeps the place in the queue: with the newest frame's own, a camera could wait for ever.
    turn = deadline if spec.every_frame else query.turn_ns or deadline
    job = Job(spec.name, spec.camera, event.frame, event.time_ns, deadline, turn)
    # A frame that comes a little late must not push all later ones back: the schedule keeps its
    # phase, unless the camera was silent for a whole period.
    phase = query.next_due_ns + spec.period_ns
    next_due = phase if phase > event.time_ns - spec.period_ns // 2 else event.time_ns + spec.period_ns
    return replace(
        query,
        next_due_ns=next_due if spec.period_ns else 0,
        jobs=(*query.jobs, job) if spec.every_frame else (job,),
        turn_ns=turn,
        due=query.due + 1,
        skipped=query.skipped + replaced,
    )
