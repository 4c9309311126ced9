"""The read-only REST API under /api/v1.

    GET /api/v1/report                                the whole box
    GET /api/v1/cameras/gate/frame.jpg?annotated=1    a picture with what was found
    GET /api/v1/queries/people/detections?limit=100   stored results, newest first

Every unknown name is a 404 whose `detail` names the nearest known one. The schema is at
/api/v1/openapi.json.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Path, Query, Response
from pydantic import BaseModel, Field

from edgeward.errors import MissingExtra, nearest
from edgeward.serve.report import (
    BoxReport,
    BoxView,
    CameraReport,
    EventItem,
    LiveFrame,
    ModelReport,
    QueryReport,
    Span,
)

__all__ = ["ClassificationResult", "DetectionRecord", "DetectionsResult", "EmbeddingResult", "Problem", "api_router"]

JPEG: dict[int | str, dict[str, Any]] = {
    200: {"content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}}, "description": "JPEG"}
}
Name = Annotated[str, Path(max_length=200)]


class Problem(BaseModel):
    """What went wrong, in words."""

    detail: str


class DetectionsResult(BaseModel):
    """Boxes of one frame: pixels of the original frame, x1 y1 x2 y2. tracker_id -1 is not in a track yet."""

    xyxy: list[tuple[float, float, float, float]]
    confidence: list[float]
    class_id: list[int]
    tracker_id: list[int] | None = None


class ClassificationResult(BaseModel):
    """The best classes of one frame and their confidences, most likely first."""

    class_id: list[int]
    top: list[float]


class EmbeddingResult(BaseModel):
    """One frame as a unit vector."""

    vector: list[float]


class DetectionRecord(BaseModel):
    """One stored result. `at` is what `before_at` takes to page on."""

    at: float
    frame_index: int
    result: DetectionsResult | ClassificationResult | EmbeddingResult = Field(union_mode="left_to_right")


NOT_FOUND: dict[int | str, dict[str, Any]] = {404: {"model": Problem, "description": "No such thing"}}


def api_router(box: BoxView) -> APIRouter:
    """Routes that read `box`; handlers run in worker threads, so a slow one holds up nobody else."""
    router = APIRouter(prefix="/api/v1", responses=NOT_FOUND)
    _add_box_routes(router, box)
    _add_camera_routes(router, box)
    _add_query_routes(router, box)
    _add_event_routes(router, box)
    return router


def _add_box_routes(router: APIRouter, box: BoxView) -> None:
    @router.get("/report", tags=["box"])
    def report() -> BoxReport:
        """The whole box at this moment."""
        return box.report()

    @router.get("/models", tags=["box"])
    def models() -> tuple[ModelReport, ...]:
        """Every model: where its weights are and what it costs."""
        return box.report().models

    @router.get("/timeline", tags=["box"])
    def timeline(since_seconds: Annotated[float, Query(allow_inf_nan=False)] = 0.0) -> list[Span]:
        """What processor and loader did: spans that ended after `since_seconds`, oldest first (two minutes kept)."""
        return box.timeline(since_seconds)


def _add_camera_routes(router: APIRouter, box: BoxView) -> None:
    @router.get("/cameras", tags=["cameras"])
    def cameras() -> tuple[CameraReport, ...]:
        """Every camera and how it is doing."""
        return box.report().cameras

    @router.get("/cameras/{name}/frame.jpg", tags=["cameras"], response_class=Response, responses=JPEG)
    def frame(
        name: Name,
        max_width: Annotated[int, Query(ge=16, le=4096)] = 960,
        annotated: Annotated[bool, Query(description="draw boxes, tracks and zones into the picture")] = False,
    ) -> Response:
        """The newest picture of a camera; header X-Frame-Index counts its frames."""
        try:
            live = box.live_frame(name, -1, max_width)
        except KeyError:
            raise _unknown("camera", name, (camera.name for camera in box.report().cameras)) from None
        if live is None:
            raise HTTPException(404, f"camera {name!r} has not delivered a frame yet; see its 'detail' in the report")
        content = _annotated(live) if annotated else live.jpeg
        return Response(content, media_type="image/jpeg", headers=_fresh({"x-frame-index": str(live.frame_index)}))


def _add_query_routes(router: APIRouter, box: BoxView) -> None:
    @router.get("/queries", tags=["queries"])
    def queries() -> tuple[QueryReport, ...]:
        """Every query: how many frames it asked for and what became of them."""
        return box.report().queries

    @router.get("/queries/{name}/detections", tags=["queries"])
    def detections(
        name: Name,
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        before_at: Annotated[float | None, Query(allow_inf_nan=False)] = None,
    ) -> list[DetectionRecord]:
        """Stored results, newest first; give the last record's `at` as `before_at` for the next page."""
        try:
            records = box.detections(name, limit, before_at)
        except KeyError:
            raise _unknown("query", name, (query.name for query in box.report().queries)) from None
        return [DetectionRecord.model_validate(record) for record in records]


def _add_event_routes(router: APIRouter, box: BoxView) -> None:
    @router.get("/events", tags=["events"])
    def events(
        limit: Annotated[int, Query(ge=1, le=500)] = 50,
        before_id: Annotated[int | None, Query(ge=0)] = None,
    ) -> list[EventItem]:
        """What is worth telling a person, newest first; give the last id as `before_id` for the next page."""
        return box.events(limit, before_id)

    @router.get("/events/{event_id}/thumbnail.jpg", tags=["events"], response_class=Response, responses=JPEG)
    def thumbnail(event_id: int) -> Response:
        """The picture that belongs to an event."""
        jpeg = box.thumbnail(event_id)
        if jpeg is None:
            raise HTTPException(404, f'event {event_id} has no thumbnail; those that do say "thumbnail": true')
        return Response(jpeg, media_type="image/jpeg", headers={"cache-control": "private, max-age=3600"})


def _unknown(kind: str, name: str, known: Iterable[str]) -> HTTPException:
    return HTTPException(404, f"no {kind} {name[:80]!r}; {nearest(name, known)}")


def _fresh(headers: dict[str, str]) -> dict[str, str]:
    return {"cache-control": "no-store", **headers}


def _annotated(live: LiveFrame) -> bytes:
    """Drawing needs OpenCV; everything else here works without it."""
    try:
        from edgeward.web.picture import annotated
    except ModuleNotFoundError:
        raise MissingExtra("opencv-python-headless", "video") from None
    return annotated(live)
