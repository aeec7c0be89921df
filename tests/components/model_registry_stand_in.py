"""A stand-in for Kubeflow's Model Registry server, in memory, as strict as it and its OpenAPI.

The server is a Go program over MySQL or PostgreSQL, which no package brings. The requests that register makes, by the rules of
kubeflow/model-registry v0.3.8:
- an unknown field of a body is refused, 400: internal/server/openapi/api_model_registry_service.go:2148 (DisallowUnknownFields)
- a body has the types and patterns of the OpenAPI, here those of the models that `model-registry` 0.3.18 generates from it
- created: 201, changed: 200; an artifact without id is created: api_model_registry_service_service.go:118,122-132
- find_model_version by (name and parent) or external id, else 400; none or several: 404: internal/core/model_version.go:140-166
- find_registered_model compares with LIKE; names are unique a type, and within their parent; external ids on the whole server:
  internal/db/service/model_version.go:58-62, and below internal/datastore/embedmd/postgres/migrations
  000005_create_context_table.up.sql:10-11, 000001_create_artifact_table.up.sql:12-13; a second one is 409:
  internal/core/model_version.go:52-55
- an update without custom properties keeps them: internal/core/model_version.go:36-40
"""

import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mr_openapi

CURRENT, OLDER = "/api/model_registry/v1/", "/api/model_registry/v1alpha3/"
Answer = tuple[int, dict[str, Any]]


class Refused(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class StandIn(http.server.ThreadingHTTPServer):
    """`mode`: answer, 401, 503, login (a page for every request), or lose (do as asked, answer nothing)."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode = "answer"
        self.base = CURRENT
        """Servers up to 0.3.9 have OLDER, by the paths in their clients' packages; 0.3.12 and later CURRENT."""
        self.changes: list[str] = []
        self.models: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.tokens: set[str | None] = set()
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that were given up on are no news."""

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        if not path.startswith(self.base):
            raise Refused(404, "no such path")
        if method != "GET":
            self.changes.append(f"{method} {path.removeprefix(self.base)}")
        match [method, *path.removeprefix(self.base).split("/")]:
            case ["GET", "registered_models"]:
                wanted = re.fullmatch(r"name = '([^']*)'", _only(query, "filterQuery")["filterQuery"])
                if wanted is None:
                    raise Refused(400, "invalid filter query")
                return 200, _page([model for model in self.models if model["name"] == wanted[1]])
            case ["POST", "registered_models"]:
                new = _checked(mr_openapi.RegisteredModelCreate, body)
                return 201, self._new(self.models, new, mr_openapi.RegisteredModel, parent="")
            case ["GET", "model_version"]:
                return 200, self._find_version(_only(query, "externalId", "name", "parentResourceId"))
            case ["POST", "model_versions"]:
                new = _checked(mr_openapi.ModelVersionCreate, body)
                _by_id(self.models, new["registeredModelId"])
                return 201, self._new(self.versions, new, mr_openapi.ModelVersion, parent=new["registeredModelId"])
            case ["PATCH", "model_versions", number]:
                return 200, self._change(_by_id(self.versions, number), _checked(mr_openapi.ModelVersionUpdate, body))
            case ["GET", "model_versions", number, "artifacts"]:
                _only(query)
                _by_id(self.versions, number)
                return 200, _page([artifact for artifact in self.artifacts if artifact["parent"] == number])
            case ["POST", "model_versions", number, "artifacts"]:
                _by_id(self.versions, number)
                new = _checked(mr_openapi.ModelArtifact, body)
                if "id" in new:
                    return 200, self._change(_by_id(self.artifacts, new["id"]), new)
                return 201, self._new(self.artifacts, new, mr_openapi.ModelArtifact, parent=number)
        raise Refused(404, "no such path")

    def _find_version(self, query: dict[str, str]) -> dict[str, Any]:
        if "externalId" not in query and not {"name", "parentResourceId"} <= query.keys():
            raise Refused(400, "invalid parameters call")
        found = [
            version
            for version in self.versions
            if (version.get("externalId") == query["externalId"] if "externalId" in query else version["name"] == query["name"])
        ]
        if len(found) != 1:
            raise Refused(404, f"{len(found)} model versions found")
        return found[0]

    def _new(self, among: list[dict[str, Any]], new: dict[str, Any], kind: Any, parent: str) -> dict[str, Any]:
        everything = self.artifacts if among is self.artifacts else self.models + self.versions
        external = new.get("externalId")
        if any(other["parent"] == parent and other["name"] == new["name"] for other in among) or (
            external and any(other.get("externalId") == external for other in everything)
        ):
            raise Refused(409, f"{kind.__name__} with name {new['name']} already exists")
        made = {**new, "id": str(len(self.models + self.versions + self.artifacts) + 1), "parent": parent}
        among.append(made)
        return made

    def _change(self, found: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
        found.update(change)
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    server: StandIn

    def log_message(self, *args: Any) -> None:
        """Nothing: pytest shows what fails."""

    def _do(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = urllib.parse.urlsplit(self.path)
        mode = self.server.mode
        self.server.tokens.add(self.headers.get("Authorization"))
        if mode == "login":
            return self._send(200, b"<html>log in</html>", "text/html")
        if mode.isdigit():
            return self._send(int(mode), json.dumps({"code": mode, "message": "not now"}).encode(), "application/json")
        with self.server.lock:
            try:
                query = dict(urllib.parse.parse_qsl(parts.query))
                status, answer = self.server.answer(self.command, parts.path, query, json.loads(body) if body else None)
            except Refused as error:
                status, answer = error.status, {"code": str(error.status), "message": str(error)}
        if mode == "lose":
            self.close_connection = True
            return None
        shown = {key: value for key, value in answer.items() if key != "parent"}
        shown["items"] = [{k: v for k, v in item.items() if k != "parent"} for item in answer.get("items", [])]
        return self._send(status, json.dumps(shown if "items" in answer else {**shown, "items": None}).encode(), "application/json")

    def _send(self, status: int, body: bytes, kind: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = _do  # noqa: N815


def _only(query: dict[str, str], *known: str) -> dict[str, str]:
    if unknown := query.keys() - set(known):
        raise Refused(400, f"unknown query parameters {unknown}")
    return query


def _checked(kind: Any, body: Any) -> dict[str, Any]:
    """The body, where it has the fields and types of `kind` and no others."""
    known = {field.alias or name for name, field in kind.model_fields.items()}
    if not isinstance(body, dict) or body.keys() - known:
        raise Refused(400, f"json: unknown field {sorted(body.keys() - known) if isinstance(body, dict) else body}")
    for value in body.get("customProperties", {}).values():
        if len(value) != 2 or "metadataType" not in value:
            raise Refused(400, f"no metadata value: {value}")
    try:
        kind.from_dict(body)
    except ValueError as error:
        raise Refused(400, str(error)) from error
    return {key: value for key, value in body.items() if value is not None}


def _by_id(among: list[dict[str, Any]], number: str) -> dict[str, Any]:
    for one in among:
        if one["id"] == number:
            return one
    raise Refused(404, f"no {number}")


def _page(items: list[dict[str, Any]]) -> dict[str, Any]:
    return {"items": items, "nextPageToken": "", "pageSize": len(items), "size": len(items)}


@contextmanager
def model_registry() -> Iterator[StandIn]:
    """A stand-in on loopback until the block ends."""
    server = StandIn()
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
