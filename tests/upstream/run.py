# SPDX-License-Identifier: BSD-2-Clause
"""`make check-upstream`: upstream's suites, as far as they are there, unmodified, under `cuse-netmap run`.

Prints each case, then the counts of each suite. Exit status 1 if a case failed, or if there was none to run.
"""

import argparse
import os
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.upstream.ground import Ground, unshare
from tests.upstream.results import Verdict
from tests.upstream.suites import SUITES


def table(counts: dict[str, Counter[Verdict]]) -> str:
    width = max(map(len, counts))
    lines = [f"{'':<{width}}  passed  failed  skipped"]
    for suite, count in counts.items():
        lines.append(f"{suite:<{width}}  {count[Verdict.PASS]:6}  {count[Verdict.FAIL]:6}  {count[Verdict.SKIP]:7}")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="check-upstream", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--bin", metavar="DIR", required=True, help="where upstream's programs are (NETMAP_BIN)")
    parser.add_argument("--src", metavar="TREE", help="upstream's sources, of which scripts are run (NETMAP_SRC)")
    parser.add_argument("--log", type=Path, required=True, help="everything that is said goes there")
    parser.add_argument("only", nargs="*", metavar="SUITE", help=f"of {', '.join(SUITES)} (all)")
    given = parser.parse_args()
    if unknown := set(given.only) - set(SUITES):
        parser.error(f"there is no suite {', '.join(unknown)}")
    if not given.bin or not Path(given.bin).is_dir():
        parser.error(f"NETMAP_BIN={given.bin}: say where upstream's programs are")
    if os.geteuid() != 0:
        sys.exit("check-upstream: needs root (sudo make check-upstream)")
    binaries = Path(given.bin).resolve()
    source = Path(given.src).resolve() if given.src else None
    counts: dict[str, Counter[Verdict]] = {}
    with given.log.open("w") as log:
        unshare(binaries, *([source] if source else []))
        with tempfile.TemporaryDirectory(prefix="check-upstream-") as stubs:
            ground = Ground(binaries, log, Path(stubs))
            for name in given.only or SUITES:
                counts[name] = Counter()
                for result in SUITES[name](ground, source):
                    counts[name][result.verdict] += 1
                    reason = f": {result.reason}" if result.reason else ""
                    print(f"{result.verdict} {name} {result.case}".rstrip() + reason, flush=True)
    total = sum(counts.values(), Counter[Verdict]())
    print(f"\n{table(counts)}\n\nWhat was said stands in {given.log}.")
    return int(bool(total[Verdict.FAIL]) or not total[Verdict.PASS])


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)  # as a shell reports it
