"""The settings of a project: where they are read from, what they hold, and what is said when they are wrong."""

from __future__ import annotations

import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from lampyr import config
from lampyr.config import Price, Provider
from lampyr.errors import ConfigError
from lampyr.settings import SETTINGS, Setting, Wrong, defaults
from lampyr.types import Settings
from lampyr.values import Budget, Rate, parse_budget, parse_rate


def load(root: Path, text: str | bytes, name: str = "lampyr.toml") -> config.Config:
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return config.load(root)


def test_without_a_file_everything_has_its_default(tmp_path: Path) -> None:
    found = config.load(tmp_path)
    server = found.server
    assert (server.host, server.port, server.trusted_proxies) == ("127.0.0.1", 3000, ())
    assert (server.stream_keepalive, found.functions, found.routes, found.providers) == (15.0, {}, {}, {})


def test_a_file_of_settings(tmp_path: Path) -> None:
    found = load(
        tmp_path,
        """
        [server]
        host = "0.0.0.0"
        port = 0
        trusted_proxies = ["10.1.2.3/8", "::1"]
        max_connections = 10
        stream_keepalive = 1
        [functions]
        memory = 256
        max_duration = "none"
        [functions."/api/chat"]
        secrets = ["OPENAI_API_KEY"]
        rate_limit = "10 / second"
        [providers.openai]
        models = ["gpt-5"]
        fallback = ["mine"]
        [providers.mine]
        base_url = "http://10.0.0.1:8000/v1/"
        paths = ["/chat/completions"]
        timeout = 30
        retries = 0
        cache = "15m"
        [providers.small]
        kind = "local"
        [budget]
        limit = ["5 USD/day", "1000 invocations/hour"]
        webhook = "https://example.org/hook"
        [prices]
        machine_per_hour = 0.2
        [prices."gpt-5"]
        input = 1.25
        output = 10
        """,
    )
    assert found.server.trusted_proxies == ("10.0.0.0/8", "::1/128")
    assert (found.server.port, found.server.max_connections, found.server.stream_keepalive) == (0, 10, 1.0)
    assert found.functions == {"memory": 256, "max_duration": None}
    assert found.routes == {"/api/chat": {"secrets": ("OPENAI_API_KEY",), "rate_limit": "10/second"}}
    assert found.providers["openai"] == Provider(
        name="openai",
        kind="openai",
        base_url="https://api.openai.com/v1",
        secret="OPENAI_API_KEY",
        paths=None,
        models=("gpt-5",),
        timeout=600.0,
        retries=2,
        fallback=("mine",),
        cache=None,
    )
    mine = found.providers["mine"]
    assert mine.cache == 900.0
    assert (mine.kind, mine.base_url, mine.secret) == ("openai-compatible", "http://10.0.0.1:8000/v1", None)
    assert found.providers["small"].kind == "local"
    assert found.budget.limit == ("5 USD/day", "1000 invocations/hour")
    assert (found.machine_per_hour, found.prices) == (0.2, {"gpt-5": Price(input=1.25, cached_input=None, output=10.0)})


def test_pyproject_is_read_where_there_is_no_file_of_its_own(tmp_path: Path) -> None:
    pyproject = '[project]\nname = "x"\n[tool.lampyr.server]\nport = 4000\n[tool.other]\nx = 1\n'
    assert load(tmp_path, pyproject, "pyproject.toml").server.port == 4000
    assert load(tmp_path, "[functions]\nmemory = 64\n").server.port == 3000


@pytest.mark.parametrize("text", ["", '[project]\nname = "x"\n', "[tool.other]\nlampyr = 1\n"])
def test_a_pyproject_without_our_table_says_nothing(tmp_path: Path, text: str) -> None:
    assert load(tmp_path, text, "pyproject.toml").server.port == 3000


