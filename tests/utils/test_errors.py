"""Every error has a code of its own, a status, and a sentence that helps."""

from __future__ import annotations

import json
from collections import Counter

import pytest

from utils import errors
from utils.errors import MediaError, TelltaleError, WeightsError

CLASSES = [c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, TelltaleError)]


@pytest.mark.parametrize("cls", CLASSES)
def test_each_error_is_complete(cls):
    problem = cls("The value is 7.", value=7).to_problem()
    assert problem["status"] in range(400, 600)
    assert problem["code"] == cls.code
    assert cls.code == cls.code.lower().replace(" ", "_")
    assert problem["type"] == f"urn:telltale:error:{cls.code}"
    assert (problem["detail"], problem["value"]) == ("The value is 7.", 7)
    assert cls.remedy.endswith(".")
    assert not cls.title.endswith(".")
    assert json.loads(json.dumps(problem)) == problem
    assert str(cls("The value is 7.")) == f"[{cls.code}] The value is 7. {cls.remedy}"


def test_codes_are_unique():
    assert [code for code, times in Counter(c.code for c in CLASSES if "code" in vars(c)).items() if times > 1] == []


def test_without_a_detail_the_title_speaks():
    assert errors.NotFoundError().detail == errors.NotFoundError.title


def test_families_can_be_caught_together():
    assert {c.status for c in CLASSES if issubclass(c, WeightsError)} == {503}
    assert all(400 <= c.status < 500 for c in CLASSES if issubclass(c, MediaError))
