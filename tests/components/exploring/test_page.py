"""`dier explore`: the real command over HTTP, and its page in a real browser."""

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

import numpy as np
import pytest
import uvicorn
from PIL import Image

from components.exploring.explored import Explored, open_explored
from components.exploring.server import make_app
from pipeline.cli import main
from tests.components.exploring.artifacts import make
from tests.components.exploring.browser import Browser, binary
from tests.data.files import digits

pytestmark = pytest.mark.slow

IMAGES, NUMBERS = (values[30:120] for values in digits())
"""Those of val."""
SHOWN, NEIGHBOURS = 60, 5


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its address; ended by SIGTERM."""
    folder = tmp_path_factory.mktemp("explore")
    command = [sys.executable, "-m", "pipeline.cli", "explore", "--embeddings", str(make(folder)), "--port", "0"]
    command += ["--points", str(SHOWN), "-k", str(NEIGHBOURS), "--cache", str(folder / "cache")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(folder)})
    assert process.stderr is not None
    said = []
    for line in process.stderr:
        said.append(line)
        if found := re.search(r"at (http://127\.0\.0\.1:\d+)/ until", line):
            break
    else:
        pytest.fail("".join(said))
    drain = threading.Thread(target=process.stderr.read)
    drain.start()
    try:
        yield found[1]
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 143
        drain.join()


def ask(server: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection(server.removeprefix("http://"), timeout=60)
    connection.request("GET", path, headers=headers)
    response = connection.getresponse()
    return response.status, response.read(), dict(response.getheaders())


def test_images_are_those_of_the_split(server: str) -> None:
    for row in (0, 89):
        status, body, headers = ask(server, f"/image/{row}.png")
        assert (status, headers["content-type"]) == (200, "image/png")
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(body))), IMAGES[row])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/image/90.png", 404),
        ("/image/-1.png", 404),
        ("/image/" + "9" * 40 + ".png", 404),
        ("/image/one.png", 422),
        ("/image/..%2f..%2fdataset.json.png", 404),
        ("/neighbours/300/90.json", 404),
        ("/neighbours/301/1.json", 404),
        ("/explored.py", 404),
        ("/../server.py", 404),
        ("/page/explore.js", 404),
        ("/..%2fserver.py", 404),
        ("/docs", 404),
        ("/openapi.json", 404),
    ],
)
def test_nothing_but_the_page_its_images_and_neighbours_is_served(server: str, path: str, status: int) -> None:
    assert ask(server, path)[0] == status


def test_other_sites_can_neither_ask_nor_be_asked(server: str) -> None:
    assert ask(server, "/data.json", Host="evil.example")[0] == 400
    for path in ("/", "/explore.js", "/data.json", "/image/0.png", "/image/99.png"):
        headers = ask(server, path)[2]
        assert headers["content-security-policy"].startswith("default-src 'none'; script-src 'self';")
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_an_address_that_is_taken_is_said_before_anything_is_read(server: str, capsys: pytest.CaptureFixture[str]) -> None:
    port = server.rpartition(":")[2]
    assert main(["explore", "--embeddings", "nowhere", "--port", port]) == 2
    assert f"cannot serve at 127.0.0.1:{port}: Address already in use" in capsys.readouterr().err


def test_one_question_about_neighbours_is_answered_at_a_time_and_none_that_was_called_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explored = open_explored(make(tmp_path), None, None, None, 10)
    begun, at_once, go_on = [], [], threading.Event()

    def slow(_: Explored, row: int, t: int, k: int) -> list[int]:
        begun.append(row)
        at_once.append(row)
        go_on.wait(60)
        assert at_once == [row]
        at_once.remove(row)
        return [row]

    monkeypatch.setattr(Explored, "neighbours", slow)
    maps = {t: np.zeros((10, 2), np.float32) for t in explored.timesteps}
    running = uvicorn.Server(uvicorn.Config(make_app(explored, maps, k=3, host="127.0.0.2"), log_level="warning"))
    with socket.socket() as taken, ThreadPoolExecutor(4) as pool:
        taken.bind(("127.0.0.2", 0))
        taken.listen()
        pool.submit(running.run, [taken])
        url = f"http://127.0.0.2:{taken.getsockname()[1]}"
        first = pool.submit(ask, url, "/neighbours/300/0.json")
        while not begun:
            time.sleep(0.01)
        gone = http.client.HTTPConnection(*taken.getsockname())
        gone.request("GET", "/neighbours/300/1.json")
        time.sleep(0.3)
        gone.close()
        others = [pool.submit(ask, url, f"/neighbours/300/{row}.json") for row in (2, 3)]
        time.sleep(0.3)
        assert begun == [0]
        go_on.set()
        assert [json.loads(one.result()[1]) for one in (first, *others)] == [[0], [2], [3]]
        running.should_exit = True
    assert sorted(begun) == [0, 2, 3]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = binary()
    if program is None:
        pytest.skip("no Chromium on PATH: apt-get install chromium-headless-shell")
    opened = Browser(program, tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


@pytest.fixture
def page(server: str, browser: Browser) -> Iterator[Browser]:
    """The page, opened anew; whatever a test does on it, nothing may go wrong and nothing be asked of anyone else."""
    browser.events.clear()
    browser.open(f"{server}/", "document.title.includes('dier explore') && globalThis.explored?.map.styles !== undefined")
    yield browser
    browser.js("new Promise((done) => setTimeout(done, 50))")
    assert browser.complaints() == []
    assert browser.requested()
    assert [url for url in browser.requested() if not url.startswith(f"{server}/")] == []


def place(page: Browser, point: int) -> tuple[float, float]:
    """Where a point of the map is in the window."""
    left, top = page.js("(() => { const { x, y } = document.getElementById('map').getBoundingClientRect(); return [x, y]; })()")
    x, y = page.js(f"explored.map.onScreen({point})")
    return left + x, top + y


def text(page: Browser, name: str) -> str:
    return str(page.js(f"document.getElementById('{name}').textContent"))


def shown_rows(page: Browser) -> list[int]:
    """The images of the list of neighbours, the one that was asked about first."""
    found = page.js("[...document.querySelectorAll('#neighbours img')].map((image) => image.src)")
    return [int(re.search(r"/image/(\d+)\.png$", source)[1]) for source in found]  # type: ignore[index]


def rows_of(page: Browser) -> list[int]:
    return list(page.js("explored.data.rows"))


def nearest(server: str, row: int, t: int) -> list[int]:
    """As the server has them, which tests/components/exploring/test_explored.py holds to comparing all."""
    return [one["row"] for one in json.loads(ask(server, f"/neighbours/{t}/{row}.json")[1])]


def test_it_opens_at_the_chosen_t_and_says_that_it_shows_a_sample(page: Browser) -> None:
    assert text(page, "t-shown") == "t = 300 (chosen)"
    assert "60 of the 90 images of val, drawn at random" in text(page, "about")
    assert text(page, "title") == "glyphs <b>"  # names are text, never markup
    assert "t = 300: 80.0 % [70.0 %, 90.0 %]. On test, at the chosen t: 80.00 % [70.00, 90.00]." in text(page, "reading")
    assert "t = 999: 60.0 %" in page.js("document.getElementById('curve').getAttribute('aria-label')")


def test_the_slider_moves_the_points_and_the_mark_on_the_curve(page: Browser) -> None:
    before = place(page, 0), page.js("document.querySelector('#curve g line').getAttribute('x1')")
    page.js("document.getElementById('t').focus()")
    page.key("ArrowRight")
    page.wait("document.getElementById('t-shown').textContent === 't = 999'")
    assert place(page, 0) != before[0]
    assert page.js("[...explored.map.places].every((value, i) => value === explored.data.maps[2][i])")
    assert float(page.js("document.querySelector('#curve g line').getAttribute('x1')")) > float(before[1])
    assert "t = 999: 60.0 % [50.0 %, 70.0 %]" in text(page, "reading")


def test_a_click_on_the_curve_moves_the_slider(page: Browser) -> None:
    box = page.js(
        "(() => { const b = document.querySelector('.stop').getBoundingClientRect(); return [b.x + b.width / 2, b.y + 9]; })()"
    )
    page.click(*box)
    page.wait("document.getElementById('t-shown').textContent === 't = 0'")
    assert page.js("document.getElementById('t').value") == "0"


def test_hovering_a_point_shows_its_image(page: Browser) -> None:
    assert page.js("document.getElementById('tip').hidden")
    page.hover(*place(page, 7))
    page.wait("!document.getElementById('tip').hidden && document.querySelector('#tip img').complete")
    row = rows_of(page)[7]
    source, width = page.js("(() => { const i = document.querySelector('#tip img'); return [i.src, i.naturalWidth]; })()")
    assert source.endswith(f"/image/{row}.png")
    assert width == 8
    assert page.js("document.querySelector('#tip figcaption').textContent") == f"image {row}: {NUMBERS[row]}"
    page.hover(1, 1)
    page.wait("document.getElementById('tip').hidden")


def test_clicking_a_point_shows_its_neighbours_and_a_neighbour_its_own(page: Browser, server: str) -> None:
    page.click(*place(page, 7))
    page.wait(f"document.querySelectorAll('#neighbours img').length === {NEIGHBOURS + 1}")
    row = rows_of(page)[7]
    expected = nearest(server, row, 300)
    assert shown_rows(page) == [row, *expected]
    on_map = [rows_of(page).index(one) for one in expected if one in rows_of(page)]
    assert page.js("explored.map.near") == on_map
    page.js("document.querySelectorAll('#neighbours button')[1].click()")
    page.wait(f"explored.row === {expected[0]} && document.getElementById('found-title').textContent.includes('{expected[0]} at')")
    assert shown_rows(page) == [expected[0], *nearest(server, expected[0], 300)]


def test_neighbours_follow_the_slider(page: Browser, server: str) -> None:
    page.click(*place(page, 3))
    page.wait("document.querySelectorAll('#neighbours img').length > 0")
    page.js("document.getElementById('t').focus()")
    page.key("ArrowRight")
    page.wait("document.getElementById('found-title').textContent.endsWith('t = 999, by cosine')")
    row = rows_of(page)[3]
    assert shown_rows(page) == [row, *nearest(server, row, 999)]
    # while it moves nothing is asked; and a question that another overtakes is called off
    page.events.clear()
    moved = "(n) => { slider.value = n; slider.dispatchEvent(new Event('input')); }"
    page.js(f"{{ const slider = document.getElementById('t'); [0, 1, 2, 0].forEach({moved}); }}")
    page.wait("document.getElementById('found-title').textContent.endsWith('t = 0, by cosine')")
    assert [url for url in page.requested() if "/neighbours/" in url] == [f"{server}/neighbours/0/{row}.json"]
    page.js("[1, 2, 3].forEach((row) => explored.pick(row, ''))")
    page.wait("document.getElementById('found-title').textContent.includes('image 3 at')")
    assert shown_rows(page)[0] == 3
    called_off = [event for event in page.events if event["method"] == "Network.loadingFailed"]
    assert [event["params"]["canceled"] for event in called_off] == [True, True]


def test_the_keyboard_alone_is_enough(page: Browser) -> None:
    page.js("document.getElementById('map').focus()")
    page.key("ArrowRight")
    page.wait("!document.getElementById('tip').hidden")
    first = page.js("explored.map.aimed")
    page.key("ArrowLeft")
    assert page.js("explored.map.aimed") not in (None, first)
    page.key("Enter")
    page.wait("document.querySelectorAll('#neighbours img').length > 0")
    assert shown_rows(page)[0] == rows_of(page)[page.js("explored.map.aimed")]
    page.key("Escape")
    assert page.js("document.getElementById('tip').hidden")


def test_a_class_can_be_hidden(page: Browser) -> None:
    point = next(point for point, row in enumerate(rows_of(page)) if NUMBERS[row] == 0)
    assert page.js("[...document.querySelectorAll('#legend button')].map((button) => button.textContent)") == [*"0123456789"]
    assert page.js("getComputedStyle(document.getElementById('by')).display") == "none"  # nothing to choose
    page.js("document.querySelector('#legend button').click()")
    page.hover(*place(page, point))
    assert page.js("explored.map.aimed") != point
    page.js("document.querySelector('#legend button').click()")
    assert page.js("explored.map.hidden.size") == 0
    page.hover(1, 1)
    page.hover(*place(page, point))
    assert page.js("explored.map.aimed") == point
