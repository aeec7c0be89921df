"""Shards in a folder and in an object store: moto's server, and one that refuses."""

import errno
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import numpy as np
import pyarrow as pa
import pytest

from data import store as stores
from data.errors import DataError, StoreUnavailable
from data.store import open_store
from pipeline.run_step import exit_code
from tests.data.files import check_message
from tests.data.test_shards import IMAGES, written

KEY = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


class Refusing(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(403)
        self.end_headers()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = b"<?xml version='1.0'?><Error><Code>AccessDenied</Code><Message>Access Denied</Message></Error>"
        self.send_response(403)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST  # noqa: N815  the name is http.server's

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def refusing(point_to) -> Iterator[None]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refusing)
    Thread(target=server.serve_forever, daemon=True).start()
    point_to(f"http://127.0.0.1:{server.server_port}")
    yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("where", ["folder", "deep/er/folder", "s3"])
def test_what_is_written_is_read_and_a_retry_changes_nothing(where, s3_store, tmp_path):
    store = open_store(s3_store if where == "s3" else str(tmp_path / where))
    assert store.size("a.parquet") is None
    for content in (b"one", b"two, longer"):
        store.write("a.parquet", pa.py_buffer(content))
        assert store.size("a.parquet") == len(content)
        assert store.read("a.parquet").to_pybytes() == content
    if where != "s3":
        assert os.listdir(tmp_path / where) == ["a.parquet"]


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_images_lie_in_a_store_under_the_names_of_their_content(where, s3_store, tmp_path):
    store = s3_store if where == "s3" else str(tmp_path / "store")
    with ThreadPoolExecutor(4) as pool:  # as retries that overlap
        made = list(pool.map(lambda number: written(tmp_path / str(number), store=store), range(4)))
    for images in made:
        np.testing.assert_array_equal(images[:], IMAGES)
    assert sorted(os.listdir(tmp_path / "0")) == [f"{number:05d}.json" for number in range(4)]
    if where == "folder":
        assert len(os.listdir(store)) == 4


def test_what_stands_in_the_store_is_not_written_again(tmp_path, monkeypatch):
    store = str(tmp_path / "store")
    written(tmp_path / "a", store=store)
    monkeypatch.setattr(stores.Folder, "write", lambda *_: pytest.fail("written again"))
    np.testing.assert_array_equal(written(tmp_path / "b", store=store)[:], IMAGES)


def test_a_missing_object_or_bucket_is_named(s3_store):
    for place in (s3_store, "s3://nowhere/dier"):
        with pytest.raises(DataError, match=f"no shard at {place}/x.parquet: .*prepare the data again"):
            open_store(place).read("x.parquet")
    with pytest.raises(DataError, match=r"cannot write s3://nowhere/dier/x\.parquet .*; make the bucket"):
        open_store("s3://nowhere/dier").write("x.parquet", pa.py_buffer(b"x"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match=rf"cannot write {tmp_path}/file/set/x\.parquet .*; see to the disk"):
        open_store(f"{tmp_path}/file/set").write("x.parquet", pa.py_buffer(b"x"))


@pytest.mark.parametrize("keys", [{}, {"AWS_ACCESS_KEY_ID": "AKIAEXAMPLE", "AWS_SECRET_ACCESS_KEY": KEY}])
def test_missing_or_wrong_credentials_say_what_to_set_and_no_secret(refusing, monkeypatch, keys):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in keys.items():
        monkeypatch.setenv(name, value)
    store = open_store("s3://dier/set")
    for act in (store.check, lambda: store.read("x"), lambda: store.size("x"), lambda: store.write("x", pa.py_buffer(b"x"))):
        with pytest.raises(DataError, match="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE") as caught:
            act()
        check_message(caught.value)
        assert KEY not in str(caught.value)


@pytest.mark.slow
def test_a_store_that_cannot_be_reached_is_named_after_some_tries(point_to, closed_port):
    point_to(f"http://user:{KEY}@127.0.0.1:{closed_port}")
    shown = rf"see that AWS_ENDPOINT_URL \(http://\.\.\.@127\.0\.0\.1:{closed_port}\)"
    with pytest.raises(StoreUnavailable, match=shown) as caught:
        open_store("s3://dier/set").read("x")
    check_message(caught.value)
    assert KEY not in str(caught.value)


def test_a_disk_that_fails_is_named_and_another_try_may_help(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StoreUnavailable, match=r"cannot write .*/x \(No space left on device\); see to the disk") as caught:
        open_store(str(tmp_path)).write("x", pa.py_buffer(b"x"))
    check_message(caught.value)
    assert exit_code(caught.value) == 1  # 3 would be remembered as what no retry can cure
    assert os.listdir(tmp_path) == []


def test_a_store_is_checked_without_a_trace(s3_store, tmp_path):
    for where in (s3_store, str(tmp_path / "new")):
        open_store(where).check()
    assert os.listdir(tmp_path / "new") == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StoreUnavailable, match=r"cannot write .*/file/set .*; see to the disk"):
        open_store(str(tmp_path / "file" / "set")).check()


@pytest.mark.parametrize(
    "where", ["", f"s3://AKIAEXAMPLE:{KEY}@bucket/set", "s3://", "s3://b/a?key=x", "gs://bucket/set", "http://x", "s3:/bucket/set"]
)
def test_another_address_is_refused(where):
    with pytest.raises(DataError, match="use a folder, or s3://bucket/prefix") as caught:
        open_store(where)
    assert KEY not in str(caught.value)
