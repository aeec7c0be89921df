"""`dier serve`: what a request may be, what is said of one that cannot be answered, and the real server over HTTP."""

import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pytest
import uvicorn
from PIL import Image

from components.inference import server as server_module
from components.inference.server import Refused, read_images
from pipeline.cli import main
from tests.data.files import digits

SHAPE = (8, 8, 1)
IMAGES = digits()[0][:5, :, :, None]


def npy(array: np.ndarray, **how: bool) -> bytes:
    body = io.BytesIO()
    np.save(body, array, **how)
    return body.getvalue()


def png(image: np.ndarray, form: str = "PNG") -> bytes:
    body = io.BytesIO()
    Image.fromarray(image).save(body, form, lossless=True)
    return body.getvalue()


def as_json(values: object) -> bytes:
    return json.dumps({"inputs": values}).encode()


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (as_json(IMAGES.tolist()), "application/json"),
        (json.dumps({"instances": IMAGES.tolist()}).encode(), "application/json; charset=utf-8"),
        (npy(IMAGES), "application/x-npy"),
    ],
)
def test_batches_come_as_json_or_npy(body: bytes, kind: str) -> None:
    found = read_images(body, kind, SHAPE, 5, False)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, IMAGES)


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "GIF", "WEBP"])
def test_a_picture_is_a_batch_of_one(form: str) -> None:
    found = read_images(png(IMAGES[0, ..., 0], form), f"image/{form.lower()}", SHAPE, 1, False)
    np.testing.assert_array_equal(found, IMAGES[:1])


def test_a_picture_of_another_size_is_fitted_where_the_server_may() -> None:
    large = png(np.repeat(np.repeat(IMAGES[0, ..., 0], 3, 0), 3, 1))
    with pytest.raises(Refused, match=r"is 24x24 pixels .* takes 8x8; dier serve --fit"):
        read_images(large, "image/png", SHAPE, 1, False)
    assert read_images(large, "image/png", SHAPE, 1, True).shape == (1, *SHAPE)


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (as_json([]), "application/json", 400, "there are 0 images"),
        (as_json(3), "application/json", 400, "the images are  where the model takes Nx8x8x1"),
        (as_json(IMAGES[0].tolist()), "application/json", 400, "the images are 8x8x1 where the model takes Nx8x8x1"),
        (as_json((IMAGES + 0.5).tolist()), "application/json", 400, "whole numbers from 0 to 255, not fractions"),
        (as_json((IMAGES.astype(int) - 1).tolist()), "application/json", 400, "the pixels are -1 to 254"),
        (as_json((IMAGES > 0).tolist()), "application/json", 400, "not fractions or true and false"),
        (as_json([[1], [1, 2]]), "application/json", 400, "rows are of different lengths"),
        (as_json(["x"]), "application/json", 400, "something other than numbers"),
        (as_json([10**30]), "application/json", 400, "something other than numbers"),
        (as_json([None]), "application/json", 400, "something other than numbers"),
        (b'{"inputs": [NaN]}', "application/json", 400, "whole numbers"),
        (b'{"images": []}', "application/json", 400, 'a JSON object with "inputs"'),
        (b"[1]", "application/json", 400, 'a JSON object with "inputs"'),
        (b"{", "application/json", 400, "the body is no JSON"),
        (b"\xff", "application/json", 400, "the body is no JSON"),
        (b"[" * 100_000, "application/json", 400, "the body is no JSON"),
        (b'{"inputs": ' + b"[" * 500 + b"1" + b"]" * 500 + b"}", "application/json", 400, "rows are of different lengths"),
        (npy(IMAGES.astype(float)), "application/x-npy", 400, "the array is float64"),
        (npy(np.array([None]), allow_pickle=True), "application/x-npy", 400, "the body is no npy"),
        (npy(IMAGES)[:-1], "application/x-npy", 400, "the body is no npy"),
        (b"", "application/x-npy", 400, "the body is no npy"),
        (npy(IMAGES[..., 0]), "application/x-npy", 400, "the images are 5x8x8 where"),
        (npy(np.repeat(IMAGES, 2, 0)), "application/x-npy", 413, "there are 10 images, more than 5: send fewer at a time"),
        (as_json(IMAGES.tolist() * 2), "application/json", 413, "there are 10 images, more than 5: send fewer at a time"),
        (b"no picture", "image/png", 400, "the body is no picture"),
        (png(IMAGES[0, ..., 0])[:60], "image/png", 400, "cannot read the image that was sent"),
        (
            png(np.stack([IMAGES[0, ..., 0], *IMAGES[1:3, ..., 0]], -1)),
            "image/png",
            400,
            "is 8x8x3 (height, width, channels) where",
        ),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "image/x-eps", 400, "the body is no picture"),
        (as_json(IMAGES.tolist()), "", 415, "no content type"),
        (b"0,1", "text/csv", 415, "content type 'text/csv'"),
    ],
)
def test_what_cannot_be_answered_is_said_in_a_line(body: bytes, kind: str, status: int, says: str) -> None:
    with pytest.raises(Refused, match=re.escape(says)) as found:
        read_images(body, kind, SHAPE, 5, False)
    assert found.value.status == status
    assert len(str(found.value)) < 250
    assert "\n" not in str(found.value)


