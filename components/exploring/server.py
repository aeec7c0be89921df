"""`dier explore`: a page to look around in embeddings, for a browser on this machine.

FastAPI and uvicorn are here with MLflow, `dier serve` uses them, and their check of the Host header is needed here as well; with
Python's http.server it and the types of paths would be ours to write. The page is canvas, SVG and plain JavaScript: the Vega that
DVC's plots carry is 0.9 MB, makes functions of text, which the page's policy would have to allow, and hovering is all it has ready.
"""

import io
import json
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from components.common.progress import say
from components.exploring.explored import Explored, open_explored
from components.exploring.maps import Maps, maps_of
from components.inference import listen
from components.reporting.maps import MARKERS, MUTED
from data.errors import DataError
from data.transform import to_picture

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONNECTIONS = 64
"""At a time; a browser opens six."""
PAGE = {
    "": ("index.html", "text/html; charset=utf-8"),
    "explore.css": ("explore.css", "text/css; charset=utf-8"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    **{name: (name, "text/javascript; charset=utf-8") for name in ("explore.js", "map.js", "curve.js", "legend.js")},
}
"""What is served from page/, by its path: nothing is looked up by a name that was sent."""
HEADERS = {
    # the page runs its own scripts alone, asks this server alone, and stands in no other page
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",  # no other site's page may show the images
    "Cache-Control": "no-store",  # another set may be at this address tomorrow
}


def explore(
    *,
    embeddings: Path,
    dataset: Path | None,
    probe: Path | None,
    split: str | None,
    points: int,
    neighbours: int,
    host: str,
    port: int,
    cache: Path,
) -> None:
    """Serve the page until a signal ends it.

    Raises SettingsError for an address that cannot be had or a split that is not there, ArtifactError for damaged artifacts.
    """
    with listen.bind(host, port) as taken:
        explored = open_explored(embeddings, dataset, probe, split, points)
        app = make_app(explored, maps_of(explored, cache), k=neighbours, host=host)
        taken.listen(CONNECTIONS)
        say(f"{explored.dataset.info.name} ({explored.split.name}) at {listen.url(host, taken)}/ until Ctrl-C")
        if not listen.is_loopback(host):
            say("anyone who reaches this address sees the images: there is no login; put one in front (docs/using.md)")
        listen.run(app, taken, CONNECTIONS)


def make_app(explored: Explored, maps: Maps, *, k: int, host: str) -> "FastAPI":
    """The page and what it asks for, at `host`; of a loopback one see `listen.guard`."""
    from anyio import Lock, to_thread
    from fastapi import FastAPI, HTTPException, Request
    from fastapi.responses import Response

    app = FastAPI(openapi_url=None)  # without the pages on its API, which load scripts from elsewhere
    content = json.dumps(page_data(explored, maps, k), separators=(",", ":"), allow_nan=False)
    page = {path: (files("components.exploring").joinpath("page", name).read_bytes(), kind) for path, (name, kind) in PAGE.items()}

    searching = Lock()  # all embeddings are read for an answer: of several questions one at a time

    def checked(row: int) -> int:
        if not 0 <= row < len(explored.split):
            raise HTTPException(404, f"no image {row}: they go from 0 to {len(explored.split) - 1}")
        return row

    @app.get("/data.json")
    def data() -> Response:
        return Response(content, media_type="application/json")

    @app.get("/image/{row}.png")
    def image(row: int) -> Response:
        return Response(as_png(explored.split.images[checked(row)]), media_type="image/png")

    @app.get("/neighbours/{t}/{row}.json")
    async def neighbours(request: Request, t: int, row: int) -> Response:
        if t not in explored.vectors:
            raise HTTPException(404, f"no embeddings at t = {t}")
        checked(row)
        async with searching:
            if await request.is_disconnected():  # called off while it waited
                return Response(status_code=204)
            found = await to_thread.run_sync(explored.neighbours, row, t, k)
        return Response(json.dumps(found), media_type="application/json")

    @app.get("/{path:path}")
    def static(path: str) -> Response:
        if path not in page:
            raise HTTPException(404, "no such page")
        body, kind = page[path]
        return Response(body, media_type=kind)

    @app.exception_handler(DataError)
    async def damaged(_: Request, error: DataError) -> Response:
        return Response(json.dumps({"detail": str(error)}), 500, media_type="application/json")

    app.add_middleware(_WithHeaders)
    listen.guard(app, host)
    return app


class _WithHeaders:
    """Puts HEADERS on every answer. Within `app.middleware`, the shorter way, is_disconnected never sees that someone has gone."""

    def __init__(self, app: "ASGIApp") -> None:
        self._app = app

    async def __call__(self, scope: "Scope", receive: "Receive", send: "Send") -> None:
        from starlette.datastructures import MutableHeaders

        async def with_headers(message: "Message") -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        await self._app(scope, receive, with_headers)


def page_data(explored: Explored, maps: Maps, k: int) -> dict[str, Any]:
    """All that the page shows but images and neighbours; `maps` is x and y by turns, a list a timestep."""
    info, split = explored.dataset.info, explored.split
    return {
        "dataset": info.name,
        "licence": info.licence,
        "split": split.name,
        "count": len(split),
        "neighbours": k,
        "rows": explored.rows.tolist(),
        "labels": [explored.label(row) for row in explored.rows.tolist()],
        "palette": {"colours": MUTED, "shapes": MARKERS},
        "colourings": [asdict(colouring) for colouring in explored.colourings()],
        "timesteps": explored.timesteps,
        "chosen": explored.chosen,
        "maps": [np.round(places.astype(float), 4).ravel().tolist() for places in maps.values()],
        "curve": explored.curve(),
    }


def as_png(image: npt.NDArray[np.uint8]) -> bytes:
    """An image (H, W, C) uint8, C 1 or 3, as PNG."""
    body = io.BytesIO()
    to_picture(image).save(body, "PNG")
    return body.getvalue()
