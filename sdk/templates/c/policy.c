// Caps what each agent spends in a day.
//
// What the host takes away it also frees, so every string of an answer is allocated; nothing else is freed, because an
// instance answers for one decision.

#include <stdlib.h>
#include <string.h>

#include "json.h"
#include "spend_policy.h"

typedef spend_policy_string_t str;
typedef countersign_policy_types_problem_t problem;
typedef countersign_policy_types_decision_t decision;

#define KEY "per-agent-day"

static const char SETTINGS_SCHEMA[] =
    "{\n"
    "  \"$schema\": \"https://json-schema.org/draft/2020-12/schema\",\n"
    "  \"type\": \"object\",\n"
    "  \"properties\": {\n"
    "    \"per-agent-day\": { \"type\": \"string\", \"description\": \"The most an agent may spend in a UTC day, such as 5.00.\" }\n"
    "  },\n"
    "  \"required\": [\"per-agent-day\"],\n"
    "  \"additionalProperties\": false\n"
    "}\n";

// The limit in micros, millionths of the reference currency.
static uint64_t per_agent_day;

static str join(const char *before, str text) {
  size_t len = strlen(before);
  str joined = {malloc(len + text.len + 1), len + text.len};
  if (joined.ptr == NULL) abort();
  memcpy(joined.ptr, before, len);
  if (text.len > 0) memcpy(joined.ptr + len, text.ptr, text.len);
  return joined;
}

static str copy(const char *text) { return join(text, (str){NULL, 0}); }

static void report(exports_countersign_policy_policy_list_problem_t *to, str path, const char *message) {
  to->ptr = realloc(to->ptr, (to->len + 1) * sizeof *to->ptr);
  if (to->ptr == NULL) abort();
  to->ptr[to->len++] = (problem){path, copy(message)};
}

// JSON Pointer, RFC 6901.
static str below(json_text key) {
  str path = {malloc(2 * key.len + 1), 0};
  if (path.ptr == NULL) abort();
  path.ptr[path.len++] = '/';
  for (size_t i = 0; i < key.len; i++) {
    bool special = key.ptr[i] == '~' || key.ptr[i] == '/';
    path.ptr[path.len++] = special ? '~' : key.ptr[i];
    if (special) path.ptr[path.len++] = key.ptr[i] == '~' ? '0' : '1';
  }
  return path;
}

static bool is_digit(uint8_t c) { return c >= '0' && c <= '9'; }

// "5.00" is 5000000. Whole numbers only: digits, then at most a point and six digits.
static bool micros(json_text text, uint64_t *value) {
  size_t at = 0, decimals = 0;
  *value = 0;
  for (; at < text.len && is_digit(text.ptr[at]); at++) *value = *value * 10 + (text.ptr[at] - '0');
  if (at == 0 || at > 9) return false;
  if (at < text.len) {
    if (text.ptr[at++] != '.') return false;
    for (; at < text.len && is_digit(text.ptr[at]); at++, decimals++) *value = *value * 10 + (text.ptr[at] - '0');
    if (at < text.len || decimals == 0 || decimals > 6) return false;
  }
  for (; decimals < 6; decimals++) *value *= 10;
  return true;
}

void exports_countersign_policy_policy_describe(exports_countersign_policy_policy_description_t *ret) {
  ret->name = copy("{{name}}");
  ret->version = copy("0.1.0");
  ret->summary = copy("Caps what each agent spends in a day.");
  ret->settings_schema = copy(SETTINGS_SCHEMA);
}

// False is the error of the WIT's result: every problem with the settings.
bool exports_countersign_policy_policy_configure(str *text, exports_countersign_policy_policy_list_problem_t *err) {
  *err = (exports_countersign_policy_policy_list_problem_t){NULL, 0};
  const json *settings = json_parse(text->ptr, text->len);
  if (settings == NULL || settings->type != JSON_OBJECT) {
    report(err, copy(""), "expected an object");
    return false;
  }
  for (const json *member = settings->first; member != NULL; member = member->next) {
    if (!json_is(member->key, KEY)) report(err, below(member->key), "unknown key");
  }
  const json *limit = json_member(settings, KEY);
  if (limit == NULL || limit->type != JSON_STRING || !micros(limit->text, &per_agent_day)) {
    report(err, copy("/" KEY), "required: an amount as a string such as \"5.00\"");
  }
  return err->len == 0;
}

bool exports_countersign_policy_policy_evaluate(exports_countersign_policy_policy_spend_request_t *request, decision *ret,
                                                str *err) {
  (void)err; // False would be an error, which is a deny.
  uint64_t amount = request->payment.value;
  if (amount == 0) {
    countersign_policy_types_reason_t *reason = malloc(sizeof *reason);
    if (reason == NULL) abort();
    *reason = (countersign_policy_types_reason_t){copy("zero-value"), copy("the payment is worth nothing")};
    *ret = (decision){.verdict = COUNTERSIGN_POLICY_TYPES_VERDICT_DENY, .reasons = {reason, 1}};
    return true;
  }
  str line = join("charging ", request->principal.agent);
  countersign_policy_log_log(COUNTERSIGN_POLICY_LOG_LEVEL_DEBUG, &line);
  // Not a comparison with what was spent: the host reserves this, or refuses the payment.
  countersign_policy_types_hold_t *hold = malloc(sizeof *hold);
  if (hold == NULL) abort();
  *hold = (countersign_policy_types_hold_t){
      .budget = join("agent/", request->principal.agent),
      .unit = COUNTERSIGN_POLICY_TYPES_UNIT_MICROS,
      .window = {.tag = COUNTERSIGN_POLICY_TYPES_WINDOW_DAY, .val.day = copy("UTC")},
      .limit = per_agent_day,
      .amount = amount,
  };
  *ret = (decision){.verdict = COUNTERSIGN_POLICY_TYPES_VERDICT_ALLOW, .holds = {hold, 1}};
  return true;
}
