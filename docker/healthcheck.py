# noqa: INP001 - a script: the image holds it alone
"""Tell a container engine whether the worker of this container consumes: `python -I -S healthcheck.py [LIMIT_S]`.

Redis is asked, since only it sees whether the worker fetches. Among the connections that come from this container's
address there must be a fetch connection (it has the server track the lists, see `tasks.broker.channel`), and one that
published the worker's heartbeat, which comes every two seconds, within LIMIT_S, 15 by default. So a worker that hangs,
that was stopped, or that came back from an outage without its queue is found out, while one whose slots are all taken,
and which fetches nothing for that reason, is not. It costs some 30 ms and only the standard library; `celery inspect
ping` costs 0.7 s of CPU, and a worker that has lost its queue answers it.

Exit code 0 if the worker consumes, 1 if it does not, and one line that says why.
"""

import os
import socket
import ssl
import sys
from collections.abc import Iterator, Mapping
from io import BufferedRWPair
from urllib.parse import SplitResult, unquote, urlsplit

TRACKING = "t"
"""The flag of CLIENT LIST of a connection with CLIENT TRACKING on."""

BLOCKING = "blmove"
"""The command of the fetch connection where the server refuses tracking."""

HEARTBEAT = "publish"
LIMIT_S = 15
ANSWER_BOUND_S = 3.0


def flaw(url: str, limit_s: float) -> str | None:
    """Say why the worker does not consume, None if it does.

    Raises:
        OSError: if Redis cannot be reached or refuses.
    """
    parts = urlsplit(url)
    with _connected(parts) as connection, connection.makefile("rwb") as stream:
        if parts.password:
            user = [unquote(parts.username)] if parts.username else []
            _ask(stream, "AUTH", *user, unquote(parts.password))
        listed = _ask(stream, "CLIENT", "LIST").decode()
        own = connection.getsockname()[0]
    mine = [each for each in _clients(listed) if each["addr"].rpartition(":")[0].strip("[]") == own]
    if not any(TRACKING in each["flags"] or each["cmd"] == BLOCKING for each in mine):
        return "no connection of this container fetches messages"
    heartbeats = [int(each["idle"]) for each in mine if each["cmd"] == HEARTBEAT]
    if not heartbeats or min(heartbeats) > limit_s:
        return f"the worker has not given a sign of life for {limit_s:g} s"
    return None


def _connected(parts: SplitResult) -> socket.socket:
    host = parts.hostname or "127.0.0.1"
    plain = socket.create_connection((host, parts.port or 6379), ANSWER_BOUND_S)
    if parts.scheme != "rediss":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _ask(stream: BufferedRWPair, *words: str) -> bytes:
    """Send one command; give its reply, a status line or a bulk string (the Redis protocol, RESP2)."""
    encoded = [word.encode() for word in words]
    stream.write(b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in encoded))
    stream.flush()
    reply = stream.readline().strip()
    if reply.startswith(b"$"):
        return stream.read(int(reply[1:]) + 2)
    if reply.startswith(b"+"):
        return reply[1:]
    raise ConnectionError(reply.decode(errors="replace") or "Redis closed the connection")


def _clients(listed: str) -> Iterator[Mapping[str, str]]:
    for line in listed.splitlines():
        if line:
            yield dict(pair.partition("=")[::2] for pair in line.split(" "))


def main() -> None:
    """Exit with the verdict."""
    limit_s = float(sys.argv[1]) if len(sys.argv) > 1 else LIMIT_S
    try:
        found = flaw(os.environ["GAIA_REDIS_URL"], limit_s)
    except KeyError:
        found = "GAIA_REDIS_URL is not set"
    except OSError as failure:
        found = f"Redis cannot be asked: {failure}"
    except ValueError:
        # Without the reason, which may quote the password.
        found = "GAIA_REDIS_URL is no address"
    sys.exit(found)


if __name__ == "__main__":
    main()
