""".env files in the order of SPEC 4, what is secret in them, and what a browser may see."""

from __future__ import annotations

import json
import os
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lampyr import config
from lampyr.build.brokering import of
from lampyr.build.environment import KEPT_BACK, Environment, env_js, is_secret_name, read
from lampyr.build.scan import scan
from lampyr.errors import ConfigError

FILES = (".env.{mode}.local", ".env.local", ".env.{mode}", ".env")


def project(root: Path, **files: str) -> Path:
    """Files are named without their dots: env, env_local, env_production_local."""
    for name, text in files.items():
        (root / ("." + name.replace("_", "."))).write_text(text)
    return root


def values(root: Path, mode: str = "development", **process: str) -> dict[str, str]:
    found = read(root, mode, process).values
    del found["LAMPYR_ENV"]
    return found


class TestOrder:
    @pytest.mark.parametrize("mode", ["development", "production"])
    @pytest.mark.parametrize("first", range(4))
    def test_the_first_file_that_has_a_name_wins(self, tmp_path: Path, mode: str, first: int) -> None:
        for name in FILES[first:]:
            (tmp_path / name.format(mode=mode)).write_text(f"WHO={name}")
        assert values(tmp_path, mode) == {"WHO": FILES[first]}

    def test_the_process_wins_over_all_files(self, tmp_path: Path) -> None:
        project(tmp_path, env_development_local="WHO=file")
        assert values(tmp_path, WHO="process") == {"WHO": "process"}
        assert values(tmp_path, WHO="") == {"WHO": ""}

    def test_files_of_another_mode_are_not_read(self, tmp_path: Path) -> None:
        project(tmp_path, env_production="A=1", env_production_local="B=1", env_test="C=1", env="D=1")
        assert values(tmp_path, "development") == {"D": "1"}

    def test_in_test_env_local_is_not_read(self, tmp_path: Path) -> None:
        project(tmp_path, env_test_local="A=1", env_local="B=1", env_test="C=1", env="D=1", env_development="E=1")
        found = read(tmp_path, "development", {"LAMPYR_ENV": "test"})
        assert found.mode == "test"
        assert found.values == {"A": "1", "C": "1", "D": "1", "LAMPYR_ENV": "test"}

    def test_which_files_were_read(self, tmp_path: Path) -> None:
        project(tmp_path, env_local="", env="A=1", env_production="")
        assert read(tmp_path, "development", {}).files == (tmp_path / ".env.local", tmp_path / ".env")

    def test_no_files_at_all(self, tmp_path: Path) -> None:
        assert values(tmp_path, PATH="/bin") == {"PATH": "/bin"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A=1", "1"),
        ("A = 1 ", "1"),
        ("export A=1", "1"),
        ("A=", ""),
        ("A=''", ""),
        ("A=one two # comment", "one two"),
        ("A=one#two", "one#two"),
        ("A='one # two'", "one # two"),
        ('A="one # two" # comment', "one # two"),
        ('A="one\\ntwo"', "one\ntwo"),
        ('A="one\ntwo\n"', "one\ntwo\n"),
        ("A='one\\ntwo'", "one\\ntwo"),
        ('A="say \\"hi\\""', 'say "hi"'),
        ("A=1\nA=2", "2"),
        ('A="one\r\ntwo\r\n"\r\n', "one\ntwo\n"),
        ("# A=2\n\nA=1\r\n", "1"),
        ("\ufeffA=1", "1"),
        ("A=ü€\U0001f511", "ü€\U0001f511"),
        ("A=a=b=c", "a=b=c"),
        ("A='pa$$word'", "pa$$word"),
        ("A='pa\\$word'", "pa$word"),
        ('A="x${B}y"\nB=b', "xby"),
        ("A=x$HOME", "x/home/me"),
        ("A=\\$B\nB=b", "$B"),
    ],
)
def test_syntax(tmp_path: Path, text: str, expected: str) -> None:
    (tmp_path / ".env").write_bytes(text.encode())
    assert values(tmp_path, HOME="/home/me")["A"] == expected


