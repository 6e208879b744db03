// Reads a JSON document (RFC 8259) into a tree. Enough for settings: numbers stay text. Nothing is ever freed, because
// an instance of a policy answers for one decision.
#ifndef JSON_H
#define JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define JSON_DEEPEST 128

typedef enum { JSON_NULL, JSON_BOOL, JSON_NUMBER, JSON_STRING, JSON_ARRAY, JSON_OBJECT } json_type;

typedef struct {
  const uint8_t *ptr;
  size_t len;
} json_text;

typedef struct json {
  json_type type;
  json_text text;     // Of a string its characters in UTF-8, of a number its digits.
  json_text key;      // Its name, for a member of an object.
  struct json *first; // Of an object or array.
  struct json *next;  // In the object or array it is in.
} json;

typedef struct {
  const uint8_t *at;
  const uint8_t *end;
} json_cursor;

static bool json_is(json_text text, const char *literal) {
  return text.len == strlen(literal) && memcmp(text.ptr, literal, text.len) == 0;
}

// The member of this name; of several the last. NULL if there is none.
static inline const json *json_member(const json *object, const char *key) {
  const json *found = NULL;
  for (const json *member = object->first; member != NULL; member = member->next) {
    if (json_is(member->key, key)) found = member;
  }
  return found;
}

static json *json_value(json_cursor *in, int depth);

static void json_space(json_cursor *in) {
  while (in->at < in->end && (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) in->at++;
}

static bool json_take(json_cursor *in, uint8_t c) {
  if (in->at == in->end || *in->at != c) return false;
  in->at++;
  return true;
}

static bool json_word(json_cursor *in, const char *word) {
  size_t len = strlen(word);
  if ((size_t)(in->end - in->at) < len || memcmp(in->at, word, len) != 0) return false;
  in->at += len;
  return true;
}

static bool json_digits(json_cursor *in) {
  const uint8_t *start = in->at;
  while (in->at < in->end && *in->at >= '0' && *in->at <= '9') in->at++;
  return in->at > start;
}

static bool json_number(json_cursor *in) {
  json_take(in, '-');
  if (!json_take(in, '0') && !json_digits(in)) return false;
  if (json_take(in, '.') && !json_digits(in)) return false;
  if (json_take(in, 'e') || json_take(in, 'E')) {
    if (!json_take(in, '+')) json_take(in, '-');
    return json_digits(in);
  }
  return true;
}

static bool json_hex4(json_cursor *in, uint32_t *unit) {
  *unit = 0;
  for (int i = 0; i < 4; i++, in->at++) {
    if (in->at == in->end) return false;
    uint8_t c = *in->at;
    uint32_t digit;
    if (c >= '0' && c <= '9') digit = c - '0';
    else if (c >= 'a' && c <= 'f') digit = c - 'a' + 10u;
    else if (c >= 'A' && c <= 'F') digit = c - 'A' + 10u;
    else return false;
    *unit = *unit << 4 | digit;
  }
  return true;
}

// What follows `\u`, appended as UTF-8. Half of a surrogate pair is no character.
static bool json_unicode(json_cursor *in, uint8_t **out) {
  uint32_t c, low;
  if (!json_hex4(in, &c)) return false;
  if (c >= 0xd800 && c < 0xe000) {
    if (c >= 0xdc00 || !json_word(in, "\\u") || !json_hex4(in, &low) || low < 0xdc00 || low > 0xdfff) return false;
    c = 0x10000 + ((c - 0xd800) << 10) + (low - 0xdc00);
  }
  uint8_t *to = *out;
  if (c < 0x80) {
    *to++ = (uint8_t)c;
  } else if (c < 0x800) {
    *to++ = (uint8_t)(0xc0 | c >> 6);
    *to++ = (uint8_t)(0x80 | (c & 0x3f));
  } else if (c < 0x10000) {
    *to++ = (uint8_t)(0xe0 | c >> 12);
    *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    *to++ = (uint8_t)(0x80 | (c & 0x3f));
  } else {
    *to++ = (uint8_t)(0xf0 | c >> 18);
    *to++ = (uint8_t)(0x80 | (c >> 12 & 0x3f));
    *to++ = (uint8_t)(0x80 | (c >> 6 & 0x3f));
    *to++ = (uint8_t)(0x80 | (c & 0x3f));
  }
  *out = to;
  return true;
}

static bool json_string(json_cursor *in, json_text *text) {
  if (!json_take(in, '"')) return false;
  const uint8_t *close = in->at;
  while (close < in->end && *close != '"') close += *close == '\\' ? 2 : 1;
  if (close >= in->end) return false;
  // An escape is never shorter than the character it stands for.
  uint8_t *to = malloc((size_t)(close - in->at) + 1);
  if (to == NULL) abort();
  text->ptr = to;
  while (!json_take(in, '"')) {
    if (in->at == in->end || *in->at < 0x20) return false;
    if (!json_take(in, '\\')) {
      *to++ = *in->at++;
      continue;
    }
    static const char names[] = "\"\\/bfnrt", meant[] = "\"\\/\b\f\n\r\t";
    const char *name = in->at < in->end && *in->at != 0 ? strchr(names, *in->at) : NULL;
    if (name != NULL) {
      *to++ = (uint8_t)meant[name - names];
      in->at++;
    } else if (!json_take(in, 'u') || !json_unicode(in, &to)) {
      return false;
    }
  }
  text->len = (size_t)(to - text->ptr);
  return true;
}

static bool json_children(json_cursor *in, json *parent, uint8_t close, int depth) {
  struct json **tail = &parent->first;
  json_space(in);
  if (json_take(in, close)) return true;
  do {
    json_text key = {NULL, 0};
    json_space(in);
    if (parent->type == JSON_OBJECT) {
      if (!json_string(in, &key)) return false;
      json_space(in);
      if (!json_take(in, ':')) return false;
    }
    json *child = json_value(in, depth + 1);
    if (child == NULL) return false;
    child->key = key;
    *tail = child;
    tail = &child->next;
    json_space(in);
  } while (json_take(in, ','));
  return json_take(in, close);
}

static json *json_value(json_cursor *in, int depth) {
  json_space(in);
  json *value = calloc(1, sizeof *value);
  if (value == NULL) abort();
  if (in->at == in->end || depth > JSON_DEEPEST) return NULL;
  const uint8_t *start = in->at;
  bool good;
  switch (*start) {
  case '{':
    in->at++;
    value->type = JSON_OBJECT;
    good = json_children(in, value, '}', depth);
    break;
  case '[':
    in->at++;
    value->type = JSON_ARRAY;
    good = json_children(in, value, ']', depth);
    break;
  case '"':
    value->type = JSON_STRING;
    good = json_string(in, &value->text);
    break;
  case 'n':
    value->type = JSON_NULL;
    good = json_word(in, "null");
    break;
  case 't':
  case 'f':
    value->type = JSON_BOOL;
    good = json_word(in, *start == 't' ? "true" : "false");
    break;
  default:
    value->type = JSON_NUMBER;
    good = json_number(in);
    value->text = (json_text){start, (size_t)(in->at - start)};
  }
  return good ? value : NULL;
}

// The document as a tree, or NULL if it is not JSON.
static inline const json *json_parse(const uint8_t *ptr, size_t len) {
  json_cursor in = {ptr, ptr + len};
  json *value = json_value(&in, 0);
  json_space(&in);
  return in.at == in.end ? value : NULL;
}

#endif
