//! Gives every client a budget, and its projects and tasks theirs: what is for nobody, or for a client
//! without a budget, is not bought.
//!
//! - **Settings** ([`Settings`]): `clients`, each with at least one of `per-day`, `per-month` and
//!   `lifetime`, and optionally `projects` and `tasks` with budgets of the same form. `per-task` is the
//!   budget of every task that has none of its own. `require-project` refuses what is for no project.
//! - **Verdict**: *allow* when content, provided the host can place the holds; else *deny*.
//! - **Holds**: one for every cap, of the payment's value. `alert` and `review` go with the widest cap
//!   of their budget: lifetime, else month, else day.
//!
//! | budget of | path |
//! |---|---|
//! | a client | `client/<client>` |
//! | its project | `client/<client>/project/<project>` |
//! | its task | `client/<client>/task/<task>` |
//!
//! | code | when |
//! |---|---|
//! | `zero-value` | the payment is worth nothing, so no budget can be charged with it |
//! | `no-client` | the payment is for no client |
//! | `client-without-budget` | the client is not in `clients` |
//! | `no-project` | the payment is for no project, and `require-project` is set or the client lists `projects` |
//! | `project-without-budget` | the client lists `projects`, and this is none of them |
//! | `no-task` | the payment is for no task, and `per-task` is set or the client lists `tasks` |
//! | `task-without-budget` | the client lists `tasks`, this is none of them, and there is no `per-task` |
//!
//! Client, project and task are the session's, never what the agent says. A budget that is used up is
//! the host's refusal, `budget-exceeded`.

use std::collections::BTreeMap;

use countersign_sdk::{
    Decision, Hold, Money, Name, Policy, Problem, Reason, SpendRequest, Verdict, Window, ZoneName, budget_path,
    export_policy,
};
use serde::Deserialize;

/// Whose budgets there are.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Settings {
    /// The clients that have a budget.
    pub clients: BTreeMap<Name, ClientSettings>,
    /// What any one task may cost that has no budget of its own.
    pub per_task: Option<Money>,
    /// Whether every payment must be for a project.
    #[serde(default)]
    pub require_project: bool,
    /// IANA time zone of days and months; UTC if left out.
    pub timezone: Option<ZoneName>,
}

/// A client's budget, and those of its projects and tasks.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ClientSettings {
    /// The most in a calendar day.
    pub per_day: Option<Money>,
    /// The most in a calendar month.
    pub per_month: Option<Money>,
    /// The most ever.
    pub lifetime: Option<Money>,
    /// Reaching this tells operators, once per span of the widest cap.
    pub alert: Option<Money>,
    /// From this on people are asked.
    pub review: Option<Money>,
    /// Its projects: no other may be paid for. Any, without a budget of its own, if left out.
    pub projects: Option<BTreeMap<Name, BudgetSettings>>,
    /// Its tasks that have a budget of their own.
    pub tasks: Option<BTreeMap<Name, BudgetSettings>>,
}

/// The budget of a project or task.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct BudgetSettings {
    /// The most in a calendar day.
    pub per_day: Option<Money>,
    /// The most in a calendar month.
    pub per_month: Option<Money>,
    /// The most ever.
    pub lifetime: Option<Money>,
    /// Reaching this tells operators, once per span of the widest cap.
    pub alert: Option<Money>,
    /// From this on people are asked.
    pub review: Option<Money>,
}

/// The configured policy.
#[derive(Debug)]
pub struct ClientBudget {
    clients: BTreeMap<Name, Client>,
    per_task: Option<Budget>,
    require_project: bool,
}

#[derive(Debug)]
struct Client {
    budget: Budget,
    projects: Option<BTreeMap<Name, Budget>>,
    tasks: Option<BTreeMap<Name, Budget>>,
}

/// The caps of one budget, widest first.
#[derive(Debug)]
struct Budget(Vec<Cap>);

#[derive(Debug)]
struct Cap {
    window: Window,
    limit: Money,
    alert: Option<Money>,
    review: Option<Money>,
}

