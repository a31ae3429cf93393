"""`python -m shared.probe /readyz`: ask the server of this container how it is; exit 0 for a 2xx, 1 for anything else.

Python's own library only: images carry no curl, and a probe runs every few seconds.
"""

from __future__ import annotations

import http.client
import os
import sys

SECONDS = 4.0  # a little more than the server itself waits for its database


def main() -> int:
    """Ask; the exit code. The port is the one that the server was given."""
    port = int(os.environ.get("BATON_HTTP_PORT", "8080"))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
    try:
        connection.request("GET", sys.argv[1])
        answer = connection.getresponse()
        sys.stdout.write(answer.read(2000).decode(errors="replace") + "\n")
    except (OSError, http.client.HTTPException) as error:
        sys.stdout.write(f"{type(error).__name__}: {error}\n")
        return 1
    finally:
        connection.close()
    return 0 if 200 <= answer.status < 300 else 1


if __name__ == "__main__":
    sys.exit(main())
