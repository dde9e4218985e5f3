"""A client for tests: it calls the functions of a project in this process, without ports and without other processes.

    from lampyr.testing import Client

    def test_echo() -> None:
        with Client("my-app") as client:
            answer = client.post("/api/echo", json={"a": 1})
            assert answer.status == 200 and answer.json() == {"a": 1}

Routing, methods, `max_body`, `max_duration`, `first_byte_timeout`, errors, streams, `after` and lifespans are the real
ones. What needs processes is not there: memory limits, secrets kept from a function, `concurrency`, rates and budgets;
`public/` is not served, and code that blocks is not stopped at its deadline, only answered for.
"""

from __future__ import annotations

from lampyr.testing.call import Answer, Cut
from lampyr.testing.client import Client

__all__ = ["Answer", "Client", "Cut"]
