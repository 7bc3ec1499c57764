// How the program of the tests starts. A test may be the one whose peer is gone when OpenSSL writes, which it does without
// MSG_NOSIGNAL: proxyd ignores that signal from its start, and so do its tests, before the first of them runs.

#include <signal.h>

__attribute__((constructor)) static void ignore_broken_pipes(void) {
  signal(SIGPIPE, SIG_IGN);
}
