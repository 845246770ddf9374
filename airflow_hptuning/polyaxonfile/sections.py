"""Sections that every Polyaxon run has: logging, inputs, environment, build, run (Polyaxon 0.x)."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema, model_validator

from airflow_hptuning.polyaxonfile.fields import (
    Amount,
    Level,
    LogLevel,
    Name,
    Number,
    Printed,
    Raw,
    Section,
    Text,
    Word,
    problem,
    show,
)


class LoggingSpec(Section):
    """How much trials log."""

    level: Level = Field(
        default=LogLevel.INFO,
        description="Level that trials find in POLYAXON_LOG_LEVEL. WARNING is read as WARN.",
        examples=["DEBUG"],
    )
    formatter: Text | None = Field(
        default=None, description="Accepted for Polyaxon files; has no effect.", examples=["%(message)s"]
    )


IOType = Literal[
    "int",
    "float",
    "str",
    "bool",
    "dict",
    "list",
    "uri",
    "auth",
    "path",
    "metric",
    "metadata",
    "gcs_path",
    "s3_path",
    "azure_path",
]


class IOSpec(Section):
    """One declared input or output."""

    name: Name = Field(description="Name, as templates use it.", examples=["batch_size"])
    description: Text | None = Field(default=None, description="What it is, for people.", examples=["Images per batch"])
    type: Annotated[IOType, Word] | None = Field(
        default=None, description="Type that values are checked against.", examples=["int"]
    )
    default: Any = Field(default=None, description="Value when params gives none; needs is_optional.", examples=[128])
    is_optional: bool = Field(
        default=False,
        description="Whether params may leave it out. A searched key of this name also supplies it.",
        examples=[True],
    )
    is_list: bool = Field(default=False, description="Whether it is a list of values of the type.", examples=[True])
    is_flag: bool = Field(
        default=False,
        description="Whether `{{ name }}` in the command becomes `--name` (true) or nothing (false).",
        examples=[True],
    )
    options: tuple[Any, ...] | None = Field(
        default=None, description="The values that are allowed.", examples=[[32, 64, 128]]
    )

    @model_validator(mode="after")
    def _check(self) -> IOSpec:
        if self.default is not None and not self.is_optional:
            raise problem(f"`{self.name}` has a default but is not optional", "Add `is_optional: true`.")
        if self.is_flag and self.type != "bool":
            raise problem(f"`{self.name}` is a flag, so its type must be bool")
        return self


class LimitSpec(Section):
    """Requested and maximal amount of one kind of resource."""

    requests: Number | None = Field(default=None, ge=0, description="Amount to reserve.", examples=[1])
    limits: Number | None = Field(default=None, ge=0, description="Amount not to exceed.", examples=[2])


class ResourcesSpec(Section):
    """Compute resources of a trial."""

    cpu: LimitSpec | None = Field(default=None, description="Processor cores.", examples=[{"requests": 2}])
    memory: LimitSpec | None = Field(default=None, description="Memory in MiB.", examples=[{"limits": 4096}])
    gpu: LimitSpec | None = Field(default=None, description="NVIDIA GPUs (nvidia.com/gpu).", examples=[{"limits": 1}])
    tpu: LimitSpec | None = Field(default=None, description="Cloud TPU cores.", examples=[{"limits": 8}])


class PersistenceSpec(Section):
    """Polyaxon's named stores, in the spelling before 0.5."""

    data: tuple[Text, ...] | None = Field(
        default=None, description="Names of data stores; no effect.", examples=[["data1"]]
    )
    outputs: Text | None = Field(
        default=None, description="Name of the outputs store; no effect.", examples=["outputs1"]
    )


class OutputsRefSpec(Section):
    """Outputs of earlier Polyaxon runs to mount."""

    jobs: tuple[Any, ...] | None = Field(default=None, description="Job ids; no effect.", examples=[[111]])
    experiments: tuple[Any, ...] | None = Field(
        default=None, description="Experiment ids; no effect.", examples=[[10647]]
    )


class EnvironmentSpec(Section):
    """Where and with what a trial runs on Kubernetes."""

    resources: ResourcesSpec | None = Field(
        default=None, description="Compute resources.", examples=[{"gpu": {"limits": 1}}]
    )
    labels: dict[str, Printed] | None = Field(
        default=None, description="Labels of the pods.", examples=[{"team": "vision"}]
    )
    annotations: dict[str, Printed] | None = Field(
        default=None, description="Annotations of the pods.", examples=[{"note": "nightly"}]
    )
    node_selector: dict[str, Printed] | None = Field(
        default=None, description="Labels that a node must have.", examples=[{"disk": "ssd"}]
    )
    affinity: Raw | None = Field(
        default=None, description="Kubernetes affinity, as it is.", examples=[{"nodeAffinity": {}}]
    )
    tolerations: tuple[Raw, ...] | None = Field(
        default=None, description="Kubernetes tolerations, as they are.", examples=[[{"operator": "Exists"}]]
    )
    service_account: Text | None = Field(default=None, description="Service account of the pods.", examples=["trainer"])
    image_pull_secrets: tuple[Text, ...] | None = Field(
        default=None, description="Secrets to pull the image with.", examples=[["registry-key"]]
    )
    max_restarts: Amount | None = Field(
        default=None,
        description="Above 0 Kubernetes restarts a failed container in place. Prefer airflow.trial.retries.",
        examples=[0],
    )
    secret_refs: tuple[Text, ...] | None = Field(
        default=None, description="Secrets whose entries become environment variables.", examples=[["tokens"]]
    )
    config_map_refs: tuple[Text, ...] | None = Field(
        default=None,
        description="Config maps whose entries become environment variables.",
        examples=[["settings"]],
    )
    data_refs: tuple[Text, ...] | None = Field(
        default=None, description="Polyaxon data stores; no effect.", examples=[["data1"]]
    )
    artifact_refs: tuple[Text, ...] | None = Field(
        default=None, description="Polyaxon artifact stores; no effect.", examples=[["outputs1"]]
    )
    persistence: PersistenceSpec | None = Field(
        default=None, description="Polyaxon stores in the old spelling; no effect.", examples=[{"data": ["d1"]}]
    )
    outputs: OutputsRefSpec | None = Field(
        default=None, description="Outputs of earlier Polyaxon runs; no effect.", examples=[{"jobs": [111]}]
    )
    replicas: Raw | None = Field(
        default=None,
        description="Distributed training; not supported: each trial runs in one pod.",
        examples=[{"n_workers": 2}],
    )

    @model_validator(mode="after")
    def _check(self) -> EnvironmentSpec:
        if self.persistence is not None and (self.data_refs is not None or self.artifact_refs is not None):
            raise problem("`persistence` cannot be combined with `data_refs` or `artifact_refs`")
        return self


