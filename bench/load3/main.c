/* Requests in a closed loop at etcd's interface, for a time: load3 PORTS MODE CONNECTIONS STREAMS SECONDS KEYS BYTES [RATE]

PORTS: with commas; connections are spread over them in turn. "tls:" before them: by TLS.
MODE: put, range, txn (gRPC), jput, jrange (JSON), v2put; watch (see watch.c). One line of JSON tells what came of it. A request that
was begun in time is waited for, so that what is told as done is all that was acknowledged.
RATE: of gRPC's calls, so many begin in a second, whatever is still under way (an open loop); the time that one took is
counted from when it was due. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "load3.h"

struct work work;
struct outcome outcome;
static uint64_t random_state;
/* How long answers may take after the last request began. */
static const uint64_t PATIENCE_NS = 20000000000u;

uint64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

uint64_t next_random(void) {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  return random_state ^= random_state << 17;
}

void succeeded(uint64_t began_ns) {
  outcome.done++;
  if (outcome.count == outcome.room) {
    outcome.room = outcome.room ? outcome.room * 2 : 1 << 16;
    outcome.took_us = realloc(outcome.took_us, outcome.room * sizeof *outcome.took_us);
  }
  outcome.took_us[outcome.count++] = (uint32_t)((now_ns() - began_ns) / 1000);
}

void failed(const char *why, const char *more) {
  if (outcome.errors++ == 0) snprintf(outcome.first_error, sizeof outcome.first_error, "%s %s", why, more);
}

static int by_size(const void *left, const void *right) {
  uint32_t a = *(const uint32_t *)left, b = *(const uint32_t *)right;
  return a < b ? -1 : a > b;
}

static uint32_t percentile(double part) {
  return outcome.count ? outcome.took_us[(size_t)((double)(outcome.count - 1) * part)] : 0;
}

int connected(int port) {
  struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
  int yes = 1, fd = socket(AF_INET, SOCK_STREAM, 0);
  to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  if (connect(fd, (struct sockaddr *)&to, sizeof to) != 0) {
    perror("connect");
    exit(1);
  }
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
  wire_open(fd);
  return fd;
}

static int poller, open_count;
static int *fds;
static struct connection **all;

static void over(int at) {
  close(fds[at]);
  all[at] = NULL;
  open_count--;
}

/* Begins what is due, each on the next connection that has room; how long until the next one is. */
static struct timespec begin_due(void) {
  static uint64_t due_ns;
  static int turn;
  uint64_t now = now_ns();
  if (due_ns == 0) due_ns = now;
  for (int tried = 0; due_ns <= now && due_ns < work.until_ns && tried < work.connections;) {
    struct connection *c = all[turn++ % work.connections];
    if (c != NULL && h2_begin(c, due_ns)) {
      due_ns += work.every_ns;
      tried = 0;
    } else {
      tried++;
    }
  }
  uint64_t left = due_ns > now ? due_ns - now : 1000000;
  return (struct timespec){.tv_sec = (time_t)(left / 1000000000u), .tv_nsec = (long)(left % 1000000000u)};
}

static void run(const int *ports, int port_count) {
  int http2 = work.mode <= TXN;
  int (*ready)(struct connection *, int) = http2 ? h2_ready : h1_ready;
  int (*wants)(struct connection *) = http2 ? h2_wants_write : h1_wants_write;
  int (*idle)(struct connection *) = http2 ? h2_idle : h1_idle;
  poller = epoll_create1(0), open_count = work.connections;
  all = calloc((size_t)work.connections, sizeof *all);
  fds = calloc((size_t)work.connections, sizeof *fds);
  for (int at = 0; at < work.connections; at++) {
    fds[at] = connected(ports[at % port_count]);
    all[at] = http2 ? h2_open(fds[at]) : h1_open(fds[at]);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)at};
    epoll_ctl(poller, EPOLL_CTL_ADD, fds[at], &event);
  }
  while (open_count > 0 && now_ns() < work.until_ns + PATIENCE_NS) {
    struct timespec wait = {.tv_nsec = 100000000};
    if (work.every_ns != 0 && now_ns() < work.until_ns) wait = begin_due();
    struct epoll_event events[64];
    int count = epoll_pwait2(poller, events, 64, &wait, NULL);
    for (int at = 0; at < count; at++) {
      int which = (int)events[at].data.u32;
      struct connection *c = all[which];
      if (c == NULL) continue;
      int result = ready(c, (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0);
      if (result == 0 && wants(c) && now_ns() < work.until_ns) result = ready(c, 0);
      if (result != 0 || (work.every_ns == 0 && idle(c))) over(which);
    }
    for (int at = 0; work.every_ns != 0 && now_ns() >= work.until_ns && at < work.connections; at++)
      if (all[at] != NULL && idle(all[at])) over(at);
  }
  if (open_count > 0) failed("no answer", "");
}

int main(int argc, char **argv) {
  static const char *modes[] = {"put", "range", "txn", "jput", "jrange", "v2put", "watch"};
  if (argc != 8 && argc != 9) {
    fprintf(stderr, "load3 PORTS put|range|txn|jput|jrange|v2put|watch CONNECTIONS STREAMS SECONDS KEYS BYTES [RATE]\n");
    return 2;
  }
  int mode = 0;
  while (mode < 7 && strcmp(modes[mode], argv[2]) != 0) mode++;
  work = (struct work){.mode = (enum mode)mode, .connections = atoi(argv[3]), .streams = atoi(argv[4]),
                       .value_bytes = atoi(argv[7]), .keys = atol(argv[6])};
  if (mode == 7 || work.connections < 1 || work.streams < 1 || work.keys < 1 || work.value_bytes > 2048) return 2;
  double rate = argc == 9 ? atof(argv[8]) : 0;
  if (rate < 0 || (rate > 0 && mode > TXN)) return 2;
  work.every_ns = rate > 0 ? (uint64_t)(1e9 / rate) : 0;
  uint64_t began = now_ns();
  random_state = began | 1;
  work.until_ns = began + (uint64_t)(atof(argv[5]) * 1e9);
  if (strncmp(argv[1], "tls:", 4) == 0) {
    if (mode > TXN && mode != WATCH) return 2; /* it says that it speaks HTTP/2 */
    use_tls();
    argv[1] += 4;
  }
  int ports[16], port_count = 0;
  for (char *text = argv[1]; port_count < 16; text = NULL) {
    char *word = strtok(text, ",");
    if (word == NULL) break;
    ports[port_count++] = atoi(word);
  }
  if (port_count == 0) return 2;
  long puts = 0;
  if (mode == WATCH) {
    puts = run_watch(ports[0], atof(argv[5]));
    began = work.until_ns - (uint64_t)(atof(argv[5]) * 1e9);
  } else {
    run(ports, port_count);
  }
  double took_s = (double)(now_ns() - began) / 1e9;
  qsort(outcome.took_us, outcome.count, sizeof *outcome.took_us, by_size);
  printf("{\"done\":%ld,\"puts\":%ld,\"errors\":%ld,\"seconds\":%.3f,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"error\":\"%s\"}\n",
         outcome.done, puts, outcome.errors, took_s, percentile(0.5), percentile(0.99), percentile(1), outcome.first_error);
  return 0;
}
