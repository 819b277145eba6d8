/* Calls of the C library that fail when a test says so: preloaded into a process of its own.
 *
 * TENSAFE_FAULT_MATCH: a call counts where the path of its file holds this text.
 * TENSAFE_FAULT_REFUSE: "NUMBER:ERRNO,...", system calls that the kernel refuses from the start. What
 * is called without the C library is reached by this alone.
 *
 * fault_arm chooses one call, and from which time on it fails how often. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/types.h>
#include <unistd.h>

#define ORIGINAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Anonymous mappings that are shorter are the interpreter's. */
#define LEAST_MAPPING ((size_t)2 << 20)

static char armed[32];
static long first, how_many;
static int fails_with;
static atomic_long seen, fired;

/* `call` fails from the `from`-th time on, `count` times, with the number `error`; 0 is no error but
 * half of the bytes. */
void fault_arm(const char *call, long from, long count, int error) {
    snprintf(armed, sizeof armed, "%s", call);
    first = from;
    how_many = count;
    fails_with = error;
    atomic_store(&seen, 0);
    atomic_store(&fired, 0);
}

long fault_fired(void) { return atomic_load(&fired); }

static int path_matches(const char *path) {
    const char *match = getenv("TENSAFE_FAULT_MATCH");
    return match != NULL && strstr(path, match) != NULL;
}

static int file_matches(int file) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return path_matches(path);
}

/* Whether this call is one that is to fail; it matches already. */
static int due(void) {
    long number = atomic_fetch_add(&seen, 1) + 1;
    if (number < first || number - first >= how_many)
        return 0;
    atomic_fetch_add(&fired, 1);
    return 1;
}

static int is_armed(const char *call) { return strcmp(armed, call) == 0; }

/* Whether a transfer is to fail; NAME is any, NAME_direct and NAME_cached are those by one kind of
 * descriptor. */
static int transfer_is_due(const char *name, int file) {
    size_t length = strlen(name);
    if (strncmp(armed, name, length) != 0)
        return 0;
    int direct = (fcntl(file, F_GETFL) & O_DIRECT) != 0;
    if (armed[length] != 0 && strcmp(armed + length, direct ? "_direct" : "_cached") != 0)
        return 0;
    return file_matches(file) && due();
}

/* Half of the bytes, in whole blocks, but never none. */
static size_t half(size_t bytes) {
    return bytes > 8192 ? bytes / 2 / 4096 * 4096 : bytes % 512 != 0 && bytes > 1 ? bytes / 2 : bytes;
}

#define TRANSFER(name, buffer)                                                                      \
    ssize_t name(int file, buffer bytes, size_t count, off_t offset) {                               \
        if (transfer_is_due(name##_KIND, file)) {                                                   \
            if (fails_with != 0) {                                                                   \
                errno = fails_with;                                                                  \
                return -1;                                                                           \
            }                                                                                        \
            count = half(count);                                                                     \
        }                                                                                            \
        return ORIGINAL(name)(file, bytes, count, offset);                                          \
    }

#define pread_KIND "pread"
#define pread64_KIND "pread"
#define pwrite_KIND "pwrite"
#define pwrite64_KIND "pwrite"
TRANSFER(pread, void *)
TRANSFER(pread64, void *)
TRANSFER(pwrite, const void *)
TRANSFER(pwrite64, const void *)

#define FLUSH(name)                                                                                 \
    int name(int file) {                                                                             \
        if (is_armed("flush") && file_matches(file) && due()) {                                      \
            errno = fails_with;                                                                      \
            return -1;                                                                               \
        }                                                                                            \
        return ORIGINAL(name)(file);                                                                \
    }

FLUSH(fsync)
FLUSH(fdatasync)

int sync_file_range(int file, off_t offset, off_t length, unsigned int flags) {
    if (is_armed("writeback") && file_matches(file) && due()) {
        errno = fails_with;
        return -1;
    }
    return ORIGINAL(sync_file_range)(file, offset, length, flags);
}

int ftruncate64(int file, off_t length) {
    if (is_armed("ftruncate") && file_matches(file) && due()) {
        errno = fails_with;
        return -1;
    }
    return ORIGINAL(ftruncate64)(file, length);
}

int rename(const char *from, const char *to) {
    if (is_armed("rename") && path_matches(to) && due()) {
        errno = fails_with;
        return -1;
    }
    return ORIGINAL(rename)(from, to);
}

/* A file that is opened again by its number has the path of that. */
static int opened_matches(const char *path) {
    int number;
    return sscanf(path, "/proc/self/fd/%d", &number) == 1 ? file_matches(number) : path_matches(path);
}

#define OPEN(name)                                                                                  \
    int name(const char *path, int flags, ...) {                                                     \
        va_list rest;                                                                                \
        va_start(rest, flags);                                                                       \
        int mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0;                            \
        va_end(rest);                                                                                \
        if (flags & O_DIRECT && is_armed("open_direct") && opened_matches(path) && due()) {          \
            errno = fails_with;                                                                      \
            return -1;                                                                               \
        }                                                                                            \
        return ORIGINAL(name)(path, flags, mode);                                                   \
    }

OPEN(open)
OPEN(open64)

void *mmap64(void *at, size_t length, int protection, int flags, int file, off_t offset) {
    if (flags & MAP_ANONYMOUS && length >= LEAST_MAPPING && is_armed("mmap") && due()) {
        errno = fails_with;
        return MAP_FAILED;
    }
    return ORIGINAL(mmap64)(at, length, protection, flags, file, offset);
}

/* Has the kernel refuse one system call; ends the process where it cannot be asked to. */
static void refuse(unsigned number, unsigned error) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, number, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | (error & SECCOMP_RET_DATA)),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) != 0)
        _exit(77);
}

__attribute__((constructor)) static void begin(void) {
    const char *list = getenv("TENSAFE_FAULT_REFUSE");
    for (; list != NULL && *list != 0; list = strchr(list, ',') == NULL ? NULL : strchr(list, ',') + 1) {
        unsigned number, error;
        if (sscanf(list, "%u:%u", &number, &error) == 2)
            refuse(number, error);
    }
}
