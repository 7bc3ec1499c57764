#ifndef PROXYD_CPCRE2_SHIM_H
#define PROXYD_CPCRE2_SHIM_H

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

/* With PCRE2's generic names being macros, the functions of the 8-bit library are used by their real names. */
static const uint32_t pcre2_caseless = PCRE2_CASELESS;
static const uint32_t pcre2_anchored = PCRE2_ANCHORED;
static const uint32_t pcre2_endanchored = PCRE2_ENDANCHORED;
static const uint32_t pcre2_jit_complete = PCRE2_JIT_COMPLETE;
static const uint32_t pcre2_info_capture_count = PCRE2_INFO_CAPTURECOUNT;

#endif
