/* System calls that fail when told to. Preloaded into a process: FAULT_<CALL>=errno:after:text makes a call give errno
   once `after` of them went well, where its file's path contains text (empty: any). <CALL> is a name of the table in
   faults.py; the calls of one kind (write, pwrite, sendfile ...) count together. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

typedef struct { const char *variable; atomic_long calls; } Kind;

/* Whether this call of a kind fails; errno is set then. */
static int fails(Kind *kind, const char *path) {
    const char *wanted = getenv(kind->variable);
    if (wanted == NULL || *wanted == '\0') return 0;
    char *rest;
    int number = (int)strtol(wanted, &rest, 10);
    long after = strtol(rest + 1, &rest, 10);
    if (strstr(path ? path : "", rest + 1) == NULL) return 0;
    if (atomic_fetch_add(&kind->calls, 1) < after) return 0;
    errno = number;
    return 1;
}

static int fails_fd(Kind *kind, int fd) {
    char link[64], path[PATH_MAX + 1];
    if (getenv(kind->variable) == NULL) return 0;
    int saved = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX);
    path[length < 0 ? 0 : length] = '\0';
    errno = saved;
    return fails(kind, path);
}

#define KIND(name, variable) static Kind name = {variable, 0}
KIND(kind_open, "FAULT_OPEN");
KIND(kind_opendir, "FAULT_OPENDIR");
KIND(kind_read, "FAULT_READ");
KIND(kind_write, "FAULT_WRITE");
KIND(kind_fsync, "FAULT_FSYNC");
KIND(kind_truncate, "FAULT_TRUNCATE");
KIND(kind_rename, "FAULT_RENAME");
KIND(kind_unlink, "FAULT_UNLINK");
KIND(kind_mkdir, "FAULT_MKDIR");
KIND(kind_flock, "FAULT_FLOCK");
KIND(kind_symlink, "FAULT_SYMLINK");
KIND(kind_link, "FAULT_LINK");
KIND(kind_chmod, "FAULT_CHMOD");
KIND(kind_stat, "FAULT_STAT");
KIND(kind_fcntl, "FAULT_FCNTL");
KIND(kind_setpipe, "FAULT_SETPIPE");

