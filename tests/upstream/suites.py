# SPDX-License-Identifier: BSD-2-Clause
"""Upstream's suites, one function each: how it is started, and how what it says becomes results.

What each needs stands in the specification of the ABI, section 18; nothing here knows what a case tests.
"""

import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.upstream.ground import Ended, Ground
from tests.upstream.results import Result, Verdict, judged, last_said, skip
from tests.upstream.wires import interfaces

CONTROL_SECONDS = 60.0
FUNCTIONAL_SECONDS = 120.0
VALE_CTL_SECONDS = 30.0
TAP = "tap0"


Suite = Callable[[Ground, Path | None], Iterator[Result]]


# ---- ctrl-api-test: numbered cases; the program ends at the first that fails


@dataclass(frozen=True)
class Numbered:
    """The cases of one run of a program by their numbers: which began, and with what outcome."""

    begins: "re.Pattern[str]"
    passes: "re.Pattern[str]"
    fails: "re.Pattern[str]"

    def results(self, ended: Ended) -> dict[int, str]:
        """For each case that began: "" or why it failed."""
        found: dict[int, str] = {}
        said: list[str] = []
        current = 0
        for line in ended.lines:
            if match := self.begins.search(line):
                current, said = int(match[1]), []
                found[current] = ended.ending  # unless a line says otherwise
            elif match := self.passes.search(line):
                found[int(match[1])] = ""
                current = 0
            elif match := self.fails.search(line):
                found[int(match[1])] = last_said(said)
                current = 0
            else:
                said.append(line)
        if found.get(current):
            found[current] += f": {last_said(said)}"
        return found


CONTROL = Numbered(
    re.compile(r"Start of Test #(\d+)"),
    re.compile(r"Test #(\d+) .*successful"),
    re.compile(r"Test #(\d+) .*failed"),
)


# These look at names and at a struct; nobody's device has a part in it.
WITHOUT_DEVICE = ("nmreq_parsing", "binarycomp")


def control(program: str, tap: str = "") -> Suite:
    """Every case of ctrl-api-test, on a TAP device of its own making, or on ours if `tap` names one.

    It runs on from the case behind each one that fails, every time with a fresh daemon. It deletes its TAP device at
    the end, ours too.
    """

    def suite(ground: Ground, _source: Path | None) -> Iterator[Result]:
        if reason := ground.missing(program, "ip"):
            yield skip(reason)
            return
        names = dict(re.findall(r"#0*(\d+): (\w+)", "\n".join(ground.listing(program, "-l"))))
        device = ["-i", tap] if tap else []
        following = 1
        while following <= len(names):
            command = [program, *device, "-j", f"{following}-"]
            ended = ground.run(command, CONTROL_SECONDS, tap=tap, case_begins="Start of Test")
            found = CONTROL.results(ended) or {following: f"{ended.ending}: {last_said(ended.lines)}"}
            for number, failure in sorted(found.items()):
                case = f"{number:2} {names[str(number)]}"
                if failure and names[str(number)] in WITHOUT_DEVICE and fails_without_device(ground, program, number):
                    yield Result(case, Verdict.SKIP, "fails without a device too: the program and its libnetmap differ")
                else:
                    yield judged(case, failure)
            following = max(found) + 1
            if ended.status != 0 and not any(found.values()):
                yield judged("the end", f"{ended.ending}: {last_said(ended.lines)}")
        if not names:
            yield judged("the list of cases", f"{program} -l lists none")

    return suite


def fails_without_device(ground: Ground, program: str, number: int) -> bool:
    script = f"mount --bind /dev/null /dev/netmap && exec {program} -j {number}"
    return bool(CONTROL.results(ground.run(["sh", "-c", script], CONTROL_SECONDS)).get(number))


# ---- randomized_tests: scripts, first over libnetmap, then over nm_open; it ends at the first that fails

FUNCTIONAL = Numbered(
    re.compile(r"Running test #(\d+)"),
    re.compile(r"Test #(\d+) PASSED"),
    re.compile(r"Test #(\d+) FAILED"),
)
FUNCTIONAL_NEEDS = ("functional", "fd_server", "get_avail_tx_packets", "get_max_tx_packets", "vale-ctl", "bash", "bc")
FUNCTIONAL_LEGACY_NEEDS = ("functional-legacy", "fd_server-legacy")


