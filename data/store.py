"""Where shards lie: a folder (of the artifact, or of a disk that machines share), or an object store at `s3://bucket/prefix`.

S3 is spoken by Arrow, which every step has anyway. Credentials are the usual ones of AWS: its environment variables, `~/.aws`, a
service account's web identity, an instance's role. Arrow does not look at AWS_ENDPOINT_URL and AWS_CA_BUNDLE by itself, so they are
handed over here. It tries again by itself what the network lost; what is raised here is for people.
"""

import contextlib
import os
import re
import uuid
from functools import cache
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Protocol

from data.errors import DataError, StoreUnavailable

S3 = re.compile(r"s3://(?P<path>[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[^/?#\s]+)*)/?")
"""No user, password or query: a key in an address would end in dataset.json and in messages."""
CONNECT_S = 10.0
ATTEMPTS = 5
CREDENTIALS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE"


class Store(Protocol):
    """Files by name, each written whole or not at all.

    Raises DataError where the store says no, and StoreUnavailable where another try may help.
    """

    def place(self, name: str) -> str:
        """What a person calls the file `name`: a path, or an address."""

    def size(self, name: str) -> int | None:
        """Bytes of the file `name`; None where there is none. Raises where the store cannot be asked."""

    def check(self) -> None:
        """See whether it can be written, as far as that shows without a trace. Raises where it cannot."""

    def read(self, name: str) -> Any:
        """The file's content, an Arrow buffer. Raises where it is missing or cannot be read."""

    def write(self, name: str, content: Any) -> None:
        """Write an Arrow buffer. Whoever reads meanwhile finds what was there before, or all of it. Raises where it cannot."""


def open_store(where: str) -> Store:
    """The store at `where`, a folder or s3://bucket/prefix; nothing is read or made. Raises DataError for another address."""
    found = S3.fullmatch(where)
    if not is_place(where):
        raise DataError(f"{without_password(where)} is no place for shards: use a folder, or s3://bucket/prefix with no key in it")
    return Bucket(found["path"]) if found else Folder(Path(where).expanduser())


def is_place(where: str) -> bool:
    """Whether `where` is a folder's path or s3://bucket/prefix. Of s3:/bucket one would else make a folder."""
    return bool(where) and (":/" not in where or S3.fullmatch(where) is not None)


def without_password(where: str) -> str:
    """An address as it may be shown: without what stands before an @."""
    return re.sub(r"//.*@", "//...@", where)


class Folder:
    """A folder of files."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def place(self, name: str) -> str:
        """What a person calls it."""
        return str(self._path / name)

    def check(self) -> None:
        """Make it, and write a file that has no name."""
        try:
            self._path.mkdir(parents=True, exist_ok=True)
            with TemporaryFile(dir=self._path) as file:
                file.write(b"0")
        except OSError as error:
            raise _trouble("write", str(self._path), error) from error

    def size(self, name: str) -> int | None:
        """Its bytes; None where there is none."""
        try:
            return (self._path / name).stat().st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _trouble("read", self.place(name), error) from error

    def read(self, name: str) -> Any:
        """All of it."""
        import pyarrow as pa

        try:
            with pa.memory_map(str(self._path / name)) as file:  # no copy: it is hashed and decoded where it lies
                return file.read_buffer()
        except OSError as error:
            raise _trouble("read", self.place(name), error) from error

    def write(self, name: str, content: Any) -> None:
        """Write it beside and rename it."""
        final = self._path / name
        beside = final.with_name(f".{final.name}.partial-{uuid.uuid4().hex}")
        try:
            final.parent.mkdir(parents=True, exist_ok=True)
            with beside.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            beside.replace(final)
        except OSError as error:
            raise _trouble("write", self.place(name), error) from error
        finally:
            with contextlib.suppress(OSError):
                beside.unlink()


class Bucket:
    """A bucket and prefix of an object store. An object is put whole, or not at all."""

    def __init__(self, path: str) -> None:
        self._path = path

    def place(self, name: str) -> str:
        """What a person calls it."""
        return f"s3://{self._path}/{name}"

    def check(self) -> None:
        """Ask it for what is not there, which takes an address and keys that are right."""
        self.size("none")

    def size(self, name: str) -> int | None:
        """Its bytes; None where there is none."""
        from pyarrow.fs import FileType

        try:
            info = _s3().get_file_info(f"{self._path}/{name}")
        except OSError as error:
            raise _trouble("read", self.place(name), error) from error
        return int(info.size) if info.type == FileType.File else None

    def read(self, name: str) -> Any:
        """All of it."""
        try:
            with _s3().open_input_file(f"{self._path}/{name}") as file:
                return file.read_buffer()
        except OSError as error:
            raise _trouble("read", self.place(name), error) from error

    def write(self, name: str, content: Any) -> None:
        """Put it whole."""
        try:
            with _s3().open_output_stream(f"{self._path}/{name}") as file:
                file.write(content)
        except OSError as error:
            raise _trouble("write", self.place(name), error) from error


@cache
def _s3() -> Any:
    from pyarrow import fs

    environment = os.environ
    return fs.S3FileSystem(
        endpoint_override=environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None,
        region=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or None,
        tls_ca_file_path=environment.get("AWS_CA_BUNDLE") or None,
        connect_timeout=CONNECT_S,
        retry_strategy=fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
    )


os.register_at_fork(after_in_child=_s3.cache_clear)


def _trouble(doing: str, place: str, error: OSError) -> DataError | StoreUnavailable:
    """What Arrow or the system said, in one line, and the cure that fits; what says no will say no again."""
    what = " ".join((error.strerror or str(error)).split())
    if isinstance(error, FileNotFoundError) and doing == "read":
        where = "that the store is the one that prepare wrote to, and is mounted"
        return DataError(f"no shard at {place}: see {where}, or prepare the data again")
    kind: type[DataError | StoreUnavailable] = StoreUnavailable
    if not place.startswith("s3://"):
        cure = "see to the disk, and that this user may use the folder"
    elif re.search(r"ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|UNRECOGNIZED_CLIENT|EXPIRED|HTTP status (401|403)", what, re.I):
        kind, cure = DataError, f"set {CREDENTIALS}, to a key that may {doing} there"
    elif "NETWORK_CONNECTION" in what or "REQUEST_TIMEOUT" in what:
        cure = f"see that AWS_ENDPOINT_URL ({_endpoint()}) is the store's address and can be reached"
    elif "NO_SUCH_BUCKET" in what:
        kind, cure = DataError, "make the bucket, or mend data.store"
    else:
        cure = f"see to the store, {CREDENTIALS}, and AWS_ENDPOINT_URL ({_endpoint()})"
    return kind(f"cannot {doing} {place} ({what}); {cure}")


def _endpoint() -> str:
    found = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return without_password(found) if found else "unset: Amazon's own"
