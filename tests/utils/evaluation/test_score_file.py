"""Tables of scores keep their rows together."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from utils.evaluation.score_file import ScoreTable, join_tables


def table(count: int, start: int = 0) -> ScoreTable:
    numbers = np.arange(start, start + count)
    text = tuple(str(i) for i in numbers)
    return ScoreTable(
        text, ("image",) * count, numbers % 2.0, text, text, text, np.ones((count, 4)), np.ones((count, 4))
    )


def test_columns_of_other_lengths_are_refused():
    with pytest.raises(ValueError, match="equally long"):
        dataclasses.replace(table(3), names=("one",))


def test_selection_keeps_rows_together():
    picked = table(5).select(np.array([False, True, False, True, True]))
    assert picked.names == picked.groups == ("1", "3", "4")
    assert picked.labels.tolist() == [1, 1, 0]
    assert len(picked) == 3


def test_joined_tables_follow_each_other():
    joined = join_tables([table(2), table(3, 2)])
    assert joined.names == ("0", "1", "2", "3", "4")
    assert joined.logits.shape == (5, 4)
