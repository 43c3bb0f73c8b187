"""The files of `deploy/` that CI can't run, checked with schemas and linters, and for agreement with each other."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dagster._config import process_config
from dagster._core.instance.config import dagster_instance_config

import sessions_pipeline
from sessions_pipeline_tests.end_to_end.docker_stand_in import instructions

REPOSITORY = Path(__file__).parents[2]
DEPLOY = REPOSITORY / "deploy"
INSTRUCTIONS = instructions(DEPLOY / "Dockerfile")
DAGSTERS = ("code-server", "webserver", "daemon")
SECRET = re.compile(r"PASSWORD|SECRET|ACCESS_KEY|API_KEY|TOKEN")


def load(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def assert_linter_passes(program: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def names_of_variables(value: Any) -> set[str]:
    """The names of all environment variables that a configuration reads with `{env: NAME}`."""
    if isinstance(value, dict):
        if set(value) == {"env"}:
            return {value["env"]}
        return set().union(*map(names_of_variables, value.values()))
    return set().union(*map(names_of_variables, value)) if isinstance(value, list) else set()


def is_pinned(image: str) -> bool:
    """Whether the image's tag names one version, by its full number or by the date of its release."""
    tag = image.rpartition(":")[2]
    return re.match(r"\d+\.\d+(\.\d+)?(-|$)|RELEASE\.\d{4}", tag) is not None


def test_the_dockerfile_passes_hadolint() -> None:
    assert_linter_passes("hadolint", "Dockerfile")


def test_the_image_is_built_from_the_hash_pinned_lock_on_a_pinned_base_and_runs_without_root() -> None:
    found = INSTRUCTIONS
    assert {word for word, _ in found} <= {
        "FROM",
        "ENV",
        "WORKDIR",
        "RUN",
        "COPY",
        "USER",
        "EXPOSE",
        "HEALTHCHECK",
        "CMD",
    }
    assert all(is_pinned(rest.split()[0]) for word, rest in found if word == "FROM")
    assert [rest for word, rest in found if word == "USER"] == ["10001:10001"]
    installs = [rest for word, rest in found if word == "RUN" and "pip install" in rest]
    assert all("--require-hashes -r requirements-deploy.lock" in one or "--no-deps" in one for one in installs)
    assert any("DAGSTER_BACKFILL_RETRY_DEFINITION_CHANGED_ERROR=1" in rest for word, rest in found if word == "ENV")
    last = max(number for number, (word, _) in enumerate(found) if word == "FROM")
    assert not any("pip install" in rest for _, rest in found[last:]), "the last stage must only copy what was built"


