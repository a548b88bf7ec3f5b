# SPDX-License-Identifier: BSD-2-Clause
"""How names become names of files: whatever a program calls its port, no two are one file and none is a path."""

import random

import pytest

from cuse_netmap.state import Each, File, file_name, key_of


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("tap0", "tap0"),
        ("vale0:a{1}", "vale0:a{1}"),
        ("a/b", "a%2Fb"),
        ("100%", "100%25"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("", "%"),
        ("%", "%25"),
        ("a b\n", "a%20b%0A"),
        ("\udcff", "%FF"),
        ("ü", "%C3%BC"),
        ("02:00:00:00:00:01", "02:00:00:00:00:01"),
    ],
)
def test_what_a_file_name_cannot_hold_is_escaped(key: str, name: str) -> None:
    assert file_name(key) == name
    assert key_of(name) == key


def test_any_bytes_come_back_and_are_a_name() -> None:
    generator = random.Random(1)  # noqa: S311 - the same names each time
    for _ in range(5000):
        key = generator.randbytes(generator.randrange(64)).decode(errors="surrogateescape")
        name = file_name(key)
        assert key_of(name) == key
        assert name not in ("", ".", "..")
        assert "/" not in name
        assert name.isascii()
        assert name.isprintable()


@pytest.mark.parametrize("name", ["a%2fb", "%61", "a/b", "a%", "%%", "%2", "%zz", "\udcff", "", "."])
def test_a_name_that_no_key_has_finds_nothing(name: str) -> None:
    """One file, one name."""
    keys = {"a/b": 1, "a": 2, "": 3, "%": 4, "a%": 5, "\udcff": 6, "%%": 7, ".": 8, "%2": 9, "%zz": 10}
    folder = Each(lambda: keys, lambda _, value: File(lambda: value))
    assert folder.child(name) is None
    for known in folder.names():
        assert folder.child(known) is not None