impl Policy for ClientBudget {
    type Settings = Settings;
    const NAME: &'static str = "client-budget";
    const VERSION: &'static str = env!("CARGO_PKG_VERSION");
    const SUMMARY: &'static str = "Caps what each client, project and task may cost; nothing is bought for any other.";

    fn settings_schema() -> &'static str {
        include_str!("../settings.schema.json")
    }

    fn configure(settings: Settings) -> Result<Self, Vec<Problem>> {
        let zone = settings.timezone.unwrap_or_default();
        let mut reader = Reader { zone: &zone, problems: Vec::new() };
        if settings.clients.is_empty() {
            reader.problem("/clients", "list at least one client: with none, nothing could be bought");
        }
        let clients = settings.clients.into_iter().map(|(name, client)| reader.client(name, client)).collect();
        let per_task = settings.per_task.map(Budget::lifetime);
        let policy = Self { clients, per_task, require_project: settings.require_project };
        if reader.problems.is_empty() { Ok(policy) } else { Err(reader.problems) }
    }

    fn evaluate(&self, request: &SpendRequest) -> Result<Decision, String> {
        let mut bill = Bill { value: request.value(), reasons: Vec::new(), holds: Vec::new() };
        if bill.value == Money::ZERO {
            bill.object("zero-value", "the payment is worth nothing");
        }
        match present(request.principal.client.as_ref()) {
            None => bill.object("no-client", "the payment is for no client"),
            Some(name) => match self.clients.get(name) {
                None => bill.object("client-without-budget", format!("the client {name} has no budget")),
                Some(client) => self.charge(request, name, client, &mut bill),
            },
        }
        Ok(if bill.reasons.is_empty() {
            Decision::allow().holds(bill.holds)
        } else {
            Decision::new(Verdict::Deny).reasons(bill.reasons)
        })
    }
}

impl ClientBudget {
    fn charge(&self, request: &SpendRequest, name: &str, client: &Client, bill: &mut Bill) {
        bill.charge(&["client", name], &client.budget);
        let project = present(request.principal.project.as_ref());
        match (project, &client.projects) {
            (None, None) if !self.require_project => {}
            (None, _) => bill.object("no-project", "the payment is for no project"),
            (Some(_), None) => {}
            (Some(project), Some(projects)) => match projects.get(project) {
                Some(budget) => bill.charge(&["client", name, "project", project], budget),
                None => bill.object(
                    "project-without-budget",
                    format!("the project {project} has no budget of the client {name}"),
                ),
            },
        }
        let task = present(request.principal.task.as_ref());
        match (task, &client.tasks, &self.per_task) {
            (_, None, None) => {}
            (None, _, _) => bill.object("no-task", "spending is capped per task and this payment is for none"),
            (Some(task), tasks, default) => {
                match tasks.as_ref().and_then(|tasks| tasks.get(task)).or(default.as_ref()) {
                    Some(budget) => bill.charge(&["client", name, "task", task], budget),
                    None => bill
                        .object("task-without-budget", format!("the task {task} has no budget of the client {name}")),
                }
            }
        }
    }
}

/// A name that is empty names nobody.
fn present(name: Option<&String>) -> Option<&str> {
    name.map(String::as_str).filter(|name| !name.is_empty())
}

impl Budget {
    fn lifetime(limit: Money) -> Self {
        Self(vec![Cap { window: Window::lifetime(), limit, alert: None, review: None }])
    }
}

/// What one payment is charged to, and what speaks against it.
struct Bill {
    value: Money,
    reasons: Vec<Reason>,
    holds: Vec<Hold>,
}

impl Bill {
    fn object(&mut self, code: &str, message: impl Into<String>) {
        self.reasons.push(Reason::new(code, message));
    }

    fn charge(&mut self, path: &[&str], budget: &Budget) {
        let path = budget_path(path.iter().copied());
        for cap in &budget.0 {
            let mut hold = Hold::micros(path.as_str(), cap.window.clone(), cap.limit, self.value);
            hold.alert_at = cap.alert.map(Money::micros);
            hold.review_at = cap.review.map(Money::micros);
            self.holds.push(hold);
        }
    }
}

