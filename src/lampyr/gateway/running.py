"""What runs, as `lampyr ps` shows it: the pools of deployments that serve, and what others still have to finish."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from lampyr.gateway.site import Site
from lampyr.node.instance import Instance
from lampyr.node.pool import Pool
from lampyr.node.shelf import MIB


def functions(sites: Iterable[Site], retiring: Mapping[Pool, str]) -> list[dict[str, Any]]:
    """Each function of `sites`; then those of earlier deployments (pool → its id) that something still runs in."""
    rows = [_function(pool, site.id) for site in sites for pool in site.pools.values()]
    return rows + [_function(pool, deployment) for pool, deployment in retiring.items()]


def _function(pool: Pool, deployment: str) -> dict[str, Any]:
    instances = list(pool.instances.values())
    ahead = sum(len(one.running) - _in_flight(pool, one) for one in instances)
    return {
        "function": pool.function.route,
        "runtime": pool.function.settings.runtime,
        "deployment": deployment,
        "snapshot": "ready" if pool.snapshot.state == "ready" else "absent",
        "failed": pool.snapshot.state == "failed",
        "parked": _parked(pool),
        "snapshot_mb": round(pool.snapshot.own_bytes / MIB, 1),
        "waiting": len(pool.waiting) + ahead,
        "instances": [_instance(pool, one) for one in instances],
    }


def _parked(pool: Pool) -> int | None:
    """The process that is to be the next instance."""
    process = pool.parking.process
    return process.host_pid() if process is not None and process.state == "parked" else None


def _instance(pool: Pool, instance: Instance) -> dict[str, Any]:
    return {
        "id": str(instance.number),
        "pid": instance.host_pid(),
        "state": instance.state,
        "in_flight": _in_flight(pool, instance),
    }


def _in_flight(pool: Pool, instance: Instance) -> int:
    """Requests that lie unread in an instance's socket wait; they are not in flight."""
    return min(len(instance.running), pool.concurrency)
