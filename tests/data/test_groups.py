import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from data.groups import joined

LABELLINGS = st.integers(1, 30).flatmap(
    lambda n: st.lists(hnp.arrays(np.int64, n, elements=st.integers(0, 9)), min_size=1, max_size=3)
)


@given(LABELLINGS)
def test_joined_is_the_finest_grouping_that_no_labelling_cuts(labellings):
    groups = joined(labellings)
    assert set(groups) == set(range(groups.max() + 1))
    together = np.any([labelling[:, None] == labelling for labelling in labellings], axis=0)
    for _ in groups:
        together = (together.astype(int) @ together) > 0
    assert ((groups[:, None] == groups) == together).all()


def test_text_and_numbers_may_name_groups():
    assert joined([np.array(["a", "b", "a", "c"]), np.array([7, 8, 9, 8])]).tolist() == [0, 1, 0, 1]
