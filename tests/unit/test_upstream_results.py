# SPDX-License-Identifier: BSD-2-Clause
"""How tests/upstream reads what upstream's programs say: no case is lost, and none passes that did not say so."""

from tests.upstream.ground import Ended
from tests.upstream.suites import (
    CONTROL,
    FUNCTIONAL,
    KLOOP_PACKETS,
    Step,
    kloop_failure,
    vale_ctl_failure,
)


def test_a_case_passes_when_its_own_line_says_so() -> None:
    ended = Ended(0, ["==> Start of Test #7 [a]", "said", "==> Test #7 [a] successful"])
    assert CONTROL.results(ended) == {7: ""}


def test_a_case_that_fails_gives_the_last_thing_it_said() -> None:
    ended = Ended(255, ["==> Start of Test #7 [a]", "first", "why", "", "Test #7 [a] failed", "cleaning up"])
    assert CONTROL.results(ended) == {7: "why"}


def test_a_case_that_ends_its_program_fails_with_the_exit_status() -> None:
    lines = ["==> Start of Test #7 [a]", "==> Test #7 [a] successful", "==> Start of Test #8 [b]", "here"]
    assert CONTROL.results(Ended(139, lines)) == {7: "", 8: "exit status 139: here"}


def test_a_case_that_hangs_fails() -> None:
    assert CONTROL.results(Ended(None, ["==> Start of Test #1 [a]"])) == {1: "it hangs: it says nothing"}


def test_a_program_that_starts_no_case_gives_none() -> None:
    assert CONTROL.results(Ended(255, ["Failed to create it"])) == {}


def test_scripts_are_read_like_cases() -> None:
    lines = ['>>> Running test #1: "tests/a"', ">>> Test #1 PASSED", '>>> Running test #2: "tests/b"']
    lines += ["tests/b: open FAIL(1 != 0).", ">>> Test #2 FAILED"]
    assert FUNCTIONAL.results(Ended(1, lines)) == {1: "", 2: "tests/b: open FAIL(1 != 0)."}


def loop(sent: int = KLOOP_PACKETS, rate: str = "0.5", partner: int = 0, own: int = 0) -> Ended:
    lines = [f"Sent {sent} packets 1 bytes", f"partner: {partner}", f"Measured rate: {rate} Mpps", f"loop: {own}"]
    return Ended(0, lines)


def test_a_loop_passes_when_both_ends_moved_everything() -> None:
    assert kloop_failure(loop()) == ""


def test_a_loop_fails_when_either_end_did_not() -> None:
    assert kloop_failure(loop(sent=KLOOP_PACKETS - 1))
    assert kloop_failure(loop(rate="0.000000"))
    assert kloop_failure(loop(partner=124))
    assert kloop_failure(loop(partner=1))
    assert kloop_failure(loop(own=1))
    assert kloop_failure(Ended(None, ["partner: 0"]))


def test_steps_pass_with_the_status_and_the_words_they_must_have() -> None:
    steps = [Step("-n a"), Step("-n a", 1), Step("", 1, "v:a ")]
    lines = ["status: 0", "exists", "cuse-netmap: WARNING: refused", "status: 1", "v:a bridge", "status: 1"]
    assert vale_ctl_failure(steps, Ended(1, lines)) == ""


def test_steps_fail_at_the_first_that_went_otherwise() -> None:
    assert vale_ctl_failure([Step("-n a")], Ended(0, ["no", "status: 1"])).startswith("step 1, vale-ctl -n a: exit")
    assert vale_ctl_failure([Step("-l a", says="b")], Ended(0, ["c", "status: 0"])).startswith("step 1")
    assert vale_ctl_failure([Step("", 1)], Ended(1, ["a port is left", "status: 1"])).startswith("step 1")
    assert vale_ctl_failure([Step("-n a"), Step("-r a")], Ended(None, ["status: 0"])) == (
        "step 2, vale-ctl -r a: it hangs"
    )
