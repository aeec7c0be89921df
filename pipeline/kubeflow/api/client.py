"""The client of a cluster's pipelines API: time limits, no silent repetition, one line for whatever goes wrong.

It is the generated client that `kfp.Client` itself wraps, and sends the same requests (a test compares them). The wrapper is left
out because it sets no time limit, repeats a POST where it is redirected, takes a login page for an empty answer, asks a server
that fails five times over 25 s, and takes logins from the environment and from a file in the home folder.
"""

import json
import os
import re
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3

from components.common.errors import SettingsError
from components.common.progress import say
from pipeline.kubeflow import retry
from pipeline.kubeflow.api.errors import is_object, no_json, refused, unanswered
from pipeline.kubeflow.api.login import Login

V2 = "/apis/v2beta1"
TRIED = (2, 15)
"""Older servers hand a task no `name` of its outputs; nobody has tried them."""
PAGE = 100
"""Of a list at a time; the server gives 20 unless asked, and 200 at most (server/list_request_util.go:33)."""
INSIDE = "http://ml-pipeline.kubeflow.svc.cluster.local:8888"
INSIDE_TIMEOUT_S = (3.0, 10.0)


@dataclass(frozen=True)
class Server:
    """What the server says of itself."""

    multi_user: bool
    version: str
    """Such as 2.17.0, or what was not given: unknown."""

    @property
    def old(self) -> bool:
        """Whether it is older than what was tried; one that does not say is not."""
        found = re.match(r"v?(\d+)\.(\d+)", self.version)
        return found is not None and (int(found[1]), int(found[2])) < TRIED


class Client:
    """The services of one cluster's API. Making one checks what can be checked offline and sends nothing.

    Raises SettingsError for a bad host, login or certificate file; each call then raises CallFailed.
    """

    def __init__(
        self,
        host: str | None,
        login: Login | None = None,
        ca: Path | None = None,
        timeout_s: tuple[float, float] | None = None,
    ) -> None:
        self.base = _base_url(host)
        login = login or Login()
        login.check(self.base)
        config = kfp_server_api.Configuration(host=self.base)
        config.retries = urllib3.Retry(0, raise_on_redirect=False)  # a redirect would send a POST again: none is followed
        if ca is not None:
            config.ssl_ca_cert = _checked_ca(ca)
        self._api = api = _Api(config, login, timeout_s)
        self.experiments = kfp_server_api.ExperimentServiceApi(api)
        self.runs = kfp_server_api.RunServiceApi(api)
        self.recurring = kfp_server_api.RecurringRunServiceApi(api)
        self.pipelines = kfp_server_api.PipelineServiceApi(api)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(api)

    @property
    def ui(self) -> str:
        """Address of the pages."""
        return (os.environ.get("KF_PIPELINES_UI_ENDPOINT") or self.base).rstrip("/")

    def run_page(self, run_id: str) -> str:
        """Address of a run's page."""
        return f"{self.ui}/#/runs/details/{run_id}"

    def server(self) -> Server:
        """Ask the server what it is. The UI before it words that in its own way (frontend/server/handlers/healthz.ts:70)."""
        found = self.json(f"{V2}/healthz")
        version = found.get("tag_name") or found.get("apiServerTagName") or "unknown"
        return Server(bool(found.get("multi_user")), str(version))

    def check_server(self, namespace: str | None) -> None:
        """Raises SettingsError where the cluster has several users and no namespace is given; an old server is noted."""
        server = self.server()
        if namespace is None and server.multi_user:
            raise SettingsError(f"{self.base} has several users: give --namespace N, the one of your Kubeflow profile")
        if server.old:
            oldest = ".".join(map(str, TRIED))
            say(f"note: {self.base} is Kubeflow Pipelines {server.version}; dier was never tried on one older than {oldest}")

    def json(self, path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object at `path`, for what the generated client has no function for."""
        return dict(json.loads(self._api.fetch(path, query, expect_object=True)))

    def bytes(self, path: str, query: Mapping[str, str] | None = None) -> bytes:
        """What lies at `path`, such as a log."""
        return self._api.fetch(path, query, expect_object=False)


def inside_client() -> Client:
    """The client of a task inside the cluster: the API's own address, the token that is mounted, short time limits.

    KF_PIPELINES_ENDPOINT is another address, KF_PIPELINES_SA_TOKEN_PATH the token's file, as for kfp's own client.
    """
    token = os.environ.get("KF_PIPELINES_SA_TOKEN_PATH")
    login = Login(token_file=Path(token) if token else None)
    return Client(os.environ.get("KF_PIPELINES_ENDPOINT") or INSIDE, login, timeout_s=INSIDE_TIMEOUT_S)


def every(ask: Callable[..., Any], items: str, *, page: int = PAGE, **query: Any) -> Iterator[Any]:
    """All that one of the client's lists holds, `page` of them at a time; `items` is the answer's attribute."""
    token = ""
    while True:
        answer = ask(**query, page_size=page, **({"page_token": token} if token else {}))
        yield from getattr(answer, items) or []
        token = answer.next_page_token
        if not token:
            return


class _Api(kfp_server_api.ApiClient):  # type: ignore[misc]
    """One request, one try, with a time limit and a login."""

    def __init__(self, config: Any, login: Login, timeout_s: tuple[float, float] | None) -> None:
        super().__init__(config)
        self._login, self._timeout_s = login, timeout_s

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        answer = self._ask(method, url, *args, **kwargs)
        if not is_object(answer.data):
            raise no_json(method, url, self._login)
        return answer

    def fetch(self, path: str, query: Mapping[str, str] | None, expect_object: bool) -> bytes:
        """GET `path`."""
        ask = self.request if expect_object else self._ask
        return bytes(ask("GET", self.configuration.host + path, query_params=dict(query or {})).data)

    def _ask(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        timeout_s = self._timeout_s or retry.TIMEOUT_S
        kwargs["_request_timeout"] = timeout_s
        kwargs["headers"] = {**(kwargs.get("headers") or {}), **self._login.headers()}
        try:
            return super().request(method, url, *args, **kwargs)
        except kfp_server_api.ApiException as error:  # its text holds the whole answer, headers and all: not to be shown
            raise refused(error, method, url, self._login) from None
        except urllib3.exceptions.HTTPError as error:
            raise unanswered(error, method, url, timeout_s) from error


def _base_url(host: str | None) -> str:
    if not host:
        raise SettingsError("no cluster: give --host URL or set KF_PIPELINES_ENDPOINT, such as http://localhost:8888")
    try:
        parts = urlsplit(host)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.query or parts.fragment or "@" in parts.netloc:
        shown = "--host" if "@" in host else f"--host {host!r}"
        raise SettingsError(f"{shown} is no plain http:// or https:// address without user, ? and #, such as https://HOST/pipeline")
    return host.rstrip("/")


def _checked_ca(file: Path) -> str:
    try:
        ssl.create_default_context(cafile=str(file))
    except OSError as error:
        raise SettingsError(f"--ca {file} cannot be used: {error.strerror or error}; give certificates in PEM form") from error
    return str(file)
