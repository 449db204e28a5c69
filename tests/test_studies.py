"""Every study has its whole table, and a row drawn at random comes out again."""

import random

import pytest
import study
import torch

from regkit import datasets

NAMES = sorted(path.stem for path in study.STUDIES.glob("*.py"))
by_study = pytest.mark.parametrize("name", NAMES)


@by_study
def test_table_holds_one_row_for_each_setting(name):
    script = study.load(name)
    stored, keys = datasets.study(name), list(script.SETTINGS[0])
    assert set(script.TOLERANCE) == set(stored.columns) - set(keys)
    assert stored[keys].to_dict("records") == script.SETTINGS


@by_study
def test_a_random_row_comes_out_again(name):
    script = study.load(name)
    number = random.SystemRandom().randrange(len(script.SETTINGS))
    stored = datasets.study(name).iloc[number]
    torch.set_default_dtype(torch.float32)
    again = study.row(name, number)
    for result, tolerance in script.TOLERANCE.items():
        difference = abs(stored[result] - again[result])
        assert difference <= tolerance, (number, result, stored[result], again[result])
