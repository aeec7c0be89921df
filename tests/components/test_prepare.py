import filecmp
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from sklearn.datasets import load_sample_images

from components import prepare, validate
from components.common import artifact
from components.common.errors import SettingsError
from components.common.settings import DataSettings, ValidateSettings
from data.errors import DataError
from data.format import SPLITS, open_dataset
from pipeline.cli import main
from tests.data.files import check_message, digits, layout, save


def prepared(out: Path, **given_):
    prepare.run(DataSettings(**given_), out)
    artifact.read(out, "dataset")
    return open_dataset(out)


def npz(path: Path, **more) -> dict:
    return {"source": "npz", "path": str(path), **more}


def test_digits_are_split_three_ways_without_overlap(tmp_path):
    found = prepared(tmp_path / "out")
    assert sum(found.info.counts.values()) == 1797
    assert found.info.counts["test"] == pytest.approx(0.2 * 1797, abs=10)
    assert found.info.counts["val"] == pytest.approx(0.2 * 0.8 * 1797, abs=10)
    assert found.info.image_shape == [8, 8, 1]
    assert [note.split()[0] for note in found.info.notes[1:]] == ["cut", "test", "val"]
    together = np.concatenate([found.split(name).images[..., 0] for name in SPLITS])
    assert sorted(i.tobytes() for i in together) == sorted(i.tobytes() for i in digits()[0])
    for name in SPLITS:
        shares = np.bincount(found.split(name).labels, minlength=10) / found.info.counts[name]
        assert np.abs(shares - 0.1).max() < 0.02


def test_images_and_labels_stay_together(tmp_path):
    label_of = {image.tobytes(): label for image, label in zip(*digits(), strict=True)}
    found = prepared(tmp_path / "out")
    for name in SPLITS:
        split = found.split(name)
        assert [label_of[image.tobytes()] for image in split.images] == split.labels.tolist()


def test_official_splits_come_through_unchanged(tmp_path):
    arrays = layout()
    found = prepared(tmp_path / "out", **npz(save(tmp_path / "mine.npz", arrays), licence="CC0"))
    assert (found.info.name, found.info.source, found.info.licence, found.info.notes) == ("mine", "npz", "CC0", [])
    for name in SPLITS:
        np.testing.assert_array_equal(found.split(name).images[..., 0], arrays[f"{name}_images"])
        np.testing.assert_array_equal(found.split(name).labels, arrays[f"{name}_labels"][:, 0])
        assert found.split(name).labels.dtype == np.int64


def test_a_missing_val_is_cut_from_train_and_test_is_untouched(tmp_path):
    arrays = layout(100, 0, 30)
    file = save(tmp_path / "x.npz", arrays, drop=("val_images", "val_labels"))
    found = prepared(tmp_path / "out", **npz(file, val_fraction=0.2, seed=3))
    assert found.info.counts["train"] + found.info.counts["val"] == 100
    assert "val was made here from train: 20% of each class, seed 3" in found.info.notes[1]
    np.testing.assert_array_equal(found.split("test").images[..., 0], arrays["test_images"])
    rest = {image.tobytes() for image in found.split("train").images}
    assert rest.isdisjoint(image.tobytes() for image in found.split("val").images)


def test_several_labels_are_stored_as_they_are(tmp_path):
    several = {f"{s}_labels": np.eye(10, dtype=np.uint8)[layout()[f"{s}_labels"][:, 0]] for s in SPLITS}
    found = prepared(tmp_path / "out", **npz(save(tmp_path / "x.npz", layout(), **several)))
    assert found.info.multi_label
    assert found.split("val").labels.dtype == np.uint8
    np.testing.assert_array_equal(found.split("val").labels, several["val_labels"])


def test_limit_takes_the_first_of_each_split(tmp_path):
    arrays = layout()
    found = prepared(tmp_path / "out", **npz(save(tmp_path / "x.npz", arrays), limit=25))
    assert found.info.counts == {"train": 25, "val": 20, "test": 25}
    np.testing.assert_array_equal(found.split("train").images[..., 0], arrays["train_images"][:25])
    assert len(found.info.class_names) == 10
    assert found.info.notes == ["limited to the first 25 images of each split"]


def test_reading_ends_soon_after_the_limit(tmp_path):
    """A file that cannot be read lies beyond the images that are asked for."""
    for split in SPLITS:
        (tmp_path / "set" / split / "c").mkdir(parents=True)
        for number, image in enumerate(digits()[0][:10]):
            Image.fromarray(image).save(tmp_path / "set" / split / "c" / f"{number}.png")
    (tmp_path / "set" / "train" / "c" / "8.png").write_text("no image")
    given_ = {"source": "folder", "path": str(tmp_path / "set")}
    assert prepared(tmp_path / "out", limit=7, **given_).info.counts["train"] == 7
    with pytest.raises(DataError, match=r"8\.png"):
        prepared(tmp_path / "out", limit=9, **given_)


