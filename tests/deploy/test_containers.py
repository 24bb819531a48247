"""What can be told about the image and the compose file without building them (deploy/run-containers.sh builds them)."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.deploy.variables import VARIABLES

SET_IN_THE_IMAGE = re.compile(r"\b(BINDERY_\w+)=")


@pytest.fixture(scope="module")
def dockerfile(root: Path) -> str:
    """Without comments, continued lines joined."""
    lines = [line for line in (root / "Dockerfile").read_text().splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines).replace("\\\n", " ")


@pytest.fixture(scope="module")
def compose(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((root / "compose.yaml").read_text())
    return document


def instructions(dockerfile: str, name: str) -> list[str]:
    return re.findall(rf"^{name}\s+(.*?)\s*$", dockerfile, re.MULTILINE)


def test_the_server_is_not_root(dockerfile: str) -> None:
    last_stage = dockerfile[dockerfile.rindex("\nFROM ") :]
    assert instructions(last_stage, "USER")[-1] == "10001:10001"
    after = last_stage[last_stage.index("USER 10001") :]
    assert "RUN" not in after


def test_the_server_itself_gets_the_signal(dockerfile: str) -> None:
    assert instructions(dockerfile, "CMD") == ['["bindery", "serve"]']
    assert instructions(dockerfile, "ENTRYPOINT") == []
    assert instructions(dockerfile, "STOPSIGNAL") == ["SIGTERM"]


def test_the_image_installs_no_torch(dockerfile: str) -> None:
    assert re.search(r"\btorch\b|\btrain\b|\bexport\b", dockerfile.replace("bindery-train /opt/bindery/bin/bindery-export", "")) is None
    copied = {part for line in instructions(dockerfile, "COPY") for part in line.split()}
    assert {"training", "export", "."} & copied == set()


def test_a_build_secret_is_only_ever_a_mount(dockerfile: str) -> None:
    for line in instructions(dockerfile, "ARG") + instructions(dockerfile, "ENV"):
        assert not re.search(r"INDEX|TOKEN|PASSWORD|SECRET|PROXY|://", line, re.IGNORECASE), line
    installs = [line for line in instructions(dockerfile, "RUN") if re.search(r"\bpip (--python|install|wheel)", line)]
    assert installs
    for line in installs:
        assert "--mount=type=secret,id=pipconf,target=/etc/pip.conf" in line


def test_only_listed_files_reach_the_build(root: Path, dockerfile: str) -> None:
    """.dockerignore is a list of what goes in; everything that the Dockerfile copies is on it."""
    rules = [line for line in (root / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")]
    assert rules[0] == "*"
    listed = {rule.removeprefix("!").removesuffix("/") for rule in rules if rule.startswith("!")}
    copies = [line.split() for line in instructions(dockerfile, "COPY") if not line.startswith("--from")]
    copied = {source for words in copies for source in words[:-1]}
    assert copied == listed
    assert all((root / name).exists() for name in listed)


def test_environment_names_are_settings(dockerfile: str, compose: dict[str, Any]) -> None:
    named = set(SET_IN_THE_IMAGE.findall(dockerfile))
    for service in compose["services"].values():
        named |= set(service["environment"])
    assert "BINDERY_HOST" in named
    assert named - set(VARIABLES) == set()


def test_every_service_is_closed_as_far_as_it_goes(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["user"] == "10001:10001", name
        assert service["pids_limit"] > 0, name
        assert service["mem_limit"], name
        assert any(mount.startswith("/tmp") for mount in service["tmpfs"]), name
        assert "privileged" not in service, name


def test_compose_up_serves_on_8000_of_this_machine_only(compose: dict[str, Any]) -> None:
    (service,) = (s for s in compose["services"].values() if "profiles" not in s)
    assert service["ports"] == ["${PUBLISH:-127.0.0.1:8000}:8000"]
    assert {mount.partition(":")[2] for mount in service["volumes"]} == {"/data", "/bundles"}
    assert {mount.partition(":")[0] for mount in service["volumes"]} == set(compose["volumes"])


def test_the_gpu_profile_asks_for_a_device_and_its_engine(compose: dict[str, Any]) -> None:
    (service,) = (s for s in compose["services"].values() if s.get("profiles") == ["gpu"])
    (device,) = service["deploy"]["resources"]["reservations"]["devices"]
    assert device["driver"] == "nvidia"
    assert service["build"]["args"]["ENGINE"] == "gpu"
    assert service["environment"]["BINDERY_DEVICE"] == "cuda"
    # what is true of every service stays true of this one
    assert set(VARIABLES) >= set(service["environment"]) > {"BINDERY_DEVICE"}


def test_a_stopping_container_has_time_to_drain(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        grace = float(service["stop_grace_period"].removesuffix("s"))
        assert grace >= float(str(VARIABLES["BINDERY_DRAIN_SECONDS"])) + 5, name


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_container_script_parses(root: Path) -> None:
    script = root / "deploy" / "run-containers.sh"
    assert subprocess.run(["bash", "-n", str(script)], capture_output=True, check=False).stderr == b""
    assert script.stat().st_mode & 0o111
