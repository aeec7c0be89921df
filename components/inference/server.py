"""`dier serve`: a registered model over HTTP, by MLflow's own scoring server with a door in front of it.

MLflow's app (mlflow/pyfunc/scoring_server/__init__.py, `init`) answers /ping, /health and /version and ends what takes too long;
questions and answers have its form. Its way in is replaced, for it reads bodies of any size, cuts 0.5 to the pixel 0, answers 500
where the content type is missing, and puts all pixels that it got, or a traceback, into the message of an error. Here a request is
held to a size, may be a picture or an npy as well, and what is wrong with it is one line.
"""

import io
import json
import sys
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from components.common.progress import say
from components.inference import listen
from components.inference.registered_model import RegisteredModel, load
from data.errors import DataError
from data.named_images import Shape, read_picture
from data.sources.folder import FORMATS

if TYPE_CHECKING:
    from fastapi import FastAPI, Request
    from fastapi.responses import Response

Images = npt.NDArray[np.uint8]

JSON, NPY, PICTURE = "application/json", "application/x-npy", "image/"
KEYS = ("inputs", "instances")
"""Of MLflow's protocol; for images they mean the same."""
MOST_PIXELS = 2**26
"""Of a picture: 8192 a side. A small file may hold many."""
CONNECTIONS = 128
"""At a time; above, the answer is 503. So many bodies of 16 MiB are 2 GiB, while they wait."""
THREADS = 2
"""Requests that are worked on at a time: one computes, on all cores, while another is read or its answer written. The others wait.

Each may hold the most that a request makes: lists of Python's, 30 bytes for each of a body of JSON, or an answer, 75 bytes for each
of its numbers. After a 504 the work goes on to its end, in its place: how long that can be, `max_images` says.
"""