def test_values_expand_against_the_merged_result(tmp_path: Path) -> None:
    project(tmp_path, env="URL=https://$HOST/$TENANT\nHOST=default\nTENANT=t", env_local="HOST=local")
    assert values(tmp_path, TENANT="process")["URL"] == "https://local/process"


def test_values_of_the_process_stand_as_they_are(tmp_path: Path) -> None:
    project(tmp_path, env="B=b")
    assert values(tmp_path, A="$B")["A"] == "$B"


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("A=1\n\n  \nSECRETVALUE is here\n", ".env:4:"),
        ("A=1\nSECRETVALUE\n", ".env:2:"),
        ('A=1\nB="SECRETVALUE\nC=3\n', ".env:2:"),
        ("A='SECRETVALUE", ".env:1:"),
        ('\r\n\r\nA="SECRETVALUE" more\r\n', ".env:3:"),
        ("1A=SECRETVALUE", ".env:1:"),
        ("A B=SECRETVALUE", ".env:1:"),
        ("=SECRETVALUE", ".env:1:"),
        ("A=1\nB=SECRET\0VALUE", ".env:2:"),
        (b"A=1\nB=1\nC=SECRETVALUE\xff", ".env:3:"),
        ("A=SECRETVALUE$B\nB=$A", ".env:1:"),
    ],
)
def test_what_is_malformed_is_named_and_not_shown(tmp_path: Path, text: str | bytes, where: str) -> None:
    (tmp_path / ".env").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError) as error:
        read(tmp_path, "development", {})
    assert error.value.message.startswith(where)
    assert error.value.hint
    assert "SECRET" not in error.value.message + error.value.hint


def test_a_pipe_is_read_as_long_as_somebody_writes(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / ".env")
    with ThreadPoolExecutor() as threads:
        wrote = threads.submit((tmp_path / ".env").write_text, "A=1\nB=2\n")
        assert values(tmp_path) == {"A": "1", "B": "2"}
        wrote.result(5)
    with pytest.raises(ConfigError, match=r"\.env cannot be read: it is a pipe into which nobody writes"):
        read(tmp_path, "development", {})


def test_a_pipe_without_an_end_and_a_device_are_not_read_for_ever(tmp_path: Path) -> None:
    (tmp_path / ".env.local").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match=r"\.env\.local cannot be read: it is neither a file nor a pipe"):
        read(tmp_path, "development", {})
    (tmp_path / ".env.local").unlink()
    os.mkfifo(tmp_path / ".env")
    with subprocess.Popen(["sh", "-c", f"exec yes > {tmp_path}/.env"]) as writer:
        with pytest.raises(ConfigError, match=r"\.env cannot be read: it is a pipe without an end"):
            read(tmp_path, "development", {})
        writer.wait(40)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / ".env").mkdir()
    with pytest.raises(ConfigError, match=r"\.env cannot be read"):
        read(tmp_path, "development", {})


