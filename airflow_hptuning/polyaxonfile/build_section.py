"""The `airflow.build` section: how the build steps of a sweep become part of its trials on Kubernetes."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from airflow_hptuning.polyaxonfile.fields import Duration, Raw, Section, Text, Word, problem, show

_HOST = r"[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?(?::\d{1,5})?"
_PART = r"[a-z0-9]+(?:(?:\.|_{1,2}|-+)[a-z0-9]+)*"
"""One part of a repository's name, as registries allow it."""


def _registry(value: str) -> str:
    text = value.rstrip("/")
    host, _, path = text.partition("/")
    if not re.fullmatch(_HOST, host) or (path and not re.fullmatch(rf"{_PART}(?:/{_PART})*", path)):
        hint = "Such as registry.example.com/team, without https:// and without a tag."
        raise problem(f"must be a registry's host and a path, not {show(value)}", hint)
    return text


def _repository(value: str) -> str:
    if not re.fullmatch(rf"{_PART}(?:/{_PART})*", value):
        raise problem(f"must hold lower-case letters, digits, and single . _ - / between them, not {show(value)}")
    return value


class ImageBuildSpec(Section):
    """How build_steps reach the trials on Kubernetes: run by every trial, or once into an image."""

    mode: Annotated[Literal["inline", "image"], Word] = Field(
        default="inline",
        description="`inline` runs build_steps in each trial's container; `image` builds one image for all trials.",
        examples=["image"],
    )
    registry: Annotated[Text, AfterValidator(_registry)] | None = Field(
        default=None,
        description="Where images are pushed to and pulled from; needed for `image`.",
        examples=["registry.example.com/team"],
    )
    name: Annotated[Text, AfterValidator(_repository)] | None = Field(
        default=None, description="Name of the images; left out: that of the DAG.", examples=["mnist"]
    )
    push_secret: Text | None = Field(
        default=None,
        description="Secret (kubernetes.io/dockerconfigjson) that the builder logs in to registries with.",
        examples=["registry-push"],
    )
    conn_id: Text | None = Field(
        default=None,
        description="Airflow connection (login, password) to ask the registry whether an image is there already.",
        examples=["registry"],
    )
    insecure: bool = Field(
        default=False, description="Whether registries may speak plain HTTP or have any certificate.", examples=[True]
    )
    builder_image: Text = Field(
        default="quay.io/buildah/stable:v1.43.4", description="Image of the builder pod.", examples=["builder:1"]
    )
    command: Text | None = Field(
        default=None,
        description=(
            "Shell script that builds and pushes in place of buildah: $HPTUNING_DOCKERFILE and $HPTUNING_CONTEXT are"
            " paths, $HPTUNING_IMAGE the name to push, $HPTUNING_TLS_VERIFY is true or false."
        ),
        examples=["/kaniko/executor -f $HPTUNING_DOCKERFILE -c $HPTUNING_CONTEXT -d $HPTUNING_IMAGE"],
    )
    timeout: Duration = Field(default=timedelta(hours=1), description="Longest time a build may take.", examples=["2h"])
    pod_template: Raw | None = Field(
        default=None,
        description="A pod that is laid over the builder's; its container is called base.",
        examples=[{"spec": {"containers": [{"name": "base", "securityContext": {"privileged": True}}]}}],
    )

    @model_validator(mode="after")
    def _has_registry(self) -> Self:
        if self.mode == "image" and self.registry is None:
            raise problem("needs a `registry` to push to", "Or run the steps in each trial: `mode: inline`.")
        return self
