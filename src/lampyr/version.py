"""The version of Lampyr; the package's metadata is read from here (Semantic Versioning, https://semver.org)."""

from __future__ import annotations

VERSION = "0.1.0"
