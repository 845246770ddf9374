"""The `airflow` section: how the sweep runs on Airflow. It is ours; the rest of the file stays a plain polyaxonfile."""

from __future__ import annotations

import importlib
import re
from datetime import datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import AfterValidator, BeforeValidator, Field, ValidationInfo, WithJsonSchema, field_validator

from airflow_hptuning.polyaxonfile.build_section import ImageBuildSpec
from airflow_hptuning.polyaxonfile.fields import (
    Amount,
    Count,
    Duration,
    Name,
    Number,
    Printed,
    Raw,
    Section,
    Text,
    Word,
    closest,
    problem,
    show,
)
from airflow_hptuning.polyaxonfile.hptuning import MetricSpec

PRESETS = ("@once", "@continuous", "@hourly", "@daily", "@weekly", "@monthly", "@quarterly", "@yearly")


def _schedule(value: Any) -> Any:
    if value is None:
        return None
    if not isinstance(value, str):
        raise problem(f"must be a cron expression or a preset, not {show(value)}", 'Such as "0 2 * * *" or @daily.')
    text = value.strip()
    if text.startswith("@"):
        if text not in PRESETS:
            known = ", ".join(PRESETS)
            raise problem(f"`{text}` is not a preset", closest(text, list(PRESETS)) or f"One of {known}.")
        return text
    croniter = importlib.import_module("croniter").croniter
    if len(text.split()) != 5 or not croniter.is_valid(text):  # noqa: PLR2004 - minute hour day month weekday
        hint = 'Minute, hour, day, month, weekday: "0 2 * * *" is every day at 2:00.'
        raise problem(f"{show(value)} is not a cron expression", hint)
    return text


def _timezone(value: str) -> str:
    try:
        ZoneInfo(value)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise problem(f"{show(value)} is not a known time zone", "Such as UTC or Europe/Berlin.") from None
    return value


def _moment(value: Any) -> Any:
    if value is None or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(value)
    except (TypeError, ValueError):
        raise problem(f"{show(value)} is not a date", "Such as 2026-01-31 or 2026-01-31T02:00:00.") from None


def _dag_id(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9_.-]{1,250}", value):
        raise problem(f"must hold up to 250 letters, digits, _ . and - only, not {show(value)}")
    return value


def _pattern(value: str) -> str:
    try:
        groups = re.compile(value).groupindex
    except (re.error, OverflowError, RecursionError) as error:
        raise problem(f"is not a regular expression: {error}") from None
    unknown = sorted(set(groups) - {"name", "value", "step"})
    if unknown:
        raise problem(f"has unknown groups: {', '.join(unknown)}", "Known are name, value and step.")
    if "value" not in groups:
        raise problem("has no group for the value", r"Such as (?P<name>\w+)=(?P<value>[-+.\deE]+).")
    return value


class FailureLimit(Section):
    """How many failed trials a sweep bears."""

    count: Amount | None = None
    percent: Number | None = None

    def allowed(self, total: int) -> int:
        """Return how many of ``total`` trials may fail."""
        if self.count is not None:
            return self.count
        return int(total * (self.percent or 0.0) / 100)


