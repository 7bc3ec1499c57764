#ifndef PROXYD_CCRYPT_SHIM_H
#define PROXYD_CCRYPT_SHIM_H

#include <crypt.h>

#endif
