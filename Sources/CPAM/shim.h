/* libpam's header, and what Swift can't say. No logic here. */
#ifndef PROXYD_CPAM_SHIM_H
#define PROXYD_CPAM_SHIM_H

#include <security/pam_appl.h>

/* pam_fail_delay(3): an application that has such a function waits by itself. An item is a pointer to an object, which
   Swift won't make of a function. */
static inline void pam_no_delay(int result, unsigned microseconds, void *data) {
  (void)result;
  (void)microseconds;
  (void)data;
}
static inline int pam_without_delay(pam_handle_t *handle) {
  return pam_set_item(handle, PAM_FAIL_DELAY, (const void *)pam_no_delay);
}

#endif
