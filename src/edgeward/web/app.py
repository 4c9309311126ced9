"""The web application over a box: page, REST, WebSocket, metrics, health.

    app = create_app(box)     # any BoxView
    uvicorn.run(app, host="127.0.0.1")

Everything is read-only. `/` is the page, `/api/v1/...` the API, `/metrics` Prometheus text,
`/healthz` says that the process is alive and `/readyz` that it does its work.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from fastapi import FastAPI, Request, Response
from fastapi.responses import FileResponse, JSONResponse
from fastapi.staticfiles import StaticFiles
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from pydantic import BaseModel

from edgeward.errors import EdgewardError
from edgeward.serve.report import BoxReport, BoxView
from edgeward.web.api import api_router
from edgeward.web.live import live_endpoint
from edgeward.web.metrics import metrics_registry
from edgeward.web.security import Guard

__all__ = ["Health", "Readiness", "create_app", "readiness"]

STATIC = Path(__file__).parent / "static"


class Health(BaseModel):
    """The process answers."""

    alive: Literal[True] = True


class Readiness(BaseModel):
    """Whether the box does its work, and if not, why."""

    ready: bool
    status: str
    detail: str


def readiness(report: BoxReport) -> Readiness:
    """Ready means: running, and at least one camera delivers frames or has delivered all it had."""
    delivering = sum(camera.status in ("live", "ended") for camera in report.cameras)
    detail = f"box is {report.status}, {delivering} of {len(report.cameras)} cameras deliver"
    troubles = [
        f"{camera.name}: {camera.detail or camera.status}" for camera in report.cameras if camera.status != "live"
    ]
    return Readiness(
        ready=report.status == "running" and delivering > 0,
        status=report.status,
        detail="; ".join([detail, *troubles[:5]]),
    )


def create_app(box: BoxView, bound_host: str = "127.0.0.1") -> FastAPI:
    """The application over `box`, which answers requests that name a loopback host or `bound_host`."""
    # The interactive docs of FastAPI load scripts from the net, which an offline box must not need.
    app = FastAPI(
        title="edgeward",
        version="1",
        summary="Read-only API of an edgeward box",
        openapi_url="/api/v1/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.add_middleware(Guard, bound_host=bound_host)
    app.add_exception_handler(EdgewardError, _refusal)
    app.include_router(api_router(box))
    app.add_api_websocket_route("/api/v1/live", live_endpoint(box))
    _add_operations(app, box)

    @app.get("/", include_in_schema=False)
    def page() -> FileResponse:
        """The live page."""
        return FileResponse(STATIC / "index.html", media_type="text/html; charset=utf-8")

    app.mount("/static", StaticFiles(directory=STATIC))
    return app


async def _refusal(_request: Request, error: Exception) -> JSONResponse:
    """What the box could not do, in its own words: a full disk, a damaged store."""
    return JSONResponse({"detail": str(error)}, 503)


def _add_operations(app: FastAPI, box: BoxView) -> None:
    registry = metrics_registry(box)

    text: dict[int | str, dict[str, Any]] = {200: {"content": {"text/plain": {"schema": {"type": "string"}}}}}

    @app.get("/metrics", tags=["operations"], response_class=Response, responses=text)
    def metrics() -> Response:
        """Prometheus text format 0.0.4."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_PLAIN_0_0_4)

    @app.get("/healthz", tags=["operations"])
    def healthz() -> Health:
        """The process is alive; says nothing about cameras."""
        return Health()

    @app.get("/readyz", tags=["operations"], responses={503: {"model": Readiness}})
    def readyz(response: Response) -> Readiness:
        """200 when the box runs and at least one camera delivers, else 503."""
        state = readiness(box.report())
        response.status_code = 200 if state.ready else 503
        return state
