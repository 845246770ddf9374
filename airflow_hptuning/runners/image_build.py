"""Building one image for all trials of a sweep: the Dockerfile, its tag, and the pod that builds it, as plain data.

The tag is a hash of all that goes into the image, so a sweep that has not changed finds its image again. The build
itself is a shell script in a pod: by default buildah without privileges (chroot isolation, plain files as storage);
the builder's image and the script can be others.
"""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve, frozen

from airflow_hptuning.errors import BuildError
from airflow_hptuning.runners.pods import LABEL, PodSettings, label_value, pod_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from airflow_hptuning.runners.pods import Place

AUTH: Final = "/hptuning/registry-auth"
"""Where the builder finds the registries' passwords."""

_TAG_DIGITS: Final = 16

BUILDAH: Final = """\
set -eu
export BUILDAH_ISOLATION="${BUILDAH_ISOLATION:-chroot}"
run() { buildah --storage-driver "${STORAGE_DRIVER:-vfs}" "$@"; }
run build --tls-verify="$HPTUNING_TLS_VERIFY" --layers=false --tag "$HPTUNING_IMAGE" \\
  --file "$HPTUNING_DOCKERFILE" "$HPTUNING_CONTEXT"
run push --tls-verify="$HPTUNING_TLS_VERIFY" "$HPTUNING_IMAGE"
"""
"""Builds and pushes. In a pod of its own there are no layers to keep."""

_SCRIPT: Final = """\
umask 022
HPTUNING_CONTEXT=$(mktemp -d) || exit
HPTUNING_DOCKERFILE=$HPTUNING_CONTEXT/Dockerfile
printf '%s\\n' "$2" > "$HPTUNING_DOCKERFILE" || exit
export HPTUNING_CONTEXT HPTUNING_DOCKERFILE
exec /bin/sh -c "$1" hptuning
"""

# Bash where there is one, as for the command and the inline steps of a trial.
_STEP: Final = (
    "/bin/sh",
    "-c",
    'if [ -x /bin/bash ]; then exec /bin/bash -c "$1"; fi; exec /bin/sh -c "$1"',
    "build-step",
)


@frozen
class ImageBuild:
    """What is built, and by what.

    Attributes:
        repository: Where the image goes: registry and name.
        base: The image to start from.
        steps: Shell commands.
        env: Environment variables of the steps and of the image.
        settings: The builder pod, as Kubernetes shall run it; its image is the builder's.
        command: Shell script that builds and pushes.
        push_secret: Secret with the registries' passwords.
        insecure: Whether registries may speak plain HTTP.
    """

    repository: str
    base: str
    steps: Sequence[str]
    env: Mapping[str, str]
    settings: PodSettings
    command: str = BUILDAH
    push_secret: str | None = None
    insecure: bool = False

    @property
    def image(self) -> str:
        """Full name of the image: its tag is a hash of what goes into it."""
        return f"{self.repository}:{hashlib.sha256(self.dockerfile.encode()).hexdigest()[:_TAG_DIGITS]}"

    @property
    def dockerfile(self) -> str:
        """The Dockerfile.

        Raises:
            BuildError: A variable cannot be written in one.
        """
        lines = [f"FROM {self.base}"]
        lines += [f"ENV {name}={_quoted(name, value)}" for name, value in self.env.items()]
        # The form of JSON: a step may hold line breaks, quotes and here-documents.
        lines += [f"RUN {json.dumps([*_STEP, step])}" for step in self.steps]
        return "\n".join(lines)


def build_pod(
    build: ImageBuild, *, name: str, labels: Mapping[str, str], grace: float, deadline: float
) -> dict[str, Any]:
    """Return the manifest of the builder pod.

    Args:
        build: What to build.
        name: Name of the pod.
        labels: Our labels (``build_labels``).
        grace: Seconds between SIGTERM and SIGKILL.
        deadline: Seconds after which Kubernetes itself ends the pod.
    """
    variables: dict[str, Any] = dict(build.settings.env) | {
        "HPTUNING_IMAGE": build.image,
        "HPTUNING_TLS_VERIFY": "false" if build.insecure else "true",
    }
    settings = build.settings
    if build.push_secret:
        # Where buildah, and where Docker's own tools, look for it.
        variables |= {"REGISTRY_AUTH_FILE": f"{AUTH}/config.json", "DOCKER_CONFIG": AUTH}
        items = [{"key": ".dockerconfigjson", "path": "config.json"}]
        volume = {"name": "registry-auth", "secret": {"secretName": build.push_secret, "items": items}}
        mount = {"name": "registry-auth", "mountPath": AUTH, "readOnly": True}
        settings = evolve(settings, volumes=[*settings.volumes, volume], volume_mounts=[*settings.volume_mounts, mount])
    words = ["/bin/sh", "-c", _SCRIPT, "hptuning", build.command, build.dockerfile]
    return pod_manifest(words, variables, settings, name=name, labels=labels, grace=grace, deadline=deadline)


def build_labels(place: Place, *, attempt: int, life: int) -> dict[str, str]:
    """Return the labels of a builder pod; by them it is found, and reaped, as the pods of trials are."""
    values = {
        "sweep": place.sweep,
        "run": place.run_id,
        "task": f"{place.task_id}-{place.map_index}",
        "try": attempt,
        "life": life,
    }
    return {LABEL + key: label_value(value) for key, value in values.items()}


def build_variables(env_vars: Iterable[tuple[str, str]], language: str | None) -> dict[str, str]:
    """Return the environment variables of a build: a variable of the file wins over its ``lang_env``."""
    return ({"LANG": language} if language else {}) | dict(env_vars)


def _quoted(name: str, value: str) -> str:
    if "\n" in value or "\r" in value:
        raise BuildError(f"the variable {name} holds a line break, which a Dockerfile cannot set; run the steps inline")
    # Within single quotes nothing is replaced.
    return "'" + value.replace("'", "'\\''") + "'"
