/* What Swift's Glibc module lacks of Linux, and macros made functions. No logic here. */
#ifndef PROXYD_CLINUX_SHIM_H
#define PROXYD_CLINUX_SHIM_H

#include <fcntl.h>
#include <malloc.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/un.h>

/* Declared by glibc only under _GNU_SOURCE, with which its headers would not fit Swift's Glibc module any more. */
extern int accept4(int fd, struct sockaddr *address, socklen_t *length, int flags);
extern int sched_getaffinity(pid_t pid, size_t size, cpu_set_t *set);

/* EPOLLIN and its like are an enum, which Swift would import as a type of its own. */
static const uint32_t linux_epoll_in = EPOLLIN;
static const uint32_t linux_epoll_out = EPOLLOUT;
static const uint32_t linux_epoll_err = EPOLLERR;
static const uint32_t linux_epoll_hup = EPOLLHUP;
static const uint32_t linux_epoll_exclusive = EPOLLEXCLUSIVE;

/* struct epoll_event is packed on x86-64, and its data is a union. */
static inline int linux_epoll_ctl(int epoll, int operation, int fd, uint32_t events, uint64_t data) {
  struct epoll_event event;
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, operation, fd, &event);
}

static inline uint32_t linux_epoll_events(const struct epoll_event *event) { return event->events; }
static inline uint64_t linux_epoll_data(const struct epoll_event *event) { return event->data.u64; }

static inline int linux_epoll_create(void) { return epoll_create1(EPOLL_CLOEXEC); }
static inline int linux_eventfd(void) { return eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK); }

static inline int linux_accept(int fd, struct sockaddr *address, socklen_t *length) {
  return accept4(fd, address, length, SOCK_NONBLOCK | SOCK_CLOEXEC);
}

static inline int linux_stream_socket(int family) {
  return socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
}

static inline int linux_datagram_socket(void) { return socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

static inline ssize_t linux_send(int fd, const void *bytes, size_t count) {
  return send(fd, bytes, count, MSG_NOSIGNAL);
}

/* A path longer than the kernel takes is cut, and then leads nowhere. */
static inline int linux_connect_unix(int fd, const char *path, size_t length) {
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return connect(fd, (const struct sockaddr *)&address,
                 (socklen_t)(__builtin_offsetof(struct sockaddr_un, sun_path) + length));
}

static inline int linux_unix_socket(void) { return socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0); }

/* The caller has looked at the length. */
static inline int linux_bind_unix(int fd, const char *path, size_t length) {
  struct sockaddr_un address;
  memset(&address, 0, sizeof address);
  address.sun_family = AF_UNIX;
  strncpy(address.sun_path, path, sizeof address.sun_path - 1);
  return bind(fd, (const struct sockaddr *)&address,
              (socklen_t)(__builtin_offsetof(struct sockaddr_un, sun_path) + length + 1));
}

/* open's last argument is variadic. */
static inline int linux_open_append(const char *path) {
  return open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);
}

/* sched_getaffinity knows of cpusets, sysconf does not. */
static inline int linux_usable_cpus(void) {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? __CPU_COUNT_S(sizeof set, &set) : -1;
}

#endif
