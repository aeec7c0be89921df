"""What a failed request means to the person who started it, in one line with what to do; never with the token."""

import json
import ssl
from typing import Any
from urllib.parse import urlsplit

import urllib3.exceptions as broken
from kfp_server_api import ApiException

from pipeline.errors import ClusterError
from pipeline.kubeflow.api.login import Login


class CallFailed(ClusterError):
    """A request that failed. `passing`: a later one may succeed. `unknown`: the server may have done what was asked."""

    def __init__(self, message: str, *, passing: bool, unknown: bool, status: int = 0) -> None:
        super().__init__(message)
        self.passing, self.unknown, self.status = passing, unknown, status
        """`status`: HTTP's, 0 where there was no answer."""


def refused(error: ApiException, method: str, url: str, login: Login) -> CallFailed:
    """An answer other than yes."""
    what, status = f"{method} {url}", int(error.status)
    said, place = login.hide(_said(error.body)), str((error.headers or {}).get("Location", "nowhere")).partition("?")[0]
    place = login.hide(place)
    if 300 <= status < 400:
        text = f"{what} is redirected to {place}: a login page? {login.advice}, or give the address behind it with --host"
    elif status == 401:
        text = f"{what}: not logged in (401): {login.advice}"
    elif status == 403:
        text = f"{what}: not allowed (403): check --namespace, and the rights of the account that asks"
    elif status == 404 and said not in ("", "Not Found"):  # the API's own words about a thing: the address is right
        text = f"{what}: not found (404)"
    elif status == 404:
        text = f"{what}: not found (404): is --host the API's base, such as http://localhost:8888 or https://HOST/pipeline?"
    elif status >= 500:
        text = f"{what}: the server failed ({status}): see its log (kubectl logs -n kubeflow deploy/ml-pipeline)"
    else:
        text = f"{what}: refused ({status} {error.reason})"
    text += f"; it says: {said}" if said else ""
    return CallFailed(text, passing=status >= 500 or status == 429, unknown=status >= 500, status=status)


def no_json(method: str, url: str, login: Login) -> CallFailed:
    """An answer that is no JSON object: somebody other than the API."""
    text = f"{method} {url} was answered with no JSON, such as a login page: {login.advice}"
    return CallFailed(text, passing=False, unknown=True)


def unanswered(error: broken.HTTPError, method: str, url: str, timeout_s: tuple[float, float]) -> CallFailed:
    """No connection, or one that broke."""
    reason = error.reason if isinstance(error, broken.MaxRetryError) and error.reason else error
    parts = urlsplit(url)
    server = f"{parts.scheme}://{parts.netloc}"
    match reason:
        case broken.NameResolutionError():
            return CallFailed(f"no such host: {parts.hostname}; check --host, DNS and VPN", passing=True, unknown=False)
        case broken.NewConnectionError():  # one of the timeouts to urllib3, so it comes first
            cure = "check --host, and the port-forward if it is one (kubectl port-forward -n kubeflow svc/ml-pipeline 8888:8888)"
            return CallFailed(f"cannot connect to {server}: {_why(reason)}; {cure}", passing=True, unknown=False)
        case broken.ConnectTimeoutError():
            text = f"no connection to {server} within {timeout_s[0]:g} s; check --host, firewall and VPN"
            return CallFailed(text, passing=True, unknown=False)
        case broken.SSLError() if "WRONG_VERSION_NUMBER" in str(reason):
            return CallFailed(f"{server} speaks no TLS; try http://, or another port", passing=False, unknown=False)
        case broken.SSLError():
            text = f"the TLS certificate of {server} is not accepted: {_why(reason)}; give a private authority's with --ca FILE"
            return CallFailed(text, passing=False, unknown=False)
        case broken.ReadTimeoutError():
            text = f"{method} {url}: no answer within {timeout_s[1]:g} s: see the API server's log"
            return CallFailed(text, passing=True, unknown=True)
        case _:
            text = f"{method} {url}: the connection broke ({_why(reason)}); look at what is in between, such as a port-forward"
            return CallFailed(text, passing=True, unknown=True)


def is_object(body: Any) -> bool:
    """Whether an answer's body is a JSON object."""
    return isinstance(_json(body), dict)


def _why(error: Exception) -> str:
    """The innermost reason in a few words, without the objects that urllib3 prints around it."""
    inner = error.__cause__ or next((arg for arg in error.args if isinstance(arg, Exception)), None)
    if isinstance(inner, ssl.SSLCertVerificationError):
        return inner.verify_message
    return (inner.strerror if isinstance(inner, OSError) else None) or str(inner or error)


def _json(body: Any) -> Any:
    try:
        return json.loads(body)
    except (ValueError, TypeError):
        return None


def _said(body: Any) -> str:
    """The server's own words, in one line; nothing where it answers with a page."""
    answer = _json(body)
    words = [answer.get(key) for key in ("message", "error_message", "error")] if isinstance(answer, dict) else []
    text = next((" ".join(word.split()) for word in words if isinstance(word, str) and word), "")
    return text if len(text) <= 300 else text[:300] + " ..."
