use super::super::chain::Revert;
use super::*;

const PAYEE: Address = Address::new([9; 20]);

#[test]
fn a_signed_transfer_moves_money_once() {
    let (chain, _, buyer) = chain();
    let message = buyer.message(PAYEE, 1_000, 7);
    let signature = buyer.sign(&message.digest(&token()));
    let before = chain.head().number;
    assert!(!chain.authorization_state(buyer.address(), &message.nonce));

    let hash = chain.transfer_with_authorization(&message, &signature).unwrap();
    assert_eq!(chain.balance(PAYEE), 1_000);
    assert_eq!(chain.balance(buyer.address()), 9_999_000);
    assert!(chain.authorization_state(buyer.address(), &message.nonce));
    let block = chain.block_with(&hash).unwrap();
    assert_eq!(block.transaction.as_ref().unwrap().logs.len(), 2, "AuthorizationUsed and Transfer");

    let again = chain.transfer_with_authorization(&message, &signature);
    assert_eq!(again, Err(Revert::UsedOrCanceled), "a replayed nonce");
    assert_eq!(chain.balance(PAYEE), 1_000);
    assert_eq!(chain.balance_at(PAYEE, before), 0, "the past stays as it was");
    assert!(!chain.authorization_state_at(buyer.address(), &message.nonce, before));
}

#[test]
fn the_contract_refuses() {
    let (chain, _, buyer) = chain();
    let stranger = Buyer::new(2);
    let check = |what: &str, message: TransferWithAuthorization, signer: &Buyer, want: Revert| {
        let signature = signer.sign(&message.digest(&token()));
        let got = chain.transfer_with_authorization(&message, &signature);
        assert_eq!(got, Err(want), "{what}");
        assert!(!chain.authorization_state(message.from, &message.nonce), "{what}: nothing happened");
    };
    let good = buyer.message(PAYEE, 1_000, 1);
    check("signed by another key", good, &stranger, Revert::InvalidSignature);
    check("before equals now", TransferWithAuthorization { valid_before: START, ..good }, &buyer, Revert::Expired);
    check("after equals now", TransferWithAuthorization { valid_after: START, ..good }, &buyer, Revert::NotYetValid);
    check("more than there is", buyer.message(PAYEE, 10_000_001, 1), &buyer, Revert::InsufficientBalance);
    check("payer without money", stranger.message(PAYEE, 1, 1), &stranger, Revert::InsufficientBalance);
    check("to nobody", buyer.message(Address::new([0; 20]), 1, 1), &buyer, Revert::ZeroAddress);

    let foreign = Eip712Domain { name: "USD Coin".to_owned(), ..token() };
    let signature = buyer.sign(&good.digest(&foreign));
    let got = chain.transfer_with_authorization(&good, &signature);
    assert_eq!(got, Err(Revert::InvalidSignature), "signed for another token");

    let last = TransferWithAuthorization { valid_before: START + 1, valid_after: START - 1, ..good };
    let signature = buyer.sign(&last.digest(&token()));
    assert!(chain.transfer_with_authorization(&last, &signature).is_ok(), "strictly between");
}

#[test]
fn a_cancelled_nonce_cannot_be_redeemed() {
    let (chain, _, buyer) = chain();
    let message = buyer.message(PAYEE, 1_000, 1);
    let cancel = CancelAuthorization { authorizer: buyer.address(), nonce: message.nonce };
    let forged = Buyer::new(2).sign(&cancel.digest(&token()));
    assert_eq!(chain.cancel_authorization(&cancel, &forged), Err(Revert::InvalidSignature));

    let signature = buyer.sign(&cancel.digest(&token()));
    chain.cancel_authorization(&cancel, &signature).unwrap();
    let signature = buyer.sign(&message.digest(&token()));
    assert_eq!(chain.transfer_with_authorization(&message, &signature), Err(Revert::UsedOrCanceled));
    assert_eq!(chain.balance(PAYEE), 0);
}

