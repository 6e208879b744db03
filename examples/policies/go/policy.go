// Package export_countersign_policy_policy is a budget for each client: who may spend, and how much in a day and in a
// month. The generated bindings fix its name and its three functions.
//
// The same policy is beside this one in four other languages; `../conformance.json` says what all of them answer.
package export_countersign_policy_policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	log "wit_component/countersign_policy_log"
	t "wit_component/countersign_policy_types"

	wit "go.bytecodealliance.org/pkg/wit/types"
)

const (
	notAnObject = "expected an object"
	unknownKey  = "unknown key"
	required    = "is required"
	noClients   = "list at least one client"
	noCaps      = "set per-day, per-month or both"
	notAName    = "a client is named by 1 to 100 letters, digits and . _ @ : -"
	notMoney    = `write an amount as a string such as "1.00": digits, then at most a point and six digits, below 9007199254.740992`

	longestName   = 100
	microsPerUnit = 1_000_000
	mostMicros    = 1<<53 - 1
)

const settingsSchema = `{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "properties": {
    "clients": {
      "type": "object",
      "description": "What each client may cost, in UTC days and months. A client that is not listed may not spend.",
      "additionalProperties": {
        "type": "object",
        "properties": {
          "per-day": { "type": "string", "description": "Decimal, such as 5.00." },
          "per-month": { "type": "string", "description": "Decimal, such as 50.00." }
        },
        "additionalProperties": false
      }
    },
    "review-above": { "type": "string", "description": "People are asked about payments worth more than this." }
  },
  "required": ["clients"],
  "additionalProperties": false
}
`

// caps are what one client may cost, in micros; nil: not capped.
type caps struct {
	day, month *uint64
}

// An instance answers for one decision, so the configured policy may live in variables.
var (
	clients     map[string]caps
	reviewAbove *uint64
)

func Describe() t.Description {
	return t.Description{
		Name:           "client-budget-go",
		Version:        "0.1.0",
		Summary:        "Caps what is spent for each client in a day and in a month.",
		SettingsSchema: settingsSchema,
	}
}

// Configure takes the settings, or answers every problem with them.
func Configure(settings string) wit.Result[wit.Unit, []t.Problem] {
	var document any
	if json.Unmarshal([]byte(settings), &document) != nil {
		return wit.Err[wit.Unit]([]t.Problem{{Path: "", Message: "not JSON"}})
	}
	var r reader
	r.settings(document)
	if len(r.problems) == 0 {
		return wit.Ok[wit.Unit, []t.Problem](wit.Unit{})
	}
	slices.SortFunc(r.problems, func(a, b t.Problem) int {
		if order := strings.Compare(a.Path, b.Path); order != 0 {
			return order
		}
		return strings.Compare(a.Message, b.Message)
	})
	return wit.Err[wit.Unit](r.problems)
}

func Evaluate(request t.SpendRequest) wit.Result[t.Decision, string] {
	return wit.Ok[t.Decision, string](judge(request))
}

func judge(request t.SpendRequest) t.Decision {
	if request.Principal.Client.IsNone() {
		return deny("no-client", "spending must be for a client")
	}
	client := request.Principal.Client.Some()
	listed, ok := clients[client]
	if !ok {
		return deny("client-without-budget", fmt.Sprintf("client `%s` has no budget", client))
	}
	value := request.Payment.Value
	if value == 0 {
		return deny("zero-value", "the payment is worth nothing")
	}
	log.Log(log.LevelDebug, fmt.Sprintf("charging client `%s`", client))

	decision := t.Decision{Verdict: t.VerdictAllow, Review: wit.None[t.ReviewTerms]()}
	hold := func(window t.Window, limit *uint64) {
		if limit == nil {
			return
		}
		decision.Holds = append(decision.Holds, t.Hold{
			Budget: "client/" + client, Unit: t.UnitMicros, Window: window, Limit: *limit, Amount: value,
			AlertAt: wit.None[uint64](), ReviewAt: wit.None[uint64](),
		})
	}
	hold(t.MakeWindowDay("UTC"), listed.day)
	hold(t.MakeWindowMonth("UTC"), listed.month)
	if reviewAbove != nil && value > *reviewAbove {
		decision.Verdict = t.VerdictReview
		decision.Reasons = []t.Reason{{
			Code:    "above-review-threshold",
			Message: fmt.Sprintf("the payment of %s is above %s", formatMoney(value), formatMoney(*reviewAbove)),
		}}
		// Quorum and expiry 0: as the operator configured.
		decision.Review = wit.Some(t.ReviewTerms{Group: wit.None[string]()})
	}
	return decision
}

