#ifndef PROXYD_CCDB_SHIM_H
#define PROXYD_CCDB_SHIM_H

#include <cdb.h>

#endif