class TestSecrets:
    @pytest.mark.parametrize(
        ("name", "secret"),
        [
            ("OPENAI_API_KEY", True),
            ("KEY", True),
            ("GITHUB_TOKEN", True),
            ("CLIENT_SECRET", True),
            ("DB_PASSWORD", True),
            ("db_password", True),
            ("KEY_ID", False),
            ("TOKENS", False),
            ("PASSWORD_FILE", False),
            ("DATABASE_URL", False),
            ("PUBLIC_KEY", False),
            ("PUBLIC_STRIPE_KEY", False),
            ("REPUBLIC_KEY", True),
        ],
    )
    def test_by_name(self, name: str, secret: bool) -> None:
        assert is_secret_name(name) == secret

    def test_everything_from_local_files(self, tmp_path: Path) -> None:
        project(tmp_path, env="A=1\nB=1", env_local="B=2\nC=1", env_development_local="D=1", env_development="E=1")
        assert read(tmp_path, "development", {}).secrets == {"B", "C", "D"}

    def test_a_public_variable_in_a_local_file_is_public(self, tmp_path: Path) -> None:
        project(tmp_path, env_local="PUBLIC_URL=http://localhost:1234\nA=1")
        found = read(tmp_path, "development", {})
        assert found.secrets == {"A"}
        assert found.public == {"PUBLIC_URL": "http://localhost:1234"}

    def test_of_the_process_by_name(self, tmp_path: Path) -> None:
        found = read(tmp_path, "development", {"OPENAI_API_KEY": "sk-123456", "PATH": "/bin"})
        assert found.secrets == {"OPENAI_API_KEY"}

    def test_a_local_name_stays_secret_when_the_process_overrides_it(self, tmp_path: Path) -> None:
        project(tmp_path, env_local="DATABASE_URL=postgres://local")
        found = read(tmp_path, "development", {"DATABASE_URL": "postgres://u:pw@h"})
        assert found.secrets == {"DATABASE_URL"}

    def test_names_are_those_of_values(self, tmp_path: Path) -> None:
        project(tmp_path, env_local="LAMPYR_MASTER_KEY=0123456789\nA=1")
        found = read(tmp_path, "development", {"LAMPYR_OTHER_KEY": "x"})
        assert found.secrets <= found.values.keys()

    def test_those_too_short_to_mask_are_reported_without_their_values(self, tmp_path: Path) -> None:
        project(tmp_path, env="API_KEY=x7\nEMPTY_KEY=", env_local="DEBUG=1\nLONG=long enough")
        (warning,) = read(tmp_path, "development", {}).warnings
        assert warning.message.endswith(": API_KEY, DEBUG")
        assert "x7" not in warning.message + warning.hint

    def test_those_too_long_to_mask_whole_are_reported(self, tmp_path: Path) -> None:
        project(tmp_path, env=f"A=1\nAPI_KEY={'x' * 10_000}")
        (warning,) = read(tmp_path, "development", {}).warnings
        assert (warning.file, warning.line) == (".env", 2)
        assert "API_KEY is too long" in warning.message


class TestWhoMayHaveIt:
    LOCAL = "DB_PASSWORD=hunter2-hunter2\nOTHER=other-secret\nSHORT_KEY=abc\n"
    PLAIN = "DB_URL=postgres://me:$DB_PASSWORD@db\nPLAIN=abc and more\n"

    def env_of(self, root: Path, setting: str) -> tuple[dict[str, str], str]:
        (root / "app").mkdir()
        (root / "app/route.py").write_text(f"{setting}\ndef GET(): return 1\n")
        project(root, env_local=self.LOCAL, env=self.PLAIN)
        found = scan(root, config.load(root))
        env = read(root, "development", {})
        assert found.errors == ()
        return env.of(found.functions[0]), "\n".join(map(str, env.judge(found).warnings))

    def test_without_the_setting_all_of_the_project(self, tmp_path: Path) -> None:
        values, warnings = self.env_of(tmp_path, "")
        assert values["DB_PASSWORD"] == "hunter2-hunter2" and values["SHORT_KEY"] == "abc"
        assert "DB_URL" not in warnings

    def test_with_it_those_it_names_and_no_others(self, tmp_path: Path) -> None:
        values, _ = self.env_of(tmp_path, 'secrets = ["DB_PASSWORD"]')
        assert values["DB_PASSWORD"] == "hunter2-hunter2" and "hunter2" in values["DB_URL"]
        assert "SHORT_KEY" not in values and values["PLAIN"] == "abc and more"

    def test_what_holds_a_secret_stays_away_with_it(self, tmp_path: Path) -> None:
        values, warnings = self.env_of(tmp_path, "secrets = []")
        assert not any("hunter2" in value for value in values.values())
        assert "app/route.py: the function gets no DB_URL: it holds the value of DB_PASSWORD" in warnings

    def test_a_name_that_does_not_exist_is_told(self, tmp_path: Path) -> None:
        _, warnings = self.env_of(tmp_path, 'secrets = ["DB_PASWORD"]')
        assert "app/route.py: secrets names DB_PASWORD, and there is no such variable" in warnings


