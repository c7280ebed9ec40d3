"""The parts of the page: each turns what was collected into a title, a text, figures and a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feedback.online import OnlineMetrics, Rate
from pipeline.report.collect import ReportData, parity_of
from pipeline.report.federated import federated_part
from pipeline.report.figures import Bars, bar_chart, line_chart
from pipeline.report.parts import Part, Table


def all_parts(data: ReportData) -> list[Part]:
    """The page from top to bottom; what was not measured has no part."""
    parts = [_quality(target, report) for target, report in data.evaluations.items()]
    parts += [_slices(data.evaluations["any"]), _beyond(data.evaluations["any"])]
    if data.curves:
        parts.append(_curves(data))
    parts.append(_ranker(data))
    if data.reliability is not None:
        parts.append(_calibration(data))
    if data.tradeoff is not None:
        parts.append(_tradeoff(data.tradeoff))
    if data.ratings is not None:
        parts.append(_ratings(data.ratings))
    if data.privacy is not None:
        parts.append(_privacy(data.privacy))
    if data.federated is not None:
        parts.append(federated_part(data.federated))
    if data.online:
        parts.append(_online(data.online))
    return [*parts, _parity(data), _lineage(data)]


def _quality(target: str, report: dict[str, Any]) -> Part:
    models, ks = report["models"], _cutoffs(report)
    stages = list(models)
    first = f"ndcg@{ks[0]}"
    chart = bar_chart(
        stages,
        [Bars(first, [models[s]["warm"][first] for s in stages], [models[s]["warm"][f"{first}_se"] for s in stages])],
        first.replace("ndcg", "NDCG"),
    )
    recalls = [Bars(f"recall@{k}", [models[s]["warm"][f"recall@{k}"] for s in stages]) for k in ks]
    names = [f"{metric}@{ks[0]}" for metric in ("ndcg", "precision", "recall", "f1", "mrr", "map", "hit")]
    names += [f"recall@{k}" for k in ks[1:]]
    rows = [
        [stage, *(f"{models[stage]['warm'][name]:.4f}" for name in names), f"{models[stage]['all'][first]:.4f}"]
        for stage in stages
    ]
    gaps = [
        [f"pipeline - {name}", f"{gap['mean']:+.4f}", f"{gap['low']:+.4f} … {gap['high']:+.4f}"]
        for name, gap in report["pipeline_minus"].items()
    ]
    meaning = "any later event" if target == "any" else "a later event valued at or above the mean"
    return Part(
        f"Quality: {meaning}",
        f"{report['users']['warm']:,} warm users of {report['users']['all']:,} with something to find in the "
        f"{report['split']} split; the whole catalogue is ranked, seen items are left out. Whiskers are one standard "
        "error over users.",
        (chart, bar_chart(stages, recalls, "recall")),
        (
            Table(("stage, warm users", *names, f"{first}, all users"), rows),
            Table((f"{first}", "mean", "95 % bootstrap interval"), gaps),
        ),
    )


def _slices(report: dict[str, Any]) -> Part:
    figures, rows = [], []
    for kind in ("users", "items"):
        slices = report["slices"][kind]
        if not slices:
            continue
        stages = list(next(iter(slices.values()))["models"])
        series = [
            Bars(
                stage,
                [part["models"][stage]["mean"] for part in slices.values()],
                [part["models"][stage]["standard_error"] for part in slices.values()],
            )
            for stage in stages
        ]
        names = [f"{name}\n{part['users']:,} users" for name, part in slices.items()]
        figures.append(bar_chart(names, series, next(iter(slices.values()))["metric"]))
        rows += [
            [f"{kind}: {name}", f"{part['users']:,}", part["metric"],
             *(f"{part['models'][stage]['mean']:.4f}" for stage in stages)]
            for name, part in slices.items()
        ]  # fmt: skip
    return Part(
        "Slices",
        "New users and warm users by the length of their history; popular items (those that together have half of the "
        "events), the tail, and items without events.",
        tuple(figures),
        (Table(("slice", "users", "metric", *stages), rows),),
    )


def _beyond(report: dict[str, Any]) -> Part:
    models = report["models"]
    names = list(next(iter(models.values()))["beyond"])
    rows = [
        [stage, *("-" if (value := figures["beyond"][name]) is None else f"{value:.4f}" for name in names)]
        for stage, figures in models.items()
    ]
    return Part(
        "Beyond accuracy",
        "Coverage: share of the catalogue that anyone is shown. Gini: 0 is even exposure, 1 is one item for all. "
        "Novelty: mean self-information of what is shown. Diversity: mean attribute distance within a list.",
        tables=(Table(("stage", *names), rows),),
    )


def _curves(data: ReportData) -> Part:
    figures = []
    for curves in data.curves.values():
        losses = {name: points for name, points in curves.items() if name.endswith("loss")}
        others = {name: points for name, points in curves.items() if name not in losses}
        for lines in filter(None, (losses, others)):
            figures.append(line_chart(lines, "epoch", next(iter(lines)) if len(lines) == 1 else "on held-out users"))
    return Part("Learning curves", "One point per pass over the data.", tuple(figures))


def _ranker(data: ReportData) -> Part:
    metrics = data.artifact("ranker").manifest.metrics
    rows = [[name, str(value)] for name, value in metrics.items() if isinstance(value, int | float | str | bool)]
    return Part(
        "What the ranker was chosen by",
        "Figures of the later label window, inside the fitted data: no test event takes part in them.",
        tables=(Table(("figure", "value"), rows),),
    )


def _calibration(data: ReportData) -> Part:
    found = data.reliability
    assert found is not None
    points = list(zip(found.predicted.tolist(), found.observed.tolist(), strict=True))
    return Part(
        "Calibration",
        "Ranking scores turned into probabilities by Platt scaling, fitted on one half of the users and shown on the "
        f"other, against the share that came true. Expected calibration error {found.expected_calibration_error:.4f} "
        f"over {int(found.counts.sum()):,} recommendations.",
        (line_chart({"pipeline": points}, "predicted probability", "share that came true", diagonal=True),),
    )


def _tradeoff(report: dict[str, Any]) -> Part:
    k = report["k"]
    lines = {
        method: [(point["vector_diversity"], point[f"ndcg@{k}"]) for point in points]
        for method, points in report["curves"].items()
    }
    rows = [
        [method, f"{point['diversity']:g}", f"{point[f'ndcg@{k}']:.4f}",
         f"{point[f'ndcg@{k}_change']:+.4f} ± {point[f'ndcg@{k}_change_se']:.4f}", f"{point['vector_diversity']:.4f}",
         f"{point['coverage']:.4f}", f"{point['gini']:.4f}", f"{point['novelty_bits']:.3f}"]
        for method, points in report["curves"].items()
        for point in points
    ]  # fmt: skip
    header = ("method", "strength", f"NDCG@{k}", "change", "diversity", "coverage", "Gini", "novelty, bits")
    return Part(
        "Diversity trade-off",
        "Each point is one strength of re-ranking; diversity is the mean of 1 - cosine between the items of a list.",
        (line_chart(lines, f"intra-list diversity@{k}", f"NDCG@{k}"),),
        (Table(header, rows),),
    )


def _online(found: Sequence[OnlineMetrics]) -> Part:
    def cell(rate: Rate) -> str:
        return f"{rate.value:.2%} ({rate.low:.2%} … {rate.high:.2%})"

    rows = [
        [one.release, f"{one.users:,}", f"{one.slates:,}", cell(one.click_rate), cell(one.like_rate),
         cell(one.skip_rate), cell(one.fallback_rate), f"{one.dwell_ms.value / 1_000:.1f}", f"{one.items:,}",
         f"{one.p99_ms:.1f}"]
        for one in found
    ]  # fmt: skip
    half = [(one.click_rate.high - one.click_rate.low) / 2 for one in found]
    chart = bar_chart(
        [one.release for one in found],
        [Bars("wanted", [one.click_rate.value for one in found], half)],
        "share of slates",
    )
    return Part(
        "What users make of it",
        "The event store's last seven days by release, with 95 % intervals over users; whiskers are half an interval. "
        "Wanted: a click, like or purchase of the slate. Skips are a share of the places shown.",
        (chart,),
        (
            Table(
                ("release", "users", "slates", "wanted", "liked", "skipped", "fall-back", "dwell s", "items", "p99 ms"),
                rows,
            ),
        ),
    )


def _ratings(report: dict[str, Any]) -> Part:
    against, curve = report["predicted_actual"], report["calibration"]
    lines = {name: list(zip(against["actual"], against[name], strict=True)) for name in ("mean", "p10", "p90")}
    points = list(zip(curve["predicted"], curve["actual"], strict=True))
    names = ("rmse", "mae", "auc", "log_loss", "ece", "accuracy", "precision", "recall", "f1")
    rows = [
        [model, *(f"{figures['all'][name]:.4f}" if name in figures["all"] else "-" for name in names)]
        for model, figures in report["models"].items()
    ]
    return Part(
        "Ratings",
        f"Predicted against actual ratings of the {report['split']} split (mean, 10 % and 90 %), and the probability "
        "of being liked against the share that was.",
        (
            line_chart(lines, "actual rating", "predicted rating", diagonal=True),
            line_chart({"liked": points}, "predicted probability", "share that was liked", diagonal=True),
        ),
        (Table(("model", *names), rows),),
    )


def _privacy(report: dict[str, Any]) -> Part:
    found = report["membership"]
    half = [(one["high"] - one["low"]) / 2 for one in found.values()]
    rows = [
        [
            name,
            f"{one['auc']:.3f}",
            f"{one['low']:.3f} … {one['high']:.3f}",
            f"{one['members']:,}",
            f"{one['others']:,}",
        ]
        for name, one in found.items()
    ]
    return Part(
        "Privacy: who was learned from",
        "Each recall model was fitted on half of the users and asked about one hidden event of every user. AUC of "
        "telling the two halves apart by how probable that event seemed: 0.5 is blind, 1 tells all. Whiskers are half "
        "an interval.",
        (bar_chart(list(found), [Bars("AUC", [one["auc"] for one in found.values()], half)], "membership AUC"),),
        (Table(("model", "AUC", "95 %", "members", "others"), rows),),
    )


def _parity(data: ReportData) -> Part:
    worst: dict[str, tuple[float, int]] = {}
    for result in parity_of(data.artifact("graphs")):
        before = worst.get(result["output"], (0.0, 0))
        worst[result["output"]] = (max(before[0], result["worst"]), max(before[1], result["batch"]))
    rows = [[name, f"{value:.2g}", str(batch)] for name, (value, batch) in worst.items()]
    return Part(
        "Parity",
        "What is served against the trained modules: largest absolute error of scores, share of rows that differ "
        "beyond ties.",
        tables=(Table(("output", "worst", "largest batch"), rows),),
    )


def _lineage(data: ReportData) -> Part:
    rows = [
        [
            artifact.manifest.kind,
            artifact.manifest.run_id,
            f"{artifact.manifest.seconds:.1f}",
            f"{sum(file.size_bytes for file in artifact.manifest.files) / 1e6:.2f}",
        ]
        for artifact in (*data.lineage, data.release)
    ]
    return Part("Lineage", "", tables=(Table(("artefact", "run", "seconds", "MB"), rows),))


def _cutoffs(report: dict[str, Any]) -> list[int]:
    names = next(iter(report["models"].values()))["warm"]
    return sorted({int(name.split("@")[1]) for name in names if name.startswith("recall@")})