/* CALL(result, what is returned on failure, name, whether it fails, types and names of its arguments, their names) */
#define CALL(type, bad, name, failing, arguments, names) \
    type name arguments { \
        if (failing) return bad; \
        static type(*real) arguments; \
        if (real == NULL) real = (type(*) arguments)dlsym(RTLD_NEXT, #name); \
        return real names; \
    }
#define PATH_CALL(kind, type, name, arguments, names) CALL(type, (type)-1, name, fails(&kind, path), arguments, names)
#define FD_CALL(kind, type, name, arguments, names) CALL(type, (type)-1, name, fails_fd(&kind, fd), arguments, names)

#define OPEN(name, first, passed) \
    int name(first const char *path, int flags, ...) { \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        if (fails(&kind_open, path)) return -1; \
        static int (*real)(first const char *, int, ...); \
        if (real == NULL) real = (int (*)(first const char *, int, ...))dlsym(RTLD_NEXT, #name); \
        return real(passed path, flags, mode); \
    }
#define NONE
#define FOLDER int folder,
#define FOLDER_PASSED folder,
OPEN(open, NONE, NONE)
OPEN(open64, NONE, NONE)
OPEN(openat, FOLDER, FOLDER_PASSED)
OPEN(openat64, FOLDER, FOLDER_PASSED)

CALL(DIR *, NULL, opendir, fails(&kind_opendir, path), (const char *path), (path))

FD_CALL(kind_read, ssize_t, read, (int fd, void *to, size_t size), (fd, to, size))
FD_CALL(kind_read, ssize_t, readv, (int fd, const struct iovec *to, int count), (fd, to, count))
FD_CALL(kind_read, ssize_t, pread, (int fd, void *to, size_t size, off_t at), (fd, to, size, at))
FD_CALL(kind_read, ssize_t, pread64, (int fd, void *to, size_t size, off64_t at), (fd, to, size, at))
FD_CALL(kind_write, ssize_t, write, (int fd, const void *from, size_t size), (fd, from, size))
FD_CALL(kind_write, ssize_t, writev, (int fd, const struct iovec *from, int count), (fd, from, count))
FD_CALL(kind_write, ssize_t, pwrite, (int fd, const void *from, size_t size, off_t at), (fd, from, size, at))
FD_CALL(kind_write, ssize_t, pwrite64, (int fd, const void *from, size_t size, off64_t at), (fd, from, size, at))
FD_CALL(kind_write, ssize_t, sendfile, (int fd, int from, off_t *at, size_t size), (fd, from, at, size))
FD_CALL(kind_write, ssize_t, sendfile64, (int fd, int from, off64_t *at, size_t size), (fd, from, at, size))
FD_CALL(kind_write, ssize_t, copy_file_range,
        (int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags), (from, at, fd, to, size, flags))
CALL(size_t, 0, fwrite, fails_fd(&kind_write, fileno(to)), (const void *from, size_t size, size_t count, FILE *to),
     (from, size, count, to)) /* the C library's own buffers do not go through write above */
FD_CALL(kind_fsync, int, fsync, (int fd), (fd))
FD_CALL(kind_fsync, int, fdatasync, (int fd), (fd))
FD_CALL(kind_truncate, int, ftruncate, (int fd, off_t size), (fd, size))
FD_CALL(kind_truncate, int, ftruncate64, (int fd, off64_t size), (fd, size))
FD_CALL(kind_flock, int, flock, (int fd, int operation), (fd, operation))

PATH_CALL(kind_rename, int, rename, (const char *from, const char *path), (from, path))
PATH_CALL(kind_rename, int, renameat, (int a, const char *from, int b, const char *path), (a, from, b, path))
PATH_CALL(kind_rename, int, renameat2, (int a, const char *from, int b, const char *path, unsigned flags),
          (a, from, b, path, flags))
PATH_CALL(kind_unlink, int, unlink, (const char *path), (path))
PATH_CALL(kind_unlink, int, unlinkat, (int folder, const char *path, int flags), (folder, path, flags))
PATH_CALL(kind_mkdir, int, mkdir, (const char *path, mode_t mode), (path, mode))
PATH_CALL(kind_mkdir, int, mkdirat, (int folder, const char *path, mode_t mode), (folder, path, mode))
PATH_CALL(kind_symlink, int, symlink, (const char *to, const char *path), (to, path))
PATH_CALL(kind_symlink, int, symlinkat, (const char *to, int folder, const char *path), (to, folder, path))
PATH_CALL(kind_link, int, link, (const char *to, const char *path), (to, path))
PATH_CALL(kind_link, int, linkat, (int a, const char *to, int b, const char *path, int flags), (a, to, b, path, flags))
PATH_CALL(kind_chmod, int, chmod, (const char *path, mode_t mode), (path, mode))
PATH_CALL(kind_chmod, int, fchmodat, (int folder, const char *path, mode_t mode, int flags),
          (folder, path, mode, flags))
FD_CALL(kind_chmod, int, fchmod, (int fd, mode_t mode), (fd, mode))

PATH_CALL(kind_stat, int, stat, (const char *path, struct stat *to), (path, to))
PATH_CALL(kind_stat, int, stat64, (const char *path, struct stat64 *to), (path, to))
PATH_CALL(kind_stat, int, lstat, (const char *path, struct stat *to), (path, to))
PATH_CALL(kind_stat, int, lstat64, (const char *path, struct stat64 *to), (path, to))
PATH_CALL(kind_stat, int, fstatat, (int folder, const char *path, struct stat *to, int flags),
          (folder, path, to, flags))
PATH_CALL(kind_stat, int, fstatat64, (int folder, const char *path, struct stat64 *to, int flags),
          (folder, path, to, flags))

#define FCNTL(name) \
    int name(int fd, int command, ...) { \
        va_list list; \
        va_start(list, command); \
        void *argument = va_arg(list, void *); \
        va_end(list); \
        if (fails_fd(command == F_SETPIPE_SZ ? &kind_setpipe : &kind_fcntl, fd)) return -1; \
        static int (*real)(int, int, ...); \
        if (real == NULL) real = (int (*)(int, int, ...))dlsym(RTLD_NEXT, #name); \
        return real(fd, command, argument); \
    }
FCNTL(fcntl)
FCNTL(fcntl64)
