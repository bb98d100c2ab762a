/* A closed loop of requests at etcd's interface, for a time: load3 PORTS MODE CONNECTIONS STREAMS SECONDS KEYS BYTES

PORTS: with commas; connections are spread over them in turn.
MODE: put, range, txn (gRPC), jput, jrange (JSON), v2put; watch (see watch.c). One line of JSON tells what came of it. A request that
was begun in time is waited for, so that what is told as done is all that was acknowledged. */
#include <arpa/inet.h>
#include <fcntl.h>
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
  fcntl(fd, F_SETFL, O_NONBLOCK);
  return fd;
}

static void run(const int *ports, int port_count) {
  int http2 = work.mode <= TXN, poller = epoll_create1(0), open = work.connections;
  int (*ready)(struct connection *, int) = http2 ? h2_ready : h1_ready;
  int (*wants)(struct connection *) = http2 ? h2_wants_write : h1_wants_write;
  int (*idle)(struct connection *) = http2 ? h2_idle : h1_idle;
  struct connection **all = calloc((size_t)work.connections, sizeof *all);
  int *fds = calloc((size_t)work.connections, sizeof *fds);
  for (int at = 0; at < work.connections; at++) {
    fds[at] = connected(ports[at % port_count]);
    all[at] = http2 ? h2_open(fds[at]) : h1_open(fds[at]);
    struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = (uint32_t)at};
    epoll_ctl(poller, EPOLL_CTL_ADD, fds[at], &event);
  }
  while (open > 0 && now_ns() < work.until_ns + PATIENCE_NS) {
    struct epoll_event events[64];
    int count = epoll_wait(poller, events, 64, 100);
    for (int at = 0; at < count; at++) {
      struct connection *c = all[events[at].data.u32];
      if (c == NULL) continue;
      int over = ready(c, (events[at].events & (EPOLLIN | EPOLLHUP | EPOLLERR)) != 0);
      while (over == 0 && wants(c) && now_ns() < work.until_ns) {
        over = ready(c, 0);
        break;
      }
      if (over != 0 || idle(c)) {
        close(fds[events[at].data.u32]);
        all[events[at].data.u32] = NULL;
        open--;
      }
    }
  }
  if (open > 0) failed("no answer", "");
}

int main(int argc, char **argv) {
  static const char *modes[] = {"put", "range", "txn", "jput", "jrange", "v2put", "watch"};
  if (argc != 8) {
    fprintf(stderr, "load3 PORTS put|range|txn|jput|jrange|v2put|watch CONNECTIONS STREAMS SECONDS KEYS BYTES\n");
    return 2;
  }
  int mode = 0;
  while (mode < 7 && strcmp(modes[mode], argv[2]) != 0) mode++;
  work = (struct work){.mode = (enum mode)mode, .connections = atoi(argv[3]), .streams = atoi(argv[4]),
                       .value_bytes = atoi(argv[7]), .keys = atol(argv[6])};
  if (mode == 7 || work.connections < 1 || work.streams < 1 || work.keys < 1 || work.value_bytes > 2048) return 2;
  uint64_t began = now_ns();
  random_state = began | 1;
  work.until_ns = began + (uint64_t)(atof(argv[5]) * 1e9);
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
  printf("{\"done\":%ld,\"puts\":%ld,\"errors\":%ld,\"seconds\":%.3f,\"p50_us\":%u,\"p99_us\":%u,\"error\":\"%s\"}\n",
         outcome.done, puts, outcome.errors, took_s, percentile(0.5), percentile(0.99), outcome.first_error);
  return 0;
}
