/* Lets calls of the system fail in a program that was not told: for tests of what disks and shares answer.
 *
 *   cc -shared -fPIC -o faults.so faults.c
 *   FAULTS='fsync:95,linkat:1:/share' LD_PRELOAD=./faults.so program
 *
 * Each fault is CALL:ERRNO, or CALL:ERRNO:TEXT for files whose path holds TEXT. Calls: fsync, flock, getpwuid_r (without TEXT), linkat,
 * rename, write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* The errno of the fault for a call on this path; 0 for none. */
static int fault(const char *call, const char *path) {
    const char *at = getenv("FAULTS");
    size_t length = strlen(call);
    while (at != NULL && *at != '\0') {
        const char *end = strchrnul(at, ',');
        if (strncmp(at, call, length) == 0 && at[length] == ':') {
            char *rest, text[4096] = "";
            int number = (int)strtol(at + length + 1, &rest, 10);
            if (*rest == ':' && (size_t)(end - rest) < sizeof text) {
                memcpy(text, rest + 1, (size_t)(end - rest) - 1);
            }
            if (strstr(path, text) != NULL) {
                return number;
            }
        }
        at = *end == ',' ? end + 1 : end;
    }
    return 0;
}

static int fault_of_file(const char *call, int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    path[length < 0 ? 0 : length] = '\0';
    return fault(call, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define FAIL(number) do { int failed = (number); if (failed != 0) { errno = failed; return -1; } } while (0)

int fsync(int fd) {
    FAIL(fault_of_file("fsync", fd));
    return REAL(fsync)(fd);
}

int fdatasync(int fd) {
    FAIL(fault_of_file("fsync", fd));
    return REAL(fdatasync)(fd);
}

int flock(int fd, int operation) {
    FAIL(fault_of_file("flock", fd));
    int (*real)(int, int) = dlsym(RTLD_NEXT, "flock");
    return real(fd, operation);
}

int linkat(int from, const char *old, int to, const char *new, int flags) {
    FAIL(fault("linkat", new));
    return REAL(linkat)(from, old, to, new, flags);
}

int rename(const char *old, const char *new) {
    FAIL(fault("rename", new));
    return REAL(rename)(old, new);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    FAIL(fault_of_file("write", fd));
    return REAL(write)(fd, bytes, count);
}

int getpwuid_r(uid_t user, struct passwd *entry, char *text, size_t length, struct passwd **found) {
    int failed = fault("getpwuid_r", "");
    if (failed != 0) {
        *found = NULL;
        return failed;
    }
    return REAL(getpwuid_r)(user, entry, text, length, found);
}
