"""A name server as fast as Python makes one: every name of any type A has one address. Prints its port.

It looks at nothing but where the question ends, so that what is measured is who asks.
"""

import socket

ANSWER = b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x3c\x00\x04\xc0\x00\x02\x01"
COUNTS = b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00"


def main() -> None:
    """Answer until killed."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 * 1024 * 1024)
        sock.bind(("127.0.0.1", 0))
        print(sock.getsockname()[1], flush=True)
        while True:
            message, client = sock.recvfrom(2048)
            end = message.index(b"\0", 12) + 5
            sock.sendto(message[:2] + COUNTS + message[12:end] + ANSWER, client)


if __name__ == "__main__":
    main()
