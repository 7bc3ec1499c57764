/* Naps around proxyd's system calls, loaded before it (LD_PRELOAD), so that a test fails each time which would else fail on
   a busy machine only: one that looks at the log as soon as a client has its answer, or that takes what a backend saw for
   what proxyd knows. Milliseconds: NAP_LOG before what is written to a file, NAP_SEND behind what is sent to a socket,
   NAP_CLOSE before a socket is shut down or closed. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static int log_nap, send_nap, close_nap;

static int milliseconds(const char *name) {
  const char *value = getenv(name);
  return value ? atoi(value) : 0;
}

__attribute__((constructor)) static void begin(void) {
  log_nap = milliseconds("NAP_LOG");
  send_nap = milliseconds("NAP_SEND");
  close_nap = milliseconds("NAP_CLOSE");
}

/* The caller's errno is what the call left there. */
static void nap(int time) {
  int before = errno;
  struct timespec wanted = {time / 1000, time % 1000 * 1000000L};
  if (time > 0) nanosleep(&wanted, NULL);
  errno = before;
}

static int is(mode_t kind, int fd) {
  int before = errno;
  struct stat found;
  int answer = fstat(fd, &found) == 0 && (found.st_mode & S_IFMT) == kind;
  errno = before;
  return answer;
}

ssize_t write(int fd, const void *bytes, size_t count) {
  ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
  if (is(S_IFREG, fd)) nap(log_nap);
  ssize_t written = real(fd, bytes, count);
  if (is(S_IFSOCK, fd)) nap(send_nap);
  return written;
}

ssize_t send(int fd, const void *bytes, size_t count, int flags) {
  ssize_t (*real)(int, const void *, size_t, int) = dlsym(RTLD_NEXT, "send");
  ssize_t sent = real(fd, bytes, count, flags);
  nap(send_nap);
  return sent;
}

int shutdown(int fd, int how) {
  int (*real)(int, int) = dlsym(RTLD_NEXT, "shutdown");
  nap(close_nap);
  return real(fd, how);
}

int close(int fd) {
  int (*real)(int) = dlsym(RTLD_NEXT, "close");
  if (is(S_IFSOCK, fd)) nap(close_nap);
  return real(fd);
}