class TestBrokered:
    KEY = "sk-canary-0a1b2c3d"

    def env_of(self, root: Path, settings: str = "[providers.openai]", route: str = "", **files: str) -> Environment:
        (root / "app/a").mkdir(parents=True)
        (root / "app/a/route.py").write_text(f"{route}\ndef GET(): return 1\n")
        (root / "lampyr.toml").write_text(settings)
        project(root, **{"env_local": f"OPENAI_API_KEY={self.KEY}\nCOPY=Bearer $OPENAI_API_KEY\n", **files})
        self.settings = config.load(root)
        self.project = scan(root, self.settings)
        providers = self.settings.providers.values()
        return read(root, "development", {}).given(of(providers, "http://b", "00", {"local": "http://m"}))

    def values(self, env: Environment) -> dict[str, str]:
        return env.of(self.project.functions[0])

    @pytest.mark.parametrize("route", ["", 'secrets = ["OPENAI_API_KEY", "COPY"]'])
    def test_the_key_stays_away_from_who_names_it_too(self, tmp_path: Path, route: str) -> None:
        env = self.env_of(tmp_path, route=route)
        for values in (self.values(env), env.of_nobody()):
            assert not any(self.KEY in value for value in values.values())
        assert self.values(env)["OPENAI_BASE_URL"] == "http://b/openai"
        assert self.values(env)["OPENAI_API_KEY"].startswith("lampyr-")
        assert self.KEY in env.desk(self.project.functions)["providers"][0]["key"]

    def test_who_may_not_have_it_may_not_call(self, tmp_path: Path) -> None:
        env = self.env_of(tmp_path, route="secrets = []")
        assert "OPENAI_BASE_URL" not in self.values(env)
        assert list(env.desk(self.project.functions)["functions"].values()) == [["/a", []]]

    def test_each_function_has_its_own_placeholder_and_each_server(self) -> None:
        one, other = of(self.providers(), "http://b", "00"), of(self.providers(), "http://b", "01")
        assert one is not None and other is not None
        assert len({one.token("/a"), one.token("/b"), other.token("/a")}) == 3

    def providers(self) -> list[config.Provider]:
        source = config.Source(file="lampyr.toml", text="", prefix=())
        return list(config.read({"providers": {"openai": {}}}, source).providers.values())

    def test_the_first_that_speaks_like_openai_is_who_its_sdk_finds(self, tmp_path: Path) -> None:
        mine = '[providers.my-own]\nbase_url = "http://x"\n[providers.openai]\n[providers.local]\n'
        values = self.values(self.env_of(tmp_path, mine))
        assert values["OPENAI_BASE_URL"] == values["MY_OWN_BASE_URL"] == "http://b/my-own"

    def test_one_on_this_machine_may_be_the_first(self, tmp_path: Path) -> None:
        env = self.env_of(tmp_path, "[providers.local]\n[providers.anthropic]\n")
        values = self.values(env)
        assert values["OPENAI_BASE_URL"] == values["LOCAL_BASE_URL"] == "http://b/local/v1"
        assert values["ANTHROPIC_BASE_URL"] == "http://b/anthropic"
        (local, _) = env.desk(self.project.functions)["providers"]
        assert (local["base_url"], local["models"]) == ("http://m", None)
        assert len(local["key"]) == 40 and local["key"] not in values.values()

    def test_the_echo_is_for_both_sdks(self, tmp_path: Path) -> None:
        values = self.values(self.env_of(tmp_path, "[providers.echo]\n"))
        assert values["OPENAI_BASE_URL"] == values["ECHO_BASE_URL"] == "http://b/echo/v1"
        assert values["ANTHROPIC_BASE_URL"] == "http://b/echo"

    def test_a_public_value_that_holds_it_is_an_error(self, tmp_path: Path) -> None:
        plain = {"env_local": "", "env": "CREDENTIAL=quite-secret\nPUBLIC_A=quite-secret\n"}
        env = self.env_of(tmp_path, '[providers.openai]\nsecret = "CREDENTIAL"\n', **plain)
        assert env.public == {} and "quite-secret" not in repr(env.errors)
        assert [problem.file for problem in env.errors] == ["lampyr.toml"]


