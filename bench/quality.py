"""`make bench-quality`: ours and the peers on the same split in one run, one table."""

from __future__ import annotations

import dataclasses
import shlex
import signal
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from bench.crosscheck import Agreement, check, write_events
from bench.machine import shown, this_machine
from bench.ours import Chain, dataset_artifact, run_ours
from bench.peers import Bench, read_peers, run_peer
from bench.protocols import Protocol, read_protocol
from bench.results import Scored, build, score
from bench.rows import Row, missing
from bench.scoring import BadListsError, Question, question
from bench.table import render
from core.artifacts import write_json
from core.dataset import Dataset, load_dataset
from core.errors import SettingsError
from pipeline.cli import guarded

OURS = "conch"
INCOMPLETE = 3
"""Exit code where a row that should have numbers has none, or the independent evaluator disagrees."""

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def quality(
    protocol: Annotated[str, typer.Option(help="A protocol of bench/protocols.toml.")] = "movielens-100k",
    events: Annotated[Path | None, typer.Option(help="Events file, for protocols that bring none.")] = None,
    items: Annotated[Path | None, typer.Option(help="Items table.")] = None,
    users: Annotated[Path | None, typer.Option(help="Users table.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the result file; the protocol's by default.")] = None,
    seeds: Annotated[int, typer.Option(help="Seeds 0 to N-1.", min=1)] = 3,
    threads: Annotated[int, typer.Option(help="Threads of each process.", min=1)] = 2,
    only: Annotated[str, typer.Option(help="Run these rows alone (comma-separated; conch is ours).")] = "",
    set_: Annotated[list[str] | None, typer.Option("--set", "-s", help="A setting of ours; may repeat.")] = None,
    evaluator: Annotated[Path | None, typer.Option(help="An independent evaluator to agree with.")] = None,
    work: Annotated[Path, typer.Option(help="Where runs and environments lie.")] = Path("var/bench"),
    out: Annotated[Path, typer.Option(help="Where the result files go.")] = Path("bench/results"),
    resume: Annotated[bool, typer.Option(help="Take finished runs that nothing has changed for.")] = False,
    allow_missing: Annotated[bool, typer.Option(help="Exit 0 even where a row could not be run.")] = False,
) -> None:
    """Train ours and the peers on one split, score all of them alike, write bench/results/quality-<name>.{json,md}."""
    chosen = read_protocol(protocol)
    work = work.resolve()
    given = _data_options(chosen, events, items, users)
    chain = Chain(chosen.config, given, tuple(set_ or ()), work / protocol / OURS, threads)
    data = dataset_artifact(chain, resume)
    dataset = load_dataset(data)
    asked = question(dataset, chosen.fit, chosen.mask, "test", chosen.liked_from)
    wanted = {part.strip() for part in only.split(",") if part.strip()}
    bench = Bench(
        protocol,
        question(dataset, ("train",), ("train",), "valid", most_users=chosen.choose_users),
        asked,
        dataset.has_times,
        chosen.choose_by,
        chosen.users,
        work / protocol / "peers",
        work / "envs",
        threads,
        tuple(range(seeds)),
        resume,
        _say,
    )
    peers = read_peers()
    _check_names(wanted, peers)
    rows = [
        run_peer(peer, entry, bench) if not wanted or peer in wanted else missing(peer, "left out by --only")
        for peer, entry in peers.items()
    ]
    if wanted and OURS not in wanted:
        rows.append(missing(OURS, "left out by --only", ours=True))
    else:
        rows += run_ours(chain, data, dataset, asked, bench.seeds, resume, _say)
    scored = [_scored(row, asked) for row in rows]
    agreements = _agreements(scored, asked, dataset, chosen, evaluator, events, work / protocol)
    result = build(
        chosen,
        asked,
        scored,
        agreements,
        machine=this_machine(),
        threads=threads,
        command=f'make bench-quality ARGS="{shlex.join(shown(sys.argv[1:]))}"',
        seeds=bench.seeds,
    )
    target = out / f"quality-{name or protocol}"
    out.mkdir(parents=True, exist_ok=True)
    write_json(target.with_suffix(".json"), result)
    target.with_suffix(".md").write_text(render(result), encoding="utf-8")
    _say(f"wrote {target}.json and .md")
    _finish(scored, agreements, allow_missing)


def _data_options(protocol: Protocol, events: Path | None, items: Path | None, users: Path | None) -> tuple[str, ...]:
    files = {"events": events, "items": items, "users": users}
    given = {name: path.resolve() for name, path in files.items() if path is not None}
    if protocol.source == "files" and "events" not in given:
        raise SettingsError(
            f"protocol {protocol.name} brings no data", where="--events", next_step="name its events file with --events"
        )
    if protocol.source != "files" and given:
        raise SettingsError(
            f"protocol {protocol.name} brings its own data", where="--events", next_step="leave the file options out"
        )
    return (f"data.source={protocol.source}", *(f'data.{name}="{path}"' for name, path in given.items()))


def _check_names(wanted: set[str], peers: Iterable[str]) -> None:
    unknown = sorted(wanted - {OURS, *peers})
    if unknown:
        raise SettingsError("unknown row", where="--only", expected=", ".join((OURS, *peers)), found=", ".join(unknown))


def _scored(row: Row, asked: Question) -> Scored:
    try:
        return score(row, asked)
    except BadListsError as error:
        return Scored(dataclasses.replace(row, runs=(), not_run=f"refused: {error}", failed=True), {}, ())


def _agreements(
    scored: list[Scored],
    asked: Question,
    dataset: Dataset,
    protocol: Protocol,
    evaluator: Path | None,
    events: Path | None,
    folder: Path,
) -> list[Agreement]:
    """Each row's first seed, scored by the independent evaluator where one is named."""
    if evaluator is None:
        return []
    raw = events or write_events(folder / "events.csv", dataset)
    found = []
    for one in (one for one in scored if one.row.runs):
        own = {
            group: {metric: float(value.mean()) for metric, value in values.items()}
            for group, values in one.per_seed[0].items()
        }
        agreement = check(
            one.row.name,
            one.row.runs[0].lists(),
            own,
            asked=asked,
            dataset=dataset,
            evaluator=evaluator,
            events=raw,
            fit=protocol.fit,
            mask=protocol.mask,
            folder=folder,
        )
        if not agreement.agrees:
            _say(f"{one.row.name}: the independent evaluator disagrees by {agreement.widest:.5f} {agreement.note}")
        found.append(agreement)
    return found


def _finish(scored: list[Scored], agreements: list[Agreement], allow_missing: bool) -> None:
    failed = [one.row for one in scored if one.row.failed]
    for row in failed:
        typer.secho(f"{row.name}: not run: {row.not_run}", err=True, fg=typer.colors.RED)
    if any(not one.agrees for one in agreements) or (failed and not allow_missing):
        raise typer.Exit(INCOMPLETE)


def _say(text: str) -> None:
    typer.echo(f"bench: {text}")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # an exception, so that the running child is ended too
    sys.exit(guarded(app))
