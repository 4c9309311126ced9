"""The REST API: what it answers, how it refuses, and that its schema tells the truth."""

from __future__ import annotations

import cv2
import jsonschema
import numpy as np
import pytest
from fastapi.testclient import TestClient
from web_fakebox import CAMERAS, QUERIES, FakeBox

from edgeward.errors import StoreError
from edgeward.serve.report import BoxReport
from edgeward.web.app import create_app, readiness


@pytest.fixture
def box():
    return FakeBox(now=lambda: 620.0)


@pytest.fixture
def client(box):
    with TestClient(create_app(box), base_url="http://localhost:8080") as client:
        yield client


def test_report_is_the_box_report(client, box):
    assert BoxReport.model_validate(client.get("/api/v1/report").json()) == box.report()


@pytest.mark.parametrize("part", ["cameras", "models", "queries"])
def test_parts_are_those_of_the_report(client, part):
    assert client.get(f"/api/v1/{part}").json() == client.get("/api/v1/report").json()[part]


def test_frame_is_a_jpeg_no_wider_than_asked(client):
    answer = client.get("/api/v1/cameras/gate/frame.jpg?max_width=320")
    picture = cv2.imdecode(np.frombuffer(answer.content, np.uint8), cv2.IMREAD_COLOR)
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["cache-control"] == "no-store"
    assert picture.shape == (180, 320, 3)
    assert int(answer.headers["x-frame-index"]) == int(620 * CAMERAS["gate"][2])


def test_annotated_frame_draws_into_the_picture(client):
    plain, drawn = (
        cv2.imdecode(np.frombuffer(client.get(f"/api/v1/cameras/gate/frame.jpg{q}").content, np.uint8), 1).astype(int)
        for q in ("", "?annotated=1")
    )
    assert plain.shape == drawn.shape
    changed = (np.abs(plain - drawn).max(axis=2) > 40).mean()
    assert 0.001 < changed < 0.5


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("/api/v1/cameras/gat/frame.jpg", "did you mean 'gate'?"),
        ("/api/v1/cameras/dock/frame.jpg", "has not delivered a frame"),
        ("/api/v1/queries/gate-peopel/detections", "did you mean 'gate-people'?"),
        ("/api/v1/events/999999/thumbnail.jpg", "event 999999 has no thumbnail"),
        ("/api/v1/nothing", "Not Found"),
    ],
)
def test_what_does_not_exist_is_a_404_in_words(client, path, words):
    answer = client.get(path)
    assert answer.status_code == 404
    assert words in answer.json()["detail"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/cameras/gate/frame.jpg?max_width=0",
        "/api/v1/cameras/gate/frame.jpg?max_width=999999",
        "/api/v1/queries/gate-people/detections?limit=100000",
        "/api/v1/events?limit=-1",
        "/api/v1/timeline?since_seconds=nan",
    ],
)
def test_values_out_of_range_are_refused(client, path):
    assert client.get(path).status_code == 422


def test_a_refusal_of_the_box_is_told_in_its_words(client, box, monkeypatch):
    def refuse(*_):
        raise StoreError("results.db is damaged; move it away and start again")

    monkeypatch.setattr(box, "detections", refuse)
    answer = client.get("/api/v1/queries/gate-people/detections")
    assert (answer.status_code, answer.json()["detail"]) == (503, "results.db is damaged; move it away and start again")


def test_paging_through_detections_meets_every_record_once(client):
    one = client.get("/api/v1/queries/gate-people/detections?limit=60").json()
    paged: list[dict] = []
    while len(paged) < 60:
        before = f"&before_at={paged[-1]['at']}" if paged else ""
        paged += client.get(f"/api/v1/queries/gate-people/detections?limit=20{before}").json()
    assert paged == one


def test_paging_through_events_meets_every_event_once(client):
    ids: list[int] = []
    while page := client.get(f"/api/v1/events?limit=40{f'&before_id={ids[-1]}' if ids else ''}").json():
        ids += [event["id"] for event in page]
    assert ids == list(range(155, 0, -1))


def test_timeline_gives_spans_that_ended_after(client):
    spans = client.get("/api/v1/timeline?since_seconds=615").json()
    assert spans
    assert all(615 < span["start_seconds"] + span["seconds"] <= 620 for span in spans)


def test_every_answer_fits_the_published_schema(client):
    schema = client.get("/api/v1/openapi.json").json()
    assert schema["openapi"].startswith("3.")
    paths = {path: methods["get"] for path, methods in schema["paths"].items()}
    assert all(set(methods) == {"get"} for methods in schema["paths"].values()), "the API only reads"
    checked = 0
    for path, operation in paths.items():
        answer = client.get(path.format(name=QUERIES[0][0] if "queries" in path else "gate", event_id=2))
        content = operation["responses"]["200"]["content"]
        assert answer.status_code == 200, path
        if "application/json" in content:
            shape = {**content["application/json"]["schema"], "components": schema["components"]}
            jsonschema.Draft202012Validator(shape).validate(answer.json())
            checked += 1
    assert checked >= 8


def test_alive_and_ready(client, box):
    assert client.get("/healthz").json() == {"alive": True}
    assert client.get("/readyz").status_code == 200
    box.status = "starting"
    answer = client.get("/readyz")
    assert (answer.status_code, answer.json()["ready"]) == (503, False)
    assert "box is starting, 3 of 4 cameras deliver" in answer.json()["detail"]
    assert client.get("/healthz").status_code == 200


def test_not_ready_without_a_camera_and_the_reason_is_told(box):
    box.down = set(CAMERAS)
    state = readiness(box.report())
    assert not state.ready
    assert "gate: Connection refused" in state.detail


def test_page_asks_for_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    scripts = ["main", "live", "cameras", "timeline", "panels", "events", "util", "theme"]
    for path in ["/", "/static/style.css", *(f"/static/{name}.js" for name in scripts)]:
        text = client.get(path).text
        assert "://" not in text.replace("http://www.w3.org/2000/svg", "").replace("${scheme}//", ""), path
        assert "innerHTML" not in text
        assert " style=" not in text
        assert " onclick=" not in text
