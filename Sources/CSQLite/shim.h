#ifndef PROXYD_CSQLITE_SHIM_H
#define PROXYD_CSQLITE_SHIM_H

#include <sqlite3.h>

/* SQLITE_STATIC is a cast of a number to a function pointer. Bytes bound with it must outlive the statement's step. */
static inline int sqlite_bind_text_static(sqlite3_stmt *statement, int index, const char *bytes, int count) {
  return sqlite3_bind_text(statement, index, bytes, count, SQLITE_STATIC);
}

/* The same with SQLITE_TRANSIENT: the bytes are copied. */
static inline int sqlite_bind_text_copied(sqlite3_stmt *statement, int index, const char *bytes, int count) {
  return sqlite3_bind_text(statement, index, bytes, count, SQLITE_TRANSIENT);
}

#endif
