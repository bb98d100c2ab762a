/* What the parts of the load generator share: the work asked for, and what came of it. */
#ifndef LOAD3_H
#define LOAD3_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum mode { PUT, RANGE, TXN, JSON_PUT, JSON_RANGE, V2_PUT, WATCH };

struct work {
  enum mode mode;
  int connections, streams, value_bytes;
  long keys;
  uint64_t until_ns; /* no request begins after it */
  uint64_t every_ns; /* one begins so often, whatever is still under way; 0: when the one before is answered */
};

struct outcome {
  long done, errors;
  uint32_t *took_us;
  size_t count, room;
  char first_error[256];
};

extern struct work work;
extern struct outcome outcome;

uint64_t now_ns(void);
uint64_t next_random(void);
void succeeded(uint64_t began_ns);
void failed(const char *why, const char *more);
int connected(int port);
/* The bytes of its socket, see tls.c. */
void use_tls(void);
void wire_open(int fd);
ssize_t wire_read(int fd, void *out, size_t room);
ssize_t wire_write(int fd, const void *data, size_t size);
/* Watchers, see watch.c: how many puts there were. */
long run_watch(int port, double seconds);

/* A request's body, written into `out` (which has BODY_MAX bytes): its length. */
#define BODY_MAX 8192
size_t protobuf_body(uint8_t *out); /* with gRPC's prefix of five bytes */
size_t json_body(char *out);
size_t v2_body(char *out, long *key);

/* A connection of either protocol. */
struct connection;
struct connection *h2_open(int fd);
struct connection *h1_open(int fd);
/* Both: 0 while there is something to wait for, -1 when the connection is over. */
int h2_ready(struct connection *c, int readable);
int h1_ready(struct connection *c, int readable);
int h2_wants_write(struct connection *c);
int h1_wants_write(struct connection *c);
int h2_idle(struct connection *c);
int h1_idle(struct connection *c);
/* Begins a call that was due at a time and sends it: 0 if all of the connection's calls are under way, else 1. */
int h2_begin(struct connection *c, uint64_t due_ns);

#endif
