"""The task that builds one image for all trials of a sweep on Kubernetes."""

from __future__ import annotations

import asyncio
import re
import time
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.exceptions import AirflowException, AirflowSkipException
from attrs import evolve

from airflow_hptuning.errors import BuildError
from airflow_hptuning.operators.build import fail_sweep
from airflow_hptuning.operators.pod_calls import connection_id, delete_pod, hook_of, operator_arguments
from airflow_hptuning.operators.stop_watch import LAZY_POLL_SECONDS, STOP_GRACE, BoardError
from airflow_hptuning.operators.stopping import RunBoard
from airflow_hptuning.operators.sweep import Throttle
from airflow_hptuning.planning import common_settings, dag_id_of
from airflow_hptuning.runners.image_build import BUILDAH, ImageBuild, build_labels, build_pod, build_variables
from airflow_hptuning.runners.lines import shown
from airflow_hptuning.runners.pod_watch import PodWatch
from airflow_hptuning.runners.pods import CONTAINER, LABEL, Place, pod_name
from airflow_hptuning.runners.registry import has_image

if TYPE_CHECKING:
    from collections.abc import Callable

    from airflow.sdk import Context

    from airflow_hptuning.operators.stop_watch import Board
    from airflow_hptuning.operators.sweep import Sweep
    from airflow_hptuning.polyaxonfile.spec import SweepSpec
    from airflow_hptuning.trials import Outcome

_CONFLICT = 409
_INVALID = frozenset({400, 422})

_DEADLINE_MARGIN = 120.0
"""Seconds that Kubernetes leaves the pod beyond its time limits before it ends it without us."""

_SHOWN = 20
"""Lines of a failed build that its message has."""

_NO_NAMESPACE = (
    "The cluster's seccomp profile keeps buildah from making a user namespace. Give the builder another one in"
    " airflow.build.pod_template: securityContext: {seccompProfile: {type: Unconfined}}"
)


def image_build(spec: SweepSpec) -> ImageBuild | None:
    """Return the image that is built for the trials of a sweep on Kubernetes; None if there is nothing to build."""
    settings, build = spec.airflow.build, spec.build
    if settings.mode != "image" or not (build and build.image and build.build_steps):
        return None
    name = settings.name or re.sub(r"[^a-z0-9]+", "-", dag_id_of(spec).lower()).strip("-") or "sweep"
    pod = common_settings(spec, build.environment, settings.builder_image)
    return ImageBuild(
        repository=f"{settings.registry}/{name}",
        base=build.image,
        steps=build.build_steps,
        env=build_variables(build.env_vars, build.lang_env),
        settings=evolve(pod, pod_template=settings.pod_template or {}),
        command=settings.command or BUILDAH,
        push_secret=settings.push_secret,
        insecure=settings.insecure,
    )