def scans(folder: Path, patients: int = 30, each: int = 10) -> Path:
    """Stand-in for medical scans, made of real photographs: of each patient a cut-out, several times, moved by a pixel, darker."""
    rng = np.random.default_rng(0)
    photos = [photo.mean(2) for photo in load_sample_images().images]
    for patient in range(patients):
        (folder / "train" / ("sick" if patient % 3 else "healthy")).mkdir(parents=True, exist_ok=True)
        top, left = rng.integers(100, 300, 2)
        for scan in range(each):
            down, right = np.array([top, left]) + rng.integers(0, 2, 2)
            pixels = photos[patient % 2][down : down + 32, right : right + 32] * rng.uniform(0.9, 1)
            name = f"{'sick' if patient % 3 else 'healthy'}/patient{patient:02d}_{scan}.png"
            Image.fromarray(pixels.astype(np.uint8)).save(folder / "train" / name)
    return folder


@pytest.mark.slow
def test_near_duplicates_stay_on_one_side_so_that_validate_accepts_what_is_cut_here(tmp_path):
    given_ = {"source": "folder", "path": str(scans(tmp_path / "scans"))}
    prepared(tmp_path / "single", near_duplicate_distance=0, **given_)
    with pytest.raises(DataError, match=r"near_duplicates is 1\.0, allowed 0\.1"):
        validate.run(ValidateSettings(), tmp_path / "single", tmp_path / "refused")
    found = prepared(tmp_path / "grouped", **given_)
    validate.run(ValidateSettings(), tmp_path / "grouped", tmp_path / "verdict")
    assert artifact.read(tmp_path / "verdict", "verdict").json("verdict.json")["near_duplicates"]["val"]["count"] == 0
    assert found.info.counts == {"train": 194, "val": 46, "test": 60}
    assert "300 images in 33 groups, the largest of 10; 32 groups of copies and near-duplicates" in found.info.notes[0]
    assert "60 of 300 images (20.0%)" in found.info.notes[1]
    assert {name: set(found.split(name).labels) for name in SPLITS} == {name: {0, 1} for name in SPLITS}


@pytest.mark.parametrize("source", ["folder", "npz"])
def test_what_data_group_names_stays_on_one_side(tmp_path, source):
    """The digits, ten to a patient: nothing alike about them but the name."""
    images, labels = (array[:200] for array in digits())
    patient = np.random.default_rng(0).permutation(200) // 10
    if source == "npz":
        arrays = {"train_images": images, "train_labels": labels, "test_images": images[:9], "test_labels": labels[:9]}
        path, group = save(tmp_path / "x.npz", arrays, train_groups=patient), "train_groups"
    else:
        path, group = tmp_path / "set", r"patient(\d+)"
        for number, (image, label) in enumerate(zip(images, labels, strict=True)):
            (path / "train" / str(label) / f"patient{patient[number]}").mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(path / "train" / str(label) / f"patient{patient[number]}" / f"{number}.png")
    found = prepared(tmp_path / "out", source=source, path=str(path), group=group)
    owner = {image.tobytes(): number for image, number in zip(images, patient, strict=True)}
    cut = [name for name in SPLITS if source == "folder" or name != "test"]
    patients = [{owner[image.tobytes()] for image in found.split(name).images} for name in cut]
    assert sum(map(len, patients)) == len(set.union(*patients)) == 20
    assert all(patients)
    assert f"data.group {group!r} names 20" in found.info.notes[0]


def test_a_group_that_cannot_be_had_is_refused(tmp_path):
    path, out = str(scans(tmp_path / "scans", 4, 2)), tmp_path / "out"
    for settings_, kind, message in [
        ({"source": "folder", "path": path, "group": r"subject(\d+)"}, DataError, r"train/healthy/patient00_0\.png does not match"),
        ({"source": "folder", "path": path, "group": "patient("}, SettingsError, "no regular expression"),
        ({"source": "folder", "path": path, "group": "patient"}, SettingsError, "0 capture groups"),
        ({"source": "digits", "group": r"patient(\d+)"}, SettingsError, "images of the source digits have no names"),
        (npz(save(tmp_path / "x.npz", layout(), drop=("val_images", "val_labels")), group="who"), DataError, "no array who"),
        (npz(tmp_path / "x.npz", group="test_labels"), DataError, r"test_labels is uint8 \(30, 1\)"),
    ]:
        with pytest.raises(kind, match=message):
            prepare.run(DataSettings(**settings_), out)
    assert not out.exists()


