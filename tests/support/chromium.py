"""Chromium and its driver for the tests that need a real browser."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

# The browser talks to our server only: nothing of its own goes out, no profile is kept.
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1100,860",
)


def find() -> tuple[str, str]:
    """The paths of Chromium and its driver; without them the test is skipped, except in CI."""
    chromium, driver = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
    if chromium and driver:
        return chromium, driver
    why = "there is no chromium with chromedriver (Debian: apt install chromium chromium-driver)"
    if os.environ.get("CI"):
        pytest.fail(why)
    pytest.skip(why)


def start(profile: Path) -> Chrome:
    """A browser of its own; whoever starts it calls `quit`."""
    options = ChromeOptions()
    options.binary_location, driver = find()
    for flag in (*FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return Chrome(options, Service(driver))