def test_every_copied_file_exists_and_the_build_context_has_no_others() -> None:
    copied = [
        source
        for word, rest in INSTRUCTIONS
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert copied
    assert all((REPOSITORY / source).exists() for source in copied)
    first, *rules = [line for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line[0] != "#"]
    assert first == "*"
    assert {rule[1:] for rule in rules if rule.startswith("!")} == set(copied)


def test_the_compose_file_is_valid_by_the_compose_specification() -> None:
    assert_linter_passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", "docker-compose.yaml")


def test_every_container_has_a_pinned_image_limits_and_a_health_check_and_publishes_ports_on_loopback_only() -> None:
    services = load("docker-compose.yaml")["services"]
    for name, service in services.items():
        if name in DAGSTERS:
            assert service["image"].startswith("${SESSIONS_PIPELINE_IMAGE:?")
            assert service["cap_drop"] == ["ALL"]
            assert service["init"] is True
        else:
            assert is_pinned(service["image"]), service["image"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        assert service["logging"]["options"]["max-size"], name
        if name != "buckets":
            assert service["mem_limit"], name
            assert "healthcheck" in service or name == "code-server", "the code server's health check is in the image"
        for variable, value in service["environment"].items():
            assert not SECRET.search(variable) or value.startswith("${"), f"{name}: {variable} has a value in the file"


def test_compose_sets_every_variable_that_dagsters_files_read() -> None:
    read = names_of_variables(load("dagster.yaml")) | names_of_variables(load("workspace.yaml"))
    services = load("docker-compose.yaml")["services"]
    for name in DAGSTERS:
        assert read <= set(services[name]["environment"]), name
    required = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "docker-compose.yaml").read_text()))
    offered = set(re.findall(r"^(\w+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE))
    assert required <= offered


def test_compose_takes_what_buckets_of_ones_own_need_from_its_env_file() -> None:
    of_buckets = {"AWS_ENDPOINT_URL_S3", "AWS_REGION", "DAGSTER_LOGS_BUCKET", "SESSIONS_PIPELINE_DATA_ROOT"}
    optional = set(re.findall(r"\$\{(\w+):-[^}]", (DEPLOY / "docker-compose.yaml").read_text()))
    assert optional == of_buckets
    assert all(f"`{name}`" in (REPOSITORY / "docs" / "deploy.md").read_text() for name in of_buckets)


def test_the_images_tags_are_the_version_of_the_package() -> None:
    here = sessions_pipeline.__version__
    assert f"SESSIONS_PIPELINE_IMAGE=sessions-pipeline:{here}\n" in (DEPLOY / ".env.example").read_text()
    assert f"-t sessions-pipeline:{here} ." in (DEPLOY / "Dockerfile").read_text()
    values = load("helm-values.yaml")
    [deployment] = values["dagster-user-deployments"]["deployments"]
    images = [deployment["image"], values["dagsterWebserver"]["image"], values["dagsterDaemon"]["image"]]
    assert [str(image["tag"]) for image in images] == [here] * 3


def instance_from_chart(values: Any) -> dict[str, Any]:
    """The `dagster.yaml` that the chart's templates generate from these values."""
    database = values["postgresql"]
    launcher = values["runLauncher"]["config"]["k8sRunLauncher"]
    logs = values["computeLogManager"]["config"]["s3ComputeLogManager"]
    assert values["runLauncher"]["type"] == "K8sRunLauncher"
    assert values["computeLogManager"]["type"] == "S3ComputeLogManager"
    connection = {
        "username": database["postgresqlUsername"],
        "password": {"env": "DAGSTER_PG_PASSWORD"},
        "hostname": database["postgresqlHost"],
        "db_name": database["postgresqlDatabase"],
        "port": database["service"]["port"],
        "params": database["postgresqlParams"],
        "scheme": database["postgresqlScheme"],
    }
    return {
        "storage": {"postgres": {"postgres_db": connection}},
        "run_launcher": {
            "module": "dagster_k8s",
            "class": "K8sRunLauncher",
            "config": {
                "load_incluster_config": launcher["loadInclusterConfig"],
                "job_namespace": "default",
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": "dagster",
                "dagster_home": values["global"]["dagsterHome"],
                "instance_config_map": "dagster-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "resources": launcher["resources"],
                "run_k8s_config": {
                    "container_config": launcher["runK8sConfig"]["containerConfig"],
                    "job_spec_config": launcher["runK8sConfig"]["jobSpecConfig"],
                },
            },
        },
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": "S3ComputeLogManager",
            "config": {
                "bucket": logs["bucket"],
                "prefix": logs["prefix"],
                "skip_empty_files": logs["skipEmptyFiles"],
                "upload_interval": logs["uploadInterval"],
            },
        },
        "telemetry": values["telemetry"],
        **values["additionalInstanceConfig"],
    }


@pytest.mark.parametrize("source", ["dagster.yaml", "helm-values.yaml"])
def test_dagster_accepts_every_part_of_the_instance(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # These take three seconds to import. At the top of the file, every process that collects tests would spend them.
    from dagster_aws.s3.compute_log_manager import S3ComputeLogManager  # noqa: PLC0415
    from dagster_k8s import K8sRunLauncher  # noqa: PLC0415
    from dagster_postgres.storage import DagsterPostgresStorage  # noqa: PLC0415

    written = load(source)
    instance = instance_from_chart(written) if source == "helm-values.yaml" else written
    for name in names_of_variables(instance):
        monkeypatch.setenv(name, "5432" if name.endswith("PORT") else "something")
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(instance))
    taken, _ = dagster_instance_config(str(tmp_path))
    assert taken["run_retries"]["max_retries"] == 2
    parts = {
        "storage": (DagsterPostgresStorage, instance["storage"]["postgres"]),
        "compute_logs": (S3ComputeLogManager, instance["compute_logs"]["config"]),
    }
    if source == "helm-values.yaml":
        parts["run_launcher"] = (K8sRunLauncher, instance["run_launcher"]["config"])
    for name, (kind, config) in parts.items():
        examined = process_config(kind.config_type(), config)
        assert examined.success, (name, examined.errors)


def test_helm_has_the_same_limits_retries_and_retention_as_the_production_instance() -> None:
    own, helm = load("dagster.yaml"), load("helm-values.yaml")
    assert helm["telemetry"] == own["telemetry"]
    assert helm["additionalInstanceConfig"] == {
        name: own[name] for name in ("nux", "concurrency", "run_monitoring", "run_retries", "retention")
    }
    # If they were enabled, the chart would write these keys a second time, and duplicate keys are an error.
    for part in ("runCoordinator", "runMonitoring", "runRetries"):
        assert helm["dagsterDaemon"][part] == {"enabled": False}


def test_helm_values_name_secrets_without_values_set_limits_and_run_nothing_as_root() -> None:
    values = load("helm-values.yaml")
    text = (DEPLOY / "helm-values.yaml").read_text()
    assert not re.search(r"^\s*\w*(password|secretKey|apiKey):", text, re.IGNORECASE | re.MULTILINE)
    assert values["generatePostgresqlPasswordSecret"] is False
    [deployment] = values["dagster-user-deployments"]["deployments"]
    run = values["runLauncher"]["config"]["k8sRunLauncher"]
    for part in (
        deployment,
        values["dagsterWebserver"],
        values["dagsterDaemon"],
        run["runK8sConfig"]["containerConfig"],
    ):
        assert part["securityContext"]["runAsNonRoot"] is True
    for part in (deployment, values["dagsterWebserver"], values["dagsterDaemon"], run):
        assert part["resources"]["requests"]
        assert part["resources"]["limits"]["memory"]
    for part in (deployment, values["dagsterWebserver"], values["dagsterDaemon"]):
        assert part["envSecrets"] == [{"name": "sessions-pipeline"}]
    from dagster_k8s.job import UserDefinedDagsterK8sConfig  # noqa: PLC0415 - see above

    # Fails if names or types of Kubernetes' own objects are wrong, by the models of its client.
    UserDefinedDagsterK8sConfig.from_dict(
        {
            "container_config": run["runK8sConfig"]["containerConfig"] | {"resources": run["resources"]},
            "job_spec_config": run["runK8sConfig"]["jobSpecConfig"],
        }
    )
