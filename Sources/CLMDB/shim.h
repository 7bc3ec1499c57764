#ifndef PROXYD_CLMDB_SHIM_H
#define PROXYD_CLMDB_SHIM_H

#include <lmdb.h>

#endif