def test_a_group_beside_official_splits_changes_nothing_and_says_so(tmp_path):
    found = prepared(tmp_path / "out", **npz(save(tmp_path / "x.npz", layout()), group="train_groups"))
    assert found.info.notes == ["data.group changes nothing: every split is official"]


def test_a_limit_reads_no_more_of_a_set_that_is_cut_here_than_it_needs(tmp_path):
    folder = scans(tmp_path / "scans", 10, 10)
    (folder / "train" / "sick" / "zz.png").write_text("no image")
    given_ = {"source": "folder", "path": str(folder)}
    assert prepared(tmp_path / "out", limit=5, **given_).info.counts == {"train": 5, "val": 5, "test": 3}
    with pytest.raises(DataError, match=r"zz\.png"):
        prepared(tmp_path / "out", limit=20, **given_)


def test_size_and_channels(tmp_path):
    found = prepared(tmp_path / "out", image_size=12, channels=3, limit=20)
    assert found.info.image_shape == [12, 12, 3]
    images = found.split("train").images
    np.testing.assert_array_equal(images[..., 0], images[..., 2])


def test_two_runs_give_the_same_bytes_and_another_seed_others(tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        prepare.run(DataSettings(seed=seed), tmp_path / name)
    files = sorted(str(p.relative_to(tmp_path / "a")) for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) == 8
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "b", files, shallow=False)[0] == files
    assert filecmp.cmpfiles(tmp_path / "a", tmp_path / "c", files, shallow=False)[0] != files


def test_a_folder_of_images_becomes_a_dataset(tmp_path):
    for number, (image, label) in enumerate(zip(*(a[:200] for a in digits()), strict=True)):
        folder = tmp_path / "set" / "train" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{number:04d}.png")
    found = prepared(tmp_path / "out", source="folder", path=str(tmp_path / "set"), limit=20)
    assert found.info.counts == {"train": 20, "val": 20, "test": 20}
    per_class = np.bincount(found.split("train").labels, minlength=10)
    assert (per_class.min(), per_class.max()) == (1, 3), "sorted by class, the first 20 would hold two classes"
    assert len(found.info.notes) == 4


def test_a_blank_split_passes_here_for_validate_to_judge(tmp_path):
    file = save(tmp_path / "x.npz", layout(), test_images=np.zeros((30, 8, 8), np.uint8))
    assert prepared(tmp_path / "out", **npz(file)).split("test").images.max() == 0


def damaged_late(file: Path) -> None:
    """Flip a byte in the middle of the packed training images: sound until they are read."""
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("train_images.npy")
    content = bytearray(file.read_bytes())
    content[info.header_offset + info.compress_size // 2] ^= 0xFF
    file.write_bytes(content)


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-200])


def unequal_splits(file: Path) -> None:
    save(file, layout(), val_images=np.ones((20, 8, 9), np.uint8))


def volumes(file: Path) -> None:
    save(file, layout(), train_images=np.ones((60, 8, 8, 8), np.uint8))


def pickled(file: Path) -> None:
    save(file, layout(), train_labels=layout()["train_labels"].astype(object))


def floats(file: Path) -> None:
    save(file, layout(), test_images=layout()["test_images"] / 255)


def out_of_range(file: Path) -> None:
    save(file, layout(), test_labels=layout()["test_labels"] + 100)


def missing_key(file: Path) -> None:
    save(file, layout(), drop=("test_labels",))


@pytest.mark.parametrize("spoil", [damaged_late, truncated, unequal_splits, volumes, pickled, floats, out_of_range, missing_key])
def test_bad_data_end_with_3_one_line_and_nothing_written(tmp_path, capfd, spoil):
    file, params, out = save(tmp_path / "x.npz", layout()), tmp_path / "params.yaml", tmp_path / "made" / "out"
    params.write_text(f"data: {{source: npz, path: {file}}}\n")
    spoil(file)
    assert main(["prepare", "--params", str(params), "--out", str(out)]) == 3
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("dier: error: ")]
    assert len(errors) == 1
    assert not out.exists()
    assert not out.parent.exists() or list(out.parent.iterdir()) == []