def randomized(ground: Ground, source: Path | None) -> Iterator[Result]:
    """All tests in one run, with one daemon; if one fails the others behind it one by one, each with a fresh one."""
    script = source / "utils" / "randomized_tests" if source else None
    if script is None or not script.exists():
        yield skip(f"no {script}" if script else "its scripts are upstream's: NETMAP_SRC=TREE")
        return
    if reason := ground.missing(*FUNCTIONAL_NEEDS):
        yield skip(reason)
        return
    names = [path.name for path in sorted((script.parent / "tests").iterdir())]
    legacy = ground.missing(*FUNCTIONAL_LEGACY_NEEDS)
    if legacy:
        yield Result("with nm_open", Verdict.SKIP, legacy)
    apis = ["libnetmap"] if legacy else ["libnetmap", "nm_open"]
    cases = [f"{name}, {api}" for api in apis for name in names]
    options = ["-v", *(["-L"] if legacy else [])]

    def run(*more: str) -> Ended:
        return ground.run([str(script), *options, *more], FUNCTIONAL_SECONDS, case_begins="Running test")

    ended = run()
    found = FUNCTIONAL.results(ended)
    for number in range(1, len(cases) + 1):
        if number not in found:
            ended = run("-j", str(number))
            found[number] = FUNCTIONAL.results(ended).get(number, f"{ended.ending}: {last_said(ended.lines)}")
        yield judged(f"{number:2} {cases[number - 1]}", found[number])


# ---- sync_kloop_test: one end of a wire in CSB mode; pkt-gen is the other

KLOOP_PACKETS = 100_000  # many times round the ring
KLOOP_SECONDS = 20
KLOOP_WIRES = {"a pipe": ("wire{7", "netmap:wire}7"), "VALE": ("vale7:loop", "vale7:partner")}
# Its own loop has no end but ctrl-C. Ours waits for the partner, however that ends.
KLOOP_SCRIPT = """
{loop} &
loop=$!
sleep 1
timeout {seconds} {partner}
echo "partner: $?"
kill -INT $loop
wait $loop
echo "loop: $?"
"""


def kloop(ground: Ground, _source: Path | None) -> Iterator[Result]:
    """Sending and receiving over each kind of wire, with a loop that sleeps and with one that waits for eventfds."""
    if reason := ground.missing("sync_kloop_test", "pkt-gen", "timeout"):
        yield skip(reason)
        return
    for wire, (near, far) in KLOOP_WIRES.items():
        for function, partner in (("tx", "rx"), ("rx", "tx")):
            for how, options in (("sleeping", []), ("eventfds", ["-k"])):
                loop = ["sync_kloop_test", "-i", near, "-f", function, "-b", "64", *options]
                generator = ["pkt-gen", "-i", far, "-f", partner, "-n", str(KLOOP_PACKETS), "-w", "1"]
                script = KLOOP_SCRIPT.format(
                    loop=shlex.join(loop), partner=shlex.join(generator), seconds=KLOOP_SECONDS
                )
                ended = ground.run(["sh", "-c", script], KLOOP_SECONDS + 30)
                yield judged(f"{function} over {wire}, {how}", kloop_failure(ended))


def kloop_failure(ended: Ended) -> str:
    """What one of the two did not do; "" if both did all."""
    text = "\n".join(ended.lines)
    loop = re.search(r"^loop: (\d+)", text, re.MULTILINE)
    partner = re.search(r"^partner: (\d+)", text, re.MULTILINE)
    if not loop or not partner:
        return f"{ended.ending}: {last_said(ended.lines)}"
    if int(loop[1]):
        return f"its exit status is {loop[1]}: {loop_said(ended.lines)}"
    if int(partner[1]):
        return "pkt-gen waits for packets in vain" if partner[1] == "124" else f"pkt-gen's exit status is {partner[1]}"
    moved = re.search(r"(?:Sent|Received) (\d+) packets", text)
    if not moved or int(moved[1]) < KLOOP_PACKETS:
        return f"pkt-gen moved {moved[1] if moved else 'no'} packets of {KLOOP_PACKETS}"
    rate = re.search(r"Measured rate: ([\d.]+)", text)
    return "" if rate and float(rate[1]) > 0 else "it moved nothing"


def loop_said(lines: list[str]) -> str:
    return last_said([line for line in lines if line.startswith("ioctl(")])


# ---- vale-ctl: exit statuses, and what it lists


@dataclass(frozen=True)
class Step:
    """One call: its arguments, its exit status, and what its output must contain."""

    arguments: str
    status: int = 0
    says: str = ""