func deny(code, message string) t.Decision {
	return t.Decision{
		Verdict: t.VerdictDeny,
		Reasons: []t.Reason{{Code: code, Message: message}},
		Review:  wit.None[t.ReviewTerms](),
	}
}

// reader reads the settings and collects what is wrong with them.
type reader struct {
	problems []t.Problem
}

func (r *reader) settings(document any) {
	clients = map[string]caps{}
	members, ok := r.object("", document)
	if !ok {
		return
	}
	r.unknown("", members, "clients", "review-above")
	if value, ok := members["clients"]; ok {
		r.clients(value)
	} else {
		r.problem("/clients", required)
	}
	reviewAbove = r.money("", members, "review-above")
}

func (r *reader) clients(value any) {
	listed, ok := r.object("/clients", value)
	if !ok {
		return
	}
	if len(listed) == 0 {
		r.problem("/clients", noClients)
	}
	for name, value := range listed {
		clients[name] = r.client(name, value)
	}
}

func (r *reader) client(name string, value any) caps {
	path := below("/clients", name)
	if !isName(name) {
		r.problem(path, notAName)
	}
	members, ok := r.object(path, value)
	if !ok {
		return caps{}
	}
	r.unknown(path, members, "per-day", "per-month")
	_, day := members["per-day"]
	_, month := members["per-month"]
	if !day && !month {
		r.problem(path, noCaps)
	}
	return caps{r.money(path, members, "per-day"), r.money(path, members, "per-month")}
}

func (r *reader) money(path string, members map[string]any, key string) *uint64 {
	value, ok := members[key]
	if !ok {
		return nil
	}
	text, ok := value.(string)
	if ok {
		if micros, ok := parseMoney(text); ok {
			return &micros
		}
	}
	r.problem(below(path, key), notMoney)
	return nil
}

func (r *reader) object(path string, value any) (map[string]any, bool) {
	members, ok := value.(map[string]any)
	if !ok {
		r.problem(path, notAnObject)
	}
	return members, ok
}

func (r *reader) unknown(path string, members map[string]any, known ...string) {
	for key := range members {
		if !slices.Contains(known, key) {
			r.problem(below(path, key), unknownKey)
		}
	}
}

func (r *reader) problem(path, message string) {
	r.problems = append(r.problems, t.Problem{Path: path, Message: message})
}

// parseMoney is exact: whole micros, never floating point.
func parseMoney(text string) (uint64, bool) {
	whole, fraction, point := strings.Cut(text, ".")
	if !isDigits(whole) || len(whole) > 10 || (len(whole) > 1 && whole[0] == '0') {
		return 0, false
	}
	if point && (!isDigits(fraction) || len(fraction) > 6) {
		return 0, false
	}
	micros := uint64(0)
	for _, digit := range []byte(whole + fraction + strings.Repeat("0", 6-len(fraction))) {
		micros = micros*10 + uint64(digit-'0')
	}
	return micros, micros <= mostMicros
}

// formatMoney writes at least two decimals, and no needless zeros behind.
func formatMoney(micros uint64) string {
	fraction := strings.TrimRight(fmt.Sprintf("%06d", micros%microsPerUnit), "0")
	return fmt.Sprintf("%d.%s%s", micros/microsPerUnit, fraction, strings.Repeat("0", max(0, 2-len(fraction))))
}

func isDigits(text string) bool {
	return text != "" && strings.Trim(text, "0123456789") == ""
}

// isName says whether the host accepts it as part of a budget's name.
func isName(name string) bool {
	for _, c := range []byte(name) {
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		digit := c >= '0' && c <= '9'
		if !letter && !digit && !strings.ContainsRune("._@:-", rune(c)) {
			return false
		}
	}
	return 1 <= len(name) && len(name) <= longestName
}

// below is a JSON Pointer, RFC 6901.
func below(path, key string) string {
	return path + "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
