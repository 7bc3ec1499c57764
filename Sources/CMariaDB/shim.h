#ifndef PROXYD_CMARIADB_SHIM_H
#define PROXYD_CMARIADB_SHIM_H

#include <mysql.h>

#endif
