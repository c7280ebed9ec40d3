"""The sections of the settings tree, one file per room. Each field's docstring is its documentation."""

from core.sections.base import LONGEST_SORT, PathSettings, Section, Split, Target
from core.sections.canary import CanarySettings
from core.sections.compression import CompressSettings, GoalName
from core.sections.data import DataSettings, EventSettings, FeatureSettings, FeatureSpec, Statistic
from core.sections.federated import FederatedSettings, PrivateSettings
from core.sections.feedback import FeedbackSettings, LabelSettings
from core.sections.gateway import GatewaySettings
from core.sections.loop import GateSettings, RetrainSettings, ScheduleSettings
from core.sections.ranking import RankerSettings, RatingSettings
from core.sections.recall import (
    ContentSettings,
    EaseSettings,
    EventWeightSettings,
    GatSettings,
    MfSettings,
    MixSettings,
    RecallSettings,
    SpectralSettings,
)
from core.sections.serving import ExportSettings, RerankSettings, ServingSettings, SimilarSettings
from core.sections.tensorrt import TensorrtSettings
from core.sections.training import EvaluateSettings, TrainSettings, TuneSettings

__all__ = [
    "LONGEST_SORT",
    "CanarySettings",
    "CompressSettings",
    "ContentSettings",
    "DataSettings",
    "EaseSettings",
    "EvaluateSettings",
    "EventSettings",
    "EventWeightSettings",
    "ExportSettings",
    "FeatureSettings",
    "FeatureSpec",
    "FederatedSettings",
    "FeedbackSettings",
    "GatSettings",
    "GateSettings",
    "GatewaySettings",
    "GoalName",
    "LabelSettings",
    "MfSettings",
    "MixSettings",
    "PathSettings",
    "PrivateSettings",
    "RankerSettings",
    "RatingSettings",
    "RecallSettings",
    "RerankSettings",
    "RetrainSettings",
    "ScheduleSettings",
    "Section",
    "ServingSettings",
    "SimilarSettings",
    "SpectralSettings",
    "Split",
    "Statistic",
    "Target",
    "TensorrtSettings",
    "TrainSettings",
    "TuneSettings",
]
