"""Who asks a cluster's API: a bearer token or a login's cookie, read from files of the person, and never shown."""

import re
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from components.common.errors import SettingsError
from components.common.progress import say

LOOPBACK = ("localhost", "127.0.0.1", "::1")
INSIDE = ".svc.cluster.local"


@dataclass
class Login:
    """A token's file, a cookie's, or none. The files are read for each request: tokens are replaced while a run is waited for.

    Raises SettingsError where a file cannot be read or holds something else.
    """

    token_file: Path | None = None
    cookie_file: Path | None = None
    _seen: set[str] = field(default_factory=set, repr=False)

    def check(self, base: str) -> None:
        """Read the files once, and say where a secret lies or goes open."""
        if self.token_file and self.cookie_file:
            raise SettingsError("--token-file and --cookie-file: give one of them; a login page takes the cookie, an API the token")
        self.headers()
        for option, file in (("token", self.token_file), ("cookie", self.cookie_file)):
            if file is not None:
                _warn(option, file, base)

    def headers(self) -> dict[str, str]:
        """What a request carries."""
        if self.token_file is not None:
            found = {"authorization": f"Bearer {_token(self.token_file)}"}
        else:
            found = {"Cookie": _cookie(self.cookie_file)} if self.cookie_file is not None else {}
        for value in found.values():  # a cookie's name, or the word Bearer, is no secret
            self._seen |= {word for word in re.split(r"[ ;]+|(?<=[^=])=(?=[^=])", value) if len(word) >= 8}
        return found

    def hide(self, text: str) -> str:
        """`text` without the secrets, which a server may echo."""
        for secret in sorted(self._seen, key=len, reverse=True):
            text = text.replace(secret, "[cookie]" if self.cookie_file else "[token]")
        return text

    @property
    def advice(self) -> str:
        """What to look at when a server does not accept it."""
        if self.token_file is not None:
            return "the token in --token-file is wrong, expired or for another audience"
        if self.cookie_file is not None:
            return "the cookie in --cookie-file is wrong or expired: log in again in a browser"
        return "give a token with --token-file, or a login's cookie with --cookie-file"


def _read(file: Path, what: str) -> str:
    try:
        return file.read_text("utf-8", errors="replace").strip()
    except OSError as error:
        raise SettingsError(f"cannot read the {what} file {file}: {error.strerror}; check --{what}-file") from error


def _token(file: Path) -> str:
    token = _read(file, "token")
    if not re.fullmatch(r"[!-~]+", token):
        found = "is empty" if not token else "holds more than one word of ASCII"
        raise SettingsError(f"the token file {file} {found}: it must hold the bare token, without Bearer")
    return token


def _cookie(file: Path) -> str:
    """`NAME=VALUE`, several with `; ` between them; the header's own name before it is left out."""
    cookie = re.sub(r"(?i)^cookie:\s*", "", _read(file, "cookie"))
    if not re.fullmatch(r"[!#-+\--:<-~]+=[!-:<-~]*(;\s*[!#-+\--:<-~]+=[!-:<-~]*)*;?", cookie):
        found = "is empty" if not cookie else "holds no cookie in one line of ASCII"
        raise SettingsError(f"the cookie file {file} {found}: it must hold NAME=VALUE, such as authservice_session=MTY5...")
    return cookie.rstrip("; ")


def _warn(what: str, file: Path, base: str) -> None:
    if file.stat().st_mode & 0o004:
        say(f"note: everybody on this machine can read the {what} file {file}; chmod 600 closes it")
    parts = urlsplit(base)
    host = parts.hostname or ""
    if parts.scheme == "http" and host not in LOOPBACK and not host.endswith(INSIDE):
        say(f"note: the {what} goes to {host} unencrypted; use https:// where the cluster has it")
