/* The two steps of image.py in between which no Python may run: its own objects lie in the pages that are exchanged.

   Nothing here allocates memory or writes to any but the stack, which is no part of an image; nor do handlers of signals
   meanwhile. A process that calls this has one thread. */

#define _GNU_SOURCE
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    PAGE = 4096,   /* elsewhere there are no images */
    AT_ONCE = 512, /* pages that are looked at together */
    GAP = 16,      /* fewer pages without content are moved with those around: each mapping makes a fork dearer */
    PIECE = 2048,  /* so many pages are there twice while they are moved */
    LINE = 256,
    MOST_ARENAS = 4096, /* 1 MiB each; what is beyond is not moved */
};

static const uint64_t PRESENT = 1ull << 63, FILES_OWN = 1ull << 61; /* proc_pid_pagemap(5) */

typedef struct {
    uintptr_t start, end;
    uint64_t offset, inode;
    int is_data;  /* private and writable */
    int is_image; /* of this or another image */
    int is_heap;  /* what the C library has by brk(2) */
} Mapping;

/* Where small objects lie that were made after the first image. Whoever else maps memory may count on what a file's does
   not do: be zero after MADV_DONTNEED (jemalloc), have nothing behind it when it grows (mremap(2), as realloc(3) does
   with what is large). */
static struct {
    uintptr_t start, end;
} arenas[MOST_ARENAS];
static size_t arena_count;
static PyObjectArenaAllocator beneath;

static void *make_arena(void *context, size_t size)
{
    void *arena = beneath.alloc(beneath.ctx, size);
    if (arena && arena_count < MOST_ARENAS) {
        arenas[arena_count].start = (uintptr_t)arena;
        arenas[arena_count++].end = (uintptr_t)arena + size;
    }
    return arena;
}

static void free_arena(void *context, void *arena, size_t size)
{
    for (size_t i = arena_count; i-- > 0;) {
        if (arenas[i].start == (uintptr_t)arena) {
            arenas[i] = arenas[--arena_count];
            break;
        }
    }
    beneath.free(beneath.ctx, arena, size);
}

typedef struct {
    int fd;
    ssize_t at, length;
    char data[PAGE];
} Maps;

/* The next line of proc_pid_maps(5) or proc_pid_smaps(5), of one that is too long its beginning. The kernel goes on
   behind the last address that it has told, so mappings may be exchanged meanwhile. */
static int next_line(Maps *maps, char *line)
{
    for (size_t used = 0;;) {
        if (maps->at == maps->length) {
            maps->length = read(maps->fd, maps->data, sizeof maps->data);
            maps->at = 0;
            if (maps->length <= 0) {
                return 0;
            }
        }
        char one = maps->data[maps->at++];
        if (one == '\n') {
            line[used] = 0;
            return 1;
        }
        if (used < LINE - 1) {
            line[used++] = one;
        }
    }
}

/* Whether a line is that of a mapping, and then which: "7f00-7f10 rw-p 00001000 00:01 1024   /memfd:..." */
static int is_mapping(const char *line, Mapping *found)
{
    char *rest;
    found->start = strtoull(line, &rest, 16);
    if (*rest != '-') {
        return 0;
    }
    found->end = strtoull(rest + 1, &rest, 16);
    found->is_data = strncmp(rest, " rw-p ", 6) == 0;
    found->offset = strtoull(rest + 6, &rest, 16);
    strtoull(rest, &rest, 16);     /* device: major */
    strtoull(rest + 1, &rest, 16); /* and minor */
    found->inode = strtoull(rest, &rest, 10);
    rest += strspn(rest, " ");
    found->is_image = strncmp(rest, "/memfd:lampyr", 13) == 0;
    found->is_heap = strcmp(rest, "[heap]") == 0;
    return 1;
}

/* Let signals wait: the C half of a handler writes to memory. */
static void hold_signals(sigset_t *before)
{
    sigset_t every;
    sigfillset(&every);
    sigprocmask(SIG_SETMASK, &every, before);
}

static int open_maps(Maps *maps, const char *path)
{
    maps->at = maps->length = 0;
    maps->fd = open(path, O_RDONLY | O_CLOEXEC);
    return maps->fd >= 0;
}

