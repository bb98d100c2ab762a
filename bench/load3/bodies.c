/* The bodies of requests: protobuf by hand, JSON, form. Each has a key of its own choice, and a value that differs. */
#include <stdio.h>
#include <string.h>

#include "load3.h"

static uint8_t *varint(uint8_t *out, uint64_t number) {
  while (number >= 128) {
    *out++ = (uint8_t)(number | 128);
    number >>= 7;
  }
  *out++ = (uint8_t)number;
  return out;
}

static uint8_t *bytes(uint8_t *out, int field, const void *data, size_t size) {
  out = varint(out, (uint64_t)(field << 3 | 2));
  out = varint(out, size);
  memcpy(out, data, size);
  return out + size;
}

static size_t key(char *out) {
  return (size_t)sprintf(out, "load/%011ld", (long)(next_random() % (uint64_t)work.keys));
}

static size_t value(char *out) {
  uint64_t bits = next_random();
  for (int at = 0; at < work.value_bytes; at++) {
    if (at % 8 == 0) bits = bits * 6364136223846793005u + 1442695040888963407u;
    out[at] = (char)('a' + (bits >> (at % 8 * 8) & 15));
  }
  return (size_t)work.value_bytes;
}

static size_t put(uint8_t *out, const char *name, size_t length) {
  char filler[4096];
  uint8_t *end = bytes(out, 1, name, length);
  end = bytes(end, 2, filler, value(filler));
  return (size_t)(end - out);
}

/* if version(key) > -1 then put(key), get(key) */
static size_t txn(uint8_t *out, const char *name, size_t length) {
  uint8_t one[5000], op[5100], *end = one;
  *end++ = 1 << 3, *end++ = 1; /* result: GREATER; target: VERSION is the default */
  end = bytes(end, 3, name, length);
  *end++ = 4 << 3, end = varint(end, (uint64_t)-1);
  uint8_t *all = bytes(out, 1, one, (size_t)(end - one));
  end = bytes(op, 2, one, put(one, name, length));
  all = bytes(all, 2, op, (size_t)(end - op));
  end = bytes(one, 1, name, length);
  end = bytes(op, 1, one, (size_t)(end - one));
  all = bytes(all, 2, op, (size_t)(end - op));
  return (size_t)(all - out);
}

size_t protobuf_body(uint8_t *out) {
  char name[32];
  size_t length = key(name), size;
  uint8_t *message = out + 5;
  if (work.mode == PUT) {
    size = put(message, name, length);
  } else if (work.mode == TXN) {
    size = txn(message, name, length);
  } else {
    size = (size_t)(bytes(message, 1, name, length) - message);
  }
  out[0] = 0;
  for (int at = 0; at < 4; at++) out[1 + at] = (uint8_t)(size >> (24 - 8 * at));
  return size + 5;
}

static size_t base64(char *out, const char *data, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  char *end = out;
  for (size_t at = 0; at < size; at += 3) {
    uint32_t bits = (uint32_t)(uint8_t)data[at] << 16;
    if (at + 1 < size) bits |= (uint32_t)(uint8_t)data[at + 1] << 8;
    if (at + 2 < size) bits |= (uint8_t)data[at + 2];
    *end++ = digits[bits >> 18];
    *end++ = digits[bits >> 12 & 63];
    *end++ = at + 1 < size ? digits[bits >> 6 & 63] : '=';
    *end++ = at + 2 < size ? digits[bits & 63] : '=';
  }
  return (size_t)(end - out);
}

size_t json_body(char *out) {
  char name[32], filler[4096], *end = out;
  size_t length = key(name);
  end += sprintf(end, "{\"key\":\"");
  end += base64(end, name, length);
  if (work.mode == JSON_PUT) {
    end += sprintf(end, "\",\"value\":\"");
    end += base64(end, filler, value(filler));
  }
  end += sprintf(end, "\"}");
  return (size_t)(end - out);
}

size_t v2_body(char *out, long *number) {
  *number = (long)(next_random() % (uint64_t)work.keys);
  memcpy(out, "value=", 6);
  return 6 + value(out + 6);
}
