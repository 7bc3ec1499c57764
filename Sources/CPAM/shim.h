#ifndef PROXYD_CPAM_SHIM_H
#define PROXYD_CPAM_SHIM_H

#include <security/pam_appl.h>

#endif
