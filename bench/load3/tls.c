/* Bytes of a socket, with TLS or without: as read(2) and write(2) of one that doesn't block. */
#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "load3.h"

#define FDS_MAX 4096
static SSL_CTX *context;
static SSL *by_fd[FDS_MAX];

void use_tls(void) {
  static const unsigned char h2[] = "\x02h2";
  context = SSL_CTX_new(TLS_client_method());
  /* whose certificate it is doesn't matter here */
  SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
  SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
  SSL_CTX_set_alpn_protos(context, h2, sizeof h2 - 1);
}

/* Shakes hands, if TLS is used, on a socket that still blocks. */
void wire_open(int fd) {
  if (context != NULL) {
    SSL *tls = SSL_new(context);
    if (fd >= FDS_MAX || tls == NULL || SSL_set_fd(tls, fd) != 1 || SSL_connect(tls) != 1) {
      fprintf(stderr, "load3: no TLS with the server\n");
      exit(1);
    }
    by_fd[fd] = tls;
  }
  fcntl(fd, F_SETFL, O_NONBLOCK);
}

static ssize_t would_block(SSL *tls, int result) {
  int why = SSL_get_error(tls, result);
  if (why == SSL_ERROR_ZERO_RETURN) return 0;
  errno = why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE ? EAGAIN : EIO;
  return -1;
}

/* As much as there is: a short count means that no more is there. */
ssize_t wire_read(int fd, void *out, size_t room) {
  SSL *tls = context == NULL ? NULL : by_fd[fd];
  if (tls == NULL) return read(fd, out, room);
  size_t got = 0;
  while (got < room) {
    int size = SSL_read(tls, (char *)out + got, (int)(room - got));
    if (size <= 0) return got > 0 ? (ssize_t)got : would_block(tls, size);
    got += (size_t)size;
  }
  return (ssize_t)got;
}

ssize_t wire_write(int fd, const void *data, size_t size) {
  SSL *tls = context == NULL ? NULL : by_fd[fd];
  if (tls == NULL) return write(fd, data, size);
  int wrote = SSL_write(tls, data, (int)size);
  return wrote <= 0 ? would_block(tls, wrote) : wrote;
}