/// Turns settings into budgets and keeps what is wrong with them.
struct Reader<'z> {
    zone: &'z ZoneName,
    problems: Vec<Problem>,
}

impl Reader<'_> {
    fn problem(&mut self, path: &str, message: impl Into<String>) {
        self.problems.push(Problem::at(path, message));
    }

    fn client(&mut self, name: Name, client: ClientSettings) -> (Name, Client) {
        let ClientSettings { per_day, per_month, lifetime, alert, review, projects, tasks } = client;
        let place = format!("/clients/{name}");
        let budget = self.budget(&place, &BudgetSettings { per_day, per_month, lifetime, alert, review });
        let projects = self.budgets(&place, "projects", projects);
        let tasks = self.budgets(&place, "tasks", tasks);
        (name, Client { budget, projects, tasks })
    }

    fn budgets(
        &mut self,
        client: &str,
        key: &str,
        listed: Option<BTreeMap<Name, BudgetSettings>>,
    ) -> Option<BTreeMap<Name, Budget>> {
        let listed = listed?;
        let place = format!("{client}/{key}");
        if listed.is_empty() {
            self.problem(&place, "list at least one, or leave the key out");
        }
        let read = |(name, settings)| {
            let budget = self.budget(&format!("{place}/{name}"), &settings);
            (name, budget)
        };
        Some(listed.into_iter().map(read).collect())
    }

    fn budget(&mut self, place: &str, settings: &BudgetSettings) -> Budget {
        let caps = [
            (Window::lifetime(), settings.lifetime),
            (Window::month(self.zone), settings.per_month),
            (Window::day(self.zone), settings.per_day),
        ];
        let mut caps: Vec<Cap> = caps
            .into_iter()
            .filter_map(|(window, limit)| limit.map(|limit| Cap { window, limit, alert: None, review: None }))
            .collect();
        let Some(widest) = caps.first_mut() else {
            self.problem(place, "set at least one of `per-day`, `per-month`, `lifetime`");
            return Budget(caps);
        };
        for (key, level) in [("alert", settings.alert), ("review", settings.review)] {
            if let Some(level) = level.filter(|level| *level > widest.limit) {
                let message = format!("{level} is above the widest cap of {}: it would never be reached", widest.limit);
                self.problem(&format!("{place}/{key}"), message);
            }
        }
        widest.alert = settings.alert;
        widest.review = settings.review;
        Budget(caps)
    }
}

export_policy!(ClientBudget);

#[cfg(test)]
mod tests {
    use countersign_sdk::testing::{Harness, RequestBuilder, assert_schema_agrees, json, problems, request, run_cases};

    use super::*;

    #[test]
    fn cases() {
        run_cases::<ClientBudget>(include_str!("../cases.json"));
    }

    #[test]
    fn schema() {
        assert_schema_agrees::<ClientBudget>();
    }

    fn for_client(client: &str) -> RequestBuilder {
        request().client(client)
    }

    #[test]
    fn a_budget_is_the_hosts_arithmetic() {
        // One micro under, at and above the limit are all allowed here; the hold says what may be.
        let policy = Harness::<ClientBudget>::new(json!({ "clients": { "acme": { "per-day": "1.00" } } }));
        for micros in [999_999, 1_000_000, 1_000_001] {
            let outcome = policy.evaluate(&for_client("acme").micros(micros));
            let hold = outcome.assert_allows().hold("client/acme").clone();
            assert_eq!((hold.limit, hold.amount), (1_000_000, micros));
        }
        policy.evaluate(&for_client("acme").micros(0)).assert_codes(&["zero-value"]).assert_no_holds();
        policy.evaluate(&for_client("acme").micros(1)).assert_allows();
    }

