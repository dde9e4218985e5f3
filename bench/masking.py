"""Measure masking: µs per KiB of body and per small chunk, with 50 secrets. Prints figures, asserts nothing."""

from __future__ import annotations

import base64
import json
import random
import statistics
import sys
import time
from collections.abc import Callable

from lampyr.core.masking import Masker

ROUNDS = 7
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
WORDS = ("the", "model", "says", "that", "a", "function", "is", "dark", "until", "someone", "calls,", "then", "lit")


def main() -> None:
    source = random.Random(7)
    for shortest, name in ((40, "provider keys, 40 characters and more"), (16, "16 characters and more")):
        secrets = [_secret(source, shortest) for _ in range(50)]
        started = time.perf_counter()
        masker = Masker(secrets)
        print(f"50 secrets: {name}: made in {(time.perf_counter() - started) * 1e3:.0f} ms")
        for kind, body in _bodies(source).items():
            print(f"  {kind:<24} {_measure(masker.mask, body) / (len(body) / 1024):6.2f} µs/KiB")
        for kind, chunk in _chunks().items():
            print(f"  {kind:<24} {_measure(masker.stream().feed, chunk):6.2f} µs/chunk")


def _secret(source: random.Random, shortest: int) -> str:
    prefix = source.choice(("sk-proj-", "sk-ant-api03-", "ghp_", ""))
    return (prefix + "".join(source.choices(LETTERS, k=shortest)))[: shortest + source.randrange(20)]


def _bodies(source: random.Random) -> dict[str, bytes]:
    prose = " ".join(source.choices(WORDS, k=12_000)).encode()[:65_536]
    rows = [{"id": source.randrange(10**6), "text": " ".join(source.choices(WORDS, k=8))} for _ in range(800)]
    return {
        "prose, 64 KiB": prose,
        "JSON, 64 KiB": json.dumps(rows).encode()[:65_536],
        "lines, 64 KiB": b"\n".join(prose[at : at + 70] for at in range(0, len(prose), 70)),
        "JSON with \\n, 64 KiB": json.dumps([{**row, "text": row["text"].replace("until", "\n\n-")} for row in rows])[
            :65_536
        ].encode(),
        "base64, 64 KiB": base64.b64encode(source.randbytes(49_152)),
        "JSON, 1 KiB": json.dumps(rows).encode()[:1024],
    }


def _chunks() -> dict[str, bytes]:
    delta = {"id": "chatcmpl-1", "choices": [{"index": 0, "delta": {"content": " hello"}}]}
    return {
        "a word": b" hello",
        "an SSE event": b"data: " + json.dumps(delta).encode() + b"\n\n",
        "an SSE event with \\n": b'data: {"delta": "so:\\n\\n- one\\n"}\n\n',
        "a line": b"2024-01-01 12:00:00 something was done\n",
    }


def _measure(call: Callable[[bytes], bytes], data: bytes) -> float:
    """The median of several rounds, in µs of processor time a call: others on the machine do not count."""
    times = []
    for _ in range(ROUNDS):
        calls, started = 0, time.process_time()
        while time.process_time() - started < 0.05:
            for _ in range(20):
                call(data)
            calls += 20
        times.append((time.process_time() - started) / calls * 1e6)
    return statistics.median(times)


if __name__ == "__main__":
    sys.exit(main())
