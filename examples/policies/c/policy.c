// A budget for each client: who may spend, and how much in a day and in a month.
//
// The same policy is beside this one in four other languages; `../conformance.json` says what all of them answer.
// What the host takes away it also frees, so every string of an answer is allocated; nothing else is freed, because an
// instance answers for one decision.

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "spend_policy.h"

typedef spend_policy_string_t str;
typedef countersign_policy_types_problem_t problem;
typedef countersign_policy_types_hold_t hold;
typedef countersign_policy_types_decision_t decision;

#define STR(literal) ((str){(uint8_t *)(literal), sizeof(literal) - 1})

#define NOT_AN_OBJECT STR("expected an object")
#define UNKNOWN_KEY STR("unknown key")
#define REQUIRED STR("is required")
#define NO_CLIENTS STR("list at least one client")
#define NO_CAPS STR("set per-day, per-month or both")
#define NOT_A_NAME STR("a client is named by 1 to 100 letters, digits and . _ @ : -")
#define NOT_MONEY \
  STR("write an amount as a string such as \"1.00\": digits, then at most a point and six digits, " \
      "below 9007199254.740992")

#define LONGEST_NAME 100
#define MICROS_PER_UNIT 1000000u
#define MOST_MICROS 9007199254740991u

static const char SETTINGS_SCHEMA[] =
  "{\n"
  "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
  "  \"type\": \"object\",\n"
  "  \"properties\": {\n"
  "    \"clients\": {\n"
  "      \"type\": \"object\",\n"
  "      \"description\": \"What each client may cost, in UTC days and months. A client that is not listed may not spend.\",\n"
  "      \"additionalProperties\": {\n"
  "        \"type\": \"object\",\n"
  "        \"properties\": {\n"
  "          \"per-day\": { \"type\": \"string\", \"description\": \"Decimal, such as 5.00.\" },\n"
  "          \"per-month\": { \"type\": \"string\", \"description\": \"Decimal, such as 50.00.\" }\n"
  "        },\n"
  "        \"additionalProperties\": false\n"
  "      }\n"
  "    },\n"
  "    \"review-above\": { \"type\": \"string\", \"description\": \"People are asked about payments worth more than this.\" }\n"
  "  },\n"
  "  \"required\": [\"clients\"],\n"
  "  \"additionalProperties\": false\n"
  "}\n";

typedef struct {
  bool is_set;
  uint64_t micros;
} money;

typedef struct {
  str name;
  money day, month;
} client;

static client *clients;
static size_t client_count;
static money review_above;

static problem *problems;
static size_t problem_count;

// --- strings

static void *allocate(size_t count, size_t size) {
  void *memory = calloc(count == 0 ? 1 : count, size);
  if (memory == NULL) abort();
  return memory;
}

// The strings after each other, allocated.
static str join(int count, ...) {
  va_list parts;
  size_t len = 0;
  va_start(parts, count);
  for (int i = 0; i < count; i++) len += va_arg(parts, str).len;
  va_end(parts);
  str joined = {allocate(len, 1), 0};
  va_start(parts, count);
  for (int i = 0; i < count; i++) {
    str part = va_arg(parts, str);
    if (part.len > 0) memcpy(joined.ptr + joined.len, part.ptr, part.len);
    joined.len += part.len;
  }
  va_end(parts);
  return joined;
}

static str copy(str text) { return join(1, text); }

static int compare(str a, str b) {
  size_t shorter = a.len < b.len ? a.len : b.len;
  int order = shorter == 0 ? 0 : memcmp(a.ptr, b.ptr, shorter);
  return order != 0 ? order : a.len < b.len ? -1 : a.len > b.len;
}

static str text_of(json_text text) { return (str){(uint8_t *)text.ptr, text.len}; }

// JSON Pointer, RFC 6901.
static str below(str path, str key) {
  str escaped = {allocate(2 * key.len, 1), 0};
  for (size_t i = 0; i < key.len; i++) {
    uint8_t c = key.ptr[i];
    escaped.ptr[escaped.len++] = c == '~' || c == '/' ? '~' : c;
    if (c == '~' || c == '/') escaped.ptr[escaped.len++] = c == '~' ? '0' : '1';
  }
  return join(3, path, STR("/"), escaped);
}

