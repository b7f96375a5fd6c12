/* A disk that fails, for tests: loaded into an engine with LD_PRELOAD.
 *
 * FAULT_FILE   only files whose path contains this
 * FAULT_WHEN   nothing fails before a file of this name exists
 * FAULT_CALL   write, sync or rename: which calls fail
 * FAULT_AFTER  so many of them still succeed once FAULT_WHEN is there
 * FAULT_DO     eio      the call fails with EIO; a sync that fails loses what was not synced
 *              enospc   the disk is full: a write gets as far as a sector's end, then ENOSPC
 *              short    every write writes half of what it is given
 *              slow     every sync takes 50 ms
 *              power    what was not synced is lost, and the process is gone
 *
 * Writes that no sync has followed are remembered, and "lost" by writing zeros over them: to files
 * of zeros, which is what the journal writes to.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

enum { RANGES_MAX = 4096 };

struct range {
    int fd;
    off_t offset;
    size_t size;
};

static struct range unsynced[RANGES_MAX];
static int ranges;
static long seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static ssize_t (*real_pwrite)(int, const void *, size_t, off_t);
static ssize_t (*real_write)(int, const void *, size_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static int (*real_rename)(const char *, const char *);
static int (*real_close)(int);

__attribute__((constructor)) static void find_real(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite");
    real_write = dlsym(RTLD_NEXT, "write");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    real_rename = dlsym(RTLD_NEXT, "rename");
    real_close = dlsym(RTLD_NEXT, "close");
}

static int is(const char *name, const char *value) {
    const char *told = getenv(name);
    return told && strcmp(told, value) == 0;
}

static int is_wanted(const char *path) {
    const char *part = getenv("FAULT_FILE");
    return part && strstr(path, part) != NULL;
}

static int is_wanted_fd(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return is_wanted(path);
}

/* Whether this call is one that fails. */
static int is_due(const char *call) {
    const char *when = getenv("FAULT_WHEN"), *after = getenv("FAULT_AFTER");
    if (!is("FAULT_CALL", call)) return 0;
    if (when && access(when, F_OK) != 0) return 0;
    return ++seen > (after ? atol(after) : 0);
}

static void remember(int fd, off_t offset, size_t size) {
    if (ranges == RANGES_MAX) abort();
    unsynced[ranges++] = (struct range){fd, offset, size};
}

static void forget(int fd) {
    int kept = 0;
    for (int i = 0; i < ranges; i++)
        if (unsynced[i].fd != fd) unsynced[kept++] = unsynced[i];
    ranges = kept;
}

static void lose(int fd) {
    static const char zeros[1 << 16];
    for (int i = 0; i < ranges; i++) {
        if (fd >= 0 && unsynced[i].fd != fd) continue;
        off_t at = unsynced[i].offset, end = at + (off_t)unsynced[i].size;
        while (at < end) {
            size_t size = (size_t)(end - at) < sizeof zeros ? (size_t)(end - at) : sizeof zeros;
            ssize_t done = real_pwrite(unsynced[i].fd, zeros, size, at);
            if (done <= 0) break;
            at += done;
        }
    }
}

static void power_cut(void) {
    lose(-1);
    kill(getpid(), SIGKILL);
}

static ssize_t writing(int fd, const void *data, size_t size, off_t offset) {
    if (!is_wanted_fd(fd)) return real_pwrite(fd, data, size, offset);
    pthread_mutex_lock(&lock);
    ssize_t done;
    if (!is_due("write")) {
        done = real_pwrite(fd, data, size, offset);
    } else if (is("FAULT_DO", "short")) {
        done = real_pwrite(fd, data, size > 1 ? size / 2 : size, offset);
    } else if (is("FAULT_DO", "enospc")) {
        off_t end = (offset + (off_t)size / 2) / 512 * 512;
        done = end > offset ? real_pwrite(fd, data, (size_t)(end - offset), offset) : -1;
        if (done < 0) errno = ENOSPC;
    } else if (is("FAULT_DO", "power")) {
        power_cut();
        done = -1;
    } else {
        errno = EIO;
        done = -1;
    }
    if (done > 0) remember(fd, offset, (size_t)done);
    pthread_mutex_unlock(&lock);
    return done;
}

static int syncing(int fd, int (*real)(int)) {
    if (!is_wanted_fd(fd)) return real(fd);
    pthread_mutex_lock(&lock);
    int due = is_due("sync"), failed = 0;
    if (due && is("FAULT_DO", "power")) power_cut();
    if (due && is("FAULT_DO", "eio")) {
        lose(fd);
        failed = 1;
    }
    if (!failed) forget(fd);
    pthread_mutex_unlock(&lock);
    if (failed) {
        errno = EIO;
        return -1;
    }
    if (due && is("FAULT_DO", "slow")) usleep(50000);
    return real(fd);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    return writing(fd, data, size, offset);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    return writing(fd, data, size, offset);
}

/* What has a position of its own is not remembered: nothing of the journal is written so. */
ssize_t write(int fd, const void *data, size_t size) {
    if (!is_wanted_fd(fd) || !is_due("write")) return real_write(fd, data, size);
    if (is("FAULT_DO", "short")) return real_write(fd, data, size > 1 ? size / 2 : size);
    errno = is("FAULT_DO", "enospc") ? ENOSPC : EIO;
    return -1;
}

int fdatasync(int fd) { return syncing(fd, real_fdatasync); }

int fsync(int fd) { return syncing(fd, real_fsync); }

/* The number may come to stand for another file. */
int close(int fd) {
    pthread_mutex_lock(&lock);
    forget(fd);
    pthread_mutex_unlock(&lock);
    return real_close(fd);
}

int rename(const char *from, const char *to) {
    if (!is_wanted(to) || !is_due("rename")) return real_rename(from, to);
    if (is("FAULT_DO", "power")) power_cut();
    errno = EIO;
    return -1;
}
