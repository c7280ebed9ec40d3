"""Where a search looks when nobody says where: one table per model, or a rule for models without one."""

from __future__ import annotations

from typing import Any

from annotated_types import Ge, Gt, Le, Lt
from pydantic.fields import FieldInfo

from core.errors import SettingsError
from core.settings import Settings
from training.tuning.ranges import NumberRange, Range, parse_range

TABLES: dict[str, dict[str, str]] = {
    "mf": {
        "mf.dimension": "int:8:128:log",
        "mf.epochs": "int:4:20",
        "mf.unobserved_ratio": "float:0.5:32:log",
        "mf.regularisation": "float:0.003:0.3:log",
        "mf.value_slope": "float:0:1",
        "mf.decay_days": "float:10:365:log",
        "mf.return_boost": "float:1:30:log",
        "mf.popularity": "float:0:0.6",
    },
    "gat": {
        "gat.dimension": "int:16:64:log",
        "gat.epochs": "int:4:16",
        "gat.neighbours": "int:5:50:log",
        "gat.table_rate": "float:0.001:0.02:log",
        "gat.scalar_rate": "float:0.005:0.1:log",
        "gat.stay_close": "float:0.01:1:log",
        "gat.random_cut_weight": "float:0.01:1:log",
        "gat.drop": "float:0.1:0.8",
        "gat.popularity": "float:0:1",
    },
    "spectral": {
        "spectral.dimension": "int:16:256:log",
        "spectral.response": "float:0:2",
        "spectral.item_power": "float:0.2:0.8",
        "spectral.user_power": "float:0.2:0.8",
        "spectral.value_slope": "float:0:1",
        "spectral.decay_days": "float:10:365:log",
        "spectral.return_boost": "float:1:30:log",
        "spectral.popularity": "float:0:0.3",
    },
    "ease": {
        "ease.regularisation": "float:0.5:100:log",
        "ease.weight_power": "float:0.2:1",
        "ease.value_slope": "float:0:1",
        "ease.decay_days": "float:10:365:log",
        "ease.return_boost": "float:1:30:log",
        "ease.popularity": "float:0:0.6",
    },
    "mix": {
        "mix.method": "choice:average,weighted,bagging,boosting,stacking",
        "mix.windows": "int:1:3",
        "mix.older_weight": "float:0.2:1",
    },
    "ranker": {
        "ranker.epochs": "int:4:16",
        "ranker.learning_rate": "float:0.0005:0.01:log",
        "ranker.weight_decay": "float:0.0001:0.1:log",
        "ranker.batch_users": "choice:16,32,64",
        "ranker.embedding": "int:2:16:log",
        "ranker.cross_layers": "int:1:4",
        "ranker.hidden": "choice:[[32], [64, 32], [128, 64]]",
        "ranker.dropout": "float:0:0.5",
    },
}

FACTOR = 4
"""A derived range reaches from a quarter of the setting to four times it, within the field's own limits."""
NEAR_AN_OPEN_END = 0.9
"""How far towards a limit that is itself excluded."""


def default_ranges(model: str, settings: Settings) -> dict[str, Range]:
    """The table's ranges, or ranges around the present values of the numbers in the model's own section.

    Raises:
        SettingsError: The model has neither a table nor a section with numbers.
    """
    if model in TABLES:
        return {key: parse_range(key, text) for key, text in TABLES[model].items()}
    section = getattr(settings, model, None)
    found: dict[str, Range] = {}
    for name, field in type(section).model_fields.items() if section is not None else ():
        around = _around(getattr(section, name), field)
        if around is not None:
            found[f"{model}.{name}"] = around
    if not found:
        raise SettingsError(
            f"no default search space for {model}",
            where=f"conch tune {model}",
            next_step="name what to search: --search SECTION.KEY=RANGE, or --space FILE",
        )
    return found


def _number(limit: Any) -> float:
    return float(limit)


def _around(value: Any, field: FieldInfo) -> NumberRange | None:
    """Numbers near ``value``; None for everything that is not a positive number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        return None
    low, high = value / FACTOR, float(value * FACTOR)
    for limit in field.metadata:
        if isinstance(limit, Ge):
            low = max(low, _number(limit.ge))
        elif isinstance(limit, Gt):
            low = max(low, value + NEAR_AN_OPEN_END * (_number(limit.gt) - value))
        elif isinstance(limit, Le):
            high = min(high, _number(limit.le))
        elif isinstance(limit, Lt):
            high = min(high, value + NEAR_AN_OPEN_END * (_number(limit.lt) - value))
    if isinstance(value, int):
        low, high = max(1, round(low)), round(high)
    return NumberRange(low, high, whole=isinstance(value, int), log=True) if low < high else None
