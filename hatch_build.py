"""Compiles the modules on a request's way with mypyc when a wheel is built: a quarter less CPU time for each request.

Where there is no C compiler, or LAMPYR_PURE is set, the wheel holds the Python sources only, which do the same; but for
what is written in C, a part that Lampyr works without. The sources are in each wheel: tracebacks show them, and whoever
looks for how something works finds it.
"""

from __future__ import annotations

import os
import shutil
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface):
    """`modules` of its table in pyproject.toml are files to compile, `linux` those in C, of use to Linux only."""

    def dependencies(self) -> list[str]:
        return self.config["tools"] if _can_compile() else []

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or self.target_name != "wheel" or not _can_compile():
            return
        try:
            compiled = self._compile()
        except (Exception, SystemExit) as error:  # mypyc and setuptools leave when they are not content
            self.app.display_warning(f"lampyr is built without compiled modules: {error}")
            return
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
        build_data["force_include"] |= compiled

    def _compile(self) -> dict[str, str]:
        """Where the extension modules are, and where they belong in the wheel."""
        from mypyc.build import mypycify
        from setuptools import Distribution, Extension

        self._folder = tempfile.mkdtemp(prefix="lampyr-build-")
        os.chdir(self.root)
        # What is checked here is what mypyc has to know; the types themselves are checked by `./do check`.
        options = ["--config-file=", "--ignore-missing-imports", "--no-warn-no-return"]
        extensions = mypycify(
            [*options, *self.config["modules"]], opt_level="2", debug_level="0", target_dir=self._folder
        )
        if sys.platform == "linux":
            for file in self.config["linux"]:
                name = file.removeprefix("src/").removesuffix(".c").replace("/", ".")
                extensions.append(Extension(name, [file], extra_compile_args=["-O2"], extra_link_args=["-Wl,-z,now"]))
        command: Any = Distribution({"name": "lampyr", "ext_modules": extensions}).get_command_obj("build_ext")
        command.build_lib, command.build_temp = f"{self._folder}/lib", f"{self._folder}/temp"
        command.ensure_finalized()
        command.run()
        return {path: str(Path(path).relative_to(command.build_lib)) for path in command.get_outputs()}

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if folder := getattr(self, "_folder", None):
            shutil.rmtree(folder, ignore_errors=True)


def _can_compile() -> bool:
    if os.environ.get("LAMPYR_PURE") or sys.implementation.name != "cpython":
        return False
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    return shutil.which(compiler) is not None and headers.exists()
