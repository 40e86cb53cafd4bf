"""The report on all contenders side by side at all referees: table, headlines and chart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata

from benchmarks import harness
from benchmarks.limiter.cells import COUNT, JITTERS, LEAST, OUR_SEEDS, SEEDS
from benchmarks.limiter.referees import REFEREES
from benchmarks.limiter.rivals import CONTESTS, PACKAGES, RIVALS, STRICT

BURSTLESS = "nginx b0"
_MOST_REFUSED = 1
_MOST_TIME = {"low": 1.04, "hi": 1.35}

Found = Mapping[tuple[str, ...], harness.Sample]


def counting(found: Found, noise: harness.Noise) -> harness.Report:
    """Every contender at every referee, on virtual time and at the real servers."""
    real = found.get(("real",), {})
    servers = [name for name in REFEREES if f"{STRICT}/low/{name}/refused" in real]
    rows = [
        (
            f"{jitter}: {_with_version(contender)}",
            *(_cell(found["virtual", contender], f"{jitter}/{name}") for name in REFEREES),
            *(_cell(real, f"{contender}/{jitter}/{name}") for name in servers),
        )
        for jitter in JITTERS
        for contender in CONTESTS
    ]
    return harness.Report(
        name="limiter",
        question=f"Of {COUNT} requests, 10 in flight: refused x time over the least possible ({LEAST:g} s);"
        f" medians of {SEEDS} seeds, of ours {OUR_SEEDS}; low, mid, hi: the network's jitter",
        columns=("", *REFEREES, *(f"real {name}" for name in servers)),
        rows=rows,
        headlines=[*_strict(found), *_at_real_servers(real, servers), *_agreement(found)],
        samples=samples(found, "virtual", "real", "agreement", noise=noise),
    )


def _with_version(contender: str) -> str:
    return f"{contender} {metadata.version(contender)}" if contender in PACKAGES else contender


def _cell(sample: harness.Sample, cell: str) -> str:
    if (refused := sample.get(f"{cell}/refused")) is None:
        return "-"
    time = sample.get(f"{cell}/time")
    return f"{refused:.0f}, gave up" if time is None else f"{refused:.0f}x{time:.2f}"


def _strict(found: Found) -> Iterator[harness.Headline]:
    """The targets of strict mode; nginx without a burst is beside them."""
    referees = [name for name in REFEREES if name != BURSTLESS]
    ours = found["virtual", STRICT]

    def most(contender: str) -> float:
        sample = found["virtual", contender]
        return max(sample[f"{jitter}/{name}/worst"] for jitter in JITTERS for name in referees)

    rivals = ", ".join(f"{name} {most(name):.0f}" for name in CONTESTS if name in RIVALS)
    yield harness.Headline(
        f"Refused of {COUNT} requests, at most, strict, over {len(referees)} ways of counting",
        f"{most(STRICT):.0f}",
        f"at most {_MOST_REFUSED}",
        rivals,
        met=most(STRICT) <= _MOST_REFUSED,
    )
    for jitter, target in _MOST_TIME.items():
        slowest = max(ours[f"{jitter}/{name}/time"] for name in referees)
        yield harness.Headline(
            f"Time over the least possible, strict, {jitter} jitter",
            f"{slowest:.2f}",
            f"at most {target}",
            met=round(slowest, 2) <= target,
        )
    yield harness.Headline(
        f"Refused of {COUNT} by nginx without a burst, low and hi jitter",
        " and ".join(f"{ours[f'{jitter}/{BURSTLESS}/refused']:.0f}" for jitter in _MOST_TIME),
        beside=_beside(found, BURSTLESS),
    )


def _beside(found: Found, referee: str) -> str:
    texts = {
        name: " and ".join(
            f"{found['virtual', name][f'{jitter}/{referee}/refused']:.0f}" for jitter in _MOST_TIME
        )
        for name in CONTESTS
        if name in RIVALS
    }
    return ", ".join(f"{name} {text}" for name, text in texts.items())


def _at_real_servers(real: harness.Sample, servers: Sequence[str]) -> Iterator[harness.Headline]:
    if counted := [name for name in servers if name != BURSTLESS]:
        most = max(real[f"{STRICT}/{jitter}/{name}/refused"] for jitter in _MOST_TIME for name in counted)
        yield harness.Headline(
            f"Refused of {COUNT} by real servers ({', '.join(counted)}), strict",
            f"{most:.0f}",
            f"at most {_MOST_REFUSED}",
            met=most <= _MOST_REFUSED,
        )


def _agreement(found: Found) -> Iterator[harness.Headline]:
    if sample := found.get(("agreement",)):
        shared = sum(value for name, value in sample.items() if name.endswith("/shared"))
        verdicts = sum(value for name, value in sample.items() if name.endswith("/verdicts"))
        yield harness.Headline(
            "Verdicts of the real servers that their emulations share", f"{shared:,.0f} of {verdicts:,.0f}"
        )


def samples(found: Found, *parts: str, noise: harness.Noise) -> harness.Samples:
    return harness.Samples({" ".join(key): [run] for key, run in found.items() if key[0] in parts}, noise)


def draw(found: Found) -> None:
    """A row for each contender, a mark for each referee."""
    names = list(CONTESTS)[::-1]
    title = f"Refused of {COUNT} requests at hi jitter, by way of counting"
    with harness.chart("limiter", title, height=1.2 + 0.35 * len(names)) as axes:
        for referee, marker in zip(REFEREES, "osD^v*P", strict=True):
            refused = [found["virtual", name][f"hi/{referee}/refused"] for name in names]
            hollow = referee == BURSTLESS
            axes.plot(
                refused,
                names,
                marker,
                markersize=6,
                linestyle="",
                fillstyle="none" if hollow else "full",
                label=referee,
                alpha=0.8,
            )
        axes.set_xscale("symlog", linthresh=1)
        axes.set_xlim(-0.15, None)
        axes.set_xticks([0, 1, 10, 100], ["0", "1", "10", "100"])
        axes.set_xlabel("refused requests (medians; logarithmic from 1 on)")
        axes.legend(ncols=4, loc="upper center", bbox_to_anchor=(0.45, -0.25), frameon=False)
