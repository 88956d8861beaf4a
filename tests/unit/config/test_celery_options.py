"""Settings to Celery options."""

from celery.app.defaults import DEFAULTS

from config.celery_options import celery_options
from config.settings import read
from gaia import wire
from tests.support import contracts


def test_the_urls_are_those_of_the_settings() -> None:
    options = celery_options(read({"GAIA_REDIS_URL": "redis://a/1"}))
    assert (options["broker_url"], options["result_backend"].rpartition("redis://")[2]) == ("redis://a/1", "a/1")


def test_what_both_sides_share_is_not_changed() -> None:
    options = celery_options(read({}))
    for name, value in wire.SHARED_OPTIONS.items():
        assert options[name] == value


def test_every_operation_goes_to_its_queue() -> None:
    routes = celery_options(read({}))["task_routes"]
    for kind in contracts.calls():
        assert routes[kind.OPERATION] == {"queue": kind.QUEUE}


def test_celery_knows_every_option() -> None:
    without_default = {"visibility_timeout", "redis_backend_health_check_interval"}  # its Redis backend reads them
    assert set(celery_options(read({}))) - set(DEFAULTS) <= without_default


def test_the_concurrency_holds_under_celerys_own_command_too() -> None:
    assert celery_options(read({"GAIA_WORKER__CONCURRENCY": "7"}))["worker_concurrency"] == 7
    assert celery_options(read({}))["worker_concurrency"] is DEFAULTS["worker_concurrency"] is None
