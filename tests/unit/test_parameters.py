# SPDX-License-Identifier: BSD-2-Clause
"""The table of parameters, its values and hooks; and that the documentation has every row of it."""

import errno
from pathlib import Path

import pytest

from cuse_netmap.config import Memory
from cuse_netmap.control.parameters import MEMORY, SETTINGS, TABLE, Parameters
from cuse_netmap.errors import Refused
from cuse_netmap.options import kinds

ROOT = Path(__file__).parents[2]


def refusal(parameters: Parameters, name: str, text: str) -> int | None:
    with pytest.raises(Refused) as refused:
        parameters.write(name, text)
    return refused.value.errno


def test_each_default_is_a_value_that_may_be_written() -> None:
    parameters = Parameters({})
    for name, one in TABLE.items():
        if one.live:
            parameters.write(name, f"{one.default}\n")
            parameters.write(name, str(one.low))
            assert parameters.value(name) == one.low
            parameters.write(name, str(one.high))
            assert refusal(parameters, name, str(one.high + 1)) == errno.EINVAL
            assert refusal(parameters, name, str(one.low - 1)) == errno.EINVAL
            assert parameters.value(name) == one.high
        else:
            assert refusal(parameters, name, str(one.default)) == errno.EACCES


def test_requests_for_memory_have_the_bounds_and_defaults_of_the_configuration() -> None:
    assert list(MEMORY) == list(kinds(Memory))
    for name, kind in kinds(Memory).items():
        one = MEMORY[name]
        assert one.default == getattr(Memory(), name)
        assert kind.allowed == f"a whole number from {one.low} to {one.high}"


def test_a_hook_sees_the_value_now_and_each_new_one_and_may_refuse_it() -> None:
    seen = []

    def hook(value: int) -> None:
        seen.append(value)
        if value == 7:
            raise Refused(errno.EINVAL, "not 7")

    parameters = Parameters({"fwd": 3})
    parameters.on_change("fwd", hook)
    parameters.write("fwd", "1")
    assert refusal(parameters, "fwd", "7") == errno.EINVAL
    assert seen == [3, 1, 7]
    assert parameters.value("fwd") == 1


def test_a_followed_parameter_is_what_its_source_says() -> None:
    parameters = Parameters({})
    parameters.follow("buf_curr_num", lambda: 12)
    assert parameters.value("buf_curr_num") == 12


def test_the_documentation_has_every_parameter_with_its_default_and_effect() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name, one in TABLE.items():
        writable = "yes" if one.live else "no"
        assert f"| `{name}` | {one.default} | {writable} | {one.meaning} | {one.effect or '-'} |\n" in text
    assert SETTINGS.keys() | MEMORY.keys() | {name for name in TABLE if "_curr_" in name} == TABLE.keys()
