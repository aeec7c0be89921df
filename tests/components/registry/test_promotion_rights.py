"""Who may promote, on a real tracking server with MLflow's basic authentication."""

from contextlib import suppress
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from components.registry import promotions, versions
from components.registry.entry import Entry
from components.registry.listing import history
from components.registry.promote import promote
from components.tracking.client import TrackingError, connect
from tests.components.registry.test_promotions_at_once import NAME, filled
from tests.components.registry.test_registry_servers import free_port, serving

pytestmark = pytest.mark.slow
ADMIN = "admin"
CONFIG = """[mlflow]
default_permission = NO_PERMISSIONS
database_uri = sqlite:///{folder}/auth.db
admin_username = admin
admin_password = {password}
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
auth_cache_ttl_seconds = 60
"""


def password(user: str) -> str:
    return f"secret-of-{user}"


def test_a_record_that_may_not_be_read_is_not_empty_and_who_may_not_write_moves_nothing(
    store: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flask_wtf", reason="MLflow's authentication needs Flask-WTF: pip install -e '.[dev]'")
    from mlflow.server.auth.client import AuthServiceClient

    (tmp_path / "auth.ini").write_text(CONFIG.format(folder=tmp_path, password=password(ADMIN)))
    monkeypatch.setenv("MLFLOW_AUTH_CONFIG_PATH", str(tmp_path / "auth.ini"))
    monkeypatch.setenv("MLFLOW_FLASK_SERVER_SECRET_KEY", "of these tests")
    port = free_port()
    uri = f"http://127.0.0.1:{port}"
    command = ["server", "--app-name", "basic-auth", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", store, "--artifacts-destination", str(tmp_path / "server")]

    def log_in(user: str) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", user)
        monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", password(user))

    def allow(user: str, model: str, what: str = "EDIT") -> None:
        log_in(ADMIN)
        with suppress(MlflowException):  # there may be none yet, and MLflow changes none
            AuthServiceClient(uri).revoke_user_permission(user, "registered_model", model)
        AuthServiceClient(uri).grant_user_permission(user, "registered_model", model, what)
        log_in(user)

    def move(version: int) -> str:
        return promote(NAME, version=version, alias="champion", force=False, reason=None)

    def record() -> list[Entry]:
        return promotions.record(client, client.get_registered_model(NAME))

    def stopped(*arguments: object) -> None:
        raise KeyboardInterrupt

    with serving(command, f"{uri}/health", tmp_path / "log"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        log_in(ADMIN)
        for user in ("ada", "bob"):
            AuthServiceClient(uri).create_user(user, password(user))
        log_in("ada")
        client = filled(connect(), 3)
        move(1)
        allow("bob", NAME)  # the model, and not its record
        with pytest.raises(TrackingError, match=r"refuses \(403\) to show glyphs\.promotions, the record of promotions of glyphs"):
            history(NAME, alias=None, as_json=False)
        allow("bob", NAME + promotions.SUFFIX, "READ")
        assert "ada" in history(NAME, alias=None, as_json=False)
        with pytest.raises(TrackingError, match=r"refused access \(403\)"):
            move(2)
        assert versions.aliases(client, NAME)["champion"] == 1
        assert len(record()) == 1
        allow("bob", NAME + promotions.SUFFIX)
        allow("bob", NAME, "READ")
        with pytest.raises(TrackingError, match=r"refused access \(403\)"):
            move(2)
        assert record()[-1].withdrawn == "bob may not move it"  # so nobody does it for him later

        log_in("ada")
        with monkeypatch.context() as patch:
            patch.setattr(promotions, "_point", stopped)
            with pytest.raises(KeyboardInterrupt):
                move(3)
        log_in("bob")
        with pytest.raises(TrackingError, match=r"refused access \(403\)"):
            move(2)
        assert record()[-1].pending  # hers, which he may not finish, is not called off by that
        allow("bob", NAME)
        assert "champion moved from version 3 to version 2" in move(2)
        assert [(entry.who, entry.to) for entry in record()] == [("ada", 1), ("bob", 2), ("ada", 3), ("bob", 2)]
