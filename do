#!/bin/sh
# The one door to this repository: ./do demo shows it, ./do test tests it. Needs python3 (3.11 or newer) and nothing
# else; everything it installs goes into .venv beside this file, except what `test` says it asks apt-get for.
set -eu
cd "$(dirname "$0")"
root=$(pwd -P)

usage() {
    cat <<'TEXT'
usage: ./do COMMAND [ARGUMENTS]

  demo [OPTIONS]   a chat in your browser, answered by a language model on this machine
                   (OPTIONS are those of `lampyr dev`, for instance --port 0)
  test [OPTIONS]   all tests, in a real browser too (OPTIONS are those of pytest)
  soak [KILLS]     kill -9 of every process under load, 1,000 times unless told otherwise, and what the ledger says then
  check            formatting, lint, types, and who may import whom
  bench [OPTIONS]  measure against other servers, side by side
  docs             test the documentation and retake its pictures

The first run installs into .venv and takes a minute or two; later runs need no network.
TEXT
}

say() { printf 'do: %s\n' "$*" >&2; }

fail() {
    say "error: $1"
    [ $# -lt 2 ] || echo "hint: $2" >&2
    exit 1
}

# The first Python that is new enough; `python3` of an older system may be too old while python3.12 stands beside it.
find_python() {
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python; do
        if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    fail "no Python 3.11 or newer (looked for python3, python3.14 ... python3.11)" \
        "on Debian or Ubuntu: sudo apt install python3 python3-venv"
}

# apt_install PACKAGES...: as root, where there is an apt-get; else it fails, and the caller says what is missing.
apt_install() {
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        return 1
    fi
    mkdir -p .venv
    say "installing $* with apt-get (a minute or two; its output: .venv/apt-get.log)"
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; } \
        >.venv/apt-get.log 2>&1; then
        return
    fi
    tail -n 5 .venv/apt-get.log >&2
    return 1
}

# Debian and Ubuntu keep ensurepip, from which .venv gets its pip, in a package of its own: python3-venv for their
# python3, python3.12-venv for a python3.12.
need_ensurepip() {
    case $1 in python) package=python3-venv ;; *) package=$1-venv ;; esac
    "$1" -c 'import ensurepip' 2>/dev/null ||
        { apt_install "$package" && "$1" -c 'import ensurepip'; } ||
        fail "$(command -v "$1") has no ensurepip, and so .venv would have no pip" \
            "on Debian or Ubuntu: sudo apt install $package, then run this again"
}

make_venv() {
    python=$(find_python)
    need_ensurepip "$python"
    say "making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
    echo "$root" >.venv/made-for
}

# A .venv that was moved or whose Python is gone is of no use; one without our mark was made by hand, and stays.
venv_is_ours() {
    .venv/bin/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
        { [ ! -e .venv/made-for ] || [ "$(cat .venv/made-for)" = "$root" ]; }
}

# pip_install ARGUMENTS...: in a terminal one line that changes tells what pip is at, elsewhere only its errors are shown.
pip_install() {
    set -- -m pip install --disable-pip-version-check --progress-bar off "$@"
    if [ ! -t 2 ] || [ "${TERM-dumb}" = dumb ]; then
        .venv/bin/python "$@" -q >&2
        return
    fi
    rm -f .venv/pip-done
    { PYTHONUNBUFFERED=1 .venv/bin/python "$@" 2>.venv/pip-errors && : >.venv/pip-done; } | one_line
    [ -e .venv/pip-done ] || { cat .venv/pip-errors >&2 && false; }
}

# one_line: shows each line of its input in the place of the one before, and nothing when that has ended.
one_line() {
    width=$(($(tput cols 2>/dev/null || echo 80) - 1))
    while IFS= read -r line; do
        printf "\r\033[K%.${width}s" "$line" >&2
    done
    printf '\r\033[K' >&2
}

# install MARK FILE ARGUMENTS...: pip install ARGUMENTS, unless that was done for this very FILE before.
install() {
    mark=.venv/installed-$1 file=$2
    shift 2
    if [ "$(cat "$mark" 2>/dev/null)" != "$(cksum <"$file")" ]; then
        say "installing $* into .venv (a minute or two the first time)"
        rm -f .venv/installed-built
        pip_install "$@" ||
            fail "pip could not install $*" "its own message is above; without a network only what was installed before works"
        cksum <"$file" >"$mark"
    fi
}

# environment EXTRAS: .venv with Lampyr, as it stands here, and these extras.
environment() {
    venv_is_ours || make_venv
    install "$1" pyproject.toml --editable ".[$1]"
    PATH=$root/.venv/bin:$PATH
}

