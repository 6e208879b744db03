//! A request as Cedar sees it: a principal, an action, a resource, a context. `schema.cedarschema` says what they have.

use std::collections::{HashMap, HashSet};

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
use countersign_sdk::{Attribute, SpendRequest};
use rules_as_text::names::{self, Node};

/// The names that are the same for every request.
#[derive(Debug)]
pub(crate) struct World {
    agent: EntityTypeName,
    vendor: EntityTypeName,
    pay: EntityUid,
    facts: EntityUid,
    claims: EntityUid,
}

impl World {
    pub(crate) fn new() -> Result<Self, String> {
        let name = |name: &str| name.parse::<EntityTypeName>().map_err(|error| error.to_string());
        let (action, attributes) = (name("Action")?, name("Attributes")?);
        Ok(Self {
            agent: name("Agent")?,
            vendor: name("Vendor")?,
            pay: uid(&action, "pay"),
            facts: uid(&attributes, "facts"),
            claims: uid(&attributes, "claims"),
        })
    }

    /// The question and the entities it is about.
    pub(crate) fn of(&self, request: &SpendRequest) -> Result<(Request, Entities), String> {
        let agent = uid(&self.agent, &request.principal.agent);
        let vendor = uid(&self.vendor, &request.purchase.host);
        let mut attributes = members(names::section(request, "seller"))?;
        for (name, text) in [("host", &request.purchase.host), ("path", &request.purchase.path)] {
            attributes.insert(name.to_owned(), RestrictedExpression::new_string(text.clone()));
        }
        let entity = |uid: &EntityUid, attributes| {
            Entity::new(uid.clone(), attributes, HashSet::new()).map_err(|error| error.to_string())
        };
        let entities = [
            entity(&agent, members(names::section(request, "principal"))?)?,
            entity(&vendor, attributes)?,
            tagged(&self.facts, &request.facts)?,
            tagged(&self.claims, &request.claims)?,
        ];
        let entities = Entities::from_entities(entities, None).map_err(|error| error.to_string())?;
        let context = Context::from_pairs(self.context(request)?).map_err(|error| error.to_string())?;
        let asked = Request::new(agent, self.pay.clone(), vendor, context, None).map_err(|error| error.to_string())?;
        Ok((asked, entities))
    }

    fn context(&self, request: &SpendRequest) -> Result<Vec<(String, RestrictedExpression)>, String> {
        let mut context = Vec::new();
        for name in ["id", "purchase_id", "at", "purchase", "payment", "history"] {
            if let Some(node) = names::section(request, name) {
                context.push((name.to_owned(), value(node)?));
            }
        }
        for (name, uid) in [("facts", &self.facts), ("claims", &self.claims)] {
            context.push((name.to_owned(), RestrictedExpression::new_entity_uid(uid.clone())));
        }
        Ok(context)
    }
}

fn uid(of: &EntityTypeName, id: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(of.clone(), EntityId::new(id))
}

/// Of two with one name the first counts.
fn tagged(uid: &EntityUid, attributes: &[Attribute]) -> Result<Entity, String> {
    let mut tags = HashMap::new();
    for attribute in attributes {
        let text = || RestrictedExpression::new_string(attribute.value.clone());
        tags.entry(attribute.name.clone()).or_insert_with(text);
    }
    Entity::new_with_tags(uid.clone(), [], [], tags).map_err(|error| error.to_string())
}

/// What is not set is not there.
fn members(node: Option<Node<'_>>) -> Result<HashMap<String, RestrictedExpression>, String> {
    let Some(Node::Record(members)) = node else { return Ok(HashMap::new()) };
    let there = members.into_iter().filter_map(|(name, node)| node.map(|node| (name, node)));
    there.map(|(name, node)| Ok((name.to_owned(), value(node)?))).collect()
}

fn value(node: Node<'_>) -> Result<RestrictedExpression, String> {
    Ok(match node {
        Node::Text(text) => RestrictedExpression::new_string(text.to_owned()),
        Node::Number(number) => RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX)),
        Node::Flag(flag) => RestrictedExpression::new_bool(flag),
        Node::Texts(texts) => {
            RestrictedExpression::new_set(texts.iter().map(|text| RestrictedExpression::new_string(text.clone())))
        }
        Node::Record(_) => RestrictedExpression::new_record(members(Some(node))?).map_err(|error| error.to_string())?,
        Node::Attributes(_) => return Err("attributes are entities".to_owned()),
    })
}