// --- money: whole micros, never floating point

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

static bool parse_money(str text, uint64_t *micros) {
  size_t at = 0, decimals = 0;
  uint64_t value = 0;
  for (; at < text.len && is_digit(text.ptr[at]); at++) {
    if (at == 10) return false;
    value = value * 10 + (text.ptr[at] - '0');
  }
  if (at == 0 || (at > 1 && text.ptr[0] == '0')) return false;
  if (at < text.len) {
    if (text.ptr[at++] != '.') return false;
    for (; at < text.len && is_digit(text.ptr[at]); at++, decimals++) {
      if (decimals == 6) return false;
      value = value * 10 + (text.ptr[at] - '0');
    }
    if (decimals == 0 || at < text.len) return false;
  }
  for (; decimals < 6; decimals++) value *= 10;
  *micros = value;
  return value <= MOST_MICROS;
}

// At least two decimals, no needless zeros behind.
static str format_money(uint64_t micros) {
  uint8_t digits[24];
  size_t at = sizeof digits, decimals = 6;
  while (decimals > 2 && micros % 10 == 0) {
    micros /= 10;
    decimals--;
  }
  for (size_t written = 0; written <= decimals || micros > 0; written++) {
    if (written == decimals) digits[--at] = '.';
    digits[--at] = (uint8_t)('0' + micros % 10);
    micros /= 10;
  }
  return copy((str){digits + at, sizeof digits - at});
}

// --- settings

static void report(str path, str message) {
  problems = realloc(problems, (problem_count + 1) * sizeof *problems);
  if (problems == NULL) abort();
  problems[problem_count++] = (problem){copy(path), copy(message)};
}

static int by_path(const void *left, const void *right) {
  const problem *a = left, *b = right;
  int order = compare(a->path, b->path);
  return order != 0 ? order : compare(a->message, b->message);
}

static bool is_object(str path, const json *value) {
  if (value->type == JSON_OBJECT) return true;
  report(path, NOT_AN_OBJECT);
  return false;
}

static void report_unknown(str path, const json *object, const char *known, const char *also_known) {
  for (const json *member = object->first; member != NULL; member = member->next) {
    if (json_is(member->key, known) || json_is(member->key, also_known)) continue;
    report(below(path, text_of(member->key)), UNKNOWN_KEY);
  }
}

static money read_money(str path, const json *object, const char *key) {
  const json *value = json_member(object, key);
  money read = {false, 0};
  if (value == NULL) return read;
  read.is_set = value->type == JSON_STRING && parse_money(text_of(value->text), &read.micros);
  if (!read.is_set) report(below(path, (str){(uint8_t *)key, strlen(key)}), NOT_MONEY);
  return read;
}

// What the host accepts as part of a budget's name.
static bool is_name(str name) {
  for (size_t i = 0; i < name.len; i++) {
    uint8_t c = name.ptr[i];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    if (!letter && !is_digit(c) && (c == 0 || strchr("._@:-", c) == NULL)) return false;
  }
  return name.len >= 1 && name.len <= LONGEST_NAME;
}

static client read_client(const json *value) {
  client read = {.name = text_of(value->key)};
  str path = below(STR("/clients"), read.name);
  if (!is_name(read.name)) report(path, NOT_A_NAME);
  if (!is_object(path, value)) return read;
  report_unknown(path, value, "per-day", "per-month");
  if (json_member(value, "per-day") == NULL && json_member(value, "per-month") == NULL) report(path, NO_CAPS);
  read.day = read_money(path, value, "per-day");
  read.month = read_money(path, value, "per-month");
  return read;
}

static void read_clients(const json *value) {
  if (!is_object(STR("/clients"), value)) return;
  if (value->first == NULL) report(STR("/clients"), NO_CLIENTS);
  for (const json *member = value->first; member != NULL; member = member->next) client_count++;
  clients = allocate(client_count, sizeof *clients);
  size_t i = 0;
  for (const json *member = value->first; member != NULL; member = member->next) clients[i++] = read_client(member);
}

