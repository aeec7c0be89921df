import subprocess
import sys

import faiss
import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from data.quality import candidates as module
from data.quality.candidates import CANDIDATES, Exact, Indexed, candidates


def described(count, seed=0):
    """Unit vectors without negative numbers, as descriptors are: 40 clouds, in which neighbours are about as near as copies."""
    rng = np.random.default_rng(seed)
    middles = rng.random((40, 80))[rng.integers(0, 40, count)]
    vectors = np.abs(middles + 0.2 * rng.standard_normal((count, 80))).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def changed(vectors, by=0.01):
    near = np.abs(vectors + by * np.random.default_rng(1).standard_normal(vectors.shape)).astype(np.float32)
    return near / np.linalg.norm(near, axis=1, keepdims=True)


@pytest.mark.slow
def test_small_sets_are_asked_in_full_without_the_library():
    assert isinstance(candidates(described(100)), Exact)
    code = (
        "import sys, numpy as np; from data.quality import near_duplicates as n;"
        "n.groups(np.random.default_rng(0).integers(0, 256, (50, 8, 8, 1)).astype(np.uint8), 0.1); print('faiss' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_sets_above_the_limit_get_an_index(monkeypatch):
    monkeypatch.setattr(module, "INDEXED", 1000)
    assert candidates(described(1000)).indexed is False
    assert candidates(described(1001)).indexed is True


@pytest.mark.slow
def test_the_index_finds_what_asking_each_finds():
    references = described(20_000)
    picked = np.arange(0, 20_000, 40)
    similarity, found = Indexed(references).search(changed(references[picked]), len(references))
    right = (found == picked[:, None]).any(1)
    assert right.mean() >= 0.99
    exact = np.take_along_axis(changed(references[picked]) @ references.T, found, 1)
    np.testing.assert_allclose(similarity, exact, atol=3e-3)  # of descriptors on a grid
    assert (np.diff(found, axis=1) > 0).all()


@pytest.mark.slow
def test_any_number_of_threads_gives_the_same_candidates():
    references = described(6000)
    queries, results = changed(references, 0.05), []
    before = faiss.omp_get_max_threads()
    for threads in (1, 2, 5):
        with threadpool_limits(threads):
            faiss.omp_set_num_threads(threads)
            index = Indexed(references)
            results.append((index.search(queries, 6000), index.search(queries, 4000), index.search(queries[:7], 6000)))
    faiss.omp_set_num_threads(before)
    for other in results[1:]:
        for (similarity, found), (similarity_too, found_too) in zip(results[0], other, strict=True):
            assert similarity.tobytes() == similarity_too.tobytes()
            assert found.tobytes() == found_too.tobytes()


def test_blocks_of_queries_change_nothing():
    references = described(6000)
    index = Indexed(references)
    whole, parts = index.search(references[:300], 6000), [index.search(references[i : i + 1], 6000) for i in range(300)]
    assert whole[0].tobytes() == np.concatenate([part[0] for part in parts]).tobytes()
    assert whole[1].tobytes() == np.concatenate([part[1] for part in parts]).tobytes()


def test_only_the_first_references_count():
    references = described(6000)
    _, found = Indexed(references).search(references[3000:3100], 3000)
    assert found.max() < 3000


def test_of_more_copies_than_candidates_the_first_are_given():
    references = described(3000)
    copies = np.arange(100, 2900, 50)
    references[copies] = references[7]
    similarity, found = Indexed(references).search(references[7:8], len(references))
    assert found[0].tolist() == [7, *copies[: CANDIDATES - 1]]
    np.testing.assert_allclose(similarity, 1)


@pytest.mark.parametrize("members", [30, 400])
def test_those_of_the_own_group_do_not_count_however_many_they_are(members):
    """The members are copies of each other; the nearest picture outside of the group comes after all of them."""
    references = described(5000)
    references[:members] = references[0]
    references[members] = changed(references[:1], 0.02)[0]
    group = np.arange(5000)
    group[:members] = 0
    similarity, found = Indexed(references).search(references[:members], 5000, (group[:members], group))
    assert (group[found] != 0).all()
    assert (found == members).any(1).all()
    assert (similarity > 0.9).any(1).all()


def test_a_group_that_is_all_there_is_has_no_candidates():
    references = described(2000)
    group = np.zeros(2000, np.int64)
    similarity, found = Indexed(references).search(references[:5], 2000, (group[:5], group))
    assert (similarity == -1).all()
    assert (found == 0).all()