# Listing everything exits with 1 also when it succeeds: what it says tells the difference.
VALE_CTL = {
    "list nothing": [Step("", 1)],
    "create and delete": [Step("-n per0"), Step("-r per0"), Step("-n per0"), Step("-r per0")],
    "create with slots and rings": [
        Step("-n per0 -C 256,512,1,2"),
        Step("-g per0", says="tx_slots: +256"),
        Step("-g per0", says="rx_slots: +512"),
        Step("-g per0", says="rx_rings:? +2"),
        Step("-r per0"),
    ],
    "create twice": [Step("-n per0"), Step("-n per0", 1), Step("-r per0"), Step("-r per0", 1)],
    "delete what is not there": [Step("-r nothing", 1, "such")],
    "attach and detach a persistent port": [
        Step("-n per0"),
        Step("-a vale3:per0"),
        Step("-a vale3:per0", 1),
        Step("-r per0", 1),
        Step("-d vale3:per0"),
        Step("-d vale3:per0", 1),
        Step("-r per0"),
    ],
    "list ports": [
        Step("-n per0"),
        Step("-n per1"),
        Step("-a vale3:per0"),
        Step("-a vale4:per1"),
        Step("", 1, r"vale3:per0 bridge_idx \d+ port_idx \d+"),
        Step("", 1, r"vale4:per1 bridge_idx \d+ port_idx \d+"),
        Step("-l vale3:per0", says=r"bridge_idx: \d+"),
        Step("-l vale3:other", says=r"port_idx: +255"),
        Step("-l vale5:per0", 1),
        Step("-d vale3:per0"),
        Step("-d vale4:per1"),
        Step("-r per0"),
        Step("-r per1"),
        Step("", 1),
    ],
    "attach what is not there": [Step("-a vale3:nothing", 1)],
    "attach a TAP device of ours": [
        Step(f"-a vale3:{TAP}"),
        Step("", 1, rf"vale3:{TAP} "),
        Step(f"-a vale4:{TAP}", 1),
        Step(f"-d vale3:{TAP}"),
        Step(f"-d vale3:{TAP}", 1),
    ],
    "attach a TAP device of ours with the host": [
        Step(f"-h vale3:{TAP}"),
        Step("", 1, rf"vale3:{TAP}\^ "),
        Step(f"-d vale3:{TAP}"),
    ],
}


def vale_ctl(ground: Ground, _source: Path | None) -> Iterator[Result]:
    """Each scenario with a daemon of its own, which has one TAP device."""
    if reason := ground.missing("vale-ctl"):
        yield skip(reason)
        return
    for case, steps in VALE_CTL.items():
        script = "\n".join(f'vale-ctl {step.arguments}; echo "status: $?"' for step in steps)
        ended = ground.run(["sh", "-c", script], VALE_CTL_SECONDS, tap=TAP)
        yield judged(case, vale_ctl_failure(steps, ended))


def vale_ctl_failure(steps: list[Step], ended: Ended) -> str:
    """The first step that went otherwise; "" if none did."""
    said: list[str] = []
    outcomes: list[tuple[int, list[str]]] = []
    for line in ended.lines:
        if match := re.match(r"status: (\d+)", line):
            outcomes.append((int(match[1]), said))
            said = []
        elif not line.startswith("cuse-netmap: "):  # the daemon's log
            said.append(line)
    for number, step in enumerate(steps, 1):
        call = f"step {number}, vale-ctl {step.arguments}".rstrip()
        if number > len(outcomes):
            return f"{call}: {ended.ending}"
        status, said = outcomes[number - 1]
        if status != step.status:
            return f"{call}: exit status {status}, not {step.status}: {last_said(said)}"
        if not re.search(step.says, "\n".join(said)) or (not step.arguments and not step.says and said):
            return f"{call}: it says {last_said(said)!r}, not {step.says!r}"
    return ""


SUITES: dict[str, Suite] = {
    "ctrl-api-test": control("ctrl-api-test"),
    "ctrl-api-test-extmem": control("ctrl-api-test-extmem"),
    "ctrl-api-test-on-our-tap": control("ctrl-api-test", TAP),
    "ctrl-api-test-extmem-on-our-tap": control("ctrl-api-test-extmem", TAP),
    "randomized_tests": randomized,
    "sync_kloop_test": kloop,
    "vale-ctl": vale_ctl,
    "interfaces": interfaces,
}
