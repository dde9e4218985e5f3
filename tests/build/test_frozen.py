"""Values that an import makes the same in every instance are found, with their line; nothing else is."""

from __future__ import annotations

import textwrap

import pytest

from lampyr.build import frozen
from lampyr.runtime.snapstart import __all__ as names_of_aws

FROZEN = {
    "import uuid\nTOKEN = uuid.uuid4()": "TOKEN is drawn at import (uuid.uuid4)",
    "from uuid import uuid4 as new\nTOKEN: str = str(new())": "TOKEN is drawn at import (uuid.uuid4)",
    "import secrets as s\nKEY = s.token_hex(8).upper()": "KEY is drawn at import (secrets.token_hex)",
    "import os\nSALT = os.environ.get('SALT') or os.urandom(8)": "SALT is drawn at import (os.urandom)",
    "import random\nrandom.shuffle([1, 2])": "random.shuffle draws at import",
    "import random\nD = random.Random().random()": "D is drawn at import (random.random)",
    "import numpy as np; r = np.random.default_rng()\nW = r.normal()": "W is drawn at import (numpy.random.normal)",
    "from numpy.random import rand\nif True: W = rand(3)": "W is drawn at import (numpy.random.rand)",
    "import uuid\ndef GET(req, id=uuid.uuid1()): ...": "GET(id=) is drawn at import (uuid.uuid1)",
    "import uuid\nGET = lambda *, id=uuid.uuid1(): id": "lambda(id=) is drawn at import (uuid.uuid1)",
    "import uuid\nclass A: id = uuid.uuid4()": "id is drawn at import (uuid.uuid4)",
    "import uuid\nX = {'id': uuid.uuid4()}": "X is drawn at import (uuid.uuid4)",
    "from time import time\nSTARTED = time()": "STARTED is the time of the import (time.time)",
    "from datetime import datetime as dt\nNOW = dt.now()": "NOW is the time of the import (datetime.datetime.now)",
    "import datetime\nD = datetime.date.today()": "D is the time of the import (datetime.date.today)",
    "import os\nPID = os.getpid()": "PID is made of the snapshot",
    "import random\nrandom.seed(42)": "random.seed has no effect at import",
    "import numpy\nnumpy.random.seed(0)": "numpy.random.seed has no effect at import",
}

NOT_FROZEN = [
    "import uuid\ndef GET(): return uuid.uuid4()",
    "import uuid\nclass A:\n    def __init__(self): self.id = uuid.uuid4()",
    "import uuid\nnew = lambda: uuid.uuid4()",
    "import uuid\nX = field(default_factory=uuid.uuid4)",
    "import uuid\nX = uuid.UUID(int=1)",
    "import random\nR = random.Random()",
    "import random\nR = random.Random(42).random()",
    "import random\nrandom.seed()",
    "import time\nprint(time.time())",
    "import uuid\nif __name__ == '__main__': X = uuid.uuid4()",
    "from typing import TYPE_CHECKING\nimport uuid\nif TYPE_CHECKING: X = uuid.uuid4()",
    "from .uuid import uuid4\nX = uuid4()",
    "class random:\n    @staticmethod\n    def random(): return 1\nX = random.random()",
    "def broken(:",
    "x = '\0'",
]


@pytest.mark.parametrize("source", FROZEN)
def test_a_value_made_at_import_is_found(source: str) -> None:
    (found,) = frozen.read(source.encode())
    assert found.message.startswith(FROZEN[source])
    assert found.line == 2 and found.hint


@pytest.mark.parametrize("source", NOT_FROZEN)
def test_what_is_made_later_or_equal_on_purpose_is_none(source: str) -> None:
    assert frozen.read(source.encode()) == ()


def test_a_function_of_the_file_that_draws_is_seen_through() -> None:
    source = """
        import secrets

        def new(): return again()
        def again(): return [secrets.randbelow(9), again()]
        def app():
            def handler(): return secrets.token_hex()
            return handler

        KEY = new()
        APP = app()
    """
    (found,) = frozen.read(textwrap.dedent(source).encode())
    assert (found.line, found.message) == (10, "KEY is drawn at import (secrets.randbelow): the same in every instance")


CURES = {
    "decorated": "from lampyr import after_restore\n"
    "@after_restore\ndef renew():\n    global TOKEN\n    TOKEN = uuid.uuid4()",
    "called": "import lampyr\ndef renew():\n    global TOKEN\n    TOKEN = uuid.uuid4()\nlampyr.after_restore(renew)",
    "of AWS": f"from snapshot_restore_py import {names_of_aws[0]} as hook\n"
    "@hook\ndef renew():\n    global TOKEN\n    TOKEN = uuid.uuid4()",
    "inside": "from lampyr import after_restore\n@after_restore\ndef renew(): TOKEN['id'] = uuid.uuid4()",
}


@pytest.mark.parametrize("cure", CURES)
def test_what_a_hook_makes_anew_is_cured(cure: str) -> None:
    source = f"import uuid\nTOKEN = {{'id': uuid.uuid4()}}\n{CURES[cure]}\n"
    assert frozen.read(source.encode()) == ()
    assert len(frozen.read(source.replace("TOKEN =", "OTHER =").encode())) == 1