def _failure_limit(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return FailureLimit(count=value)
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    if match and float(match[1]) <= 100:  # noqa: PLR2004 - per cent
        return FailureLimit(percent=float(match[1]))
    if isinstance(value, str) and re.fullmatch(r"\d{1,9}", value):
        return FailureLimit(count=int(value))
    raise problem(f"must be a number of trials or a percentage, not {show(value)}", "Such as 5 or 20%.")


def _variables(value: Any) -> Any:
    if not isinstance(value, dict):
        raise problem("must be a mapping of names to values")
    checked: dict[str, Any] = {}
    for name, item in value.items():
        if item is None or isinstance(item, list):
            raise problem(f"`{name}` must be text, or a mapping for `valueFrom`")
        checked[name] = item if isinstance(item, dict | str) else str(item)
    return checked


Moment = Annotated[datetime, BeforeValidator(_moment), WithJsonSchema({"type": "string"})]


class KubernetesSpec(Section):
    """Where trials run on Kubernetes, beyond what `environment` says."""

    conn_id: Text | None = Field(
        default=None, description="Airflow connection to the cluster.", examples=["kubernetes_default"]
    )
    namespace: Text | None = Field(default=None, description="Namespace of the pods.", examples=["tuning"])
    service_account: Text | None = Field(default=None, description="Service account of the pods.", examples=["trainer"])
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When the image is pulled.", examples=["IfNotPresent"]
    )
    image_pull_secrets: tuple[Text, ...] = Field(
        default=(), description="Secrets to pull the image with.", examples=[["registry-key"]]
    )
    env: Annotated[dict[str, Any], BeforeValidator(_variables)] = Field(
        default={},
        description="Environment variables; a mapping instead of text is Kubernetes' valueFrom.",
        examples=[{"HF_HOME": "/cache", "TOKEN": {"secretKeyRef": {"name": "hub", "key": "token"}}}],
    )
    env_from: tuple[Raw, ...] = Field(
        default=(), description="Kubernetes envFrom entries.", examples=[[{"secretRef": {"name": "hub"}}]]
    )
    volumes: tuple[Raw, ...] = Field(
        default=(),
        description="Kubernetes volumes.",
        examples=[[{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]],
    )
    volume_mounts: tuple[Raw, ...] = Field(
        default=(), description="Kubernetes volume mounts.", examples=[[{"name": "data", "mountPath": "/data"}]]
    )
    security_context: Raw | None = Field(
        default=None, description="Security context of the pods.", examples=[{"runAsUser": 1000}]
    )
    priority_class: Text | None = Field(default=None, description="Priority class of the pods.", examples=["batch-low"])
    annotations: dict[str, Printed] = Field(
        default={}, description="Annotations of the pods.", examples=[{"note": "nightly"}]
    )
    labels: dict[str, Printed] = Field(
        default={}, description="Labels of the pods, beside our own.", examples=[{"team": "vision"}]
    )
    startup_timeout: Duration = Field(
        default=timedelta(minutes=10),
        description="How long a pod may take to start before the trial counts as unschedulable.",
        examples=["10m"],
    )
    deferrable: bool = Field(
        default=True,
        description="Whether the triggerer watches the pods, so that none of them holds a worker.",
        examples=[False],
    )
    pod_template: Raw | None = Field(
        default=None,
        description="A pod (metadata, spec) that is laid over everything else; lists are merged by name.",
        examples=[{"spec": {"hostNetwork": True}}],
    )


class LocalSpec(Section):
    """How the local runner starts trials."""

    working_dir: Text | None = Field(
        default=None,
        description="Folder the command runs in; relative to the file. Left out: the folder of the file.",
        examples=["../training"],
    )
    env: dict[str, Printed] = Field(
        default={}, description="Environment variables.", examples=[{"CUDA_VISIBLE_DEVICES": "0"}]
    )


class TrialSpec(Section):
    """How a single trial is treated."""

    retries: Amount | None = Field(
        default=None,
        description="Tries after a failure. Left out: only failures of the infrastructure are tried again.",
        examples=[2],
    )
    retry_delay: Duration = Field(
        default=timedelta(seconds=30), description="Wait before another try.", examples=["30s"]
    )
    timeout: Duration | None = Field(default=None, description="Longest time a trial may take.", examples=["2h"])


class BudgetSpec(Section):
    """Limits that end the sweep; what has been found is kept."""

    max_hours: Number | None = Field(
        default=None, gt=0, description="Hours after which no trial starts and running ones end.", examples=[8]
    )
    max_failures: (
        Annotated[
            FailureLimit,
            BeforeValidator(_failure_limit),
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "integer", "minimum": 0},
                        {"type": "string", "pattern": r"^\s*\d+(\.\d+)?\s*%?\s*$"},
                    ]
                }
            ),
        ]
        | None
    ) = Field(
        default=None,
        description="End the sweep when more trials than this have failed: a number, or a part of all trials.",
        examples=["20%"],
    )
    patience: Count | None = Field(
        default=None,
        description="End the sweep after so many finished trials without a better objective.",
        examples=[25],
    )


class MetricsSpec(Section):
    """How metrics are read and used."""

    pattern: Annotated[Text, AfterValidator(_pattern)] | None = Field(
        default=None,
        description=(
            "Regular expression for lines of output, with the groups value, name (may be left out if the file names"
            " exactly one metric) and step (optional)."
        ),
        examples=[r"(?P<name>\w+) is (?P<value>[-+.\deE]+)"],
    )
    value: Annotated[Literal["last", "best"], Word] = Field(
        default="last",
        description="Which value of a trial counts: the last (as Polyaxon) or the best.",
        examples=["best"],
    )
    objective: MetricSpec | None = Field(
        default=None,
        description="What grid and random sweeps rank by. Left out: the first entry of early_stopping.",
        examples=[{"name": "accuracy", "optimization": "maximize"}],
    )


class OutputsSpec(Section):
    """Where trials write files."""

    path: Text | None = Field(
        default=None,
        description="Parent of the outputs directories: a folder, a mounted volume, or an object-store prefix.",
        examples=["/outputs", "s3://bucket/sweeps"],
    )


