// Stands between a process and the disk: writes down, in one order, all that changes files in one folder, and lets
// the n-th such operation fail. Loaded by LD_PRELOAD; Linux with 64 bits.
//
// DISK_FOLDER  the folder, without a slash at its end
// DISK_LOG     where to append what happened; outside the folder
// DISK_FAULT   number:kind[!] of the operation that fails, counted from 1; with `!` every later one fails too
//                eio, enospc  nothing is done, and the error is told
//                short        half of a write is done, and the rest tells ENOSPC
//                part         half of a write is done, which is told; the rest works
//              where there is no half, short and part tell ENOSPC like enospc
// DISK_SYNC    `no`: syncs are written down and not done, for runs whose machine does not crash
//
// As the kernel does, a failed sync is told once by each descriptor of the file that was open by then.
//
// One lock is held from before an operation until it is written down: the order in the log is the order in which
// things happened, so what is written down before a sync was written before it.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_FOLDER, UNLINK, FAULT, SAID };

struct record {
  uint32_t kind, failed; // failed: of a FAULT, which kind
  uint64_t number, offset, length;
  char thread[16], name[64];
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char folder[4096];
static size_t folder_length;
static int out = -1, syncs = 1, sticky, short_of_room;
static uint64_t number, fails_at;
static char how[16];

// How often a sync of a file failed, by its name; and how many of those each descriptor told.
static struct {
  char name[64];
  int failures;
} files[32];
static int told[1024];

static int *failures(const char *name) {
  for (int i = 0; i < 32; i++) {
    if (!*files[i].name) strcpy(files[i].name, name);
    if (!strcmp(files[i].name, name)) return &files[i].failures;
  }
  abort();
}

__attribute__((constructor)) static void begin(void) {
  const char *where = getenv("DISK_FOLDER"), *log = getenv("DISK_LOG"), *fault = getenv("DISK_FAULT");
  const char *sync = getenv("DISK_SYNC");
  if (!where || !log || strlen(where) >= sizeof folder) return;
  strcpy(folder, where);
  folder_length = strlen(folder);
  syncs = !(sync && !strcmp(sync, "no"));
  if (fault && sscanf(fault, "%lu:%15s", &fails_at, how) == 2 && how[strlen(how) - 1] == '!') {
    sticky = 1;
    how[strlen(how) - 1] = 0;
  }
  out = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
}

// The name in the folder; empty for the folder itself; none elsewhere.
static const char *within(const char *path) {
  if (out < 0 || strncmp(path, folder, folder_length)) return NULL;
  if (!path[folder_length]) return "";
  if (path[folder_length] != '/') return NULL;
  const char *name = path + folder_length + 1;
  return strlen(name) < sizeof((struct record *)0)->name ? name : NULL;
}

static const char *of(int fd, char *path, size_t size) {
  char link[32];
  if (out < 0) return NULL;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
  if (length < 0) return NULL;
  path[length] = 0;
  return within(path);
}

static void tell(uint32_t kind, uint32_t failed, const char *name, uint64_t offset, const void *data, size_t length) {
  struct record r = {.kind = kind, .failed = failed, .number = number, .offset = offset, .length = length};
  int kept = errno;
  prctl(PR_GET_NAME, r.thread);
  strncpy(r.name, name, sizeof r.name - 1);
  struct iovec parts[] = {{&r, sizeof r}, {(void *)data, data ? length : 0}};
  ssize_t all = (ssize_t)(sizeof r + parts[1].iov_len);
  // A log with a hole would prove nothing.
  if (syscall(SYS_writev, out, parts, 2) != all) abort();
  errno = kept;
}

// Counts an operation; answers whether it must fail, and has then told so.
static int fails(uint32_t kind, const char *name) {
  number++;
  int now = fails_at && (number == fails_at || (sticky && number > fails_at));
  if (short_of_room && kind == WRITE) {
    short_of_room = sticky;
    now = 1;
  }
  if (!now) return 0;
  errno = !strcmp(how, "eio") ? EIO : ENOSPC;
  tell(FAULT, kind, name, 0, NULL, 0);
  return 1;
}

static ssize_t put(int fd, const void *data, size_t length, off_t offset, int positioned) {
  char path[4200];
  const char *name = of(fd, path, sizeof path);
  if (!name)
    return positioned ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
  pthread_mutex_lock(&lock);
  ssize_t done = -1;
  if (!strcmp(name, "said")) {
    done = syscall(SYS_write, fd, data, length);
    tell(SAID, 0, name, 0, data, length);
  } else {
    int half = number + 1 == fails_at && length > 1 && (!strcmp(how, "short") || !strcmp(how, "part"));
    if (half) {
      number++;
      length /= 2;
      short_of_room = !strcmp(how, "short");
    }
    if (half || !fails(WRITE, name)) {
      if (!positioned) {
        struct stat now;
        fstat(fd, &now);
        offset = fcntl(fd, F_GETFL) & O_APPEND ? now.st_size : lseek(fd, 0, SEEK_CUR);
      }
      done = positioned ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
      if (done >= 0) tell(WRITE, 0, name, (uint64_t)offset, data, (size_t)done);
    }
  }
  pthread_mutex_unlock(&lock);
  return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return put(fd, data, length, offset, 1); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return put(fd, data, length, offset, 1); }
ssize_t write(int fd, const void *data, size_t length) { return put(fd, data, length, 0, 0); }

static int cut(int fd, off_t size) {
  char path[4200];
  const char *name = of(fd, path, sizeof path);
  if (!name) return (int)syscall(SYS_ftruncate, fd, size);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fails(TRUNCATE, name)) {
    done = (int)syscall(SYS_ftruncate, fd, size);
    if (!done) tell(TRUNCATE, 0, name, (uint64_t)size, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return done;
}

int ftruncate(int fd, off_t size) { return cut(fd, size); }
int ftruncate64(int fd, off64_t size) { return cut(fd, size); }

static int flush_folder(int fd, long call) {
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fails(SYNC_FOLDER, "")) {
    done = syncs ? (int)syscall(call, fd) : 0;
    if (!done) tell(SYNC_FOLDER, 0, "", 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return done;
}

static int flush(int fd, long call) {
  char path[4200];
  const char *name = of(fd, path, sizeof path);
  if (!name) return (int)syscall(call, fd);
  if (fd >= 1024) abort();
  if (!*name) return flush_folder(fd, call);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (fails(SYNC, name)) {
    told[fd] = ++*failures(name);
  } else if (told[fd] < *failures(name)) {
    told[fd] = *failures(name);
    errno = EIO;
    tell(FAULT, SYNC, name, 0, NULL, 0);
  } else {
    done = syncs ? (int)syscall(call, fd) : 0;
    if (!done) tell(SYNC, 0, name, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return done;
}

int fsync(int fd) { return flush(fd, SYS_fsync); }
int fdatasync(int fd) { return flush(fd, SYS_fdatasync); }

int unlink(const char *path) {
  const char *name = within(path);
  if (!name) return (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
  pthread_mutex_lock(&lock);
  int done = -1;
  if (!fails(UNLINK, name)) {
    done = (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    if (!done) tell(UNLINK, 0, name, 0, NULL, 0);
  }
  pthread_mutex_unlock(&lock);
  return done;
}

static int make(const char *path, int flags, mode_t mode) {
  const char *name = within(path);
  if (!name || !*name || !strcmp(name, "said")) return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
  pthread_mutex_lock(&lock);
  int is_new = flags & O_CREAT && syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
  int fd = -1;
  if (!is_new || !fails(CREATE, name)) {
    fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && fd < 1024) told[fd] = *failures(name);
    if (is_new && fd >= 0) tell(CREATE, 0, name, 0, NULL, 0);
    // Of all files here none is emptied by being opened.
    if (flags & O_TRUNC) abort();
  }
  pthread_mutex_unlock(&lock);
  return fd;
}

#define OPEN(name)                                                                                                     \
  int name(const char *path, int flags, ...) {                                                                         \
    va_list rest;                                                                                                      \
    va_start(rest, flags);                                                                                             \
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                            \
    va_end(rest);                                                                                                      \
    return make(path, flags, mode);                                                                                    \
  }
OPEN(open)
OPEN(open64)
