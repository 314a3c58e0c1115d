"""Numbers are held against their limits wherever they stand: beside others, inside schedules, as
text, as nothing.
"""

import math

import pytest

from sparring.config.bounds import check_limits
from sparring.errors import UserError

RATE = {"rate": {"above": 0, "schedule": True}}


def linear(start, end, **more):
    return {"_target_": "sparring.optim.schedules.Linear", "start": start, "end": end, **more}


@pytest.mark.parametrize(
    ("limit", "inside", "outside"),
    [
        ({"min": 0, "max": 1}, [0, 1, 0.5, 1.0], [-1e-9, 1.0000001, -1, 2]),
        ({"above": 0}, [1e-300, 1, 7.5], [0, 0.0, -0.0, -1e-300]),
        ({"above": 0, "below": 1}, [0.5], [0, 1]),
        ({"min": 1, "whole": True}, [1, 2**40], [0, 1.5, 1.0]),
        ({}, [0, -1e30, 5], []),
    ],
)
def test_bounds(limit, inside, outside):
    for value in inside:
        check_limits({"x": value}, {"x": limit})
    for value in [*outside, math.nan, math.inf, -math.inf, True, "1", None, [1], {}]:
        with pytest.raises(UserError, match=r"^x=.*: x must be a (whole )?number"):
            check_limits({"x": value}, {"x": limit})


def test_null_is_for_what_is_optional():
    check_limits({"x": None}, {"x": {"above": 0, "optional": True}})
    with pytest.raises(UserError, match=r"^x=null: x must be a number above 0\.$"):
        check_limits({"x": None}, {"x": {"above": 0}})


def test_the_message_says_key_value_and_all_that_is_allowed():
    limits = {"a": {"b": {"min": 0, "below": 1, "schedule": True, "optional": True}}}
    with pytest.raises(UserError) as error:
        check_limits({"a": {"b": 1.5}}, limits)
    assert (
        str(error.value)
        == "a.b=1.5: a.b must be a number at least 0 and below 1, or a schedule, or null."
    )


def test_a_schedule_keeps_the_limits_from_its_start_to_its_end():
    # Zero is no rate to begin with, but one to end at
    check_limits({"rate": linear(1e-3, 0.0)}, RATE)
    for schedule, at in [
        (linear(-1.0, 0.0), "rate.start=-1.0"),
        (linear(1.0, -1.0), "rate.end=-1.0"),
        (linear(1.0, math.nan), "rate.end=nan"),
        (linear(math.inf, 0.0), "rate.start=inf"),
        (linear(1.0, 0.0, fraction=0), "rate.fraction=0"),
        (
            {
                "_target_": "sparring.optim.schedules.Warmup",
                "fraction": 0.1,
                "then": linear(-2.0, 0.0),
            },
            "rate.then.start=-2.0",
        ),
        (
            {"_target_": "sparring.optim.schedules.Warmup", "fraction": 0.1, "then": -3},
            "rate.then=-3",
        ),
    ]:
        with pytest.raises(UserError, match=rf"^{at}: "):
            check_limits({"rate": schedule}, RATE)


def test_a_schedule_of_ones_own_is_its_own_judge():
    check_limits({"rate": {"_target_": "my_lab.Sawtooth", "low": -1, "high": 1}}, RATE)


def test_a_schedule_is_no_number_where_none_is_read():
    with pytest.raises(UserError, match="discount must be a number"):
        check_limits({"discount": linear(0.9, 1.0)}, {"discount": {"max": 1}})


def test_what_a_config_does_not_have_is_not_missed():
    check_limits(
        {"x": 1, "y": 5}, {"z": {"min": 0}, "w": {"v": {"min": 0}}, "y": {"deeper": {"min": 9}}}
    )