/* Put a copy of [start, end) at the end of the image, and map that in its place, piece by piece. */
static int move_run(int image, off_t *end_of_image, uintptr_t start, uintptr_t end)
{
    for (uintptr_t at = start; at < end;) {
        size_t length = end - at < PIECE * PAGE ? end - at : PIECE * PAGE;
        if (pwrite(image, (void *)at, length, *end_of_image) != (ssize_t)length) {
            return -1;
        }
        if (mmap((void *)at, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED, image, *end_of_image) ==
            MAP_FAILED) {
            return -1;
        }
        *end_of_image += length;
        at += length;
    }
    return 0;
}

/* Move what has content of one mapping. mincore(2) says of anonymous memory which pages are there. */
static int move_mapping(int image, off_t *end_of_image, const Mapping *mapping)
{
    unsigned char there[AT_ONCE];
    uintptr_t run = 0, run_end = 0;
    for (uintptr_t base = mapping->start; base < mapping->end; base += AT_ONCE * PAGE) {
        size_t pages = (mapping->end - base) / PAGE < AT_ONCE ? (mapping->end - base) / PAGE : AT_ONCE;
        if (mincore((void *)base, pages * PAGE, there) != 0) {
            return -1;
        }
        for (size_t i = 0; i < pages; i++) {
            uintptr_t at = base + i * PAGE;
            if (!(there[i] & 1)) {
                continue;
            }
            if (run_end && at - run_end > GAP * PAGE) {
                if (move_run(image, end_of_image, run, run_end) != 0) {
                    return -1;
                }
                run_end = 0;
            }
            if (!run_end) {
                run = at;
            }
            run_end = at + PAGE;
        }
    }
    return run_end ? move_run(image, end_of_image, run, run_end) : 0;
}

/* The same of the arenas in a mapping, from the lowest to the highest: what lies together stays one mapping. */
static int move_arenas(int image, off_t *end_of_image, const Mapping *mapping)
{
    Mapping part = *mapping;
    for (part.end = mapping->start;;) {
        size_t next = arena_count;
        for (size_t i = 0; i < arena_count; i++) {
            if (arenas[i].end > part.end && (next == arena_count || arenas[i].start < arenas[next].start)) {
                next = i;
            }
        }
        if (next == arena_count || arenas[next].start >= mapping->end) {
            return 0;
        }
        part.start = arenas[next].start > part.end ? arenas[next].start : part.end;
        part.end = arenas[next].end < mapping->end ? arenas[next].end : mapping->end;
        if (move_mapping(image, end_of_image, &part) != 0) {
            return -1;
        }
        if (part.end == mapping->end) {
            return 0;
        }
    }
}

/* Whether there is more to memory than its content (VmFlags of proc_pid_smaps(5)): what is wiped after a fork (random
   generators find out by that), is not in a child at all, is locked, sealed, a stack, or a device's. */
static int is_special(const char *flags)
{
    static const char *special[] = {" wf", " dc", " lo", " gd", " io", " pf", " um", " uw", " ss", " sl"};
    for (size_t i = 0; i < sizeof special / sizeof *special; i++) {
        if (strstr(flags, special[i])) {
            return 1;
        }
    }
    return 0;
}

/* Whether this is Python's memory: anonymous, another image's, or the interpreter's own variables. Not what the kernel
   and the C library write to by themselves, which is where errno is, and not the stack we run on. */
static int is_movable(const Mapping *mapping)
{
    uintptr_t stack = (uintptr_t)mapping, of_thread = (uintptr_t)&errno, of_python = (uintptr_t)&PyType_Type;
    if (!mapping->is_data || (mapping->start <= stack && stack < mapping->end) ||
        (mapping->start <= of_thread && of_thread < mapping->end)) {
        return 0;
    }
    return !mapping->inode || mapping->is_image || (mapping->start <= of_python && of_python < mapping->end);
}

/* Whether malloc(3) is the C library's own, and not another one that was preloaded. */
static int is_own_malloc(void)
{
    Dl_info of_malloc, of_library;
    return dladdr((void *)malloc, &of_malloc) && dladdr((void *)mincore, &of_library) &&
           of_malloc.dli_fbase == of_library.dli_fbase;
}

