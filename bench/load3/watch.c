/* Watchers, one a stream, and a client that puts: the next put begins when all that watch its key have seen the last.

Watcher number n watches key n % KEYS; puts go to the keys in turn. What a watcher gets must be every version of its key,
in order. The first line of output tells that all watch. */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "load3.h"

struct line { /* a connection */
  int fd;
  nghttp2_session *session;
  size_t length, sent;
  uint8_t out[1 << 16];
};

struct call { /* a watcher, or (number -1) the put */
  struct line *of;
  long number, version;
  size_t length, sent;   /* of the request */
  size_t need, have;     /* of the message that comes: with its prefix, 0 while that isn't whole */
  size_t room;
  uint8_t *message;
  uint8_t *body;
  int status;
};

static long watchers, watching, seen, awaited, put_count;
static uint64_t began_ns;
static int put_done = 1, refused;
static struct call putter;

static uint8_t *varint(uint8_t *out, uint64_t number) {
  for (; number >= 128; number >>= 7) *out++ = (uint8_t)(number | 128);
  *out++ = (uint8_t)number;
  return out;
}

static uint8_t *bytes(uint8_t *out, int field, const void *data, size_t size) {
  out = varint(varint(out, (uint64_t)(field << 3 | 2)), size);
  memcpy(out, data, size);
  return out + size;
}

static size_t framed(uint8_t *out, const uint8_t *message, size_t size) {
  out[0] = 0;
  for (int at = 0; at < 4; at++) out[1 + at] = (uint8_t)(size >> (24 - 8 * at));
  memcpy(out + 5, message, size);
  return size + 5;
}

static size_t watch_body(uint8_t *out, long number) {
  char name[32];
  uint8_t create[64], request[80];
  int length = sprintf(name, "load/%011ld", number % work.keys);
  size_t size = (size_t)(bytes(create, 1, name, (size_t)length) - create);
  return framed(out, request, (size_t)(bytes(request, 1, create, size) - request));
}

static size_t put_body(uint8_t *out, long number) {
  char name[32], value[4096];
  static uint8_t request[8192];
  int length = sprintf(name, "load/%011ld", number % work.keys);
  for (int at = 0; at < work.value_bytes; at++) value[at] = (char)('a' + (next_random() & 15));
  uint8_t *end = bytes(request, 1, name, (size_t)length);
  end = bytes(end, 2, value, (size_t)work.value_bytes);
  return framed(out, request, (size_t)(end - request));
}

/* -- reading protobuf: only as far as it is looked at ------------------------------------------------------------ */

struct field {
  uint64_t tag, number;
  const uint8_t *data;
};

/* The next field before `end`, or NULL. */
static const uint8_t *next(const uint8_t *at, const uint8_t *end, struct field *field) {
  uint64_t *into[2] = {&field->tag, &field->number};
  for (int which = 0; which < 2; which++) {
    *into[which] = 0;
    for (int shift = 0;; shift += 7) {
      if (at == end || shift > 63) return NULL;
      *into[which] |= (uint64_t)(*at & 127) << shift;
      if (*at++ < 128) break;
    }
  }
  field->data = at;
  if ((field->tag & 7) == 0) return at;
  return (field->tag & 7) == 2 && field->number <= (uint64_t)(end - at) ? at + field->number : NULL;
}

static void event(struct call *call, const uint8_t *at, const uint8_t *end) {
  struct field field, inner;
  while (at != end && (at = next(at, end, &field)) != NULL) {
    if (field.tag != (2 << 3 | 2)) continue; /* kv */
    const uint8_t *in = field.data, *over = field.data + field.number;
    while (in != over && (in = next(in, over, &inner)) != NULL) {
      if (inner.tag != (4 << 3)) continue; /* version */
      if (call->version && (long)inner.number != call->version + 1) failed("an event is missing or doubled", "");
      call->version = (long)inner.number;
    }
  }
  seen++;
  succeeded(began_ns);
}

static void response(struct call *call, const uint8_t *at, const uint8_t *end) {
  struct field field;
  while (at != end && (at = next(at, end, &field)) != NULL) {
    if (field.tag == (3 << 3)) watching++;              /* created */
    if (field.tag == (4 << 3)) refused = 1;             /* canceled */
    if (field.tag == (11 << 3 | 2)) event(call, field.data, field.data + field.number);
  }
  if (at == NULL) failed("not a WatchResponse", "");
}

static int on_data(nghttp2_session *session, uint8_t flags, int32_t stream, const uint8_t *data, size_t size, void *user) {
  (void)flags, (void)user;
  struct call *call = nghttp2_session_get_stream_user_data(session, stream);
  while (call != NULL && call->number >= 0 && size > 0) {
    size_t want = (call->need ? call->need : 5) - call->have;
    size_t take = size < want ? size : want;
    if (call->have + take > call->room) {
      call->room = 2 * (call->have + take);
      call->message = realloc(call->message, call->room);
    }
    memcpy(call->message + call->have, data, take);
    call->have += take, data += take, size -= take;
    if (call->need == 0 && call->have == 5) {
      const uint8_t *m = call->message;
      call->need = 5 + ((size_t)m[1] << 24 | (size_t)m[2] << 16 | (size_t)m[3] << 8 | m[4]);
    }
    if (call->need != 0 && call->have == call->need) {
      response(call, call->message + 5, call->message + call->need);
      call->need = call->have = 0;
    }
  }
  return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t size, uint8_t flags, void *user) {
  (void)flags, (void)user, (void)size;
  struct call *call = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (call != NULL && name_size == 11 && memcmp(name, "grpc-status", 11) == 0) call->status = atoi((const char *)value);
  return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *user) {
  (void)code, (void)user;
  struct call *call = nghttp2_session_get_stream_user_data(session, stream);
  if (call == NULL) return 0;
  if (call->number < 0 && call->status == 0) {
    put_done = 1;
  } else {
    failed(call->number < 0 ? "put" : "a watch ended", "");
    refused = 1;
  }
  return 0;
}

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *user) {
  (void)session, (void)stream, (void)user;
  struct call *call = source->ptr;
  size_t size = call->length - call->sent < room ? call->length - call->sent : room;
  if (size == 0) return NGHTTP2_ERR_DEFERRED; /* a watch's sending stays open */
  memcpy(out, call->body + call->sent, size);
  call->sent += size;
  if (call->number < 0 && call->sent == call->length) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return (ssize_t)size;
}

