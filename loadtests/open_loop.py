"""Open-loop load: requests start at set times, whether or not earlier ones are answered.

    .venv/bin/python -m loadtests.open_loop --var var --rates 20,50,100,200

A closed loop (a user who waits for the answer before asking again) slows down with the server and hides how long
others would have waited: coordinated omission. Here arrivals are a Poisson process, and a latency counts from the time
at which the request should have started. The result is a saturation curve (throughput beside p50, p95, p99 for each
rate), a plot, and where the time goes by step, from Triton's own statistics.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from core.artifacts import write_json
from core.errors import ConchError
from loadtests.run import frequent_users
from loadtests.servers import running
from loadtests.stages import StepTimes, step_times
from loadtests.traffic import Traffic
from serving.client import AsyncConchClient

WARM_UP_SECONDS = 3.0
DEADLINE_SECONDS = 10.0

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True)
class Point:
    """One rate of the curve.

    Attributes:
        rate: Requests per second that were started.
        answered: Requests per second that were answered.
        p50_ms: Latency from the scheduled start; likewise the others.
        failed_share: Requests without an answer.
        late_share: Requests that the driver itself started over 10 ms late: above a few percent it is the limit.
        steps: Mean milliseconds by step.
    """

    rate: float
    answered: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    failed_share: float
    late_share: float
    steps: tuple[StepTimes, ...]


def arrivals(rate: float, seconds: float, rng: np.random.Generator) -> np.ndarray:
    """Start times of a Poisson process, float64, in seconds from 0."""
    count = rng.poisson(rate * seconds)
    return np.sort(rng.uniform(0, seconds, count))


async def measure(
    address: str, rate: float, seconds: float, traffic: Traffic, k: int, rng: np.random.Generator
) -> Point:
    """Loads a server at one rate.

    Args:
        address: gRPC of Triton.
        rate: Requests per second.
        seconds: For how long.
        traffic: Who asks.
        k: Items per answer.
        rng: Draws the arrivals.
    """
    client = AsyncConchClient(address, deadline_seconds=DEADLINE_SECONDS)
    try:
        await _load(client, arrivals(rate, WARM_UP_SECONDS, rng), traffic, k)
        before = step_times(address)
        rows = await _load(client, arrivals(rate, seconds, rng), traffic, k)
        after = step_times(address)
    finally:
        await client.close()
    latencies = np.array([ms for ms, _, failed in rows if not failed])
    p50, p95, p99 = np.percentile(latencies, [50, 95, 99]).tolist() if len(latencies) else [float("nan")] * 3
    return Point(
        rate=rate,
        answered=round(len(latencies) / seconds, 2),
        p50_ms=round(p50, 3),
        p95_ms=round(p95, 3),
        p99_ms=round(p99, 3),
        failed_share=round(1 - len(latencies) / max(1, len(rows)), 5),
        late_share=round(float(np.mean([late > 0.01 for _, late, _ in rows])) if rows else 0.0, 5),
        steps=tuple(later.since(before.get(name)) for name, later in after.items()),
    )


async def _load(
    client: AsyncConchClient, starts: np.ndarray, traffic: Traffic, k: int
) -> list[tuple[float, float, bool]]:
    """Milliseconds from the scheduled start, seconds that the start was late, failed; one row per request."""
    rows: list[tuple[float, float, bool]] = []
    began = time.perf_counter()

    async def one(due: float, users: list[str]) -> None:
        late = time.perf_counter() - began - due
        failed = False
        try:
            await client.recommend(users, k=k)
        except ConchError:
            failed = True
        rows.append(((time.perf_counter() - began - due) * 1_000, late, failed))

    async with asyncio.TaskGroup() as group:
        for due in starts.tolist():
            wait = due - (time.perf_counter() - began)
            if wait > 0:
                await asyncio.sleep(wait)
            group.create_task(one(due, traffic.draw(1)))
    return rows


@app.command()
def curve(
    var: Annotated[Path, typer.Option(help="paths.var with a live repository.")] = Path("var"),
    rates: Annotated[str, typer.Option(help="Requests per second, comma-separated.")] = "10,20,50,100,200",
    seconds: Annotated[float, typer.Option(help="Per rate, after the warm-up.")] = 15.0,
    k: Annotated[int, typer.Option(help="Items per answer.")] = 10,
    seed: Annotated[int, typer.Option(help="Of arrivals and users.")] = 0,
    out: Annotated[Path | None, typer.Option(help="Folder; loadtests/open-loop under var by default.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="A setting of the server; may repeat.")] = None,
) -> None:
    """Measure throughput and latency at rising rates."""
    folder = (out or var / "loadtests" / "open-loop").resolve()
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    traffic = Traffic(frequent_users(var), 1.0, 0.05, rng)
    extra = [part for text in set_ or () for part in ("--set", text)]
    points = []
    with running("grpc", var.resolve(), folder, extra) as target:
        for rate in [float(part) for part in rates.split(",")]:
            point = asyncio.run(measure(target.address, rate, seconds, traffic, k, rng))
            points.append(point)
            typer.echo(
                f"{point.rate:8g}/s started {point.answered:8g}/s answered "
                f"p50 {point.p50_ms:.1f} p95 {point.p95_ms:.1f} p99 {point.p99_ms:.1f} ms, "
                f"failed {point.failed_share:.2%}, driver late {point.late_share:.2%}",
                err=True,
            )
    write_json(
        folder / "curve.json",
        {"seconds": seconds, "k": k, "seed": seed, "date": f"{datetime.now(UTC):%Y-%m-%dT%H:%MZ}",
         "points": [asdict(point) for point in points]},
    )  # fmt: skip
    draw(points, folder / "curve.png")
    typer.echo(f"wrote {folder}/curve.json and curve.png", err=True)


def draw(points: Sequence[Point], path: Path) -> None:
    """Latency over throughput."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.add_subplot()
    for name in ("p50_ms", "p95_ms", "p99_ms"):
        axes.plot(
            [p.answered for p in points], [getattr(p, name) for p in points], "o-", label=name.removesuffix("_ms")
        )
    axes.set(xlabel="requests answered per second", ylabel="latency from the scheduled start, ms", yscale="log")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main() -> int:
    """Entry point; an expected failure is told without a traceback."""
    try:
        app(standalone_mode=False)
    except ConchError as error:
        typer.secho(f"loadtest: {error}", err=True, fg=typer.colors.RED)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