static PyObject *move(PyObject *module, PyObject *arg)
{
    int image = (int)PyLong_AsLong(arg), failed = 0, is_first = !beneath.alloc;
    off_t end_of_image = 0;
    Maps maps;
    Mapping found = {0};
    char line[LINE];
    sigset_t held;
    if (image == -1 && PyErr_Occurred()) {
        return NULL;
    }
    if (!is_own_malloc()) {
        errno = ENOTSUP;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    if (!open_maps(&maps, "/proc/self/smaps")) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    hold_signals(&held);
    while (!failed && next_line(&maps, line)) {
        if (strncmp(line, "VmFlags:", 8) != 0) {
            Mapping begun;
            found = is_mapping(line, &begun) ? begun : found;
        } else if (is_movable(&found) && !is_special(line)) {
            int is_whole = is_first || found.is_image || found.is_heap || found.inode;
            failed = (is_whole ? move_mapping : move_arenas)(image, &end_of_image, &found) ? errno : 0;
        }
    }
    sigprocmask(SIG_SETMASK, &held, NULL);
    close(maps.fd);
    if (is_first) { /* the interpreter alone has been at work until here, and no package with an allocator of its own */
        PyObject_GetArenaAllocator(&beneath);
        PyObjectArenaAllocator ours = {NULL, make_arena, free_arena};
        PyObject_SetArenaAllocator(&ours);
    }
    if (failed) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLongLong(end_of_image);
}

/* Give back the pages from `first` on, `pages` many, that this process has written to and that hold what the image holds
   at `offset`. Returns how many, or -1. */
static long give_back_some(int image, int pagemap, uintptr_t first, size_t pages, off_t offset)
{
    uint64_t entries[AT_ONCE];
    char page[PAGE];
    long given = 0;
    ssize_t length = pages * sizeof *entries;
    if (pread(pagemap, entries, length, first / PAGE * sizeof *entries) != length) {
        return -1;
    }
    for (size_t i = 0; i < pages; i++) {
        char *at = (char *)first + i * PAGE;
        if ((entries[i] & (PRESENT | FILES_OWN)) != PRESENT) {
            continue;
        }
        if (pread(image, page, PAGE, offset + i * PAGE) != PAGE) {
            return -1;
        }
        if (memcmp(page, at, PAGE) == 0 && madvise(at, PAGE, MADV_DONTNEED) == 0) {
            given++;
        }
    }
    return given;
}

/* The same of one mapping. */
static long give_back_all(int image, int pagemap, const Mapping *mapping)
{
    long given = 0;
    for (uintptr_t at = mapping->start; at < mapping->end; at += AT_ONCE * PAGE) {
        size_t pages = (mapping->end - at) / PAGE < AT_ONCE ? (mapping->end - at) / PAGE : AT_ONCE;
        long some = give_back_some(image, pagemap, at, pages, mapping->offset + (at - mapping->start));
        if (some < 0) {
            return -1;
        }
        given += some;
    }
    return given;
}

static PyObject *give_back(PyObject *module, PyObject *args)
{
    int image, pagemap;
    long given = 0, some = 0;
    struct stat status;
    Maps maps;
    Mapping found;
    char line[LINE];
    sigset_t held;
    if (!PyArg_ParseTuple(args, "ii", &image, &pagemap)) {
        return NULL;
    }
    if (fstat(image, &status) != 0 || !open_maps(&maps, "/proc/self/maps")) {
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    hold_signals(&held);
    while (some >= 0 && next_line(&maps, line)) {
        if (is_mapping(line, &found) && found.is_data && found.is_image && found.inode == status.st_ino) {
            some = give_back_all(image, pagemap, &found);
            given += some;
        }
    }
    int failed = errno;
    sigprocmask(SIG_SETMASK, &held, NULL);
    close(maps.fd);
    if (some < 0) {
        errno = failed;
        return PyErr_SetFromErrno(PyExc_OSError);
    }
    return PyLong_FromLong(given);
}

static PyMethodDef functions[] = {
    {"move", move, METH_O, "move(image): have this process's memory be that file's, privately; its bytes."},
    {"give_back", give_back, METH_VARARGS, "give_back(image, pagemap): how many pages are the file's again."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {PyModuleDef_HEAD_INIT, "_image", NULL, 0, functions, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__image(void)
{
    return PyModule_Create(&module);
}
