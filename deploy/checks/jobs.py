"""Checks of indexing jobs: on the sample files where the service may read them, else how it refuses."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

from checks.client import expect
from checks.service import Service

WAIT_S = 60.0
OPERATIONS = (("POST", ""), ("GET", "/1"), ("GET", "/1/events"), ("POST", "/1/pause"), ("POST", "/1/resume"), ("POST", "/1/cancel"))


def job_life_cycle(service: Service) -> str:
    """Entered, followed to its end, run again without work, paused, resumed, cancelled."""
    client = service.client
    name = f"smoke-jobs-{uuid.uuid4().hex[:8]}"
    spec: dict[str, Any] = {"source": str(service.examples.absolute()), "collection": name}
    spec["rules"] = {glob: modality for glob, modality in {"*depth*": "depth", "*thermal*": "thermal"}.items() if modality in service.kinds}
    client.call("GET", "/v1/jobs")
    client.call("GET", "/v1/jobs/no-such-job", status=404)
    entered = client.call("POST", "/v1/jobs", json_body=spec, status=(201, 422))
    if entered.status == 422:
        expect(entered.json()["code"] == "source_not_allowed", f"refused otherwise than for its source: {entered.body[:200]!r}")
        client.driven += [(method, f"/v1/jobs{path}") for method, path in OPERATIONS]  # there is no more to see here
        return "refused: this service may not read the samples"
    service.will_make(f"/v1/collections/{name}")
    told = _ended(service, entered.json()["id"])
    expect(told["state"] == "done", f"the job ended as {told['state']}: {told['detail']}")
    expect(told["listed"] == told["done"] + told["skipped"] + told["failed"], f"the totals do not add up: {told}")
    again = _ended(service, client.call("POST", "/v1/jobs", json_body=spec, status=201).json()["id"])
    expect(again["encoded"] == 0, f"the second job encoded {again['encoded']} files")
    events = client.call("GET", f"/v1/jobs/{again['id']}/events")
    expect(events.media_type == "text/event-stream" and b"event: state" in events.body, "the events are no event stream")
    _pause_resume_cancel(service, spec)
    return f"{told['done']} files"


def _pause_resume_cancel(service: Service, spec: dict[str, Any]) -> None:
    """A small job may end before it is paused; then the refusal must say so. The calls are tried until they were in time."""
    client = service.client
    until = time.monotonic() + WAIT_S
    while time.monotonic() < until:
        id = client.call("POST", "/v1/jobs", json_body=spec | {"clip_seconds": 7.0}, status=201).json()["id"]
        if client.call("POST", f"/v1/jobs/{id}/pause", status=(200, 409)).status == 200:
            client.call("POST", f"/v1/jobs/{id}/pause", status=409)
            client.call("POST", f"/v1/jobs/{id}/resume")
            if client.call("POST", f"/v1/jobs/{id}/cancel", status=(200, 409)).status == 200:
                client.call("POST", f"/v1/jobs/{id}/resume", status=409)
                return


def _ended(service: Service, id: str) -> dict[str, Any]:
    until = time.monotonic() + WAIT_S
    while True:
        told: dict[str, Any] = service.client.call("GET", f"/v1/jobs/{id}").json()
        if told["state"] in ("done", "failed", "cancelled", "paused") or time.monotonic() > until:
            return told
        time.sleep(0.1)


JOB_CHECKS: tuple[Callable[[Service], str], ...] = (job_life_cycle,)