class Refused(Exception):
    """A request that is not answered: the status and a line that says why."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


def serve(model: str, *, host: str, port: int, max_mb: float, max_images: int, fit: bool) -> None:
    """Serve until a signal ends it. `port` 0 takes a free one. Raises SettingsError for a model or address that cannot be had."""
    with listen.bind(host, port) as taken:
        loaded = load(model)
        app = make_app(loaded, max_bytes=int(max_mb * 2**20), max_images=max_images, fit=fit, host=host)
        taken.listen(CONNECTIONS)  # whoever reads the next line may ask at once
        say(f"{loaded.shown} at {listen.url(host, taken)}/invocations")
        if not listen.is_loopback(host):
            say("anyone who reaches this address may ask: there is no login; put one in front (docs/using.md)")
        listen.run(app, taken, CONNECTIONS)


def make_app(model: RegisteredModel, *, max_bytes: int, max_images: int, fit: bool, host: str) -> "FastAPI":
    """MLflow's app with this module's way in, at `host`; of a loopback one see `listen.guard`."""
    from anyio import CapacityLimiter, to_thread
    from fastapi import FastAPI, Request
    from fastapi.responses import Response
    from mlflow.pyfunc import scoring_server

    app: FastAPI = scoring_server.init(model.pyfunc)
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/invocations"]
    shape, at_once = model.shape, CapacityLimiter(THREADS)

    def answer(body: bytes, content_type: str) -> str:
        found = model.predict(read_images(body, content_type, shape, max_images, fit))
        # the bytes of MLflow's predictions_to_json, in half its time: dumps is C where dump is Python
        return json.dumps({"predictions": {name: values.tolist() for name, values in found.items()}})

    @app.post("/invocations")
    async def invocations(request: Request) -> Response:
        try:
            body = await _body(request, max_bytes)
            kind = request.headers.get("content-type", "")
            text = await to_thread.run_sync(answer, body, kind, limiter=at_once)
            return Response(text, media_type=JSON)
        except Refused as refused:
            return _error(Response, refused.status, str(refused))
        except Exception as error:  # the model's own: not the request's fault, and no traceback in the answer
            print(f"dier serve: {' '.join(str(error).split())[:300]}", file=sys.stderr)
            return _error(Response, 500, "the model failed on these images; the server's log has the reason")

    @app.get("/model")
    async def about() -> dict[str, Any]:
        return model.record()

    @app.middleware("http")
    async def in_time(request: Request, follow: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await follow(request)
        if response.status_code == 504:  # MLflow's says that it is JSON, and is not
            return _error(Response, 504, "it took too long: send fewer images at a time, or see dier serve --max-images")
        return response

    listen.guard(app, host)
    return app


def read_images(body: bytes, content_type: str, shape: Shape, most: int, fit: bool) -> Images:
    """The images (N, H, W, C) of a request, 0 < N <= `most`. Raises Refused, with a status of 400, 413 or 415."""
    kind = content_type.partition(";")[0].strip().lower()
    readers: dict[str, Callable[[bytes], Images]] = {JSON: _of_json, NPY: _of_npy}
    if kind.startswith(PICTURE):
        return _of_picture(body, shape, fit)
    if kind not in readers:
        said = f"content type {kind!r}" if kind else "no content type"
        raise Refused(415, f"{said}: send {JSON} with {KEYS[0]!r}, {NPY}, or one picture as image/png, image/jpeg, ...")
    images = readers[kind](body)
    takes = "x".join(map(str, shape))
    if images.ndim and not len(images):
        raise Refused(400, f"there are 0 images: send at least one of {takes}")
    if images.ndim != 4 or images.shape[1:] != shape:
        found = "x".join(map(str, images.shape))
        raise Refused(400, f"the images are {found} where the model takes Nx{takes} (number, height, width, channels)")
    if len(images) > most:
        raise Refused(
            413, f"there are {len(images)} images, more than {most}: send fewer at a time, or raise dier serve --max-images"
        )
    return images


def _of_json(body: bytes) -> Images:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise Refused(400, f"the body is no JSON: {str(error)[:100]}") from error
    given = [key for key in KEYS if isinstance(content, dict) and key in content]
    if len(given) != 1:
        raise Refused(400, f'the body must be a JSON object with "{KEYS[0]}": a list of images, each rows of pixels of channels')
    try:
        values = np.asarray(content[given[0]])
    except (ValueError, OverflowError, TypeError, RecursionError):
        values = np.empty(0, object)
    if values.dtype.kind == "O" or (values.dtype.kind not in "iu" and values.size):
        why = "the rows are of different lengths, or hold something other than numbers" if values.dtype.kind not in "fb" else ""
        raise Refused(400, why or "the pixels must be whole numbers from 0 to 255, not fractions or true and false")
    if values.size and not 0 <= int(values.min()) <= int(values.max()) <= 255:
        raise Refused(400, f"the pixels are {int(values.min())} to {int(values.max())}: they must be whole numbers from 0 to 255")
    return values.astype(np.uint8)


def _of_npy(body: bytes) -> Images:
    try:
        images = np.load(io.BytesIO(body), allow_pickle=False)
    except Exception as error:  # numpy's reader raises of every kind
        raise Refused(400, f"the body is no npy: {str(error)[:100] or type(error).__name__}") from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8:
        raise Refused(400, f"the array is {getattr(images, 'dtype', 'of several')}: images must be one array of uint8")
    return images


def _of_picture(body: bytes, shape: Shape, fit: bool) -> Images:
    try:
        with PIL.Image.open(io.BytesIO(body), formats=FORMATS) as head:
            width, height = head.size
        if width * height > MOST_PIXELS:
            raise Refused(413, f"the picture is {width}x{height} pixels, more than {MOST_PIXELS}: send a smaller one")
        if not fit and sorted(head.size) != sorted(shape[:2]):  # before all its pixels are read; upright it may lie the other way
            raise Refused(
                400, f"the picture is {width}x{height} pixels where the model takes {shape[1]}x{shape[0]}; dier serve --fit"
            )
        return read_picture(io.BytesIO(body), shape, fit_shape=fit, name="that was sent")[None]
    except PIL.Image.DecompressionBombError as error:  # Pillow looks before its size can be asked for
        raise Refused(413, f"the picture is more than {MOST_PIXELS} pixels: send a smaller one") from error
    except DataError as error:
        raise Refused(400, str(error).replace("; --fit", "; dier serve --fit")) from error
    except (OSError, ValueError, SyntaxError) as error:
        raise Refused(400, "the body is no picture (png, jpeg, bmp, gif, tiff, webp)") from error


async def _body(request: "Request", most: int) -> bytes:
    """The body, given up on as soon as it is too long. Raises Refused."""
    too_long = Refused(
        413, f"the body is larger than {most / 2**20:.3g} MiB: send fewer images at a time, or raise dier serve --max-mb"
    )
    if int(request.headers.get("content-length") or 0) > most:
        raise too_long
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > most:
            raise too_long
    return bytes(body)


def _error(response: "type[Response]", status: int, message: str) -> "Response":
    """In the form of MLflow's own errors."""
    codes = {413: "REQUEST_LIMIT_EXCEEDED", 500: "INTERNAL_ERROR", 504: "DEADLINE_EXCEEDED"}
    code = codes.get(status, "BAD_REQUEST")
    return response(json.dumps({"error_code": code, "message": message}), status, media_type=JSON)
