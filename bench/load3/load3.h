/* What the parts of the load generator share: the work asked for, and what came of it. */
#ifndef LOAD3_H
#define LOAD3_H

#include <stddef.h>
#include <stdint.h>

enum mode { PUT, RANGE, TXN, JSON_PUT, JSON_RANGE, V2_PUT, WATCH };

struct work {
  enum mode mode;
  int connections, streams, value_bytes;
  long keys;
  uint64_t until_ns; /* no request begins after it */
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

#endif
