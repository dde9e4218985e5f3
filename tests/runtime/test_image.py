"""Pages that a process gives back to the file its parent's memory has become."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
COMPILER = shutil.which("cc")

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or COMPILER is None or not Path(sysconfig.get_path("include"), "Python.h").exists(),
    reason="needs Linux and a C compiler",
)

HEAD = """
import ctypes, gc, json, mmap, os, random, sys
import lampyr.runtime
lampyr.runtime.__path__.append(sys.argv[1])
from lampyr.runtime import image as images

def anonymous(pages):
    memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p

def is_image(address):
    '''Whether that memory is an image's.'''
    for line in open("/proc/self/maps"):
        start, end = (int(part, 16) for part in line.split()[0].split("-"))
        if start <= address < end:
            return "/memfd:lampyr" in line
    raise AssertionError(f"{address:x} is not mapped")

def own(memory, address):
    '''The numbers of the pages that nobody else has.'''
    with open("/proc/self/pagemap", "rb") as file:
        file.seek(address // 4096 * 8)
        entries = file.read(len(memory) // 4096 * 8)
    return [at for at in range(len(entries) // 8) if entries[at * 8 + 7] & 0xA1 == 0x81]

def in_child(work):
    pid = os.fork()
    if pid == 0:
        try:
            image.watch()
            print(json.dumps(work()), flush=True)
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the compiled half of it, from the source that is here."""
    folder = tmp_path_factory.mktemp("image")
    source = ROOT / "src/lampyr/runtime/_image.c"
    options = ["-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter"]
    include = sysconfig.get_path("include")
    target = folder / f"_image{sysconfig.get_config_var('EXT_SUFFIX')}"
    subprocess.run([str(COMPILER), *options, f"-I{include}", str(source), "-o", str(target)], check=True)
    return folder


def told(folder: Path, program: str) -> Any:
    """What `program` prints as JSON, in a process of its own."""
    command = [sys.executable, "-c", HEAD + textwrap.dedent(program), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT / "src")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_what_holds_the_same_again_is_given_back_and_nothing_else(built: Path) -> None:
    program = """
    memory, address = anonymous(600)
    for page in range(600):
        memory[page * 4096] = page % 251
    image = images.taken()

    def work():
        for page in (3, 4, 5, 300, 599):  # there and back
            memory[page * 4096 + 7] = 1
            memory[page * 4096 + 7] = 0
        for page in (4, 10):  # for good
            memory[page * 4096 + 9] = 77
        before = own(memory, address)
        image.give_back()
        held = [memory[page * 4096] for page in range(600)] == [page % 251 for page in range(600)]
        kept = [memory[4 * 4096 + 9], memory[10 * 4096 + 9]]
        return {"before": before, "after": own(memory, address), "held": held, "kept": kept}

    in_child(work)
    """
    assert told(built, program) == {"before": [3, 4, 5, 10, 300, 599], "after": [4, 10], "held": True, "kept": [77, 77]}


def test_objects_that_were_only_looked_at_are_shared_again(built: Path) -> None:
    """The interpreter goes on as if nothing had been, again and again."""
    program = """
    things = [{"number": number, "text": str(number) * 5} for number in range(40_000)]
    gc.collect()
    gc.freeze()
    image = images.taken()

    def work():
        given = []
        for turn in range(5):
            looked = [thing["text"] for thing in things]  # a reference more for each
            del looked
            given.append(image.give_back())
        good = all(thing == {"number": number, "text": str(number) * 5} for number, thing in enumerate(things))
        return {"many": min(given) > 1000, "good": good}

    in_child(work)
    """
    assert told(built, program) == {"many": True, "good": True}


def test_random_changes_are_never_lost(built: Path) -> None:
    program = """
    memory, address = anonymous(300)
    random.seed(7)
    memory[:] = random.randbytes(len(memory))
    image = images.taken()

    def work():
        should = bytearray(memory)
        original = bytes(memory)
        for turn in range(200):
            for _ in range(random.randrange(40)):
                at = random.randrange(len(should))
                memory[at] = should[at] = random.choice([original[at], random.randrange(256)])
            image.give_back()
            if memory[:] != should:
                return turn
        return "right"

    in_child(work)
    """
    assert told(built, program) == "right"


def test_other_memory_at_the_same_place_is_left_alone(built: Path) -> None:
    """It has been unmapped and something else mapped there, which happens to hold what the image holds."""
    program = """
    memory, address = anonymous(20)
    memory[:] = b"x" * len(memory)
    image = images.taken()

    def work():
        fixed = 0x10
        at = libc.mmap(ctypes.c_void_p(address), ctypes.c_size_t(20 * 4096), 3, 0x22 | fixed, -1, ctypes.c_long(0))
        assert at == address, at
        memory[:] = b"x" * len(memory)
        image.give_back()
        return memory[:] == b"x" * len(memory)

    in_child(work)
    """
    assert told(built, program) is True


def test_a_file_of_the_functions_own_that_is_called_alike_is_left_alone(built: Path) -> None:
    """Its pages may hold what the image holds at that place, and then are no nearer to being the image's."""
    program = """
    image = images.taken()

    def work():
        theirs = os.memfd_create("lampyr")
        os.truncate(theirs, 16 * 4096)
        memory = mmap.mmap(theirs, 16 * 4096, flags=mmap.MAP_PRIVATE)
        memory[:] = os.pread(image._file, len(memory), 0)
        image.give_back()
        return [any(memory), memory[:] == os.pread(image._file, len(memory), 0)]

    in_child(work)
    """
    assert told(built, program) == [True, True]


def test_memory_that_is_more_than_its_content_stays_what_it_is(built: Path) -> None:
    """Random generators of C libraries know a fork by memory that is wiped in the child (MADV_WIPEONFORK)."""
    program = """
    wiped, at_wiped = anonymous(4)
    absent, at_absent = anonymous(4)
    plain, at_plain = anonymous(4)
    for memory in (wiped, absent, plain):
        memory[:] = b"x" * len(memory)
    for address, advice in ((at_wiped, 18), (at_absent, 10)):  # MADV_WIPEONFORK, MADV_DONTFORK
        assert libc.madvise(ctypes.c_void_p(address), ctypes.c_size_t(4 * 4096), advice) == 0
    image = images.taken()
    moved = [is_image(address) for address in (at_wiped, at_absent, at_plain)]
    in_child(lambda: {"moved": moved, "wiped": wiped[:] == bytes(len(wiped)), "plain": plain[:] == b"x" * len(plain)})
    """
    assert told(built, program) == {"moved": [False, False, True], "wiped": True, "plain": True}


def test_memory_that_was_never_written_to_costs_nothing(built: Path) -> None:
    program = """
    memory, address = anonymous(50_000)
    memory[4096 * 1000] = memory[4096 * 40_000] = 1
    image = images.taken()
    in_child(lambda: [memory[4096 * 1000], memory[4096 * 40_000], os.fstat(image._file).st_size < 100 * 2**20])
    """
    assert told(built, program) == [1, 1, True]


def test_an_image_of_a_child_holds_what_the_child_has(built: Path) -> None:
    """As a shared snapshot's does: what it has of the base's image is in its own."""
    program = """
    memory, address = anonymous(40)
    memory[:] = b"a" * len(memory)
    image = first = images.taken()

    def work():
        global image
        memory[0] = memory[4096 * 20] = 98
        image = images.taken()
        first.close()
        pid = os.fork()
        if pid == 0:
            image.watch()
            memory[1] = 0
            memory[1] = 97
            before = own(memory, address)
            image.give_back()
            seen = [memory[at] for at in (0, 1, 4096 * 20, 4096 * 30)]
            print(json.dumps([before, own(memory, address), *seen]), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)

    in_child(work)
    """
    assert told(built, program) == [[0], [], 98, 97, 98, 97]


def test_of_what_was_made_after_the_first_image_only_pythons_memory_is_moved(built: Path) -> None:
    """Other allocators count on zeros after MADV_DONTNEED, and realloc on that what grows has nothing behind it."""
    program = """
    image = images.taken()

    def work():
        global image
        other, at_other = anonymous(4)
        other[:] = b"x" * len(other)
        grows = bytearray(b"x" * 2**20)
        objects = [float(number) for number in range(1_000_000)]  # some find room in what was there before
        image = images.taken()
        pid = os.fork()
        if pid == 0:
            assert libc.madvise(ctypes.c_void_p(at_other), ctypes.c_size_t(len(other)), 4) == 0
            grows += b"y" * 2**26
            lie = [is_image(id(one)) for one in objects[::100]]
            facts = [other[:] == bytes(len(other)), grows.count(b"x"), grows.count(b"y"), sum(lie) > len(lie) * 0.9]
            print(json.dumps(facts), flush=True)
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        os._exit(0)

    in_child(work)
    """
    assert told(built, program) == [True, 2**20, 2**26, True]


def test_with_another_malloc_nothing_is_moved(built: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with jemalloc, preloaded: it would take for zero what a file's memory has again."""
    source, preloaded = built / "malloc.c", built / "malloc.so"
    source.write_text("#include <stddef.h>\nvoid *__libc_malloc(size_t);\n")
    with source.open("a") as file:
        file.write("void *malloc(size_t size) { return __libc_malloc(size); }\n")
    subprocess.run([str(COMPILER), "-shared", "-fPIC", str(source), "-o", str(preloaded)], check=True)
    monkeypatch.setenv("LD_PRELOAD", str(preloaded))
    program = """
    memory, address = anonymous(4)
    memory[:] = b"x" * len(memory)
    image = images.taken()
    print(json.dumps(is_image(address)))
    """
    assert told(built, program) is False


def test_what_has_an_image_shares_no_description_of_the_file_with_others(built: Path) -> None:
    """Functions that may not talk to one another could leave word in its offset."""
    program = """
    image = images.taken()
    mine = os.dup(image._file)

    def work():
        os.lseek(image._file, 4096, 0)
        return [os.lseek(image._file, 0, 1), os.lseek(mine, 0, 1), image.give_back() >= 0]

    in_child(work)
    """
    assert told(built, program) == [4096, 0, True]


def test_signals_wait_while_pages_are_exchanged(built: Path) -> None:
    """None is lost, and none is left waiting."""
    program = """
    import signal
    heard = []
    memory, address = anonymous(2000)
    memory[:] = b"x" * len(memory)
    image = images.taken()

    def work():
        signal.signal(signal.SIGALRM, lambda *_: heard.append(1))
        signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
        while len(heard) < 200:
            for page in range(0, 2000, 3):
                memory[page * 4096] = 120
            image.give_back()
        signal.setitimer(signal.ITIMER_REAL, 0)
        return [memory[:] == b"x" * len(memory), sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))]

    in_child(work)
    """
    assert told(built, program) == [True, []]


def test_nobody_can_write_to_the_file(built: Path) -> None:
    program = """
    image = images.taken()
    refused = []
    for attempt in (
        lambda: os.pwrite(image._file, b"x", 0),
        lambda: os.truncate(image._file, 0),
        lambda: mmap.mmap(image._file, 4096, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE),
    ):
        try:
            attempt()
        except OSError as error:
            refused.append(type(error).__name__)
    print(json.dumps([refused, os.fstat(image._file).st_mode & 0o777]))
    """
    assert told(built, program) == [["PermissionError"] * 3, 0o444]


def test_with_another_thread_nothing_is_moved_or_given_back(built: Path) -> None:
    program = """
    import threading
    image = images.taken()

    def work():
        held = threading.Event()
        threading.Thread(target=held.wait, daemon=True).start()
        return [images.taken() is None, image.give_back()]

    in_child(work)
    """
    assert told(built, program) == [True, 0]


def test_descriptors_that_the_users_code_has_taken_away_do_no_harm(built: Path) -> None:
    program = """
    memory, address = anonymous(8)
    memory[:] = b"x" * len(memory)
    image = images.taken()

    def work():
        memory[5] = memory[5]
        zero = os.open("/dev/zero", os.O_RDWR)
        pagemap = os.dup(image._pagemap)
        given = []
        for number, other in ((image._file, zero), (image._pagemap, zero)):
            os.dup2(other, number)
            given.append(image.give_back())
        os.close(image._file)
        given.append(image.give_back())
        theirs = os.dup(zero)
        image.close()
        os.fstat(theirs)
        return [given, memory[:] == b"x" * len(memory), theirs == image._file]

    in_child(work)
    """
    assert told(built, program) == [[0, 0, 0], True, True]


def test_threads_that_a_library_ends_before_a_fork_are_no_hindrance(built: Path) -> None:
    program = """
    numpy = __import__("numpy")
    threads = len(os.listdir("/proc/self/task"))
    image = images.taken()
    in_child(lambda: [threads > 1, image is not None, float((numpy.ones((300, 300)) @ numpy.ones((300, 300)))[0, 0])])
    """
    if os.cpu_count() == 1:
        pytest.skip("one processor: numpy starts no thread")
    assert told(built, program) == [True, True, 300.0]