def _pair(value: Any) -> Any:
    if isinstance(value, dict):
        lines = ", ".join(f"[{name}, {show(text)}]" for name, text in list(value.items())[:3])
        raise problem("must be a list of [name, value] pairs, not a mapping", f"Write [{lines}].")
    if isinstance(value, list | tuple) and all(isinstance(pair, list | tuple) for pair in value):
        return [tuple(pair) for pair in value]
    raise problem("must be a list of [name, value] pairs")


def _image(value: Any) -> Any:
    if isinstance(value, str) and (not value or value != "".join(value.split()) or value.count(":") > 2):  # noqa: PLR2004 - registry port, tag
        raise problem(f"{show(value)} is not the name of an image", "Write [registry/]name[:tag], without blanks.")
    return value


def _reference(value: Any) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise problem("must be the id or the name of a build")
    return value


class BuildSpec(Section):
    """What the trials run in."""

    image: Annotated[Text, BeforeValidator(_image)] | None = Field(
        default=None, description="Container image of the trials.", examples=["python:3.12-slim"]
    )
    build_steps: tuple[Text, ...] = Field(
        default=(),
        description="Shell lines that prepare the environment, once, before the command.",
        examples=[["pip install scikit-learn"]],
    )
    env_vars: Annotated[
        tuple[tuple[Name, Printed], ...],
        BeforeValidator(_pair),
        WithJsonSchema({"type": "array", "items": {"type": "array", "minItems": 2, "maxItems": 2}}),
    ] = Field(
        default=(),
        description="Environment variables of the build and of the trials, as [name, value] pairs.",
        examples=[[["OMP_NUM_THREADS", "1"]]],
    )
    lang_env: Text | None = Field(
        default=None, description="Locale (LANG) of the build and of the trials.", examples=["en_US.UTF-8"]
    )
    dockerfile: Text | None = Field(
        default=None,
        description="Dockerfile to build from. Not built here: build it yourself and give `image`.",
        examples=["docker/Dockerfile"],
    )
    context: Text | None = Field(default=None, description="Folder the dockerfile is built in.", examples=["docker"])
    ref: Annotated[str, BeforeValidator(_reference)] | None = Field(
        default=None, description="Existing Polyaxon build; no effect: give `image`.", examples=["12"]
    )
    backend: Text | None = Field(default=None, description="Polyaxon's builder; no effect.", examples=["kaniko"])
    commit: Text | None = Field(default=None, description="Commit to build; no effect.", examples=["3f1c2d4"])
    branch: Text | None = Field(default=None, description="Branch to build; no effect.", examples=["main"])
    nocache: bool = Field(
        default=False, description="Whether to run the steps again even if nothing changed.", examples=[True]
    )
    environment: EnvironmentSpec | None = Field(
        default=None, description="Resources of the build.", examples=[{"resources": {"cpu": {"limits": 2}}}]
    )
    kind: Literal["build"] | None = Field(default=None, description="Always build.", examples=["build"])

    @model_validator(mode="before")
    @classmethod
    def _short_form(cls, value: Any) -> Any:
        return {"ref": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _check(self) -> BuildSpec:
        given = [name for name in ("image", "dockerfile", "ref") if getattr(self, name) is not None]
        if len(given) > 1:
            raise problem(f"only one of {', '.join(f'`{name}`' for name in given)} can be used")
        return self


def sanitise(line: str) -> str:
    """Return a command as one line: blanks collapsed, backslashes at the ends of words dropped."""
    words = (word.strip("\\") for word in line.split())
    return " ".join(word for word in words if word)


def _command(value: Any) -> str:
    if isinstance(value, dict) and ("if" in value or "for" in value):
        hint = "Write Jinja instead: {% if model == 'DNA' %}… {% else %}… {% endif %}."
        raise problem("the `if` and `for` operators are not supported", hint)
    lines = value if isinstance(value, list | tuple) else [value]
    if not all(isinstance(line, str) for line in lines):
        raise problem("must be text or a list of texts")
    command = " && ".join(text for text in (sanitise(line) for line in lines) if text)
    if not command:
        raise problem("is empty", "Write the command that trains once, such as `python train.py --lr={{ lr }}`.")
    return command


class RunSpec(Section):
    """What a trial runs."""

    cmd: Annotated[
        str,
        BeforeValidator(_command),
        WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}),
    ] = Field(
        description=(
            "Shell command of one trial: a Jinja2 template of params, searched keys and the resource. Lines are joined"
            " with blanks, the items of a list with &&. `{{ name | quote }}` quotes a value for the shell."
        ),
        examples=["python train.py --lr={{ lr }}"],
    )
