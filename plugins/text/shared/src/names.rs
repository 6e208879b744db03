//! A request under the names that rules use: those of the WIT in snake_case, in every language.

use countersign_sdk::{Attribute, Commitment, SpendRequest, Tally};

use crate::text::meant;

/// A value of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Node<'r> {
    /// A string.
    Text(&'r str),
    /// A whole number; money is in micros.
    Number(u64),
    /// True or false.
    Flag(bool),
    /// A list of strings.
    Texts(&'r [String]),
    /// Values by names that nobody can know beforehand. Of two with one name the first counts.
    Attributes(&'r [Attribute]),
    /// Values by name; nothing for an option that is not set.
    Record(Vec<(&'static str, Option<Node<'r>>)>),
}

/// What a request consists of.
pub const SECTIONS: [&str; 10] =
    ["id", "purchase_id", "at", "principal", "purchase", "seller", "payment", "history", "claims", "facts"];

/// One of [`SECTIONS`].
#[must_use]
pub fn section<'r>(request: &'r SpendRequest, name: &str) -> Option<Node<'r>> {
    Some(match name {
        "id" => Node::Text(&request.id),
        "purchase_id" => Node::Text(&request.purchase_id),
        "at" => Node::Number(request.at),
        "principal" => principal(request),
        "purchase" => purchase(request),
        "seller" => seller(request),
        "payment" => payment(request),
        "history" => history(request),
        "claims" => Node::Attributes(&request.claims),
        "facts" => Node::Attributes(&request.facts),
        _ => return None,
    })
}

fn text(text: &str) -> Option<Node<'_>> {
    Some(Node::Text(text))
}

fn option(text: Option<&String>) -> Option<Node<'_>> {
    text.map(|text| Node::Text(text))
}

fn number<'r>(number: impl Into<u64>) -> Option<Node<'r>> {
    Some(Node::Number(number.into()))
}

fn principal(request: &SpendRequest) -> Node<'_> {
    let principal = &request.principal;
    Node::Record(vec![
        ("agent", text(&principal.agent)),
        ("user", option(principal.user.as_ref())),
        ("workspace", option(principal.workspace.as_ref())),
        ("roles", Some(Node::Texts(&principal.roles))),
        ("session", option(principal.session.as_ref())),
        ("client", option(principal.client.as_ref())),
        ("project", option(principal.project.as_ref())),
        ("task", option(principal.task.as_ref())),
    ])
}

fn purchase(request: &SpendRequest) -> Node<'_> {
    let purchase = &request.purchase;
    Node::Record(vec![
        ("method", text(&purchase.method)),
        ("url", text(&purchase.url)),
        ("host", text(&purchase.host)),
        ("path", text(&purchase.path)),
        ("query_digest", option(purchase.query_digest.as_ref())),
        ("body_digest", option(purchase.body_digest.as_ref())),
        ("observed", Some(Node::Flag(purchase.observed))),
        ("description", option(purchase.description.as_ref())),
        ("media_type", option(purchase.media_type.as_ref())),
        ("category", option(purchase.category.as_ref())),
    ])
}

fn seller(request: &SpendRequest) -> Node<'_> {
    let seller = &request.seller;
    Node::Record(vec![
        ("host", text(&seller.host)),
        ("pay_to", text(&seller.pay_to)),
        ("host_first_paid", seller.host_first_paid.map(Node::Number)),
        ("pay_to_first_paid", seller.pay_to_first_paid.map(Node::Number)),
        ("pay_to_changed", Some(Node::Flag(seller.pay_to_changed))),
        ("last_price", seller.last_price.map(Node::Number)),
        ("judged", number(seller.judged)),
        ("useful", number(seller.useful)),
    ])
}

fn payment(request: &SpendRequest) -> Node<'_> {
    let payment = &request.payment;
    let commitment = match payment.commitment {
        Commitment::Fixed => "fixed",
        Commitment::Ceiling => "ceiling",
        Commitment::Deposit => "deposit",
        Commitment::Recurring => "recurring",
    };
    Node::Record(vec![
        ("rail", text(&payment.rail)),
        ("scheme", text(&payment.scheme)),
        ("commitment", text(commitment)),
        ("network", text(&payment.network)),
        ("asset", text(&payment.asset)),
        ("asset_symbol", text(&payment.asset_symbol)),
        ("asset_decimals", number(payment.asset_decimals)),
        ("amount", text(&payment.amount)),
        ("value", number(payment.value)),
        ("valid_for_seconds", number(payment.valid_for_seconds)),
        ("wallet", text(&payment.wallet)),
    ])
}