def test_a_failure_leaves_the_dataset_of_before(tmp_path):
    file = save(tmp_path / "x.npz", layout())
    prepare.run(DataSettings(**npz(file)), tmp_path / "out")
    before = artifact.read(tmp_path / "out", "dataset").fingerprint
    damaged_late(file)
    with pytest.raises(DataError):
        prepare.run(DataSettings(**npz(file)), tmp_path / "out")
    assert artifact.read(tmp_path / "out", "dataset").fingerprint == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out", "x.npz"]


def test_a_set_that_the_source_does_not_know_is_a_matter_of_settings(tmp_path):
    with pytest.raises(SettingsError, match="CIFAR10"):
        prepare.run(DataSettings(source="torchvision", name="CIFAR10"), tmp_path / "out")


ANYTHING = hnp.arrays(
    st.one_of(
        st.just(np.dtype(np.uint8)), hnp.integer_dtypes(endianness="<"), hnp.floating_dtypes(endianness="<"), hnp.boolean_dtypes()
    ),
    hnp.array_shapes(min_dims=1, max_dims=5, min_side=0, max_side=4),
)


@st.composite
def members(draw) -> dict[str, np.ndarray]:
    """A set in the right layout, of any small size; in one case of two, an array is something else or missing."""
    pixels, colour = draw(st.tuples(st.integers(1, 4), st.integers(1, 4))), draw(st.sampled_from([(), (1,), (3,)]))
    width = draw(st.sampled_from([(), (1,), (3,)]))
    arrays = {}
    for split in SPLITS if draw(st.booleans()) else ("train", "test"):
        count = draw(st.integers(8, 12))
        arrays[f"{split}_images"] = draw(hnp.arrays(np.uint8, (count, *pixels, *colour), elements=st.integers(0, 255)))
        arrays[f"{split}_labels"] = draw(hnp.arrays(np.int64, (count, *width), elements=st.integers(0, 1)))
    if draw(st.booleans()):
        odd = draw(st.sampled_from(sorted(arrays)))
        del arrays[odd]
        arrays |= draw(st.just({}) | ANYTHING.map(lambda array: {odd: array}))
    return arrays


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(arrays=members())
def test_any_npz_gives_a_sound_dataset_or_a_data_error(tmp_path, arrays):
    out, file = tmp_path / "out", tmp_path / "x.npz"
    np.savez(file, **arrays)
    try:
        found = prepared(out, **npz(file, image_size=8))
    except DataError as error:
        event("refused")
        check_message(error)
        return
    event("prepared")
    official = {name: arrays[f"{name}_labels"] for name in SPLITS if f"{name}_labels" in arrays}
    assert sum(found.info.counts.values()) == sum(len(labels) for labels in official.values())
    for name in SPLITS:
        split = found.split(name)
        assert len(split) == len(split.labels) > 0
        assert split.labels.max(initial=0) < max(len(found.info.class_names), 2)
    np.testing.assert_array_equal(found.split("test").labels.reshape(-1), official["test"].reshape(-1))


PEAK = """
import json
import sys
from pathlib import Path
from components import prepare
from components.common.settings import DataSettings

def peak():  # not getrusage: its maximum is inherited from the process that forked this one
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])

folder, more = Path(sys.argv[1]), json.loads(sys.argv[2])
prepare.run(DataSettings(source="npz", path=str(folder / "few.npz"), **more), folder / "few")  # imports are no images' memory
before = peak()
prepare.run(DataSettings(source="npz", path=str(folder / "all.npz"), **more), folder / "all")
print(peak() - before)
"""


def peak_growth(folder: Path, write: Callable[..., None], arrays: dict[str, np.ndarray], **more: int) -> int:
    """Bytes by which preparing these arrays raises the peak of a process that has prepared 500 images of train before."""
    folder.mkdir()
    write(folder / "all.npz", **arrays)
    write(folder / "few.npz", **arrays | {name: arrays[name][:500] for name in ("train_images", "train_labels")})
    words = [sys.executable, "-c", PEAK, str(folder), json.dumps(more)]
    return int(subprocess.run(words, stdout=subprocess.PIPE, text=True, check=True).stdout) * 1024


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's own account of peak memory")
def test_memory_does_not_hold_a_split(tmp_path):
    count = 100_000
    tiles = np.kron(digits()[0], np.ones((3, 3), np.uint8))  # (1797, 24, 24)
    images = np.stack([tiles[np.arange(count) % len(tiles)]] * 3, -1)  # 173 MB
    labels = digits()[1][np.arange(count) % len(tiles)]
    arrays = {"train_images": images, "train_labels": labels, "test_images": images[:500], "test_labels": labels[:500]}
    assert peak_growth(tmp_path / "memory", np.savez_compressed, arrays) < images.nbytes / 3
