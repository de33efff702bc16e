"""Run the benchmarks: `python -m benchmarks [LOAD…] [--rounds N] [--quick] [--against COMMIT]`.

Or walk the growth of one thing after another: `python -m benchmarks growth [DIMENSION…] [--quick] [--long]`.
`scripts/bench` installs what they need and chooses the Python, or takes it from `--python PATH`.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.markdown import Markdown
from rich.progress import Progress

from benchmarks import against, interpreter, report
from benchmarks.growth import run as growth
from benchmarks.loads import restart
from benchmarks.machine import ROOT, allow_many_files
from benchmarks.runs import LOADS, SECONDS, SQLITE, TARGETS, Sample, described

RESULTS = Path(__file__).parent / "results"
PLOT = ROOT / "docs" / "images" / "bench-fanout.svg"


def main() -> int:
    """Measure, print, write; the exit status is 1 if a target was missed."""
    if sys.argv[1:2] == ["growth"]:
        return growth.main(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description=f"Loads: {described()}; all if none is named.",
        epilog="--python PATH measures on another Python; otherwise it is one built with PGO, if there is one here",
    )
    parser.add_argument("loads", nargs="*", metavar="LOAD", help="which loads to run")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is run; medians are reported")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="how long one run takes, about")
    parser.add_argument("--quick", action="store_true", help="one short round, to see that everything works")
    parser.add_argument("--against", metavar="COMMIT", help="measure the server of another commit too, in turns")
    asked = parser.parse_args()
    if asked.against is not None:
        return _compare(asked, parser)
    unknown = set(asked.loads) - {*LOADS, "restart"}
    if unknown:
        parser.error(f"there is no load {', '.join(sorted(unknown))}; there are {described()}")
    rounds, seconds = (1, 0.5) if asked.quick else (asked.rounds, asked.seconds)
    chosen = asked.loads or [*LOADS, "restart"]

    allow_many_files()
    console = Console()
    circumstances = interpreter.described()
    console.print(Markdown(report.circumstances_list(circumstances)))
    samples = report.gathered(_measured(chosen, rounds, seconds, console))
    verdicts = report.judged(samples, TARGETS)
    console.print(Markdown(report.figures_table(samples)))
    console.print(Markdown(report.targets_table(verdicts)))
    if not asked.quick and not asked.loads:
        report.write(samples, verdicts, RESULTS, rounds, circumstances)
        report.plot(samples, PLOT)
        console.print(f"written: {RESULTS.relative_to(ROOT)}/latest.md, {PLOT.relative_to(ROOT)}")
    return 0 if all(verdict.is_met for verdict in verdicts) else 1


def _compare(asked: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    """Measure this tree and another commit in turns; the exit status is 1 if something has become worse.

    Over the baseline, it is also 1 if what was promised over it has not come out.
    """
    there_are = against.Side(against.NOW, ROOT).runs()
    if unknown := set(asked.loads) - set(there_are):
        parser.error(f"{', '.join(sorted(unknown))} is not compared; there are {', '.join(there_are)}")
    rounds, seconds = (1, 0.5) if asked.quick else (asked.rounds, asked.seconds)
    chosen = asked.loads or list(there_are)
    allow_many_files()
    console = Console()
    console.print(Markdown(report.circumstances_list(interpreter.described())))
    try:
        is_baseline = against.named(asked.against).startswith(against.BASELINE)
        with against.tree_of(asked.against) as then, Progress(console=console, transient=True) as progress:
            bar = progress.add_task("", total=rounds * 2 * sum(len(there_are[name]) for name in chosen))

            def told(what: str) -> None:
                progress.update(bar, description=what)
                progress.advance(bar)

            samples = report.gathered(against.measured(chosen, then, rounds, seconds, told))
    except ValueError as error:
        parser.error(str(error))
    found = against.changes(samples)
    console.print(Markdown(against.table(found)))
    verdicts = report.judged(samples, against.TARGETS) if is_baseline else []
    if verdicts:
        console.print(Markdown(report.targets_table(verdicts)))
    has_lost = any(change.is_loss for change in found)
    return 1 if has_lost or not all(verdict.is_met for verdict in verdicts) else 0


def _measured(chosen: list[str], rounds: int, seconds: float, console: Console) -> list[Sample]:
    """Run the loads in rounds, so that all systems meet the machine in all its moods."""
    samples: list[Sample] = []
    runs = [(name, run) for name in chosen if name != "restart" for run in LOADS[name]]
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task("", total=rounds * len(runs) + ("restart" in chosen))
        for round_ in range(rounds):
            for name, run in runs:
                progress.update(bar, description=f"round {round_ + 1} of {rounds}: {name}")
                samples.extend(run(seconds))
                progress.advance(bar)
        if "restart" in chosen:
            progress.update(bar, description="restart: filling a journal with a million entries")
            samples.extend(("restart, s", SQLITE.name, value) for value in restart.measure_rounds(rounds))
            progress.advance(bar)
    return samples


if __name__ == "__main__":
    sys.exit(main())