@pytest.mark.parametrize("text", [b"\xef\xbb\xbf[server]\nport = 1\n", b"[server]\r\nport = 1\r\n"])
def test_files_of_windows_editors_are_read(tmp_path: Path, text: bytes) -> None:
    assert load(tmp_path, text).server.port == 1


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("# one\nport = 3000\n", 2, ['unknown key "port"', "[server]", "[functions]"]),
        ("\n[sever]\nport = 1\n", 2, ['unknown key "sever"', "[server]"]),
        ("server = 1\n", 1, ['"server" must be a table']),
        ("[server]\nport = 1\nhots = 'x'\n", 3, ["[server]", '"hots"', "host, port, trusted_proxies"]),
        ("[server]\nport = '3000'\n", 2, ["[server]", 'port = "3000"', "0 to 65535"]),
        ("[server]\nport = true\n", 2, ["port = True", "whole number"]),
        ("[server]\nport = 3000.0\n", 2, ["port = 3000.0", "whole number"]),
        ("[server]\nport = 65536\n", 2, ["65536"]),
        ("[server]\nhost = ''\n", 2, ["host"]),
        ("[server]\ntrusted_proxies = [\n  '10.0.0.0/8',\n  'proxy',\n]\n", 2, ["trusted_proxies", "ranges"]),
        ("[server]\ntrusted_proxies = '10.0.0.0/8'\n", 2, ["trusted_proxies", "a list"]),
        ("[server]\nmax_connections = 0\n", 2, ["max_connections"]),
        ("[server]\nstream_keepalive = nan\n", 2, ["stream_keepalive"]),
        ("[server]\nstream_keepalive = 'x'\nport = 5\n", 2, ["stream_keepalive", "seconds"]),
        ("server.port = 'x'\n", 1, ["port"]),
        ("[functions]\n'runtime' = 'edgy'\n", 2, ["[functions]", '"standard" or "edge"']),
        ("[functions]\nmax_duration = inf\n", 2, ["1 to 900"]),
        ("[functions]\nmemroy = 1\n", 2, ['"memroy"', "memory"]),
        ("[functions.'/api/chat']\n\nruntime = 1\n", 3, ['[functions."/api/chat"]', "runtime"]),
        ("[functions.'/api/chat']\nx = 1\n", 2, ['[functions."/api/chat"]', '"x"', "max_duration"]),
        ("[functions]\n'/x' = 1\n", 2, ['"/x" must be a table']),
        ("[functions.'api/chat']\nmemory = 64\n", 1, ['"api/chat"']),
        ("functions = {'/a' = {memory = 1}}\n", 1, ['[functions."/a"]', "memory"]),
        ("[providers.openai]\ncache = 60\n", 2, ["cache = 60", '"15m"']),
        ("[providers.openai]\ncache = '31d'\n", 2, ['cache = "31d"', "30d"]),
        ("[providers.openai]\ncache = '0s'\n", 2, ["1s"]),
        ("[providers.openai]\ncache = '1h 5m'\n", 2, ["1h 5m"]),
        ("[providers]\nopenai = 'x'\n", 2, ['"openai" must be a table']),
        ("[providers.openai]\nkind = 'opnai'\n", 2, ["[providers.openai]", '"openai-compatible"']),
        ("[providers.openai]\nbase_url = 'api.openai.com'\n", 2, ["base_url", "http"]),
        ("[providers.openai]\nbase_url = 'https://me:pw@api.openai.com'\n", 2, ["base_url", "without user"]),
        ("[providers.openai]\nbase_url = 'https://x:port/'\n", 2, ["base_url"]),
        ("[providers.openai]\nbase_url = 'https://x/?a'\n", 2, ["base_url"]),
        ("[providers.openai]\npaths = ['chat']\n", 2, ["paths"]),
        ("[providers.openai]\nretries = -1\n", 2, ["retries"]),
        ("[providers.mine]\nsecret = 'X'\n", 1, ["[providers.mine]", "base_url is missing"]),
        ("[providers.'my provider']\nkind = 'echo'\n", 1, ["my provider"]),
        ("[providers.openai]\nfallback = ['anthropic']\n", 2, ['"anthropic"']),
        ("[providers.openai]\nfallback = ['openai']\n", 2, ['"openai"']),
        ("[budget]\nlimit = '5 EUR/day'\n", 2, ["[budget]", "USD"]),
        ("[budget]\nlimits = '5 USD/day'\n", 2, ["limit, webhook"]),
        ("[prices]\nmachine = 1\n", 2, ["machine_per_hour"]),
        ("[prices.x]\ninput = -1\n", 2, ["[prices.x]", "dollars"]),
        ("x = '''\n[server]\nport = 'no'\n'''\n[server]\nport = 1\n", 1, ['"x"']),
        ("[server]\nport = \n", 2, ["not valid TOML"]),
        ("[server]\nport = 1\nport = 2\n", 3, ["not valid TOML"]),
        ("[server\n", 1, ["not valid TOML"]),
        ("[server]\nhost = '''x\n\n\n", 2, ["not valid TOML"]),
        (b"[server]\n# caf\xe9\n", 2, ["UTF-8"]),
    ],
)
def test_a_mistake_is_named_with_file_and_line_and_what_is_allowed(
    tmp_path: Path, text: str | bytes, line: int, says: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.message.startswith(f"lampyr.toml:{line}: ")
    for word in says:
        assert word in caught.value.message
    assert caught.value.hint and "pw@" not in caught.value.message


def test_every_mistake_is_told_at_once_and_what_follows_from_one_is_not(tmp_path: Path) -> None:
    text = """
        [providers.mine]
        base_url = "mine"
        [providers.openai]
        fallback = ["yours"]
        [functions."/api/chat"]
        runtime = "edgy"
        [functions]
        memroy = 1
        memory = 1
        [sever]
        [prices]
        x = 1
        [server]
        port = 70_000
    """
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert caught.value.message == "lampyr.toml: 8 errors"
    says = {
        3: "[providers.mine] base_url",
        5: '[providers.openai] fallback names "yours"; allowed: mine',
        7: '[functions."/api/chat"] runtime = "edgy"',
        9: '[functions] unknown key "memroy"',
        10: "[functions] memory = 1",
        11: 'unknown key "sever"',
        13: '[prices] unknown key "x"',
        15: "[server] port = 70000",
    }
    found = {one.line: one for one in caught.value.problems}
    assert list(found) == list(says), "in the order of the file"
    for line, one in found.items():
        assert one.file == "lampyr.toml" and one.hint and one.message.startswith(says[line or 0])
        assert str(one) in str(caught.value), "a traceback shows them, too"


def test_a_file_of_nothing_but_mistakes_is_read_in_no_time(tmp_path: Path) -> None:
    began = time.perf_counter()
    with pytest.raises(ConfigError, match=r"lampyr\.toml: 2000 errors"):
        load(tmp_path, "[server]\n" + "".join(f"x{number} = 1\n" for number in range(2000)))
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("[server]\nhots = 'x'\n", '"host"'),
        ("[sever]\n", '"server"'),
        ("port = 3000\n", "[server]"),
        ("memory = 300\n", "[functions]"),
        ("[functions]\nmaxDuration = 5\n", '"max_duration"'),
        ("[functions]\nruntime = 'Edge'\n", '"edge"'),
        ("[functions.'api/chat']\nmemory = 64\n", '[functions."/api/chat"]'),
        ("[providers.openai]\nbaseurl = 'x'\n", '"base_url"'),
    ],
)
def test_a_near_miss_has_a_hint(tmp_path: Path, text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)
    assert hint in caught.value.hint


