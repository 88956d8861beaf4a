import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from compose_spec import PyCompose

from config.flower_options import flower_options
from config.monitor_options import bearer
from config.settings import Worker, read, variables
from gaia import wire
from tasks.cli.main import COMMANDS
from tasks.runtime.stopping import LAST_WORDS_S
from tests.support import compose, dashboards
from tests.support.cluster import ROOT

SERVICES = compose.services()
FOREIGN = {"redis", "celery-exporter", "prometheus", "grafana"}
OURS = sorted(name for name in SERVICES if name not in FOREIGN)


def test_the_file_is_valid_by_the_compose_specification() -> None:
    assert sorted(PyCompose.from_yaml(yaml.safe_dump(compose.read())).service_names()) == sorted(SERVICES)


def test_the_linter_has_no_remark() -> None:
    linter = Path(sys.executable).with_name("compose-lint")
    argv = [str(linter), "check", "--strict-config", "--fail-on", "low", "--no-env", "--no-pager", compose.PATH.name]
    ended = subprocess.run(argv, cwd=compose.PATH.parent, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_whatever_a_service_refers_to_is_declared() -> None:
    file = compose.read()
    for service in SERVICES.values():
        assert set(service["networks"]) <= set(file["networks"])
        assert set(service.get("depends_on", ())) <= set(SERVICES)
        mounted = [each.partition(":")[0] for each in service.get("volumes", ())]
        assert {each for each in mounted if not each.startswith(".")} <= set(file["volumes"])
        assert all((compose.PATH.parent / each).is_dir() for each in mounted if each.startswith("."))


# --- commands and settings


@pytest.mark.parametrize("queue", wire.QUEUES)
def test_each_queue_has_a_service_of_its_name(queue: str) -> None:
    assert SERVICES[queue]["command"] == ["worker", queue]


@pytest.mark.parametrize("name", OURS)
def test_a_service_runs_a_gaia_command(name: str) -> None:
    assert SERVICES[name]["command"][0] in COMMANDS


@pytest.mark.parametrize("name", OURS)
def test_a_service_gets_settings_that_exist_and_fit(name: str) -> None:
    settings = read(compose.environment(name))
    password = compose.VARIABLES["CLUSTER_REDIS_PASSWORD"]
    assert settings.redis_url == f"redis://:{password}@redis:6379/0"


def test_the_variables_of_the_file_itself_do_not_reach_a_container() -> None:
    own = {name for name in compose.named() if name not in variables()}
    assert own >= set(compose.VARIABLES)
    for name, service in SERVICES.items():
        assert not own & set(compose.environment(name))
        assert "env_file" not in service


def test_a_shell_that_exports_the_variables_of_the_file_can_run_gaia() -> None:
    assert compose.named() >= compose.VARIABLES.keys()
    read(dict.fromkeys(compose.named() - variables().keys(), "x"))


def test_the_documents_have_all_of_them_written_to_the_file_that_compose_is_given() -> None:
    (script,) = re.findall(
        r"^```\n(\(umask.*?)^```", (ROOT / "docs" / "deployment.md").read_text(), re.MULTILINE | re.DOTALL
    )
    written = set(re.findall(r"^(\w+)=", script, re.MULTILINE))
    assert written == compose.named() - variables().keys()
    assert "cat > docker/.env" in script
    assert "docker compose --env-file docker/.env " in script
    assert "docker/.env" in (ROOT / ".gitignore").read_text().split()


@pytest.mark.parametrize("variable", sorted(compose.VARIABLES))
def test_a_password_that_is_not_set_stops_the_start(variable: str) -> None:
    given = {name: value for name, value in compose.VARIABLES.items() if name != variable}
    with pytest.raises(compose.Unset, match=variable):
        [compose.environment(name, given) for name in SERVICES]


def test_no_secret_has_a_default_or_stands_in_the_file() -> None:
    text = compose.PATH.read_text()
    for name in compose.VARIABLES:
        assert all(text[found.end() : found.end() + 2] == ":?" for found in re.finditer(rf"\$\{{{name}", text))


def test_flower_listens_to_others_behind_a_password() -> None:
    options = flower_options(read(compose.environment("flower")))
    assert options["address"] == "0.0.0.0"  # noqa: S104 - inside its container
    assert options["basic_auth"] == ["me:pass"]
    assert options["read_only"] is True


def test_the_monitor_and_the_workers_it_asks_listen_behind_one_token() -> None:
    monitor = read(compose.environment("monitor"))
    assert bearer(monitor, monitor.monitor.host, "GAIA_MONITOR__HOST") == compose.VARIABLES["CLUSTER_MONITOR_TOKEN"]
    for queue in wire.QUEUES:
        settings = read(compose.environment(queue))
        assert (settings.worker.host, settings.worker.port) == ("0.0.0.0", 9809)  # noqa: S104 - inside its container
        assert settings.monitor.token == monitor.monitor.token
        assert set(SERVICES[queue]["networks"]) & set(SERVICES["monitor"]["networks"])


def test_only_three_pages_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published == {
        "flower": [f"127.0.0.1:5555:{read({}).flower.port}"],
        "grafana": ["127.0.0.1:3000:3000"],
        "monitor": [f"127.0.0.1:9808:{read({}).monitor.port}"],
    }


def test_the_other_exporter_starts_only_when_asked_for_and_is_given_the_broker_alone() -> None:
    service = SERVICES["celery-exporter"]
    assert service["profiles"] == ["celery-exporter"]
    assert "ports" not in service
    given = {name: compose.interpolate(value) for name, value in service["environment"].items()}
    assert given == {"CE_BROKER_URL": read(compose.environment("api")).redis_url}


def test_grafana_lets_nobody_in_without_the_password_and_finds_our_dashboards() -> None:
    service = SERVICES["grafana"]
    given = compose.environment("grafana", {"CLUSTER_GRAFANA_PASSWORD": "a-password"})
    assert service["profiles"] == SERVICES["prometheus"]["profiles"] == ["grafana"]
    assert given["GF_SECURITY_ADMIN_PASSWORD"] == "a-password"
    unset = subprocess.run(
        [*service["entrypoint"], *map(compose.interpolate, service["command"])],
        env={"PATH": os.environ["PATH"], **compose.environment("grafana")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert unset.returncode
    assert "set CLUSTER_GRAFANA_PASSWORD" in unset.stderr
    assert (given["GF_AUTH_ANONYMOUS_ENABLED"], given["GF_USERS_ALLOW_SIGN_UP"]) == ("false", "false")
    mounts = {target: source for source, target, *_ in (each.split(":") for each in service["volumes"])}
    folder = compose.PATH.parent / mounts["/etc/grafana/provisioning"]
    (source,) = yaml.safe_load((folder / "datasources" / "prometheus.yml").read_text())["datasources"]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((folder / "dashboards" / "gaia.yml").read_text())["providers"]
    path = provider["options"]["path"]
    assert (compose.PATH.parent / mounts[path]).samefile(dashboards.FOLDER)
    assert given["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"] == f"{path}/overview.json"


def test_prometheus_in_a_container_asks_the_monitor_with_the_token(tmp_path: Path) -> None:
    """Its start-up script, run here, makes of the repository's file one that a Prometheus takes."""
    (script,) = SERVICES["prometheus"]["command"]
    script = compose.interpolate(script)
    for there, here in (
        ("/tmp/", f"{tmp_path}/"),  # noqa: S108 - of the container
        ("/etc/gaia", str(ROOT / "config" / "prometheus")),
        ("exec prometheus", "true"),
    ):
        script = script.replace(there, here)
    subprocess.run(["sh", "-euc", script], env={"PATH": os.environ["PATH"], "MONITOR_TOKEN": "t" * 16}, check=True)
    found = yaml.safe_load((tmp_path / "prometheus.yml").read_text())
    asked = [*found["scrape_configs"], *found["scrape_configs"][1]["http_sd_configs"]]
    assert [each["authorization"]["credentials_file"] for each in asked] == [f"{tmp_path}/token"] * 3
    assert (tmp_path / "token").read_text() == "t" * 16
    assert "127.0.0.1" not in json.dumps(found)


# --- confinement


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_is_hardened(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not {"privileged", "cap_add", "network_mode", "pid", "ipc", "devices", "userns_mode"} & set(service)
    limits = service["deploy"]["resources"]["limits"]
    assert limits.keys() >= {"memory", "pids"}


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_can_be_scaled(name: str) -> None:
    assert not {"container_name", "hostname", "domainname", "mac_address"} & set(SERVICES[name])
    assert all("ipv4_address" not in str(each) for each in SERVICES[name]["networks"])


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_a_service_has_a_health_check_of_its_own(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert "celery" not in " ".join(check["test"])


def test_the_health_check_of_workers_is_in_their_image() -> None:
    script = SERVICES["api"]["healthcheck"]["test"][-1]
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    assert f"COPY docker/healthcheck.py {script}\n" in dockerfile


@pytest.mark.parametrize("queue", wire.QUEUES)
def test_a_stopping_worker_gets_the_time_it_takes(queue: str) -> None:
    given_s = float(SERVICES[queue]["stop_grace_period"].removesuffix("s"))
    assert given_s > Worker().grace_s + LAST_WORDS_S


def test_redis_reaches_nothing_and_is_reached_by_the_cluster_alone() -> None:
    assert compose.read()["networks"]["cluster"] == {"internal": True}
    assert SERVICES["redis"]["networks"] == ["cluster"]
    assert all("cluster" in SERVICES[name]["networks"] for name in OURS)


def test_redis_keeps_its_data_and_runs_as_no_root() -> None:
    assert SERVICES["redis"]["volumes"] == ["redis:/data"]
    assert SERVICES["redis"]["user"] == "valkey"


def test_files_lie_on_a_volume() -> None:
    for name in ("files", "process"):
        roots = json.loads(compose.environment(name)["GAIA_FILES__ROOTS"])
        mounted = [each.partition(":")[2] for each in SERVICES[name]["volumes"]]
        assert list(roots.values()) == mounted


def test_images_are_built_from_targets_that_exist() -> None:
    dockerfile = (ROOT / "docker" / "Dockerfile").read_text()
    for name in OURS:
        build = SERVICES[name]["build"]
        assert (compose.PATH.parent / build["context"] / build["dockerfile"]).samefile(ROOT / "docker" / "Dockerfile")
        assert f" AS {build['target']}\n" in dockerfile
    assert SERVICES["browser"]["build"]["target"] == "browser"


def test_only_the_browser_leaves_the_engines_seccomp_profile_for_one_that_is_there() -> None:
    options = {name: [each for each in SERVICES[name]["security_opt"] if "seccomp" in each] for name in SERVICES}
    assert {name: each for name, each in options.items() if each} == {"browser": ["seccomp=chromium-seccomp.json"]}
    assert json.loads((compose.PATH.parent / "chromium-seccomp.json").read_text())["syscalls"]
