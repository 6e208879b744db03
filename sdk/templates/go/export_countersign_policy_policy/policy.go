// Package export_countersign_policy_policy caps what each agent spends in a day. The generated bindings fix its name and
// its three functions.
package export_countersign_policy_policy

import (
	"encoding/json"
	"regexp"
	"strconv"
	"strings"

	log "wit_component/countersign_policy_log"
	t "wit_component/countersign_policy_types"

	wit "go.bytecodealliance.org/pkg/wit/types"
)

const key = "per-agent-day"

const settingsSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "per-agent-day": { "type": "string", "description": "The most an agent may spend in a UTC day, such as 5.00." }
  },
  "required": ["per-agent-day"],
  "additionalProperties": false
}
`

// The limit in micros, millionths of the reference currency.
var perAgentDay uint64

func Describe() t.Description {
	return t.Description{
		Name:           "{{name}}",
		Version:        "0.1.0",
		Summary:        "Caps what each agent spends in a day.",
		SettingsSchema: settingsSchema,
	}
}

// Configure takes the settings, or answers every problem with them.
func Configure(text string) wit.Result[wit.Unit, []t.Problem] {
	var settings map[string]any
	if json.Unmarshal([]byte(text), &settings) != nil || settings == nil {
		return wit.Err[wit.Unit]([]t.Problem{{Path: "", Message: "expected an object"}})
	}
	var problems []t.Problem
	for name := range settings {
		if name != key {
			problems = append(problems, t.Problem{Path: below(name), Message: "unknown key"})
		}
	}
	limit, ok := micros(settings[key])
	if !ok {
		problems = append(problems, t.Problem{Path: below(key), Message: `required: an amount as a string such as "5.00"`})
	}
	if len(problems) > 0 {
		return wit.Err[wit.Unit](problems)
	}
	perAgentDay = limit
	return wit.Ok[wit.Unit, []t.Problem](wit.Unit{})
}

func Evaluate(request t.SpendRequest) wit.Result[t.Decision, string] {
	// A zero Option is none.
	amount := request.Payment.Value
	if amount == 0 {
		reason := t.Reason{Code: "zero-value", Message: "the payment is worth nothing"}
		return wit.Ok[t.Decision, string](t.Decision{Verdict: t.VerdictDeny, Reasons: []t.Reason{reason}})
	}
	agent := request.Principal.Agent
	log.Log(log.LevelDebug, "charging "+agent)
	// Not a comparison with what was spent: the host reserves this, or refuses the payment.
	hold := t.Hold{
		Budget: "agent/" + agent,
		Unit:   t.UnitMicros,
		Window: t.MakeWindowDay("UTC"),
		Limit:  perAgentDay,
		Amount: amount,
	}
	return wit.Ok[t.Decision, string](t.Decision{Verdict: t.VerdictAllow, Holds: []t.Hold{hold}})
}

// below is a JSON Pointer, RFC 6901.
func below(key string) string {
	return "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}

var amount = regexp.MustCompile(`^([0-9]{1,9})(?:\.([0-9]{1,6}))?$`)

// micros makes 5000000 of "5.00". Integers only: a float is no amount of money.
func micros(value any) (uint64, bool) {
	text, _ := value.(string)
	found := amount.FindStringSubmatch(text)
	if found == nil {
		return 0, false
	}
	micros, err := strconv.ParseUint(found[1]+found[2]+strings.Repeat("0", 6-len(found[2])), 10, 64)
	return micros, err == nil
}
