"""Every study has its whole table, and a row drawn at random comes out again."""

import random

import pytest
import study
import torch

NAMES = sorted(path.stem for path in study.STUDIES.glob("*.py"))
by_study = pytest.mark.parametrize("name", NAMES)


@by_study
def test_table_holds_one_row_for_each_setting(name):
    script = study.load(name)
    stored = study.read(name)
    assert set(script.TOLERANCE) == set(stored[0]) - set(script.SETTINGS[0])
    wanted = [{key: str(value) for key, value in one.items()} for one in script.SETTINGS]
    assert [{key: one[key] for key in script.SETTINGS[0]} for one in stored] == wanted


@by_study
def test_a_random_row_comes_out_again(name):
    script = study.load(name)
    number = random.SystemRandom().randrange(len(script.SETTINGS))
    stored = study.read(name)[number]
    torch.set_default_dtype(torch.float32)
    again = study.row(name, number)
    for result, tolerance in script.TOLERANCE.items():
        difference = abs(float(stored[result]) - again[result])
        assert difference <= tolerance, (number, result, stored[result], again[result])