class TestPublic:
    def test_names(self, tmp_path: Path) -> None:
        project(tmp_path, env="PUBLIC_A=a\nNOT_PUBLIC_B=b\npublic_c=c\nPUBLIC_D=$NOT_PUBLIC_B")
        assert read(tmp_path, "development", {"PUBLIC_E": "e"}).public == {
            "PUBLIC_A": "a",
            "PUBLIC_D": "b",
            "PUBLIC_E": "e",
        }

    @pytest.mark.parametrize(
        ("value", "exposed"),
        [
            ("$API_KEY", True),
            ("https://u:${API_KEY}@example.org", True),
            ("0123456789", True),
            ("MDEyMzQ1Njc4OQ==", True),
            ("30313233343536373839", True),
            ("01234", False),
            ("something else", False),
        ],
    )
    def test_one_that_holds_a_secret_is_an_error(self, tmp_path: Path, value: str, exposed: bool) -> None:
        project(tmp_path, env=f"A=1\nPUBLIC_X={value}\nAPI_KEY=0123456789")
        errors = read(tmp_path, "development", {}).errors
        assert bool(errors) == exposed
        for error in errors:
            assert (error.file, error.line) == (".env", 2)
            assert "PUBLIC_X" in error.message and "API_KEY" in error.message
            assert "0123456789" not in error.message + error.hint

    def test_one_of_the_process(self, tmp_path: Path) -> None:
        found = read(tmp_path, "development", {"PUBLIC_X": "a-0123456789", "PUBLIC_Y": "y", "MY_TOKEN": "0123456789"})
        assert found.public == {"PUBLIC_Y": "y"}
        (error,) = found.errors
        assert (error.file, error.line) == ("process environment", None)


class TestWhatFunctionsGet:
    def test_the_process_environment_but_not_what_is_the_servers_own(self, tmp_path: Path) -> None:
        process = {"PATH": "/bin", "HOME": "/root", "LANG": "C.UTF-8", "LC_ALL": "C", "TZ": "UTC", "MY_VAR": "x"}
        server = dict.fromkeys(KEPT_BACK, "x") | {"LAMPYR_MASTER_KEY": "x", "LAMPYR_ANY": "x"}
        assert values(tmp_path, **process, **server) == process

    def test_a_file_cannot_set_what_is_lampyrs_own(self, tmp_path: Path) -> None:
        project(tmp_path, env="LAMPYR_MASTER_KEY=x\nLAMPYR_ENV=test\nA=1")
        assert read(tmp_path, "production", {}).values == {"A": "1", "LAMPYR_ENV": "production"}

    def test_a_variable_that_refers_to_nothing_is_reported(self, tmp_path: Path) -> None:
        project(tmp_path, env="A=1\nDB_PASSWORD=hunter$secretpart\n")
        (warning,) = read(tmp_path, "development", {}).warnings
        assert (warning.file, warning.line) == (".env", 2)
        assert "DB_PASSWORD" in warning.message
        assert "secretpart" not in warning.message + warning.hint

    def test_the_environment_of_this_process_can_be_read(self, tmp_path: Path) -> None:
        assert isinstance(read(tmp_path, "development", os.environ), Environment)


class TestEnvJs:
    def test_it_sets_window_env(self) -> None:
        assert env_js({"PUBLIC_B": "2", "PUBLIC_A": 'say "hi"'}) == (
            'window.env = {"PUBLIC_A":"say \\"hi\\"","PUBLIC_B":"2"};\n'
        )

    def test_without_public_variables(self) -> None:
        assert env_js({}) == "window.env = {};\n"

    @given(st.dictionaries(st.from_regex(r"PUBLIC_[A-Z]{1,5}", fullmatch=True), st.text()))
    def test_it_is_safe_in_a_script_and_says_the_same(self, public: dict[str, str]) -> None:
        script = env_js(public)
        assert not re.search("[<>&\u2028\u2029]", script)
        assert script.isascii()
        assert json.loads(script.removeprefix("window.env = ").removesuffix(";\n")) == public
