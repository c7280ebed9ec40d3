"""The settings tree: typed, frozen, read from config/*.toml and changed with ``--set a.b=c``.

Every key has its default and its meaning here; config/default.toml repeats the defaults for reading and
a test holds the two together. A key that does not exist is an error that names it.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from core.errors import SettingsError
from core.sections import (
    CanarySettings,
    CompressSettings,
    ContentSettings,
    DataSettings,
    EaseSettings,
    EvaluateSettings,
    EventSettings,
    ExportSettings,
    FeatureSettings,
    FederatedSettings,
    FeedbackSettings,
    GateSettings,
    GatewaySettings,
    GatSettings,
    LabelSettings,
    MfSettings,
    MixSettings,
    PathSettings,
    PrivateSettings,
    RankerSettings,
    RatingSettings,
    RecallSettings,
    RerankSettings,
    RetrainSettings,
    ScheduleSettings,
    ServingSettings,
    SimilarSettings,
    SpectralSettings,
    TensorrtSettings,
    TrainSettings,
    TuneSettings,
)

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_FILE = ROOT / "config" / "default.toml"


class Settings(BaseModel):
    """All settings of a run, one section per room or model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    paths: PathSettings = PathSettings()
    data: DataSettings = DataSettings()
    features: FeatureSettings = FeatureSettings()
    events: EventSettings = EventSettings()
    train: TrainSettings = TrainSettings()
    mf: MfSettings = MfSettings()
    spectral: SpectralSettings = SpectralSettings()
    ease: EaseSettings = EaseSettings()
    gat: GatSettings = GatSettings()
    mix: MixSettings = MixSettings()
    recall: RecallSettings = RecallSettings()
    content: ContentSettings = ContentSettings()
    federated: FederatedSettings = FederatedSettings()
    private: PrivateSettings = PrivateSettings()
    ranker: RankerSettings = RankerSettings()
    rating: RatingSettings = RatingSettings()
    compress: CompressSettings = CompressSettings()
    export: ExportSettings = ExportSettings()
    tensorrt: TensorrtSettings = TensorrtSettings()
    rerank: RerankSettings = RerankSettings()
    similar: SimilarSettings = SimilarSettings()
    serving: ServingSettings = ServingSettings()
    evaluate: EvaluateSettings = EvaluateSettings()
    tune: TuneSettings = TuneSettings()
    feedback: FeedbackSettings = FeedbackSettings()
    labels: LabelSettings = LabelSettings()
    gate: GateSettings = GateSettings()
    retrain: RetrainSettings = RetrainSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    canary: CanarySettings = CanarySettings()
    gateway: GatewaySettings = GatewaySettings()


def load_settings(files: Iterable[Path] = (), overrides: Iterable[str] = ()) -> Settings:
    """Reads settings: defaults, then each file in turn, then each override.

    Args:
        files: TOML files; a later one wins key by key.
        overrides: ``section.key=value`` with the value in TOML, quotes optional for plain strings.

    Raises:
        SettingsError: A file that is missing or no TOML, an unknown key, a value of the wrong type.
    """
    tree: dict[str, Any] = {}
    for file in files:
        _merge(tree, _read(file))
    for text in overrides:
        _merge(tree, _parse_override(text))
    return _validated(tree)


def override(settings: Settings, overrides: Iterable[str]) -> Settings:
    """``settings`` with some keys changed, each as ``section.key=value``. Raises SettingsError as ``load_settings``."""
    tree = settings.model_dump()
    for text in overrides:
        _merge(tree, _parse_override(text))
    return _validated(tree)


def change_settings(settings: Settings, values: Mapping[str, Any]) -> Settings:
    """Settings with some keys changed.

    Args:
        settings: Where to start.
        values: ``section.key`` to plain value.

    Raises:
        SettingsError: An unknown key or a value that its key does not take.
    """
    tree = settings.model_dump()
    for key, value in values.items():
        _merge(tree, _nested(key.split("."), value))
    return _validated(tree)


def value_of(settings: Settings, key: str) -> Any:
    """The value of ``section.key``.

    Raises:
        SettingsError: No such key; names the closest one.
    """
    if key not in set(_known_keys(Settings)):
        raise unknown_key(key)
    value: Any = settings
    for part in key.split("."):
        value = getattr(value, part)
    return value


def unknown_key(key: str) -> SettingsError:
    """The error for a key that does not exist."""
    close = difflib.get_close_matches(key, sorted(_known_keys(Settings)), n=1, cutoff=0.5)
    hint = f"did you mean {close[0]}?" if close else "see config/default.toml for all keys"
    return SettingsError(f"unknown setting {key}", where=key, next_step=hint)


def _validated(tree: dict[str, Any]) -> Settings:
    try:
        return Settings.model_validate(tree)
    except ValidationError as error:
        raise _explain(error) from None


def _nested(parts: list[str], value: Any) -> dict[str, Any]:
    for part in reversed(parts):
        value = {part: value}
    return dict(value)


def _read(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SettingsError(
            "settings file not found", where=str(file), next_step="name an existing file with --config"
        ) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError("settings file is not valid TOML", where=str(file), found=str(error)) from None


def _parse_override(text: str) -> dict[str, Any]:
    key, separator, raw = text.partition("=")
    parts = key.strip().split(".")
    if not separator or not all(parts) or len(parts) < 2:
        raise SettingsError(
            "cannot read --set", where=text, expected="section.key=value, for example train.seed=7", found=text
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return _nested(parts, value)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value


def _explain(error: ValidationError) -> SettingsError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return unknown_key(key)
    return SettingsError(
        f"wrong value for setting {key}", where=key, expected=first["msg"], found=repr(first.get("input"))
    )


def _known_keys(model: type[BaseModel], prefix: str = "") -> Iterable[str]:
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            yield f"{prefix}{name}"
            yield from _known_keys(annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"
