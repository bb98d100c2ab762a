#define _GNU_SOURCE
/* Closed-loop HTTP/1.1 load: N keep-alive connections, each sends its next PUT when the answer is whole.
 *
 *   http_put HOST PORT CONNECTIONS SECONDS KEYS VALUE_BYTES [SEED]
 *
 * Prints one line of JSON: requests, seconds, p50_us, p99_us, max_us, errors. The same bytes go to every server.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define ANSWER_BYTES 16384

struct connection {
    int fd;
    size_t have;
    uint64_t sent_ns;
    char answer[ANSWER_BYTES];
};

static uint64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static uint64_t random_state = 88172645463325252u;
static uint64_t random_next(void) {
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return random_state;
}

static int keys, value_bytes;
static const char *host;
static char *value;

static void send_one(struct connection *c) {
    static char out[1 << 17];
    unsigned key = (unsigned)(random_next() % (unsigned)keys);
    snprintf(value, 17, "%016llx", (unsigned long long)random_next());
    value[16] = 'v';
    int length = snprintf(out, sizeof out,
        "PUT /v2/keys/bench/d%02u/k%07u HTTP/1.1\r\nHost: %s\r\n"
        "Content-Type: application/x-www-form-urlencoded\r\nContent-Length: %d\r\n\r\nvalue=%s",
        key % 100, key, host, value_bytes + 6, value);
    c->have = 0;
    c->sent_ns = now_ns();
    if (write(c->fd, out, (size_t)length) != length) { perror("write"); exit(1); }
}

/* 1: the answer is whole and 2xx, 0: more to come, -1: an error status */
static int answered(struct connection *c) {
    c->answer[c->have] = 0;
    char *end = strstr(c->answer, "\r\n\r\n");
    if (!end) return 0;
    char *field = strcasestr(c->answer, "content-length:");
    if (!field || field > end) { fprintf(stderr, "no content-length: %s\n", c->answer); exit(1); }
    size_t whole = (size_t)(end + 4 - c->answer) + (size_t)atol(field + 15);
    if (c->have < whole) return 0;
    return c->answer[9] == '2' ? 1 : -1;
}

static int by_value(const void *a, const void *b) {
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

int main(int argc, char **argv) {
    if (argc < 7) { fprintf(stderr, "usage: http_put HOST PORT CONNECTIONS SECONDS KEYS VALUE_BYTES [SEED]\n"); return 2; }
    host = argv[1];
    int count = atoi(argv[3]);
    double seconds = atof(argv[4]);
    keys = atoi(argv[5]);
    value_bytes = atoi(argv[6]);
    if (argc > 7) random_state ^= (uint64_t)atoll(argv[7]) * 0x9E3779B97F4A7C15u;
    value = malloc((size_t)value_bytes + 20);
    memset(value, 'v', (size_t)value_bytes);
    value[value_bytes] = 0;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, host, &to.sin_addr);
    int poll = epoll_create1(0);
    struct connection *all = calloc((size_t)count, sizeof *all);
    for (int i = 0; i < count; i++) {
        int one = 1;
        all[i].fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(all[i].fd, (struct sockaddr *)&to, sizeof to)) { perror("connect"); return 1; }
        setsockopt(all[i].fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = &all[i]};
        epoll_ctl(poll, EPOLL_CTL_ADD, all[i].fd, &event);
    }
    size_t room = 1 << 20, done = 0, errors = 0;
    uint32_t *took_us = malloc(room * sizeof *took_us);
    uint64_t begin = now_ns(), until = begin + (uint64_t)(seconds * 1e9);
    for (int i = 0; i < count; i++) send_one(&all[i]);
    int waiting = count;
    while (waiting) {
        struct epoll_event ready[256];
        int many = epoll_wait(poll, ready, 256, 10000);
        if (many <= 0) { fprintf(stderr, "no answer for 10 s\n"); return 1; }
        for (int i = 0; i < many; i++) {
            struct connection *c = ready[i].data.ptr;
            ssize_t got = read(c->fd, c->answer + c->have, ANSWER_BYTES - 1 - c->have);
            if (got <= 0) { fprintf(stderr, "the server closed\n"); return 1; }
            c->have += (size_t)got;
            int what = answered(c);
            if (!what) continue;
            errors += what < 0;
            if (done == room) took_us = realloc(took_us, (room *= 2) * sizeof *took_us);
            uint64_t now = now_ns();
            took_us[done++] = (uint32_t)((now - c->sent_ns) / 1000);
            if (now < until) send_one(c); else waiting--;
        }
    }
    double spent = (double)(now_ns() - begin) / 1e9;
    qsort(took_us, done, sizeof *took_us, by_value);
    printf("{\"requests\":%zu,\"seconds\":%.3f,\"p50_us\":%u,\"p99_us\":%u,\"max_us\":%u,\"errors\":%zu}\n",
        done, spent, took_us[done / 2], took_us[done * 99 / 100], took_us[done - 1], errors);
    return 0;
}
