"""Where the app listens."""

import socket

HOST, FIRST_PORT, N_PORTS = "127.0.0.1", 7860, 100


def free_port(wanted: int | None) -> int:
    """The port that is asked for, or the first free one; ValueError where it is taken, or none is free."""
    for port in [wanted] if wanted else range(FIRST_PORT, FIRST_PORT + N_PORTS):
        with socket.socket() as tried:
            tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                tried.bind((HOST, port))
            except OSError:
                continue
            return port
    taken = f"port {wanted} of {HOST} is" if wanted else f"ports {FIRST_PORT} to {FIRST_PORT + N_PORTS - 1} are"
    raise ValueError(f"The {taken} taken: name another one with --port.")
