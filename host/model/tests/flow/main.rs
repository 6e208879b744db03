//! Every state of a small world of money keeps the rules; and a host with a mistake breaks them.

#[cfg(test)]
mod explorer;
#[cfg(test)]
mod world;

#[cfg(test)]
mod tests {
    use crate::explorer::{Found, search};
    use crate::world::{Bug, Flow, Size, Step};

    /// Everything that can happen, to two payments.
    const TWO: Size = Size {
        payments: 2,
        horizon: 4,
        crashes: true,
        reorganisations: true,
        amounts: &[2, 3],
        befores: &[2, 3],
        partial: true,
        reviews: true,
        cancellations: true,
        disputes: true,
        refunds: 1,
        bug: None,
    };

    fn told(world: &Flow, found: &Found<Step>) {
        let (payments, Found { states, steps, depth, .. }) = (world.size.payments, found);
        println!("{payments} payments: {states} states, {steps} steps, at most {depth} from the first");
    }

    fn sound(size: Size) -> Flow {
        let world = Flow::new(size);
        let found = search(&world);
        told(&world, &found);
        if let Some((why, steps)) = found.broken {
            let steps: Vec<_> = steps.iter().map(ToString::to_string).collect();
            panic!("{why}\n{}", steps.join("\n"));
        }
        assert!(world.settled_all(), "no state was found in which every payment settled");
        assert!(world.capacity_back(), "no state was found in which a proven expiry gave the whole budget back");
        world
    }

    #[test]
    fn one_payment_keeps_every_rule() {
        let world = sound(Size { payments: 1, horizon: 5, befores: &[2, 3, 4], refunds: 2, ..TWO });
        assert_eq!(world.unused_rules(), Vec::<String>::new(), "the model does not reach these rows of the table");
    }

    #[test]
    fn two_payments_keep_every_rule() {
        sound(TWO);
    }

    #[test]
    fn three_payments_keep_every_rule() {
        sound(Size {
            payments: 3,
            horizon: 4,
            crashes: true,
            reorganisations: true,
            partial: false,
            reviews: false,
            cancellations: false,
            disputes: false,
            ..TWO
        });
    }

    /// The shortest way to break a rule with this mistake: `length` steps.
    fn found(bug: Bug, length: usize) {
        let world = Flow::new(Size { bug: Some(bug), ..TWO });
        let found = search(&world);
        let (why, steps) = found.broken.unwrap_or_else(|| panic!("{bug:?} was not found in {} states", found.states));
        println!("{bug:?}: {why}");
        for (n, step) in (1..).zip(&steps) {
            println!("  {n}. {step}");
        }
        assert_eq!(
            steps.len(),
            length,
            "{bug:?} is found on another way now: look whether the world has lost something"
        );
    }

    macro_rules! mistakes {
        ($($name:ident: $bug:ident in $length:literal;)*) => {
            $(
                #[test]
                fn $name() {
                    found(Bug::$bug, $length);
                }
            )*
        };
    }

    mistakes! {
        freeing_on_an_http_failure_is_found: FreesOnHttpFailure in 3;
        signing_before_it_is_durable_is_found: SignsBeforeDurable in 1;
        freeing_after_the_validity_without_asking_the_chain_is_found: FreesWithoutAskingTheChain in 8;
        freeing_by_the_local_clock_is_found: FreesByTheLocalClock in 3;
        freeing_at_the_head_is_found: FreesAtTheHead in 4;
        taking_silence_of_the_signer_for_refusal_is_found: TakesSilenceForRefusal in 2;
        freeing_on_a_second_refusal_is_found: FreesOnSecondRefusal in 5;
        a_second_nonce_is_found: SecondNonce in 4;
        settling_above_what_was_redeemed_is_found: SettlesAboveTheHold in 6;
        a_refund_booked_twice_is_found: RefundsTwice in 9;
        a_refund_booked_before_it_is_final_is_found: RefundsBeforeFinal in 8;
        believing_one_of_two_nodes_is_found: BelievesOneNode in 3;
        freeing_on_a_reorganisation_is_found: FreesOnReorganisation in 4;
        freeing_on_a_cancellation_that_is_not_final_is_found: FreesOnEarlyCancellation in 5;
        forgetting_what_was_in_flight_is_found: RecoveryForgets in 3;
        checking_without_reserving_is_found: ChecksWithoutReserving in 2;
    }
}