    #[test]
    fn no_two_principals_share_a_budget() {
        let budget = json!({ "per-day": "1.00" });
        let policy = Harness::<ClientBudget>::new(json!({
            "per-task": "1.00",
            "clients": {
                "acme": { "per-day": "1.00", "projects": { "task": budget, "x": budget } },
                "task": { "per-day": "1.00", "projects": { "task": budget, "x": budget } },
                "acme.project": { "per-day": "1.00", "projects": { "task": budget, "x": budget } }
            }
        }));
        let mut whose = BTreeMap::new();
        for client in ["acme", "task", "acme.project"] {
            for project in ["task", "x"] {
                for task in ["task", "x", "x/y", "x@2fy", "project/x"] {
                    let outcome = policy.evaluate(&for_client(client).project(project).task(task));
                    outcome.assert_allows();
                    let owners = [vec![client], vec![client, "project", project], vec![client, "task", task]];
                    assert_eq!(outcome.holds().len(), owners.len());
                    for (hold, owner) in outcome.holds().iter().zip(owners) {
                        assert_eq!(*whose.entry(hold.budget.clone()).or_insert(owner.clone()), owner);
                    }
                }
            }
        }
        assert_eq!(whose.len(), 3 + 3 * 2 + 3 * 5);
    }

    #[test]
    fn what_the_agent_says_names_no_client() {
        let policy = Harness::<ClientBudget>::new(json!({ "clients": { "acme": { "per-day": "1.00" } } }));
        policy.evaluate(&request().claim("client", "acme").claim("task", "t")).assert_codes(&["no-client"]);
        policy.evaluate(&for_client("")).assert_codes(&["no-client"]);
        policy.evaluate(&for_client("acme.")).assert_codes(&["client-without-budget"]);
    }

    #[test]
    fn a_scope_that_is_empty_is_absent() {
        let policy = Harness::<ClientBudget>::new(json!({
            "clients": { "acme": { "per-day": "1.00" } }, "per-task": "1.00", "require-project": true
        }));
        policy.evaluate(&for_client("acme").project("").task("")).assert_codes(&["no-project", "no-task"]);
    }

    #[test]
    fn thresholds_go_with_the_widest_cap() {
        for (caps, widest) in [
            (json!({ "per-day": "5", "per-month": "50", "lifetime": "500" }), Window::lifetime()),
            (json!({ "per-day": "5", "per-month": "50" }), Window::month("UTC")),
            (json!({ "per-day": "5" }), Window::day("UTC")),
        ] {
            let mut client = caps;
            client["alert"] = json!("4");
            client["review"] = json!("4.5");
            let policy = Harness::<ClientBudget>::new(json!({ "clients": { "acme": client } }));
            let outcome = policy.evaluate(&for_client("acme"));
            for hold in outcome.holds() {
                let levels = (hold.alert_at, hold.review_at);
                let expected = if hold.window == widest { (Some(4_000_000), Some(4_500_000)) } else { (None, None) };
                assert_eq!(levels, expected, "{:?}", hold.window);
            }
        }
    }

    #[test]
    fn a_threshold_at_the_cap_can_be_reached_and_one_above_cannot() {
        let with = |level: &str| {
            let client = json!({ "per-day": "1.00", "alert": level, "review": level });
            let found = problems::<ClientBudget>(json!({ "clients": { "acme": client } }));
            found.into_iter().map(|problem| problem.path).collect::<Vec<_>>()
        };
        assert!(with("1.00").is_empty());
        assert_eq!(with("1.000001"), ["/clients/acme/alert", "/clients/acme/review"]);
    }

    #[test]
    fn every_problem_is_reported() {
        let found = problems::<ClientBudget>(json!({
            "clients": {
                "acme": { "projects": {}, "tasks": { "t-1": {}, "t-2": { "lifetime": "1", "alert": "2" } } },
                "globex": {}
            }
        }));
        let paths: Vec<&str> = found.iter().map(|problem| problem.path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "/clients/acme",
                "/clients/acme/projects",
                "/clients/acme/tasks/t-1",
                "/clients/acme/tasks/t-2/alert",
                "/clients/globex"
            ]
        );
    }
}