def test_a_small_file_of_very_many_pixels_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "MOST_PIXELS", 999)
    assert read_images(png(np.zeros((27, 37), np.uint8)), "image/png", SHAPE, 1, True).shape == (1, *SHAPE)
    with pytest.raises(Refused, match="100x10 pixels, more than 999") as found:
        read_images(png(np.zeros((10, 100), np.uint8)), "image/png", SHAPE, 1, True)
    assert found.value.status == 413
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 499)  # Pillow refuses twice as many by itself
    with pytest.raises(Refused, match="the picture is more than 999 pixels") as found:
        read_images(png(np.zeros((10, 100), np.uint8)), "image/png", SHAPE, 1, True)
    assert found.value.status == 413


def test_a_picture_of_another_size_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_module, "read_picture", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(Refused, match="is 100x10 pixels where the model takes 8x8; dier serve --fit"):
        read_images(png(np.zeros((10, 100), np.uint8)), "image/png", SHAPE, 1, False)


def test_one_that_lies_on_its_side_is_turned_upright_first() -> None:
    body, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise
    Image.fromarray(np.zeros((8, 12), np.uint8)).save(body, "JPEG", exif=exif)
    assert read_images(body.getvalue(), "image/jpeg", (12, 8, 1), 1, False).shape == (1, 12, 8, 1)


def test_an_address_that_cannot_be_had_is_said_before_the_model_is_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "nobody", "--port", str(port)]) == 2
    assert f"cannot serve at 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err
    assert main(["serve", "nobody", "--host", "no.such.host.invalid", "--port", "0"]) == 2


@pytest.fixture(scope="module")
def server(folders: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, int]]:
    """The real command, at a free port, with a limit of 100 kB; ended by SIGTERM, after which nothing of it is left."""
    temporary = tmp_path_factory.mktemp("temporary")
    command = [sys.executable, "-m", "pipeline.cli", "serve", str(folders / "glyphs"), "--port", "0", "--max-mb", "0.1"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(temporary)})
    assert process.stderr is not None
    for line in process.stderr:
        if found := re.search(r"http://(127\.0\.0\.1):(\d+)/invocations", line):
            break
    else:
        pytest.fail("it ended")
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        yield found[1], int(found[2])
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        drain.join()
    assert not list(temporary.glob("dier-model-*"))