static void read_settings(const json *settings) {
  if (!is_object(STR(""), settings)) return;
  report_unknown(STR(""), settings, "clients", "review-above");
  const json *listed = json_member(settings, "clients");
  if (listed == NULL) report(STR("/clients"), REQUIRED);
  else read_clients(listed);
  review_above = read_money(STR(""), settings, "review-above");
}

// --- the three functions of the contract

void exports_countersign_policy_policy_describe(exports_countersign_policy_policy_description_t *ret) {
  ret->name = copy(STR("client-budget-c"));
  ret->version = copy(STR("0.1.0"));
  ret->summary = copy(STR("Caps what is spent for each client in a day and in a month."));
  ret->settings_schema = copy(STR(SETTINGS_SCHEMA));
}

// False is the `err` of the result: every problem with the settings.
bool exports_countersign_policy_policy_configure(str *text, exports_countersign_policy_policy_list_problem_t *err) {
  const json *settings = json_parse(text->ptr, text->len);
  if (settings == NULL) report(STR(""), STR("not JSON"));
  else read_settings(settings);
  if (problem_count == 0) return true;
  qsort(problems, problem_count, sizeof *problems, by_path);
  *err = (exports_countersign_policy_policy_list_problem_t){problems, problem_count};
  return false;
}

static void because(decision *ret, str code, str message) {
  countersign_policy_types_reason_t *reason = allocate(1, sizeof *reason);
  *reason = (countersign_policy_types_reason_t){copy(code), message};
  ret->reasons = (countersign_policy_types_list_reason_t){reason, 1};
}

static bool deny(decision *ret, str code, str message) {
  *ret = (decision){.verdict = COUNTERSIGN_POLICY_TYPES_VERDICT_DENY};
  because(ret, code, message);
  return true;
}

static hold hold_of(str name, uint8_t window, uint64_t limit, uint64_t amount) {
  hold held = {.budget = join(2, STR("client/"), name), .limit = limit, .amount = amount};
  held.unit = COUNTERSIGN_POLICY_TYPES_UNIT_MICROS;
  held.window.tag = window;
  // Where a day and a month keep their time zone is the same place.
  held.window.val.day = copy(STR("UTC"));
  return held;
}

bool exports_countersign_policy_policy_evaluate(exports_countersign_policy_policy_spend_request_t *request, decision *ret,
                                                str *err) {
  (void)err;
  if (!request->principal.client.is_some) {
    return deny(ret, STR("no-client"), copy(STR("spending must be for a client")));
  }
  str name = request->principal.client.val;
  const client *listed = NULL;
  for (size_t i = 0; i < client_count; i++) {
    if (compare(clients[i].name, name) == 0) listed = &clients[i];
  }
  if (listed == NULL) {
    return deny(ret, STR("client-without-budget"), join(3, STR("client `"), name, STR("` has no budget")));
  }
  uint64_t value = request->payment.value;
  if (value == 0) return deny(ret, STR("zero-value"), copy(STR("the payment is worth nothing")));

  str line = join(3, STR("charging client `"), name, STR("`"));
  countersign_policy_log_log(COUNTERSIGN_POLICY_LOG_LEVEL_DEBUG, &line);
  *ret = (decision){.verdict = COUNTERSIGN_POLICY_TYPES_VERDICT_ALLOW};
  ret->holds.ptr = allocate(2, sizeof(hold));
  if (listed->day.is_set) {
    ret->holds.ptr[ret->holds.len++] = hold_of(name, COUNTERSIGN_POLICY_TYPES_WINDOW_DAY, listed->day.micros, value);
  }
  if (listed->month.is_set) {
    ret->holds.ptr[ret->holds.len++] = hold_of(name, COUNTERSIGN_POLICY_TYPES_WINDOW_MONTH, listed->month.micros, value);
  }
  if (review_above.is_set && value > review_above.micros) {
    ret->verdict = COUNTERSIGN_POLICY_TYPES_VERDICT_REVIEW;
    // All zero: no group, quorum and expiry as the operator configured.
    ret->review.is_some = true;
    because(ret, STR("above-review-threshold"),
            join(4, STR("the payment of "), format_money(value), STR(" is above "), format_money(review_above.micros)));
  }
  return true;
}
