"""Settings to Celery options: a pure function on what both sides share in `gaia.wire`."""

from typing import Any, Final

from config.settings import Settings
from gaia import wire
from gaia.contracts.base import CALLS
from gaia.store.connection import CONNECT_TIMEOUT_S

VISIBILITY_TIMEOUT_S: Final = 3600
"""For what stock workers on the same queues hold. Our own messages are leased, see `tasks.broker.channel`."""


def celery_options(settings: Settings) -> dict[str, Any]:
    """Give the options of a worker's Celery app."""
    # No command of the transport blocks in Redis, so a reply this late means a half-open socket. Below the lease: the
    # thread that renews leases waits for replies, too.
    redis = {"socket_connect_timeout": CONNECT_TIMEOUT_S, "socket_timeout": 4.0, "socket_keepalive": True}
    return {
        **wire.SHARED_OPTIONS,
        "broker_url": settings.redis_url,
        "result_backend": settings.result_url or settings.redis_url,
        "broker_transport_options": {
            **redis,
            "visibility_timeout": VISIBILITY_TIMEOUT_S,
            # How often a worker looks for messages of dead ones; stock Celery does every hundred seconds.
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
            "health_check_interval": 25,
        },
        "visibility_timeout": VISIBILITY_TIMEOUT_S,
        "result_backend_transport_options": {"visibility_timeout": VISIBILITY_TIMEOUT_S},
        "redis_socket_connect_timeout": CONNECT_TIMEOUT_S,
        "redis_socket_timeout": 10.0,
        "redis_socket_keepalive": True,
        "redis_backend_health_check_interval": 25,
        "broker_connection_retry_on_startup": True,
        # A worker outlives an outage of any length; the default gives up at the hundredth try.
        "broker_connection_max_retries": None,
        # And a server that refuses for a while, see `tasks.runtime.consumer`.
        "broker_channel_error_retry": True,
        "task_routes": {name: {"queue": call.QUEUE} for name, call in CALLS.items()},
        "task_acks_late": True,
        "task_reject_on_worker_lost": True,
        "worker_prefetch_multiplier": 1,
        # Of Celery's own command, unless -c is given; None is the number of cores.
        "worker_concurrency": settings.worker.concurrency,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_send_task_events": True,
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
        "worker_consumer": "tasks.runtime.consumer:Consumer",
        # Celery's command takes it, too, unless -P names another one.
        "worker_pool": "tasks.runtime.pool:Pool",
        # `celery inspect` and Flower ask through it.
        "worker_enable_remote_control": True,
    }
