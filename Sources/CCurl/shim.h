#ifndef PROXYD_CCURL_SHIM_H
#define PROXYD_CCURL_SHIM_H

#include <curl/curl.h>

// curl takes options by variadic functions, which Swift does not call.

static inline CURLcode proxyd_curl_set_number(CURL *handle, CURLoption option, long value) {
  return (curl_easy_setopt)(handle, option, value);
}

static inline CURLcode proxyd_curl_set_pointer(CURL *handle, CURLoption option, const void *value) {
  return (curl_easy_setopt)(handle, option, value);
}

typedef size_t (*proxyd_curl_write)(char *bytes, size_t size, size_t count, void *context);

static inline CURLcode proxyd_curl_set_write(CURL *handle, CURLoption option, proxyd_curl_write function) {
  return (curl_easy_setopt)(handle, option, function);
}

static inline CURLcode proxyd_curl_number(CURL *handle, CURLINFO info, long *value) {
  return (curl_easy_getinfo)(handle, info, value);
}

#endif
