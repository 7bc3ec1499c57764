#ifndef PROXYD_CPOSTGRESQL_SHIM_H
#define PROXYD_CPOSTGRESQL_SHIM_H

#include <libpq-fe.h>

#endif