class BuildImageOperator(BaseOperator):
    """Builds the image of a sweep in a pod, and pushes it, unless the registry has it; its result is the image's name.

    A failing build fails the sweep at once, with the build's last lines, and no trial starts. Only where the cluster
    is to blame it is tried again. A try that finds the pod of an earlier one, whose worker was lost, takes it up.

    Args:
        sweep: The sweep.
    """

    ui_color = "#efe3d0"

    def __init__(self, *, sweep: Sweep, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.sweep = sweep
        self._pod: tuple[str, str] | None = None

    def execute(self, context: Context) -> str:
        """Return the full name of the image."""
        build = image_build(self.sweep.spec)
        if build is None:
            raise RuntimeError("the sweep has no image to build")
        try:
            image = build.image
        except BuildError as error:
            fail_sweep(str(error), context, self.log)
        if self._is_there(build):
            self.log.info("The registry has %s already", image)
            return image
        self.log.info("Building %s from\n%s", image, build.dockerfile)
        try:
            outcome = self._build(build, context)
        finally:
            self._delete()
        if outcome.stopped is not None:
            raise AirflowSkipException(outcome.stopped)
        self._check(outcome, context)
        return image

    def on_kill(self) -> None:
        """Delete the pod: the task was killed, cleared, marked, or timed out."""
        self._delete()

    def _is_there(self, build: ImageBuild) -> bool:
        settings = self.sweep.spec.build
        if settings is not None and settings.nocache:
            return False
        found = has_image(build.image, login=self._login(), insecure=build.insecure)
        if found is None:
            self.log.warning("The registry does not say whether it has %s, so it is built", build.image)
        return bool(found)

    def _login(self) -> tuple[str, str] | None:
        conn_id = self.sweep.spec.airflow.build.conn_id
        if conn_id is None:
            return None
        from airflow.sdk import BaseHook

        connection = BaseHook.get_connection(conn_id)
        return (connection.login or "", connection.password or "")

    # --- the pod ---

    def _build(self, build: ImageBuild, context: Context) -> Outcome:
        """Run the builder pod to its end."""
        from airflow_hptuning.operators.pod_client import AsyncPod

        name, namespace = self._start(build, context)
        settings = self.sweep.spec.airflow
        client = AsyncPod(name, namespace, connection_id(self.sweep.spec), CONTAINER)

        async def watch() -> Outcome:
            try:
                return await PodWatch(
                    client,
                    on_lines=lambda lines: self.log.info("%s", "\n".join(map(shown, lines))),
                    on_restart=lambda: self.log.info("The log of the build starts over"),
                    should_stop=_asks(RunBoard.of(context), time.time()),
                    timeout=settings.build.timeout.total_seconds(),
                    startup_timeout=settings.kubernetes.startup_timeout.total_seconds(),
                    grace=STOP_GRACE,
                    say=lambda text: self.log.info("%s", text),
                ).run()
            finally:
                await client.close()

        return asyncio.run(watch())

    def _start(self, build: ImageBuild, context: Context) -> tuple[str, str]:
        """Start the pod, unless an earlier try has; return its name and namespace."""
        from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
        from kubernetes.client import ApiException

        # It knows the connection's namespace, and cluster policies that change pods.
        operator = KubernetesPodOperator(task_id=self.task_id, **self.pod_arguments(build, context))
        pod = operator.build_pod_request_obj(context)
        pod.spec.restart_policy = "Never"
        namespace: str = pod.metadata.namespace
        # Not one of the time before somebody cleared the task.
        selector = f"{self._place(context).selector},{LABEL}life={context['ti'].max_tries}"
        try:
            found = operator.client.list_namespaced_pod(namespace, label_selector=selector).items
            left = [other.metadata.name for other in found if other.metadata.deletion_timestamp is None]
            place = self._pod = (left[0] if left else pod.metadata.name, namespace)
            if left:
                self.log.info("Taking up the pod %s of an earlier try", left[0])
            else:
                operator.client.create_namespaced_pod(namespace, pod)
        except ApiException as error:
            if error.status != _CONFLICT:
                reason = f"Kubernetes refused the builder pod: {error.status} {error.body or error.reason}"
                self._fail(reason, context, again=error.status not in _INVALID)
        return place

    def pod_arguments(self, build: ImageBuild, context: Context) -> dict[str, Any]:
        """Return the arguments of the KubernetesPodOperator that makes the builder pod: plain data."""
        place, ti = self._place(context), context["ti"]
        settings = self.sweep.spec.airflow
        limits = settings.build.timeout + settings.kubernetes.startup_timeout
        manifest = build_pod(
            build,
            name=pod_name(place, trial=None, attempt=ti.try_number),
            labels=build_labels(place, attempt=ti.try_number, life=ti.max_tries),
            grace=STOP_GRACE,
            deadline=limits.total_seconds() + _DEADLINE_MARGIN,
        )
        return operator_arguments(self.sweep.spec, manifest)

    def _place(self, context: Context) -> Place:
        return Place(self.sweep.dag_id, context["run_id"], self.task_id, -1)

    def _delete(self) -> None:
        if self._pod is not None:
            delete_pod(hook_of(self.sweep.spec), *self._pod, self.log)

    def _check(self, outcome: Outcome, context: Context) -> None:
        """Fail as the build has failed."""
        if outcome.failure is None and not outcome.timed_out and outcome.exit_code == 0:
            return
        cause = outcome.failure
        again = cause is not None and cause.failure_class.is_infrastructure
        self._fail(_failed(outcome), context, again=again)

    def _fail(self, message: str, context: Context, *, again: bool) -> NoReturn:
        """Fail, and end the sweep unless another try may help.

        Raises:
            AirflowException: It will be tried again.
            AirflowFailException: It will not.
        """
        if again and context["ti"].try_number <= context["ti"].max_tries:
            raise AirflowException(message)
        fail_sweep(message, context, self.log)


def _failed(outcome: Outcome) -> str:
    """What is said of a failed build: why, and its last lines."""
    if outcome.timed_out:
        why = "its time was up"
    elif outcome.failure is not None:
        why = f"{outcome.failure.failure_class.value}: {outcome.failure.reason}"
    else:
        why = f"exit code {outcome.exit_code}"
    lines = [f"The image could not be built ({why}). Its last lines:", *outcome.log_tail[-_SHOWN:]]
    if any("CLONE_NEWUSER" in line for line in outcome.log_tail):
        lines.append(_NO_NAMESPACE)
    return "\n".join(lines)


def _asks(board: Board, since: float) -> Callable[[], str | None]:
    """Return what tells, now and then, whether the run is being stopped.

    Args:
        board: The board of the run.
        since: When the build started. A marker from before, such as that of a failed build which somebody has cleared,
            stays until the task that holds it starts.
    """
    is_due = Throttle(LAZY_POLL_SECONDS)

    def asked() -> str | None:
        if not is_due():
            return None
        try:
            reason = board.marker()
        except BoardError:
            # An API server that does not answer for a while must not end a build.
            return None
        is_new = reason is not None and (reason.at is None or reason.at >= since)
        return f"the sweep is stopped: {reason.text}" if reason is not None and is_new else None

    return asked