def test_a_mistake_in_pyproject_names_its_own_table_and_line(tmp_path: Path) -> None:
    text = (
        '[project]\nname = "x"\ndependencies = [\n  "a",\n]\n[server]\nport = 1\n\n[tool.lampyr.server]\nport = "x"\n'
    )
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text, "pyproject.toml")
    assert caught.value.message.startswith("pyproject.toml:10: [tool.lampyr.server] port")
    quoted = "[tool.other]\nx = '''\n[tool.lampyr.server]\nport = 1\n'''\n[tool.lampyr.server]\nport = 'x'\n"
    with pytest.raises(ConfigError, match=r"pyproject.toml:7: \[tool.lampyr.server\] port"):
        load(tmp_path, quoted, "pyproject.toml")
    with pytest.raises(ConfigError, match=r"pyproject.toml:2: \[tool\] .*lampyr.* must be a table"):
        load(tmp_path, "[tool]\nlampyr = 1\n", "pyproject.toml")


def test_a_key_in_the_place_of_the_name_of_its_secret_is_not_repeated(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, '[providers.openai]\nsecret = "sk-proj-123"\n')
    assert "sk-proj" not in caught.value.message + caught.value.hint and "secret" in caught.value.message


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "lampyr.toml").mkdir()
    with pytest.raises(ConfigError, match=r"lampyr\.toml cannot be read"):
        config.load(tmp_path)


def test_the_table_and_the_nouns_agree() -> None:
    assert Settings(**defaults("functions")) == Settings()
    assert list(defaults("functions")) == [field.name for field in fields(Settings)]


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.section}.{setting.name}")
def test_every_setting_can_be_explained_and_its_default_is_allowed(setting: Any) -> None:
    assert setting.help and setting.allowed
    for value in (setting.default, setting.edge):
        if value is not None and value is not ...:
            assert setting.read(value) == value


def test_rates_and_budgets_are_read_where_they_are_enforced() -> None:
    assert parse_rate("60/minute") == Rate(60, 60)
    assert parse_rate("1/hour by header X-Api-Key") == Rate(1, 3600, "header", "x-api-key")
    assert parse_rate("1/hour by cookie Session") == Rate(1, 3600, "cookie", "Session")
    for wrong in ("1/hour by header", "1/hour by header a b", "1/hour by address x", "1/hour by header x:y"):
        with pytest.raises(ValueError):
            parse_rate(wrong)
    assert parse_rate("none") is None
    assert parse_budget("1 invocation/hour") == Budget(1.0, "invocations", "hour")
    assert parse_budget("2.50 usd / month") == Budget(2.5, "USD", "month")
    assert parse_budget("1_000 CPU seconds/day") == Budget(1000.0, "CPU seconds", "day")


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: f"{setting.section}.{setting.name}")
def test_every_value_that_is_wrong_has_a_hint(setting: Setting) -> None:
    wrong = setting.read(object())
    assert isinstance(wrong, Wrong) and wrong.hint


def test_the_hint_names_the_default() -> None:
    hints = {setting.name: setting.read(object()).hint for setting in SETTINGS if setting.section == "functions"}
    assert hints["max_body"] == "take it out for the default, 4500000"
    assert hints["idle_timeout"] == "take it out for the default, 60"
    assert hints["concurrency"] == "take it out for the default of the runtime"


@pytest.mark.parametrize("name", ["lampyr.toml", "pyproject.toml"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, name: str) -> None:
    """Nobody may ever write into a pipe, and a device may never end."""
    os.mkfifo(tmp_path / name)
    with pytest.raises(ConfigError, match=f"{name} cannot be read: it is not a regular file"):
        config.load(tmp_path)
    (tmp_path / name).unlink()
    (tmp_path / name).symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=f"{name} cannot be read: it is not a regular file"):
        config.load(tmp_path)
