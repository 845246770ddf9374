"""The files of ``docker/``, as far as they can be checked without Docker: schemas, and that they fit together."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from airflow_hptuning import build_dag, get_provider_info

ROOT = Path(__file__).resolve().parents[1]
DOCKER = ROOT / "docker"
KUBERNETES = DOCKER / "kubernetes"


def compose() -> dict[str, Any]:
    """Return the compose file, with its anchors resolved."""
    found: dict[str, Any] = yaml.safe_load((DOCKER / "docker-compose.yaml").read_text())
    return found


def documents(name: str) -> list[dict[str, Any]]:
    """Return the objects of a Kubernetes manifest."""
    return list(yaml.safe_load_all((KUBERNETES / name).read_text()))


def test_compose_file_is_valid() -> None:
    """It obeys the compose specification."""
    schema = json.loads((ROOT / "tests" / "schemas" / "compose-spec.json").read_text())
    # Docker Compose has had this key since 2022; the schema is older.
    known = {key: value for key, value in compose().items() if key != "name"}
    jsonschema.Draft7Validator(schema).validate(known)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({"services": {"a": {"imgae": "python"}}})


def test_compose_services_fit_together() -> None:
    """Every dependency, volume and mounted file exists; Airflow has all its components, from one image."""
    services = compose()["services"]
    for name, service in services.items():
        assert set(service.get("depends_on", ())) <= set(services), name
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            assert (DOCKER / source).exists() if source.startswith(".") else source in compose()["volumes"], volume
    airflow = {name: service for name, service in services.items() if service["image"] == "airflow-hptuning"}
    assert {"init", "api-server", "scheduler", "dag-processor", "triggerer"} == set(airflow)
    assert all((DOCKER / service["build"]["context"] / "docker/Dockerfile").exists() for service in airflow.values())
    assert [port for service in services.values() for port in service.get("ports", ())] == ["127.0.0.1:8080:8080"]


def test_airflow_reaches_the_cluster_as_the_setup_leaves_it() -> None:
    """The connection names the kubeconfig that the script writes, and the namespace that it makes."""
    services = compose()["services"]
    connection = json.loads(services["scheduler"]["environment"]["AIRFLOW_CONN_KUBERNETES_DEFAULT"])
    namespace = services["cluster-setup"]["environment"]["NAMESPACE"]
    assert connection["extra"] == {"kube_config_path": "/cluster/kubeconfig", "namespace": namespace}
    script = (KUBERNETES / "setup.sh").read_text()
    assert "mv /cluster/kubeconfig.new /cluster/kubeconfig" in script
    assert f"--tls-san={re.findall('https://([^:]+):6443', script)[0]}" in services["k3s"]["command"]
    accounts = {d["metadata"]["name"] for d in documents("rbac.yaml") if d["kind"] == "ServiceAccount"}
    assert "create token hptuning " in script
    dag = build_dag(DOCKER / "dags" / "digits_pods.yaml")
    spec = dag.task_dict["suggest"].sweep.spec  # type: ignore[union-attr] # the task of ours
    assert spec.airflow.kubernetes.namespace == namespace
    assert spec.airflow.kubernetes.service_account in accounts


def test_settings_of_the_chart_exist() -> None:
    """Names that a typo would make Airflow ignore in silence."""
    values = yaml.safe_load((DOCKER / "helm-values.yaml").read_text())
    assert set(values["config"]["hptuning"]) <= set(get_provider_info()["config"]["hptuning"]["options"])
    from airflow.configuration import conf

    assert conf.has_option("dag_processor", *values["config"]["dag_processor"])
    (connection,) = [json.loads(variable["value"]) for variable in values["env"]]
    assert connection["extra"]["in_cluster"] is True


def test_bindings_name_the_role() -> None:
    """Whoever is bound gets the rights of ``rbac.yaml``, in the namespace where it is applied."""
    (role,) = [d["metadata"]["name"] for d in documents("rbac.yaml") if d["kind"] == "Role"]
    bindings = [
        d for name in ("rbac.yaml", "airflow-chart.yaml") for d in documents(name) if d["kind"] == "RoleBinding"
    ]
    assert [binding["roleRef"]["name"] for binding in bindings] == [role, role]


def test_what_the_images_copy_is_sent_to_the_builder() -> None:
    """`.dockerignore` lets through every file that a Dockerfile copies."""
    allowed = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    for name in ("Dockerfile", "trial.Dockerfile"):
        lines = (DOCKER / name).read_text().splitlines()
        copied = [line.split()[1:-1] for line in lines if line.startswith("COPY")]
        sources = {word for words in copied for word in words if not word.startswith("--")}
        assert sources
        assert all((ROOT / source).exists() for source in sources)
        assert sources <= set(allowed)
