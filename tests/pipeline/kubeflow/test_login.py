"""Who asks: a token, a login's cookie; what is said of them, and that neither is ever shown. What the server says of itself."""

from pathlib import Path

import pytest

from tests.pipeline.conftest import Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.kfp_standin import Reply, StandIn

SECRET = "MTY5OTk5OTk5OXxOd3dBTkZ"
COOKIE = f"authservice_session={SECRET}; csrf=abcdefgh1234"


@pytest.fixture
def cookie(tmp_path: Path) -> Path:
    path = tmp_path / "cookie"
    path.write_text(f"Cookie: {COOKIE};\n")
    path.chmod(0o600)
    return path


def test_a_cookie_logs_in(dier: Command, server: StandIn, cookie: Path) -> None:
    server.cookie = COOKIE
    assert dier("submit", "--host", server.url, "--cookie-file", cookie).code == 0
    assert {request.headers["cookie"] for request in server.requests} == {COOKIE}
    assert all("authorization" not in request.headers for request in server.requests)


@pytest.mark.parametrize(
    "reply", [Reply(302, "", {"Location": f"https://dex/{SECRET}"}), standin.refusal(401, 16, f"who is {SECRET}?")]
)
def test_an_old_cookie_says_so_and_stays_hidden(dier: Command, server: StandIn, cookie: Path, reply: Reply) -> None:
    server.on("GET /healthz", reply)
    assert dier("runs", "--host", server.url, "--cookie-file", cookie).code == 1
    assert "the cookie in --cookie-file is wrong or expired: log in again in a browser" in dier.error
    assert "[cookie]" in dier.error
    assert SECRET not in dier.err


def test_no_login_names_both(dier: Command, server: StandIn) -> None:
    server.cookie = COOKIE
    assert dier("runs", "--host", server.url).code == 1
    assert "is redirected to https://dex/auth: a login page? give a token with --token-file, or a login's cookie" in dier.error


@pytest.mark.parametrize("text", ["", "just-a-value", "a=b\nc=d", "näme=value", "=value"])
def test_what_is_no_cookie_is_refused_unseen(dier: Command, server: StandIn, cookie: Path, text: str) -> None:
    cookie.write_text(text)
    assert dier("runs", "--host", server.url, "--cookie-file", cookie).code == 2
    assert "it must hold NAME=VALUE" in dier.error
    assert server.requests == []


def test_an_open_cookie_file_is_noted(dier: Command, server: StandIn, cookie: Path) -> None:
    cookie.chmod(0o644)
    dier("runs", "--host", server.url, "--cookie-file", cookie)
    assert "note: everybody on this machine can read the cookie file" in dier.err


@pytest.mark.parametrize("ui", [False, True])
@pytest.mark.parametrize(
    ("version", "noted"), [("2.17.0", False), ("2.15.0", False), ("2.14.3", True), ("unknown", False), ("", False)]
)
def test_an_old_server_is_noted_whoever_answers_for_it(dier: Command, ui: bool, version: str, noted: bool) -> None:
    with standin.serve(version=version, ui=ui) as server:
        assert dier("runs", "--host", server.url).code == 0
        assert (f"is Kubeflow Pipelines {version}; dier was never tried on one older than 2.15" in dier.err) == noted
