import json
import os
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from components.common import artifact
from components.common.errors import ArtifactError
from model.atomic import temporary


def make(out: Path, text: str = "hello") -> artifact.Artifact:
    with artifact.create(out, "model", {"dataset": "abc"}) as folder:
        (folder / "sub").mkdir()
        (folder / "sub" / "a.txt").write_text(text)
        artifact.write_json(folder / "b.json", {"x": 1})
    return artifact.read(out, "model")


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    made = make(tmp_path / "out")
    assert made.made_from == {"dataset": "abc"}
    assert made.json("b.json") == {"x": 1}
    assert os.listdir(tmp_path) == ["out"]


def test_the_fingerprint_depends_on_the_content_alone(tmp_path: Path) -> None:
    first, again, other = make(tmp_path / "a"), make(tmp_path / "deep" / "b"), make(tmp_path / "c", "other")
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert (tmp_path / "a" / "manifest.json").read_bytes() == (tmp_path / "deep" / "b" / "manifest.json").read_bytes()


def test_a_failure_leaves_nothing_and_spares_what_was_there(tmp_path: Path) -> None:
    before = make(tmp_path / "out")

    def fail() -> None:
        with artifact.create(tmp_path / "out", "model", {}) as folder:
            (folder / "half").write_text("written")
            raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        fail()
    assert os.listdir(tmp_path) == ["out"]
    assert artifact.read(tmp_path / "out", "model").fingerprint == before.fingerprint


def test_an_artifact_is_replaced_whole(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with artifact.create(tmp_path / "out", "model", {}) as folder:
        (folder / "only").write_text("new")
    assert sorted(os.listdir(tmp_path / "out")) == ["manifest.json", "only"]
    assert os.listdir(tmp_path) == ["out"]


def test_two_tries_with_one_process_id_do_not_take_each_others_files(tmp_path: Path) -> None:
    """As two containers on one claim have, where every process is number 1."""
    with artifact.create(tmp_path / "out", "model", {}) as first:
        (first / "a").write_text("first")
        with artifact.create(tmp_path / "out", "model", {}) as second:
            (second / "a").write_text("second")
        assert (tmp_path / "out" / "a").read_text() == "second"
    artifact.read(tmp_path / "out", "model")
    assert (tmp_path / "out" / "a").read_text() == "first"
    assert os.listdir(tmp_path) == ["out"]


def test_what_a_killed_try_left_is_removed_a_day_later(tmp_path: Path) -> None:
    for name in ("out", "other"):
        killed = temporary(tmp_path / name)
        killed.mkdir()
        os.utime(killed, (0, 0))
    make(tmp_path / "out")
    assert sorted(name[:6] for name in os.listdir(tmp_path)) == [".other", "out"]


def damage(path: Path, how: str) -> None:
    file = path / "sub" / "a.txt"
    manifest = path / "manifest.json"
    if how == "flip a byte":
        file.write_bytes(b"jello")
    elif how == "truncate":
        file.write_bytes(b"hel")
    elif how == "remove":
        file.unlink()
    elif how == "add":
        (path / "extra").write_text("x")
    elif how == "no manifest":
        manifest.unlink()
    elif how == "half a manifest":
        manifest.write_bytes(manifest.read_bytes()[:40])
    elif how == "manifest of another shape":
        manifest.write_text("[1, 2]")
    elif how == "newer format":
        manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"format": 99}))


@pytest.mark.parametrize(
    "how",
    ["flip a byte", "truncate", "remove", "add", "no manifest", "half a manifest", "manifest of another shape", "newer format"],
)
def test_damage_is_seen_and_said_in_one_line(tmp_path: Path, how: str) -> None:
    make(tmp_path / "out")
    damage(tmp_path / "out", how)
    with pytest.raises(ArtifactError) as caught:
        artifact.read(tmp_path / "out", "model")
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)


def test_another_kind_is_refused(tmp_path: Path) -> None:
    make(tmp_path / "out")
    with pytest.raises(ArtifactError, match="is a model artifact where a dataset artifact is needed"):
        artifact.read(tmp_path / "out", "dataset")


@settings(max_examples=40, deadline=None)
@given(noise=st.binary(max_size=300))
def test_any_bytes_for_a_manifest_give_an_artifact_error(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    folder = tmp_path_factory.mktemp("noise")
    (folder / "manifest.json").write_bytes(noise)
    with pytest.raises(ArtifactError):
        artifact.read(folder, "model")


@given(st.dictionaries(st.text(max_size=5), st.integers() | st.text(max_size=5) | st.none(), max_size=5))
def test_the_digest_ignores_the_order_of_keys(value: dict) -> None:
    assert artifact.digest(value) == artifact.digest(dict(reversed(value.items())))
