"""The client of a cluster's pipelines API: time limits, no silent repetition, one line for whatever goes wrong.

It is the generated client that `kfp.Client` itself wraps, and sends the same requests (a test compares them). The wrapper is left
out because it sets no time limit, repeats a POST where it is redirected, takes a login page for an empty answer, asks a server
that fails five times over 25 s, and takes logins from the environment and from a file in the home folder.
"""

import re
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kfp_server_api
import urllib3

from components.common.errors import SettingsError
from components.common.progress import say
from pipeline.kubeflow import retry
from pipeline.kubeflow.api_errors import is_object, no_json, refused, unanswered

LOOPBACK = ("localhost", "127.0.0.1", "::1")


class Client:
    """The services of one cluster's API. Making one checks what can be checked offline and sends nothing.

    Raises SettingsError for a bad host, token file or certificate file; each call then raises CallFailed.
    """

    def __init__(self, host: str | None, token_file: Path | None, ca: Path | None) -> None:
        self.base = _base_url(host)
        config = kfp_server_api.Configuration(host=self.base)
        config.retries = urllib3.Retry(0, raise_on_redirect=False)  # a redirect would send a POST again: none is followed
        if ca is not None:
            config.ssl_ca_cert = _checked_ca(ca)
        if token_file is not None:
            _warn_about_token(token_file, self.base)
            config.api_key_prefix["authorization"] = "Bearer"
            config.api_key["authorization"] = _token(token_file)
            # read again for each request: a cluster's tokens are replaced every hour or so, and waiting takes longer
            config.refresh_api_key_hook = lambda later: later.api_key.update(authorization=_token(token_file))
        api = _Api(config)
        self.health = kfp_server_api.HealthzServiceApi(api)
        self.experiments = kfp_server_api.ExperimentServiceApi(api)
        self.runs = kfp_server_api.RunServiceApi(api)
        self.pipelines = kfp_server_api.PipelineServiceApi(api)
        self.uploads = kfp_server_api.PipelineUploadServiceApi(api)

    def check_namespace(self, namespace: str | None) -> None:
        """Raises SettingsError where the cluster has several users and no namespace is given."""
        if namespace is None and self.health.healthz_service_get_healthz().multi_user:
            raise SettingsError(f"{self.base} has several users: give --namespace N, the one of your Kubeflow profile")


class _Api(kfp_server_api.ApiClient):  # type: ignore[misc]
    """One request, one try, with a time limit."""

    def request(self, method: str, url: str, *args: Any, **kwargs: Any) -> Any:
        kwargs["_request_timeout"] = retry.TIMEOUT_S
        token = self.configuration.api_key.get("authorization")
        try:
            answer = super().request(method, url, *args, **kwargs)
        except kfp_server_api.ApiException as error:  # its text holds the whole answer, headers and all: not to be shown
            raise refused(error, method, url, token) from None
        except urllib3.exceptions.HTTPError as error:
            raise unanswered(error, method, url, retry.TIMEOUT_S) from error
        if not is_object(answer.data):
            raise no_json(method, url, token)
        return answer


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


def _token(file: Path) -> str:
    try:
        token = file.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise SettingsError(f"cannot read the token file {file}: {error.strerror}; check --token-file") from error
    if not re.fullmatch(r"[!-~]+", token):
        found = "is empty" if not token else "holds more than one word of ASCII"
        raise SettingsError(f"the token file {file} {found}: it must hold the bare token, without Bearer")
    return token


def _warn_about_token(file: Path, base: str) -> None:
    if file.exists() and file.stat().st_mode & 0o004:
        say(f"note: everybody on this machine can read the token file {file}; chmod 600 closes it")
    parts = urlsplit(base)
    if parts.scheme == "http" and parts.hostname not in LOOPBACK:
        say(f"note: the token goes to {parts.hostname} unencrypted; use https:// where the cluster has it")
