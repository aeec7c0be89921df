"""What a cluster may answer, or not: one line with what to do, and no request sent twice."""

import socket
import time
from pathlib import Path

import pytest

from pipeline.cli import main
from tests.pipeline.conftest import TOKEN, Command
from tests.pipeline.kubeflow import kfp_standin as standin
from tests.pipeline.kubeflow.kfp_standin import DROP, HANG, HTML, Reply, StandIn, refusal


@pytest.mark.parametrize(
    ("reply", "message"),
    [
        (
            refusal(401, 16, f"who is {TOKEN}?"),
            "not logged in (401): the token in --token-file is wrong, expired or for another audience; it says: who is [token]?",
        ),
        (
            refusal(403, 7, "no access"),
            "not allowed (403): check --namespace, and the rights of the account that asks; it says: no access",
        ),
        (Reply(404, "<html>"), "not found (404): is --host the API's base"),
        (refusal(400, 3, "bad\nrequest"), "refused (400 Bad Request); it says: bad request"),
        (refusal(500, 13, "no database"), "the server failed (500): see its log"),
        (Reply(302, "", {"Location": f"https://login/{TOKEN}?state=1"}), "is redirected to https://login/[token]: a login page?"),
        (HTML, "was answered with no JSON, such as a login page"),
        (DROP, "the connection broke (Remote end closed connection without response)"),
        (HANG, "no answer within 1.5 s"),
    ],
)
@pytest.mark.parametrize("call", ["GET /healthz", "POST /runs"])
def test_a_wrong_answer_is_one_line_and_no_request_is_repeated(
    dier: Command, impatient: None, server: StandIn, token: Path, call: str, reply: Reply, message: str
) -> None:
    server.on(call, reply)
    start = time.monotonic()
    assert dier("submit", "--host", server.url, "--token-file", token, "--run-name", "mine").code == 1
    assert time.monotonic() - start < 10  # a server that says nothing is not waited for longer than told
    assert message in dier.error
    assert call.replace(" /", f" {server.url}/apis/v2beta1/") in dier.error
    assert server.calls()[-1] == call
    assert server.calls().count(call) == 1
    lost = reply in (DROP, HANG, HTML) or reply.status == 500
    asks_to_look = "unknown whether the run was created: look for 'mine' in the experiment dier" in dier.error
    assert asks_to_look == (lost and call == "POST /runs")


def test_no_token_says_so(dier: Command, server: StandIn) -> None:
    server.token = TOKEN
    assert dier("submit", "--host", server.url).code == 1
    assert "not logged in (401): give a token with --token-file" in dier.error


def test_debug_does_not_show_the_token(
    server: StandIn, token: Path, compiled_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.on("POST /runs", refusal(401, 16, f"who is {TOKEN}?"))
    assert main(["submit", "--debug", "--pipeline", str(compiled_file), "--host", server.url, "--token-file", str(token)]) == 1
    shown = "".join(capsys.readouterr())
    assert "Traceback" in shown
    assert TOKEN not in shown


def test_a_cluster_of_several_users_needs_a_namespace(dier: Command, server: StandIn) -> None:
    server.multi_user = True
    for command in ("submit", "upload"):
        assert dier(command, "--host", server.url).code == 2
        assert "has several users: give --namespace" in dier.error
    assert set(server.calls()) == {"GET /healthz"}


def test_a_wrong_path_says_which_url_was_tried(dier: Command, server: StandIn) -> None:
    assert dier("submit", "--host", server.url + "/kubeflow").code == 1
    assert f"GET {server.url}/kubeflow/apis/v2beta1/healthz: not found (404)" in dier.error


def test_nobody_there(dier: Command) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        assert dier("submit", "--host", f"http://127.0.0.1:{port}").code == 1
    assert f"cannot connect to http://127.0.0.1:{port}: Connection refused; check --host, and the port-forward" in dier.error


def test_no_such_host(dier: Command) -> None:
    assert dier("submit", "--host", "http://kubeflow.invalid").code == 1
    assert dier.error == "no such host: kubeflow.invalid; check --host, DNS and VPN"


def test_a_private_authority(dier: Command, certificate: tuple[Path, Path]) -> None:
    with standin.serve(certificate) as secure:
        assert dier("submit", "--host", secure.url).code == 1
        assert "is not accepted: self-signed certificate; give a private authority's with --ca FILE" in dier.error
        assert secure.requests == []
        assert dier("submit", "--host", secure.url, "--ca", certificate[0]).code == 0
        assert dier("submit", "--host", secure.url.replace("127.0.0.1", "localhost"), "--ca", certificate[0]).code == 1
        assert "Hostname mismatch" in dier.error


def test_tls_where_there_is_none(dier: Command, server: StandIn) -> None:
    assert dier("submit", "--host", server.url.replace("http:", "https:")).code == 1
    assert "speaks no TLS; try http://" in dier.error
