"""Fuzz targets and tell what came of it: see docs/fuzzing.md."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from fuzz.mutations import TOKENS
from fuzz.targets import CONTROL, CORPUS, TARGETS, Target

FOUND = CORPUS.parent / "found"
INPUT_MAX_S, MEMORY_MAX_MB = 10, 1_024
PROGRESS_EVERY_S = 10.0
_STATUS = re.compile(r"#(\d+)\s.*exec/s: (\d+) rss: (\d+)Mb")
_TOTAL = re.compile(r"stat::(number_of_executed_units|peak_rss_mb):\s+(\d+)")
_WRITTEN = re.compile(r"Test unit written to (\S+)")


class Outcome(NamedTuple):
    """What came of one target."""

    target: str
    executions: int
    seconds: float
    peak_mb: int
    text: str
    is_good: bool


def main() -> int:
    """Return 1 if something was found."""
    args = _arguments()
    known = {**TARGETS, CONTROL.name: CONTROL}
    targets = [known[name] for name in args.targets or TARGETS]
    shares = sum(target.share for target in targets)
    FOUND.mkdir(exist_ok=True)
    tokens = FOUND / "tokens.dict"
    tokens.write_text("".join(f'"{_escaped(token)}"\n' for token in TOKENS))
    with ThreadPoolExecutor(args.jobs) as pool:
        outcomes = list(
            pool.map(lambda target: _fuzz(target, args.executions * target.share // shares, args.seconds), targets)
        )
    _show(outcomes)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


def _escaped(token: bytes) -> str:
    return "".join(f"\\x{byte:02x}" for byte in token)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description="Fuzz the parsers of what comes from outside.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS) + "; all if none")
    parser.add_argument("--executions", type=int, default=10_000_000, help="of all targets together; 10 million")
    parser.add_argument("--seconds", type=int, default=1_800, help="at most for each target; 1800")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="targets at a time; one a core")
    args = parser.parse_args()
    if unknown := set(args.targets) - {*TARGETS, CONTROL.name}:
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return args


def _fuzz(target: Target, executions: int, seconds: int) -> Outcome:
    """Run one target in a process of its own."""
    corpus = FOUND / target.name
    corpus.mkdir(exist_ok=True)
    options = {
        "runs": executions,
        "max_total_time": seconds,
        "timeout": INPUT_MAX_S,
        "rss_limit_mb": MEMORY_MAX_MB,
        "dict": FOUND / "tokens.dict",
        "artifact_prefix": f"{corpus}-",
        "print_final_stats": 1,
    }
    told = [f"-{name}={value}" for name, value in options.items()]
    began_s = time.monotonic()
    with subprocess.Popen(
        [sys.executable, "-m", "fuzz.worker", target.name, *told, str(corpus), str(CORPUS / target.name)],
        cwd=CORPUS.parents[1],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None
        lines = _follow(target.name, process.stdout)
    totals = {match[1]: match[2] for line in lines if (match := _TOTAL.match(line))}
    is_good = process.returncode == 0
    if not is_good:
        print(*lines[-60:], sep="\n")
    return Outcome(
        target.name,
        int(totals.get("number_of_executed_units", 0)),
        time.monotonic() - began_s,
        int(totals.get("peak_rss_mb", 0)),
        "nothing found" if is_good else "; ".join(("found", *_WRITTEN.findall("\n".join(lines)))),
        is_good,
    )


def _follow(name: str, output: Iterable[str]) -> list[str]:
    """Show progress, and return what is not progress."""
    shown_s = time.monotonic()
    lines = []
    for line in output:
        status = _STATUS.match(line)
        if status is None:
            lines.append(line.rstrip())
        elif time.monotonic() - shown_s >= PROGRESS_EVERY_S:
            shown_s = time.monotonic()
            executions, per_s, mb = map(int, status.groups())
            print(f"{name:12} {executions:>12,} executions {per_s:>8,}/s {mb:>6} MB", flush=True)
    return lines


def _show(outcomes: Sequence[Outcome]) -> None:
    print(f"\n{'target':12} {'executions':>12} {'a second':>9} {'peak MB':>8}  outcome")
    for outcome in outcomes:
        per_s = outcome.executions / outcome.seconds
        print(f"{outcome.target:12} {outcome.executions:>12,} {per_s:>9,.0f} {outcome.peak_mb:>8}  {outcome.text}")
    print(f"{'all':12} {sum(outcome.executions for outcome in outcomes):>12,}")


if __name__ == "__main__":
    sys.exit(main())
