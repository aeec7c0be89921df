"""The window in which Argo tries again."""

import pytest

from pipeline.kubeflow.argo_retries import FOR_A_NODE_S, FOREVER_S, window_s


@pytest.mark.parametrize(
    ("time_limit", "count", "wait", "factor", "expected"),
    [
        (3600, 0, 60, 2, 3600 + FOR_A_NODE_S),
        (259200, 3, 60, 2, 4 * (259200 + FOR_A_NODE_S) + 60 + 120 + 240),
        (100, 2, 10, 1, 3 * (100 + FOR_A_NODE_S) + 20),
        (None, 3, 60, 2, FOREVER_S),
        (259200, 20, 3600, 10, FOREVER_S),  # more than Argo can count
    ],
)
def test_every_try_and_wait_fits(time_limit: int | None, count: int, wait: int, factor: int, expected: int) -> None:
    assert window_s(time_limit, count, wait, factor) == expected
    assert window_s(time_limit, count, wait, factor) * 10**9 < 2**63
