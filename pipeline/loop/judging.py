"""What the verbs do: read labels, judge the newest release."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from core.artifacts import latest_artifact, parent_artifact, sha256_of
from core.dataset import load_dataset
from core.errors import GateError
from core.feedback_labels import TRAINING_EVENTS
from core.progress import Progress
from core.settings import Settings
from pipeline.gate.data_quality import DataFacts
from pipeline.gate.run import Evidence, run_gate
from pipeline.loop.inputs import Labels
from pipeline.loop.journal import Journal
from pipeline.loop.publishing import PublishedReleases
from pipeline.loop.stored_labels import stored_labels


def read_labels(settings: Settings, file: Path | None, fresh: bool = True) -> Labels:
    """Labels of a file; of the gateway's store without one, see ``stored_labels``.

    Raises:
        GateError: The file is missing or holds something else.
        StoreUnavailableError: The store cannot be read now.
        ArtifactError: Nothing was trained yet.
    """
    if file is None:
        dataset = load_dataset(latest_artifact(settings.paths.var, "dataset"))
        return stored_labels(settings, dataset.users.ids.tolist(), fresh)
    try:
        table = pq.read_table(file, columns=TRAINING_EVENTS.names).cast(TRAINING_EVENTS)
    except (OSError, pa.ArrowInvalid, KeyError, ValueError) as error:
        raise GateError(
            "labels cannot be read",
            where=str(file),
            expected=", ".join(TRAINING_EVENTS.names),
            found=str(error)[:300],
        ) from None
    return Labels(table, sha256_of(file))


def judge_newest(settings: Settings, approved: bool, progress: Progress) -> bool:
    """Runs the gate on the newest release artefact; True where it passed.

    Raises:
        GateError: It is the live one already.
    """
    challenger = latest_artifact(settings.paths.var, "release")
    champion = PublishedReleases(settings).champion()
    if champion is not None and champion.manifest.run_id == challenger.manifest.run_id:
        raise GateError(
            "the newest release is live already",
            where=str(challenger.path),
            next_step="conch retrain, or assemble another release",
        )
    data = parent_artifact(challenger, settings.paths.var, "dataset")
    published = Journal(settings.paths.var).times("published", "canary")
    facts = DataFacts(events=int(data.manifest.tensors["n_events"]))
    ruling = run_gate(settings, challenger, champion, Evidence(facts, published=published, approved=approved), progress)
    progress.say(f"gate: report {ruling.file.with_suffix('.md')}")
    return ruling.report.passed
