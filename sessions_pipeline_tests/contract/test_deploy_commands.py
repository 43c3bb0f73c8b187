"""The commands in docs/deploy.md, run with fake `docker`, `kubectl` and `helm` that record how they were called."""

import os
import shlex
import shutil
import stat
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml

from sessions_pipeline_tests.snippets import ROOT, Snippet, script, together

RECORDER = """#!/bin/sh
for word in "$(basename "$0")" "$@"; do printf '%s\\n' "$word"; done >> calls
echo >> calls
"""


@together
def test_the_commands_of_a_deployment_name_what_its_files_hold(snippets: list[Snippet], tmp_path: Path) -> None:
    programs, checkout = tmp_path / "programs", tmp_path / "checkout"
    programs.mkdir()
    for program in ("docker", "kubectl", "helm"):
        (programs / program).write_text(RECORDER)
        (programs / program).chmod(0o755)
    shutil.copytree(ROOT / "deploy", checkout / "deploy")
    for one in snippets:
        if one.language:
            environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}
            subprocess.run(["bash", "-euc", script(one)], cwd=checkout, env=environment, check=True)
    calls = [part.splitlines() for part in (checkout / "calls").read_text().strip().split("\n\n")]
    assert stat.S_IMODE((checkout / "deploy" / ".env").stat().st_mode) == 0o600
    # An abbreviated command in the text is a part of one of these.
    for one in snippets:
        words = [word for word in one.text.split() if word != "…"]
        assert one.language or any(set(words) <= set(command) for command in calls)
    files = [checkout / command[at + 1] for command in calls for at, word in enumerate(command) if word == "-f"]
    assert len(files) == 4
    assert all(file.is_file() for file in files)
    _assert_names_match_files(calls, yaml.safe_load((ROOT / "deploy" / "helm-values.yaml").read_text()))


def _assert_names_match_files(calls: list[list[str]], values: Any) -> None:
    """The images, secrets and their keys, services and versions in the commands are those in the files."""
    commands = {" ".join(command[:3]): command for command in calls}
    image = values["dagsterWebserver"]["image"]
    tag = f"{image['repository']}:{image['tag']}"
    assert ["docker", "push", tag] in calls
    assert tag in commands["docker build -f"]
    secrets = {
        command[4]: {word.partition("=")[2].partition("=")[0] for word in command if word.startswith("--from-literal=")}
        for command in calls
        if command[:2] == ["kubectl", "create"]
    }
    assert set(secrets) == {"sessions-pipeline", values["global"]["postgresqlSecretName"]}
    text = (ROOT / "deploy" / "helm-values.yaml").read_text()
    assert all(key in text for keys in secrets.values() for key in keys)
    compose = yaml.safe_load((ROOT / "deploy" / "docker-compose.yaml").read_text())
    (executed,) = [command for command in calls if "exec" in command]
    service, *inside = executed[executed.index("exec") + 1 :]
    assert service in compose["services"]
    assert shlex.join(inside) == "sessions-pipeline doctor"
    upgrade = commands["helm upgrade --install"]
    assert upgrade[upgrade.index("--version") + 1] == version("dagster")