fn history(request: &SpendRequest) -> Node<'_> {
    let history = &request.history;
    let tally =
        |tally: &Tally| Some(Node::Record(vec![("count", number(tally.count)), ("value", number(tally.value))]));
    Node::Record(vec![
        ("agent_hour", tally(&history.agent_hour)),
        ("agent_day", tally(&history.agent_day)),
        ("session", tally(&history.session)),
        ("seller_day", tally(&history.seller_day)),
        ("seller_lifetime", tally(&history.seller_lifetime)),
        ("repeats", number(history.repeats)),
    ])
}

/// The value at a path such as `["payment", "value"]`, if the request has it.
#[must_use]
pub fn find<'r>(request: &'r SpendRequest, path: &[&str]) -> Option<Node<'r>> {
    let (first, rest) = path.split_first()?;
    rest.iter().try_fold(section(request, first)?, |node, step| match node {
        Node::Record(members) => members.into_iter().find(|(name, _)| name == step)?.1,
        Node::Attributes(all) => {
            all.iter().find(|attribute| attribute.name == *step).map(|attribute| Node::Text(&attribute.value))
        }
        Node::Text(_) | Node::Number(_) | Node::Flag(_) | Node::Texts(_) => None,
    })
}

/// Whether a request can have what a rule asks for, such as `["payment", "value"]`. A slip in a name is
/// a value that is never there, and in some languages that is a rule that silently never applies.
///
/// # Errors
/// Which step is unknown, and what is there.
pub fn check(sample: &SpendRequest, path: &[&str]) -> Result<(), String> {
    let Some((first, rest)) = path.split_first() else { return Ok(()) };
    let mut node = section(sample, first).ok_or_else(|| unknown(first, "a request", SECTIONS.into_iter()))?;
    let mut name = String::from(*first);
    for step in rest {
        match node {
            Node::Record(members) => {
                let names: Vec<&str> = members.iter().map(|(name, _)| *name).collect();
                let found = members.into_iter().find(|(name, _)| name == step).and_then(|(_, node)| node);
                node = found.ok_or_else(|| unknown(step, &format!("`{name}`"), names.into_iter()))?;
            }
            Node::Attributes(_) => return Ok(()),
            Node::Text(_) | Node::Number(_) | Node::Flag(_) | Node::Texts(_) => {
                return Err(format!("`{name}` has no `{step}`: it is one value"));
            }
        }
        name = format!("{name}.{step}");
    }
    Ok(())
}

fn unknown<'k>(step: &str, of: &str, known: impl Iterator<Item = &'k str> + Clone) -> String {
    let hint = meant(step, known.clone()).map(|known| format!("; did you mean `{known}`?"));
    let all = || format!("; it has {}", known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "));
    format!("{of} has no `{}`{}", step.escape_debug(), hint.unwrap_or_else(all))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::full_request;

    #[test]
    fn every_section_is_there() {
        let request = full_request();
        assert!(SECTIONS.iter().all(|name| section(&request, name).is_some()));
        assert_eq!(section(&request, "input"), None);
    }

    #[test]
    fn the_sample_has_everything() {
        fn complete(node: &Node<'_>) -> bool {
            match node {
                Node::Record(members) => members.iter().all(|(_, node)| node.as_ref().is_some_and(complete)),
                _ => true,
            }
        }
        let request = full_request();
        assert!(SECTIONS.iter().filter_map(|name| section(&request, name)).all(|node| complete(&node)));
    }

    #[test]
    fn slips_are_found() {
        let check = |path: &str| check(&full_request(), &path.split('.').collect::<Vec<_>>());
        for good in ["payment", "payment.value", "history.agent_day.count", "facts.anything", "principal.roles", "at"] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("paymnet.value", "a request has no `paymnet`; did you mean `payment`?"),
            ("payment.vlaue", "`payment` has no `vlaue`; did you mean `value`?"),
            ("history.agent_day.total", "`history.agent_day` has no `total`; it has `count`, `value`"),
            ("payment.value.micros", "`payment.value` has no `micros`: it is one value"),
            ("principal.roles.first", "`principal.roles` has no `first`: it is one value"),
        ] {
            assert_eq!(check(bad).unwrap_err(), why);
        }
    }
}