#define FIELD(name, value) \
  { (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, strlen(value), NGHTTP2_NV_FLAG_NONE }

static void submit(struct call *call, const char *path) {
  nghttp2_nv fields[] = {FIELD(":method", "POST"),         FIELD(":scheme", "http"),
                         FIELD(":path", path),             FIELD(":authority", "localhost"),
                         FIELD("content-type", "application/grpc"), FIELD("user-agent", "load3"),
                         FIELD("te", "trailers")};
  nghttp2_data_provider body = {.source = {.ptr = call}, .read_callback = read_body};
  call->sent = 0;
  call->status = -1;
  if (nghttp2_submit_request(call->of->session, NULL, fields, sizeof fields / sizeof *fields, &body, call) < 0)
    failed("submit", "");
}

static struct line *opened(int port, int poller, uint32_t at) {
  nghttp2_session_callbacks *callbacks;
  struct line *line = calloc(1, sizeof *line);
  line->fd = connected(port);
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_data_chunk_recv_callback(callbacks, on_data);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_client_new(&line->session, callbacks, NULL);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20}};
  nghttp2_submit_settings(line->session, NGHTTP2_FLAG_NONE, settings, 1);
  nghttp2_session_set_local_window_size(line->session, NGHTTP2_FLAG_NONE, 0, 1 << 26);
  struct epoll_event event = {.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.u32 = at};
  epoll_ctl(poller, EPOLL_CTL_ADD, line->fd, &event);
  return line;
}

static int written(struct line *line) {
  for (;;) {
    if (line->sent == line->length) {
      const uint8_t *piece;
      ssize_t size = 0;
      line->sent = line->length = 0;
      while (line->length < sizeof line->out / 2 && (size = nghttp2_session_mem_send(line->session, &piece)) > 0) {
        memcpy(line->out + line->length, piece, (size_t)size);
        line->length += (size_t)size;
      }
      if (size < 0) return -1;
      if (line->length == 0) return 0;
    }
    ssize_t wrote = wire_write(line->fd, line->out + line->sent, line->length - line->sent);
    if (wrote < 0) return errno == EAGAIN ? 0 : -1;
    line->sent += (size_t)wrote;
  }
}

static int readable(struct line *line) {
  static uint8_t buffer[1 << 18];
  for (;;) {
    ssize_t size = wire_read(line->fd, buffer, sizeof buffer);
    if (size < 0 && errno == EAGAIN) return 0;
    if (size <= 0 || nghttp2_session_mem_recv(line->session, buffer, (size_t)size) < 0) return -1;
  }
}

static void put_next(void) {
  put_count++;
  seen = 0;
  awaited = watchers / work.keys + (put_count % work.keys < watchers % work.keys);
  put_done = 0;
  putter.length = put_body(putter.body, put_count);
  began_ns = now_ns();
  submit(&putter, "/etcdserverpb.KV/Put");
}

long run_watch(int port, double seconds) {
  int poller = epoll_create1(0), started = 0;
  uint32_t count = (uint32_t)work.connections + 1;
  struct line **lines = calloc(count, sizeof *lines);
  struct call *calls;
  watchers = (long)work.connections * work.streams;
  calls = calloc((size_t)watchers, sizeof *calls);
  for (uint32_t at = 0; at < count; at++) lines[at] = opened(port, poller, at);
  for (long number = 0; number < watchers; number++) {
    struct call *call = &calls[number];
    call->of = lines[1 + number % work.connections];
    call->number = number;
    call->body = malloc(96);
    call->length = watch_body(call->body, number);
    submit(call, "/etcdserverpb.Watch/Watch");
  }
  putter.of = lines[0], putter.number = -1, putter.body = malloc(8192);
  uint64_t give_up = now_ns() + 60000000000u;
  for (uint32_t at = 0; at < count; at++) written(lines[at]);
  while (!refused && now_ns() < give_up) {
    struct epoll_event events[64];
    int ready = epoll_wait(poller, events, 64, 100);
    for (int at = 0; at < ready; at++) {
      struct line *line = lines[events[at].data.u32];
      if (readable(line) != 0 || written(line) != 0) failed("a connection ended", ""), refused = 1;
    }
    if (!started && watching == watchers) {
      started = 1;
      printf("watching\n");
      fflush(stdout);
      char line[8];
      if (fgets(line, sizeof line, stdin) == NULL) break; /* the caller has looked */
      work.until_ns = now_ns() + (uint64_t)(seconds * 1e9);
      give_up = work.until_ns + 20000000000u;
    }
    if (started && put_done && seen >= awaited) {
      if (now_ns() >= work.until_ns) return put_count;
      put_next();
      if (written(lines[0]) != 0) failed("a connection ended", ""), refused = 1;
    }
  }
  failed(started ? "events are missing" : "not all watch", "");
  return put_count;
}