#[test]
fn blocks_follow_the_clock_and_finality_may_lag() {
    let (chain, watch, _) = chain();
    let first = chain.head();
    assert_eq!(chain.head(), first, "nothing happens while time stands still");
    watch.advance(600);
    let second = chain.head();
    assert_eq!((second.number, second.timestamp), (first.number + 1, START + 600));
    assert_eq!(second.parent, first.hash);
    assert_eq!(chain.finalized(), second);
    chain.set_finality_lag(1);
    assert_eq!(chain.finalized(), first);
    chain.set_finality_lag(100);
    assert_eq!(chain.finalized().number, 0);
}

#[test]
fn the_same_history_has_the_same_hashes() {
    let run = || {
        let (chain, watch, buyer) = chain();
        let message = buyer.message(PAYEE, 1_000, 1);
        watch.advance(10);
        chain.transfer_with_authorization(&message, &buyer.sign(&message.digest(&token()))).unwrap();
        chain.head().hash
    };
    assert_eq!(run(), run());
}

#[test]
fn blocks_are_mined_when_asked_for_and_time_never_goes_back() {
    let (chain, watch, buyer) = chain();
    let first = chain.head();
    let second = chain.mine();
    assert_eq!((second.number, second.timestamp, second.parent), (first.number + 1, START, first.hash));
    let ahead = chain.mine_at(START + 300);
    assert_eq!(ahead.timestamp, START + 300);
    watch.advance(100);
    assert_eq!(chain.mine().timestamp, START + 300, "no block is older than the one below");
    let message = buyer.message(PAYEE, 1_000, 1);
    let signature = buyer.sign(&message.digest(&token()));
    let late = chain.transfer_with_authorization(&message, &signature);
    assert_eq!(late, Err(Revert::Expired), "the chain's time counts, not the clock's");
}

#[test]
fn a_reorganisation_undoes_everything_above() {
    let (chain, _, buyer) = chain();
    let message = buyer.message(PAYEE, 1_000, 1);
    let signature = buyer.sign(&message.digest(&token()));
    let below = chain.head();
    let hash = chain.transfer_with_authorization(&message, &signature).unwrap();
    let undone = chain.block_with(&hash).unwrap();
    chain.mine();

    chain.reorganise(below.number);
    assert_eq!(chain.head(), below);
    assert_eq!(chain.block_with(&undone.hash), None);
    assert_eq!(chain.block_with(&hash), None);
    assert_eq!((chain.balance(PAYEE), chain.balance(buyer.address())), (0, 10_000_000));
    assert!(!chain.authorization_state(buyer.address(), &message.nonce));

    let other = chain.mine();
    assert_eq!(other.number, undone.number);
    assert_ne!(other.hash, undone.hash);
    let again = chain.transfer_with_authorization(&message, &signature).unwrap();
    assert_eq!(chain.block_with(&again).unwrap().number, undone.number + 1);
    assert_eq!(chain.balance(PAYEE), 1_000);
}

#[test]
fn money_moves_without_an_authorization_too() {
    let (chain, _, buyer) = chain();
    let hash = chain.transfer(buyer.address(), PAYEE, 3_000).unwrap();
    assert_eq!(chain.block_with(&hash).unwrap().transaction.as_ref().unwrap().logs.len(), 1, "Transfer");
    assert_eq!(chain.transfer(PAYEE, buyer.address(), 3_001), Err(Revert::InsufficientBalance));
    let twice = [chain.transfer(PAYEE, buyer.address(), 1_000), chain.transfer(PAYEE, buyer.address(), 1_000)];
    assert_ne!(twice[0], twice[1], "each is a transaction of its own");
    assert_eq!(chain.balance(PAYEE), 1_000);

    let nonce = [5; 32];
    chain.redeem_wrongly(buyer.address(), nonce, PAYEE, 7);
    assert!(chain.authorization_state(buyer.address(), &nonce));
    assert_eq!(chain.balance(PAYEE), 1_007);
}
