/* OpenSSL's headers, and its macros made functions. No logic here. */
#ifndef PROXYD_COPENSSL_SHIM_H
#define PROXYD_COPENSSL_SHIM_H

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

static inline long openssl_ctx_set_mode(SSL_CTX *context, long mode) { return SSL_CTX_set_mode(context, mode); }
static inline int openssl_ctx_set_min_version(SSL_CTX *context, int version) {
  return (int)SSL_CTX_set_min_proto_version(context, version);
}
static inline long openssl_ctx_set_session_cache_mode(SSL_CTX *context, long mode) {
  return SSL_CTX_set_session_cache_mode(context, mode);
}
static inline void openssl_ctx_set_read_ahead(SSL_CTX *context, int on) { SSL_CTX_set_read_ahead(context, on); }
static inline int openssl_ctx_set_groups(SSL_CTX *context, const char *names) {
  return (int)SSL_CTX_set1_groups_list(context, names);
}
static inline long openssl_ctx_get_ticket_keys(SSL_CTX *context, void *keys, long size) {
  return SSL_CTX_get_tlsext_ticket_keys(context, keys, size);
}
static inline long openssl_ctx_set_ticket_keys(SSL_CTX *context, void *keys, long size) {
  return SSL_CTX_set_tlsext_ticket_keys(context, keys, size);
}

static const long openssl_modes =
    SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER;
static const uint64_t openssl_options =
    SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA |
    SSL_OP_IGNORE_UNEXPECTED_EOF;

#endif