class ResultsSpec(Section):
    """Files with the results of a run."""

    path: Text | None = Field(
        default=None, description="Folder or object-store prefix; left out: none are written.", examples=["/results"]
    )
    formats: tuple[Annotated[Literal["csv", "json", "parquet"], Word], ...] = Field(
        default=("csv", "json"), description="Kinds of files: csv, json, parquet.", examples=[["csv", "parquet"]]
    )


class WarmStartSpec(Section):
    """What earlier runs contribute."""

    runs: Amount = Field(default=0, description="How many earlier runs of the sweep to learn from.", examples=[3])


class AirflowSpec(Section):
    """How the sweep runs on Airflow."""

    dag_id: Annotated[Text, AfterValidator(_dag_id)] | None = Field(
        default=None, description="Name of the DAG; left out: the name of the file.", examples=["mnist_nightly"]
    )
    schedule: Annotated[str | None, BeforeValidator(_schedule)] = Field(
        default=None, description="Cron expression, preset such as @daily, or null.", examples=["0 2 * * *"]
    )
    timezone: Annotated[Text, AfterValidator(_timezone)] = Field(
        default="UTC", description="Time zone of the schedule and of dates without one.", examples=["Europe/Berlin"]
    )
    start_date: Moment | None = Field(default=None, description="First date of the schedule.", examples=["2026-01-01"])
    end_date: Moment | None = Field(default=None, description="Last date of the schedule.", examples=["2026-12-31"])
    catchup: bool = Field(default=False, description="Whether missed dates are run afterwards.", examples=[True])
    max_active_runs: Count = Field(default=1, description="How many runs may be active at once.", examples=[1])
    tags: tuple[Annotated[Text, Field(max_length=100)], ...] = Field(
        default=(), description="Tags of the DAG, beside those of the file.", examples=[["nightly"]]
    )
    owner: Name | None = Field(default=None, description="Owner of the DAG.", examples=["vision-team"])
    description: Text | None = Field(
        default=None, description="Short text in the list of DAGs; left out: that of the file.", examples=["Nightly"]
    )
    doc_md: Text | None = Field(default=None, description="Markdown shown on the DAG's page.", examples=["# Why"])
    pool: Name | None = Field(
        default=None,
        description="Pool to share; left out: one of the sweep's own with `concurrency` slots.",
        examples=["gpu"],
    )
    runner: Annotated[Literal["kubernetes", "local"], Word] | None = Field(
        default=None,
        description="Where trials run; left out: [hptuning] default_runner of the Airflow configuration.",
        examples=["local"],
    )
    kubernetes: KubernetesSpec = Field(
        default=KubernetesSpec(), description="Settings of the Kubernetes runner.", examples=[{"namespace": "tuning"}]
    )
    build: ImageBuildSpec = Field(
        default=ImageBuildSpec(),
        description="How build_steps reach trials on Kubernetes.",
        examples=[{"mode": "image", "registry": "registry.example.com/team"}],
    )
    local: LocalSpec = Field(
        default=LocalSpec(), description="Settings of the local runner.", examples=[{"working_dir": ".."}]
    )
    trial: TrialSpec = Field(
        default=TrialSpec(), description="Retries and time limit of a trial.", examples=[{"timeout": "2h"}]
    )
    budget: BudgetSpec = Field(default=BudgetSpec(), description="Limits of the sweep.", examples=[{"max_hours": 8}])
    metrics: MetricsSpec = Field(
        default=MetricsSpec(), description="How metrics are read.", examples=[{"value": "best"}]
    )
    outputs: OutputsSpec = Field(
        default=OutputsSpec(), description="Where trials write files.", examples=[{"path": "/outputs"}]
    )
    results: ResultsSpec = Field(
        default=ResultsSpec(), description="Files with the results.", examples=[{"path": "/results"}]
    )
    warm_start: WarmStartSpec = Field(
        default=WarmStartSpec(), description="Learning from earlier runs.", examples=[{"runs": 3}]
    )
    bo_synchronous: bool = Field(
        default=False,
        description=(
            "Whether Bayesian optimisation proposes as many trials as may run at once, and then waits for all of them,"
            " which makes a seeded sweep repeatable at any concurrency, and slower."
        ),
        examples=[True],
    )

    @field_validator("start_date", "end_date", mode="after")
    @classmethod
    def _in_timezone(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        zone = info.data.get("timezone", "UTC")
        return value.replace(tzinfo=ZoneInfo(zone)) if value is not None and value.tzinfo is None else value

    @field_validator("end_date", mode="after")
    @classmethod
    def _after_start(cls, value: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("start_date")
        if value is not None and start is not None and value < start:
            raise problem("is before start_date")
        return value
