#ifndef PROXYD_CCURL_SHIM_H
#define PROXYD_CCURL_SHIM_H

#include <curl/curl.h>

#endif
