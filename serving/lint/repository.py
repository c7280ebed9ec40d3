"""A model repository as the rules see it: read once, damaged parts left out and told by the rule that owns them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tritonclient.grpc import model_config_pb2 as pb

from core.ensembles import EXTRAS, Ensemble, leaf_steps, served_ensembles
from core.errors import ReleaseError
from core.findings import Finding
from core.sections import ServingSettings
from core.tensors import ENSEMBLE, RECALL_PREFIX, StepSpec
from serving.lint.layout import CONFIG_FILE, Models, ensembles_of, is_beside, models_of, read_config


@dataclass(frozen=True)
class Repository:
    """What lies in the folder.

    Attributes:
        path: The folder.
        models: What should be there; None where the ensembles do not tell.
        configs: Those that can be read, by model.
        serving: Settings of the server that will load it; None where unknown.
        unreadable: Findings that came up while reading.
    """

    path: Path
    models: Models | None
    configs: dict[str, pb.ModelConfig]
    serving: ServingSettings | None = None
    unreadable: list[Finding] = field(default_factory=list)

    def config_path(self, model: str) -> Path:
        """Where the config of a model lies."""
        return self.path / model / CONFIG_FILE

    @property
    def leaves(self) -> dict[str, pb.ModelConfig]:
        """Configs of the steps."""
        return {name: config for name, config in self.configs.items() if name not in self.ensembles}

    @property
    def ensembles(self) -> tuple[str, ...]:
        """Names of the ensembles that can be read."""
        return tuple(name for name in ensembles_of(self.path) if name in self.configs)

    def wanted(self) -> dict[str, Ensemble]:
        """The ensembles as ``core.ensembles`` has them, by name."""
        recommend = self.configs.get(ENSEMBLE.name)
        steps = [step.model_name for step in recommend.ensemble_scheduling.step] if recommend else []
        sources = [name.removeprefix(RECALL_PREFIX) for name in steps if name.startswith(RECALL_PREFIX)]
        there = [name for name in EXTRAS if (self.path / name).is_dir()]
        return {ensemble.spec.name: ensemble for ensemble in served_ensembles(sources, there)}

    def specs(self) -> dict[str, StepSpec]:
        """Signatures of steps and ensembles, by name."""
        ensembles = tuple(self.wanted().values())
        return {spec.name: spec for spec in (*leaf_steps(ensembles), *(one.spec for one in ensembles))}


Rule = Callable[[Repository], Iterator[Finding]]


def read_repository(path: Path, serving: ServingSettings | None = None) -> Repository:
    """Reads every config of a repository; nothing is raised for a broken one."""
    configs, unreadable = {}, []
    for folder in sorted(
        entry for entry in path.iterdir() if entry.is_dir() and not entry.is_symlink() and not is_beside(entry)
    ):
        try:
            configs[folder.name] = read_config(folder)
        except ReleaseError as error:
            unreadable.append(_told("config-readable", error))
    try:
        models = models_of(path)
    except ReleaseError as error:
        models = None
        if not unreadable:
            unreadable.append(_told("ensemble-steps", error))
    return Repository(path, models, configs, serving, unreadable)


def _told(rule: str, error: ReleaseError) -> Finding:
    return Finding(rule, error.where or "", error.what, error.expected or "", error.found or "")