def ask(server: tuple[str, int], path: str, body: bytes | None = None, **headers: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(*server, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request("GET" if body is None else "POST", path, body, named)
    response = connection.getresponse()
    return response.status, response.read().decode()


@pytest.mark.slow
def test_the_server_answers_as_the_model_does_and_goes_on_after_bad_requests(server: tuple[str, int], glyphs: str) -> None:
    expected = mlflow.pyfunc.load_model(glyphs).predict(IMAGES)
    for body, kind, number in (
        (as_json(IMAGES.tolist()), "application/json", 5),
        (npy(IMAGES), "application/x-npy", 5),
        (png(IMAGES[0, ..., 0]), "image/png", 1),
    ):
        status, text = ask(server, "/invocations", body, Content_Type=kind)
        assert status == 200
        found = json.loads(text)["predictions"]
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values[:number], atol=1e-4)
        status, text = ask(server, "/invocations", b"x", Content_Type=kind)
        assert status == 400
        assert json.loads(text).keys() == {"error_code", "message"}
    assert ask(server, "/ping")[0] == ask(server, "/health")[0] == 200
    told = json.loads(ask(server, "/model")[1])
    assert (told["image_shape"], told["class_names"]) == ([8, 8, 1], ["a", "b", "c"])
    assert ask(server, "/invocations")[0] == 405


@pytest.mark.slow
def test_a_body_that_is_too_long_is_refused_whether_its_length_is_said_or_not(server: tuple[str, int]) -> None:
    status, text = ask(server, "/invocations", b"0" * 200_000, Content_Type="application/json")
    assert status == 413
    assert "larger than 0.1 MiB" in json.loads(text)["message"]
    connection = http.client.HTTPConnection(*server, timeout=60)
    pieces = iter([b"0" * 50_000] * 4)
    connection.request("POST", "/invocations", pieces, {"Content-Type": "application/json"}, encode_chunked=True)
    assert connection.getresponse().status == 413


class Broken:
    """A model that fails on black images, and takes two seconds for white ones."""

    shape, metadata = SHAPE, SimpleNamespace(get_input_schema=lambda: None)

    @property
    def pyfunc(self) -> "Broken":
        return self

    def predict(self, images: np.ndarray) -> dict[str, np.ndarray]:
        if not images.any():
            raise ValueError(f"pixels\n{images}")
        time.sleep(2)
        return {}


@pytest.mark.slow
def test_a_model_that_fails_or_takes_too_long_is_said_in_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", "1")
    app = server_module.make_app(Broken(), max_bytes=10_000, max_images=5, fit=False, host="127.0.0.2")  # type: ignore[arg-type]
    running = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        thread = threading.Thread(target=running.run, args=([taken],))
        thread.start()
        for grey, status, says in ((0, 500, "the server's log has the reason"), (255, 504, "it took too long")):
            found = ask(taken.getsockname(), "/invocations", npy(np.full_like(IMAGES, grey)), Content_Type="application/x-npy")
            assert (found[0], says in json.loads(found[1])["message"]) == (status, True)
        running.should_exit = True
        thread.join()
    assert "dier serve: pixels [[[[0]" in capsys.readouterr().err


@pytest.mark.slow
def test_other_pages_of_a_browser_cannot_ask_under_their_own_name(server: tuple[str, int]) -> None:
    assert ask(server, "/model", Host="evil.example")[0] == 400
    assert ask(server, "/model", Host=f"localhost:{server[1]}")[0] == 200


@pytest.mark.slow
def test_many_clients_at_once_are_each_given_their_own_answer(server: tuple[str, int], glyphs: str) -> None:
    expected = mlflow.pyfunc.load_model(glyphs).predict(digits()[0][:64, :, :, None])["embedding"]

    def one(number: int) -> np.ndarray:
        status, text = ask(server, "/invocations", png(digits()[0][number]), Content_Type="image/png")
        assert status == 200
        return np.array(json.loads(text)["predictions"]["embedding"][0])

    with ThreadPoolExecutor(64) as clients:
        np.testing.assert_allclose(list(clients.map(one, range(64))), expected, atol=1e-4)


@pytest.mark.slow
def test_the_way_in_of_mlflow_is_still_what_this_server_replaces_it_for(glyphs: str) -> None:
    """Should MLflow come to refuse these by itself, in a line, the door in front of it may go."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import scoring_server

    model = mlflow.pyfunc.load_model(glyphs)
    schema = model.metadata.get_input_schema()
    half = scoring_server.invocations(as_json((IMAGES * 0 + 0.5).tolist()), "application/json", model, schema)
    black = scoring_server.invocations(as_json((IMAGES * 0).tolist()), "application/json", model, schema)
    assert half.response == black.response
    with pytest.raises(MlflowException) as found:
        scoring_server.invocations(as_json(IMAGES[..., 0].tolist()), "application/json", model, schema)
    assert str(IMAGES[0, 0, 4, 0]) in found.value.message  # the pixels come back, all of them where there are few
    with pytest.raises(AttributeError):
        scoring_server.invocations(as_json(IMAGES.tolist()), None, model, schema)
