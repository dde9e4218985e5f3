"""`python -m lampyr` is `lampyr`."""

from __future__ import annotations

from lampyr.cli import main

if __name__ == "__main__":
    main()
