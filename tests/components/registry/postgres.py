"""A PostgreSQL server of the tests' own, in a temporary folder, on this machine alone."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

MISSING = "PostgreSQL's server is not installed (initdb, pg_ctl): apt-get install postgresql"
UNPRIVILEGED = "nobody"
"""Whom the server runs as where the tests run as root: it refuses to be root."""


def binaries() -> Path | None:
    """The folder with initdb and pg_ctl; Debian's packages put them where PATH does not look."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "pg_ctl").is_file()), None)


@contextmanager
def postgres(port: int, password: str = "secret of a test's") -> Iterator[str]:
    """Run a server until the block ends; gives the URI of an empty database, which asks for this password, as the real one does.

    The URI names the driver: of `postgresql://` alone SQLAlchemy 2.1 makes psycopg 3.
    """
    programs = binaries()
    assert programs is not None, MISSING
    user = UNPRIVILEGED if os.getuid() == 0 else None
    with tempfile.TemporaryDirectory(prefix="dier-postgres-", dir="/tmp") as temporary:
        folder = Path(temporary)
        if user:
            shutil.chown(folder, user)

        def run(*command: str) -> None:
            subprocess.run(
                [str(programs / command[0]), *command[1:]], user=user, group=None, cwd=folder, check=True, stdout=subprocess.DEVNULL
            )

        secret = folder / "password"
        secret.write_text(password)
        if user:
            shutil.chown(secret, user)
        data, log = str(folder / "data"), str(folder / "log")
        login = ("--username", "dier", "--auth", "scram-sha-256", "--pwfile", str(secret))
        run("initdb", "--pgdata", data, *login, "--no-sync", "--encoding", "UTF8", "--locale", "C")
        settings = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        run("pg_ctl", "--pgdata", data, "--log", log, "--options", settings, "--wait", "start")
        try:
            yield f"postgresql+psycopg2://dier:{quote(password)}@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "--pgdata", data, "--mode", "immediate", "--wait", "stop")
