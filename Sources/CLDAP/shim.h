#ifndef PROXYD_CLDAP_SHIM_H
#define PROXYD_CLDAP_SHIM_H

#include <ldap.h>

#endif
