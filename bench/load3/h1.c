/* HTTP/1.1, a request at a time on each connection: the JSON gateway, and v2's keys. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "load3.h"

struct connection {
  int fd, under_way;
  uint64_t began_ns;
  char out[BODY_MAX + 512], in[1 << 16];
  size_t length, sent, got;
};

static void begin(struct connection *c) {
  char body[BODY_MAX];
  long key = 0;
  size_t size = work.mode == V2_PUT ? v2_body(body, &key) : json_body(body);
  int head;
  if (work.mode == V2_PUT) {
    head = sprintf(c->out, "PUT /v2/keys/load/%ld HTTP/1.1\r\nHost: localhost\r\n"
                   "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %zu\r\n\r\n", key, size);
  } else {
    const char *path = work.mode == JSON_PUT ? "/v3/kv/put" : "/v3/kv/range";
    head = sprintf(c->out, "POST %s HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                   "Content-Length: %zu\r\n\r\n", path, size);
  }
  memcpy(c->out + head, body, size);
  c->length = (size_t)head + size;
  c->sent = c->got = 0;
  c->under_way = 1;
  c->began_ns = now_ns();
}

struct connection *h1_open(int fd) {
  struct connection *c = calloc(1, sizeof *c);
  c->fd = fd;
  begin(c);
  return c;
}

/* Whether the whole answer is there. */
static int whole(struct connection *c) {
  c->in[c->got] = 0;
  char *end = strstr(c->in, "\r\n\r\n");
  if (end == NULL) return 0;
  size_t head = (size_t)(end - c->in) + 4;
  char *length = strcasestr(c->in, "\r\ncontent-length:");
  if (length != NULL && length < end) return c->got >= head + (size_t)atol(length + 17);
  return c->got >= head + 5 && memcmp(c->in + c->got - 5, "0\r\n\r\n", 5) == 0;
}

static void answered(struct connection *c) {
  int status = atoi(c->in + 9);
  if (status == 200 || status == 201) {
    succeeded(c->began_ns);
  } else {
    char shown[16];
    sprintf(shown, "%d", status);
    failed("HTTP status", shown);
  }
  c->under_way = 0;
  if (now_ns() < work.until_ns) begin(c);
}

int h1_ready(struct connection *c, int readable) {
  while (readable && c->under_way) {
    ssize_t size = wire_read(c->fd, c->in + c->got, sizeof c->in - 1 - c->got);
    if (size < 0 && errno == EAGAIN) break;
    if (size <= 0) {
      failed("the connection ended", "");
      return -1;
    }
    c->got += (size_t)size;
    if (whole(c)) answered(c);
  }
  while (c->under_way && c->sent < c->length) {
    ssize_t size = wire_write(c->fd, c->out + c->sent, c->length - c->sent);
    if (size < 0) return errno == EAGAIN ? 0 : -1;
    c->sent += (size_t)size;
  }
  return 0;
}

int h1_wants_write(struct connection *c) { return c->under_way && c->sent < c->length; }
int h1_idle(struct connection *c) { return !c->under_way; }