# built: Lampyr is in .venv as its users get it, compiled where there is a C compiler (see hatch_build.py), and not as it
# stands in src. Tests of whole servers test that, and bench measures it; tests in one process import what is in src.
built() {
    sources=$(find src pyproject.toml hatch_build.py -type f ! -name '*.pyc' -exec cksum {} + | LC_ALL=C sort | cksum)
    sources="$sources ${LAMPYR_PURE:+pure}"
    if [ "$(cat .venv/installed-built 2>/dev/null)" != "$sources" ]; then
        say "building Lampyr (a minute; LAMPYR_PURE=1 leaves its modules as they are)"
        pip_install --no-build-isolation --no-deps --force-reinstall . || fail "Lampyr could not be built"
        echo "$sources" >.venv/installed-built
    fi
}

model() {
    lampyr model pull smollm2 >&2 || say "no language model could be had: an echo answers in its place"
}

# The browser test drives Debian's Chromium; without it that test is skipped, and says so.
browser() {
    if command -v chromium >/dev/null && command -v chromedriver >/dev/null; then
        return
    fi
    apt_install chromium chromium-driver ||
        say "there is no chromium with chromedriver, so the browser test is skipped (Debian: apt install chromium chromium-driver)"
}

demo() {
    case ${1-} in
    -h | --help)
        usage # and nothing is installed for it
        return
        ;;
    esac
    environment local
    model
    [ ! -e .venv/installed-built ] || built
    [ -d demo ] || lampyr init demo --template chat --json >/dev/null # without "Next:", which is what follows
    [ ! -e demo/requirements.txt ] || install demo demo/requirements.txt -r demo/requirements.txt
    exec lampyr dev demo "$@"
}

tests() {
    environment dev,local
    built
    model
    browser
    [ $# = 0 ] || exec python -m pytest "$@"
    # Two at a time, because tests wait for most of their time; then, by themselves, those that load the machine or
    # measure. Their Python is an ordinary one: it keeps what it has compiled, and writes to a pipe in blocks.
    unset PYTHONDONTWRITEBYTECODE PYTHONUNBUFFERED
    failed= broken=
    suite --cache-clear --numprocesses 2 -m "not alone"
    suite -m alone
    [ -z "$failed" ] || { [ -z "$broken" ] && second_chance; } || fail "some tests failed; the names are above"
}

# suite OPTIONS: one run of pytest; sets `failed`, and `broken` where it did not come to its end (its exit code says so).
suite() {
    code=0
    python -m pytest "$@" || code=$?
    [ "$code" = 0 ] || failed=1
    [ "$code" -le 1 ] || broken=1
}

# second_chance: the tests that have failed, at most three, run once more by themselves, and tell all they do. These are
# thousands of tests of whole servers, with real processes, sockets and clocks, beside one another and whatever else the
# machine is at: one that was starved says nothing about Lampyr, and should not take the word of all others away. A
# defect fails twice, or many tests at once. CPython's own tests are run so (python -m test --rerun). What it takes is
# never silent: an unsteady test has a race, its own or Lampyr's, and is to be mended.
second_chance() {
    cache=.pytest_cache/v/cache/lastfailed # made anew by this run, with the failures of both its parts
    names=$(python -c 'import json, sys
names = sorted(json.load(open(sys.argv[1])))
print(*names)
sys.exit(not 1 <= len(names) <= 3)' "$cache" 2>/dev/null) || return
    say "once more, by themselves: $names"
    python -m pytest --last-failed --last-failed-no-failures none -vv || return
    [ "$(cat "$cache")" = "{}" ] || return # pytest takes out who has passed
    say "unsteady: these failed once and passed alone: $names"
}

soak() {
    environment dev,local
    built
    LAMPYR_KILLS=${1:-1000} exec python -m pytest tests/system/test_soak.py -s
}

check() {
    environment dev,local
    export PYTHONPATH="$root/src"
    failed=
    ruff check || failed="$failed ruff-check"
    ruff format --check || failed="$failed ruff-format"
    mypy || failed="$failed mypy"
    lint-imports --no-logo || failed="$failed import-linter"
    [ -z "$failed" ] || fail "check failed:$failed"
}

bench() {
    environment dev,local
    built
    [ -e bench/__main__.py ] || fail "there is nothing to measure yet: no bench/__main__.py"
    exec python bench "$@"
}

docs() {
    environment dev,local
    built
    model
    browser
    export LAMPYR_SCREENSHOT=1
    exec python -m pytest tests/docs tests/cli/test_docs.py tests/system/test_browser.py \
        tests/system/test_console_pages.py "$@"
}

case ${1-} in
demo | check | bench | docs | soak)
    "$@"
    ;;
test)
    shift
    tests "$@"
    ;;
-h | --help | help)
    usage
    ;;
*)
    usage >&2
    [ $# = 0 ] || say "error: no such command: $1"
    exit 2
    ;;
esac
