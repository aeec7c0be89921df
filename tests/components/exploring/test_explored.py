import shutil
from pathlib import Path

import numpy as np
import pytest

from components.common.errors import ArtifactError, SettingsError
from components.embedding import store
from components.exploring import maps
from components.exploring.explored import Explored, open_explored
from components.exploring.server import page_data
from data.format import MULTI_LABEL
from tests.components.exploring.artifacts import make
from tests.data.files import digits

VAL = slice(30, 120)
"""Where the images of val stand among the digits."""


def opened(embeddings: Path, split: str | None = None, points: int = 1000) -> Explored:
    return open_explored(embeddings, None, None, split, points)


@pytest.fixture(scope="module")
def embeddings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("glyphs"))


def test_val_is_looked_at_unless_another_split_is_asked_for(embeddings: Path) -> None:
    explored = opened(embeddings)
    assert (explored.split.name, explored.timesteps, explored.chosen) == ("val", [0, 300, 999], [300])
    assert explored.rows.tolist() == list(range(90))
    assert opened(embeddings, "train").split.name == "train"
    with pytest.raises(SettingsError, match=r"no split test \(there are: train, val\)"):
        opened(embeddings, "test")


def test_of_more_images_than_are_shown_the_same_ones_are_drawn_each_time(embeddings: Path) -> None:
    first, again = opened(embeddings, points=20), opened(embeddings, points=20)
    assert len(set(first.rows.tolist())) == 20
    assert first.rows.tolist() == again.rows.tolist()


def test_points_are_coloured_by_class(embeddings: Path) -> None:
    (colouring,) = opened(embeddings).colourings()
    assert (colouring.name, colouring.names) == ("class", [str(digit) for digit in range(10)])
    assert colouring.of == digits()[1][VAL].tolist()


def test_of_several_labels_by_their_number_and_by_each(tmp_path: Path) -> None:
    explored = opened(make(tmp_path, MULTI_LABEL))
    number, even, _ = explored.colourings()
    numbers = digits()[1][VAL]
    assert number.of == ((numbers % 2 == 0).astype(int) + (numbers > 4)).tolist()
    assert (even.names, even.of) == (["not even", "even"], (numbers % 2 == 0).astype(int).tolist())
    words = {1: "no label", 2: "even", 5: "above four", 6: "even, above four"}
    assert all(explored.label(row) == words[number] for row, number in enumerate(numbers) if number in words)


def test_images_without_labels_have_one_colour_and_the_curve_of_the_score_that_chose_t(tmp_path: Path) -> None:
    explored = opened(make(tmp_path, labelled=False))
    (colouring,) = explored.colourings()
    assert (colouring.names, set(colouring.of), explored.label(0)) == ([""], {0}, "")
    curve = explored.curve()
    assert curve is not None
    assert [(point["t"], point["value"]) for point in curve["series"][0]["points"]] == [(0, 0.2), (300, 0.9)]


def test_the_curve_has_diers_values_on_val_and_the_best_block_of_each_baseline(embeddings: Path) -> None:
    curve = opened(embeddings).curve()
    assert curve is not None
    names = ["DiER", "the denoiser's block 1, which is given v_t", "raw pixels"]
    assert [series["name"] for series in curve["series"]] == names
    assert [point["value"] for point in curve["series"][0]["points"]] == [0.5, 0.8, 0.6]
    assert curve["series"][2]["points"] == [{"t": None, "value": 0.55, "low": 0.5, "high": 0.6}]
    assert curve["test"] == "80.00 % [70.00, 90.00]"


def test_without_a_probe_there_is_no_curve_and_one_of_another_run_is_refused(embeddings: Path, tmp_path: Path) -> None:
    for name in ("dataset", "embeddings"):
        shutil.copytree(embeddings.parent / name, tmp_path / name)
    explored = opened(tmp_path / "embeddings")
    assert (explored.curve(), explored.chosen) == (None, [])
    other = make(tmp_path / "other", labelled=False)
    with pytest.raises(ArtifactError, match=r"the probe .* was not made from the dataset"):
        open_explored(tmp_path / "embeddings", None, other.parent / "probe", None, 10)


def test_neighbours_are_those_of_comparing_all_and_not_of_the_map_alone(embeddings: Path) -> None:
    explored = opened(embeddings, points=10)
    v = store.read(explored.embedded, "val", 999)
    unit = v / np.linalg.norm(v, axis=1, keepdims=True)
    cosines = unit @ unit[7]
    expected = [row for row in np.argsort(-cosines) if row != 7][:5]
    found = explored.neighbours(7, 999, 5)
    assert [one["row"] for one in found] == expected
    np.testing.assert_allclose([one["cosine"] for one in found], cosines[expected], atol=1e-4)
    assert [one["label"] for one in found] == [str(number) for number in digits()[1][VAL][expected]]
    assert len(explored.neighbours(7, 0, 100)) == 89


def test_maps_that_differ_by_a_turn_and_a_mirror_lie_on_each_other_once_turned() -> None:
    first = maps.levelled(np.random.default_rng(0).normal(size=(50, 2)).astype(np.float32))
    angle = 2.0
    mirror = np.array([[np.cos(angle), np.sin(angle)], [np.sin(angle), -np.cos(angle)]], np.float32)
    second = maps.levelled(7 * first @ mirror + 3)
    assert np.abs(second - first).max() > 0.5
    np.testing.assert_allclose(maps.turned(second, first), first, atol=1e-5)


@pytest.mark.slow
def test_maps_are_made_once_and_kept_for_the_same_images_alone(
    embeddings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    explored = opened(embeddings)
    first = maps.maps_of(explored, tmp_path)
    assert list(first) == [0, 300, 999]
    assert all(places.shape == (90, 2) and np.isfinite(places).all() for places in first.values())
    numbers = digits()[1][VAL]
    near = first[0][numbers == 0], first[0][numbers == 1]
    assert np.linalg.norm(near[0].mean(0) - near[1].mean(0)) > 2 * near[0].std()  # classes that lie apart stay apart
    monkeypatch.setattr(maps, "make", lambda explored: pytest.fail("made again"))
    again = maps.maps_of(explored, tmp_path)
    assert all((again[t] == places).all() for t, places in first.items())
    with pytest.raises(pytest.fail.Exception, match="made again"):
        maps.maps_of(opened(embeddings, points=40), tmp_path)


def test_a_map_of_images_at_one_place_stays_finite() -> None:
    assert (maps.levelled(np.ones((5, 2), np.float32)) == 0).all()


def test_what_the_page_is_given_is_json_of_the_points_that_are_shown(embeddings: Path) -> None:
    explored = opened(embeddings, points=6)
    places = {t: np.arange(12, dtype=np.float32).reshape(6, 2) for t in explored.timesteps}
    data = page_data(explored, places, 3)
    assert data["maps"] == [list(range(12))] * 3
    assert len(data["rows"]) == len(data["labels"]) == len(data["colourings"][0]["of"]) == 6
    assert (data["count"], data["chosen"]) == (90, [300])
