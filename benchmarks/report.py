"""Samples to medians, ratios, a table and plots."""

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.loads import page
from benchmarks.runs import DURABLE_STREAMS, NAIVE, NATS, UWS, Sample, Target

Samples = Mapping[tuple[str, str], Sequence[float]]
"""Figure and system to one value a round, in the order of the rounds."""

CLIENTS = (1, 10, 100, 1_000)
HOW_COUNTED = (
    "- idle connection: by how much the server's own memory (USS: resident pages that no other process shares) grows "
    "with 5,000 silent subscribers to everything, over 5,000; buffers of the kernel are not in it",
    "- page: the processor time of all processes of Chromium, without a window and a graphics processor",
    "- fan-out, ingest: readings that subscribers received; the publishers of every system subscribe to nothing",
)


@dataclass(frozen=True)
class Verdict:
    """What became of a target."""

    target: Target
    value: float
    low: float
    high: float

    @property
    def is_met(self) -> bool:
        """Whether the median keeps the target; every round, where it must hold in each."""
        judged = (self.low, self.high) if self.target.in_each_round else (self.value,)
        return all(map(self.target.is_met, judged))


def gathered(samples: Iterable[Sample]) -> dict[tuple[str, str], list[float]]:
    """Put the samples of each figure and system together."""
    together: dict[tuple[str, str], list[float]] = defaultdict(list)
    for figure, system, value in samples:
        together[figure, system].append(value)
    return dict(together)


def judged(samples: Samples, targets: Iterable[Target]) -> list[Verdict]:
    """Compare medians with the targets that were measured; a ratio is taken within each round, then the median."""
    verdicts = []
    for target in targets:
        values = samples.get((target.figure, target.system))
        others = samples.get((target.figure, target.other)) if target.other else [1.0] * len(values or ())
        if values and others and len(values) == len(others):
            ratios = [value / other for value, other in zip(values, others, strict=True)]
            verdicts.append(Verdict(target, median(ratios), min(ratios), max(ratios)))
    return verdicts


def number(value: float) -> str:
    """Write a figure with as many digits as it deserves."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def figures_table(samples: Samples) -> str:
    """Return Markdown: every figure of every system, median and range."""
    lines = ["| figure | system | median | lowest | highest |", "|---|---|--:|--:|--:|"]
    for (figure, system), values in sorted(samples.items(), key=_order):
        cells = (number(median(values)), number(min(values)), number(max(values)))
        lines.append(f"| {figure} | {system} | {' | '.join(cells)} |")
    return "\n".join(lines)


def targets_table(verdicts: Iterable[Verdict]) -> str:
    """Return Markdown: what was promised, what came out."""
    lines = ["| what | measured | range | target | |", "|---|--:|--:|--:|---|"]
    for verdict in verdicts:
        target = verdict.target
        what = f"{target.figure}: {target.system}" + (f" / {target.other}" if target.other else "")
        bound = f"≥ {number(target.at_least)}" if target.at_least is not None else f"≤ {number(target.at_most or 0)}"
        bound += " in each round" if target.in_each_round else ""
        spread = f"{number(verdict.low)} to {number(verdict.high)}"
        lines.append(
            f"| {what} | {number(verdict.value)} | {spread} | {bound} | {'met' if verdict.is_met else '**missed**'} |"
        )
    return "\n".join(lines)


def write(
    samples: Samples, verdicts: Sequence[Verdict], directory: Path, rounds: int, circumstances: Mapping[str, str]
) -> None:
    """Write what was measured, and on what, as JSON and as Markdown."""
    directory.mkdir(parents=True, exist_ok=True)
    document = {
        **circumstances,
        "rounds": rounds,
        "samples": [{"figure": f, "system": s, "values": v} for (f, s), v in sorted(samples.items(), key=_order)],
    }
    (directory / "latest.json").write_text(json.dumps(document, indent=1) + "\n")
    text = (
        f"Medians of {rounds} rounds; the server on one core, the load on the other; ingest and the page on both.\n\n"
    )
    tables = f"{targets_table(verdicts)}\n\n{figures_table(samples)}\n"
    (directory / "latest.md").write_text(f"{text}{circumstances_list(circumstances)}\n\n{tables}")


def circumstances_list(circumstances: Mapping[str, str]) -> str:
    """Return Markdown: on what it was measured, and how what a reader could take otherwise was counted."""
    are_here = {DURABLE_STREAMS.name: DURABLE_STREAMS.is_here, "the page, in Chromium": page.is_here()}
    lacking = [
        f"- not measured: {name}, whose program is not here" for name, is_here in are_here.items() if not is_here
    ]
    return "\n".join([*(f"- {name}: {what}" for name, what in circumstances.items()), *HOW_COUNTED, *lacking])


def plot(samples: Samples, file: Path) -> None:
    """Draw deliveries a second over the number of clients, one line a system, if they were measured."""
    import matplotlib  # noqa: PLC0415

    matplotlib.use("svg")
    from matplotlib import pyplot  # noqa: PLC0415

    systems = list(dict.fromkeys(system for figure, system in samples if figure.startswith("fan-out")))
    if not systems:
        return
    styles = {NATS.name: "--", UWS.name: "--", NAIVE.name: ":"}
    pyplot.rcParams.update({"svg.fonttype": "none", "font.family": "sans-serif", "svg.hashsalt": "twincast"})
    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for system in systems:
        points = [(n, samples[key]) for n in CLIENTS if (key := (f"fan-out to {n:,}", system)) in samples]
        clients, values = [n for n, _ in points], [median(v) for _, v in points]
        spread = [[median(v) - min(v) for _, v in points], [max(v) - median(v) for _, v in points]]
        axes.errorbar(clients, values, spread, label=system, linestyle=styles.get(system, "-"), marker="o", capsize=3)
    axes.set(
        xscale="log", yscale="log", xlabel="clients", ylabel="readings delivered in a second, all clients together"
    )
    axes.set_xticks(CLIENTS, [f"{n:,}" for n in CLIENTS])
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, metadata={"Date": None})
    pyplot.close(figure)


def _order(item: tuple[tuple[str, str], Sequence[float]]) -> tuple[str, int, str]:
    (figure, system), _ = item
    head, _, tail = figure.rpartition(" ")
    digits = tail.replace(",", "")
    return (head, int(digits), system) if digits.isdigit() else (figure, 0, system)
