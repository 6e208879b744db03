//! The table of transitions, as the manual shows it.

use std::fmt::Write as _;

use countersign_core::payment::{Effect, Event, State, TRANSITIONS};

/// What the manual calls a state.
#[must_use]
pub const fn state_name(state: State) -> &'static str {
    match state {
        State::Denied => "denied",
        State::Review => "review",
        State::Signed => "signed",
        State::Redeemable => "redeemable",
        State::Seen => "seen",
        State::Settled => "settled",
        State::Released => "released",
        State::Refunded => "refunded",
        State::Disputed => "disputed",
        State::Stuck => "stuck",
    }
}

/// What happened, in the manual's words.
#[must_use]
pub const fn event_meaning(event: Event) -> &'static str {
    match event {
        Event::Resume => "people approved, and the purchase is signed for",
        Event::Withdraw => "people said no, or nobody said yes in time, or the purchase changed",
        Event::SignerRefused => "the signer refused for certain, before any signature existed",
        Event::Ambiguous => "the paid call ended without a valid receipt",
        Event::Receipt => "a valid receipt arrived",
        Event::Redeemed => "a finalized block shows the nonce redeemed as signed",
        Event::Unused => "a finalized block shows that the nonce can never be redeemed",
        Event::Reorganised => "the block that bore the receipt out is gone",
        Event::Contradicted => "what the chain shows contradicts itself or what was signed",
        Event::Refund => "money came back",
        Event::Dispute => "somebody contests it",
        Event::Dropped => "the dispute ended, and nothing came back",
        Event::Redressed => "the dispute ended, and something had come back",
    }
}

/// What becomes of the holds, in the manual's words.
#[must_use]
pub const fn effect_meaning(effect: Effect) -> &'static str {
    match effect {
        Effect::Keep => "stay",
        Effect::Release => "go back",
        Effect::Settle => "become spent: what was redeemed; the rest goes back",
        Effect::Refund => "what came back leaves what is spent",
        Effect::Replace => "are replaced by fresh ones",
    }
}

/// The whole table in Markdown, each line ending in a line feed.
#[must_use]
pub fn markdown() -> String {
    let mut text = String::from("| from | event | to | holds |\n| --- | --- | --- | --- |\n");
    for rule in TRANSITIONS {
        let (from, to) = (state_name(rule.from), state_name(rule.to));
        let (name, meaning) = (rule.event.name(), event_meaning(rule.event));
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {from} | `{name}`: {meaning} | {to} | {} |", effect_meaning(rule.effect));
    }
    text
}
