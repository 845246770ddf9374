"""What a polyaxonfile says: the document as it is written, and the sweep it describes.

`Polyaxonfile` validates the text (and is where the JSON Schema and the reference page come from). `SweepSpec` is what
the rest of the package works with: defaults filled in, the search space built, replaced constants removed.
Polyaxon's words end here; `planning` translates them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from attrs import Factory, field, frozen
from pydantic import Field

from airflow_hptuning.polyaxonfile.airflow_section import (
    AirflowSpec,
    BudgetSpec,
    FailureLimit,
    KubernetesSpec,
    LocalSpec,
    MetricsSpec,
    OutputsSpec,
    ResultsSpec,
    TrialSpec,
    WarmStartSpec,
)
from airflow_hptuning.polyaxonfile.fields import LogLevel, Section, Slug, Text
from airflow_hptuning.polyaxonfile.hptuning import (
    ALGORITHMS,
    AlgorithmSpec,
    BayesianSpec,
    EarlyStoppingSpec,
    GaussianProcessSpec,
    GridSearchSpec,
    HptuningSpec,
    HyperbandSpec,
    MetricSpec,
    PolicySpec,
    RandomSearchSpec,
    ResourceSpec,
    UtilityFunctionSpec,
)
from airflow_hptuning.polyaxonfile.sections import BuildSpec, EnvironmentSpec, IOSpec, LoggingSpec, RunSpec
from airflow_hptuning.trials import Direction, Metric

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow_hptuning.errors import Problem
    from airflow_hptuning.space.search_space import SearchSpace

__all__ = [
    "AirflowSpec",
    "AlgorithmSpec",
    "BayesianSpec",
    "BudgetSpec",
    "BuildSpec",
    "EarlyStoppingSpec",
    "EnvironmentSpec",
    "FailureLimit",
    "GaussianProcessSpec",
    "GridSearchSpec",
    "HptuningSpec",
    "HyperbandSpec",
    "IOSpec",
    "KubernetesSpec",
    "LocalSpec",
    "LogLevel",
    "LoggingSpec",
    "MetricSpec",
    "MetricsSpec",
    "OutputsSpec",
    "PolicySpec",
    "Polyaxonfile",
    "RandomSearchSpec",
    "ResourceSpec",
    "ResultsSpec",
    "RunSpec",
    "SweepSpec",
    "TrialSpec",
    "UtilityFunctionSpec",
    "WarmStartSpec",
]


class Polyaxonfile(Section):
    """A polyaxonfile with `kind: group`: one sweep."""

    version: Literal[1] = Field(description="Version of the format: 1.", examples=[1])
    kind: Literal["group"] = Field(description="group: a group of experiments, that is a sweep.", examples=["group"])
    name: Slug | None = Field(
        default=None, description="Name of the sweep: letters, digits, - and _.", examples=["mnist-sweep"]
    )
    description: Text | None = Field(
        default=None, description="What the sweep is for.", examples=["Learning rate of the baseline"]
    )
    tags: tuple[Text, ...] | None = Field(default=None, description="Tags of the sweep.", examples=[["mnist", "cnn"]])
    logging: LoggingSpec | None = Field(default=None, description="How much trials log.", examples=[{"level": "INFO"}])
    backend: Text | None = Field(default=None, description="Polyaxon's backend; no effect.", examples=["native"])
    framework: Text | None = Field(
        default=None, description="The library trials use; for information.", examples=["pytorch"]
    )
    inputs: tuple[IOSpec, ...] | None = Field(
        default=None,
        description="Declared constants: their types and defaults.",
        examples=[[{"name": "batch_size", "type": "int", "default": 128, "is_optional": True}]],
    )
    outputs: tuple[IOSpec, ...] | None = Field(
        default=None, description="Declared results; for information.", examples=[[{"name": "loss", "type": "metric"}]]
    )
    params: dict[str, Any] | None = Field(
        default=None,
        description=(
            "Constants that templates use. They may hold templates themselves. A searched key of the same name wins."
        ),
        examples=[{"batch_size": 128}],
    )
    declarations: dict[str, Any] | None = Field(
        default=None, description="The same as params, in the spelling before 0.5.", examples=[{"batch_size": 128}]
    )
    environment: EnvironmentSpec | None = Field(
        default=None,
        description="Where and with what a trial runs on Kubernetes.",
        examples=[{"resources": {"gpu": {"limits": 1}}}],
    )
    build: BuildSpec | None = Field(
        default=None, description="What the trials run in.", examples=[{"image": "python:3.12-slim"}]
    )
    run: RunSpec = Field(description="What a trial runs.", examples=[{"cmd": "python train.py --lr={{ lr }}"}])
    hptuning: HptuningSpec = Field(description="The search.", examples=[{"matrix": {"lr": {"values": [0.01, 0.1]}}}])
    airflow: AirflowSpec = Field(
        default=AirflowSpec(), description="How the sweep runs on Airflow.", examples=[{"schedule": "@daily"}]
    )


@frozen
class SweepSpec:
    """A sweep as its polyaxonfile describes it. Two specs are equal if they mean the same, wherever they were written.

    Attributes:
        name, description, tags, backend, framework: As in the file; None or empty where it is silent.
        log_level: Level that trials should log at.
        inputs, outputs: The declared inputs and outputs.
        params: Constants as written (templates are rendered for each trial), without the searched names.
        environment, build: The sections, or None.
        run: The command, as one line.
        space: The search space.
        algorithm: The settings of the search algorithm.
        concurrency: How many trials run at the same time.
        seed: Seed of the draws; None for another one in each run.
        early_stopping: Goals and policies.
        airflow: How the sweep runs on Airflow.
        path: File it was read from, or None.
        text: The text it was read from.
        digest: SHA-256 of the text.
        document: The file as plain data, older spellings migrated.
        warnings: What is surprising, but no error.
    """

    params: Mapping[str, Any]
    run: RunSpec
    space: SearchSpace
    algorithm: AlgorithmSpec
    concurrency: int = 1
    seed: int | None = None
    early_stopping: tuple[EarlyStoppingSpec, ...] = ()
    airflow: AirflowSpec = Factory(AirflowSpec)
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    log_level: str = "INFO"
    backend: str | None = None
    framework: str | None = None
    inputs: tuple[IOSpec, ...] = ()
    outputs: tuple[IOSpec, ...] = ()
    environment: EnvironmentSpec | None = None
    build: BuildSpec | None = None
    path: str | None = field(default=None, eq=False)
    text: str = field(default="", eq=False, repr=False)
    digest: str = field(default="", eq=False)
    document: Mapping[str, Any] = field(factory=dict, eq=False, repr=False)
    warnings: tuple[Problem, ...] = field(default=(), eq=False)

    @property
    def search(self) -> str:
        """Name of the search algorithm: grid, random, hyperband or bo."""
        return _SEARCH[type(self.algorithm)]

    @property
    def resource(self) -> ResourceSpec | None:
        """What Hyperband gives more of; None for the other algorithms."""
        return self.algorithm.resource if isinstance(self.algorithm, HyperbandSpec) else None

    @property
    def objective(self) -> Metric | None:
        """The metric that trials are ranked by.

        That of Hyperband or of Bayesian optimisation, else `airflow.metrics.objective`, else the first entry of
        `early_stopping`, else None.
        """
        if isinstance(self.algorithm, HyperbandSpec | BayesianSpec):
            return self.algorithm.metric.metric
        if self.airflow.metrics.objective is not None:
            return self.airflow.metrics.objective.metric
        return next((Metric(entry.metric, entry.optimization) for entry in self.early_stopping), None)

    @property
    def directions(self) -> dict[str, Direction]:
        """Which way is better, for every metric that the file names; the objective's own word counts most."""
        directions = {entry.metric: entry.optimization for entry in reversed(self.early_stopping)}
        if self.airflow.metrics.objective is not None:
            directions[self.airflow.metrics.objective.name] = self.airflow.metrics.objective.optimization
        if self.objective is not None:
            directions[self.objective.name] = self.objective.direction
        return directions


_SEARCH = {
    GridSearchSpec: ALGORITHMS["grid_search"],
    RandomSearchSpec: ALGORITHMS["random_search"],
    HyperbandSpec: ALGORITHMS["hyperband"],
    BayesianSpec: ALGORITHMS["bo"],
}
