//! Sellers who are on the list and cheat all the same.

use super::agent::{Answer, Trouble};
use super::report::foreign;
use super::scenarios::Tale;
use super::stage::{Stage, UNKNOWN_SELLER};

/// A seller, and what an agent must get from it.
struct Attempt {
    seller: &'static str,
    status: u16,
    code: &'static str,
    state: Option<&'static str>,
}

const fn refused(seller: &'static str, status: u16, code: &'static str) -> Attempt {
    Attempt { seller, status, code, state: None }
}

const fn answered(seller: &'static str, status: u16, state: Option<&'static str>) -> Attempt {
    Attempt { seller, status, code: "", state }
}

const ATTEMPTS: [Attempt; 11] = [
    refused("look-alike-token", 422, "unpayable-offer"),
    refused("wrong-token-name", 422, "unpayable-offer"),
    refused("two-terms", 422, "unpayable-offer"),
    refused("hex-amount", 422, "unpayable-offer"),
    refused("main-net", 422, "unpayable-offer"),
    refused("burns-money", 422, "unpayable-offer"),
    refused("endless-terms", 422, "unpayable-offer"),
    refused("never-answers", 502, "seller-misbehaved"),
    answered("redirects-to-metadata", 302, None),
    answered("redirects-paid", 307, Some("unknown")),
    answered("fake-receipt", 200, Some("accepted")),
];

/// 14: none of them gets anything.
pub(super) async fn nothing_lost(stage: &Stage, tale: &mut Tale) -> Result<(), Trouble> {
    let explorer = stage.agent("explorer");
    let before = spent(stage);
    for attempt in &ATTEMPTS {
        let seller = stage.seller(attempt.seller)?;
        let answer = explorer.fetch(&seller.url("/quote"), None).await?;
        let told =
            if answer.code.is_empty() { answer.state.as_deref().unwrap_or("nothing paid") } else { &answer.code };
        let text = format!("{}, who {}: {}, {told}", seller.name(), seller.about(), answer.status);
        tale.expect(attempt.is(&answer), text);
        if !answer.detail.is_empty() {
            tale.note("why", foreign(&answer.detail));
        }
    }
    let shown = stage.seller(UNKNOWN_SELLER)?.stats().presented;
    tale.expect(shown == 0, "no redirect was followed with a payment");
    let inside = explorer.fetch(&format!("http://{}/v1/payments", stage.back), None).await?;
    tale.note("agent", "explorer asks for the gateway's own admin port");
    tale.answer(&inside);
    tale.expect(inside.is_refused(400, "egress-forbidden"), "the gateway is nobody's way to itself");
    let lost = spent(stage).saturating_sub(before);
    tale.expect(lost == 0, format!("atomic units that left the wallet: {lost}"));
    tale.prove(format!("{} sellers, {lost} atomic units lost", ATTEMPTS.len()));
    Ok(())
}

impl Attempt {
    fn is(&self, answer: &Answer) -> bool {
        (answer.status, answer.code.as_str(), answer.state.as_deref()) == (self.status, self.code, self.state)
    }
}

/// What has left the wallets, by the chain.
fn spent(stage: &Stage) -> u128 {
    stage.purses.iter().map(|p| p.minted.saturating_sub(stage.world.balance(p.address))).sum()
}
