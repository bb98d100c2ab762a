/* gRPC's unary calls on libnghttp2: each slot has one call under way, and its grpc-status is looked at. */
#include <errno.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "load3.h"

struct slot {
  struct connection *of;
  uint64_t began_ns;
  size_t length, sent;
  int status, under_way;
  char message[128];
  uint8_t body[BODY_MAX];
};

struct connection {
  int fd, under_way;
  nghttp2_session *session;
  struct slot *slots;
  size_t length, sent; /* of `out` */
  uint8_t out[1 << 16];
};

static ssize_t read_body(nghttp2_session *session, int32_t stream, uint8_t *out, size_t room, uint32_t *flags,
                         nghttp2_data_source *source, void *data) {
  (void)session, (void)stream, (void)data;
  struct slot *slot = source->ptr;
  size_t size = slot->length - slot->sent;
  if (size > room) size = room;
  memcpy(out, slot->body + slot->sent, size);
  slot->sent += size;
  if (slot->sent == slot->length) *flags |= NGHTTP2_DATA_FLAG_EOF;
  return (ssize_t)size;
}

#define FIELD(name, value) \
  { (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, strlen(value), NGHTTP2_NV_FLAG_NONE }

static void begin(struct slot *slot, uint64_t began_ns) {
  static const char *paths[] = {"/etcdserverpb.KV/Put", "/etcdserverpb.KV/Range", "/etcdserverpb.KV/Txn"};
  nghttp2_nv fields[] = {FIELD(":method", "POST"),
                         FIELD(":scheme", "http"),
                         FIELD(":path", paths[work.mode]),
                         FIELD(":authority", "localhost"),
                         FIELD("content-type", "application/grpc"),
                         FIELD("user-agent", "load3"),
                         FIELD("te", "trailers")};
  nghttp2_data_provider body = {.source = {.ptr = slot}, .read_callback = read_body};
  slot->length = protobuf_body(slot->body);
  slot->sent = 0;
  slot->status = -1;
  slot->message[0] = 0;
  slot->began_ns = began_ns;
  if (nghttp2_submit_request(slot->of->session, NULL, fields, sizeof fields / sizeof *fields, &body, slot) < 0) {
    failed("submit", "");
    return;
  }
  slot->under_way = 1;
  slot->of->under_way++;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name, size_t name_size,
                     const uint8_t *value, size_t size, uint8_t flags, void *data) {
  (void)flags, (void)data;
  struct slot *slot = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
  if (slot == NULL) return 0;
  if (name_size == 11 && memcmp(name, "grpc-status", 11) == 0) slot->status = atoi((const char *)value);
  if (name_size == 12 && memcmp(name, "grpc-message", 12) == 0) {
    if (size >= sizeof slot->message) size = sizeof slot->message - 1;
    memcpy(slot->message, value, size);
    slot->message[size] = 0;
  }
  return 0;
}

static int on_close(nghttp2_session *session, int32_t stream, uint32_t code, void *data) {
  (void)code, (void)data;
  struct slot *slot = nghttp2_session_get_stream_user_data(session, stream);
  if (slot == NULL) return 0;
  slot->under_way = 0;
  slot->of->under_way--;
  if (slot->status == 0) {
    succeeded(slot->began_ns);
  } else {
    failed("grpc-status", slot->message);
  }
  uint64_t now = now_ns();
  if (work.every_ns == 0 && now < work.until_ns) begin(slot, now);
  return 0;
}

struct connection *h2_open(int fd) {
  nghttp2_session_callbacks *callbacks;
  struct connection *c = calloc(1, sizeof *c);
  c->fd = fd;
  nghttp2_session_callbacks_new(&callbacks);
  nghttp2_session_callbacks_set_on_header_callback(callbacks, on_header);
  nghttp2_session_callbacks_set_on_stream_close_callback(callbacks, on_close);
  nghttp2_session_client_new(&c->session, callbacks, c);
  nghttp2_session_callbacks_del(callbacks);
  nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 1 << 20};
  nghttp2_submit_settings(c->session, NGHTTP2_FLAG_NONE, &window, 1);
  nghttp2_session_set_local_window_size(c->session, NGHTTP2_FLAG_NONE, 0, 1 << 24);
  c->slots = calloc((size_t)work.streams, sizeof *c->slots);
  for (int at = 0; at < work.streams; at++) {
    c->slots[at].of = c;
    if (work.every_ns == 0) begin(&c->slots[at], now_ns());
  }
  return c;
}

/* What is to be sent goes out in as few writes as it fits in, as clients do. */
static int write_out(struct connection *c) {
  for (;;) {
    if (c->sent == c->length) {
      const uint8_t *piece;
      ssize_t size = 0;
      c->sent = c->length = 0;
      while (c->length < sizeof c->out / 2 && (size = nghttp2_session_mem_send(c->session, &piece)) > 0) {
        if (c->length + (size_t)size > sizeof c->out) return -1; /* a frame is 16 KiB at most */
        memcpy(c->out + c->length, piece, (size_t)size);
        c->length += (size_t)size;
      }
      if (size < 0) return -1;
      if (c->length == 0) return 0;
    }
    ssize_t wrote = wire_write(c->fd, c->out + c->sent, c->length - c->sent);
    if (wrote < 0) return errno == EAGAIN ? 0 : -1;
    c->sent += (size_t)wrote;
  }
}

int h2_ready(struct connection *c, int readable) {
  static uint8_t buffer[1 << 18];
  while (readable) {
    ssize_t size = wire_read(c->fd, buffer, sizeof buffer);
    if (size < 0 && errno == EAGAIN) break;
    if (size <= 0 || nghttp2_session_mem_recv(c->session, buffer, (size_t)size) < 0) {
      failed("the connection ended", "");
      return -1;
    }
    if (size < (ssize_t)sizeof buffer) break;
  }
  return write_out(c);
}

int h2_begin(struct connection *c, uint64_t due_ns) {
  for (int at = 0; at < work.streams; at++) {
    if (c->slots[at].under_way) continue;
    begin(&c->slots[at], due_ns);
    if (write_out(c) < 0) failed("the connection ended", "");
    return 1;
  }
  return 0;
}

int h2_wants_write(struct connection *c) { return c->sent < c->length || nghttp2_session_want_write(c->session); }
int h2_idle(struct connection *c) { return c->under_way == 0; }
